//! Injects every fault of DynamoDB and SES at every call of every operation. The response must be
//! documented and never 500, the tables must stay consistent, and a retry must succeed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use shared::app::Limits;
use shared::permissions::Operation;
use shared::store::mail_limits::MailLimits;
use shared::store::scim_users::Provisioned;
use tests::console::person;
use tests::coverage::{Covered, Fixtures, Guard, documented};
use tests::email::{Kind, code_in, kind_of, token_in};
use tests::faults::{Fault, FaultClass, Faults};
use tests::mail_faults::{MailFault, Ses};
use tests::table::{TABLE, text};
use tests::upstream::Registry;
use tests::{Answer, Service, unlimited};

/// Faults tested concurrently. Most of the time is spent waiting for timeouts.
const CONCURRENCY: usize = 24;

/// Faults tested with one service: its tables grow, and every fault checks all of them.
const FAULTS_PER_SERVICE: usize = 16;

/// A call to inject faults into.
#[derive(Debug, Clone, Copy)]
struct Case {
    covered: &'static Covered,
    /// Whether it has an idempotency key.
    once: bool,
}

impl Case {
    /// Every operation, and those that create tokens also with an idempotency key.
    fn all() -> Vec<Case> {
        let creates = |covered: &Covered| covered.operation.rule().audited_refusal.is_some();
        documented()
            .flat_map(|covered| [false, true].map(|once| Case { covered, once }))
            .filter(|case| !case.once || creates(case.covered))
            .collect()
    }

    /// Its place in the table of results.
    fn row(self) -> (String, bool) {
        (format!("{} {}", self.covered.method, self.covered.path), self.once)
    }

    async fn call(self, service: &Service, fixtures: &Fixtures) -> Answer {
        match self.once {
            true => self.covered.call_once(service, fixtures).await,
            false => self.covered.call(service, fixtures).await,
        }
    }
}

/// A fault and where to inject it.
#[derive(Debug, Clone, Copy)]
enum Injection {
    /// The DynamoDB call at this index; if `permanent`, all calls from there on.
    Table { place: usize, fault: Fault, permanent: bool },
    /// The mail that the operation sends.
    Mail(MailFault),
}

impl Injection {
    fn class(self) -> FaultClass {
        match self {
            Injection::Table { fault, .. } => fault.class(),
            Injection::Mail(MailFault::Throttled | MailFault::LimitExceeded) => FaultClass::Throttled,
            Injection::Mail(MailFault::LostAfter) => FaultClass::AnswerLost,
            Injection::Mail(MailFault::HangBefore | MailFault::HangAfter) => FaultClass::Late,
            Injection::Mail(_) => FaultClass::Fails,
        }
    }

    /// Whether the call may have taken effect although the response reports failure.
    fn may_have_taken_effect(self) -> bool {
        match self {
            Injection::Table { fault, permanent, .. } => fault.takes_effect() && permanent,
            Injection::Mail(fault) => fault.delivers(),
        }
    }

    /// Whether the SDK's next attempt succeeds, so that the caller notices nothing.
    fn is_retried_away(self) -> bool {
        matches!(self, Injection::Table { permanent: false, .. })
    }
}

/// A service whose dependencies can all fail.
struct Setup {
    service: Service,
    faults: Faults,
    ses: Ses,
    _registry: Registry,
}

impl Setup {
    async fn start() -> Self {
        let registry = Registry::with_widgets().await;
        // Sets the deployment's mail limit, so that its counter can fail too.
        let many = Some(1_000_000);
        let mails = MailLimits {
            per_hour: many,
            per_domain_per_hour: many,
            per_source_per_hour: many,
            per_source_per_day: many,
            recoveries_per_source_per_hour: many,
            sign_in_codes_per_source_per_hour: many,
        };
        let limits = Limits { mails, ..unlimited() };
        let (service, faults, ses) = Service::start_with_all_faults(limits, registry.settings()).await;
        Self { service, faults, ses, _registry: registry }
    }

    /// The DynamoDB calls of an operation, and whether it sends a mail.
    async fn calls_of(&self, case: Case) -> (Vec<String>, bool) {
        let covered = case.covered;
        let fixtures = Fixtures::create(&self.service).await;
        let mails = self.service.outbox.mails().len();
        self.faults.arm(0, &[], None);
        let answer = case.call(&self.service, &fixtures).await;
        let calls = self.faults.disarm();
        assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
        self.assert_done(covered, &fixtures, &answer, covered.operation.name()).await;
        (calls, self.service.outbox.mails().len() > mails)
    }

    /// Injects one fault and checks everything that must hold.
    async fn inject(&self, case: Case, injection: Injection) {
        let (covered, what) = (case.covered, format!("{:?} {injection:?}", case.row()));
        let (service, fixtures) = (&self.service, Fixtures::create(&self.service).await);
        match injection {
            Injection::Table { place, fault, permanent: false } => self.faults.arm(place, &[fault], None),
            Injection::Table { place, fault, permanent: true } => self.faults.arm(place, &[], Some(fault)),
            Injection::Mail(fault) => self.ses.fail(fault),
        }
        let answer = case.call(service, &fixtures).await;
        let mut committed = false;
        match injection {
            Injection::Table { place, .. } => {
                let calls = self.faults.disarm();
                assert!(calls.len() > place, "{what}: the fault was never reached");
                committed = calls[..place].iter().any(|call| call == "TransactWriteItems");
            }
            Injection::Mail(fault) => {
                // Only a warning may be sent twice, if it may be lost.
                let is_warning = covered.operation != Operation::EmailTokensRegister;
                let attempts = if is_warning && !fault.is_refusal() { 2 } else { 1 };
                assert_eq!(self.ses.recover(), attempts, "{what}: attempts");
            }
        }
        let status = answer.status.as_u16();
        assert!(covered.is_documented(status), "{what}: {}", answer.text);
        assert!(status == covered.success || status == 503, "{what}: {}", answer.text);
        assert!(status == covered.success || !injection.is_retried_away(), "{what}: {}", answer.text);
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{what}");
        if status == covered.success {
            return self.assert_done(covered, &fixtures, &answer, &what).await;
        }
        let again = case.call(service, &fixtures).await;
        let what = format!("{what}, then repeated: {}", again.text);
        if again.status == covered.success {
            self.assert_done(covered, &fixtures, &again, &what).await;
        } else {
            // It may also have failed after its transaction, at the last look at its bot.
            assert!(committed || injection.may_have_taken_effect(), "{what}");
            assert_eq!(Some(again.status.as_u16()), refused_once_done(case), "{what}");
            match case.once {
                true => self.assert_named(&fixtures, &again, &what).await,
                false => self.assert_not_lost(covered, &fixtures, &what).await,
            }
        }
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{what}");
    }

    /// Asserts that the call had its effect.
    async fn assert_done(&self, covered: &Covered, fixtures: &Fixtures, answer: &Answer, what: &str) {
        let service = &self.service;
        let counts = async |credential: &str| service.whoami(credential).await.status == 200;
        let said = |field: &str| text(&answer.json(), field).to_owned();
        let done = match covered.operation {
            Operation::OrgUserTokensIssue | Operation::OrgAccessTokensCreate => counts(&said("token")).await,
            Operation::ApiKeysCreate => counts(&said("key")).await,
            // The use of the successor ends the old one.
            Operation::OrgUserTokensRotate => {
                let is_active = counts(&fixtures.token.token).await && counts(&said("token")).await;
                is_active && !counts(&fixtures.token.token).await
            }
            Operation::ApiKeysRotate => {
                let is_active = counts(&fixtures.api_key.key).await && counts(&said("key")).await;
                is_active && !counts(&fixtures.api_key.key).await
            }
            Operation::BotsExchange => counts(&said("access_token")).await,
            Operation::BotsRotateKey => {
                let (old, new) = (&fixtures.owner, format!("{}:{}", said("api_key"), fixtures.owner.id));
                let is_active = counts(&old.credential).await && counts(&new).await;
                is_active && !counts(&old.credential).await
            }
            Operation::IntegrationsGithubSecretScanning | Operation::TokensLeaked => !counts(&fixtures.leaked).await,
            Operation::OrgUserTokensRevoke
            | Operation::OrgUserTokensRevokeByUser
            | Operation::RegistryNpmLogout
            | Operation::TokensRevokeSelf => !counts(&fixtures.token.token).await,
            Operation::ApiKeysRevoke => !counts(&fixtures.api_key.key).await,
            Operation::OrgAccessTokensDelete => !counts(&fixtures.access_token.token).await,
            Operation::OrgAccessTokensUpdate => {
                let tokens = service.access_tokens(&fixtures.owner).await;
                said("name").ends_with('d') && tokens.iter().any(|token| token["name"] == said("name"))
            }
            Operation::EmailTokensRegenerate | Operation::EmailTokensReset => {
                !service.is_active(&fixtures.email_token).await && service.is_active(&said("token")).await
            }
            Operation::EmailTokensRevoke => !service.is_active(&fixtures.email_token).await,
            Operation::EmailTokensRegister => !service.person(&format!("else-{}", fixtures.email)).mails().is_empty(),
            Operation::OrgUserTokensList => answer.text.contains(&fixtures.token.id),
            Operation::OrgAccessTokensList => answer.json()[0]["name"] == "device",
            Operation::ApiKeysList => answer.text.contains(&fixtures.api_key.id),
            Operation::AuditLogList => answer.text.contains("org.create"),
            Operation::TokensWhoami | Operation::EmailTokensStatus => answer.json()["id"].is_string(),
            Operation::RegistryNpm | Operation::RegistryPypi if covered.success == 302 => {
                answer.header("location").contains("widgets-1.0")
            }
            Operation::RegistryNpm | Operation::RegistryPypi => answer.text.contains("widgets-1.0"),
            Operation::InstallationsList => answer.json()["installations"].is_array(),
            Operation::OrgUserTokensProbe | Operation::TokensIntrospect => answer.json()["active"] == true,
            Operation::ScimUsersCreate => scim_user(service, fixtures, &said("userName")).await.is_some(),
            Operation::ScimUsersGet | Operation::ScimUsersList => answer.text.contains(&fixtures.employee.id),
            Operation::ScimUsersUpdate => {
                let user = scim_user(service, fixtures, &fixtures.employee.name).await.unwrap();
                let member = service.store.membership(fixtures.employee.person.id, &fixtures.org.id).await.unwrap();
                let (is_put, active) = (covered.method == Method::PUT, answer.json()["active"] == true);
                (active, user.active, member.is_some()) == (is_put, is_put, is_put)
                    && user.user.external_id.is_some() == is_put
            }
            Operation::ScimUsersDelete => is_deprovisioned(service, fixtures).await,
            Operation::DocsOpenapi | Operation::DocsNotFound => true,
            // They have no route in the document.
            operation => {
                assert!(matches!(covered.guard, Guard::Gateway | Guard::Console), "{}", operation.name());
                true
            }
        };
        assert!(done, "{what}: {}", answer.text);
    }

    /// Asserts that the answer to a repeat names a token that its caller can find.
    async fn assert_named(&self, fixtures: &Fixtures, repeat: &Answer, what: &str) {
        let (service, owner) = (&self.service, &fixtures.owner);
        let mut ids = service.listed_ids(&fixtures.org, owner, "?limit=100").await;
        ids.extend(service.all_api_keys(&owner.credential, 100, "").await);
        ids.extend(service.access_tokens(owner).await.iter().map(|token| token["id"].to_string()));
        let bot = service.store.bot(&owner.id).await.unwrap().unwrap();
        ids.extend(bot.keys.iter().filter_map(|key| Some(key.id.as_ref()?.to_string())));
        let named = |id: &String| repeat.text.contains(&format!("created {id}."));
        assert_eq!(ids.iter().filter(|id| named(id)).count(), 1, "{what}");
    }

    /// Asserts that a change is visible if its response was lost and its retry is refused, and that
    /// a user who lost a token this way can recover by mail.
    async fn assert_not_lost(&self, covered: &Covered, fixtures: &Fixtures, what: &str) {
        let service = &self.service;
        match covered.operation {
            Operation::OrgAccessTokensCreate => {
                let name = format!("beside-{}", fixtures.access_token.id);
                assert!(
                    service.access_tokens(&fixtures.owner).await.iter().any(|token| token["name"] == name),
                    "{what}"
                );
            }
            // The token ends by itself, and the job gets another one.
            Operation::BotsExchange => {
                let entries = service.table.audit_entries(&fixtures.org.id).await;
                let exchanged = entries.iter().filter(|entry| entry["action"] == "bot.exchange");
                // One by the fixtures.
                assert_eq!(exchanged.count(), 2, "{what}");
                assert!(!service.exchanged(&fixtures.owner).await.is_empty(), "{what}");
            }
            Operation::RegistryNpmLogout | Operation::TokensRevokeSelf => {
                assert_eq!(service.whoami(&fixtures.token.token).await.status, 401, "{what}");
            }
            Operation::OrgAccessTokensDelete => {
                assert_eq!(service.access_tokens(&fixtures.owner).await.len(), 0, "{what}")
            }
            Operation::ScimUsersCreate => {
                let name = format!("new-{}", fixtures.email);
                assert!(scim_user(service, fixtures, &name).await.is_some_and(|user| user.active), "{what}");
            }
            Operation::ScimUsersDelete => assert!(is_deprovisioned(service, fixtures).await, "{what}"),
            _ => {
                let person = service.person(&fixtures.email);
                assert!(!service.is_active(&fixtures.email_token).await, "{what}");
                person.register().await;
                let mail = person.newest_mail();
                let key = match kind_of(&mail).0 {
                    Kind::Welcome => token_in(&mail),
                    _ => person.reset_with(&code_in(&mail)).await,
                };
                assert!(service.is_active(&key).await, "{what}");
            }
        }
    }
}

/// The SCIM user with this name in the organization of the fixtures.
async fn scim_user(service: &Service, fixtures: &Fixtures, name: &str) -> Option<Provisioned> {
    service.store.scim_user_named(&fixtures.org.id, &person(name).email).await.unwrap()
}

/// Whether the SCIM user of the fixtures is deleted, and the person no member.
async fn is_deprovisioned(service: &Service, fixtures: &Fixtures) -> bool {
    let (employee, org) = (&fixtures.employee, &fixtures.org.id);
    let member = service.store.membership(employee.person.id, org).await.unwrap();
    member.is_none() && scim_user(service, fixtures, &employee.name).await.is_none()
}

/// The status of a retry whose first attempt took effect, if the operation cannot be repeated.
fn refused_once_done(case: Case) -> Option<u16> {
    match case.covered.operation {
        // The repeat names the token whose plaintext was lost.
        _ if case.once => Some(409),
        // An ID token is exchanged once.
        Operation::BotsExchange => Some(401),
        // The name belongs to the token whose plaintext was lost; delete that one.
        Operation::OrgAccessTokensCreate => Some(400),
        Operation::OrgAccessTokensDelete | Operation::ScimUsersDelete => Some(404),
        // The identity provider looks the user up.
        Operation::ScimUsersCreate => Some(409),
        // The token is revoked, so it no longer authenticates.
        Operation::EmailTokensRegenerate
        | Operation::EmailTokensRevoke
        | Operation::RegistryNpmLogout
        | Operation::TokensRevokeSelf => Some(401),
        // A code can be used once.
        Operation::EmailTokensReset => Some(400),
        _ => None,
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

/// Number of faults per operation, without and with an idempotency key, and class.
type Tally = BTreeMap<(String, bool), BTreeMap<FaultClass, usize>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_any_call_yields_a_documented_answer_and_is_retryable() {
    let mut injections: VecDeque<(Case, Injection)> = VecDeque::new();
    let mut tally = Tally::new();
    let setup = Setup::start().await;
    for case in Case::all() {
        let (calls, mails) = setup.calls_of(case).await;
        let mut of_it = Vec::new();
        for (place, operation) in calls.iter().enumerate() {
            for fault in Fault::ALL.into_iter().filter(|fault| fault.applies_to(operation)) {
                of_it.extend([false, true].map(|permanent| Injection::Table { place, fault, permanent }));
            }
        }
        if mails {
            of_it.extend(MailFault::ALL.map(Injection::Mail));
        }
        let classes = tally.entry(case.row()).or_default();
        for injection in of_it {
            *classes.entry(injection.class()).or_default() += 1;
            injections.push_back((case, injection));
        }
    }
    drop(setup);
    let injections = Mutex::new(injections);
    let next = || injections.lock().unwrap().pop_front();
    join_all((0..CONCURRENCY).map(async |_| {
        while let Some(mut injection) = next() {
            let setup = Setup::start().await;
            for _ in 0..FAULTS_PER_SERVICE {
                setup.inject(injection.0, injection.1).await;
                match next() {
                    Some(another) => injection = another,
                    None => return,
                }
            }
            setup.inject(injection.0, injection.1).await;
        }
    }))
    .await;
    report(&tally);
}

/// Formats the results and asserts that the documents contain them.
fn report(tally: &Tally) {
    let classes =
        [FaultClass::Fails, FaultClass::AnswerLost, FaultClass::Throttled, FaultClass::Conflicts, FaultClass::Late];
    let mut table = String::from(
        "| operation | fails | done, answer lost | throttled | conflicts | late | all |\n|---|---|---|---|---|---|---|\n",
    );
    let mut row = |name: &str, counts: [usize; 5]| {
        let cells = counts.map(|count| count.to_string()).join(" | ");
        writeln!(table, "| {name} | {cells} | {} |", counts.iter().sum::<usize>()).unwrap();
    };
    let mut totals = [0; 5];
    for ((operation, once), counts) in tally.iter().filter(|(_, counts)| !counts.is_empty()) {
        let counts = classes.map(|class| counts.get(&class).copied().unwrap_or_default());
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        let with_key = if *once { " with `Idempotency-Key`" } else { "" };
        row(&format!("`{operation}`{with_key}"), counts);
    }
    row("all", totals);
    let total = totals.iter().sum::<usize>();
    let said = format!("{},{:03} faults", total / 1_000, total % 1_000);
    assert!(read("docs/FAULTS.md").contains(&table), "docs/FAULTS.md differs from this table:\n{table}");
    for file in ["docs/FAULTS.md", "README.md"] {
        assert!(read(file).contains(&said), "{file} does not say: {said}");
    }
}

#[tokio::test]
async fn lost_answer_on_issue_creates_one_token() {
    let (service, faults) = Service::start_with_faults().await;
    // The transaction is the third call. In the second case the retry finds it still in progress.
    let still_at_it = [Fault::LostAfter, Fault::InProgress, Fault::InProgress, Fault::InProgress, Fault::InProgress];
    let throttled = [Fault::LostAfter, Fault::Throttled, Fault::ServerError];
    for lost in [&[Fault::LostAfter][..], &[Fault::LostAfter; 3], &still_at_it, &throttled] {
        let (org, owner) = service.org_with_owner().await;
        faults.arm(2, lost, None);
        let answer =
            service.post(&org.org_user_tokens(""), &owner.credential, &json!({"user_identifier": "alice"})).await;
        let calls = faults.disarm();
        assert_eq!(answer.status, 201, "{lost:?}: {}", answer.text);
        assert_eq!(calls[2..calls.len() - 1], vec!["TransactWriteItems"; lost.len() + 1]);
        assert_eq!(calls[calls.len() - 1], "GetItem");
        let id = text(&answer.json(), "id").to_owned();
        assert_eq!(service.listed_ids(&org, &owner, "?status=all").await, [id]);
        // The returned token is the active one.
        assert_eq!(service.probe(&org, &owner, text(&answer.json(), "token")).await["active"], true);
        assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    }
    service.table.assert_sound();
}

#[tokio::test]
async fn committed_transaction_is_recognized_by_its_audit_entry() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    // The answer is lost, and its retry conflicts: the next attempt is a new transaction, all of
    // whose conditions fail.
    faults.arm(2, &[Fault::LostAfter, Fault::Conflict], None);
    let answer = service.post(&org.org_user_tokens(""), &owner.credential, &json!({"user_identifier": "alice"})).await;
    let calls = faults.disarm();
    assert_eq!(calls[2..5], ["TransactWriteItems"; 3]);
    assert_eq!(calls[5..], ["GetItem"]);
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(service.probe(&org, &owner, text(&answer.json(), "token")).await["active"], true);
    assert_eq!(service.listed_ids(&org, &owner, "").await, [text(&answer.json(), "id")]);
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
}

#[tokio::test]
async fn request_that_dynamodb_would_refuse_fails_its_test() {
    // Nothing listens there: the request must not be passed on.
    let proxy = Faults::start("http://127.0.0.1:9").await;
    let empty = || AttributeValue::S(String::new());
    let get = proxy.client().get_item().table_name(TABLE).key("pk", empty()).key("sk", empty()).send().await;
    assert_eq!(get.unwrap_err().code(), Some("ValidationException"));
    let broken = proxy.broken_rules();
    assert!(broken.iter().any(|rule| rule.contains("the key attribute pk is empty")), "{broken:?}");
}

#[tokio::test]
async fn unanswered_issue_is_503_and_leaves_one_token() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    faults.arm(2, &[], Some(Fault::LostAfter));
    let path = org.org_user_tokens("");
    let answer = service.post(&path, &owner.credential, &json!({"user_identifier": "alice"})).await;
    faults.disarm();
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
    // Its plaintext is lost, but it is listed and can be revoked; and there is only one despite
    // retries.
    assert_eq!(service.listed_ids(&org, &owner, "").await.len(), 1);
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    service.table.assert_sound();
}

#[tokio::test]
async fn refusal_that_cannot_be_audited_is_503() {
    let (service, faults) = Service::start_with_faults().await;
    let org = service.org().await;
    let bot = service.bot(&org, &[]).await;
    let issue = async || {
        let body = json!({"user_identifier": "alice"});
        let answer = service.post(&org.org_user_tokens(""), &bot.credential, &body).await;
        faults.disarm();
        answer
    };
    // Bot and organization are read, and the refusal is counted, before the entry is written.
    faults.arm(3, &[Fault::LostAfter, Fault::Throttled], None);
    issue().await.assert_error(403, "FORBIDDEN");
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    for calls_before in [2, 3] {
        faults.arm(calls_before, &[], Some(Fault::LostBefore));
        issue().await.assert_error(503, "SERVICE_UNAVAILABLE");
        assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
    }
}

#[tokio::test]
async fn interrupted_revoke_by_user_is_finished_by_the_next_call() {
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
    // Passes bot, query and half of the revocations.
    faults.arm(2 + 20, &[], Some(Fault::NoCapacity));
    let answer = call().await;
    faults.disarm();
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
    service.table.assert_sound();
    let left = service.listed_ids(&org, &owner, "?limit=100").await.len();
    // Revocations in flight at the first failure may be abandoned.
    assert!((20..40).contains(&left), "{left} tokens are left");
    let answer = call().await.json();
    assert_eq!((&answer["matched"], &answer["remaining"]), (&json!(left), &json!(0)));
    assert_eq!(service.probe(&org, &owner, &original.token).await["active"], false);
    service.table.assert_sound();
}
