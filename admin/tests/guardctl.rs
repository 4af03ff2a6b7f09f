//! Runs the built `guardctl` binary against an embedded DynamoDB.
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot be set up has failed.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dynoxide::Database;
use dynoxide::actions::delete_item::DeleteItemRequest;
use dynoxide::actions::query::QueryRequest;
use dynoxide::types::AttributeValue;
use insta::assert_snapshot;
use serde_json::{Value, json};
use shared::aws::{LOCAL_CREDENTIAL, LOCAL_REGION, dynamodb_at};
use shared::domain::{Environment, Name, OrUnknown, Scope, Scopes, UserIdentifier};
use shared::email::EmailAddress;
use shared::ids::{BotId, MemberId, OrgId, TrustId};
use shared::permissions::Role;
use shared::person::Person;
use shared::secret::{Token, TokenKind};
use shared::store::Store;
use shared::store::api_keys::NewApiKey;
use shared::store::audit::{Caller, Subject};
use shared::store::email_tokens::Registration;
use shared::store::keys;
use shared::store::leak_reports::Reported;
use shared::store::members::Accepted;
use shared::store::org_access_tokens::Settings;
use shared::store::org_user_tokens::Issued;
use shared::store::tokens::AccessConfig;
use shared::{Clock, Moment};
use tokio::runtime::Runtime;

/// An ID that does not exist.
const NO_ORG: &str = "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC";
/// An ID that does not exist.
const NO_BOT: &str = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC";
/// An ID that does not exist.
const NO_MEMBER: &str = "MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC";
/// An ID that does not exist.
const NO_TRUST: &str = "01KAJ8M4R2X7Z9V5T3Q1N6P8WC";

/// What every trust needs.
const TRUST: [&str; 6] = [
    "--issuer",
    "https://token.actions.githubusercontent.com",
    "--audience",
    "guard.example.com",
    "--claim",
    "repository_owner_id=1342004",
];

/// The error for a table that does not exist.
const REFUSED: &str = "DynamoDB rejected the request for table tokens: check that the table exists in this account \
    and region, that your AWS credentials have access to it, and that guardctl is at least as new as the service";
/// The error if DynamoDB does not respond.
const SILENT: &str = "DynamoDB did not respond for table tokens: check your AWS credentials, AWS_REGION and network \
    connection; for the local service, check that it is running at AWS_ENDPOINT_URL_DYNAMODB";

/// An embedded DynamoDB with an empty table, one per test.
struct World {
    runtime: Runtime,
    database: Database,
    endpoint: String,
}

impl World {
    fn new() -> Self {
        let world = Self::without_table();
        world.store(Clock::System, |store| async move { store.create_table().await.unwrap() });
        world
    }

    fn without_table() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let database = Database::memory().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = dynoxide::server::serve_with_shutdown(listener, database.clone(), std::future::pending());
        runtime.spawn(server);
        Self { runtime, database, endpoint }
    }

    /// Runs `work` on the table with this clock.
    fn store<F: Future>(&self, clock: Clock, work: impl FnOnce(Store) -> F) -> F::Output {
        self.runtime.block_on(async { work(Store::new(dynamodb_at(&self.endpoint), "tokens", clock)).await })
    }

    /// The roles of this credential now; `None` if it is invalid.
    fn roles_of(&self, credential: &str) -> Option<Vec<Role>> {
        self.roles_at(Clock::System, credential)
    }

    fn roles_at(&self, clock: Clock, credential: &str) -> Option<Vec<Role>> {
        let (key, bot) = credential.rsplit_once(':').unwrap();
        let (key, bot) = (Token::parse(key).unwrap(), BotId::parse(bot).unwrap());
        let found = self.store(clock, |store| async move { store.authenticate_bot(&bot, &key).await.unwrap() });
        found.map(|bot| bot.roles.as_slice().iter().filter_map(OrUnknown::known).collect())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(&self.endpoint, arguments)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    /// Runs a command that must succeed and parses its JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let run = self.run(&[arguments, &["--json"]].concat());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        serde_json::from_str(&run.stdout).unwrap()
    }

    fn org(&self) -> String {
        self.json(&["org", "create", "--name", "Example", "--plan", "pro", "--guard", "on"])["id"].text()
    }

    /// Creates a bot. Returns its ID and its credential.
    fn bot(&self, org: &str, role: &str) -> (String, String) {
        let bot = self.json(&["bot", "create", "--org", org, "--name", "ci", "--role", role]);
        (bot["id"].text(), bot["credential"].text())
    }

    /// Accepts the invitation of this address, which may be spelled differently.
    fn accept(&self, org: &str, email: &str) {
        let org = OrgId::parse(org).unwrap();
        let person = Person::by_mail(EmailAddress::try_from(email.to_owned()).unwrap());
        let caller = Caller {
            actor: Subject::new("operator", "test"),
            source_ip: None,
            request_id: "1".to_owned(),
            workload: None,
        };
        self.store(Clock::System, |store| async move {
            let invitation = store.invitation(&person.email, &org).await.unwrap().unwrap();
            let accepted = store.accept_invitation(&org, &invitation.id, &person, &caller).await.unwrap();
            assert!(matches!(accepted, Accepted::Joined(_)), "{accepted:?}");
        });
    }

    /// Adds a member. Returns its ID.
    fn member(&self, org: &str, email: &str, role: &str) -> String {
        let id = self.json(&["member", "invite", "--org", org, "--email", email, "--role", role])["id"].text();
        self.accept(org, email);
        id
    }

    /// An organization's audit log, one line per entry, oldest first.
    fn audit(&self, org: &str) -> Vec<String> {
        let request = QueryRequest {
            table_name: "tokens".to_owned(),
            key_condition_expression: Some("pk = :pk".to_owned()),
            expression_attribute_values: Some(
                [(":pk".to_owned(), AttributeValue::S(format!("ORG#{org}#AUDIT")))].into(),
            ),
            scan_index_forward: true,
            ..QueryRequest::default()
        };
        let entry = |item: BTreeMap<String, Value>| {
            let text = |value: &Value| value["S"].text();
            let (actor, target) = (&item["actor"]["M"], &item["target"]["M"]);
            let by = format!("{} {}", text(&actor["kind"]), text(&actor["id"]));
            let to = format!("{} {}", text(&target["kind"]), text(&target["id"]));
            format!("{by}: {} {to} {}", text(&item["action"]), text(&item["outcome"]))
        };
        let items = serde_json::to_value(self.database.query(request).unwrap()).unwrap()["Items"].take();
        serde_json::from_value::<Vec<_>>(items).unwrap().into_iter().map(entry).collect()
    }
}

/// The result of a command.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    /// Asserts that the command failed with one line on stderr, and returns the message.
    fn failure(&self) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (1, ""), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        self.stderr.strip_prefix("error: ").unwrap().trim_end()
    }
}

/// The command with a minimal environment.
fn command(endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guardctl"));
    command.args(arguments).stdin(Stdio::null()).env_clear().envs([
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint),
        ("AWS_REGION", LOCAL_REGION),
        ("AWS_ACCESS_KEY_ID", LOCAL_CREDENTIAL),
        ("AWS_SECRET_ACCESS_KEY", LOCAL_CREDENTIAL),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("TOKENS_TABLE", "tokens"),
    ]);
    command
}

fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

trait Text {
    fn text(&self) -> String;
}

impl Text for Value {
    fn text(&self) -> String {
        self.as_str().unwrap_or_else(|| panic!("no text: {self}")).to_owned()
    }
}

/// Replaces IDs, keys and times with placeholders, if they are well-formed.
fn shown(text: &str) -> String {
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':');
    let mut shown = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = if in_word(next) { rest.find(|c| !in_word(c)).unwrap_or(rest.len()) } else { next.len_utf8() };
        let (word, after) = rest.split_at(length);
        let ends_in_colon = word.ends_with(':');
        shown.push_str(&named(word.trim_end_matches(':')));
        shown.push_str(if ends_in_colon { ":" } else { "" });
        rest = after;
    }
    shown
}

fn named(word: &str) -> String {
    if OrgId::parse(word).is_some() {
        "[org]".to_owned()
    } else if BotId::parse(word).is_some() {
        "[bot]".to_owned()
    } else if MemberId::parse(word).is_some() {
        "[member]".to_owned()
    } else if TrustId::parse(word).is_some() {
        "[trust]".to_owned()
    } else if Token::parse(word).is_some_and(|token| token.kind() == TokenKind::BotApiKey) {
        "[key]".to_owned()
    } else if Moment::parse(word).is_some() {
        "[time]".to_owned()
    } else if let Some((key, bot)) = word.split_once(':').filter(|(key, _)| named(key) == "[key]") {
        format!("{}:{}", named(key), named(bot))
    } else {
        word.to_owned()
    }
}

#[test]
fn org_commands_print_text() {
    let world = World::new();
    assert_snapshot!(world.run(&["org", "list"]).stdout, @"No organizations found.");
    let made = world.run(&["org", "create", "--name", "Beispiel Größe & Co.", "--plan", "free", "--guard", "off"]);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    assert_snapshot!(shown(&made.stdout), @r"
    Organization [org]
      name               Beispiel Größe & Co.
      plan               free
      guard              off
      security contacts  none
      leaked tokens      revoke
      longest lifetimes  none
      unused tokens end  never
      told also of       nothing
      created            [time]
    ");
    let org = made.stdout.lines().next().unwrap().strip_prefix("Organization ").unwrap().to_owned();

    let changed = world.run(&["org", "set", &org, "--plan", "enterprise", "--guard", "on"]);
    assert_snapshot!(shown(&changed.stdout), @r"
    Organization [org]
      name               Beispiel Größe & Co.
      plan               enterprise
      guard              on
      security contacts  none
      leaked tokens      revoke
      longest lifetimes  none
      unused tokens end  never
      told also of       nothing
      created            [time]
    ");
    assert_eq!(world.run(&["org", "show", &org]).stdout, changed.stdout);

    world.run(&["org", "create", "--name", "日本", "--plan", "developer", "--guard", "on"]);
    assert_snapshot!(shown(&world.run(&["org", "list"]).stdout), @r"
    ID                            PLAN        GUARD  CREATED               NAME
    [org]  enterprise  on     [time]  Beispiel Größe & Co.
    [org]  developer   on     [time]  日本
    ");
}

#[test]
fn org_commands_print_json() {
    let world = World::new();
    assert_eq!(world.json(&["org", "list"]), json!({ "organizations": [] }));
    let made = world.run(&["--json", "org", "create", "--name", "Example", "--plan", "pro", "--guard", "on"]);
    assert_snapshot!(shown(&made.stdout), @r#"
    {
      "id": "[org]",
      "name": "Example",
      "plan": "pro",
      "guard": true,
      "suspended": false,
      "security_contacts": [],
      "leaked": "revoke",
      "max_lifetime_days": {
        "org_user_token": null,
        "api_key": null,
        "org_access_token": null
      },
      "end_after_unused_days": null,
      "notify": [],
      "created_at": "[time]"
    }
    "#);
    let mut org: Value = serde_json::from_str(&made.stdout).unwrap();
    let id = org["id"].text();

    // Changing one setting leaves the other unchanged.
    org["plan"] = json!("free");
    assert_eq!(world.json(&["org", "set", &id, "--plan", "free"]), org);
    org["guard"] = json!(false);
    assert_eq!(world.json(&["org", "set", &id, "--guard", "off"]), org);
    org["leaked"] = json!("tell-only");
    assert_eq!(world.json(&["org", "set", &id, "--leaked", "tell-only"]), org);
    for (kind, days) in [("api_key", 90), ("org_access_token", 7)] {
        org["max_lifetime_days"][kind] = json!(days);
        assert_eq!(world.json(&["org", "set", &id, "--max-lifetime-days", &format!("{kind}={days}")]), org);
    }
    org["max_lifetime_days"]["api_key"] = json!(null);
    org["end_after_unused_days"] = json!(14);
    let limits = ["--max-lifetime-days", "api_key=none", "--end-after-unused-days", "14"];
    assert_eq!(world.json(&[&["org", "set", &id], &limits[..]].concat()), org);
    org["end_after_unused_days"] = json!(null);
    assert_eq!(world.json(&["org", "set", &id, "--end-after-unused-days", "none"]), org);
    org["notify"] = json!(["new-token", "bot-key-rotated"]);
    let asked = ["--notify", "bot-key-rotated", "--notify", "new-token"];
    assert_eq!(world.json(&[&["org", "set", &id], &asked[..]].concat()), org);
    assert_eq!(world.run(&["org", "set", &id, "--notify", "none", "--notify", "new-token"]).code, 2);
    let contacts = ["security@example.com", "o'brien@xn--bcher-kva.example"];
    org["security_contacts"] = json!(contacts);
    let [first, second] = contacts.map(|contact| ["--security-contact", contact]);
    assert_eq!(world.json(&[&["org", "set", &id], &first[..], &second].concat()), org);
    assert_eq!(world.json(&["org", "show", &id]), org);
    assert_eq!(world.json(&["org", "list"]), json!({ "organizations": [org] }));
}

#[test]
fn security_contacts_are_replaced_and_no_address_is_audited() {
    let world = World::new();
    let org = world.org();
    let set = |arguments: &[&str]| world.run(&[&["org", "set", &org], arguments].concat());
    let contact = "--security-contact";
    let changed = set(&[contact, "security@example.com", contact, "SECURITY@example.com", contact, "b@example.org"]);
    assert_snapshot!(shown(&changed.stdout), @r"
    Organization [org]
      name               Example
      plan               pro
      guard              on
      security contacts  security@example.com, b@example.org
      leaked tokens      revoke
      longest lifetimes  none
      unused tokens end  never
      told also of       nothing
      created            [time]
    ");
    let contacts = || world.json(&["org", "show", &org])["security_contacts"].take();
    assert_eq!(set(&[contact, "b@example.org", "--plan", "free"]).code, 0);
    assert_eq!(contacts(), json!(["b@example.org"]));
    // Too many, and both an address and none, change nothing.
    let many: Vec<String> = (0..11).map(|number| format!("contact-{number}@example.com")).collect();
    let many: Vec<&str> = many.iter().flat_map(|address| [contact, address]).collect();
    assert!(set(&many).stderr.contains("at most 10 security contacts are allowed"));
    assert_eq!(set(&[contact, "none", contact, "a@example.com"]).code, 2);
    assert_eq!(contacts(), json!(["b@example.org"]));
    assert_eq!(set(&many[2..]).code, 0);
    assert_eq!(contacts().as_array().unwrap().len(), 10);
    assert_eq!(set(&[contact, "none", "--leaked", "tell-only"]).code, 0);
    assert_eq!(contacts(), json!([]));

    let log = world.run(&["audit", "--since", "2026-01-01T00:00:00Z"]).stdout;
    assert!(!log.contains('@') && !world.audit(&org).concat().contains('@'), "{log}");
    for set in ["plan free, security contacts 1", "security contacts 10", "security contacts 0, leaked tell-only"] {
        assert!(log.contains(&format!("{org}: {set}")), "{set}: {log}");
    }
}

#[test]
fn bot_commands_print_text() {
    let world = World::new();
    let org = world.org();
    assert_snapshot!(world.run(&["bot", "list", "--org", &org]).stdout, @"No bots found.");
    let roles = ["--role", "takumi_manager", "--role", "organization/api_key_manager"];
    let made = world.run(&[&["bot", "create", "--org", &org, "--name", "nightly jobs"], &roles[..]].concat());
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    assert_snapshot!(shown(&made.stdout), @r"
    Bot [bot]
      organization  [org]
      name          nightly jobs
      roles         organization/takumi_manager, organization/api_key_manager
      created       [time]

    API key (shown only once):
      [key]
    Credential (send it as `Authorization: Bearer …`):
      [key]:[bot]
    ");
    let credential = made.stdout.lines().last().unwrap().trim();
    assert_eq!(world.roles_of(credential), Some(vec![Role::Manager, Role::ApiKeyManager]));
    let (key, bot) = credential.rsplit_once(':').unwrap();
    assert!(made.stdout.contains(&format!("  {key}\n")) && made.stdout.starts_with(&format!("Bot {bot}\n")));

    let changed = world.run(&["bot", "set-roles", bot, "--role", "owner"]);
    assert_snapshot!(shown(&changed.stdout), @r"
    Bot [bot]
      organization  [org]
      name          nightly jobs
      roles         organization/owner
      created       [time]
    ");
    assert_snapshot!(shown(&world.run(&["bot", "list", "--org", &org]).stdout), @r"
    ID                            CREATED               LAST USED  KEY EXPIRES  PREVIOUS KEY  NAME          ROLES
    [bot]  [time]  never      -            -             nightly jobs  organization/owner
    ");

    let rotated = world.run(&["bot", "rotate-key", bot, "--overlap", "24h"]);
    assert_snapshot!(shown(&rotated.stdout), @r"
    Bot [bot]
      organization  [org]
      name          nightly jobs
      roles         organization/owner
      created       [time]
      previous key  valid until [time]

    API key (shown only once):
      [key]
    Credential (send it as `Authorization: Bearer …`):
      [key]:[bot]
    ");
    assert!(world.roles_of(rotated.stdout.lines().last().unwrap().trim()).is_some());
    assert_snapshot!(shown(&world.run(&["bot", "list", "--org", &org]).stdout), @r"
    ID                            CREATED               LAST USED  KEY EXPIRES  PREVIOUS KEY                NAME          ROLES
    [bot]  [time]  never      -            until [time]  nightly jobs  organization/owner
    ");

    assert_snapshot!(shown(&world.run(&["bot", "delete", bot]).stdout), @r"
    Deleted bot [bot]
      organization  [org]
      name          nightly jobs
      roles         organization/owner
      created       [time]
    ");
    assert_eq!(world.roles_of(credential), None);
}

#[test]
fn bot_commands_print_json() {
    let world = World::new();
    let org = world.org();
    assert_eq!(world.json(&["bot", "list", "--org", &org]), json!({ "bots": [] }));
    let made = world.run(&["bot", "create", "--org", &org, "--name", "ci", "--role", "owner", "--json"]);
    assert_snapshot!(shown(&made.stdout), @r#"
    {
      "id": "[bot]",
      "org_id": "[org]",
      "name": "ci",
      "roles": [
        "organization/owner"
      ],
      "created_at": "[time]",
      "key_expires_at": null,
      "last_used_at": null,
      "previous_key_expires_at": null,
      "api_key": "[key]",
      "credential": "[key]:[bot]"
    }
    "#);
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let id = made["id"].text();
    assert_eq!(made["credential"].text(), format!("{}:{id}", made["api_key"].text()));

    let mut bot = made.clone();
    bot.as_object_mut().unwrap().retain(|field, _| field != "api_key" && field != "credential");
    assert_eq!(world.json(&["bot", "list", "--org", &org]), json!({ "bots": [bot] }));
    bot["roles"] = json!(["organization/token_introspector", "organization/takumi_guard_token_issuer"]);
    let roles = ["--role", "token_introspector", "--role", "organization/takumi_guard_token_issuer"];
    assert_eq!(world.json(&[&["bot", "set-roles", &id], &roles[..]].concat()), bot);

    let mut rotated = world.json(&["bot", "rotate-key", &id]);
    let credential = rotated.as_object_mut().unwrap().remove("credential").unwrap().text();
    let key = rotated.as_object_mut().unwrap().remove("api_key").unwrap().text();
    assert_eq!((&rotated, credential), (&bot, format!("{key}:{id}")));
    assert_ne!(key, made["api_key"].text());

    assert_eq!(world.json(&["bot", "delete", &id]), json!({ "deleted": bot }));
    assert_eq!(world.json(&["bot", "list", "--org", &org]), json!({ "bots": [] }));
}

#[test]
fn trust_commands_print_text() {
    let world = World::new();
    let org = world.org();
    let (bot, _) = world.bot(&org, "takumi_manager");
    assert_snapshot!(world.run(&["bot", "trust", "list", &bot]).stdout, @"No trusts found.");
    let claims = ["--claim", "ref=refs/heads/*", "--claim", "repository_id=1296269", "--registries-only"];
    let added = world.run(&[&["bot", "trust", "add", &bot], &TRUST[..], &claims].concat());
    assert_eq!((added.code, added.stderr.as_str()), (0, ""));
    assert_snapshot!(shown(&added.stdout), @r"
    Trust [trust]
      issuer    https://token.actions.githubusercontent.com
      audience  guard.example.com
      claims    ref=refs/heads/*, repository_id=1296269, repository_owner_id=1342004
      workload  sub
      roles     registries only
      created   [time] by operator guardctl
    ");
    let rights = ["--role", "takumi_manager", "--subject-claim", "job_workflow_ref", "--may-mint-longer"];
    let added = world.run(&[&["bot", "trust", "add", &bot], &TRUST[..], &rights].concat());
    assert_snapshot!(shown(&added.stdout), @r"
    Trust [trust]
      issuer       https://token.actions.githubusercontent.com
      audience     guard.example.com
      claims       repository_owner_id=1342004
      workload     job_workflow_ref
      roles        organization/takumi_manager
      created      [time] by operator guardctl
      jobs create  also what outlives their token
    ");
    let id = added.stdout.lines().next().unwrap().strip_prefix("Trust ").unwrap();
    let listed = world.run(&["bot", "trust", "list", &bot]).stdout;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.lines().nth(2).unwrap().starts_with(id), "{listed}");
    let removed = world.run(&["bot", "trust", "remove", &bot, id]);
    assert!(removed.stdout.starts_with(&format!("Removed trust {id}\n")), "{}", removed.stdout);
    assert_snapshot!(shown(&world.run(&["bot", "end-tokens", &bot]).stdout), @r"
    Ended all job tokens of bot [bot]
      organization  [org]
      name          ci
      roles         organization/takumi_manager
      created       [time]
    ");
}

#[test]
fn trust_commands_print_json() {
    let world = World::new();
    let org = world.org();
    let (bot, _) = world.bot(&org, "owner");
    assert_eq!(world.json(&["bot", "trust", "list", &bot]), json!({ "trusts": [] }));
    let added = world.run(&[&["bot", "trust", "add", &bot], &TRUST[..], &["--role", "owner", "--json"]].concat());
    assert_snapshot!(shown(&added.stdout), @r#"
    {
      "id": "[trust]",
      "issuer": "https://token.actions.githubusercontent.com",
      "audience": "guard.example.com",
      "claims": {
        "repository_owner_id": "1342004"
      },
      "subject_claim": "sub",
      "roles": [
        "organization/owner"
      ],
      "may_mint_longer": false,
      "created_at": "[time]",
      "created_by": {
        "kind": "operator",
        "id": "guardctl"
      }
    }
    "#);
    let trust: Value = serde_json::from_str(&added.stdout).unwrap();
    assert_eq!(world.json(&["bot", "trust", "list", &bot]), json!({ "trusts": [trust] }));
    assert_eq!(world.json(&["bot", "trust", "remove", &bot, &trust["id"].text()]), json!({ "removed": trust }));
    assert_eq!(world.json(&["bot", "trust", "list", &bot]), json!({ "trusts": [] }));
    let listed = world.json(&["bot", "list", "--org", &org])["bots"][0].take();
    assert_eq!(world.json(&["bot", "end-tokens", &bot]), json!({ "tokens_ended": listed }));
}

#[test]
fn removed_trust_is_another_when_added_again() {
    let world = World::new();
    let (bot, _) = world.bot(&world.org(), "owner");
    let add = [&["bot", "trust", "add", &bot], &TRUST[..], &["--registries-only"]].concat();
    let first = world.json(&add)["id"].text();
    world.json(&["bot", "trust", "remove", &bot, &first]);
    assert_ne!(world.json(&add)["id"].text(), first);
    let remove = world.run(&["bot", "trust", "remove", &bot, &first]);
    assert_eq!(remove.failure(), format!("bot {bot} has no trust {first}"));
}

#[test]
fn trust_that_cannot_be_made_names_the_option() {
    let world = World::new();
    let org = world.org();
    let (bot, _) = world.bot(&org, "takumi_manager");
    let names = "names can be taken by somebody else";
    let good = |change: &[&'static str]| [&TRUST[..], &["--registries-only"], change].concat();
    let with = |at: usize, value: &'static str| {
        let mut arguments = good(&[]);
        arguments[at] = value;
        arguments
    };
    for (arguments, sentence) in [
        (with(1, "token.actions.githubusercontent.com"), "--issuer must be a URL"),
        (with(1, "ftp://ci.example.com"), "--issuer must be a URL"),
        (with(3, ""), "--audience must have 1 to 255 characters"),
        (with(5, "repository_owner_id"), "a claim is its name, =, and its value"),
        (with(5, "repository_owner_id="), "--claim repository_owner_id must have 1 to 255 characters"),
        (with(5, "repository_owner_id=13/*"), "--claim repository_owner_id must be an exact value"),
        (with(5, "ref=refs/heads/main"), names),
        (with(5, "repository=acme/widgets"), names),
        (with(5, "=1342004"), "--claim must have 1 to 255 visible ASCII characters"),
        (good(&["--claim", "ref=refs/*/main"]), "--claim ref may contain `*` only at the end, after `/` or `:`"),
        (good(&["--claim", "repository_owner_id=1"]), "--claim repository_owner_id must be given once"),
        (good(&["--subject-claim", "a b"]), "--subject-claim must have 1 to 255 visible ASCII characters"),
        (good(&["--role", "takumi_manager"]), "cannot be used with"),
        (TRUST.to_vec(), "--registries-only"),
        ([&TRUST[..], &["--role", "member"]].concat(), "this role is for people: a bot cannot have it"),
        (TRUST[..4].iter().copied().chain(["--registries-only"]).collect(), "--claim <NAME=VALUE>"),
        (TRUST[2..].iter().copied().chain(["--registries-only"]).collect(), "--issuer <URL>"),
        ((0..10).flat_map(|_| ["--claim", "a=b"]).chain(good(&[])).collect(), "--claim a must be given once"),
    ] {
        let run = world.run(&[&["bot", "trust", "add", &bot], &arguments[..]].concat());
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(run.stderr.contains(sentence), "{sentence}: {}", run.stderr);
    }
    let many: Vec<String> = (0..10).map(|n| format!("c{n}=a")).collect();
    let many: Vec<&str> = many.iter().flat_map(|claim| ["--claim", claim.as_str()]).collect();
    let run = world.run(&[&["bot", "trust", "add", &bot, "--registries-only"], &TRUST[..], &many].concat());
    assert!(run.code == 2 && run.stderr.contains("--claim must be at most 10"), "{}", run.stderr);
    let lacking = world.run(&[&["bot", "trust", "add", &bot], &TRUST[..], &["--role", "owner"]].concat());
    assert_snapshot!(shown(lacking.failure()), @"bot [bot] does not have the role organization/owner: a trust can only give roles that the bot has");
    assert_eq!(world.json(&["bot", "trust", "list", &bot]), json!({ "trusts": [] }));
}

#[test]
fn bot_has_at_most_20_trusts() {
    let world = World::new();
    let (bot, _) = world.bot(&world.org(), "owner");
    let add = [&["bot", "trust", "add", &bot], &TRUST[..], &["--registries-only"]].concat();
    let ids: Vec<String> = (0..20).map(|_| world.json(&add)["id"].text()).collect();
    let refused = world.run(&add);
    assert_snapshot!(shown(refused.failure()), @"bot [bot] has 20 trusts, which is the limit: remove one that is not needed");
    world.json(&["bot", "trust", "remove", &bot, &ids[7]]);
    assert_eq!(world.run(&add).code, 0);
    assert_eq!(world.run(&add).code, 1);
    assert_eq!(world.json(&["bot", "trust", "list", &bot])["trusts"].as_array().unwrap().len(), 20);
}

#[test]
fn api_key_is_printed_only_when_created() {
    let world = World::new();
    let org = world.org();
    let (bot, credential) = world.bot(&org, "owner");
    let rotated = world.json(&["bot", "rotate-key", &bot, "--overlap", "1h"])["credential"].text();
    let keys: Vec<_> =
        [credential, rotated].iter().map(|c| Token::parse(c.split(':').next().unwrap()).unwrap()).collect();
    for arguments in [
        &["org", "show", &org][..],
        &["org", "list"],
        &["bot", "list", "--org", &org],
        &["bot", "set-roles", &bot, "--role", "owner"],
        &["bot", "delete", &bot],
    ] {
        for format in [&[][..], &["--json"]] {
            let Run { stdout, stderr, .. } = world.run(&[arguments, format].concat());
            for output in [stdout, stderr] {
                assert!(!output.contains("shisho_apikey_"), "{arguments:?}: {output}");
                assert!(keys.iter().all(|key| !output.contains(&key.hash().to_hex())), "{arguments:?}: {output}");
            }
        }
    }
}

#[test]
fn previous_key_stops_working_at_once_without_overlap() {
    let world = World::new();
    let (bot, before) = world.bot(&world.org(), "owner");
    for rotate in [&["bot", "rotate-key", &bot][..], &["bot", "rotate-key", &bot, "--overlap", "0s"]] {
        let rotated = world.json(rotate);
        assert_eq!(rotated["previous_key_expires_at"], Value::Null);
        assert_eq!(world.roles_of(&rotated["credential"].text()), Some(vec![Role::Owner]));
        assert_eq!(world.roles_of(&before), None);
    }
}

#[test]
fn rotation_of_an_expired_key_must_say_when_the_new_one_expires() {
    let world = World::new();
    let org = OrgId::parse(&world.org()).unwrap();
    let bot = world.store(Clock::System, |store| async move {
        let actor = Subject::new("operator", "test");
        let caller = Caller { actor, source_ip: None, request_id: "1".to_owned(), workload: None };
        let expired = Moment::parse("2020-01-01T00:00:00Z");
        store.create_bot_until(expired, &org, "ci", &[Role::Owner], &caller).await.unwrap().0.id.to_string()
    });
    for arguments in [&["bot", "rotate-key", &bot][..], &["bot", "rotate-key", &bot, "--until-first-use"]] {
        let expected = format!("the API key of bot {bot} has expired: say with --expires-at when the new one expires");
        assert_eq!(world.run(arguments).failure(), expected);
    }
    let renewed = world.json(&["bot", "rotate-key", &bot, "--expires-at", "2099-01-01T00:00:00Z"]);
    assert_eq!(renewed["key_expires_at"], "2099-01-01T00:00:00Z");
    assert_eq!(world.roles_of(&renewed["credential"].text()), Some(vec![Role::Owner]));
}

#[test]
fn overlap_that_a_first_use_ends_is_at_most_7_days() {
    let world = World::new();
    let (bot, before) = world.bot(&world.org(), "owner");
    let refused = world.run(&["bot", "rotate-key", &bot, "--until-first-use", "--overlap", "169h"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
    assert!(refused.stderr.contains("at most 7 days"), "{}", refused.stderr);
    assert!(world.roles_of(&before).is_some());
    for arguments in [&["--until-first-use", "--overlap", "7days"][..], &["--overlap", "90days"]] {
        let rotated = world.json(&[&["bot", "rotate-key", &bot], arguments].concat());
        assert_ne!(rotated["previous_key_expires_at"], Value::Null, "{arguments:?}");
    }
}

#[test]
fn previous_key_works_until_the_overlap_ends() {
    let world = World::new();
    let org = world.org();
    let (bot, first) = world.bot(&org, "owner");
    let asked = Clock::System.now();
    let rotated = world.json(&["bot", "rotate-key", &bot, "--overlap", "1h 30m"]);
    let until = Moment::parse(&rotated["previous_key_expires_at"].text()).unwrap();
    let expected = asked.plus(Duration::from_secs(90 * 60));
    assert!((expected..=expected.plus(Duration::from_secs(10))).contains(&until), "{until}");

    let second = rotated["credential"].text();
    assert!(world.roles_of(&first).is_some() && world.roles_of(&second).is_some());
    // The clocks of the command and of the test differ slightly.
    let shortly_before = Clock::manual(asked);
    shortly_before.advance(Duration::from_secs(90 * 60 - 1));
    assert!(world.roles_at(shortly_before, &first).is_some());
    let after = Clock::manual(until.plus(Duration::from_secs(10)));
    assert!(world.roles_at(after.clone(), &first).is_none() && world.roles_at(after, &second).is_some());

    let listed = world.json(&["bot", "list", "--org", &org])["bots"][0]["previous_key_expires_at"].text();
    assert!((until..=until.plus(Duration::from_secs(10))).contains(&Moment::parse(&listed).unwrap()));

    // A rotation keeps one previous key at most: a key that was never used is none.
    let third = world.json(&["bot", "rotate-key", &bot, "--overlap", "24h"])["credential"].text();
    let good = [&first, &second, &third].map(|credential| world.roles_of(credential).is_some());
    assert_eq!(good, [true, false, true]);
}

#[test]
fn concurrent_rotations_leave_one_valid_key() {
    let world = World::new();
    let (bot, before) = world.bot(&world.org(), "owner");
    let rotate = || {
        let mut command = world.command(&["bot", "rotate-key", &bot, "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running = [rotate(), rotate()];
    let credentials = running.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["credential"].text()
    });
    assert_ne!(credentials[0], credentials[1]);
    assert_eq!(credentials.iter().filter(|credential| world.roles_of(credential).is_some()).count(), 1);
    assert_eq!(world.roles_of(&before), None);
}

/// The partition of the item of an API key of a bot.
fn item_of(credential: &str) -> String {
    let key = Token::parse(credential.rsplit_once(':').unwrap().0).unwrap();
    format!("TOKEN#{}", key.hash().to_hex())
}

/// Whether an API key of a bot has its item.
fn has_item(world: &World, credential: &str) -> bool {
    let request = QueryRequest {
        table_name: "tokens".to_owned(),
        key_condition_expression: Some("pk = :pk".to_owned()),
        expression_attribute_values: Some([(":pk".to_owned(), AttributeValue::S(item_of(credential)))].into()),
        ..QueryRequest::default()
    };
    let items = serde_json::to_value(world.database.query(request).unwrap()).unwrap()["Items"].take();
    items.as_array().unwrap().iter().any(|item| item["kind"]["S"] == "bot_api_key")
}

/// Deletes the item of an API key of a bot, which version 0.1 did not write.
fn as_of_version_0_1(world: &World, credential: &str) {
    assert!(has_item(world, credential));
    let of = |text: &str| AttributeValue::S(text.to_owned());
    let key = [("pk".to_owned(), of(&item_of(credential))), ("sk".to_owned(), of("TOKEN"))].into();
    let delete = DeleteItemRequest { table_name: "tokens".to_owned(), key, ..DeleteItemRequest::default() };
    world.database.delete_item(delete).unwrap();
    assert!(!has_item(world, credential));
}

#[test]
fn migrate_writes_the_missing_items_of_bots_of_all_organizations_once() {
    let world = World::new();
    assert_eq!(world.json(&["migrate"])["migrations"][0]["looked_at"], 0);
    let orgs = [world.org(), world.org()];
    let bots: Vec<(String, String)> =
        orgs.iter().flat_map(|org| [world.bot(org, "owner"), world.bot(org, "takumi_manager")]).collect();
    // A rotation overlap: two keys, of which one has an item.
    let kept = world.json(&["bot", "rotate-key", &bots[3].0, "--overlap", "1h"])["credential"].text();
    for (_, credential) in [&bots[0], &bots[2], &bots[3]] {
        as_of_version_0_1(&world, credential);
    }
    assert_snapshot!(world.run(&["migrate"]).stdout, @r"
    MIGRATION     LOOKED AT  WRITTEN
    bot-api-keys  4          3
    expiries      0          0
    ");
    let expiries = json!({"name": "expiries", "looked_at": 0, "written": 0});
    let again = json!({"migrations": [{"name": "bot-api-keys", "looked_at": 4, "written": 0}, expiries]});
    assert_eq!(world.json(&["migrate"]), again);
    for credential in bots.iter().map(|(_, credential)| credential).chain([&kept]) {
        assert!(has_item(&world, credential) && world.roles_of(credential).is_some());
    }
    assert!(orgs.iter().all(|org| !world.audit(org).concat().contains("migrate")));

    // What it is for: a leaked key of a bot of version 0.1 is found.
    let leaked = Token::parse(bots[0].1.rsplit_once(':').unwrap().0).unwrap();
    let caller = Caller {
        actor: Subject::new("anonymous", "finder"),
        source_ip: None,
        request_id: "1".to_owned(),
        workload: None,
    };
    let report = world.store(Clock::System, |store| async move {
        store.report_leaks(&[Reported { token: leaked, place: None }], &caller).await
    });
    assert_eq!((report.known, report.result), (vec![true], Ok(())));
    assert_eq!(world.roles_of(&bots[0].1), None);
}

/// The keys of the expiries of a day, as organization, kind and ID.
fn expiries_on(world: &World, day: &str) -> Vec<(String, String)> {
    let of_shard = |shard| {
        let pk = keys::expiries_on(day, shard);
        let request = QueryRequest {
            table_name: "tokens".to_owned(),
            key_condition_expression: Some("pk = :pk".to_owned()),
            expression_attribute_values: Some([(":pk".to_owned(), AttributeValue::S(pk.clone()))].into()),
            ..QueryRequest::default()
        };
        let items = serde_json::to_value(world.database.query(request).unwrap()).unwrap()["Items"].take();
        let sort_keys = items.as_array().unwrap().iter().map(|item| item["sk"]["S"].text()).collect::<Vec<_>>();
        sort_keys.into_iter().map(move |sk| (pk.clone(), sk)).collect::<Vec<_>>()
    };
    (0..keys::EXPIRY_SHARDS).flat_map(of_shard).collect()
}

#[test]
fn migrate_notes_the_ends_of_tokens_of_earlier_versions_and_only_those_that_are_missing() {
    let world = World::new();
    let org = world.org();
    let (id, caller) = (
        OrgId::parse(&org).unwrap(),
        Caller { actor: Subject::new("operator", "test"), source_ip: None, request_id: "1".to_owned(), workload: None },
    );
    let end = Clock::System.now().plus(Duration::from_secs(60 * 24 * 60 * 60));
    world.store(Clock::System, |store| async move {
        for (name, end) in [("alice", Some(end)), ("bobby", None), ("carol", Some(end))] {
            let name = UserIdentifier::try_from(name.to_owned()).unwrap();
            store.issue_org_user_token(&id, name, end, &caller, None).await.unwrap();
        }
        let scopes = Scopes::try_from(vec![Scope::OrgRead]).unwrap();
        let name = || Name::try_from("ci".to_owned()).unwrap();
        let key = NewApiKey { name: name(), environment: Environment::Live, scopes, expires_at: Some(end) };
        store.create_api_key(&id, key, None, &caller, None).await.unwrap();
        let access_config = AccessConfig::default();
        let token = Settings { name: name(), is_active: true, expires_at: Some(end), access_config };
        store.create_org_access_token(&id, token, &caller, None).await.unwrap();
    });
    let all = expiries_on(&world, &end.date());
    assert_eq!(all.len(), 4, "{all:?}");
    let migrated = || world.json(&["migrate"])["migrations"][1].clone();
    assert_eq!(migrated(), json!({"name": "expiries", "looked_at": 4, "written": 0}));
    // Version 0.1 has left some, and a run that was interrupted has written the others.
    for (pk, sk) in &all[1..] {
        let of = |text: &str| AttributeValue::S(text.to_owned());
        let key = [("pk".to_owned(), of(pk)), ("sk".to_owned(), of(sk))].into();
        let delete = DeleteItemRequest { table_name: "tokens".to_owned(), key, ..DeleteItemRequest::default() };
        world.database.delete_item(delete).unwrap();
    }
    assert_eq!(expiries_on(&world, &end.date()), all[..1]);
    assert_eq!(migrated(), json!({"name": "expiries", "looked_at": 4, "written": 3}));
    assert_eq!(expiries_on(&world, &end.date()), all);
    assert_eq!(migrated(), json!({"name": "expiries", "looked_at": 4, "written": 0}));
}

#[test]
fn migrate_is_continued_after_a_failure() {
    let world = World::new();
    let org = world.org();
    let bots: Vec<(String, String)> = (0..3).map(|_| world.bot(&org, "owner")).collect();
    for (_, credential) in &bots {
        as_of_version_0_1(&world, credential);
    }
    let last = BotId::parse(&bots[2].0).unwrap();
    // As if a run had ended after one bot.
    world.store(Clock::System, |store| async move { store.write_api_key_items(&last).await.unwrap() });
    assert_eq!(world.json(&["migrate"])["migrations"][0]["written"], 2);
    assert!(bots.iter().all(|(_, credential)| has_item(&world, credential)));
}

#[test]
fn migrate_leaves_no_item_of_a_key_that_is_replaced_meanwhile() {
    let world = World::new();
    let org = world.org();
    let bots: Vec<(String, String)> = (0..6).map(|_| world.bot(&org, "owner")).collect();
    for (_, credential) in &bots {
        as_of_version_0_1(&world, credential);
    }
    let spawn = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut running = vec![spawn(&["migrate", "--json"])];
    running.extend(bots[..3].iter().map(|(bot, _)| spawn(&["bot", "rotate-key", bot, "--json"])));
    running.extend(bots[3..5].iter().map(|(bot, _)| spawn(&["bot", "delete", bot, "--json"])));
    running.push(spawn(&["migrate", "--json"]));
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(printed["credential"].as_str().is_none_or(|new| has_item(&world, new)), "a new key has no item");
    }
    let with_item = bots.iter().map(|(_, credential)| has_item(&world, credential));
    assert_eq!(with_item.collect::<Vec<_>>(), [false, false, false, false, false, true]);
    assert_eq!(world.json(&["migrate"])["migrations"][0]["written"], 0);
}

#[test]
fn role_changes_take_effect_at_next_use() {
    let world = World::new();
    let (bot, credential) = world.bot(&world.org(), "organization/owner");
    assert_eq!(world.roles_of(&credential), Some(vec![Role::Owner]));
    for role in roles_of_bots() {
        for written in [role.as_str(), role.as_str().strip_prefix("organization/").unwrap()] {
            let changed = world.json(&["bot", "set-roles", &bot, "--role", written, "--role", role.as_str()]);
            assert_eq!(changed["roles"], json!([role.as_str()]));
            assert_eq!(world.roles_of(&credential), Some(vec![role]));
        }
    }
}

#[test]
fn unknown_role_is_refused_with_the_list_of_roles() {
    let world = World::new();
    for role in ["admin", "organization/admin", "organization/organization/owner", "Owner", ""] {
        let run = world.run(&["bot", "create", "--org", NO_ORG, "--name", "ci", "--role", "owner", "--role", role]);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{role}");
        assert!(roles_of_bots().all(|role| run.stderr.contains(role.as_str())), "{}", run.stderr);
    }
}

#[test]
fn role_of_people_is_refused_for_a_bot_and_the_other_way_round() {
    let world = World::new();
    let org = world.org();
    let (bot, _) = world.bot(&org, "owner");
    for role in ["organization/member", "member"] {
        for command in [
            &["bot", "create", "--org", &org, "--name", "ci", "--role", "owner", "--role", role][..],
            &["bot", "set-roles", &bot, "--role", role],
        ] {
            let run = world.run(command);
            assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{command:?}");
            assert!(run.stderr.contains("this role is for people: a bot cannot have it"), "{}", run.stderr);
        }
    }
    assert_eq!(world.json(&["bot", "list", "--org", &org])["bots"].as_array().unwrap().len(), 1);
    for role in ["organization/scim", "scim"] {
        let run = world.run(&["member", "invite", "--org", &org, "--email", "alice@example.com", "--role", role]);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""));
        assert!(run.stderr.contains("this role is for bots: a person cannot have it"), "{}", run.stderr);
    }
}

#[test]
fn member_commands_print_text() {
    let world = World::new();
    let org = world.org();
    assert_snapshot!(world.run(&["member", "list", "--org", &org]).stdout, @"No members found.");
    let roles = ["--role", "owner", "--role", "organization/member", "--role", "owner"];
    let invited =
        world.run(&[&["member", "invite", "--org", &org, "--email", "Alice@Example.com"], &roles[..]].concat());
    assert_eq!((invited.code, invited.stderr.as_str()), (0, ""));
    assert_snapshot!(shown(&invited.stdout), @r"
    Invited [member]
      email    Alice@example.com
      roles    organization/owner, organization/member
      status   invited
      created  [time]

    No mail is sent. Tell the person to open /console/ at the service's public URL, to sign in
    as Alice@example.com by [time], and to accept the invitation.
    ");
    world.accept(&org, "alice@example.com");
    assert_snapshot!(shown(&world.run(&["member", "list", "--org", &org]).stdout), @r"
    ID                            CREATED               STATUS  EMAIL              ROLES
    [member]  [time]  active  alice@example.com  organization/owner, organization/member
    ");
    let id = world.json(&["member", "list", "--org", &org])["members"][0]["id"].text();
    let member = ["--org", &org, "--member", &id];
    let changed = world.run(&[&["member", "set-roles"], &member[..], &["--role", "organization/owner"]].concat());
    assert_snapshot!(shown(&changed.stdout), @r"
    Member [member]
      email    alice@example.com
      roles    organization/owner
      status   active
      created  [time]
    ");
    assert_snapshot!(shown(&world.run(&[&["member", "sign-out"], &member[..]].concat()).stdout), @r"
    Signed out [member]
      email    alice@example.com
      roles    organization/owner
      status   active
      created  [time]
    ");
}

#[test]
fn member_commands_print_json() {
    let world = World::new();
    let org = world.org();
    let list = || world.json(&["member", "list", "--org", &org]);
    assert_eq!(list(), json!({ "members": [] }));
    let invite = ["member", "invite", "--org", &org, "--email", "alice@example.com", "--role", "owner", "--json"];
    let invited = world.run(&invite);
    assert_snapshot!(shown(&invited.stdout), @r#"
    {
      "id": "[member]",
      "email": "alice@example.com",
      "roles": [
        "organization/owner"
      ],
      "status": "invited",
      "created_at": "[time]",
      "expires_at": "[time]"
    }
    "#);
    let mut alice: Value = serde_json::from_str(&invited.stdout).unwrap();
    alice.as_object_mut().unwrap().remove("expires_at");
    assert_eq!(list(), json!({ "members": [alice] }));
    world.accept(&org, "alice@example.com");
    alice["status"] = json!("active");
    assert_eq!(list(), json!({ "members": [alice] }));

    let id = alice["id"].text();
    let member = ["--org", &org, "--member", &id];
    assert_eq!(world.json(&[&["member", "sign-out"], &member[..]].concat()), json!({ "signed_out": alice }));
    world.member(&org, "bobby@example.com", "owner");
    alice["roles"] = json!(["organization/member"]);
    assert_eq!(world.json(&[&["member", "set-roles"], &member[..], &["--role", "member"]].concat()), alice);
    assert_eq!(world.json(&[&["member", "remove"], &member[..]].concat()), json!({ "removed": alice }));
    assert_eq!(list()["members"].as_array().unwrap().len(), 1);
}

#[test]
fn last_owner_among_members_is_neither_removed_nor_demoted() {
    let world = World::new();
    let org = world.org();
    let alice = world.member(&org, "alice@example.com", "owner");
    let last = format!(
        "{alice} is the last owner of organization {org}: give somebody else the role organization/owner first"
    );
    let member = ["--org", &org, "--member", &alice];
    let remove = [&["member", "remove"], &member[..]].concat();
    let demote = [&["member", "set-roles"], &member[..], &["--role", "takumi_manager"]].concat();
    for command in [&remove, &demote] {
        assert_eq!(world.run(command).failure(), last);
    }
    world.member(&org, "bobby@example.com", "owner");
    assert_eq!(world.run(&demote).code, 0);
    assert_eq!(world.run(&remove).code, 0);
}

#[test]
fn invitation_is_withdrawn_and_has_neither_sessions_nor_changeable_roles() {
    let world = World::new();
    let org = world.org();
    let invite = ["member", "invite", "--org", &org, "--email", "alice@example.com", "--role", "owner"];
    let id = world.json(&invite)["id"].text();
    let only_invited = format!(
        "{id} is an invitation to organization {org} that nobody has accepted yet: to change it, invite the address again"
    );
    let member = ["--org", &org, "--member", &id];
    let set_roles = [&["member", "set-roles"], &member[..], &["--role", "member"]].concat();
    for command in [&set_roles, &[&["member", "sign-out"], &member[..]].concat()] {
        assert_eq!(world.run(command).failure(), only_invited);
    }
    // Inviting again replaces it.
    let again = world.json(&invite)["id"].text();
    let remove = |id: &str| world.run(&["member", "remove", "--org", &org, "--member", id]);
    assert_eq!(remove(&id).failure(), format!("organization {org} has no member {id}"));
    assert_eq!(remove(&again).code, 0);
    assert_eq!(world.json(&["member", "list", "--org", &org]), json!({ "members": [] }));
}

#[test]
fn member_of_another_organization_is_not_found() {
    let world = World::new();
    let (org, other) = (world.org(), world.org());
    let alice = world.member(&org, "alice@example.com", "owner");
    let member = ["--org", &other, "--member", &alice];
    for command in [
        [&["member", "remove"], &member[..]].concat(),
        [&["member", "sign-out"], &member[..]].concat(),
        [&["member", "set-roles"], &member[..], &["--role", "owner"]].concat(),
    ] {
        assert_eq!(world.run(&command).failure(), format!("organization {other} has no member {alice}"));
    }
    assert_eq!(world.json(&["member", "list", "--org", &other]), json!({ "members": [] }));
}

/// The roles that bots may have.
fn roles_of_bots() -> impl Iterator<Item = Role> {
    Role::ALL.iter().copied().filter(|role| role.is_for_bots())
}

#[test]
fn projects_are_added_listed_and_removed_per_organization() {
    let world = World::new();
    let (org, other) = (world.org(), world.org());
    let add = |name: &str, org: &str| world.run(&["project", "add", name, "--org", org]);
    assert_snapshot!(world.run(&["project", "list", "--org", &org]).stdout, @"No projects found.");
    assert_snapshot!(shown(&add("prd-greenhouse", &org).stdout), @"Added project prd-greenhouse to organization [org]");
    let twice = add("prd-greenhouse", &org);
    assert_snapshot!(shown(twice.failure()), @"organization [org] already has a project named prd-greenhouse");
    // Another organization, and another spelling, are different projects.
    assert_eq!(add("prd-greenhouse", &other).code, 0);
    assert_eq!(
        world.json(&["project", "add", "Prd-Greenhouse", "--org", &org]),
        json!({ "org_id": org, "project": "Prd-Greenhouse" })
    );

    assert_snapshot!(world.run(&["project", "list", "--org", &org]).stdout, @r"
    Prd-Greenhouse
    prd-greenhouse
    ");
    assert_eq!(
        world.json(&["project", "list", "--org", &org]),
        json!({ "projects": ["Prd-Greenhouse", "prd-greenhouse"] })
    );

    let remove = ["project", "remove", "prd-greenhouse", "--org", &org];
    assert_snapshot!(shown(&world.run(&remove).stdout), @"Removed project prd-greenhouse from organization [org]");
    assert_snapshot!(shown(world.run(&remove).failure()), @"organization [org] has no project named prd-greenhouse");
    assert_eq!(world.json(&["project", "list", "--org", &org]), json!({ "projects": ["Prd-Greenhouse"] }));
    assert_eq!(world.json(&["project", "list", "--org", &other]), json!({ "projects": ["prd-greenhouse"] }));
}

#[test]
fn unknown_organizations_and_bots_are_reported() {
    let world = World::new();
    for arguments in [
        &["org", "show", NO_ORG][..],
        &["org", "set", NO_ORG, "--plan", "free"],
        &["bot", "create", "--org", NO_ORG, "--name", "ci", "--role", "owner"],
        &["bot", "list", "--org", NO_ORG],
        &["project", "add", "a", "--org", NO_ORG],
        &["project", "remove", "a", "--org", NO_ORG],
        &["project", "list", "--org", NO_ORG],
        &["member", "invite", "--org", NO_ORG, "--email", "alice@example.com", "--role", "owner"],
        &["member", "list", "--org", NO_ORG],
        &["member", "set-roles", "--org", NO_ORG, "--member", NO_MEMBER, "--role", "owner"],
        &["member", "remove", "--org", NO_ORG, "--member", NO_MEMBER],
        &["member", "sign-out", "--org", NO_ORG, "--member", NO_MEMBER],
    ] {
        assert_eq!(world.run(arguments).failure(), format!("organization {NO_ORG} not found in table tokens"));
    }
    for arguments in [
        &["bot", "set-roles", NO_BOT, "--role", "owner"][..],
        &["bot", "rotate-key", NO_BOT],
        &["bot", "rotate-key", NO_BOT, "--overlap", "1h"],
        &["bot", "delete", NO_BOT],
        &["bot", "trust", "list", NO_BOT],
        &["bot", "trust", "remove", NO_BOT, NO_TRUST],
        &["bot", "end-tokens", NO_BOT],
        &[&["bot", "trust", "add", NO_BOT], &TRUST[..], &["--registries-only"]].concat(),
    ] {
        let sentence = format!("bot {NO_BOT} not found in table tokens");
        assert_eq!(world.run(arguments).failure(), sentence);
        // `--json` does not change errors.
        assert_eq!(world.run(&[arguments, &["--json"]].concat()).failure(), sentence);
    }
    // Nothing was written.
    let org = OrgId::parse(NO_ORG).unwrap();
    world.store(Clock::System, |store| async move {
        assert!(store.orgs().await.unwrap().is_empty() && store.bots(&org).await.unwrap().is_empty());
        assert!(store.projects(&org).await.unwrap().is_empty());
    });
    assert_eq!(world.audit(NO_ORG), [""; 0]);
}

#[test]
fn deleting_a_bot_leaves_other_bots_unchanged() {
    let world = World::new();
    let org = world.org();
    let ((gone, credential), (left, good)) = (world.bot(&org, "owner"), world.bot(&org, "owner"));
    assert_eq!(world.run(&["bot", "delete", &gone]).code, 0);
    assert_eq!((world.roles_of(&credential), world.roles_of(&good)), (None, Some(vec![Role::Owner])));
    let bots = world.json(&["bot", "list", "--org", &org])["bots"].take();
    assert_eq!((bots.as_array().unwrap().len(), bots[0]["id"].text()), (1, left));
    for arguments in
        [&["bot", "delete", &gone][..], &["bot", "rotate-key", &gone], &["bot", "set-roles", &gone, "--role", "owner"]]
    {
        assert_eq!(world.run(arguments).failure(), format!("bot {gone} not found in table tokens"));
    }
}

#[test]
fn every_change_is_audited() {
    let world = World::new();
    let org = world.org();
    let (bot, _) = world.bot(&org, "owner");
    let add = [&["bot", "trust", "add", &bot], &TRUST[..], &["--registries-only"]].concat();
    let trust = world.json(&add)["id"].text();
    for arguments in [
        &["org", "show", &org][..],
        &["org", "set", &org, "--guard", "off"],
        &["bot", "trust", "list", &bot],
        &["bot", "trust", "remove", &bot, &trust],
        &["bot", "trust", "remove", &bot, &trust],
        &["bot", "end-tokens", &bot],
        &["bot", "set-roles", &bot, "--role", "takumi_manager"],
        &["bot", "rotate-key", &bot],
        &["bot", "list", "--org", &org],
        &["bot", "delete", &bot],
        &["project", "add", "a", "--org", &org],
        &["project", "add", "a", "--org", &org],
        &["project", "remove", "a", "--org", &org],
        &["member", "invite", "--org", &org, "--email", "alice@example.com", "--role", "owner"],
    ] {
        world.run(arguments);
    }
    world.accept(&org, "alice@example.com");
    let alice = world.json(&["member", "list", "--org", &org])["members"][0]["id"].text();
    let member = ["--org", &org, "--member", &alice];
    world.member(&org, "bobby@example.com", "owner");
    for arguments in [
        [&["member", "set-roles"], &member[..], &["--role", "member"]].concat(),
        [&["member", "sign-out"], &member[..]].concat(),
        [&["member", "remove"], &member[..]].concat(),
    ] {
        assert_eq!(world.run(&arguments).code, 0, "{arguments:?}");
    }
    assert_snapshot!(shown(&world.audit(&org).join("\n")), @r"
    operator guardctl: org.create organization [org] done
    operator guardctl: bot.create bot [bot] done
    operator guardctl: bot.add_trust bot [bot] done
    operator guardctl: org.set organization [org] done
    operator guardctl: bot.remove_trust bot [bot] done
    operator guardctl: bot.end_tokens bot [bot] done
    operator guardctl: bot.set_roles bot [bot] done
    operator guardctl: bot.rotate_key bot [bot] done
    operator guardctl: bot.delete bot [bot] done
    operator guardctl: project.add project a done
    operator guardctl: project.remove project a done
    operator guardctl: member.invite member [member] done
    member [member]: member.join member [member] done
    operator guardctl: member.invite member [member] done
    member [member]: member.join member [member] done
    operator guardctl: member.set_roles member [member] done
    operator guardctl: session.end member [member] done
    operator guardctl: member.remove member [member] done
    ");
}

#[test]
fn token_revoke_works_without_a_bot_and_is_audited() {
    let world = World::new();
    let (org, other) = (world.org(), world.org());
    let (bot, _) = world.bot(&org, "owner");
    let issuer = OrgId::parse(&org).unwrap();
    let caller = Caller {
        actor: Subject::new("bot", &bot),
        source_ip: None,
        request_id: "request-1".to_owned(),
        workload: None,
    };
    let user = UserIdentifier::try_from("alice-laptop".to_owned()).unwrap();
    let (token, id) = world.store(Clock::System, |store| async move {
        match store.issue_org_user_token(&issuer, user, None, &caller, None).await.unwrap() {
            Issued::Done(stored, token) => (token, stored.id.to_string()),
            Issued::Repeated(repeat) => panic!("{repeat:?}"),
        }
    });
    let revoke = ["token", "revoke", "org_user_token", &id, "--org", &org];
    for _ in 0..2 {
        let run = world.run(&revoke);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (0, &*format!("Revoked org_user_token {id} in organization {org}\n"))
        );
    }
    let found = world.store(Clock::System, |store| async move { store.token(&token).await.unwrap().unwrap() });
    assert!(!found.is_active(Clock::System.now()));
    for (kind, id, org) in [
        ("org_user_token", &*id, &*other),
        ("org_user_token", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC", &org),
        ("api_key", &id, &org),
        ("org_access_token", "7", &org),
        ("org_access_token", "seven", &org),
    ] {
        let run = world.run(&["token", "revoke", kind, id, "--org", org]);
        assert_eq!(run.failure(), format!("{kind} {id} not found in organization {org}"));
    }
    let entries = world.json(&["audit", "--since", "2026-01-01T00:00:00Z"])["entries"].take();
    let entry = |entry: &Value| {
        format!("{} {} {}", entry["org_id"].text(), entry["action"].text(), entry["target"]["id"].text())
    };
    let entries: Vec<_> = entries.as_array().unwrap().iter().map(entry).collect();
    assert_eq!(
        entries,
        [
            format!("{org} org.create {org}"),
            format!("{other} org.create {other}"),
            format!("{org} bot.create {bot}"),
            format!("{org} org_user_token.issue {id}"),
            format!("{org} org_user_token.revoke {id}"),
        ]
    );
    assert_eq!(world.run(&["audit", "--since", "2999-01-01T00:00:00Z"]).stdout, "No entries found.\n");
}

#[test]
fn email_token_is_revoked_by_id_without_organization() {
    let world = World::new();
    let caller =
        Caller { actor: Subject::new("operator", "test"), source_ip: None, request_id: "1".to_owned(), workload: None };
    let address = EmailAddress::try_from("alice@example.com".to_owned()).unwrap();
    let (token, id) = world.store(Clock::System, |store| async move {
        match store.register(&address, None, &caller).await.unwrap() {
            Registration::Welcome { token, id, .. } => (token, id.to_string()),
            other => panic!("{other:?}"),
        }
    });
    let revoke = ["token", "revoke", "email_token", &id];
    assert_eq!(world.run(&revoke).stdout, format!("Revoked email_token {id}\n"));
    assert!(world.store(Clock::System, |store| async move { store.token(&token).await.unwrap().is_none() }));
    for id in [&*id, NO_ORG, "x"] {
        let run = world.run(&["token", "revoke", "email_token", id]);
        assert_eq!(run.failure(), format!("email_token {id} not found in table tokens"));
    }
    let org = world.org();
    for wrong in [
        &["token", "revoke", "email_token", &id, "--org", &org][..],
        &["token", "revoke", "org_user_token", &id],
        &["token", "revoke", "api_key", &id],
        &["token", "revoke", "org_access_token", "1"],
    ] {
        let run = world.run(wrong);
        assert_eq!(run.code, 2, "{wrong:?}");
        assert!(run.stderr.contains("--org"), "{}", run.stderr);
    }
}

#[test]
fn organization_is_suspended_and_resumed() {
    let world = World::new();
    let org = world.org();
    for (command, suspended, guard) in
        [("suspend", true, "on (suspended)"), ("suspend", true, "on (suspended)"), ("resume", false, "on")]
    {
        let run = world.run(&["org", command, &org]);
        assert!(run.stdout.contains(&format!("guard              {guard}\n")), "{}", run.stdout);
        assert_eq!(world.json(&["org", "show", &org])["suspended"], suspended);
    }
    // Setting plan or Guard keeps it suspended.
    world.run(&["org", "suspend", &org]);
    assert_eq!(world.json(&["org", "set", &org, "--plan", "free"])["suspended"], true);
    assert_eq!(world.run(&["org", "suspend", NO_ORG]).failure(), world.run(&["org", "show", NO_ORG]).failure());
    let entries = world.audit(&org);
    assert_eq!(entries.iter().filter(|entry| entry.contains("org.suspend organization")).count(), 3);
    assert_eq!(entries.iter().filter(|entry| entry.contains("org.resume organization")).count(), 1);
}

#[test]
fn registration_is_shown_set_and_audited() {
    let world = World::new();
    let parameter = "Registration: as the deployment's parameter Registration says\n";
    assert_eq!(world.run(&["registration"]).stdout, parameter);
    assert_eq!(world.run(&["registration", "closed"]).stdout, "Registration: closed\n");
    let domains = world.json(&["registration", "Example.com,bücher.example"]);
    assert_eq!(domains, json!({"registration": "example.com,xn--bcher-kva.example"}));
    assert_eq!(world.json(&["registration"]), domains);
    for bad in ["nobody", "a@example.com", "example.com,", ""] {
        assert_eq!(world.run(&["registration", bad]).code, 2, "{bad}");
    }
    assert_eq!(world.json(&["registration"]), domains);
    assert_eq!(world.run(&["registration", "parameter"]).stdout, parameter);
    let entries = world.json(&["audit", "--since", "2026-01-01T00:00:00Z"])["entries"].take();
    let entries = entries.as_array().unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| (&entry["org_id"], &entry["action"])).collect();
    assert_eq!(actions, [(&Value::Null, &json!("registration.set")); 3]);
    // Each says what was set.
    let set: Vec<_> = entries.iter().map(|entry| &entry["detail"]).collect();
    assert_eq!(set, ["closed", "example.com,xn--bcher-kva.example", "parameter"]);
    let shown = world.run(&["audit", "--since", "2026-01-01T00:00:00Z"]).stdout;
    assert!(shown.contains("registration: example.com,xn--bcher-kva.example"), "{shown}");
}

#[test]
fn invalid_command_line_exits_with_2() {
    let world = World::new();
    let long = "a".repeat(101);
    for arguments in [
        &[][..],
        &["org"],
        &["org", "destroy", NO_ORG],
        &["org", "create", "--name", "a", "--plan", "pro"],
        &["org", "create", "--name", "a", "--plan", "gold", "--guard", "on"],
        &["org", "create", "--name", "a", "--plan", "pro", "--guard", "yes"],
        &["org", "create", "--name", "", "--plan", "pro", "--guard", "on"],
        &["org", "create", "--name", "a\nb", "--plan", "pro", "--guard", "on"],
        &["org", "create", "--name", &long, "--plan", "pro", "--guard", "on"],
        &["org", "set", NO_ORG],
        &["org", "set", "--plan", "free"],
        &["org", "set", NO_ORG, "--security-contact", "alice"],
        &["org", "set", NO_ORG, "--leaked", "ignore"],
        &["org", "set", NO_ORG, "--notify", "everything"],
        &["org", "show", NO_BOT],
        &["org", "show", "OG01kaj8m4r2x7z9v5t3q1n6p8wc"],
        &["bot", "create", "--org", NO_ORG, "--name", "a"],
        &["bot", "create", "--org", NO_ORG, "--name", "a\u{1b}[2J", "--role", "owner"],
        &["bot", "set-roles", NO_BOT],
        &["bot", "rotate-key", NO_ORG],
        &["bot", "rotate-key", NO_BOT, "--overlap", "soon"],
        &["bot", "rotate-key", NO_BOT, "--overlap", "91days"],
        &["bot", "list"],
        &["member", "invite", "--org", NO_ORG, "--email", "alice@example.com"],
        &["member", "invite", "--org", NO_ORG, "--email", "alice", "--role", "owner"],
        &["member", "invite", "--org", NO_ORG, "--email", "alice@example.com", "--role", "emperor"],
        &["member", "remove", "--org", NO_ORG],
        &["member", "remove", "--member", NO_MEMBER],
        &["member", "set-roles", "--org", NO_ORG, "--member", NO_MEMBER],
        &["member", "sign-out", "--org", NO_ORG, "--member", NO_BOT],
        &["project", "add", "a b", "--org", NO_ORG],
        &["project", "add", "../a", "--org", NO_ORG],
        &["project", "add", "a"],
        &["table", "drop"],
        &["--table", "", "org", "list"],
    ] {
        let run = world.run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}: {}", run.stderr);
        assert!(!run.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["bot", "rotate-key", "--help"]] {
        let run = world.run(arguments);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(run.stdout.contains("guardctl"), "{}", run.stdout);
    }
}

#[test]
fn secrets_in_arguments_are_not_echoed() {
    let world = World::new();
    let (_, credential) = world.bot(&world.org(), "owner");
    let secret = &credential["shisho_apikey_".len()..][..43];
    for arguments in [
        &["bot", "delete", &credential][..],
        &["bot", "list", "--org", &credential],
        &["bot", "delete", NO_BOT, &credential],
        &["bot", "rotate-key", NO_BOT, "--overlap", &credential],
        &[&credential],
        &["project", "remove", credential.split(':').next().unwrap(), "--org", NO_ORG],
        &["--table", &credential, "org", "list"],
    ] {
        let Run { code, stdout, stderr } = world.run(arguments);
        assert_ne!(code, 0);
        assert!(!stdout.contains(secret) && !stderr.contains(secret), "{stderr}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn table_create_keeps_an_existing_table() {
    let world = World::without_table();
    assert_snapshot!(world.run(&["table", "create"]).stdout, @"Created table tokens");
    assert_snapshot!(world.run(&["table", "create"]).stdout, @"Table tokens already exists");
    let tables = |answer: Value| answer["tables"].clone();
    assert_eq!(tables(world.json(&["table", "create"])), json!([{ "table": "tokens", "created": false }]));
    let other = world.json(&["table", "create", "--table", "other"]);
    assert_eq!(tables(other), json!([{ "table": "other", "created": true }]));
    let org = world.org();
    assert_eq!(world.json(&["org", "list"])["organizations"][0]["id"], org);
    assert_eq!(world.json(&["org", "list", "--table", "other"]), json!({ "organizations": [] }));
}

#[test]
fn installation_log_table_is_created_only_if_named() {
    let world = World::without_table();
    let create = |log: &str| run(world.command(&["table", "create"]).env("INSTALLATIONS_TABLE", log)).stdout;
    assert_snapshot!(create("log"), @r"
    Created table tokens
    Created table log
    ");
    assert_snapshot!(create("log"), @r"
    Table tokens already exists
    Table log already exists
    ");
    let answer = world.json(&["table", "create", "--installations-table", "other"]);
    assert_eq!(answer["tables"][1], json!({ "table": "other", "created": true }));
}

#[test]
fn missing_table_is_reported_with_its_name() {
    let world = World::without_table();
    for arguments in [
        &["org", "list"][..],
        &["org", "create", "--name", "a", "--plan", "pro", "--guard", "on"],
        &["bot", "rotate-key", NO_BOT],
        &["project", "list", "--org", NO_ORG],
    ] {
        assert_eq!(world.run(arguments).failure(), REFUSED);
    }
    let unnamed = run(world.command(&["org", "list"]).env_remove("TOKENS_TABLE"));
    assert_eq!((unnamed.code, unnamed.stdout.as_str()), (2, ""));
    assert!(unnamed.stderr.contains("pass --table <TABLE> or set TOKENS_TABLE"), "{}", unnamed.stderr);
}

#[test]
fn refused_connection_fails_within_5_seconds() {
    // A port that nothing listens on.
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let started = Instant::now();
    let listed = run(&mut command(&format!("http://{closed}"), &["org", "list"]));
    assert_eq!(listed.failure(), SILENT);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn silent_endpoint_fails_within_15_seconds() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let started = Instant::now();
    let create = ["org", "create", "--name", "a", "--plan", "pro", "--guard", "on"];
    let made = run(&mut command(&format!("http://{}", silent.local_addr().unwrap()), &create));
    // Without a response, the outcome is unknown.
    let look = "; the organization may have been created anyway: check with `guardctl org list`";
    assert_eq!(made.failure(), format!("{SILENT}{look}"));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn failed_write_to_stdout_exits_with_1() {
    let world = World::new();
    let org = world.org();
    let create = ["bot", "create", "--org", &org, "--name", "ci", "--role", "owner"];
    // A full disk. The bot exists, its key is lost, and the error says what to do.
    let failed = run(world.command(&create).stdout(File::options().write(true).open("/dev/full").unwrap()));
    assert!(
        failed.failure().ends_with("if it contained an API key, run `guardctl bot rotate-key` to create a new one")
    );
    assert_eq!(world.json(&["bot", "list", "--org", &org])["bots"].as_array().unwrap().len(), 1);
}
