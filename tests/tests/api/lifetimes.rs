//! The longest lifetime of an organization's tokens: it binds whoever sets an expiry, counted from
//! the creation, and leaves existing tokens as they are.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::store::lifetimes::{Days, Limited};
use shared::store::orgs::OrgChange;
use tests::management::{ACCESS_TOKENS, API_KEYS};
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// 30 days after the manual clock's start, and a second later.
const LONGEST: &str = "2026-12-21T10:00:00Z";
const TOO_LATE: &str = "2026-12-21T10:00:01Z";

async fn mint(service: &Service, org: &Org, credential: &str, kind: Limited, expires_at: Option<&str>) -> Answer {
    let (path, mut body) = match kind {
        Limited::OrgUserToken => (org.org_user_tokens(""), json!({"user_identifier": "alice"})),
        Limited::ApiKey => {
            (API_KEYS.to_owned(), json!({"name": "ci", "environment": "test", "scopes": ["org:read", "org:write"]}))
        }
        Limited::OrgAccessToken => (ACCESS_TOKENS.to_owned(), json!({"name": format!("at {expires_at:?}")})),
    };
    if let Some(expires_at) = expires_at {
        body["expires_at"] = expires_at.into();
    }
    service.post(&path, credential, &body).await
}

async fn minted(service: &Service, org: &Org, owner: &Bot, kind: Limited, expires_at: Option<&str>) -> Value {
    let answer = mint(service, org, &owner.credential, kind, expires_at).await;
    assert_eq!(answer.status, 201, "{kind:?} {expires_at:?}: {}", answer.text);
    answer.json()
}

fn plain(minted: &Value) -> &str {
    minted["token"].as_str().or(minted["key"].as_str()).unwrap()
}

#[tokio::test]
async fn what_would_outlive_the_policy_is_refused_to_the_second() {
    let service = Service::start_with_manual_clock().await;
    for &kind in Limited::ALL {
        let (org, owner) = service.org_with_owner().await;
        service.set_lifetimes(&org.id, &[(kind, 30)]).await;
        for expires_at in [None, Some(TOO_LATE), Some("9999-12-31T23:59:59Z")] {
            let answer = mint(&service, &org, &owner.credential, kind, expires_at).await;
            answer.assert_invalid("expires_at");
            assert!(answer.text.contains("30 days") && answer.text.contains(LONGEST), "{}", answer.text);
        }
        assert_eq!(minted(&service, &org, &owner, kind, Some(LONGEST)).await["expires_at"], LONGEST, "{kind:?}");
        // The other kinds are not limited.
        for &other in Limited::ALL.iter().filter(|other| **other != kind) {
            assert_eq!(minted(&service, &org, &owner, other, None).await["expires_at"], json!(null));
        }
        service.set_lifetimes(&org.id, &[(kind, 0)]).await;
        minted(&service, &org, &owner, kind, None).await;
    }
}

#[tokio::test]
async fn policy_of_another_organization_does_not_apply() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (other, _) = service.org_with_owner().await;
    let all: Vec<_> = Limited::ALL.iter().map(|kind| (*kind, 1)).collect();
    service.set_lifetimes(&other.id, &all).await;
    for &kind in Limited::ALL {
        minted(&service, &org, &owner, kind, None).await;
    }
}

#[tokio::test]
async fn existing_tokens_are_untouched() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let mut tokens = Vec::new();
    for &kind in Limited::ALL {
        tokens.push(minted(&service, &org, &owner, kind, None).await);
    }
    let all: Vec<_> = Limited::ALL.iter().map(|kind| (*kind, 1)).collect();
    service.set_lifetimes(&org.id, &all).await;
    service.clock.advance(400 * DAY);
    for token in &tokens {
        assert_eq!(service.whoami(plain(token)).await.status, 200, "{token}");
    }
}

#[tokio::test]
async fn key_that_creates_keys_and_refused_callers_are_told_apart() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let key = minted(&service, &org, &owner, Limited::ApiKey, None).await;
    service.set_lifetimes(&org.id, &[(Limited::ApiKey, 30)]).await;
    let by_key = async |expires_at| mint(&service, &org, plain(&key), Limited::ApiKey, expires_at).await;
    by_key(None).await.assert_invalid("expires_at");
    by_key(Some(TOO_LATE)).await.assert_invalid("expires_at");
    assert_eq!(by_key(Some(LONGEST)).await.status, 201);
    // A role that may not is 403, whatever the policy says, and the refusal by policy is not audited.
    let nobody = service.bot(&org, &[Role::TokenIntrospector]).await;
    mint(&service, &org, &nobody.credential, Limited::ApiKey, None).await.assert_error(403, "FORBIDDEN");
    let log = service.audit_log(&org, &owner.credential, "?action=api_key.create").await;
    let refused = log["entries"].as_array().unwrap().iter().filter(|entry| entry["outcome"] == "refused").count();
    assert_eq!(refused, 1, "{log}");
}

#[tokio::test]
async fn refused_mint_does_not_use_up_its_idempotency_key() {
    let service = Service::start_with_manual_clock().await;
    for &kind in Limited::ALL {
        let (org, owner) = service.org_with_owner().await;
        service.set_lifetimes(&org.id, &[(kind, 30)]).await;
        let (path, body) = match kind {
            Limited::OrgUserToken => (org.org_user_tokens(""), json!({"user_identifier": "alice"})),
            Limited::ApiKey => {
                (API_KEYS.to_owned(), json!({"name": "c", "environment": "test", "scopes": ["org:read"]}))
            }
            Limited::OrgAccessToken => (ACCESS_TOKENS.to_owned(), json!({"name": "relay"})),
        };
        let send = async || {
            let request = service.request(Method::POST, &path).bearer_auth(&owner.credential);
            service.send(request.header("idempotency-key", "one").json(&body)).await
        };
        send().await.assert_invalid("expires_at");
        service.set_lifetimes(&org.id, &[(kind, 0)]).await;
        assert_eq!(send().await.status, 201, "{kind:?}");
        send().await.assert_error(409, "CONFLICT");
    }
}

#[tokio::test]
async fn change_of_an_access_token_is_bound_where_it_sets_the_expiry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.access_token(&owner, &json!({"name": "relay"})).await;
    service.clock.advance(DAY);
    service.set_lifetimes(&org.id, &[(Limited::OrgAccessToken, 30)]).await;
    let path = token.path();
    let send = async |method: Method, body: Value| service.send_json(method, &path, &owner.credential, &body).await;
    // Counted from the creation, a day ago.
    for expires_at in [json!(TOO_LATE), json!("2099-01-01T00:00:00Z")] {
        send(Method::PATCH, json!({"expires_at": expires_at})).await.assert_invalid("expires_at");
        send(Method::PUT, json!({"name": "relay", "expires_at": expires_at})).await.assert_invalid("expires_at");
    }
    // It never expires already, and stays so: disabling and other changes are not bound.
    for (method, body) in [
        (Method::PATCH, json!({"is_active": false})),
        (Method::PATCH, json!({"is_active": true, "name": "renamed"})),
        (Method::PATCH, json!({"expires_at": null})),
        (Method::PUT, json!({"name": "relay", "is_active": false})),
        (Method::PUT, json!({"name": "relay"})),
        (Method::PATCH, json!({"expires_at": LONGEST})),
    ] {
        let answer = send(method.clone(), body.clone()).await;
        assert_eq!(answer.status, 200, "{method} {body}: {}", answer.text);
    }
    // Now it has an expiry, which must not go; disabling is not bound.
    send(Method::PATCH, json!({"expires_at": null})).await.assert_invalid("expires_at");
    send(Method::PUT, json!({"name": "relay"})).await.assert_invalid("expires_at");
    send(Method::PUT, json!({"name": "relay", "is_active": false})).await.assert_invalid("expires_at");
    assert_eq!(send(Method::PATCH, json!({"is_active": false})).await.status, 200);
    assert_eq!(send(Method::PUT, json!({"name": "relay", "expires_at": LONGEST})).await.status, 200);
    service.clock.advance(40 * DAY);
    let disabled = send(Method::PATCH, json!({"is_active": false})).await;
    assert_eq!((disabled.status.as_u16(), &disabled.json()["expires_at"]), (200, &json!(LONGEST)));
}

#[tokio::test]
async fn rotation_is_bound_where_it_sets_the_expiry() {
    let service = Service::start_with_manual_clock().await;
    for kind in [Limited::OrgUserToken, Limited::ApiKey] {
        let (org, owner) = service.org_with_owner().await;
        let old = minted(&service, &org, &owner, kind, None).await;
        service.set_lifetimes(&org.id, &[(kind, 30)]).await;
        let now = service.clock.now();
        let rotate = async |id: &str, body: Value| {
            let path = match kind {
                Limited::OrgUserToken => org.org_user_tokens(&format!("/by-id/{id}/rotate")),
                _ => format!("{API_KEYS}/{id}/rotate"),
            };
            service.post(&path, &owner.credential, &body).await
        };
        let (longest, too_late) = (now.plus(30 * DAY).to_string(), now.plus(30 * DAY + Duration::from_secs(1)));
        for expires_at in [json!(null), json!(too_late.to_string())] {
            rotate(text(&old, "id"), json!({"expires_at": expires_at})).await.assert_invalid("expires_at");
        }
        // Without one, the successor keeps that of the old token: here, none.
        let kept = rotate(text(&old, "id"), json!({})).await;
        assert_eq!((kept.status.as_u16(), &kept.json()["expires_at"]), (201, &json!(null)), "{}", kept.text);
        let id = text(&kept.json(), "id").to_owned();
        let bound = rotate(&id, json!({"expires_at": longest})).await;
        assert_eq!((bound.status.as_u16(), &bound.json()["expires_at"]), (201, &json!(longest)), "{}", bound.text);
        service.clock.advance(DAY);
        let id = text(&bound.json(), "id").to_owned();
        let next = rotate(&id, json!({})).await;
        assert_eq!((next.status.as_u16(), &next.json()["expires_at"]), (201, &json!(longest)), "{}", next.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_changes_of_different_limits_all_succeed() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let change = |kind, days| OrgChange { max_lifetime_days: [(kind, Days::new(days))].into(), ..OrgChange::default() };
    let mut changes: Vec<OrgChange> = Limited::ALL.iter().map(|kind| change(*kind, 30)).collect();
    changes.push(OrgChange { end_after_unused_days: Some(Days::new(7)), ..OrgChange::default() });
    changes.push(OrgChange { guard: Some(false), ..OrgChange::default() });
    let by = operator();
    let set = changes.iter().map(|change| service.store.set_org(&org.id, change, &by));
    assert!(join_all(set).await.into_iter().all(|set| set.unwrap().is_some()));
    let stored = service.store.org(&org.id).await.unwrap().unwrap();
    let policy = stored.lifetimes;
    assert!(Limited::ALL.iter().all(|kind| policy.max_days(*kind) == Days::new(30)), "{policy:?}");
    assert_eq!((policy.end_after_unused_days, stored.guard), (Days::new(7), false));
    // Taking one away leaves the others, and nothing of its own behind.
    service.set_lifetimes(&org.id, &[(Limited::ApiKey, 0)]).await;
    let items = service.table.items().await;
    let item = items.iter().find(|item| item["sk"] == "ORG").unwrap();
    assert!(item.get("max_days_api_key").is_none() && item["max_days_org_user_token"] == 30, "{item}");
}
