//! An authenticated call is a use of its credential, also if it is refused: the first one of a
//! successor ends what it replaces.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::store::rotation::MAX_OVERLAP;
use tests::coverage::Fixtures;
use tests::faults::{Call, Fault};
use tests::management::{ACCESS_TOKENS, API_KEYS};
use tests::table::text;
use tests::upstream::Registry;
use tests::{Answer, Bot, Org, Service, operator};

const STATUS: &str = "/api/v1/tokens/status";
const SCIM_USERS: &str = "/scim/v2/Users";

/// A kind of credential that can be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    ApiKey,
    BotKey,
}

/// A credential and its successor, which was never used.
struct Pair {
    old: String,
    new: String,
}

impl Pair {
    async fn of(service: &Service, org: &Org, owner: &Bot, kind: Kind) -> Self {
        let (old, path) = match kind {
            Kind::User => {
                let old = service.issue(org, owner, "alice").await;
                (old.token, org.org_user_tokens(&format!("/by-id/{}/rotate", old.id)))
            }
            Kind::ApiKey => {
                let old = service.api_key(&owner.credential, &["org:read"]).await;
                (old.key, format!("{API_KEYS}/{}/rotate", old.id))
            }
            Kind::BotKey => {
                let old = service.bot(org, &[Role::TokenIntrospector]).await;
                let by = &operator();
                let rotated = service.store.rotate_bot_key_until(&old.id, MAX_OVERLAP, true, None, by).await;
                let (_, key) = rotated.unwrap().unwrap();
                return Self { new: format!("{}:{}", key.expose(), old.id), old: old.credential };
            }
        };
        let answer = service.post(&path, &owner.credential, &json!({"until_first_use": true})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let body = answer.json();
        Self { old, new: body["token"].as_str().or(body["key"].as_str()).unwrap().to_owned() }
    }
}

async fn works(service: &Service, credential: &str) -> bool {
    let answer = service.whoami(credential).await;
    assert!([200, 401].contains(&answer.status.as_u16()), "{}", answer.text);
    answer.status == 200
}

#[tokio::test]
async fn refused_call_of_a_successor_ends_what_it_replaces() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    let (org, owner) = (&fixtures.org, &fixtures.owner);
    let (other, _) = service.org_with_owner().await;
    let (bots_only, foreign) = (org.org_user_tokens(""), other.org_user_tokens(""));
    let other_token = format!("/npm/-/user/token/{}", fixtures.token.token);
    let token_in_path = format!("/npm/-/npm/v1/tokens/token/{}", fixtures.token.token);
    let token_of_pypi = format!("/pypi/simple/{}/a", fixtures.token.token);
    for (kind, method, path, status) in [
        // Of a kind that may not call.
        (Kind::ApiKey, Method::GET, bots_only.as_str(), 403),
        (Kind::ApiKey, Method::GET, ACCESS_TOKENS, 403),
        (Kind::ApiKey, Method::GET, SCIM_USERS, 403),
        (Kind::ApiKey, Method::GET, STATUS, 403),
        (Kind::ApiKey, Method::GET, "/npm/widgets", 403),
        (Kind::ApiKey, Method::GET, "/pypi/simple/widgets/", 403),
        (Kind::ApiKey, Method::DELETE, &other_token, 403),
        (Kind::User, Method::GET, &bots_only, 403),
        (Kind::User, Method::GET, API_KEYS, 403),
        (Kind::User, Method::GET, STATUS, 403),
        (Kind::BotKey, Method::GET, STATUS, 403),
        (Kind::BotKey, Method::GET, "/npm/widgets", 403),
        (Kind::BotKey, Method::DELETE, &other_token, 403),
        // Without the scope or role, or of another organization.
        (Kind::ApiKey, Method::DELETE, "/v1/api-keys/01KAJ8M4R2X7Z9V5T3Q1N6P8WC", 403),
        (Kind::BotKey, Method::GET, API_KEYS, 403),
        (Kind::BotKey, Method::GET, &foreign, 403),
        // At a registry, for other reasons.
        (Kind::User, Method::GET, "/npm/-/v1/search?text=widgets", 404),
        (Kind::User, Method::GET, "/npm/widgets/a/b", 400),
        (Kind::User, Method::PUT, "/npm/widgets", 405),
        (Kind::User, Method::GET, &token_in_path, 400),
        (Kind::User, Method::DELETE, &other_token, 403),
        (Kind::User, Method::GET, "/pypi/simple/", 404),
        (Kind::User, Method::GET, "/pypi/no/such/page", 400),
        (Kind::User, Method::POST, "/pypi/simple/widgets/", 405),
        (Kind::User, Method::GET, &token_of_pypi, 400),
    ] {
        let pair = Pair::of(&service, org, owner, kind).await;
        let answer = service.call(method.clone(), path, &pair.new).await;
        assert_eq!(answer.status, status, "{kind:?} {method} {path}: {}", answer.text);
        assert!(!works(&service, &pair.old).await, "{kind:?} {method} {path}: the old one works");
        assert!(works(&service, &pair.new).await);
    }
}

#[tokio::test]
async fn registry_request_without_guard_is_a_first_use() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let (org, owner) = service.org_with_owner().await;
    let pair = Pair::of(&service, &org, &owner, Kind::User).await;
    service.set_guard(&org.id, false).await;
    let refused = service.call(Method::GET, "/npm/widgets", &pair.new).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (403, &json!("SUBSCRIPTION_REQUIRED")));
    assert!(!works(&service, &pair.old).await && works(&service, &pair.new).await);
}

fn is_use(call: &Call) -> bool {
    call.operation == "UpdateItem"
        && call.request["UpdateExpression"].as_str().is_some_and(|sets| sets.contains("last"))
}

#[tokio::test]
async fn refusal_of_a_first_use_that_is_not_written_is_503_and_of_other_uses_stays_403() {
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_with_registries_and_faults(registry.settings()).await;
    let (org, owner) = service.org_with_owner().await;
    let refused = |kind: Kind| match kind {
        Kind::User => ("/npm/-/v1/search", 404),
        Kind::ApiKey => (STATUS, 403),
        Kind::BotKey => ("/npm/widgets", 403),
    };
    for kind in [Kind::User, Kind::ApiKey, Kind::BotKey] {
        let (path, status) = refused(kind);
        let pair = Pair::of(&service, &org, &owner, kind).await;
        faults.arm_where(is_use, &[], Some(Fault::ServerError));
        let answer: Answer = service.call(Method::GET, path, &pair.new).await;
        faults.disarm();
        assert_eq!(answer.status, 503, "{kind:?}: {}", answer.text);
        assert!(works(&service, &pair.old).await, "{kind:?}");
        // What replaces nothing.
        service.clock.advance(Duration::from_secs(60));
        faults.arm_where(is_use, &[], Some(Fault::ServerError));
        let answer = service.call(Method::GET, path, &pair.old).await;
        let calls = faults.take_calls();
        assert_eq!(answer.status, status, "{kind:?}: {}", answer.text);
        assert!(kind == Kind::BotKey || calls.iter().any(is_use), "{kind:?}: nothing was to be written");
    }
}

#[tokio::test]
async fn refused_calls_keep_a_token_from_ending_unused() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.end_unused(&org.id, 1).await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    for _ in 0..3 {
        service.clock.advance(Duration::from_secs(23 * 60 * 60));
        service.call(Method::GET, &org.org_user_tokens(""), &key.key).await.assert_error(403, "FORBIDDEN");
    }
    let listed: Value = service.api_keys(&owner.credential, "").await["api_keys"][0].clone();
    assert_eq!(text(&listed, "last_used_at"), service.clock.now().to_string());
}
