//! API Gateway's authorizer, and `GET /v1/whoami` behind it.

use std::future::pending;
use std::net::Ipv4Addr;
use std::time::Duration;

use axum::Router;
use reqwest::{Method, header};
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::{ApiError, App};
use tests::coverage::Refusal;
use tests::faults::Fault;
use tests::{Bot, Org, Service};
use tokio::net::TcpListener;

/// One active credential of each kind, and the expected description of its holder.
async fn holders(service: &Service, org: &Org, owner: &Bot) -> Vec<(String, Value)> {
    service.projects(org, &["greenhouse", "coldroom"]).await;
    let bot = service.bot(org, &[Role::TokenIntrospector, Role::ApiKeyManager]).await;
    let user = service.issue_until(org, owner, "alice-laptop", "2099-01-01T00:00:00Z").await;
    let lasting_user = service.issue(org, owner, "bobby-laptop").await;
    let key = json!({
        "name": "ci", "environment": "live", "scopes": ["org:read", "shield:write"],
        "expires_at": "2099-01-01T09:00:00+09:00",
    });
    let key = service.api_key_with(&owner.credential, &key).await;
    let access = json!({
        "name": "relay", "expires_at": "2099-01-01T00:00:00Z",
        "access_config": {"role": "operator", "projects": ["coldroom", "greenhouse"]},
    });
    let access = service.access_token(owner, &access).await;
    let manager = json!({"name": "all", "access_config": {"role": "manager", "all_projects": true}});
    let manager = service.access_token(owner, &manager).await;
    let without_projects = service.access_token(owner, &json!({"name": "nowhere"})).await;
    let person = service.email_token("alice@example.com").await;
    let person_id = service.call(Method::GET, "/api/v1/tokens/status", &person).await.json()["id"].clone();
    let (org, expires_at) = (&org.id, "2099-01-01T00:00:00Z");
    vec![
        (
            bot.credential,
            json!({
                "kind": "bot", "id": bot.id, "org_id": org,
                "roles": ["organization/token_introspector", "organization/api_key_manager"],
            }),
        ),
        (
            owner.credential.clone(),
            json!({"kind": "bot", "id": owner.id, "org_id": org, "roles": ["organization/owner"]}),
        ),
        (
            user.token,
            json!({
                "kind": "org_user_token", "id": user.id, "org_id": org, "user_identifier": "alice-laptop",
                "expires_at": expires_at,
            }),
        ),
        (
            lasting_user.token,
            json!({
                "kind": "org_user_token", "id": lasting_user.id, "org_id": org, "user_identifier": "bobby-laptop",
            }),
        ),
        (
            key.key,
            json!({
                "kind": "api_key", "id": key.id, "org_id": org, "environment": "live", "scopes": ["org:read", "shield:write"],
                "expires_at": expires_at,
            }),
        ),
        (
            access.token,
            json!({
                "kind": "org_access_token", "id": 1, "org_id": org, "role": "operator",
                "projects": ["coldroom", "greenhouse"], "expires_at": expires_at,
            }),
        ),
        (
            manager.token,
            json!({"kind": "org_access_token", "id": 2, "org_id": org, "role": "manager", "projects": ["*"]}),
        ),
        (
            without_projects.token,
            json!({"kind": "org_access_token", "id": 3, "org_id": org, "role": "readonly", "projects": []}),
        ),
        (person, json!({"kind": "email_token", "id": person_id})),
    ]
}

/// Inactive credentials, one for each reason.
async fn bad_credentials(service: &Service, org: &Org, owner: &Bot) -> Vec<String> {
    let revoked_user = service.issue(org, owner, "gone").await;
    service.revoke(org, owner, &revoked_user).await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    service.revoke_api_key(&owner.credential, &key.id).await;
    let off = service.access_token(owner, &json!({"name": "off", "is_active": false})).await;
    let person = service.email_token("bobby@example.com").await;
    assert_eq!(service.call(Method::DELETE, "/api/v1/tokens", &person).await.status, 204);
    let expired = service.issue_until(org, owner, "gone", "2026-11-21T10:00:01Z").await;
    service.clock.advance(Duration::from_secs(1));
    let (bot_key, bot_id) = owner.credential.split_once(':').unwrap();
    let other = service.bot(org, &[Role::Owner]).await;
    vec![
        revoked_user.token,
        key.key,
        off.token,
        person,
        expired.token.clone(),
        tests::coverage::mistyped(&expired.token),
        bot_key.to_owned(),
        format!("{bot_key}:{}", other.id),
        format!(":{bot_id}"),
        "nonsense".to_owned(),
    ]
}

/// An authorizer event as API Gateway sends it (payload version 2.0).
fn event(headers: &[(&str, &str)]) -> Value {
    let headers: Value = headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "version": "2.0",
        "type": "REQUEST",
        "routeArn": "arn:aws:execute-api:eu-central-1:123456789012:abcdef1234/$default/GET/v1/whoami",
        "identitySource": [headers["authorization"]],
        "routeKey": "GET /v1/whoami",
        "rawPath": "/v1/whoami",
        "rawQueryString": "",
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef1234",
            "domainName": "guard.example.com",
            "http": {
                "method": "GET", "path": "/v1/whoami", "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7",
                "userAgent": "curl/8",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "GET /v1/whoami",
            "stage": "$default",
            "time": "21/Nov/2026:10:00:00 +0000",
            "timeEpoch": 1_795_255_200_000_i64,
        },
    })
}

/// Invokes the authorizer function.
async fn decide(app: &App, event: Value) -> Result<Value, ApiError> {
    let event = serde_json::from_value(event).unwrap();
    tokens_authorize::handle(app.clone(), event).await.map(|decision| serde_json::to_value(decision).unwrap())
}

fn app(service: &Service) -> App {
    App::new(service.store.clone(), service.clock.clone())
}

#[tokio::test]
async fn whoami_describes_every_kind_of_credential() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for (credential, expected) in holders(&service, &org, &owner).await {
        let answer = service.whoami(&credential).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn whoami_refuses_inactive_and_missing_credentials() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let none = service.send(service.request(Method::GET, "/v1/whoami")).await;
    Refusal::MissingToken.assert(&none, "no credential");
    let basic = service.request(Method::GET, "/v1/whoami").basic_auth("token", Some("x"));
    Refusal::MissingToken.assert(&service.send(basic).await, "basic");
    for credential in bad_credentials(&service, &org, &owner).await {
        Refusal::InvalidToken.assert(&service.whoami(&credential).await, &credential);
    }
    service.call(Method::GET, "/v1/whoami?verbose=1", &owner.credential).await.assert_invalid("verbose");
    // A caller cannot supply the authorizer's context itself.
    let forged = service.request(Method::GET, "/v1/whoami").header("x-amzn-request-context", "{}");
    Refusal::MissingToken.assert(&service.send(forged).await, "forged context");
}

#[tokio::test]
async fn authorizer_context_matches_whoami() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let app = app(&service);
    for (credential, expected) in holders(&service, &org, &owner).await {
        for scheme in ["Bearer", "bearer"] {
            let authorization = format!("{scheme} {credential}");
            let event = event(&[("accept", "*/*"), ("authorization", &authorization), ("host", "guard.example.com")]);
            let decision = decide(&app, event).await.unwrap();
            assert_eq!(decision, json!({"isAuthorized": true, "context": expected}));
        }
    }
}

#[tokio::test]
async fn authorizer_denies_inactive_credentials_without_context() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let app = app(&service);
    let mut refused = vec![
        event(&[]),
        event(&[("authorization", "")]),
        event(&[("authorization", "Bearer")]),
        event(&[("authorization", &format!("Basic {}", owner.credential))]),
        event(&[("authorization", &owner.credential)]),
        // API Gateway joins repeated headers.
        event(&[("authorization", &format!("Bearer {0},Bearer {0}", owner.credential))]),
        event(&[("authorization", "Bearer \n")]),
        event(&[("authorization", "Bearer é")]),
        event(&[("x-authorization", &format!("Bearer {}", owner.credential))]),
        event(&[
            ("authorization", &format!("Bearer {}", owner.credential)),
            ("Authorization", &format!("Bearer {}", owner.credential)),
        ]),
        json!({}),
    ];
    for credential in bad_credentials(&service, &org, &owner).await {
        refused.push(event(&[("authorization", &format!("Bearer {credential}"))]));
    }
    for event in refused {
        assert_eq!(decide(&app, event.clone()).await.unwrap(), json!({"isAuthorized": false}), "{event}");
    }
}

#[tokio::test]
async fn authorizer_denies_a_token_right_after_revocation() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    let app = app(&service);
    let event = event(&[("authorization", &format!("Bearer {}", key.key))]);
    assert_eq!(decide(&app, event.clone()).await.unwrap()["isAuthorized"], true);
    service.revoke_api_key(&owner.credential, &key.id).await;
    assert_eq!(decide(&app, event).await.unwrap(), json!({"isAuthorized": false}));
}

#[tokio::test]
async fn authorizer_fails_closed_when_the_table_is_unavailable() {
    let (service, faults) = Service::start_with_faults().await;
    let (_, owner) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    let app = App::new(
        shared::store::Store::new(faults.client(), tests::table::TABLE, service.clock.clone()),
        service.clock.clone(),
    );
    faults.arm(0, &[], Some(Fault::ServerError));
    let event = event(&[("authorization", &format!("Bearer {}", key.key))]);
    // The function fails instead of deciding, so API Gateway returns 500.
    assert!(matches!(decide(&app, event.clone()).await, Err(ApiError::Unavailable)));
    service.whoami(&key.key).await.assert_error(503, "SERVICE_UNAVAILABLE");
    faults.disarm();
    assert_eq!(decide(&app, event).await.unwrap()["isAuthorized"], true);
}

#[tokio::test]
async fn whoami_without_authorizer_context_is_403() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}/v1/whoami", listener.local_addr().unwrap());
    // The function as deployed, without an authorizer in front.
    let router = shared::observe::observed(Router::from(tokens_whoami::routes()));
    tokio::spawn(local::api::serve(listener, router, pending()));
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    for credential in [&owner.credential, "nonsense"] {
        let request = reqwest::Client::new().get(&url).header(header::AUTHORIZATION, format!("Bearer {credential}"));
        service.send(request).await.assert_error(403, "FORBIDDEN");
    }
}
