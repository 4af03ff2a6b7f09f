//! Tokens that are not used for the days of the policy have ended: everywhere, decided at use, and
//! never for one that is used.

use std::time::Duration;

use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Plan;
use shared::permissions::Role;
use tests::faults::{Call, Fault};
use tests::management::API_KEYS;
use tests::table::text;
use tests::upstream::Registry;
use tests::{Bot, Issued, Org, Service, ids};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One token of each kind.
struct Tokens {
    org: Org,
    owner: Bot,
    user: Issued,
    key: String,
    key_id: String,
    access: String,
}

impl Tokens {
    async fn of(service: &Service) -> Self {
        let (org, owner) = service.org_with_owner().await;
        let user = service.issue(&org, &owner, "alice").await;
        let key = service.api_key(&owner.credential, &["org:read"]).await;
        let access = service.access_token(&owner, &json!({"name": "relay"})).await.token;
        Self { org, owner, user, key: key.key, key_id: key.id, access }
    }

    fn all(&self) -> [&str; 3] {
        [&self.user.token, &self.key, &self.access]
    }

    /// The statuses of each token's use: 200 or 401.
    async fn uses(&self, service: &Service) -> [u16; 3] {
        let mut statuses = [0; 3];
        for (place, token) in self.all().into_iter().enumerate() {
            statuses[place] = service.whoami(token).await.status.as_u16();
        }
        statuses
    }
}

fn of_token(call: &Call, operation: &str) -> bool {
    call.operation == operation && call.request.to_string().contains("TOKEN#")
}

#[tokio::test]
async fn token_that_was_never_used_ends_after_the_days_to_the_second() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    let untouched = Tokens::of(&service).await;
    service.end_unused(&tokens.org.id, 2).await;
    // A probe is no use.
    service.clock.advance(2 * DAY - MINUTE - SECOND);
    assert_eq!(service.probe(&tokens.org, &tokens.owner, &tokens.user.token).await["active"], true);
    let spare = [&tokens.user.token, &tokens.key, &tokens.access];
    for token in spare {
        assert_eq!(service.introspect(&tokens.owner, &json!({"token": token})).await["active"], true);
    }
    let tokens = Tokens::of(&service).await;
    service.end_unused(&tokens.org.id, 2).await;
    service.clock.advance(2 * DAY - MINUTE);
    assert_eq!(tokens.uses(&service).await, [401; 3]);
    for token in tokens.all() {
        assert_eq!(service.introspect(&tokens.owner, &json!({"token": token})).await, json!({"active": false}));
    }
    assert_eq!(
        service.probe(&tokens.org, &tokens.owner, &tokens.user.token).await,
        json!({"active": false}),
        "a probe finds it active"
    );
    service.call(Method::GET, API_KEYS, &tokens.key).await.assert_error(401, "UNAUTHORIZED");
    // The policy of another organization does not apply.
    assert_eq!(untouched.uses(&service).await, [200; 3]);
}

#[tokio::test]
async fn package_managers_are_refused_too() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let tokens = Tokens::of(&service).await;
    service.end_unused(&tokens.org.id, 1).await;
    let get = async |path: &str| service.call(Method::GET, path, &tokens.user.token).await.status.as_u16();
    assert_eq!(get("/npm/widgets").await, 200);
    service.clock.advance(DAY);
    assert_eq!(get("/npm/widgets").await, 200);
    service.clock.advance(DAY + MINUTE);
    for path in ["/npm/widgets", "/npm/-/whoami", "/pypi/simple/widgets/"] {
        assert_eq!(get(path).await, 401, "{path}");
    }
}

#[tokio::test]
async fn use_that_was_not_recorded_keeps_a_token_alive() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    service.end_unused(&tokens.org.id, 1).await;
    for _ in 0..3 {
        assert_eq!(tokens.uses(&service).await, [200; 3]);
        // Not recorded: the time before is less than a minute old.
        service.clock.advance(MINUTE - SECOND);
        assert_eq!(tokens.uses(&service).await, [200; 3]);
        // A second before a day is over since that use.
        service.clock.advance(DAY - SECOND);
    }
    assert_eq!(tokens.uses(&service).await, [200; 3]);
    service.clock.advance(DAY + MINUTE);
    assert_eq!(tokens.uses(&service).await, [401; 3]);
}

#[tokio::test]
async fn policy_is_remembered_for_a_minute() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    service.clock.advance(10 * DAY);
    assert_eq!(service.introspect(&tokens.owner, &json!({"token": tokens.key})).await["active"], true);
    service.clock.advance(10 * DAY);
    // The organization is read for one of them.
    assert_eq!(service.whoami(&tokens.access).await.status, 200);
    service.end_unused(&tokens.org.id, 1).await;
    assert_eq!(service.whoami(&tokens.access).await.status, 200);
    assert_eq!(service.whoami(&tokens.user.token).await.status, 401);
}

#[tokio::test]
async fn lists_and_counts_leave_them_out_and_expired_ones_show_them() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    let (org, owner) = (&tokens.org, &tokens.owner);
    let kept = service.issue_until(org, owner, "bobby", "2027-01-01T00:00:00Z").await;
    service.end_unused(&org.id, 2).await;
    service.clock.advance(DAY);
    assert_eq!(service.whoami(&kept.token).await.status, 200);
    service.clock.advance(DAY);
    let visitor = service.member(org, &[Role::Owner]).await;
    let overview = visitor.get(&org.page("")).await;
    let card = overview.text.split("<h2>Active tokens</h2>").nth(1).unwrap();
    assert!(card.split("</a>").next().unwrap().contains(">1<"), "{}", overview.text);
    assert_eq!(service.active_api_keys(org, &owner.credential).await, 0);
    assert_eq!(service.listed_ids(org, owner, "").await, [kept.id.as_str()]);
    let expired = service.list(org, owner, "?status=expired").await;
    assert_eq!(ids(&expired["tokens"]), [tokens.user.id.as_str()]);
    assert_eq!(text(&expired["tokens"][0], "expires_at"), "2026-11-23T10:00:00Z");
    let keys = service.api_keys(&owner.credential, "?status=expired").await;
    assert_eq!(ids(&keys["api_keys"]), [tokens.key_id.as_str()]);
    assert_eq!(text(&keys["api_keys"][0], "expires_at"), "2026-11-23T10:00:00Z");
    assert_eq!(service.access_tokens(owner).await[0]["expires_at"], "2026-11-23T10:00:00Z");
    for page in ["tokens", "api-keys"] {
        assert!(!visitor.get(&org.page(page)).await.text.contains("alice"), "{page}");
    }
    assert!(visitor.get(&org.page("access-tokens")).await.text.contains("Expired"));
    service.table.assert_sound();
}

#[tokio::test]
async fn expired_listing_alone_finds_them() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    service.end_unused(&tokens.org.id, 1).await;
    service.clock.advance(2 * DAY);
    let listed = service.listed_ids(&tokens.org, &tokens.owner, "?status=expired").await;
    assert_eq!(listed, [tokens.user.id.as_str()]);
    let all = service.list(&tokens.org, &tokens.owner, "?status=all").await;
    assert_eq!(all["tokens"][0]["status"], "expired");
}

#[tokio::test]
async fn without_the_policy_those_that_were_not_moved_work_again() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    let moved = service.issue(&tokens.org, &tokens.owner, "moved").await;
    service.end_unused(&tokens.org.id, 1).await;
    service.clock.advance(3 * DAY);
    assert_eq!(tokens.uses(&service).await, [401; 3]);
    // A use decides, and writes nothing.
    assert_eq!(service.listed_ids(&tokens.org, &tokens.owner, "?user_identifier=moved").await, Vec::<String>::new());
    service.end_unused(&tokens.org.id, 0).await;
    assert_eq!(tokens.uses(&service).await, [200; 3]);
    assert_eq!(service.whoami(&moved.token).await.status, 401);
    let ended = service.list(&tokens.org, &tokens.owner, "?status=expired").await;
    assert_eq!(ids(&ended["tokens"]), [moved.id.as_str()]);
}

#[tokio::test]
async fn rotated_tokens_and_successors_follow_the_same_rule() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    let (org, owner) = (&tokens.org, &tokens.owner);
    let rotations = [
        (org.org_user_tokens(&format!("/by-id/{}/rotate", tokens.user.id)), tokens.user.token.clone()),
        (format!("{API_KEYS}/{}/rotate", tokens.key_id), tokens.key.clone()),
    ];
    service.end_unused(&org.id, 2).await;
    service.clock.advance(DAY);
    let mut lines = Vec::new();
    for (path, old) in &rotations {
        let new = service.post(path, &owner.credential, &json!({"overlap": "7d"})).await;
        assert_eq!(new.status, 201, "{}", new.text);
        let new = new.json();
        lines.push((old.clone(), new["token"].as_str().or(new["key"].as_str()).unwrap().to_owned()));
    }
    // The old one was never used; its successor is younger.
    service.clock.advance(DAY);
    for ((old, new), (path, _)) in lines.iter().zip(&rotations) {
        assert_eq!(service.whoami(old).await.status, 401);
        service.post(path, &owner.credential, &json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
        assert_eq!(service.introspect(owner, &json!({"token": new})).await["active"], true);
    }
    service.clock.advance(2 * DAY + MINUTE);
    for (_, new) in &lines {
        assert_eq!(service.whoami(new).await.status, 401);
    }
    assert_eq!(service.active_api_keys(org, &owner.credential).await, 0);
    assert_eq!(service.listed_ids(org, owner, "").await, Vec::<String>::new());
}

#[tokio::test]
async fn unused_keys_make_room_at_the_plans_limit() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Free).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(service.api_key(&owner.credential, &["org:read"]).await);
    }
    let body = json!({"name": "one more", "environment": "live", "scopes": ["org:read"]});
    service.end_unused(&org.id, 2).await;
    service.clock.advance(DAY);
    assert_eq!(service.whoami(&keys[0].key).await.status, 200);
    service.clock.advance(DAY - MINUTE - SECOND);
    service.post(API_KEYS, &owner.credential, &body).await.assert_error(403, "PLAN_LIMIT_REACHED");
    service.clock.advance(SECOND);
    for _ in 0..2 {
        assert_eq!(service.post(API_KEYS, &owner.credential, &body).await.status, 201);
    }
    service.post(API_KEYS, &owner.credential, &body).await.assert_error(403, "PLAN_LIMIT_REACHED");
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 3);
    assert_eq!(service.whoami(&keys[0].key).await.status, 200);
}

#[tokio::test]
async fn revocation_by_user_does_not_count_them_and_moves_them() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    let (org, owner) = (&tokens.org, &tokens.owner);
    service.end_unused(&org.id, 1).await;
    service.clock.advance(2 * DAY);
    let used = service.issue(org, owner, "alice").await;
    let path = org.org_user_tokens("/revoke-by-user");
    let body = json!({"user_identifier": "alice", "expected_count": 1});
    let revoked = service.post(&path, &owner.credential, &body).await.json();
    assert_eq!(revoked, json!({"matched": 1, "revoked": [used.id], "remaining": 0}));
    // Nor does it come back without the policy.
    service.end_unused(&org.id, 0).await;
    assert_eq!(service.whoami(&tokens.user.token).await.status, 401);
}

#[tokio::test]
async fn token_used_within_a_day_costs_one_read() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    service.end_unused(&tokens.org.id, 30).await;
    let cost = async |token: &str| service.whoami(token).await.cost();
    for _ in 0..3 {
        for token in tokens.all() {
            assert_eq!(cost(token).await.read, 1.0);
        }
        service.clock.advance(DAY - SECOND);
    }
    // Then one read of the policy a minute, whatever the number of tokens.
    service.clock.advance(3 * DAY);
    assert_eq!(cost(tokens.all()[0]).await.read, 2.0);
    assert_eq!(cost(tokens.all()[1]).await.read, 1.0);
}

#[tokio::test]
async fn policy_that_cannot_be_read_is_503() {
    let (service, faults) = Service::start_with_faults().await;
    let tokens = Tokens::of(&service).await;
    service.clock.advance(2 * DAY);
    let is_of_org = |call: &Call| call.operation == "GetItem" && call.request.to_string().contains("\"ORG#");
    for token in tokens.all() {
        faults.arm_where(is_of_org, &[], Some(Fault::ServerError));
        service.whoami(token).await.assert_error(503, "SERVICE_UNAVAILABLE");
        faults.disarm();
    }
    assert_eq!(tokens.uses(&service).await, [200; 3]);
}

#[tokio::test]
async fn idle_tokens_use_is_answered_only_if_it_is_recorded() {
    let (service, faults) = Service::start_with_faults().await;
    let tokens = Tokens::of(&service).await;
    let is_record = |call: &Call| of_token(call, "UpdateItem");
    // Without the policy a use is answered whether it is recorded or not.
    service.clock.advance(2 * DAY);
    faults.arm_where(is_record, &[], Some(Fault::ServerError));
    assert_eq!(tokens.uses(&service).await, [200; 3]);
    faults.disarm();
    service.end_unused(&tokens.org.id, 30).await;
    faults.arm_where(is_record, &[], Some(Fault::ServerError));
    assert_eq!(tokens.uses(&service).await, [503; 3]);
    faults.disarm();
    assert_eq!(tokens.uses(&service).await, [200; 3]);
}

/// A use of a token a second before it ends unused, whose record arrives after the token was moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_that_is_recorded_after_the_move_is_refused() {
    let (service, faults) = Service::start_with_faults().await;
    let tokens = Tokens::of(&service).await;
    let (org, owner) = (&tokens.org, &tokens.owner);
    service.end_unused(&org.id, 1).await;
    service.clock.advance(DAY - MINUTE - SECOND);
    faults.arm_where(|call| of_token(call, "UpdateItem"), &[Fault::Held], None);
    let moving = async {
        while !faults.calls().iter().any(|call| of_token(call, "UpdateItem")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        service.clock.advance(SECOND);
        assert_eq!(service.listed_ids(org, owner, "?status=expired").await, [tokens.user.id.as_str()]);
        faults.release();
    };
    let (used, ()) = join(service.whoami(&tokens.user.token), moving).await;
    faults.disarm();
    assert_eq!(used.status, 401, "{}", used.text);
    assert_eq!(service.whoami(&tokens.user.token).await.status, 401);
}

/// The other way round: the use is recorded after the list has read the token, before it moves it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_is_used_meanwhile_is_not_moved() {
    let (service, faults) = Service::start_with_faults().await;
    let tokens = Tokens::of(&service).await;
    let (org, owner) = (&tokens.org, &tokens.owner);
    service.end_unused(&org.id, 1).await;
    service.clock.advance(DAY);
    let is_move = |call: &Call| of_token(call, "TransactWriteItems");
    for query in ["", "?status=expired"] {
        faults.arm_where(is_move, &[Fault::Held], None);
        let using = async {
            while !faults.calls().iter().any(is_move) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // As another process does that has accepted the use before.
            let hash = shared::secret::Token::parse(&tokens.user.token).unwrap().hash();
            let mut stored = service.store.token(&shared::secret::Token::parse(&tokens.user.token).unwrap()).await;
            let stored = stored.as_mut().unwrap().take().unwrap();
            service.store.record_use(hash, &stored).await.unwrap();
            faults.release();
        };
        let (_, ()) = join(service.list(org, owner, query), using).await;
        faults.disarm();
        assert_eq!(service.whoami(&tokens.user.token).await.status, 200, "{query}");
        assert_eq!(service.listed_ids(org, owner, "").await, [tokens.user.id.as_str()]);
        service.clock.advance(DAY + MINUTE);
    }
}

/// Uses, listings and the clock at once: an answered use is never after the end of its token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_and_moves_at_once_never_both_win() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let mut tokens = Vec::new();
    for _ in 0..12 {
        tokens.push(service.issue(&org, &owner, "alice").await);
    }
    service.end_unused(&org.id, 1).await;
    service.clock.advance(DAY - MINUTE - 3 * SECOND);
    let uses = join_all(tokens.iter().enumerate().map(async |(place, token)| {
        tokio::time::sleep(Duration::from_millis(2 * place as u64)).await;
        (service.whoami(&token.token).await.status.as_u16(), token.id.clone())
    }));
    let moves = async {
        for _ in 0..8 {
            service.clock.advance(SECOND);
            service.list(&org, &owner, "?status=expired").await;
        }
    };
    let (uses, ()) = join(uses, moves).await;
    let expired: Vec<Value> = service.list(&org, &owner, "?status=expired").await["tokens"].as_array().unwrap().clone();
    let expired = ids(&Value::from(expired));
    for (status, id) in &uses {
        assert_eq!(*status == 401, expired.contains(id), "{uses:?} {expired:?}");
    }
    assert_eq!(service.listed_ids(&org, &owner, "").await.len() + expired.len(), tokens.len());
    service.table.assert_sound();
}
