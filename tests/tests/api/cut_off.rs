//! Bots that are cut off while their own calls are under way: what was not committed by then does
//! not happen, or is taken back before anybody holds it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Plan;
use shared::permissions::Role;
use shared::store::Store;
use tests::faults::{Fault, Faults};
use tests::management::AccessToken;
use tests::table::{TABLE, text};
use tests::{Answer, Bot, Org, Service, operator};

const API_KEYS: &str = "/v1/api-keys";
const ACCESS_TOKENS: &str = "/api/v2/organization/tokens/";

/// How a bot loses what it may do.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Deleted,
    KeyReplaced,
    RoleTaken,
}

impl Cut {
    const ALL: [Cut; 3] = [Cut::Deleted, Cut::KeyReplaced, Cut::RoleTaken];

    async fn make(self, store: &Store, bot: &Bot) {
        match self {
            Cut::Deleted => assert!(store.delete_bot(&bot.id, &operator()).await.unwrap()),
            Cut::KeyReplaced => assert!(store.rotate_bot_key(&bot.id, None, &operator()).await.unwrap().is_some()),
            Cut::RoleTaken => {
                let other = [Role::TokenIntrospector];
                assert!(store.set_bot_roles(&bot.id, &other, &operator()).await.unwrap().is_some());
            }
        }
    }

    #[track_caller]
    fn assert_refused(self, answer: &Answer) {
        match self {
            Cut::RoleTaken if answer.status == 429 => answer.assert_error(429, "RATE_LIMITED"),
            Cut::RoleTaken => answer.assert_error(403, "FORBIDDEN"),
            Cut::Deleted | Cut::KeyReplaced => answer.assert_error(401, "UNAUTHORIZED"),
        }
    }
}

/// A call that gives something to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Issue,
    CreateApiKey,
    CreateAccessToken,
    Replace,
    Merge,
}

impl Call {
    const ALL: [Call; 5] = [Call::Issue, Call::CreateApiKey, Call::CreateAccessToken, Call::Replace, Call::Merge];

    /// Its calls of DynamoDB before its transaction.
    fn reads(self) -> usize {
        match self {
            Call::Issue | Call::CreateAccessToken => 2,
            Call::CreateApiKey | Call::Replace | Call::Merge => 3,
        }
    }

    fn creates(self) -> bool {
        !matches!(self, Call::Replace | Call::Merge)
    }

    /// The action of its audit entry.
    fn action(self) -> &'static str {
        match self {
            Call::Issue => "org_user_token.issue",
            Call::CreateApiKey => "api_key.create",
            Call::CreateAccessToken => "org_access_token.create",
            Call::Replace | Call::Merge => "org_access_token.update",
        }
    }

    /// The actions of the audit entries of this call by a bot that was cut off before its
    /// transaction.
    fn actions_when_cut(self, cut: Cut) -> Vec<&'static str> {
        let mut actions = match self {
            Call::Issue => vec!["org_user_token.issue", "org_user_token.revoke"],
            Call::CreateApiKey => vec!["api_key.create", "api_key.revoke"],
            Call::CreateAccessToken => vec!["org_access_token.create", "org_access_token.delete"],
            Call::Replace | Call::Merge => Vec::new(),
        };
        if self.creates() && matches!(cut, Cut::RoleTaken) {
            actions.push(self.action());
        }
        actions
    }
}

/// A service with an organization, an owner and a device's token.
struct Setup {
    service: Service,
    faults: Faults,
    org: Org,
    owner: Bot,
    device: AccessToken,
    calls: AtomicUsize,
}

impl Setup {
    async fn start() -> Self {
        let (service, faults) = Service::start_with_faults().await;
        let (org, owner) = service.org_on(Plan::Enterprise).await;
        let device = service.access_token(&owner, &json!({"name": "device"})).await;
        Self { service, faults, org, owner, device, calls: AtomicUsize::new(0) }
    }

    async fn call(&self, call: Call, bot: &Bot) -> Answer {
        let name = format!("n{}", self.calls.fetch_add(1, Ordering::SeqCst));
        let key = json!({"name": name, "environment": "live", "scopes": ["org:write"]});
        let (method, path, body) = match call {
            Call::Issue => (Method::POST, self.org.org_user_tokens(""), json!({"user_identifier": "alice"})),
            Call::CreateApiKey => (Method::POST, API_KEYS.to_owned(), key),
            Call::CreateAccessToken => (Method::POST, ACCESS_TOKENS.to_owned(), json!({"name": name})),
            Call::Replace => (Method::PUT, self.device.path(), json!({"name": name})),
            Call::Merge => (Method::PATCH, self.device.path(), json!({"name": name})),
        };
        self.service.send_json(method, &path, &bot.credential, &body).await
    }

    /// Makes a call and the change at the moment when the call has read everything and is about to
    /// commit.
    async fn call_during(&self, call: Call, bot: &Bot, change: impl Future<Output = ()>) -> Answer {
        self.faults.arm(call.reads(), &[Fault::Held], None);
        let changing = async {
            self.faults.reached(call.reads() + 1).await;
            change.await;
            self.faults.release();
        };
        let (answer, ()) = join(self.call(call, bot), changing).await;
        self.faults.disarm();
        answer
    }

    /// The IDs of everything that works, and the device's settings.
    async fn active(&self) -> (BTreeSet<String>, Vec<Value>) {
        let (service, owner) = (&self.service, &self.owner);
        let user_tokens = service.listed_ids(&self.org, owner, "?limit=100").await;
        let keys = service.all_api_keys(&owner.credential, 100, "").await;
        let (device, access_tokens): (Vec<Value>, Vec<Value>) =
            service.access_tokens(owner).await.into_iter().partition(|token| token["id"] == self.device.id);
        let access_tokens = access_tokens.iter().map(|token| token["id"].to_string());
        (user_tokens.into_iter().chain(keys).chain(access_tokens).collect(), device)
    }

    /// The audit entries of a bot.
    async fn entries(&self, bot: &Bot) -> Vec<Value> {
        let mut entries = self.service.table.audit_entries(&self.org.id).await;
        entries.retain(|entry| entry["actor"]["id"] == bot.id.as_str());
        entries
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_committed_after_its_bot_was_cut_off_gives_nothing() {
    let setup = Setup::start().await;
    let before = setup.active().await;
    for call in Call::ALL {
        for cut in Cut::ALL {
            let bot = setup.service.bot(&setup.org, &[Role::Owner]).await;
            let answer = setup.call_during(call, &bot, cut.make(&setup.service.store, &bot)).await;
            cut.assert_refused(&answer);
            assert_eq!(setup.active().await, before, "{call:?} {cut:?}");
            let entries = setup.entries(&bot).await;
            let mut actions: Vec<&str> = entries.iter().map(|entry| text(entry, "action")).collect();
            let mut expected = call.actions_when_cut(cut);
            actions.sort_unstable();
            expected.sort_unstable();
            assert_eq!(actions, expected, "{call:?} {cut:?}");
            for entry in &entries {
                assert_eq!(entry["request_id"], answer.header("x-request-id"), "{call:?} {cut:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_by_a_bot_that_loses_its_role_meanwhile_is_a_refusal_that_is_audited_and_counts() {
    let setup = Setup::start().await;
    let (service, faults) = (&setup.service, &setup.faults);
    let to_rotate = async |action: &str| match action {
        "org_user_token.rotate" => {
            let token = service.issue(&setup.org, &setup.owner, "alice").await;
            setup.org.org_user_tokens(&format!("/by-id/{}/rotate", token.id))
        }
        "api_key.rotate" => {
            let key = service.api_key(&setup.owner.credential, &["org:read"]).await;
            format!("{API_KEYS}/{}/rotate", key.id)
        }
        _ => {
            let bot = service.bot(&setup.org, &[Role::Owner]).await;
            format!("/v1/o/{}/bots/{}/rotate-key", setup.org.id, bot.id)
        }
    };
    for action in ["org_user_token.rotate", "api_key.rotate", "bot.rotate_key"] {
        let bot = service.bot(&setup.org, &[Role::Owner]).await;
        let path = to_rotate(action).await;
        let rotate = async || service.post(&path, &bot.credential, &json!({"overlap": "1h"})).await;
        faults.arm(0, &[], None);
        assert_eq!(rotate().await.status, 201, "{action}");
        let reads = faults.disarm().iter().position(|call| call == "TransactWriteItems").unwrap();

        let path = to_rotate(action).await;
        let rotate = async || service.post(&path, &bot.credential, &json!({"overlap": "1h"})).await;
        faults.arm(reads, &[Fault::Held], None);
        let cutting = async {
            faults.reached(reads + 1).await;
            Cut::RoleTaken.make(&service.store, &bot).await;
            faults.release();
        };
        let (answer, ()) = join(rotate(), cutting).await;
        faults.disarm();
        Cut::RoleTaken.assert_refused(&answer);
        let mut refused = setup.entries(&bot).await;
        refused.retain(|entry| entry["outcome"] == "refused");
        let [entry] = &refused[..] else { panic!("{action}: not one refusal: {refused:?}") };
        assert_eq!((text(entry, "action"), text(entry, "request_id")), (action, answer.header("x-request-id")));
        // It was the first of ten in a minute.
        for _ in 0..9 {
            rotate().await.assert_error(403, "FORBIDDEN");
        }
        rotate().await.assert_error(429, "RATE_LIMITED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_of_a_bot_that_leaves_it_its_right_disturbs_no_call() {
    let setup = Setup::start().await;
    let store = &setup.service.store;
    for call in Call::ALL {
        let expected = if call.creates() { 201 } else { 200 };
        let bot = setup.service.bot(&setup.org, &[Role::Owner]).await;
        let rotation = async {
            let overlap = Some(Duration::from_secs(3_600));
            assert!(store.rotate_bot_key(&bot.id, overlap, &operator()).await.unwrap().is_some());
        };
        let answer = setup.call_during(call, &bot, rotation).await;
        assert_eq!(answer.status, expected, "{call:?}: {}", answer.text);
        let more_roles = async {
            let roles = [Role::Manager, Role::Owner];
            assert!(store.set_bot_roles(&bot.id, &roles, &operator()).await.unwrap().is_some());
        };
        let answer = setup.call_during(call, &bot, more_roles).await;
        assert_eq!(answer.status, expected, "{call:?}: {}", answer.text);
        let actions: Vec<String> =
            setup.entries(&bot).await.iter().map(|entry| text(entry, "action").to_owned()).collect();
        assert_eq!(actions, [call.action(), call.action()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_a_loop_gain_nothing_once_their_bot_is_cut_off() {
    for call in Call::ALL {
        for cut in Cut::ALL {
            let setup = Setup::start().await;
            let bot = setup.service.bot(&setup.org, &[Role::Owner]).await;
            // Through the proxy, as the calls are.
            let store = Store::new(setup.faults.client(), TABLE, setup.service.clock.clone());
            setup.faults.arm(0, &[], Some(Fault::Slow));
            let (is_cut, has_begun) = (AtomicBool::new(false), AtomicBool::new(false));
            let caller = async || {
                let (mut during, mut afterwards) = (Vec::new(), Vec::new());
                while afterwards.len() < 3 {
                    let was_cut = is_cut.load(Ordering::SeqCst);
                    let answer = setup.call(call, &bot).await;
                    has_begun.fetch_or(answer.status.is_success(), Ordering::SeqCst);
                    if was_cut { afterwards.push(answer) } else { during.push(answer) }
                }
                (during, afterwards)
            };
            let cutting = async {
                while !has_begun.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(Duration::from_millis(60)).await;
                let started = Instant::now();
                cut.make(&store, &bot).await;
                assert!(started.elapsed() < Duration::from_secs(20));
                is_cut.store(true, Ordering::SeqCst);
                setup.entries(&bot).await
            };
            let (answers, committed_before) = join(join_all((0..6).map(|_| caller())), cutting).await;
            setup.faults.disarm();

            let (during, afterwards): (Vec<Vec<Answer>>, Vec<Vec<Answer>>) = answers.into_iter().unzip();
            afterwards.iter().flatten().for_each(|answer| cut.assert_refused(answer));
            let (granted, refused): (Vec<&Answer>, Vec<&Answer>) =
                during.iter().flatten().partition(|answer| answer.status.is_success());
            refused.into_iter().for_each(|answer| cut.assert_refused(answer));
            assert!(!granted.is_empty(), "{call:?} {cut:?}");

            // Each success was committed before the cut was answered; nothing else is left.
            let done = |entries: &[Value]| -> BTreeSet<String> {
                let done = |entry: &&Value| entry["outcome"] == "done" && entry["action"] == call.action();
                entries.iter().filter(done).map(|entry| text(entry, "request_id").to_owned()).collect()
            };
            let (before, all) = (done(&committed_before), setup.entries(&bot).await);
            let granted_ids: BTreeSet<String> =
                granted.iter().map(|answer| answer.header("x-request-id").to_owned()).collect();
            assert!(granted_ids.is_subset(&before), "{call:?} {cut:?}: a success was committed after the cut");
            if call.creates() {
                let made: BTreeSet<String> =
                    granted.iter().map(|answer| answer.json()["id"].to_string().replace('"', "")).collect();
                assert_eq!(setup.active().await.0, made, "{call:?} {cut:?}");
            } else {
                assert_eq!(done(&all), before, "{call:?} {cut:?}: a change was committed after the cut");
            }
        }
    }
}

#[tokio::test]
async fn cut_is_repeated_until_it_wins() {
    join_all(Cut::ALL.map(async |cut| {
        let setup = Setup::start().await;
        let bot = setup.service.bot(&setup.org, &[Role::Owner]).await;
        let store = Store::new(setup.faults.client(), TABLE, setup.service.clock.clone());
        // The bot is read first. Other transactions give up after 8 conflicts.
        setup.faults.arm(1, &[Fault::Conflict; 9], None);
        let started = Instant::now();
        cut.make(&store, &bot).await;
        assert!(started.elapsed() < Duration::from_secs(20));
        setup.faults.disarm();
        cut.assert_refused(&setup.call(Call::Issue, &bot).await);
    }))
    .await;
}
