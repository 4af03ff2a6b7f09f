//! Changes of bots, organizations and tokens while in use: each takes effect before its response is
//! sent.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use shared::permissions::Role;
use tests::{Bot, Org, Service, operator};

async fn status(service: &Service, org: &Org, credential: &str) -> u16 {
    status_of(service, &org.org_user_tokens(""), credential).await
}

async fn status_of(service: &Service, path: &str, credential: &str) -> u16 {
    service.call(Method::GET, path, credential).await.status.as_u16()
}

/// Calls repeatedly with a credential while an action runs. Returns the statuses of the calls that
/// started before the action finished, those of the calls after, and the action's result.
async fn while_doing<T>(
    service: &Service,
    org: &Org,
    credential: &str,
    action: impl Future<Output = T>,
) -> (Vec<u16>, Vec<u16>, T) {
    while_calling(service, &org.org_user_tokens(""), credential, action).await
}

/// As [`while_doing`], with calls of this path.
async fn while_calling<T>(
    service: &Service,
    path: &str,
    credential: &str,
    action: impl Future<Output = T>,
) -> (Vec<u16>, Vec<u16>, T) {
    let done = std::sync::atomic::AtomicBool::new(false);
    let caller = async || {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        while after.len() < 3 {
            let was_done = done.load(std::sync::atomic::Ordering::SeqCst);
            let status = status_of(service, path, credential).await;
            if was_done { after.push(status) } else { before.push(status) }
        }
        (before, after)
    };
    let callers = join_all((0..4).map(|_| caller()));
    let action = async {
        // Starts after the callers have begun.
        status_of(service, path, credential).await;
        let result = action.await;
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        result
    };
    let (statuses, result) = futures::future::join(callers, action).await;
    let (before, after): (Vec<Vec<u16>>, Vec<Vec<u16>>) = statuses.into_iter().unzip();
    (before.concat(), after.concat(), result)
}

#[track_caller]
fn assert_all(statuses: &[u16], expected: &[u16]) {
    assert!(!statuses.is_empty());
    assert!(statuses.iter().all(|status| expected.contains(status)), "{statuses:?} among {expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_rotated_with_overlap_works_throughout() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let operator = operator();
    let rotation = service.store.rotate_bot_key(&owner.id, Some(Duration::from_secs(3_600)), &operator);
    let (before, after, rotated) = while_doing(&service, &org, &owner.credential, rotation).await;
    assert_all(&[before, after].concat(), &[200]);
    let new = format!("{}:{}", rotated.unwrap().unwrap().expose(), owner.id);
    assert_eq!(status(&service, &org, &new).await, 200);
    // A second rotation without overlap invalidates both earlier keys.
    let newest = service.store.rotate_bot_key(&owner.id, None, &operator).await.unwrap().unwrap();
    assert_eq!((status(&service, &org, &owner.credential).await, status(&service, &org, &new).await), (401, 401));
    assert_eq!(status(&service, &org, &format!("{}:{}", newest.expose(), owner.id)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_rotated_without_overlap_is_refused_once_answered() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let operator = operator();
    let rotation = service.store.rotate_bot_key(&owner.id, None, &operator);
    let (before, after, rotated) = while_doing(&service, &org, &owner.credential, rotation).await;
    assert_all(&before, &[200, 401]);
    assert_all(&after, &[401]);
    let new = format!("{}:{}", rotated.unwrap().unwrap().expose(), owner.id);
    assert_eq!(status(&service, &org, &new).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_rotations_leave_one_valid_key() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let operator = operator();
    let keys = join_all((0..5).map(|_| service.store.rotate_bot_key(&owner.id, None, &operator))).await;
    let credentials = keys.into_iter().map(|key| format!("{}:{}", key.unwrap().unwrap().expose(), owner.id));
    let statuses = join_all(credentials.map(|credential| async {
        let credential = credential;
        status(&service, &org, &credential).await
    }))
    .await;
    let good = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(good, 1, "exactly one key is valid: {statuses:?}");
    assert_eq!(status(&service, &org, &owner.credential).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_bot_is_refused_once_answered() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::Manager]).await;
    let operator = operator();
    let deletion = service.store.delete_bot(&bot.id, &operator);
    let (before, after, deleted) = while_doing(&service, &org, &bot.credential, deletion).await;
    assert!(deleted.unwrap());
    assert_all(&before, &[200, 401]);
    assert_all(&after, &[401]);
    assert_eq!(status(&service, &org, &owner.credential).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_change_applies_to_the_next_call() {
    let service = Service::start().await;
    let org = service.org().await;
    let bot = service.bot(&org, &[Role::Manager]).await;
    let operator = operator();
    let change = service.store.set_bot_roles(&bot.id, &[Role::TokenIssuer], &operator);
    let (before, after, changed) = while_doing(&service, &org, &bot.credential, change).await;
    assert!(changed.unwrap().is_some());
    assert_all(&before, &[200, 403]);
    assert_all(&after, &[403]);
    // The new role's permissions apply immediately.
    service.issue(&org, &bot, "alice").await;
    for (roles, expected) in [(&[Role::Owner][..], 200), (&[], 403), (&[Role::ApiKeyManager, Role::Manager], 200)] {
        service.store.set_bot_roles(&bot.id, roles, &operator).await.unwrap().unwrap();
        assert_eq!(status(&service, &org, &bot.credential).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guard_switch_applies_to_the_next_call() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let change = service.set_guard(&org.id, false);
    let path = org.installations("");
    let (before, after, ()) = while_calling(&service, &path, &owner.credential, change).await;
    assert_all(&before, &[200, 403]);
    assert_all(&after, &[403]);
    for (guard, expected) in [(true, 200), (false, 403), (true, 200)] {
        service.set_guard(&org.id, guard).await;
        assert_eq!(status_of(&service, &path, &owner.credential).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_token_is_refused_once_answered() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice").await;
    // An active token of this kind gets 403 here, a revoked one 401.
    let (before, after, ()) = while_doing(&service, &org, &token.token, service.revoke(&org, &owner, &token)).await;
    assert_all(&before, &[403, 401]);
    assert_all(&after, &[401]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_wins_over_concurrent_expiry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let mut tokens = Vec::new();
    for _ in 0..12 {
        tokens.push(service.issue_until(&org, &owner, "alice", "2026-11-21T10:00:01Z").await);
    }
    service.clock.advance(Duration::from_secs(1));
    let (service, org, owner) = (&service, &org, &owner);
    // Lists move expired tokens while revocations remove them.
    let listings = join_all(
        ["?status=active", "?status=expired"].repeat(4).into_iter().map(|query| service.list(org, owner, query)),
    );
    let revocations = join_all(tokens.iter().map(|token| service.revoke(org, owner, token)));
    futures::future::join(listings, revocations).await;
    assert_eq!(service.listed_ids(org, owner, "?status=expired").await, [""; 0]);
    assert_eq!(service.listed_ids(org, owner, "?status=revoked").await.len(), 12);
    service.table.assert_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_issues_create_distinct_tokens() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let issue = async |n: usize| service.issue(&org, &owner, &format!("person{}", n % 10)).await.token;
    let tokens = join_all((0..100).map(issue)).await;
    let distinct: std::collections::BTreeSet<&String> = tokens.iter().collect();
    assert_eq!(distinct.len(), 100);
    let listed = service.list(&org, &owner, "?limit=100").await;
    assert_eq!((listed["tokens"].as_array().unwrap().len(), &listed["next_cursor"]), (100, &json!(null)));
    service.table.assert_sound();
}

/// Changes to one bot must not affect another bot of the organization.
#[tokio::test]
async fn rotating_one_bot_does_not_affect_another() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let other: Bot = service.bot(&org, &[Role::Owner]).await;
    service.store.rotate_bot_key(&other.id, None, &operator()).await.unwrap().unwrap();
    service.store.delete_bot(&other.id, &operator()).await.unwrap();
    assert_eq!(status(&service, &org, &owner.credential).await, 200);
}
