//! Refused calls that create tokens: the first ones of a minute are 403 and audited, the others are
//! 429, so that nobody can flood an organization's audit log.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Plan;
use shared::permissions::Role;
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

const API_KEYS: &str = "/v1/api-keys";

/// The three calls that create tokens.
async fn create(service: &Service, org: &Org, which: usize, credential: &str) -> Answer {
    let (path, body) = match which % 3 {
        0 => (org.org_user_tokens(""), json!({"user_identifier": "alice"})),
        1 => (API_KEYS.to_owned(), json!({"name": "ci", "environment": "live", "scopes": ["org:read"]})),
        _ => ("/api/v2/organization/tokens/".to_owned(), json!({"name": format!("device{which}")})),
    };
    service.post(&path, credential, &body).await
}

async fn refusals(service: &Service, org: &Org) -> Vec<Value> {
    let mut entries = service.table.audit_entries(&org.id).await;
    entries.retain(|entry| entry["outcome"] == "refused");
    entries
}

#[track_caller]
fn assert_limited(answer: &Answer, seconds: &str) {
    answer.assert_error(429, "RATE_LIMITED");
    assert_eq!(answer.header("retry-after"), seconds);
}

#[tokio::test]
async fn eleventh_refusal_in_a_minute_is_429_and_leaves_no_entry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let powerless = service.bot(&org, &[Role::TokenIntrospector]).await;
    service.clock.advance(Duration::from_secs(15));
    for n in 0..10 {
        create(&service, &org, n, &powerless.credential).await.assert_error(403, "FORBIDDEN");
    }
    // All three count together.
    for n in 0..6 {
        assert_limited(&create(&service, &org, n, &powerless.credential).await, "45");
    }
    assert_eq!(refusals(&service, &org).await.len(), 10);
    // Other principals, and other calls of this one, are not concerned.
    let other = service.bot(&org, &[]).await;
    create(&service, &org, 0, &other.credential).await.assert_error(403, "FORBIDDEN");
    let list = service.call(Method::GET, &org.org_user_tokens(""), &powerless.credential).await;
    list.assert_error(403, "FORBIDDEN");
    assert_eq!(create(&service, &org, 0, &owner.credential).await.status, 201);
    service.clock.advance(Duration::from_secs(45));
    create(&service, &org, 0, &powerless.credential).await.assert_error(403, "FORBIDDEN");
    assert_eq!(refusals(&service, &org).await.len(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_refusals_leaves_ten_entries() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let powerless = service.bot(&org, &[]).await;
    let answers = join_all((0..150).map(|n| create(&service, &org, n, &powerless.credential))).await;
    let (forbidden, limited): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 403);
    assert_eq!((forbidden.len(), limited.len()), (10, 140));
    limited.into_iter().for_each(|answer| assert_limited(answer, "60"));
    assert_eq!(refusals(&service, &org).await.len(), 10);
}

#[tokio::test]
async fn call_that_succeeds_is_never_429_for_refusals() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Free).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(service.api_key(&owner.credential, &["org:write"]).await);
    }
    // Guard off, the plan's limit, and more scopes than its own: each is a refusal.
    service.set_guard(&org.id, false).await;
    for _ in 0..5 {
        create(&service, &org, 0, &owner.credential).await.assert_error(403, "SUBSCRIPTION_REQUIRED");
        create(&service, &org, 1, &owner.credential).await.assert_error(403, "PLAN_LIMIT_REACHED");
    }
    for n in 0..2 {
        assert_limited(&create(&service, &org, n, &owner.credential).await, "60");
    }
    for _ in 0..10 {
        create(&service, &org, 1, &keys[0].key).await.assert_error(403, "FORBIDDEN");
    }
    assert_limited(&create(&service, &org, 1, &keys[0].key).await, "60");
    service.revoke_api_key(&owner.credential, &keys[1].id).await;
    service.set_guard(&org.id, true).await;
    for n in 0..3 {
        let answer = create(&service, &org, n, &owner.credential).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    service.revoke_api_key(&owner.credential, &keys[2].id).await;
    let weaker = json!({"name": "ci", "environment": "live", "scopes": ["org:write"]});
    assert_eq!(service.post(API_KEYS, &keys[0].key, &weaker).await.status, 201);
}

#[tokio::test]
async fn unauthorized_call_never_counts_as_refusal() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let bot: Bot = service.bot(&org, &[]).await;
    let old = bot.credential.clone();
    let key = service.store.rotate_bot_key(&bot.id, None, &operator()).await.unwrap().unwrap();
    for n in 0..20 {
        create(&service, &org, n, &old).await.assert_error(401, "UNAUTHORIZED");
    }
    assert!(service.table.items().await.iter().all(|item| !text(item, "pk").starts_with("REFUSED#")));
    let new = format!("{}:{}", key.expose(), bot.id);
    create(&service, &org, 0, &new).await.assert_error(403, "FORBIDDEN");
}
