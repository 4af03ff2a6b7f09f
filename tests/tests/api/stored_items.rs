//! Items of every kind as versions of this service wrote them. Every later version reads them and
//! works with them.
//!
//! A fixture in `tests/fixtures` holds the items of both tables and what the service answered about
//! them. Fixtures of released versions never change. The one of the version in work is compared
//! with what the code writes: a new form of an item is a decision about how older items are read.
//! `UPDATE_ITEMS=1 cargo api stored_items` then writes it again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::domain::{Ecosystem, Notify, Plan, UserIdentifier};
use shared::email::{EmailAddress, Language};
use shared::ids::{BotId, MemberId, OrgId, TokenId};
use shared::permissions::Role;
use shared::secret::{MailedCode, Token};
use shared::store::erasures::DELAY;
use shared::store::installations::{Download, Recorded};
use shared::store::leak_reports::Reported;
use shared::store::leaks::Place;
use shared::store::mail_limits::{MailLimits, Recipient};
use shared::store::members::{Accepted, Authority, Listed, MemberChange};
use shared::store::org_user_tokens::Issued;
use shared::store::registration::RegistrationPolicy;
use tests::ci::WORKLOAD;
use tests::management::{ACCESS_TOKENS, API_KEYS, INTROSPECT};
use tests::table::{INSTALLATIONS, TABLE, text};
use tests::{Answer, Bot, Org, Service, hash_for, operator};

/// The route of SCIM users.
const SCIM_USERS: &str = "/scim/v2/Users";

/// Where a token was found.
const PLACE: &str = "https://github.com/octocat/hello/blob/main/.npmrc#L1";

/// The fixture of the version in work.
const CURRENT: &str = "items-0.2.json";

/// The function in `shared/src/store/keys.rs` that builds each key, and what its keys look like.
const KINDS: [(&str, &str, &str); 60] = [
    ("token", "TOKEN#*", "TOKEN"),
    ("bot", "BOT#*", "BOT"),
    ("trust", "BOT#*", "TRUST#*"),
    ("exchanged_id_token", "ID_TOKEN#*", "ID_TOKEN"),
    ("failed_exchanges_from", "EXCHANGES_FAILED#*", "*"),
    ("refused_exchanges", "EXCHANGES_REFUSED#*", "*#*"),
    ("all_refused_exchanges", "EXCHANGES_REFUSED#*", "*"),
    ("org_in_directory", "ORGS", "*"),
    ("org", "ORG#*", "ORG"),
    ("org_bot", "ORG#*", "BOT#*"),
    ("session", "SESSION#*", "SESSION"),
    ("person", "PERSON#*", "PERSON"),
    ("session_of", "PERSON#*", "SESSION#*"),
    ("membership", "PERSON#*", "ORG#*"),
    ("ended_membership", "PERSON#*", "SCIM_ENDED#*"),
    ("org_member", "ORG#*#MEMBERS", "*"),
    ("member_at", "ORG#*#MEMBERS_AT#*", "*"),
    ("scim_user", "ORG#*#SCIM_USERS", "*"),
    ("scim_user_name", "ORG#*#SCIM_USER_NAMES", "*"),
    ("scim_ended", "ORG#*#SCIM_ENDED", "*"),
    ("scim_user_count", "ORG#*", "SCIM_USER_COUNT"),
    ("owner_count", "ORG#*", "OWNER_COUNT"),
    ("invitation", "INVITED#*", "*"),
    ("org_project", "ORG#*", "PROJECT#*"),
    ("api_key_count", "ORG#*", "API_KEY_COUNT"),
    ("org_access_token_last_id", "ORG#*", "ACCESS_TOKEN_LAST_ID"),
    ("org_user_token_by_id", "ORG#*#USER_TOKEN", "*"),
    ("org_user_token_expiry", "ORG#*#USER_TOKENS#EXPIRY", "*"),
    ("org_user_token_in", "ORG#*#USER_TOKENS#*", "*"),
    ("api_key_by_id", "ORG#*#API_KEY", "*"),
    ("api_key_expiry", "ORG#*#API_KEYS#EXPIRY", "*"),
    ("api_key_in", "ORG#*#API_KEYS#*", "*"),
    ("org_access_token", "ORG#*#ACCESS_TOKENS", "*"),
    ("org_access_token_name", "ORG#*#ACCESS_TOKEN_NAMES", "*"),
    ("idempotency_key", "ORG#*#IDEMPOTENCY", "*"),
    ("audit_entry", "*#AUDIT", "*"),
    ("address", "EMAIL#*", "ADDRESS"),
    ("address_mails", "EMAIL#*", "MAILS"),
    ("address_changes", "EMAIL#*", "CHANGES#*"),
    ("calls_from", "CALLS#*", "*"),
    ("refusals_of", "REFUSED#*", "*"),
    ("sign_in_code", "SIGN_IN_CODE#*", "*"),
    ("signed_in_device", "SIGNED_IN_DEVICE#*", "*"),
    ("wrong_codes_from", "WRONG_CODES#*", "*"),
    ("registration", "DEPLOYMENT", "REGISTRATION"),
    ("mails", "MAILS*", "*"),
    ("email_token_by_id", "EMAIL_TOKEN#*", "EMAIL_TOKEN"),
    ("org_access_token_count", "ORG#*", "ACCESS_TOKEN_COUNT"),
    ("leak_reports_from", "LEAK_REPORTS#*", "*"),
    ("leaked_tokens_from", "LEAKED_TOKENS#*", "*"),
    ("leak_mark", "LEAKED#*", "LEAKED"),
    ("leak_notice", "LEAK_NOTICES", "*"),
    ("leak_mail", "LEAK_MAIL#*", "LEAK_MAIL"),
    ("usage_on", "USAGE#*", "*"),
    ("erasure", "ERASURES", "*"),
    ("expiry_on", "EXPIRES#*", "*#*#*"),
    ("reminders", "REMINDERS", "REMINDERS"),
    ("subscription", "SUBSCRIPTIONS", "*"),
    ("reminded", "REMINDED#*", "REMINDED"),
    ("unused_run", "UNUSED_RUN", "UNUSED_RUN"),
];

/// The items of both tables, and how to use them.
#[derive(Serialize, Deserialize)]
struct Fixture {
    /// What the service answered to [`Fixture::questions`].
    answers: BTreeMap<String, Value>,
    /// Credentials by name, each in two parts, so that secret scanners stay silent.
    credentials: BTreeMap<String, [String; 2]>,
    /// Management IDs by name.
    ids: BTreeMap<String, String>,
    /// The items of each table, in DynamoDB's JSON.
    items: BTreeMap<String, Vec<Value>>,
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

impl Fixture {
    fn read(name: &str) -> Self {
        serde_json::from_str(&std::fs::read_to_string(path_of(name)).unwrap()).unwrap()
    }

    /// Writes an item of every kind through the service.
    async fn written_now() -> (Self, Service) {
        let service = Service::start_with_manual_clock().await;
        let (org, first_owner) = service.org_on(Plan::Pro).await;
        service.projects(&org, &["greenhouse", "coldroom"]).await;
        let overlap = Some(Duration::from_secs(24 * 60 * 60));
        let key = service.store.rotate_bot_key(&first_owner.id, overlap, &operator()).await.unwrap().unwrap();
        let owner = Bot { credential: format!("{}:{}", key.expose(), first_owner.id), id: first_owner.id.clone() };
        let manager = service.bot(&org, &[Role::Manager, Role::TokenIssuer]).await;
        let soon = "2026-11-21T10:00:01Z";
        let later = "2099-01-01T00:00:00Z";

        let user = tests::Issued::from_json(&issue_once(&service, &org, &manager).await.json());
        let lasting_user = service.issue(&org, &manager, "bobby-laptop").await;
        let revoked_user = service.issue(&org, &owner, "carol-laptop").await;
        service.revoke(&org, &manager, &revoked_user).await;
        let left_user = service.issue(&org, &owner, "david-laptop").await;
        let left = TokenId::parse(&left_user.id).unwrap();
        assert!(service.store.revoke_org_user_token(&org.id, &left, &operator()).await.unwrap());
        service.issue_until(&org, &owner, "erika-laptop", soon).await;
        service.whoami(&lasting_user.token).await;

        let api_key = json!({"name": "CI パイプライン", "environment": "live", "scopes": ["org:write", "org:read", "shield:read"], "expires_at": later});
        let api_key = service.api_key_with(&owner.credential, &api_key).await;
        let test_key = json!({"name": "test", "environment": "test", "scopes": ["shield:read"], "expires_at": later});
        let test_key = service.api_key_with(&api_key.key, &test_key).await;
        let revoked_key = service.api_key(&owner.credential, &["audit:read"]).await;
        service.revoke_api_key(&api_key.key, &revoked_key.id).await;
        service
            .api_key_with(
                &owner.credential,
                &json!({"name": "old", "environment": "live", "scopes": ["policy:read"], "expires_at": soon}),
            )
            .await;
        assert_eq!(service.post(API_KEYS, &manager.credential, &test_key_request()).await.status, 403);

        let access = json!({"name": "relay", "expires_at": later, "access_config": {"role": "operator", "projects": ["coldroom", "greenhouse"]}});
        let access = service.access_token(&owner, &access).await;
        let wide =
            json!({"name": "all", "is_active": false, "access_config": {"role": "manager", "all_projects": true}});
        let wide = service.access_token(&owner, &wide).await;
        let renamed =
            service.send_json(Method::PATCH, &wide.path(), &owner.credential, &json!({"name": "every"})).await;
        assert_eq!(renamed.status, 200);

        let (alice, bobby) = (service.person("Alice@example.com"), service.person("bobby@example.com"));
        let first = alice.obtain_token().await;
        let email_token = tests::email::new_token(&service.regenerate(&first).await);
        let email_token_id = text(&service.status(&email_token).await.json(), "id").to_owned();
        let other_email_token = bobby.obtain_token().await;
        let code = bobby.request_code().await;
        let removed = service.person("dave@example.com").obtain_token().await;
        assert_eq!(service.revoke_email_token(&removed).await.status, 204);
        let source = Some(IpAddr::from([203, 0, 113, 7]));
        service.store.count_call(source, 20).await.unwrap().unwrap();
        let carol = EmailAddress::try_from("carol@example.com".to_owned()).unwrap();
        for recipient in [Recipient::New, Recipient::Known] {
            let counted = service.store.count_mail(recipient, &carol, source, &MailLimits::default()).await;
            let _ = counted.unwrap().unwrap();
        }
        let visitor = service.member(&org, &[Role::Owner]).await;
        service.store.set_language(visitor.secret.hash(), visitor.person.id, Language::Ja).await.unwrap();
        let member = service.store.membership(visitor.person.id, &org.id).await.unwrap().unwrap();
        for (address, by) in
            [("dave@example.com", Authority::Operator), ("erika@example.com", Authority::Member(&member))]
        {
            let email = EmailAddress::try_from(address.to_owned()).unwrap();
            service.store.invite_member(&org.id, &email, &[Role::Manager], by, &operator()).await.unwrap().unwrap();
        }
        service.join(&org.id, &tests::console::person("grace@example.com"), &[Role::Manager]).await;
        for (name, external_id) in [("grace@example.com", json!("00u1")), ("heidi@example.com", json!(null))] {
            let body = json!({"userName": name, "externalId": external_id});
            assert_eq!(service.post(SCIM_USERS, &owner.credential, &body).await.status, 201);
        }
        let grace = scim_user(&service, &owner, "grace@example.com").await;
        assert_eq!(set_active(&service, &owner, &grace, false).await, json!(false));
        let identifier = UserIdentifier::try_from("frank-laptop".to_owned()).unwrap();
        let own = service.store.issue_own_org_user_token(&member, identifier, None, &operator(), None).await.unwrap();
        let Issued::Done(_, own) = own else { panic!("{own:?}") };
        service.trust(&owner, &[Role::Owner]).await;
        let job = service.exchanged(&owner).await;
        let mut untrusted = service.new_claims();
        untrusted["repository_owner_id"] = json!("124");
        assert_eq!(service.exchange_claims(&owner, &untrusted).await.status, 403);
        let browser = Token::parse(&user.token).unwrap().hash();
        let sign_in_code = service.store.issue_sign_in_code(carol.hash(), browser).await.unwrap();
        service.store.remember_device(browser, carol.hash()).await.unwrap();
        service.store.count_wrong_code(source).await.unwrap().unwrap();
        let leaked = service.person("frank@example.com").obtain_token().await;
        let leaked = Reported { token: Token::parse(&leaked).unwrap(), place: Place::try_from(PLACE.to_owned()).ok() };
        let report = service.store.report_leaks(&[leaked], &operator()).await;
        let told = report.recipients.first().unwrap();
        let _ = service.store.claim_leak_mail(told).await.unwrap().unwrap();
        let today = service.clock.now().date();
        let claim = service.store.claim_reminder(carol.hash(), &today).await.unwrap().unwrap();
        service.store.reminder_sent(claim, &today).await.unwrap();
        service.store.reminders_done(&today).await.unwrap();
        service.run_end_unused().await.unwrap();
        service.set_notify(&org.id, Notify::ALL).await;
        service.store.count_leak_report(source).await.unwrap().unwrap();
        service.store.count_leaked_tokens(source, 1).await.unwrap().unwrap();
        let policy: RegistrationPolicy = "example.com".parse().unwrap();
        service.store.set_registration(Some(&policy), &operator()).await.unwrap();
        let token_id = TokenId::parse(&email_token_id).unwrap();
        for ecosystem in [Ecosystem::Npm, Ecosystem::Npm, Ecosystem::Pypi] {
            service.store.count_download(&token_id, ecosystem).await.unwrap();
        }

        let download = Download {
            ecosystem: Ecosystem::Npm,
            package: "@acme/left-pad".to_owned(),
            version: "1.3.0".to_owned(),
            file: "left-pad-1.3.0.tgz".to_owned(),
            user_identifier: Some(user.user_identifier.clone()),
            subject: None,
            token_id: TokenId::parse(&user.id).unwrap(),
            client: Some("npm".to_owned()),
            client_version: Some("11.6.2".to_owned()),
            command: Some("ci".to_owned()),
            session: Some("0123456789abcdef".to_owned()),
            source_ip: source,
        };
        let bare = Download {
            ecosystem: Ecosystem::Pypi,
            package: "Flask_SQLAlchemy".to_owned(),
            client: None,
            client_version: None,
            command: None,
            session: None,
            source_ip: None,
            ..download.clone()
        };
        let by_job = Download {
            user_identifier: None,
            subject: Some(WORKLOAD.to_owned()),
            token_id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            ..bare.clone()
        };
        let of_a_person = Download { user_identifier: None, token_id, ..download.clone() };
        for (org, download) in
            [(Some(&org.id), download), (Some(&org.id), bare), (Some(&org.id), by_job), (None, of_a_person)]
        {
            assert_eq!(
                service.installation_log.record(org, hash_for(&download.token_id), &download).await.unwrap(),
                Recorded::New
            );
        }

        // Lists move the expired tokens.
        service.clock.advance(Duration::from_secs(1));
        service.list(&org, &owner, "?status=expired").await;
        service.api_keys(&owner.credential, "").await;

        let credentials = [
            ("access_token", &access.token),
            ("api_key", &api_key.key),
            ("email_token", &email_token),
            ("job", &job),
            ("manager", &manager.credential),
            ("other_email_token", &other_email_token),
            ("own_user", &own.expose().to_owned()),
            ("owner", &owner.credential),
            ("owner_before_rotation", &first_owner.credential),
            ("reset_code", &code),
            ("session", &visitor.secret.expose().to_owned()),
            ("sign_in_code", &sign_in_code.code.expose()),
            ("test_key", &test_key.key),
            ("user", &user.token),
        ];
        let ids = [
            ("access_token", access.id.to_string()),
            ("api_key", api_key.id),
            ("manager", manager.id.to_string()),
            ("org", org.id.to_string()),
            ("owner", owner.id.to_string()),
            ("test_key", test_key.id),
            ("user", user.id),
        ];
        let mut items = BTreeMap::new();
        for table in [TABLE, INSTALLATIONS] {
            let mut all = service.table.raw_items(table);
            all.sort_by_key(|item| item["pk"].to_string() + &item["sk"].to_string());
            items.insert(table.to_owned(), all);
        }
        let mut fixture = Self {
            answers: BTreeMap::new(),
            credentials: credentials.map(|(name, plain)| (name.to_owned(), in_two_parts(plain))).into(),
            ids: ids.map(|(name, id)| (name.to_owned(), id)).into(),
            items,
        };
        fixture.answers = fixture.ask(&service).await;
        (fixture, service)
    }

    /// A service whose tables hold these items.
    async fn service(&self) -> Service {
        let service = Service::start_with_manual_clock().await;
        service.clock.advance(Duration::from_secs(1));
        for (table, items) in &self.items {
            for item in items {
                service.table.put(table, item).await;
            }
        }
        service
    }

    fn credential(&self, name: &str) -> String {
        self.credentials[name].concat()
    }

    fn id(&self, name: &str) -> &str {
        &self.ids[name]
    }

    fn org(&self) -> Org {
        Org { id: OrgId::parse(self.id("org")).unwrap() }
    }

    fn bot(&self, name: &str) -> Bot {
        Bot { id: BotId::parse(self.id(name)).unwrap(), credential: self.credential(name) }
    }

    /// Requests whose answers show every item: path, the name of the credential, and a body for
    /// `POST`.
    fn questions(&self) -> Vec<(String, &'static str, Option<Value>)> {
        let org = self.org();
        let mut questions = vec![
            (org.audit_log("?limit=100"), "owner", None),
            (org.installations(""), "owner", None),
            (org.org_user_tokens(""), "manager", None),
            (org.org_user_tokens("?status=all"), "owner", None),
            (format!("{API_KEYS}?status=all"), "owner", None),
            (format!("{API_KEYS}?environment=test"), "api_key", None),
            (ACCESS_TOKENS.to_owned(), "owner", None),
            (SCIM_USERS.to_owned(), "owner", None),
            ("/api/v1/tokens/status".to_owned(), "email_token", None),
            ("/api/v1/tokens/status".to_owned(), "other_email_token", None),
        ];
        for name in self.credentials.keys().filter(|name| !name.ends_with("_code") && *name != "session") {
            // The names are those of a literal list.
            let name: &'static str = String::leak(name.clone());
            questions.push(("/v1/whoami".to_owned(), name, None));
        }
        for name in ["user", "api_key", "test_key", "access_token"] {
            questions.push((INTROSPECT.to_owned(), name, Some(json!({"token": self.credential(name)}))));
        }
        questions.push((org.org_user_tokens("/probe"), "user", Some(json!({"token": self.credential("user")}))));
        questions
    }

    /// The answers to all questions, by question.
    async fn ask(&self, service: &Service) -> BTreeMap<String, Value> {
        let mut answers = BTreeMap::new();
        for (path, name, body) in self.questions() {
            let answer = match &body {
                Some(body) => service.post(&path, &self.credential("owner"), body).await,
                None => service.call(Method::GET, &path, &self.credential(name)).await,
            };
            assert_eq!(answer.status, 200, "{path} of {name}: {}", answer.text);
            answers.insert(format!("{path} of {name}"), answer.json());
        }
        answers
    }
}

/// The path of the SCIM user with this name.
async fn scim_user(service: &Service, owner: &Bot, name: &str) -> String {
    let path = format!("{SCIM_USERS}?filter=userName%20eq%20%22{name}%22");
    let found = service.call(Method::GET, &path, &owner.credential).await.json();
    format!("{SCIM_USERS}/{}", text(&found["Resources"][0], "id"))
}

/// Deactivates or reactivates a SCIM user. Returns whether it is active.
async fn set_active(service: &Service, owner: &Bot, path: &str, active: bool) -> Value {
    let body = json!({"Operations": [{"op": "replace", "value": {"active": active}}]});
    service.send_json(Method::PATCH, path, &owner.credential, &body).await.json()["active"].clone()
}

/// Issues a token with an idempotency key.
async fn issue_once(service: &Service, org: &Org, bot: &Bot) -> Answer {
    let body = json!({"user_identifier": "alice-laptop", "expires_at": "2099-01-01T00:00:00Z"});
    let request = service.request(Method::POST, &org.org_user_tokens("")).bearer_auth(&bot.credential);
    service.send(request.header("Idempotency-Key", "alice-laptop-1").json(&body)).await
}

fn test_key_request() -> Value {
    json!({"name": "refused", "environment": "test", "scopes": ["org:read"]})
}

/// The prefix, and everything after it.
fn in_two_parts(plain: &str) -> [String; 2] {
    let (prefix, rest) = plain.split_at(plain.find(['_', '-']).map_or(0, |end| end + 1));
    [prefix.to_owned(), rest.to_owned()]
}

/// Whether `actual` says all that `expected` says. Later versions may say more.
fn says(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| actual.get(name).is_some_and(|actual| says(actual, value)))
        }
        (Value::Array(actual), Value::Array(expected)) => {
            actual.len() == expected.len() && actual.iter().zip(expected).all(|(actual, value)| says(actual, value))
        }
        _ => actual == expected,
    }
}

/// Whether a text matches a pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
        }),
    }
}

/// The function that builds an item's key.
fn kind_of(item: &Value) -> &'static str {
    let (pk, sk) = (text(&item["pk"], "S"), text(&item["sk"], "S"));
    let found = KINDS.iter().find(|(_, pks, sks)| matches(pks, pk) && matches(sks, sk));
    found.unwrap_or_else(|| panic!("no kind of key matches {pk} {sk}")).0
}

/// The names and types of attributes.
fn shape(attributes: &Value) -> Value {
    let types = attributes.as_object().unwrap().iter().map(|(name, value)| {
        let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
        let shape = match kind.as_str() {
            "M" => shape(value),
            "L" => {
                let all = value.as_array().unwrap();
                let shapes: BTreeSet<String> = all.iter().map(|one| shape(&json!({"each": one})).to_string()).collect();
                shapes.into_iter().collect()
            }
            _ => json!(kind),
        };
        (name.clone(), shape)
    });
    Value::Object(types.collect())
}

/// The shapes of each kind of item.
fn shapes(fixture: &Fixture) -> BTreeMap<String, BTreeSet<String>> {
    let mut shapes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for item in &fixture.items[TABLE] {
        let kind = format!("{} {}", kind_of(item), text(&item["kind"], "S"));
        shapes.entry(kind).or_default().insert(shape(item).to_string());
    }
    for item in &fixture.items[INSTALLATIONS] {
        let kind = if text(&item["pk"], "S").starts_with("ORG#") { "installation counter" } else { "installation" };
        shapes.entry(kind.to_owned()).or_default().insert(shape(item).to_string());
    }
    shapes
}

#[tokio::test]
async fn items_are_written_as_in_the_fixture_of_this_version() {
    let (written, _service) = Fixture::written_now().await;
    if std::env::var_os("UPDATE_ITEMS").is_some() {
        std::fs::write(path_of(CURRENT), serde_json::to_string_pretty(&written).unwrap() + "\n").unwrap();
    }
    let (now, fixture) = (shapes(&written), shapes(&Fixture::read(CURRENT)));
    for (kind, shapes) in &now {
        assert_eq!(Some(shapes), fixture.get(kind), "the stored form of {kind} is not that of {CURRENT}");
    }
    assert_eq!(now.keys().collect::<Vec<_>>(), fixture.keys().collect::<Vec<_>>());
}

#[test]
fn fixture_has_an_item_for_every_key() {
    let keys = std::fs::read_to_string(path_of("../../shared/src/store/keys.rs")).unwrap();
    let built = keys.lines().filter(|line| line.starts_with("pub fn ") && line.ends_with("-> Key {"));
    let built = built.map(|line| line["pub fn ".len()..].split('(').next().unwrap());
    // It is only asked for.
    let built: BTreeSet<&str> = built.filter(|function| *function != "nothing").collect();
    assert_eq!(built, KINDS.iter().map(|(function, ..)| *function).collect());
    let fixture = Fixture::read(CURRENT);
    let held: BTreeSet<&str> = fixture.items[TABLE].iter().map(kind_of).collect();
    assert_eq!(built, held);
}

#[track_caller]
fn assert_status(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text);
}

/// Reads every item of a fixture, then changes what can be changed.
async fn works(name: &str) {
    let fixture = Fixture::read(name);
    let service = fixture.service().await;
    let (org, owner, manager) = (fixture.org(), fixture.bot("owner"), fixture.bot("manager"));
    for (question, answer) in fixture.ask(&service).await {
        let Some(expected) = fixture.answers.get(&question) else { continue };
        assert!(says(&answer, expected), "{name}: {question}\n{answer:#}\nexpected\n{expected:#}");
    }

    let (store, operator) = (&service.store, &operator());
    // The first version has no trusts, and nothing that leaked.
    if fixture.credentials.contains_key("job") {
        let recipients = store.leak_recipients(None, 10).await.unwrap();
        let notices = store.leak_notices(&recipients[0], 10).await.unwrap();
        assert_eq!((recipients.len(), notices.len()), (1, 1));
        assert!(notices[0].notice.contact.is_some() && notices[0].notice.place.is_some());
        store.leaks_told(&notices).await.unwrap();
    }
    if let Some(job) = fixture.credentials.get("job") {
        assert_eq!(store.trusts(&owner.id).await.unwrap().len(), 1);
        store.end_bot_tokens(Authority::Operator, &owner.id, operator).await.unwrap();
        assert_status(&service.whoami(&job.concat()).await, 401);
    }
    assert_eq!(store.orgs().await.unwrap().len(), 1);
    assert_eq!(store.bots(&org.id).await.unwrap().len(), 2);
    assert_eq!(store.projects(&org.id).await.unwrap(), ["coldroom", "greenhouse"]);

    // The first version has no idempotency keys.
    if name == CURRENT {
        let repeat = issue_once(&service, &org, &manager).await;
        repeat.assert_error(409, "CONFLICT");
        assert!(repeat.text.contains(fixture.id("user")), "{}", repeat.text);
    }
    let user = org.org_user_tokens(&format!("/by-id/{}", fixture.id("user")));
    assert_status(&service.call(Method::DELETE, &user, &manager.credential).await, 204);
    assert_status(&service.whoami(&fixture.credential("user")).await, 401);
    let leaver = json!({"user_identifier": "bobby-laptop", "expected_count": 1});
    let left = service.post(&org.org_user_tokens("/revoke-by-user"), &owner.credential, &leaver).await;
    assert_eq!(left.json()["matched"], 1, "{}", left.text);

    let api_key = fixture.credential("api_key");
    service.api_key_with(&owner.credential, &test_key_request()).await;
    service.revoke_api_key(&api_key, fixture.id("test_key")).await;
    service.revoke_api_key(&api_key, fixture.id("api_key")).await;
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 1);

    let access = format!("{ACCESS_TOKENS}{}/", fixture.id("access_token"));
    let off = json!({"is_active": false, "access_config": {"all_projects": true}});
    assert_status(&service.send_json(Method::PATCH, &access, &owner.credential, &off).await, 200);
    assert_status(&service.whoami(&fixture.credential("access_token")).await, 401);
    assert_status(&service.call(Method::DELETE, &access, &owner.credential).await, 204);
    service.access_token(&owner, &json!({"name": "relay", "access_config": {"projects": ["coldroom"]}})).await;

    let bobby = service.person("bobby@example.com");
    let token = bobby.reset_with(&fixture.credential("reset_code")).await;
    assert_status(&service.whoami(&fixture.credential("other_email_token")).await, 401);
    bobby.request_code().await;
    assert_status(&service.revoke_email_token(&token).await, 204);
    let token = tests::email::new_token(&service.regenerate(&fixture.credential("email_token")).await);
    assert_status(&service.whoami(&token).await, 200);

    // The first version has no SCIM users.
    if name == CURRENT {
        let grace = scim_user(&service, &owner, "grace@example.com").await;
        let person = tests::console::person("grace@example.com").id;
        assert_eq!(set_active(&service, &owner, &grace, true).await, json!(true));
        let member = store.membership(person, &org.id).await.unwrap().unwrap();
        assert!(member.roles.contains(Role::Manager));
        assert_status(&service.call(Method::DELETE, &grace, &owner.credential).await, 204);
        assert_eq!(store.membership(person, &org.id).await.unwrap(), None);
    }

    // The first version has no members.
    if fixture.credentials.contains_key("session") {
        let secret = Token::parse(&fixture.credential("session")).unwrap().hash();
        let session = store.session(secret).await.unwrap().unwrap();
        assert_eq!(session.language, Some(Language::Ja));
        let owner = store.membership(session.person, &org.id).await.unwrap().unwrap();
        let mut listed = store.members(&org.id, None, 100).await.unwrap().members;
        listed.sort_by_key(Listed::status);
        assert_eq!(listed.iter().map(Listed::status).collect::<Vec<_>>(), ["active", "invited", "invited", "invited"]);
        let remove =
            async |id: &MemberId| store.remove_member(&org.id, id, Authority::Member(&owner), operator).await.unwrap();
        assert_eq!(remove(&owner.id).await, MemberChange::LastOwner);
        assert_eq!(remove(listed[1].id()).await, MemberChange::Done);
        let invited = tests::console::person(listed[2].email().expose());
        let accepted = store.accept_invitation(&org.id, listed[2].id(), &invited, operator).await.unwrap();
        assert!(matches!(accepted, Accepted::Joined(_)), "{accepted:?}");
        let promoted = store.set_member_roles(&org.id, listed[2].id(), &[Role::Owner], Authority::Operator, operator);
        assert_eq!(promoted.await.unwrap(), MemberChange::Done);
        let own = fixture.credential("own_user");
        assert_status(&service.whoami(&own).await, 200);
        assert_eq!(remove(&owner.id).await, MemberChange::Done);
        assert_status(&service.whoami(&own).await, 401);
        store.end_own_sessions(session.person, operator).await.unwrap();
        assert_eq!(store.session(secret).await.unwrap(), None);
    }
    if let Some(code) = fixture.credentials.get("sign_in_code") {
        let carol = EmailAddress::try_from("carol@example.com".to_owned()).unwrap().hash();
        let browser = Token::parse(&fixture.credential("user")).unwrap().hash();
        let code = MailedCode::parse(&code.concat()).unwrap();
        assert!(store.redeem_sign_in_code(carol, browser, &code).await.unwrap());
        let counted = store.count_sign_in_mail(carol, None, Some(browser), &MailLimits::default()).await;
        let _ = counted.unwrap().unwrap();
        let mails = service.table.items().await.into_iter().filter(|item| text(item, "pk").contains("#DEVICE#"));
        assert_eq!(mails.count(), 1, "{name}: the browser is no longer remembered");
    }

    // Last: sessions, invitations and codes end before.
    service.clock.advance(DELAY);
    service.erase().await.unwrap();
    assert!(service.table.items().await.iter().all(|item| item["pk"] != "ERASURES"));

    service.set_plan(&org, Plan::Enterprise).await;
    assert!(store.remove_project(&org.id, "greenhouse", operator).await.unwrap());
    store.set_bot_roles(&manager.id, &[Role::Owner], operator).await.unwrap().unwrap();
    store.rotate_bot_key(&owner.id, None, operator).await.unwrap().unwrap();
    assert_status(&service.whoami(&owner.credential).await, 401);
    assert_status(&service.call(Method::GET, ACCESS_TOKENS, &manager.credential).await, 200);
    assert!(store.delete_bot(&manager.id, operator).await.unwrap());

    // Last, since sessions and codes end meanwhile.
    service.clock.advance(DELAY);
    service.erase().await.unwrap();
    assert!(service.table.items().await.iter().all(|item| item["pk"] != "ERASURES"));
}

#[tokio::test]
async fn items_of_this_version_are_read() {
    works(CURRENT).await;
}

#[tokio::test]
async fn items_of_version_0_1_are_read() {
    works("items-0.1.json").await;
}

/// Rewrites every item of the tokens table that matches.
async fn rewrite(service: &Service, is_meant: impl Fn(&Value) -> bool, change: impl Fn(&mut Value)) {
    let meant: Vec<Value> = service.table.raw_items(TABLE).into_iter().filter(is_meant).collect();
    assert!(!meant.is_empty());
    for mut item in meant {
        change(&mut item);
        service.table.put(TABLE, &item).await;
    }
}

/// Whether an item is the source of truth with this ID.
fn is(item: &Value, key: &str, id: &str) -> bool {
    kind_of(item) == key && (text(&item["id"], "S") == id || text(&item["id"], "N") == id)
}

#[tokio::test]
async fn unknown_scope_is_shown_and_grants_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["org:read", "shield:read"]).await;
    let scopes = json!({"L": [{"S": "org:everything"}, {"S": "org:read"}]});
    rewrite(&service, |item| is(item, "token", &key.id), |item| item["scopes"] = scopes.clone()).await;
    let listed = service.api_keys(&key.key, "").await;
    assert_eq!(listed["api_keys"][0]["scopes"], json!(["org:everything", "org:read"]));
    assert_eq!(service.whoami(&key.key).await.json()["scopes"], json!(["org:everything", "org:read"]));
    service.post(API_KEYS, &key.key, &test_key_request()).await.assert_error(403, "FORBIDDEN");
    for (scope, permitted) in [("org:read", true), ("shield:read", false)] {
        let answer = service.introspect(&owner, &json!({"token": key.key, "scope": scope})).await;
        assert_eq!((&answer["scope"], &answer["permitted"]), (&json!("org:everything org:read"), &json!(permitted)));
    }
    service.revoke_api_key(&owner.credential, &key.id).await;
}

#[tokio::test]
async fn unknown_environment_is_shown_and_creates_no_live_key() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["org:read", "org:write"]).await;
    let environment = json!({"S": "staging"});
    rewrite(&service, |item| is(item, "token", &key.id), |item| item["environment"] = environment.clone()).await;
    assert_eq!(service.api_keys(&key.key, "").await["api_keys"][0]["environment"], "staging");
    let live = json!({"name": "a", "environment": "live", "scopes": ["org:read"]});
    service.post(API_KEYS, &key.key, &live).await.assert_error(403, "FORBIDDEN");
    service.api_key_with(&key.key, &test_key_request()).await;
    service.table.skip_final_check();
}

#[tokio::test]
async fn unknown_roles_are_shown_and_grant_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::TokenIssuer]).await;
    let roles = json!({"L": [{"S": "organization/emperor"}, {"S": "organization/api_key_manager"}]});
    rewrite(&service, |item| is(item, "bot", bot.id.as_str()), |item| item["roles"] = roles.clone()).await;
    let whoami = service.whoami(&bot.credential).await.json();
    assert_eq!(whoami["roles"], json!(["organization/emperor", "organization/api_key_manager"]));
    let issue = json!({"user_identifier": "alice"});
    service.post(&org.org_user_tokens(""), &bot.credential, &issue).await.assert_error(403, "FORBIDDEN");
    service.api_key(&bot.credential, &["org:read"]).await;

    let access = json!({"name": "relay", "access_config": {"role": "manager", "all_projects": true}});
    let access = service.access_token(&owner, &access).await;
    let role = json!({"S": "director"});
    let change = |item: &mut Value| item["access_config"]["M"]["role"] = role.clone();
    rewrite(&service, |item| is(item, "token", &access.id.to_string()), change).await;
    assert_eq!(service.access_tokens(&owner).await[0]["access_config"]["role"], "director");
    assert_eq!(service.whoami(&access.token).await.json()["role"], "director");
    for question in [json!({"role": "readonly"}), json!({"project": "greenhouse"})] {
        let mut body = question.clone();
        body["token"] = json!(access.token);
        let answer = service.introspect(&owner, &body).await;
        assert_eq!((&answer["role"], &answer["permitted"]), (&json!("director"), &json!(false)), "{question}");
    }
    let off = service.send_json(Method::PATCH, &access.path(), &owner.credential, &json!({"is_active": false})).await;
    assert_eq!((off.status.as_u16(), &off.json()["access_config"]["role"]), (200, &json!("director")));
    let known = json!({"name": "relay", "access_config": {"role": "operator"}});
    let known = service.send_json(Method::PUT, &access.path(), &owner.credential, &known).await;
    assert_eq!(known.json()["access_config"]["role"], "operator", "{}", known.text);
}

#[tokio::test]
async fn unknown_plan_is_shown_and_allows_no_more_api_keys() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    rewrite(&service, |item| is(item, "org", org.id.as_str()), |item| item["plan"] = json!({"S": "galactic"})).await;
    let plan = service.api_keys(&key.key, "").await["plan"].clone();
    assert_eq!(plan, json!({"name": "galactic", "max_api_keys": 0, "active_api_keys": 1}));
    service.post(API_KEYS, &owner.credential, &test_key_request()).await.assert_error(403, "PLAN_LIMIT_REACHED");
    assert_eq!(service.store.orgs().await.unwrap()[0].plan.as_str(), "galactic");
    service.set_guard(&org.id, false).await;
    service.set_plan(&org, Plan::Free).await;
    service.api_key_with(&owner.credential, &test_key_request()).await;
}

#[tokio::test]
async fn unknown_outcome_is_shown() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.issue(&org, &owner, "alice").await;
    let is_issue = |item: &Value| text(&item["action"], "S") == "org_user_token.issue";
    rewrite(&service, is_issue, |item| item["outcome"] = json!({"S": "postponed"})).await;
    let log = service.audit_log(&org, &owner.credential, "").await;
    let outcomes: BTreeSet<&str> =
        log["entries"].as_array().unwrap().iter().map(|entry| text(entry, "outcome")).collect();
    assert_eq!(outcomes, ["done", "postponed"].into());
    service.table.skip_final_check();
}

#[tokio::test]
async fn unknown_kind_of_token_is_refused_and_hides_no_other() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (known, unknown) = (service.issue(&org, &owner, "alice").await, service.issue(&org, &owner, "alice").await);
    rewrite(&service, |item| is(item, "token", &unknown.id), |item| item["kind"] = json!({"S": "robot"})).await;
    service.whoami(&unknown.token).await.assert_error(401, "UNAUTHORIZED");
    assert_eq!(service.probe(&org, &owner, &unknown.token).await, json!({"active": false}));
    assert_eq!(service.introspect(&owner, &json!({"token": unknown.token})).await, json!({"active": false}));
    assert_eq!(service.listed_ids(&org, &owner, "?status=all").await, [known.id]);
    service.table.skip_final_check();
}

#[tokio::test]
async fn unknown_language_gets_mails_in_english() {
    let service = Service::start_with_manual_clock().await;
    let person = service.person("alice@example.com");
    let token = person.obtain_token().await;
    rewrite(&service, |item| kind_of(item) == "address", |item| item["language"] = json!({"S": "tlh"})).await;
    assert_eq!(service.status(&token).await.json()["language"], "en");
    let code = person.request_code().await;
    person.reset_with(&code).await;
}

#[tokio::test]
async fn name_that_is_no_longer_accepted_is_still_shown() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    rewrite(&service, |item| is(item, "token", &key.id), |item| item["name"] = json!({"S": " a\u{200b}\n"})).await;
    assert_eq!(service.api_keys(&key.key, "").await["api_keys"][0]["name"], " a\u{200b}\n");
}
