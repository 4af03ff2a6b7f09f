//! Many callers at once, while DynamoDB's transactions take 12 ms and conflict where they touch the
//! same item: nobody gets 503.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Plan;
use tests::contention::Contention;
use tests::coverage::Fixtures;
use tests::faults::Fault;
use tests::management::{ACCESS_TOKENS, API_KEYS};
use tests::{Answer, Service};

/// How long a transaction takes.
const TRANSACTION: Duration = Duration::from_millis(12);

/// Callers at once.
const CREATORS: usize = 60;
const REVOKERS: usize = 100;

async fn start() -> (Service, Contention) {
    Service::start_with_contention(TRANSACTION).await
}

/// How often each status was answered.
fn statuses(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for answer in answers {
        *statuses.entry(answer.status.as_u16()).or_default() += 1;
    }
    statuses
}

fn new_key(n: usize) -> Value {
    json!({"name": format!("key {n}"), "environment": "live", "scopes": ["shield:read"]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_creators_of_api_keys_get_their_keys() {
    let (service, contention) = start().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let create = async |n| service.post(API_KEYS, &owner.credential, &new_key(n)).await;
    let answers = join_all((0..CREATORS).map(create)).await;
    assert_eq!(statuses(&answers), [(201, CREATORS)].into());
    assert!(contention.conflicts() > 0);
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, CREATORS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_creators_of_api_keys_get_exactly_what_the_plan_allows() {
    let (service, contention) = start().await;
    let (org, owner) = service.org_on(Plan::Pro).await;
    let create = async |n| service.post(API_KEYS, &owner.credential, &new_key(n)).await;
    let answers = join_all((0..CREATORS).map(create)).await;
    let found = statuses(&answers);
    assert_eq!((found.get(&201), found.get(&503)), (Some(&20), None), "{found:?}");
    assert!(contention.conflicts() > 0);
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 20);
    // Once the plan is full, refusals conflict with nothing.
    let before = contention.conflicts();
    let answers = join_all((0..CREATORS).map(create)).await;
    assert!(answers.iter().all(|answer| [403, 429].contains(&answer.status.as_u16())));
    assert_eq!(contention.conflicts(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_revocations_of_one_token_succeed() {
    let (service, _contention) = start().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let user = service.issue(&org, &owner, "alice-laptop").await;
    let key = service.api_key(&owner.credential, &["shield:read"]).await;
    for path in [org.org_user_tokens(&format!("/by-id/{}", user.id)), format!("{API_KEYS}/{}", key.id)] {
        let revoke = async |_| service.call(Method::DELETE, &path, &owner.credential).await;
        let answers = join_all((0..REVOKERS).map(revoke)).await;
        assert_eq!(statuses(&answers), [(204, REVOKERS)].into(), "{path}");
    }
    let access = service.access_token(&owner, &json!({"name": "relay"})).await;
    let delete = async |_| service.call(Method::DELETE, &access.path(), &owner.credential).await;
    let answers = join_all((0..REVOKERS).map(delete)).await;
    let statuses = statuses(&answers);
    assert_eq!((statuses.get(&503), statuses.keys().all(|status| [204, 404].contains(status))), (None, true));
}

/// Other transactions give up after 16 conflicts.
#[tokio::test]
async fn revocation_is_repeated_until_it_wins() {
    let attempts = 18;
    let revoke = async |n: usize| {
        let (service, faults) = Service::start_with_faults().await;
        let Fixtures { org, owner, token, api_key, access_token, email_token, .. } = Fixtures::create(&service).await;
        let (owner, by_user) = (&owner.credential, json!({"user_identifier": token.user_identifier}));
        // The calls of DynamoDB per attempt: each looks first whether there is still anything to do.
        let (calls, request) = match n {
            0 => (2, service.request(Method::DELETE, &org.org_user_tokens(&format!("/by-id/{}", token.id)))),
            1 => (2, service.request(Method::POST, &org.org_user_tokens("/revoke-by-user")).json(&by_user)),
            2 => (2, service.request(Method::DELETE, &format!("{API_KEYS}/{}", api_key.id))),
            3 => (3, service.request(Method::DELETE, &access_token.path())),
            4 => (2, service.request(Method::DELETE, &format!("/npm/-/user/token/{}", token.token))),
            _ => (1, service.request(Method::DELETE, "/api/v1/tokens")),
        };
        let credential = match n {
            0..4 => owner,
            4 => &token.token,
            _ => &email_token,
        };
        faults.arm(0, &[], Some(Fault::Conflict));
        let end = async {
            faults.reached(attempts * calls + 2).await;
            faults.disarm();
        };
        let (answer, ()) = join(service.send(request.bearer_auth(credential)), end).await;
        assert!(answer.status.is_success(), "{n}: {} {}", answer.status, answer.text);
    };
    join_all((0..6).map(revoke)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_of_sixty_api_keys_succeed() {
    let (service, contention) = start().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let mut keys = Vec::new();
    for n in 0..CREATORS {
        keys.push(service.api_key_with(&owner.credential, &new_key(n)).await);
    }
    assert_eq!(contention.conflicts(), 0);
    // All of them change the counter of active keys.
    join_all(keys.iter().map(|key| service.revoke_api_key(&owner.credential, &key.id))).await;
    assert!(contention.conflicts() > 0);
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_mints_by_one_bot_succeed() {
    let (service, _contention) = start().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    service.projects(&org, &["greenhouse"]).await;
    let mint = async |n: usize| {
        let access = json!({"projects": ["greenhouse"]});
        let (path, body) = match n % 3 {
            0 => (org.org_user_tokens(""), json!({"user_identifier": "alice-laptop"})),
            1 => (API_KEYS.to_owned(), new_key(n)),
            _ => (ACCESS_TOKENS.to_owned(), json!({"name": format!("relay {n}"), "access_config": access})),
        };
        service.post(&path, &owner.credential, &body).await
    };
    let answers = join_all((0..CREATORS).map(mint)).await;
    assert_eq!(statuses(&answers), [(201, CREATORS)].into());
    // Org user tokens share no item.
    let issue = async |_| {
        service.post(&org.org_user_tokens(""), &owner.credential, &json!({"user_identifier": "bobby-laptop"})).await
    };
    let answers = join_all((0..CREATORS).map(issue)).await;
    assert_eq!(statuses(&answers), [(201, CREATORS)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_changes_of_one_access_token_succeed() {
    let (service, contention) = start().await;
    let (_, owner) = service.org_on(Plan::Enterprise).await;
    let access = service.access_token(&owner, &json!({"name": "relay"})).await;
    let change = async |n: usize| {
        let body = json!({"name": format!("relay {n}")});
        service.send_json(Method::PATCH, &access.path(), &owner.credential, &body).await
    };
    let answers = join_all((0..20).map(change)).await;
    assert_eq!(statuses(&answers), [(200, 20)].into());
    assert!(contention.conflicts() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_listings_move_expired_api_keys_once() {
    let (service, _contention) = start().await;
    let (org, owner) = service.org_on(Plan::Pro).await;
    for n in 0..10 {
        let mut body = new_key(n);
        body["expires_at"] = json!("2026-11-21T10:00:01Z");
        service.api_key_with(&owner.credential, &body).await;
    }
    service.clock.advance(Duration::from_secs(1));
    let list = async |_| service.call(Method::GET, &format!("{API_KEYS}?status=all"), &owner.credential).await;
    let answers = join_all((0..CREATORS).map(list)).await;
    // How many of them overlap depends on the machine.
    assert_eq!(statuses(&answers), [(200, CREATORS)].into());
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 0);
}
