//! The daily run that writes the ends of tokens that were not used, so that none works again if the
//! policy is taken away.

use std::time::Duration;

use futures::future::join;
use reqwest::Method;
use serde_json::{Value, json};
use shared::ApiError;
use shared::cost::{Cost, metered};
use shared::domain::Plan;
use shared::secret::Token;
use shared::store::lifetimes::Days;
use shared::store::orgs::OrgChange;
use tests::faults::{Call, Fault, Faults, at_each_call};
use tests::management::API_KEYS;
use tests::table::text;
use tests::{Bot, Issued, Org, Service, ids, operator};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Far ahead.
const LATER: &str = "2099-01-01T00:00:00Z";

/// An organization with a token of each kind, and one of each that expires far ahead.
struct Tokens {
    org: Org,
    owner: Bot,
    user: Issued,
    all: Vec<String>,
}

impl Tokens {
    async fn of(service: &Service) -> Self {
        let (org, owner) = service.org_on(Plan::Pro).await;
        let user = service.issue(&org, &owner, "alice").await;
        let expiring = service.issue_until(&org, &owner, "bobby", LATER).await;
        let key = service.api_key(&owner.credential, &["org:read"]).await;
        let test = json!({"name": "test", "environment": "test", "scopes": ["org:read"], "expires_at": LATER});
        let test = service.api_key_with(&owner.credential, &test).await;
        let access = service.access_token(&owner, &json!({"name": "relay"})).await;
        let brief = service.access_token(&owner, &json!({"name": "brief", "expires_at": LATER})).await;
        let all = [&user.token, &expiring.token, &key.key, &test.key, &access.token, &brief.token];
        let all = all.map(Clone::clone).to_vec();
        Self { org, owner, user, all }
    }

    /// How many of them are refused.
    async fn refused(&self, service: &Service) -> usize {
        let mut refused = 0;
        for token in &self.all {
            let answer = service.whoami(token).await;
            assert!([200, 401].contains(&answer.status.as_u16()), "{}", answer.text);
            refused += usize::from(answer.status == 401);
        }
        refused
    }

    /// Asserts that all have ended for good, and that nothing else has.
    async fn assert_ended(&self, service: &Service, what: &str) {
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{what}");
        service.end_unused(&self.org.id, 0).await;
        assert_eq!(self.refused(service).await, self.all.len(), "{what}");
        assert_eq!(service.active_api_keys(&self.org, &self.owner.credential).await, 0, "{what}");
        let expired = service.list(&self.org, &self.owner, "?status=expired").await;
        assert_eq!(expired["tokens"].as_array().unwrap().len(), 2, "{what}");
        let expired = service.api_keys(&self.owner.credential, "?status=expired").await;
        assert_eq!(expired["api_keys"].as_array().unwrap().len(), 2, "{what}");
    }
}

/// Organizations without the policy around one that has it, whose tokens have ended unused.
async fn due(service: &Service) -> [Tokens; 3] {
    let tokens = [Tokens::of(service).await, Tokens::of(service).await, Tokens::of(service).await];
    service.end_unused(&tokens[1].org.id, 2).await;
    service.clock.advance(2 * DAY);
    tokens
}

/// Sets the policy without waiting until it is remembered no more.
async fn set_now(service: &Service, org: &Org, days: u32) {
    let change = OrgChange { end_after_unused_days: Some(Days::new(days)), ..OrgChange::default() };
    service.store.set_org(&org.id, &change, &operator()).await.unwrap().unwrap();
}

fn is_move(call: &Call) -> bool {
    call.operation == "TransactWriteItems" && call.request.to_string().contains("TOKEN#")
}

/// The partition that a call queries, if it is a query.
fn queried(call: &Call) -> &str {
    text(&call.request["ExpressionAttributeValues"][":pk"], "S")
}

/// Waits until so many calls have arrived that move tokens.
async fn moves(faults: &Faults, count: usize) {
    while faults.calls().iter().filter(|call| is_move(call)).count() < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Records a use of a token, as a process does that has accepted it before.
async fn record_use(service: &Service, token: &str) {
    let token = Token::parse(token).unwrap();
    let stored = service.store.token(&token).await.unwrap().unwrap();
    service.store.record_use(token.hash(), &stored).await.unwrap();
}

#[tokio::test]
async fn unused_tokens_of_every_kind_end_for_good_and_nobody_elses_do() {
    let service = Service::start_with_manual_clock().await;
    let [before, tokens, after] = due(&service).await;
    let entries = async || {
        let items = service.table.items().await;
        items.iter().filter(|item| text(item, "pk").ends_with("#AUDIT")).count()
    };
    let audited = entries().await;
    service.run_end_unused().await.unwrap();
    assert_eq!(entries().await, audited, "an entry for a move");
    let ended = "2026-11-23T10:00:00Z";
    assert!(service.access_tokens(&tokens.owner).await.iter().all(|token| token["expires_at"] == ended));
    tokens.assert_ended(&service, "a run").await;
    let expired = service.list(&tokens.org, &tokens.owner, "?status=expired").await;
    assert!(expired["tokens"].as_array().unwrap().iter().all(|token| token["expires_at"] == ended), "{expired}");
    for other in [before, after] {
        assert_eq!(other.refused(&service).await, 0);
    }
}

#[tokio::test]
async fn tokens_work_again_whose_policy_is_taken_away_before_the_run() {
    let service = Service::start_with_manual_clock().await;
    let [_, tokens, _] = due(&service).await;
    assert_eq!(tokens.refused(&service).await, tokens.all.len());
    service.end_unused(&tokens.org.id, 0).await;
    service.run_end_unused().await.unwrap();
    assert_eq!(tokens.refused(&service).await, 0);
}

#[tokio::test]
async fn used_and_young_and_disabled_and_expired_tokens_are_left_alone() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    let owner = &tokens.owner;
    let off = service.access_token(owner, &json!({"name": "off", "is_active": false})).await;
    let end = service.clock.now().plus(DAY).to_string();
    service.access_token(owner, &json!({"name": "expired", "expires_at": end})).await;
    service.end_unused(&tokens.org.id, 2).await;
    service.clock.advance(DAY);
    assert_eq!(tokens.refused(&service).await, 0);
    service.clock.advance(DAY);
    let young = service.issue(&tokens.org, owner, "carol").await;
    let before = service.table.items().await;
    service.run_end_unused().await.unwrap();
    let mut after = service.table.items().await;
    after.retain(|item| item["pk"] != "UNUSED_RUN");
    assert_eq!(after, before);
    assert_eq!(service.whoami(&young.token).await.status, 200);
    assert_eq!(service.whoami(&off.token).await.status, 401);
}

#[tokio::test]
async fn tokens_of_suspended_organizations_end_too() {
    let service = Service::start_with_manual_clock().await;
    let [_, tokens, _] = due(&service).await;
    service.store.set_suspended(&tokens.org.id, true, &operator()).await.unwrap().unwrap();
    service.run_end_unused().await.unwrap();
    service.store.set_suspended(&tokens.org.id, false, &operator()).await.unwrap().unwrap();
    tokens.assert_ended(&service, "suspended").await;
}

#[tokio::test]
async fn key_whose_successor_ends_unused_counts_again() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Pro).await;
    let old = service.api_key(&owner.credential, &["org:read"]).await;
    let rotate = format!("{API_KEYS}/{}/rotate", old.id);
    let new = service.post(&rotate, &owner.credential, &json!({"overlap": "7d"})).await.json();
    let spare = service.api_key(&owner.credential, &["org:read"]).await;
    service.end_unused(&org.id, 2).await;
    service.clock.advance(DAY);
    assert_eq!(service.whoami(&old.key).await.status, 200);
    service.clock.advance(DAY);
    service.run_end_unused().await.unwrap();
    service.table.assert_sound();
    service.end_unused(&org.id, 0).await;
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 1);
    assert_eq!(service.whoami(&old.key).await.status, 200);
    for ended in [text(&new, "key"), &spare.key] {
        assert_eq!(service.whoami(ended).await.status, 401);
    }
}

#[tokio::test]
async fn run_costs_a_read_per_organization_and_what_is_active_where_the_policy_is() {
    let service = Service::start_with_manual_clock().await;
    let all = [Tokens::of(&service).await, Tokens::of(&service).await];
    service.clock.advance(2 * DAY);
    let run = async || {
        let (result, cost) = metered(service.run_end_unused()).await;
        result.unwrap();
        cost
    };
    // How far it is, before and after, the list and two organizations.
    assert_eq!(run().await, Cost { calls: 5, read: 5.0, write: 1.0 });
    let finished = Cost { calls: 1, read: 1.0, write: 0.0 };
    assert_eq!(run().await, finished);
    // Nothing ends on the day whose run is done, and everything on the next.
    let tokens = &all[0];
    service.end_unused(&tokens.org.id, 1).await;
    assert_eq!(run().await, finished);
    service.clock.advance(DAY);
    // Also four listings with six tokens and, before each is written to, the policy; the moves, and two
    // places.
    let moves = 8.0 + 10.0 + 10.0 + 12.0 + 2.0 * 2.0;
    assert_eq!(run().await, Cost { calls: 24, read: 5.0 + 4.0 + 6.0 + 4.0, write: moves + 2.0 });
    assert_eq!(run().await, finished);
    tokens.assert_ended(&service, "the next day").await;
    assert_eq!(all[1].refused(&service).await, 0);
    // Young tokens are not read, nor those of other states.
    service.end_unused(&tokens.org.id, 1).await;
    for user in ["carol", "david"] {
        service.issue(&tokens.org, &tokens.owner, user).await;
    }
    service.clock.advance(DAY - 2 * MINUTE);
    assert_eq!(run().await, Cost { calls: 11, read: 5.0 + 4.0 + 2.0, write: 2.0 });
}

#[tokio::test]
async fn run_that_fails_at_any_call_is_continued_by_the_next() {
    let failed = at_each_call(|place| async move {
        for fault in [Fault::LostBefore, Fault::LostAfter, Fault::Throttled] {
            let what = format!("{place} {fault:?}");
            let (service, faults) = Service::start_with_faults().await;
            let [before, tokens, _] = due(&service).await;
            faults.arm(place, &[], Some(fault));
            let failed = service.run_end_unused().await;
            if faults.disarm().len() <= place {
                return None;
            }
            assert!(matches!(failed, Err(ApiError::Unavailable)), "{what}: {failed:?}");
            assert_eq!(service.table.findings(), Vec::<String>::new(), "{what}");
            service.run_end_unused().await.unwrap();
            tokens.assert_ended(&service, &what).await;
            assert_eq!(before.refused(&service).await, 0, "{what}");
        }
        Some(())
    })
    .await
    .len();
    assert!(failed > 20, "{failed}");
}

#[tokio::test]
async fn run_that_is_killed_at_any_call_is_continued_by_the_next() {
    let killed = at_each_call(|place| async move {
        let (service, faults) = Service::start_with_faults().await;
        let [before, tokens, _] = due(&service).await;
        faults.kill_at(place, tokens_end_unused::end_unused(service.app.clone())).await?;
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{place}");
        service.run_end_unused().await.unwrap();
        tokens.assert_ended(&service, &place.to_string()).await;
        assert_eq!(before.refused(&service).await, 0, "{place}");
        Some(())
    })
    .await
    .len();
    assert!(killed > 20, "{killed}");
}

#[tokio::test]
async fn two_runs_at_once_do_no_harm() {
    let (service, faults) = Service::start_with_faults().await;
    let [before, tokens, after] = due(&service).await;
    faults.arm(0, &[Fault::WaitForAnother; 2], None);
    let (one, other) = join(service.run_end_unused(), service.run_end_unused()).await;
    faults.disarm();
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    tokens.assert_ended(&service, "two runs").await;
    for other in [before, after] {
        assert_eq!(other.refused(&service).await, 0);
    }
}

/// 120 tokens are two pages: the run is killed between them, and continued on the next day.
#[tokio::test]
async fn killed_run_does_not_begin_again_and_todays_follows_it() {
    let (service, faults) = Service::start_with_faults().await;
    let tokens = Tokens::of(&service).await;
    for _ in 0..120 {
        service.issue(&tokens.org, &tokens.owner, "carol").await;
    }
    service.end_unused(&tokens.org.id, 2).await;
    service.clock.advance(2 * DAY);
    let is_second_page = |call: &Call| call.operation == "Query" && call.request["ExclusiveStartKey"].is_object();
    faults.arm_where(is_second_page, &[], Some(Fault::Throttled));
    service.run_end_unused().await.unwrap_err();
    faults.disarm();
    let late = Tokens::of(&service).await;
    service.end_unused(&late.org.id, 1).await;
    service.clock.advance(DAY);
    faults.arm(0, &[], None);
    service.run_end_unused().await.unwrap();
    let calls = faults.take_calls();
    let listing = format!("ORG#{}#USER_TOKENS#ACTIVE", tokens.org.id);
    let pages: Vec<bool> = calls.iter().filter(|call| queried(call) == listing).map(is_second_page).collect();
    // The rest, then today's.
    assert_eq!(pages, [true, false]);
    let ended =
        service.table.items().await.into_iter().filter(|item| text(item, "pk").ends_with("#USER_TOKENS#ACTIVE"));
    assert_eq!(ended.count(), 0);
    service.end_unused(&tokens.org.id, 0).await;
    assert_eq!(tokens.refused(&service).await, tokens.all.len());
    late.assert_ended(&service, "of the second run").await;
}

/// Each token is used after the run has read it, before it is moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_is_used_meanwhile_is_not_ended() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_on(Plan::Pro).await;
    let user = service.issue(&org, &owner, "alice").await.token;
    let key = service.api_key(&owner.credential, &["org:read"]).await.key;
    let access = service.access_token(&owner, &json!({"name": "relay"})).await.token;
    service.end_unused(&org.id, 1).await;
    service.clock.advance(DAY);
    faults.arm_where(is_move, &[Fault::Held; 3], None);
    let tokens = [&user, &key, &access];
    let using = async {
        for (token, count) in tokens.into_iter().zip(1..) {
            moves(&faults, count).await;
            record_use(&service, token).await;
            faults.release();
        }
    };
    let (run, ()) = join(service.run_end_unused(), using).await;
    run.unwrap();
    faults.disarm();
    for token in tokens {
        assert_eq!(service.whoami(token).await.status, 200);
    }
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 1);
    service.table.assert_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_token_that_is_changed_meanwhile_keeps_what_the_change_says() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_on(Plan::Pro).await;
    let token = service.access_token(&owner, &json!({"name": "relay"})).await;
    let patch = async |body: &Value| {
        let answer = service.send_json(Method::PATCH, &token.path(), &owner.credential, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    service.end_unused(&org.id, 1).await;
    for change in [json!({"expires_at": LATER}), json!({"name": "renamed"})] {
        service.clock.advance(2 * DAY);
        faults.arm_where(is_move, &[Fault::Held], None);
        let changing = async {
            moves(&faults, 1).await;
            patch(&change).await;
            faults.release();
        };
        let (run, ()) = join(service.run_end_unused(), changing).await;
        run.unwrap();
        faults.disarm();
    }
    service.end_unused(&org.id, 0).await;
    assert_eq!(service.access_tokens(&owner).await[0]["expires_at"], LATER);
    assert_eq!(service.whoami(&token.token).await.status, 200);
    // The other way round: a change that was read before the end and says nothing of the expiry.
    service.end_unused(&org.id, 1).await;
    service.clock.advance(2 * DAY);
    faults.arm_where(is_move, &[Fault::Held], None);
    let running = async {
        moves(&faults, 1).await;
        service.run_end_unused().await.unwrap();
        faults.release();
    };
    let change = json!({"name": "renamed again"});
    let (changed, ()) = join(patch(&change), running).await;
    faults.disarm();
    assert_ne!(changed["expires_at"], LATER);
    service.end_unused(&org.id, 0).await;
    assert_eq!(service.whoami(&token.token).await.status, 401);
    // An expiry that somebody sets is one.
    patch(&json!({"expires_at": LATER})).await;
    assert_eq!(service.whoami(&token.token).await.status, 200);
}

/// A policy of a day, which is corrected within the minute for which uses remember it.
#[tokio::test]
async fn corrected_policy_ends_nothing_for_good() {
    let (service, faults) = Service::start_with_faults().await;
    let tokens = Tokens::of(&service).await;
    let (org, owner) = (&tokens.org, &tokens.owner);
    service.clock.advance(10 * DAY);
    set_now(&service, org, 1).await;
    assert_eq!(service.whoami(&tokens.user.token).await.status, 401);
    set_now(&service, org, 30).await;
    faults.arm(0, &[], None);
    // Uses go on with what they remember; what a list writes does not.
    assert_eq!(service.whoami(&tokens.user.token).await.status, 401);
    for query in ["", "?status=expired"] {
        set_now(&service, org, 1).await;
        service.clock.advance(MINUTE);
        assert_eq!(service.whoami(&tokens.user.token).await.status, 401);
        set_now(&service, org, 30).await;
        service.list(org, owner, query).await;
        set_now(&service, org, 1).await;
        service.clock.advance(MINUTE);
        assert_eq!(service.whoami(&tokens.user.token).await.status, 401);
        set_now(&service, org, 30).await;
        service.api_keys(&owner.credential, query).await;
    }
    service.run_end_unused().await.unwrap();
    assert!(!faults.take_calls().iter().any(is_move));
    service.clock.advance(MINUTE + SECOND);
    assert_eq!(tokens.refused(&service).await, 0);
    assert_eq!(ids(&service.api_keys(&owner.credential, "").await["api_keys"]).len(), 2);
}
