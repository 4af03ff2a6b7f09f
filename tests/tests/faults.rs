//! What callers see while DynamoDB and SES fail, throttle, conflict, lose answers or hang, at any call of any operation:
//! what the OpenAPI document says, never 500. What lies in the tables afterwards is sound, and whoever repeats the call
//! gets what they asked for.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use futures::future::join_all;
use serde_json::json;
use shared::app::Limits;
use shared::principal::Operation;
use tests::coverage::{COVERED, Covered, Guard, Stage};
use tests::email::{Kind, code_in, key_in, kind_of};
use tests::faults::{Fault, Faults, Way};
use tests::mail_faults::{MailFault, Ses};
use tests::table::text;
use tests::upstream::Registry;
use tests::{Answer, Service, unlimited};

/// How many faults strike at a time. Most of the time goes by waiting for answers that do not come.
const AT_ONCE: usize = 24;

/// How many faults one service goes through: its tables grow, and are looked through after each.
const PER_SERVICE: usize = 16;

/// A fault, and where it strikes.
#[derive(Debug, Clone, Copy)]
enum Strike {
    /// A call of DynamoDB, counted from 0; this one alone, or all from there on.
    Table { place: usize, fault: Fault, for_good: bool },
    /// The operation's mail.
    Mail(MailFault),
}

impl Strike {
    fn way(self) -> Way {
        match self {
            Strike::Table { fault, .. } => fault.way(),
            Strike::Mail(MailFault::Throttled | MailFault::LimitExceeded) => Way::Throttled,
            Strike::Mail(MailFault::LostAfter) => Way::Unheard,
            Strike::Mail(MailFault::HangBefore | MailFault::HangAfter) => Way::Late,
            Strike::Mail(_) => Way::Fails,
        }
    }

    /// Whether what was asked for may have happened although the answer says that it did not.
    fn may_have_been_done(self) -> bool {
        match self {
            Strike::Table { fault, for_good, .. } => fault.takes_effect() && for_good,
            Strike::Mail(fault) => fault.takes_the_mail(),
        }
    }

    /// Whether the SDK's next attempt gets through, so that nobody notices.
    fn passes(self) -> bool {
        matches!(self, Strike::Table { for_good: false, .. })
    }
}

/// A service with all that can fail.
struct Stand {
    service: Service,
    faults: Faults,
    ses: Ses,
    _registry: Registry,
}

impl Stand {
    async fn start() -> Self {
        let registry = Registry::with_widgets().await;
        // With a limit of mails, so that its counter is one more call that can fail.
        let limits = Limits { mails_per_hour: Some(1_000_000), ..unlimited() };
        let (service, faults, ses) = Service::start_with_all_faults(limits, registry.settings()).await;
        Self { service, faults, ses, _registry: registry }
    }

    /// The calls that an operation makes of DynamoDB, and whether it sends a mail.
    async fn calls_of(&self, covered: &Covered) -> (Vec<String>, bool) {
        let stage = Stage::set(&self.service).await;
        let mails = self.service.outbox.mails().len();
        self.faults.arm(0, &[], None);
        let answer = covered.call(&self.service, &stage).await;
        let calls = self.faults.disarm();
        assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
        self.assert_done(covered, &stage, &answer, covered.operation.name()).await;
        (calls, self.service.outbox.mails().len() > mails)
    }

    /// Strikes once, and checks all that must hold then.
    async fn strike(&self, covered: &Covered, strike: Strike) {
        let what = format!("{} {} {strike:?}", covered.method, covered.operation.name());
        let (service, stage) = (&self.service, Stage::set(&self.service).await);
        match strike {
            Strike::Table { place, fault, for_good: false } => self.faults.arm(place, &[fault], None),
            Strike::Table { place, fault, for_good: true } => self.faults.arm(place, &[], Some(fault)),
            Strike::Mail(fault) => self.ses.fail(fault),
        }
        let answer = covered.call(service, &stage).await;
        match strike {
            Strike::Table { place, .. } => assert!(self.faults.disarm().len() > place, "{what}: it was never struck"),
            Strike::Mail(_) => assert_eq!(self.ses.recover(), 1, "{what}: one mail is tried once"),
        }
        let status = answer.status.as_u16();
        assert!(covered.is_documented(status), "{what}: {}", answer.text);
        assert!(status == covered.success || status == 503, "{what}: {}", answer.text);
        assert!(status == covered.success || !strike.passes(), "{what}: {}", answer.text);
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{what}");
        if status == covered.success {
            return self.assert_done(covered, &stage, &answer, &what).await;
        }
        let again = covered.call(service, &stage).await;
        let what = format!("{what}, then repeated: {}", again.text);
        if again.status == covered.success {
            self.assert_done(covered, &stage, &again, &what).await;
        } else {
            assert!(strike.may_have_been_done(), "{what}");
            assert_eq!(Some(again.status.as_u16()), refused_once_done(covered.operation), "{what}");
            self.assert_not_lost(covered, &stage, &what).await;
        }
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{what}");
    }

    /// Checks that what a call is for has happened.
    async fn assert_done(&self, covered: &Covered, stage: &Stage, answer: &Answer, what: &str) {
        let service = &self.service;
        let counts = async |credential: &str| service.whoami(credential).await.status == 200;
        let said = |field: &str| text(&answer.json(), field).to_owned();
        let done = match covered.operation {
            Operation::OrgUserTokensIssue | Operation::OrgAccessTokensCreate => counts(&said("token")).await,
            Operation::ApiKeysCreate => counts(&said("key")).await,
            Operation::OrgUserTokensRevoke | Operation::OrgUserTokensRevokeByUser => !counts(&stage.token.token).await,
            Operation::ApiKeysRevoke => !counts(&stage.api_key.key).await,
            Operation::OrgAccessTokensDelete => !counts(&stage.access_token.token).await,
            Operation::OrgAccessTokensUpdate => {
                let tokens = service.access_tokens(&stage.owner).await;
                said("name").ends_with('d') && tokens.iter().any(|token| token["name"] == said("name"))
            }
            Operation::EmailTokensRegenerate | Operation::EmailTokensReset => {
                !service.counts(&stage.email_token).await && service.counts(&said("token")).await
            }
            Operation::EmailTokensRevoke => !service.counts(&stage.email_token).await,
            Operation::EmailTokensRegister => !service.person(&format!("else-{}", stage.email)).mails().is_empty(),
            Operation::OrgUserTokensList => answer.text.contains(&stage.token.id),
            Operation::OrgAccessTokensList => answer.json()[0]["name"] == "device",
            Operation::ApiKeysList => answer.text.contains(&stage.api_key.id),
            Operation::AuditLogList => answer.text.contains("org.create"),
            Operation::TokensWhoami | Operation::EmailTokensStatus => answer.json()["id"].is_string(),
            Operation::RegistryNpm | Operation::RegistryPypi if covered.success == 302 => {
                answer.header("location").contains("widgets-1.0")
            }
            Operation::RegistryNpm | Operation::RegistryPypi => answer.text.contains("widgets-1.0"),
            Operation::InstallationsList => answer.json()["installations"].is_array(),
            Operation::OrgUserTokensProbe | Operation::TokensIntrospect => answer.json()["active"] == true,
            _ => true,
        };
        assert!(done, "{what}: {}", answer.text);
    }

    /// Checks that a change whose answer was lost, and whose repetition is refused since it was made, is to be seen,
    /// and that a person who lost a key that way gets another by mail.
    async fn assert_not_lost(&self, covered: &Covered, stage: &Stage, what: &str) {
        let service = &self.service;
        match covered.operation {
            Operation::OrgAccessTokensCreate => {
                let name = format!("beside-{}", stage.access_token.id);
                assert!(service.access_tokens(&stage.owner).await.iter().any(|token| token["name"] == name), "{what}");
            }
            Operation::OrgAccessTokensDelete => {
                assert_eq!(service.access_tokens(&stage.owner).await.len(), 0, "{what}")
            }
            _ => {
                let person = service.person(&stage.email);
                assert!(!service.counts(&stage.email_token).await, "{what}");
                person.registers().await;
                let mail = person.newest_mail();
                let key = match kind_of(&mail).0 {
                    Kind::Welcome => key_in(&mail),
                    _ => person.resets(&code_in(&mail)).await,
                };
                assert!(service.counts(&key).await, "{what}");
            }
        }
    }
}

/// What a call is answered that was done before.
fn refused_once_done(operation: Operation) -> Option<u16> {
    match operation {
        // The name is taken: by the token whose plain text nobody got. It is to be deleted.
        Operation::OrgAccessTokensCreate => Some(400),
        Operation::OrgAccessTokensDelete => Some(404),
        // The key is gone, and with it the right to ask.
        Operation::EmailTokensRegenerate | Operation::EmailTokensRevoke => Some(401),
        // A code is good once.
        Operation::EmailTokensReset => Some(400),
        _ => None,
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

/// How many faults each operation went through, and in which way they struck.
type Tally = BTreeMap<String, BTreeMap<Way, usize>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_at_any_call_the_answer_is_documented_the_tables_are_sound_and_the_call_can_be_repeated() {
    let mut strikes: VecDeque<(&Covered, Strike)> = VecDeque::new();
    let mut tally = Tally::new();
    let stand = Stand::start().await;
    for covered in COVERED.iter().filter(|covered| covered.guard != Guard::Gateway) {
        let (calls, mails) = stand.calls_of(covered).await;
        let mut of_it = Vec::new();
        for (place, operation) in calls.iter().enumerate() {
            for fault in Fault::ALL.into_iter().filter(|fault| fault.matters_to(operation)) {
                of_it.extend([false, true].map(|for_good| Strike::Table { place, fault, for_good }));
            }
        }
        if mails {
            of_it.extend(MailFault::ALL.map(Strike::Mail));
        }
        let ways = tally.entry(format!("{} {}", covered.method, covered.path)).or_default();
        for strike in of_it {
            *ways.entry(strike.way()).or_default() += 1;
            strikes.push_back((covered, strike));
        }
    }
    drop(stand);
    let strikes = Mutex::new(strikes);
    let next = || strikes.lock().unwrap().pop_front();
    join_all((0..AT_ONCE).map(async |_| {
        while let Some(mut strike) = next() {
            let stand = Stand::start().await;
            for _ in 0..PER_SERVICE {
                stand.strike(strike.0, strike.1).await;
                match next() {
                    Some(another) => strike = another,
                    None => return,
                }
            }
            stand.strike(strike.0, strike.1).await;
        }
    }))
    .await;
    report(&tally);
}

/// Writes down how many faults were survived, and checks that the documents say so.
fn report(tally: &Tally) {
    let ways = [Way::Fails, Way::Unheard, Way::Throttled, Way::Conflicts, Way::Late];
    let mut table = String::from(
        "| operation | fails | done, answer lost | throttled | conflicts | late | all |\n|---|---|---|---|---|---|---|\n",
    );
    let mut row = |name: &str, counts: [usize; 5]| {
        let cells = counts.map(|count| count.to_string()).join(" | ");
        writeln!(table, "| {name} | {cells} | {} |", counts.iter().sum::<usize>()).unwrap();
    };
    let mut totals = [0; 5];
    for (operation, counts) in tally.iter().filter(|(_, counts)| !counts.is_empty()) {
        let counts = ways.map(|way| counts.get(&way).copied().unwrap_or_default());
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        row(&format!("`{operation}`"), counts);
    }
    row("all", totals);
    let total = totals.iter().sum::<usize>();
    let said = format!("{},{:03} faults", total / 1_000, total % 1_000);
    assert!(read("docs/FAULTS.md").contains(&table), "docs/FAULTS.md has another table than this:\n{table}");
    for file in ["docs/FAULTS.md", "README.md"] {
        assert!(read(file).contains(&said), "{file} does not say: {said}");
    }
}

#[tokio::test]
async fn an_issue_whose_answer_was_lost_mints_one_token() {
    let (service, faults) = Service::start_with_faults().await;
    // The transaction is the third call. In the second case DynamoDB is still at it when it is asked again.
    let still_at_it = [Fault::LostAfter, Fault::InProgress, Fault::InProgress, Fault::InProgress, Fault::InProgress];
    let throttled = [Fault::LostAfter, Fault::Throttled, Fault::ServerError];
    for lost in [&[Fault::LostAfter][..], &[Fault::LostAfter; 3], &still_at_it, &throttled] {
        let (org, owner) = service.org_with_owner().await;
        faults.arm(2, lost, None);
        let answer =
            service.post(&org.org_user_tokens(""), &owner.credential, &json!({"user_identifier": "alice"})).await;
        let calls = faults.disarm();
        assert_eq!(answer.status, 201, "{lost:?}: {}", answer.text);
        assert_eq!(calls[2..], vec!["TransactWriteItems"; lost.len() + 1]);
        let id = text(&answer.json(), "id").to_owned();
        assert_eq!(service.listed_ids(&org, &owner, "?status=all").await, [id]);
        // The token that is answered is the one that counts.
        assert_eq!(service.probe(&org, &owner, text(&answer.json(), "token")).await["active"], true);
        assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    }
    service.table.assert_sound();
}

#[tokio::test]
async fn an_issue_that_was_done_and_never_answered_is_503_and_leaves_one_token() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    faults.arm(2, &[], Some(Fault::LostAfter));
    let path = org.org_user_tokens("");
    let answer = service.post(&path, &owner.credential, &json!({"user_identifier": "alice"})).await;
    faults.disarm();
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
    // Nobody has it, but it is there to be seen and revoked; and it is one, however often it was tried.
    assert_eq!(service.listed_ids(&org, &owner, "").await.len(), 1);
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    service.table.assert_sound();
}

#[tokio::test]
async fn a_refusal_that_cannot_be_recorded_is_no_refusal() {
    let (service, faults) = Service::start_with_faults().await;
    let org = service.org().await;
    let bot = service.bot(&org, &[]).await;
    let issue = async || {
        let body = json!({"user_identifier": "alice"});
        let answer = service.post(&org.org_user_tokens(""), &bot.credential, &body).await;
        faults.disarm();
        answer
    };
    faults.arm(2, &[Fault::LostAfter, Fault::Throttled], None);
    issue().await.assert_error(403, "FORBIDDEN");
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    faults.arm(2, &[], Some(Fault::LostBefore));
    issue().await.assert_error(503, "SERVICE_UNAVAILABLE");
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
}

#[tokio::test]
async fn revoking_by_user_that_broke_off_is_finished_by_the_next_call() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    let original = service.issue(&org, &owner, "alice").await;
    for _ in 0..39 {
        service.issue(&org, &owner, "alice").await;
    }
    let call = async || {
        let body = json!({"user_identifier": "alice"});
        service.post(&org.org_user_tokens("/revoke-by-user"), &owner.credential, &body).await
    };
    // Bot, organization, query; then half of the revocations.
    faults.arm(3 + 20, &[], Some(Fault::NoCapacity));
    let answer = call().await;
    faults.disarm();
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
    service.table.assert_sound();
    let left = service.listed_ids(&org, &owner, "?limit=100").await.len();
    // Those that were under way when the first failed may have been given up.
    assert!((20..40).contains(&left), "{left} are left");
    let answer = call().await.json();
    assert_eq!((&answer["matched"], &answer["remaining"]), (&json!(left), &json!(0)));
    assert_eq!(service.probe(&org, &owner, &original.token).await["active"], false);
    service.table.assert_sound();
}
