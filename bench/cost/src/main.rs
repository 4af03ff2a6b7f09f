//! The DynamoDB capacity of each call, for organizations of the given sizes. Prints JSON;
//! `bench/run` computes prices.
//!
//! ```text
//! cost 10 1000 100000
//! ```
//!
//! Calls the whole service over HTTP, on the embedded DynamoDB, and reports the cost that the
//! service logs. Tokens after the first are copied directly into the table, since issuing them
//! would take minutes.

#![allow(clippy::unwrap_used)] // A benchmark may panic.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};
use shared::app::Limits;
use shared::domain::LeakPolicy;
use tests::ci::EXCHANGE;
use tests::coverage::Fixtures;
use tests::management::{ACCESS_TOKENS, API_KEYS, INTROSPECT};
use tests::scanner::{CURRENT, scanned};
use tests::upstream::Registry;
use tests::{Answer, Service};

#[tokio::main]
async fn main() {
    let mut found = Map::new();
    for size in std::env::args().skip(1) {
        found.insert(size.clone(), Value::Array(calls(size.parse().unwrap()).await));
    }
    println!("{}", Value::Object(found));
}

/// Makes every call once, in an organization of this size.
async fn calls(size: usize) -> Vec<Value> {
    let registry = Registry::with_widgets().await;
    // Rate limits stay on: their counters cost too.
    let limits = Limits { registration_time: Duration::ZERO, sign_in_time: Duration::ZERO, ..Limits::default() };
    let service = Service::start_with_registries_and_limits(registry.settings(), limits).await;
    service.table.skip_final_check();
    let mut calls = Calls { service, found: Vec::new() };
    let fixtures = fill(&calls.service, size).await;
    of_organizations(&mut calls, &fixtures).await;
    of_leaks(&mut calls, &fixtures).await;
    of_registries(&mut calls, &fixtures).await;
    of_people(&mut calls, &fixtures).await;
    calls.found
}

/// Creates fixtures and gives their organization this many org user tokens.
async fn fill(service: &Service, size: usize) -> Fixtures {
    let fixtures = Fixtures::create(service).await;
    let original = service.issue(&fixtures.org, &fixtures.owner, "person").await;
    let identifiers = (2..size).map(|number| format!("person-{number:06}")).collect();
    service.table.copies(&original, identifiers).await;
    fixtures
}

/// The calls so far.
struct Calls {
    service: Service,
    found: Vec<Value>,
}

impl Calls {
    /// Makes a call and records its cost.
    async fn call(&mut self, operation: &str, what: &str, request: RequestBuilder) -> Answer {
        let answer = self.service.send(request).await;
        assert!(!answer.status.is_client_error() && !answer.status.is_server_error(), "{operation}: {}", answer.text);
        let cost = answer.cost();
        let figures = json!({"read": cost.read, "write": cost.write, "calls": cost.calls});
        self.found.push(json!({"operation": operation, "what": what, "cost": figures}));
        answer
    }

    /// Makes a call with a credential.
    async fn of(
        &mut self,
        who: &str,
        operation: &str,
        what: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let request = self.service.request(method, path).bearer_auth(who);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        self.call(operation, what, request).await
    }
}

async fn of_organizations(calls: &mut Calls, fixtures: &Fixtures) {
    let (owner, path) = (fixtures.owner.credential.as_str(), |rest: &str| fixtures.org.org_user_tokens(rest));
    let token = fixtures.token.token.as_str();
    // Whoami itself reads nothing, so this is the cost of the authorizer.
    let first = "a token, its first use in a minute";
    calls.of(token, "tokens-authorize", first, Method::GET, "/v1/whoami", None).await;
    calls.of(token, "tokens-authorize", "a token", Method::GET, "/v1/whoami", None).await;
    let body = json!({ "token": token });
    calls.of(owner, "tokens-introspect", "a token", Method::POST, INTROSPECT, Some(body.clone())).await;

    calls.of(owner, "org-user-tokens-probe", "a token", Method::POST, &path("/probe"), Some(body)).await;
    let new = json!({"user_identifier": "somebody"});
    let issued = calls.of(owner, "org-user-tokens-issue", "a token", Method::POST, &path(""), Some(new.clone())).await;
    calls.of(owner, "org-user-tokens-list", "10 tokens", Method::GET, &path("?limit=10"), None).await;
    let id = issued.json()["id"].as_str().unwrap().to_owned();
    let by_id = path(&format!("/by-id/{id}"));
    calls.of(owner, "org-user-tokens-revoke", "a token", Method::DELETE, &by_id, None).await;
    let answer = calls.service.post(&path(""), owner, &new).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let by_user = path("/revoke-by-user");
    calls.of(owner, "org-user-tokens-revoke-by-user", "one token", Method::POST, &by_user, Some(new)).await;

    let new = json!({"name": "ci", "environment": "test", "scopes": ["fleet:read"]});
    let key = calls.of(owner, "api-keys-create", "a key", Method::POST, API_KEYS, Some(new)).await;
    calls.of(owner, "api-keys-list", "2 keys", Method::GET, API_KEYS, None).await;
    let by_id = format!("{API_KEYS}/{}", key.json()["id"].as_str().unwrap());
    calls.of(owner, "api-keys-revoke", "a key", Method::DELETE, &by_id, None).await;

    let new = json!({"name": "relay"});
    let made = calls.of(owner, "org-access-tokens-create", "a token", Method::POST, ACCESS_TOKENS, Some(new)).await;
    calls.of(owner, "org-access-tokens-list", "2 tokens", Method::GET, ACCESS_TOKENS, None).await;
    let by_id = format!("{ACCESS_TOKENS}{}/", made.json()["id"]);
    let change = json!({"access_config": {"role": "operator"}});
    calls.of(owner, "org-access-tokens-update", "its role", Method::PATCH, &by_id, Some(change)).await;
    calls.of(owner, "org-access-tokens-delete", "a token", Method::DELETE, &by_id, None).await;

    let users = "/scim/v2/Users";
    let new = json!({"userName": "somebody@example.com"});
    calls.of(owner, "scim-users-create", "an invitation", Method::POST, users, Some(new)).await;
    calls.of(owner, "scim-users-list", "2 users", Method::GET, users, None).await;
    let by_id = format!("{users}/{}", fixtures.employee.id);
    calls.of(owner, "scim-users-get", "a user", Method::GET, &by_id, None).await;
    let change = json!({"Operations": [{"op": "replace", "value": {"active": false}}]});
    calls.of(owner, "scim-users-update", "a member who leaves", Method::PATCH, &by_id, Some(change)).await;
    calls.of(owner, "scim-users-delete", "a user", Method::DELETE, &by_id, None).await;

    let claims = calls.service.new_claims();
    let id_token = calls.service.issuer.sign(&claims);
    let body = json!({"bot_id": fixtures.owner.id.as_str(), "id_token": id_token});
    let exchange = calls.service.request(Method::POST, EXCHANGE).json(&body);
    calls.call("bots-exchange", "an ID token", exchange).await;

    let log = fixtures.org.audit_log("?limit=10");
    calls.of(owner, "audit-log-list", "10 entries", Method::GET, &log, None).await;
}

async fn of_leaks(calls: &mut Calls, fixtures: &Fixtures) {
    let (org, owner) = (&fixtures.org, &fixtures.owner);
    calls.service.set_leaks(&org.id, &["security@example.com"], LeakPolicy::Revoke).await;
    let leaked = calls.service.issue(org, owner, "somebody").await.token;
    let body = json!({"tokens": [{"token": leaked, "url": "https://example.com/"}]});
    let report = calls.service.request(Method::POST, "/v1/tokens/leaked").json(&body);
    calls.call("tokens-leaked", "a token, and a mail", report).await;
    let leaked = calls.service.issue(org, owner, "somebody").await.token;
    let report = calls.service.signed(&CURRENT, &scanned(&[&leaked]).to_string());
    calls.call("integrations-github-secret-scanning", "a token", report).await;
    let own = calls.service.issue(org, owner, "somebody").await.token;
    calls.of(&own, "tokens-revoke-self", "a token", Method::DELETE, "/v1/tokens/self", None).await;
}

async fn of_registries(calls: &mut Calls, fixtures: &Fixtures) {
    let token = fixtures.token.token.as_str();
    // Warms the cache of Guard's state, which lasts a minute.
    calls.service.call(Method::GET, "/npm/widgets", token).await;
    calls.of(token, "registry-npm", "metadata", Method::GET, "/npm/widgets", None).await;
    let file = calls.service.request(Method::GET, "/npm/widgets/-/widgets-1.0.0.tgz").bearer_auth(token);
    calls.call("registry-npm", "a file", file.header("npm-session", "1")).await;
    calls.of(token, "registry-pypi", "metadata", Method::GET, "/pypi/simple/widgets/", None).await;
    let file = "/pypi/files/widgets/-/packages/widgets-1.0-py3-none-any.whl";
    calls.of(token, "registry-pypi", "a file", Method::GET, file, None).await;
    let log = fixtures.org.installations("?limit=10");
    calls.of(&fixtures.owner.credential, "installations-list", "2 entries", Method::GET, &log, None).await;
    let logout = format!("/npm/-/user/token/{token}");
    calls.of(token, "registry-npm-logout", "a token", Method::DELETE, &logout, None).await;
}

async fn of_people(calls: &mut Calls, fixtures: &Fixtures) {
    let json = |method, path, body: Value| calls.service.request(method, path).json(&body);
    let new = json(Method::POST, "/api/v1/tokens", json!({"email": "somebody@example.com"}));
    let reset =
        json(Method::POST, "/api/v1/tokens/reset", json!({"email": fixtures.email, "code": fixtures.reset_code}));
    calls.call("email-tokens-register", "a new address", new).await;
    let key = fixtures.email_token.as_str();
    calls.of(key, "email-tokens-status", "a token", Method::GET, "/api/v1/tokens/status", None).await;
    let told = calls.call("email-tokens-reset", "with a code", reset).await.json();
    let key = told["token"].as_str().unwrap();
    let other =
        calls.of(key, "email-tokens-regenerate", "a token", Method::POST, "/api/v1/tokens/regenerate", None).await;
    let told = other.json();
    let key = told["token"].as_str().unwrap();
    calls.of(key, "email-tokens-revoke", "a token", Method::DELETE, "/api/v1/tokens", None).await;
}
