//! The policies of `template.yaml`, evaluated as IAM does over the DynamoDB calls of every function:
//! each call is allowed, no permission is unused, and calls of other kinds are denied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use futures::future::join;
use reqwest::Method;
use serde_json::{Value, json};
use shared::app::Limits;
use shared::domain::{LeakPolicy, Notify, Plan};
use shared::permissions::{Operation, Role};
use shared::person::Person;
use shared::secret::Token;
use shared::store::bot_tokens::REFUSALS_PER_HOUR;
use shared::store::erasures::DELAY;
use shared::store::leak_reports::Reported;
use shared::store::mail_limits::MailLimits;
use shared::store::members::{Authority, INVITATION_LIFETIME};
use tests::ci::EXCHANGE;
use tests::console::person;
use tests::coverage::{COVERED, Fixtures, Guard, documented};
use tests::dynamodb_rules::attributes;
use tests::faults::{Call, Fault, Faults};
use tests::mail_faults::{MailFault, Ses};
use tests::table::{INSTALLATIONS, TABLE, text};
use tests::upstream::Registry;
use tests::{Answer, Service, operator, unlimited};

use crate::console_oidc::World;
use crate::policies_pages;

const TOKENS_TABLE: &str = "TokensTable.Arn";
const INSTALLATIONS_TABLE: &str = "InstallationsTable.Arn";
const WRITES: [&str; 3] = ["PutItem", "UpdateItem", "DeleteItem"];
const LEADING_KEYS: &str = "dynamodb:LeadingKeys";
const ATTRIBUTES: &str = "dynamodb:Attributes";

/// Functions that erase source addresses in addresses' audit logs, and let their entries end earlier.
const ERASERS: [&str; 1] = ["EmailTokensErase"];

/// Functions that count in an entry of an organization's audit log.
const COUNTERS: [&str; 1] = ["BotsExchange"];

/// Limits of mails that are counted and never reached.
fn plenty() -> MailLimits {
    let many = Some(1_000_000);
    MailLimits {
        per_hour: many,
        per_domain_per_hour: many,
        per_source_per_hour: many,
        per_source_per_day: many,
        recoveries_per_source_per_hour: many,
        sign_in_codes_per_source_per_hour: many,
    }
}

/// What IAM decides on: an action on a resource, with the values of condition keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Access {
    action: String,
    resource: String,
    context: BTreeMap<&'static str, Vec<String>>,
}

impl Access {
    fn new(action: &str, resource: &str) -> Self {
        Self { action: format!("dynamodb:{action}"), resource: resource.to_owned(), context: BTreeMap::new() }
    }

    /// A write to these partitions of the tokens table.
    fn write(action: &str, partitions: &[&str], attributes: &[&str]) -> Self {
        let mut access = Self::new(action, TOKENS_TABLE);
        for (key, values) in [(LEADING_KEYS, partitions), (ATTRIBUTES, attributes)] {
            if !values.is_empty() {
                access.context.insert(key, values.iter().map(|&value| value.to_owned()).collect());
            }
        }
        access
    }

    /// A call on a log group: `log_group` is the name of its resource.
    fn log(action: &str, log_group: &str) -> Self {
        let resource = format!("{log_group}.Arn:log-stream:1");
        Self { action: format!("logs:{action}"), resource, context: BTreeMap::new() }
    }

    fn is_write(&self) -> bool {
        WRITES.iter().any(|write| self.action.ends_with(write))
    }

    fn partition(&self) -> &str {
        self.context.get(LEADING_KEYS).map_or("", |keys| &keys[0])
    }
}

fn resource(table: &Value) -> String {
    match table.as_str() {
        Some(TABLE) => TOKENS_TABLE.to_owned(),
        Some(INSTALLATIONS) => INSTALLATIONS_TABLE.to_owned(),
        table => panic!("there is no table {table:?}"),
    }
}

/// What IAM decides on for a call of DynamoDB. A transaction needs the permissions of its actions.
fn accesses(call: &Call) -> Vec<Access> {
    let request = &call.request;
    let on_item = |operation: &str, request: &Value| {
        let item = request.get("Item").unwrap_or(&request["Key"]);
        let mut named: BTreeSet<String> = item.as_object().unwrap().keys().cloned().collect();
        for expression in ["UpdateExpression", "ConditionExpression"] {
            let expression = request[expression].as_str().unwrap_or_default();
            named.extend(attributes(expression, &request["ExpressionAttributeNames"]));
        }
        let mut access = Access::new(operation, &resource(&request["TableName"]));
        access.context.insert(LEADING_KEYS, vec![text(&item["pk"], "S").to_owned()]);
        access.context.insert(ATTRIBUTES, named.into_iter().collect());
        access
    };
    match call.operation.as_str() {
        "TransactWriteItems" => {
            let actions = request["TransactItems"].as_array().unwrap().iter();
            let actions = actions.flat_map(|action| action.as_object().unwrap());
            actions
                .map(|(kind, action)| {
                    // `Put` needs `PutItem`, and `ConditionCheck` needs `ConditionCheckItem`.
                    on_item(&format!("{kind}Item"), action)
                })
                .collect()
        }
        "BatchGetItem" => {
            let tables = request["RequestItems"].as_object().unwrap().keys();
            tables.map(|table| Access::new("BatchGetItem", &resource(&table.as_str().into()))).collect()
        }
        "Query" => {
            let table = resource(&request["TableName"]);
            let index = request["IndexName"].as_str().map(|index| format!("/index/{index}")).unwrap_or_default();
            vec![Access::new("Query", &(table + &index))]
        }
        operation => vec![on_item(operation, request)],
    }
}

/// A statement of a policy.
#[derive(Debug, Clone)]
struct Statement {
    allows: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    /// Whether `resources` are those that it does not apply to.
    excludes: bool,
    /// By operator and key.
    conditions: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

/// One string or a list of them.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
        _ => panic!("neither a string nor a list of strings: {value}"),
    }
}

impl Statement {
    fn new(statement: &Value) -> Self {
        let excludes = statement.get("NotResource").is_some();
        let resources = strings(&statement[if excludes { "NotResource" } else { "Resource" }]);
        // `${Table.Arn}/index/…` inside of !Sub is `Table.Arn` outside of it. The ARN of a log group
        // ends in `:*`.
        let resources = resources.into_iter().map(|resource| match resource.strip_suffix("Logs.Arn") {
            Some(function) => format!("{function}Logs.Arn:*"),
            None => resource
                .replace("${TokensTable.Arn}", TOKENS_TABLE)
                .replace("${InstallationsTable.Arn}", INSTALLATIONS_TABLE),
        });
        let conditions = statement["Condition"].as_object().into_iter().flatten().map(|(operator, keys)| {
            let keys = keys.as_object().unwrap().iter().map(|(key, values)| (key.clone(), strings(values)));
            (operator.clone(), keys.collect())
        });
        Self {
            allows: text(statement, "Effect") == "Allow",
            actions: strings(&statement["Action"]),
            resources: resources.collect(),
            excludes,
            conditions: conditions.collect(),
        }
    }

    fn applies_to(&self, access: &Access) -> bool {
        let is_on = self.resources.iter().any(|pattern| matches(pattern, &access.resource));
        let is_its_action = self.actions.iter().any(|pattern| matches(pattern, &access.action));
        let mut conditions =
            self.conditions.iter().flat_map(|(operator, keys)| keys.iter().map(move |key| (operator, key)));
        is_its_action
            && is_on != self.excludes
            && conditions.all(|(operator, (key, patterns))| holds(operator, patterns, access.context.get(key.as_str())))
    }
}

/// Whether a condition holds for the values of its key in a request.
fn holds(operator: &str, patterns: &[String], values: Option<&Vec<String>>) -> bool {
    let mut values_in_request = values.into_iter().flatten();
    let is_like = |value: &String| patterns.iter().any(|pattern| matches(pattern, value));
    match operator {
        // Holds without values: that is why "Null" goes with it.
        "ForAllValues:StringLike" => values_in_request.all(is_like),
        "ForAnyValue:StringLike" => values_in_request.any(is_like),
        "StringEquals" => values_in_request.next().is_some_and(|value| patterns.contains(value)),
        "Null" => values.is_none() == (patterns == ["true"]),
        _ => panic!("the operator {operator} is not known"),
    }
}

/// Whether a text matches a pattern of IAM: `*` is any text, `?` any character.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
        }
        Some(first) => text.chars().next().is_some_and(|other| {
            (first == '?' || first == other) && matches(&pattern[first.len_utf8()..], &text[other.len_utf8()..])
        }),
    }
}

/// The value of the template's parameter `TableKeyChecks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyChecks {
    Enforced,
    Relaxed,
}

/// The statements of each function's role.
struct Policies(BTreeMap<String, Vec<Statement>>);

impl Policies {
    fn of_the_template(checks: KeyChecks) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
        let template: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let resources = &template["Resources"];
        let mut of_functions = BTreeMap::new();
        for operation in Operation::ALL {
            let name = resource_name(*operation);
            // What SAM attaches to every role.
            let basic = json!(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]);
            let mut statements = vec![json!({"Effect": "Allow", "Action": basic, "Resource": "*"})];
            for policy in resources[&name]["Properties"]["Policies"].as_array().unwrap() {
                let document = match chosen(policy, checks) {
                    Value::String(managed) if managed == "AWS::NoValue" => continue,
                    Value::String(managed) => &resources[managed]["Properties"]["PolicyDocument"],
                    document => document,
                };
                for statement in document["Statement"].as_array().unwrap() {
                    let mut statement = statement.clone();
                    if let Some(condition) = statement.get("Condition") {
                        let condition = chosen(condition, checks).clone();
                        statement["Condition"] = if condition == "AWS::NoValue" { Value::Null } else { condition };
                    }
                    statements.push(statement);
                }
            }
            of_functions.insert(name, statements.iter().map(Statement::new).collect());
        }
        Self(of_functions)
    }

    /// An explicit denial wins; what nothing allows is denied.
    fn allow(&self, function: &str, access: &Access) -> bool {
        let applying = self.0[function].iter().filter(|statement| statement.applies_to(access));
        let effects: BTreeSet<bool> = applying.map(|statement| statement.allows).collect();
        effects == BTreeSet::from([true])
    }
}

/// `!If [ChecksKeys, …, …]`, which is parsed to a list, becomes the part that applies. Other
/// conditions hold.
fn chosen(value: &Value, checks: KeyChecks) -> &Value {
    match value.as_array() {
        Some(parts) => {
            assert!(
                parts.len() == 3 && ["ChecksKeys", "HasOidcClientSecretArn"].iter().any(|c| parts[0] == *c),
                "{value}"
            );
            &parts[if checks == KeyChecks::Enforced || parts[0] != "ChecksKeys" { 1 } else { 2 }]
        }
        None => value,
    }
}

fn resource_name(operation: Operation) -> String {
    let words = operation.name().split('-');
    words.map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..])).collect()
}

/// Records what calls of operations ask of DynamoDB.
pub(crate) struct Recorder {
    pub(crate) faults: Faults,
    pub(crate) ses: Ses,
    recorded: BTreeMap<String, BTreeSet<Access>>,
}

impl Recorder {
    /// Runs the function that erases what is due.
    async fn record_erasure(&mut self, service: &Service) {
        self.faults.arm(0, &[], None);
        service.erase().await.unwrap();
        self.extend(Operation::EmailTokensErase);
    }

    /// Runs the function that writes the ends of tokens that were not used.
    async fn record_unused_run(&mut self, service: &Service) {
        self.faults.arm(0, &[], None);
        service.run_end_unused().await.unwrap();
        self.extend(Operation::TokensEndUnused);
    }

    /// Makes a call of this operation.
    pub(crate) async fn record(
        &mut self,
        operation: Operation,
        expected: u16,
        call: impl Future<Output = Answer>,
    ) -> Answer {
        self.faults.arm(0, &[], None);
        let answer = call.await;
        // The authorizer asks for whoami, which has no access to the table.
        let asking = if operation == Operation::TokensWhoami { Operation::TokensAuthorize } else { operation };
        self.extend(asking);
        assert_eq!(answer.status, expected, "{}: {}", operation.name(), answer.text);
        answer
    }

    /// Records the calls since the faults were armed as those of this operation.
    pub(crate) fn extend(&mut self, operation: Operation) {
        let calls = self.faults.take_calls();
        self.recorded.get_mut(&resource_name(operation)).unwrap().extend(calls.iter().flat_map(accesses));
    }
}

/// Makes every call of the coverage table, and those that need more than its fixtures.
async fn recorded() -> BTreeMap<String, BTreeSet<Access>> {
    let registry = Registry::with_widgets().await;
    let limits = Limits { calls_per_minute: Some(1_000_000), mails: plenty(), ..unlimited() };
    let (service, faults, ses) = Service::start_with_all_faults(limits, registry.settings()).await;
    let functions = Operation::ALL.iter().map(|operation| (resource_name(*operation), BTreeSet::new()));
    let (mut recorder, service) = (Recorder { faults, ses, recorded: functions.collect() }, &service);
    for covered in documented() {
        let fixtures = Fixtures::create(service).await;
        recorder.record(covered.operation, covered.success, covered.call(service, &fixtures)).await;
        let fixtures = Fixtures::create(service).await;
        let request = || covered.request(service, &fixtures);
        // An API key's last_used_at is updated.
        if matches!(covered.guard, Guard::Manager | Guard::Authorizer) {
            let call = service.send(request().bearer_auth(&fixtures.api_key.key));
            recorder.record(covered.operation, covered.success, call).await;
        }
        // The first call with a bot's API key updates its last_used_at.
        if matches!(covered.guard, Guard::Bot | Guard::Manager | Guard::Authorizer) {
            let fixtures = Fixtures::create(service).await;
            let bot = service.unused_bot(&fixtures.org, &[Role::Owner]).await;
            let call = service.send(covered.request(service, &fixtures).bearer_auth(&bot.credential));
            recorder.record(covered.operation, covered.success, call).await;
        }
        // A credential of another kind is refused, and its last_used_at updated.
        if covered.guard == Guard::EmailHolder {
            let call = service.send(request().bearer_auth(&fixtures.api_key.key));
            recorder.record(covered.operation, 403, call).await;
        }
        // A CI job acts as the bot.
        if matches!(covered.guard, Guard::Bot | Guard::Manager | Guard::Authorizer | Guard::Registry)
            && covered.operation != Operation::RegistryNpmLogout
            && !covered.operation.rule().makes_bot_keys
        {
            let fixtures = Fixtures::create(service).await;
            let call = service.send(covered.request(service, &fixtures).bearer_auth(&fixtures.job));
            recorder.record(covered.operation, covered.success, call).await;
        }
        // Downloads with an email-verified token are counted.
        if covered.guard == Guard::Registry && covered.method == Method::GET {
            let call = service.send(request().bearer_auth(&fixtures.email_token));
            recorder.record(covered.operation, covered.success, call).await;
        }
        if covered.operation.rule().audited_refusal.is_some() {
            let bot = service.bot(&fixtures.org, &[]).await;
            recorder.record(covered.operation, 403, service.send(request().bearer_auth(&bot.credential))).await;
            let job = service.job(&service.bot(&fixtures.org, &[Role::Owner]).await, &[]).await;
            recorder.record(covered.operation, 403, service.send(request().bearer_auth(&job))).await;
            let fixtures = Fixtures::create(service).await;
            recorder.record(covered.operation, covered.success, covered.call_once(service, &fixtures)).await;
        }
    }
    Box::pin(record_expiries(&mut recorder, service)).await;
    Box::pin(record_unused(&mut recorder, service)).await;
    Box::pin(record_mails(&mut recorder, service)).await;
    Box::pin(record_projects(&mut recorder, service)).await;
    Box::pin(record_rotations(&mut recorder, service)).await;
    Box::pin(record_sign_in_with_provider(&mut recorder)).await;
    Box::pin(policies_pages::record(&mut recorder, service)).await;
    Box::pin(record_logouts(&mut recorder, service)).await;
    Box::pin(record_leaks(&mut recorder, service)).await;
    Box::pin(record_own_revocations(&mut recorder, service)).await;
    Box::pin(record_first_counts(&mut recorder, service)).await;
    Box::pin(record_exchanges(&mut recorder, service)).await;
    Box::pin(record_cuts(&mut recorder, service)).await;
    Box::pin(record_erasures(&mut recorder, service)).await;
    Box::pin(record_pending_notices(&mut recorder, service)).await;
    Box::pin(record_reminders(&mut recorder, service)).await;
    // Apart, so that the future that holds all of these does not grow with it.
    Box::pin(record_scim(&mut recorder, service)).await;
    let fixtures = Fixtures::create(service).await;
    let log = fixtures.org.audit_log("?action=api_key.create");
    recorder.record(Operation::AuditLogList, 200, service.call(Method::GET, &log, &fixtures.owner.credential)).await;
    recorder.recorded
}

/// Rotations of every kind, and the listings that settle what a first use has ended.
async fn record_rotations(recorder: &mut Recorder, service: &Service) {
    let rotate = COVERED
        .iter()
        .filter(|covered| matches!(covered.operation, Operation::OrgUserTokensRotate | Operation::ApiKeysRotate));
    for covered in rotate {
        let list = match covered.operation {
            Operation::ApiKeysRotate => Operation::ApiKeysList,
            _ => Operation::OrgUserTokensList,
        };
        let list = COVERED.iter().find(|covered| covered.operation == list).unwrap();
        let fixtures = Fixtures::create(service).await;
        let owner = &fixtures.owner.credential;
        let path = covered.path_with(&fixtures);
        for body in [json!({"overlap": "1h"}), json!({"until_first_use": true})] {
            recorder.record(covered.operation, 201, service.post(&path, owner, &body)).await;
        }
        let body = json!({"until_first_use": true});
        let again = recorder.record(covered.operation, 201, service.post(&path, owner, &body)).await.json();
        let successor = again["token"].as_str().or(again["key"].as_str()).unwrap();
        assert_eq!(service.whoami(successor).await.status, 200);
        recorder.record(list.operation, 200, list.call(service, &fixtures)).await;
        // At once, the old one expiring and not.
        for expires_at in [json!("2099-12-31T23:59:59Z"), json!(null)] {
            let id = again["id"].as_str().unwrap();
            let path = path.replace(&fixtures.token.id, id).replace(&fixtures.api_key.id, id);
            let body = json!({"expires_at": expires_at, "overlap": "7d"});
            let next = recorder.record(covered.operation, 201, service.post(&path, owner, &body)).await.json();
            let path = path.replace(id, next["id"].as_str().unwrap());
            recorder.record(covered.operation, 201, service.post(&path, owner, &json!({}))).await;
        }
    }
    // A bot's key whose successor was never used, which ends.
    let fixtures = Fixtures::create(service).await;
    let path = format!("/v1/o/{}/bots/{}/rotate-key", fixtures.org.id, fixtures.owner.id);
    let body = json!({"until_first_use": true});
    for _ in 0..2 {
        let rotate = service.post(&path, &fixtures.owner.credential, &body);
        recorder.record(Operation::BotsRotateKey, 201, rotate).await;
    }
    // An API key as the caller, in its overlap too, and a successor that ends before what it replaces.
    let fixtures = Fixtures::create(service).await;
    let (key, owner) = (&fixtures.api_key, &fixtures.owner.credential);
    let path = format!("/v1/api-keys/{}/rotate", key.id);
    let body = json!({"until_first_use": true});
    recorder.record(Operation::ApiKeysRotate, 201, service.post(&path, &key.key, &body)).await;
    let next = recorder.record(Operation::ApiKeysRotate, 201, service.post(&path, &key.key, &body)).await.json();
    let expires_at = service.clock.now().plus(Duration::from_secs(60)).to_string();
    let create = json!({"name": "ci", "environment": "live", "scopes": ["org:read"], "expires_at": expires_at});
    recorder.record(Operation::ApiKeysCreate, 201, service.post("/v1/api-keys", &key.key, &create)).await;
    let ends =
        json!({"name": "ends", "environment": "live", "scopes": ["org:read"], "expires_at": "2099-12-31T23:59:59Z"});
    recorder.record(Operation::ApiKeysCreate, 201, service.post("/v1/api-keys", owner, &ends)).await;
    let next = format!("/v1/api-keys/{}", next["id"].as_str().unwrap());
    recorder.record(Operation::ApiKeysRevoke, 204, service.call(Method::DELETE, &next, owner)).await;
    recorder.record(Operation::ApiKeysRotate, 201, service.post(&path, owner, &body)).await;
}

/// Listings and the creation of API keys move what has expired.
async fn record_expiries(recorder: &mut Recorder, service: &Service) {
    let expiring = |name: &str| {
        let expires_at = service.clock.now().plus(Duration::from_secs(60)).to_string();
        json!({"name": name, "environment": "live", "scopes": ["org:read"], "expires_at": expires_at})
    };
    let minute = Duration::from_secs(60);
    let create = COVERED.iter().find(|covered| covered.operation == Operation::ApiKeysCreate).unwrap();
    let list = COVERED.iter().find(|covered| covered.operation == Operation::ApiKeysList).unwrap();
    for covered in [create, list] {
        let fixtures = Fixtures::create(service).await;
        service.api_key_with(&fixtures.owner.credential, &expiring("ends")).await;
        service.clock.advance(minute);
        recorder.record(covered.operation, covered.success, covered.call(service, &fixtures)).await;
    }
    let fixtures = Fixtures::create(service).await;
    let (org, owner) = (&fixtures.org, &fixtures.owner);
    let key = service.api_key_with(&owner.credential, &expiring("is revoked")).await;
    let path = format!("/v1/api-keys/{}", key.id);
    recorder.record(Operation::ApiKeysRevoke, 204, service.call(Method::DELETE, &path, &owner.credential)).await;
    let expires_at = service.clock.now().plus(minute).to_string();
    let revoked = service.issue_until(org, owner, "alice", &expires_at).await;
    let path = org.org_user_tokens(&format!("/by-id/{}", revoked.id));
    recorder.record(Operation::OrgUserTokensRevoke, 204, service.call(Method::DELETE, &path, &owner.credential)).await;
    service.issue_until(org, owner, "bobby", &expires_at).await;
    let body = json!({"user_identifier": "bobby"});
    let path = org.org_user_tokens("/revoke-by-user");
    recorder.record(Operation::OrgUserTokensRevokeByUser, 200, service.post(&path, &owner.credential, &body)).await;
    service.issue_until(org, owner, "carol", &expires_at).await;
    service.clock.advance(minute);
    let path = org.org_user_tokens("");
    recorder.record(Operation::OrgUserTokensList, 200, service.call(Method::GET, &path, &owner.credential)).await;
}

/// Listings, revocations by user, creations and rotations of API keys at the plan's limit, and a daily run
/// move what has ended unused.
async fn record_unused(recorder: &mut Recorder, service: &Service) {
    for operation in [
        Operation::ApiKeysCreate,
        Operation::ApiKeysRotate,
        Operation::ApiKeysList,
        Operation::OrgUserTokensList,
        Operation::OrgUserTokensRevokeByUser,
        Operation::OrgAccessTokensList,
        Operation::TokensEndUnused,
    ] {
        let fixtures = Fixtures::create(service).await;
        let (org, owner) = (&fixtures.org, &fixtures.owner.credential);
        // Its successor ends before it.
        let rotated = service.api_key(owner, &["org:read"]).await;
        let rotate = format!("/v1/api-keys/{}/rotate", rotated.id);
        let expires_at = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let brief = json!({"overlap": "7d", "expires_at": expires_at});
        assert_eq!(service.post(&rotate, owner, &brief).await.status, 201);
        service.set_plan(org, Plan::Free).await;
        for name in ["one", "two", "three"] {
            let key = json!({"name": name, "environment": "live", "scopes": ["org:read"]});
            service.post("/v1/api-keys", owner, &key).await;
        }
        if operation == Operation::TokensEndUnused {
            record_unused_run_over(recorder, service, &fixtures).await;
            continue;
        }
        service.end_unused(&org.id, 1).await;
        let day = Duration::from_secs(24 * 60 * 60);
        service.clock.advance(day - Duration::from_secs(120));
        assert_eq!(service.whoami(&rotated.key).await.status, 200);
        service.clock.advance(day);
        let body = json!({"user_identifier": "alice-laptop"});
        let key = json!({"name": "four", "environment": "live", "scopes": ["org:read"]});
        let by_user = org.org_user_tokens("/revoke-by-user");
        let list = org.org_user_tokens("");
        let get = |path| service.call(Method::GET, path, owner);
        match operation {
            Operation::ApiKeysCreate => {
                recorder.record(operation, 201, service.post("/v1/api-keys", owner, &key)).await
            }
            Operation::ApiKeysRotate => recorder.record(operation, 201, service.post(&rotate, owner, &json!({}))).await,
            Operation::OrgUserTokensRevokeByUser => {
                recorder.record(operation, 200, service.post(&by_user, owner, &body)).await
            }
            Operation::ApiKeysList => recorder.record(operation, 200, get("/v1/api-keys")).await,
            Operation::OrgAccessTokensList => {
                recorder.record(operation, 200, get("/api/v2/organization/tokens/")).await
            }
            _ => recorder.record(operation, 200, get(&list)).await,
        };
    }
}

/// A run over tokens of every kind that have ended unused, before they expire.
async fn record_unused_run_over(recorder: &mut Recorder, service: &Service, fixtures: &Fixtures) {
    let (org, owner) = (&fixtures.org, &fixtures.owner);
    service.set_plan(org, Plan::Pro).await;
    let end = "2099-12-31T23:59:59Z";
    service.issue_until(org, owner, "alice", end).await;
    let key = json!({"name": "ends", "environment": "live", "scopes": ["org:read"], "expires_at": end});
    service.api_key_with(&owner.credential, &key).await;
    // Its successor ends unused while it works.
    let used = service.api_key(&owner.credential, &["org:read"]).await;
    let rotate = format!("/v1/api-keys/{}/rotate", used.id);
    assert_eq!(service.post(&rotate, &owner.credential, &json!({"overlap": "7d"})).await.status, 201);
    service.end_unused(&org.id, 1).await;
    let day = Duration::from_secs(24 * 60 * 60);
    service.clock.advance(day - Duration::from_secs(120));
    assert_eq!(service.whoami(&used.key).await.status, 200);
    service.clock.advance(Duration::from_secs(180));
    recorder.record_unused_run(service).await;
    assert_eq!(service.active_api_keys(org, &owner.credential).await, 1);
}

/// An address with and without a token; mails that SES accepts and rejects.
async fn record_mails(recorder: &mut Recorder, service: &Service) {
    let register = |email: String| async move { service.register(&json!({"email": email})).await };
    let fixtures = Fixtures::create(service).await;
    recorder.record(Operation::EmailTokensRegister, 202, register(fixtures.email.clone())).await;
    for email in [fixtures.email.clone(), format!("new-{}", fixtures.email)] {
        recorder.ses.fail(MailFault::Rejected);
        recorder.record(Operation::EmailTokensRegister, 503, register(email)).await;
        recorder.ses.recover();
    }
}

/// A sign-in at an identity provider, in a browser with a session, of somebody with as many as allowed.
async fn record_sign_in_with_provider(recorder: &mut Recorder) {
    let (world, faults) = World::with_faults().await;
    let faults = std::mem::replace(&mut recorder.faults, faults);
    let mut browser = world.browser();
    for _ in 0..20 {
        world.browser().sign_in(&world, "").await;
    }
    for _ in 0..2 {
        recorder.record(Operation::SignInCallback, 303, browser.sign_in(&world, "")).await;
    }
    recorder.faults = faults;
}

/// Projects of an organization access token exist.
async fn record_projects(recorder: &mut Recorder, service: &Service) {
    let fixtures = Fixtures::create(service).await;
    service.projects(&fixtures.org, &["greenhouse"]).await;
    let body = json!({"name": "with a project", "access_config": {"role": "readonly", "projects": ["greenhouse"]}});
    let (credential, path) = (&fixtures.owner.credential, "/api/v2/organization/tokens/");
    recorder.record(Operation::OrgAccessTokensCreate, 201, service.post(path, credential, &body)).await;
    // People are reminded of these ends.
    let body = json!({"name": "ends", "expires_at": "2099-12-31T23:59:59Z"});
    recorder.record(Operation::OrgAccessTokensCreate, 201, service.post(path, credential, &body)).await;
    let body = json!({"access_config": {"projects": ["greenhouse"]}, "expires_at": "2099-12-31T23:59:59Z"});
    let path = fixtures.access_token.path();
    let call = service.send_json(Method::PATCH, &path, credential, &body);
    recorder.record(Operation::OrgAccessTokensUpdate, 200, call).await;
}

/// `npm logout` revokes the token that it is sent with, of either kind.
async fn record_logouts(recorder: &mut Recorder, service: &Service) {
    let fixtures = Fixtures::create(service).await;
    let expires_at = service.clock.now().plus(Duration::from_secs(60)).to_string();
    let expiring = service.issue_until(&fixtures.org, &fixtures.owner, "alice", &expires_at).await;
    for token in [&fixtures.token.token, &expiring.token, &fixtures.email_token, &fixtures.job] {
        let path = format!("/npm/-/user/token/{token}");
        recorder.record(Operation::RegistryNpmLogout, 200, service.call(Method::DELETE, &path, token)).await;
    }
}

/// A credential of every kind, some of which expire, in an organization that has no counter of access
/// tokens yet. The last one has no organization.
async fn every_credential(service: &Service) -> (Fixtures, Vec<String>) {
    let fixtures = Fixtures::create(service).await;
    let expires_at = service.clock.now().plus(Duration::from_secs(60)).to_string();
    let user = service.issue_until(&fixtures.org, &fixtures.owner, "alice", &expires_at).await;
    // What it replaces still works.
    let replaced = service.api_key(&fixtures.owner.credential, &["org:read"]).await;
    let rotate = format!("/v1/api-keys/{}/rotate", replaced.id);
    let rotation = json!({"overlap": "7d", "expires_at": expires_at});
    let key = service.post(&rotate, &fixtures.owner.credential, &rotation).await.json();
    let bot = service.bot(&fixtures.org, &[]).await;
    service.table.delete(&format!("ORG#{}", fixtures.org.id), "ACCESS_TOKEN_COUNT").await;
    let credentials: [&str; 7] = [
        &fixtures.token.token,
        &user.token,
        text(&key, "key"),
        &fixtures.access_token.token,
        &fixtures.job,
        &bot.credential,
        &fixtures.email_token,
    ];
    let credentials = credentials.map(str::to_owned).to_vec();
    (fixtures, credentials)
}

/// Everything leaks, also a session, and somebody is told or cannot be.
async fn record_leaks(recorder: &mut Recorder, service: &Service) {
    for (mail, leaked) in
        [(None, LeakPolicy::Revoke), (Some(MailFault::Rejected), LeakPolicy::Revoke), (None, LeakPolicy::TellOnly)]
    {
        for operation in [Operation::TokensLeaked, Operation::IntegrationsGithubSecretScanning] {
            let (fixtures, mut credentials) = every_credential(service).await;
            service.set_leaks(&fixtures.org.id, &["security@example.com"], leaked).await;
            let session = service.store.start_session(&person(&fixtures.email), None, &operator()).await.unwrap();
            credentials.push(session.1.expose().to_owned());
            let tokens: Vec<&str> = credentials.iter().map(String::as_str).collect();
            if let Some(fault) = mail {
                recorder.ses.fail(fault);
            }
            if operation == Operation::TokensLeaked {
                let tokens: Vec<Value> =
                    tokens.iter().map(|token| json!({"token": token, "url": "https://example.com/"})).collect();
                let request = service.request(Method::POST, "/v1/tokens/leaked").json(&json!({"tokens": tokens}));
                recorder.record(operation, 202, service.send(request)).await;
            } else {
                recorder.record(operation, 200, service.scan(&tokens)).await;
            }
            recorder.ses.recover();
        }
    }
}

/// Every credential revokes itself.
async fn record_own_revocations(recorder: &mut Recorder, service: &Service) {
    let (_, credentials) = every_credential(service).await;
    for credential in credentials {
        let call = service.call(Method::DELETE, "/v1/tokens/self", &credential);
        recorder.record(Operation::TokensRevokeSelf, 204, call).await;
    }
}

/// Exchanges that fail, and more workloads that are refused than the audit log names.
async fn record_exchanges(recorder: &mut Recorder, service: &Service) {
    let fixtures = Fixtures::create(service).await;
    let bad = json!({"bot_id": fixtures.owner.id.as_str(), "id_token": "a.b.c"});
    recorder.record(Operation::BotsExchange, 401, service.exchange(&bad)).await;
    for workload in 0..=REFUSALS_PER_HOUR + 1 {
        let mut claims = service.new_claims();
        claims["repository_owner_id"] = json!("0");
        claims["sub"] = workload.to_string().into();
        recorder.record(Operation::BotsExchange, 403, service.exchange_claims(&fixtures.owner, &claims)).await;
    }
    let call = service.post(EXCHANGE, &fixtures.job, &bad);
    recorder.record(Operation::BotsExchange, 403, call).await;
}

/// A removed token with usage, whose log takes more than one step.
async fn record_erasures(recorder: &mut Recorder, service: &Service) {
    let fixtures = Fixtures::create(service).await;
    let mut token = fixtures.email_token.clone();
    service.call(Method::GET, "/npm/widgets/-/widgets-1.0.0.tgz", &token).await;
    for _ in 0..100 {
        service.clock.advance(Duration::from_millis(1));
        token = tests::email::new_token(&service.regenerate(&token).await);
    }
    recorder.record(Operation::EmailTokensRevoke, 204, service.revoke_email_token(&token)).await;
    service.clock.advance(DELAY);
    recorder.record_erasure(service).await;
}

/// A run that tells of leaked tokens: mails that SES refuses, then accepts.
async fn record_pending_notices(recorder: &mut Recorder, service: &Service) {
    let fixtures = Fixtures::create(service).await;
    service.set_leaks(&fixtures.org.id, &["security@example.com"], LeakPolicy::Revoke).await;
    let reported = Reported { token: Token::parse(&fixtures.token.token).unwrap(), place: None };
    assert_eq!(service.store.report_leaks(&[reported], &operator()).await.known, [true]);
    recorder.faults.arm(0, &[], None);
    recorder.ses.fail(MailFault::Rejected);
    service.tell_leaks().await.unwrap();
    assert!(recorder.ses.recover() > 0);
    service.tell_leaks().await.unwrap();
    recorder.extend(Operation::LeaksSend);
}

/// SCIM users of every kind: owners with sessions, invitations that lapsed, who comes back.
async fn record_scim(recorder: &mut Recorder, service: &Service) {
    let fixtures = Fixtures::create(service).await;
    let (org, owner, operator) = (&fixtures.org, &fixtures.owner.credential, operator());
    let alice = person(&format!("alice-{}", fixtures.email));
    for number in 0..2 {
        service.join(&org.id, &person(&format!("owner-{number}-{}", fixtures.email)), &[Role::Owner]).await;
    }
    let users = "/scim/v2/Users";
    let change = async |recorder: &mut Recorder, path: &str, active: bool| {
        let body = json!({"Operations": [{"op": "replace", "value": {"active": active}}]});
        let call = service.send_json(Method::PATCH, path, owner, &body);
        let answer = recorder.record(Operation::ScimUsersUpdate, 200, call).await;
        assert_eq!(answer.json()["active"], active);
    };
    let lapse = async |email: &str, roles: &[Role]| {
        let email = person(email).email;
        let invited = service.store.invite_member(&org.id, &email, roles, Authority::Operator, &operator).await;
        let _ = invited.unwrap().unwrap();
        service.clock.advance(INVITATION_LIFETIME);
    };
    // An owner with a session, active or not from the start.
    for active in [true, false] {
        service.join(&org.id, &alice, &[Role::Owner, Role::Manager]).await;
        service.sign_in(&alice).await;
        let body = json!({"userName": alice.email.expose(), "active": active});
        let user = recorder.record(Operation::ScimUsersCreate, 201, service.post(users, owner, &body)).await.json();
        let path = format!("{users}/{}", text(&user, "id"));
        if active {
            change(recorder, &path, false).await;
        }
        change(recorder, &path, true).await;
        let promoted = service.store.membership(alice.id, &org.id).await.unwrap().unwrap();
        let promoted =
            service.store.set_member_roles(&org.id, &promoted.id, &[Role::Owner], Authority::Operator, &operator);
        promoted.await.unwrap();
        service.sign_in(&alice).await;
        recorder.record(Operation::ScimUsersDelete, 204, service.call(Method::DELETE, &path, owner)).await;
    }
    // An invitation in place of one that has lapsed, which ends and comes back; then over another one.
    let name = format!("bobby-{}", fixtures.email);
    lapse(&name, &[Role::Member]).await;
    let body = json!({"userName": name});
    let user = recorder.record(Operation::ScimUsersCreate, 201, service.post(users, owner, &body)).await.json();
    let path = format!("{users}/{}", text(&user, "id"));
    change(recorder, &path, false).await;
    change(recorder, &path, true).await;
    recorder.record(Operation::ScimUsersDelete, 204, service.call(Method::DELETE, &path, owner)).await;
    // Somebody who is invited is inactive from the start.
    let name = format!("carol-{}", fixtures.email);
    let email = person(&name).email;
    service.store.invite_member(&org.id, &email, &[Role::Member], Authority::Operator, &operator).await.unwrap();
    let body = json!({"userName": name, "active": false});
    let user = recorder.record(Operation::ScimUsersCreate, 201, service.post(users, owner, &body)).await.json();
    let path = format!("{users}/{}", text(&user, "id"));
    recorder.record(Operation::ScimUsersGet, 200, service.call(Method::GET, &path, owner)).await;
    recorder.record(Operation::ScimUsersList, 200, service.call(Method::GET, users, owner)).await;
    let filter = format!("{users}?filter=userName%20eq%20%22{name}%22");
    recorder.record(Operation::ScimUsersList, 200, service.call(Method::GET, &filter, owner)).await;
    // More memberships at an address than end in one transaction.
    let email = person(&format!("shared-{}", fixtures.email)).email;
    for way in 0..3 {
        for number in 0..25 {
            let person = Person::of_provider("https://id.example.com", &number.to_string(), email.clone());
            service.join(&org.id, &person, &[Role::Member]).await;
        }
        let body = json!({"userName": email.expose(), "active": way > 0});
        let user = recorder.record(Operation::ScimUsersCreate, 201, service.post(users, owner, &body)).await.json();
        let path = format!("{users}/{}", text(&user, "id"));
        if way == 1 {
            change(recorder, &path, false).await;
        }
        recorder.record(Operation::ScimUsersDelete, 204, service.call(Method::DELETE, &path, owner)).await;
    }
}

/// A run that reminds of a token and tells of a new one: mails that SES refuses, then accepts.
async fn record_reminders(recorder: &mut Recorder, service: &Service) {
    let fixtures = Fixtures::create(service).await;
    service.set_leaks(&fixtures.org.id, &["security@example.com"], LeakPolicy::Revoke).await;
    let end = service.clock.now().plus(Duration::from_secs(8 * 24 * 60 * 60));
    service.issue_until(&fixtures.org, &fixtures.owner, "alice", &end.to_string()).await;
    service.clock.advance(Duration::from_secs(24 * 60 * 60));
    service.set_notify(&fixtures.org.id, Notify::ALL).await;
    service.issue(&fixtures.org, &fixtures.owner, "alice").await;
    service.clock.advance(Duration::from_secs(60 * 60));
    recorder.faults.arm(0, &[], None);
    recorder.ses.fail(MailFault::Rejected);
    service.remind().await.unwrap_err();
    assert!(recorder.ses.recover() > 0);
    service.remind().await.unwrap();
    recorder.extend(Operation::RemindersSend);
}

/// Organizations of earlier versions have no counter of access tokens yet: the first change starts it.
async fn record_first_counts(recorder: &mut Recorder, service: &Service) {
    for operation in [Operation::OrgAccessTokensCreate, Operation::OrgAccessTokensDelete] {
        let covered = COVERED.iter().find(|covered| covered.operation == operation).unwrap();
        let fixtures = Fixtures::create(service).await;
        service.table.delete(&format!("ORG#{}", fixtures.org.id), "ACCESS_TOKEN_COUNT").await;
        recorder.record(operation, covered.success, covered.call(service, &fixtures)).await;
    }
}

/// What a bot creates that is cut off before the commit is taken back.
async fn record_cuts(recorder: &mut Recorder, service: &Service) {
    for covered in documented().filter(|covered| covered.operation.rule().audited_refusal.is_some()) {
        let fixtures = Fixtures::create(service).await;
        recorder.faults.arm(0, &[], None);
        assert_eq!(covered.call(service, &fixtures).await.status, covered.success);
        let calls = recorder.faults.disarm();
        // One more for the idempotency key.
        let reads = calls.iter().position(|call| call == "TransactWriteItems").unwrap() + 1;

        let fixtures = Fixtures::create(service).await;
        let bot = service.bot(&fixtures.org, &[Role::Owner]).await;
        recorder.faults.arm(reads, &[Fault::Held], None);
        let cut = async {
            recorder.faults.reached(reads + 1).await;
            assert!(service.store.delete_bot(&bot.id, &operator()).await.unwrap());
            recorder.faults.release();
        };
        let request = covered.request(service, &fixtures).bearer_auth(&bot.credential);
        let call = service.send(request.header("Idempotency-Key", "key-1"));
        let (answer, ()) = join(call, cut).await;
        assert_eq!(answer.status, 401, "{}: {}", covered.operation.name(), answer.text);
        recorder.extend(covered.operation);
    }
}

/// The kind of a partition: `ORG#*#USER_TOKENS#*`.
fn shape(partition: &str) -> String {
    const STATES: [&str; 6] = ["ACTIVE", "EXPIRED", "REVOKED", "EXPIRY", "LIVE", "TEST"];
    let is_constant = |part: &&str| part.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let parts = partition.split('#').map(|part| if is_constant(&part) && !STATES.contains(&part) { part } else { "*" });
    parts.collect::<Vec<_>>().join("#").replace("#*#*", "#*")
}

/// A partition of each kind that some function or `guardctl` writes.
fn partitions(recorded: &BTreeMap<String, BTreeSet<Access>>) -> BTreeMap<String, String> {
    let by_guardctl = ["BOT#BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "ORG#OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "ORGS"];
    let written = recorded.values().flatten().filter(|access| access.is_write() && access.resource == TOKENS_TABLE);
    let partitions = written.map(Access::partition).chain(by_guardctl);
    partitions.map(|partition| (shape(partition), partition.to_owned())).collect()
}

#[tokio::test]
async fn policies_allow_what_functions_do_and_deny_the_rest() {
    let recorded = recorded().await;
    every_recorded_call_is_allowed(&recorded);
    every_permission_is_used(&recorded);
    writes_to_other_partitions_are_denied(&recorded);
    other_tables_and_operations_are_denied(&recorded);
}

fn every_recorded_call_is_allowed(recorded: &BTreeMap<String, BTreeSet<Access>>) {
    for checks in [KeyChecks::Enforced, KeyChecks::Relaxed] {
        let policies = Policies::of_the_template(checks);
        let mut denied = BTreeSet::new();
        for (function, accesses) in recorded {
            for access in accesses.iter().filter(|access| !policies.allow(function, access)) {
                let attributes = access.context.get(ATTRIBUTES);
                denied.insert(format!("{function}: {} {} {attributes:?}", access.action, shape(access.partition())));
            }
        }
        assert!(denied.is_empty(), "template.yaml denies ({checks:?}): {denied:#?}");
    }
    let without_access = ["ConsoleAssets", "DocsNotFound", "DocsOpenapi", "TokensWhoami"];
    let silent = recorded.iter().filter(|(_, accesses)| accesses.is_empty()).map(|(function, _)| function.as_str());
    assert_eq!(silent.collect::<Vec<_>>(), without_access);
}

fn every_permission_is_used(recorded: &BTreeMap<String, BTreeSet<Access>>) {
    let policies = Policies::of_the_template(KeyChecks::Enforced);
    let mut unused = BTreeSet::new();
    for (function, accesses) in recorded {
        for statement in policies.0[function].iter().filter(|statement| statement.allows) {
            let used: Vec<&Access> = accesses.iter().filter(|access| statement.applies_to(access)).collect();
            for action in statement.actions.iter().filter(|action| action.starts_with("dynamodb:")) {
                if !used.iter().any(|access| access.action == *action) {
                    unused.insert(format!("{function}: {action}"));
                }
            }
            for (key, patterns) in statement.conditions.get("ForAllValues:StringLike").into_iter().flatten() {
                let values = used.iter().filter_map(|access| access.context.get(key.as_str()));
                let values: BTreeSet<&String> = values.flatten().collect();
                for pattern in patterns {
                    if !values.iter().any(|value| matches(pattern, value)) {
                        unused.insert(format!("{function}: {pattern} of {key} in {:?}", statement.actions));
                    }
                }
            }
        }
    }
    assert!(unused.is_empty(), "never used: {unused:#?}");
}

fn writes_to_other_partitions_are_denied(recorded: &BTreeMap<String, BTreeSet<Access>>) {
    let policies = Policies::of_the_template(KeyChecks::Enforced);
    let partitions = partitions(recorded);
    assert!(partitions.len() > 12, "{partitions:?}");
    let mut denied = 0;
    for (function, accesses) in recorded {
        for action in WRITES {
            let own: Vec<&Access> = accesses
                .iter()
                .filter(|access| access.action.ends_with(action) && access.resource == TOKENS_TABLE)
                .collect();
            let shapes: BTreeSet<String> = own.iter().map(|access| shape(access.partition())).collect();
            for (_, partition) in partitions.iter().filter(|(shape, _)| !shapes.contains(*shape)) {
                let foreign = Access::write(action, &[partition], &["pk", "sk", "last_used_at"]);
                assert!(!policies.allow(function, &foreign), "{function} may {action} in {partition}");
                // Hidden among its own.
                if let Some(own) = own.first() {
                    let mixed = Access::write(action, &[own.partition(), partition], &["pk", "sk", "last_used_at"]);
                    assert!(!policies.allow(function, &mixed), "{function} may {action} in {partition} and its own");
                }
                denied += 1;
            }
            let keyless = Access::write(action, &[], &["pk", "sk", "last_used_at"]);
            assert!(!policies.allow(function, &keyless), "{function} may {action} without a key");
        }
        for audit in ["ORG#OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC#AUDIT", "DEPLOYMENT#AUDIT", "EMAIL#ab01#AUDIT"] {
            let may_erase = ERASERS.contains(&function.as_str()) && audit.starts_with("EMAIL#");
            let may_count = COUNTERS.contains(&function.as_str()) && audit.starts_with("ORG#");
            for action in ["UpdateItem", "DeleteItem"] {
                for attributes in
                    [&["pk", "sk", "source_ip", "ttl"][..], &["pk", "sk", "count"], &["pk", "sk", "actor"], &[]]
                {
                    let access = Access::write(action, &[audit], attributes);
                    let is_its =
                        may_erase && attributes.contains(&"source_ip") || may_count && attributes.contains(&"count");
                    let expected = action == "UpdateItem" && is_its;
                    assert_eq!(
                        policies.allow(function, &access),
                        expected,
                        "{function} {action} {audit} {attributes:?}"
                    );
                }
            }
            // A wider permission beside it would not let it change those of others.
            let denies = policies.0[function].iter().filter(|statement| !statement.allows);
            let denies: Vec<_> =
                denies.filter(|deny| deny.applies_to(&Access::write("UpdateItem", &[audit], &[]))).collect();
            let writes = accesses.iter().any(|access| access.is_write() && access.resource == TOKENS_TABLE);
            assert_eq!(denies.is_empty(), may_erase || may_count || !writes, "{function} {audit}");
        }
    }
    assert!(denied > 500, "{denied}");
    // Functions that update a token only because it was used.
    for function in ["RegistryNpm", "RegistryPypi", "TokensAuthorize", "TokensIntrospect", "AuditLogList"] {
        let update = |attribute: &str| Access::write("UpdateItem", &["TOKEN#ab01"], &["pk", "sk", attribute]);
        assert!(policies.allow(function, &update("last_used_at")), "{function}");
        for attribute in ["revoked_at", "expires_at", "scopes", "org_id", "actor_pk", "npm"] {
            assert!(!policies.allow(function, &update(attribute)), "{function} may change {attribute}");
        }
        let unnamed = Access::write("UpdateItem", &["TOKEN#ab01"], &[]);
        assert!(!policies.allow(function, &unnamed), "{function} may change unnamed attributes");
    }
}

fn other_tables_and_operations_are_denied(recorded: &BTreeMap<String, BTreeSet<Access>>) {
    let policies = Policies::of_the_template(KeyChecks::Enforced);
    let all: BTreeSet<(&str, &str)> =
        recorded.values().flatten().map(|access| (access.action.as_str(), access.resource.as_str())).collect();
    for (function, accesses) in recorded {
        for (action, resource) in &all {
            let is_own = accesses.iter().any(|access| access.action == *action && access.resource == *resource);
            // All indexes of a table go together.
            let table = resource.split("/index/").next().unwrap();
            let is_index_of_it = |it: &Access| it.resource.starts_with(table) && it.resource != table;
            let is_own = is_own || *resource != table && accesses.iter().any(is_index_of_it);
            if !is_own {
                let foreign =
                    Access { action: (*action).into(), resource: (*resource).into(), context: BTreeMap::new() };
                assert!(!policies.allow(function, &foreign), "{function} may {action} on {resource}");
            }
        }
        for action in ["Scan", "BatchWriteItem", "PartiQLSelect", "PartiQLUpdate", "DeleteTable", "UpdateTimeToLive"] {
            for table in [TOKENS_TABLE, INSTALLATIONS_TABLE] {
                assert!(!policies.allow(function, &Access::new(action, table)), "{function} may {action} on {table}");
            }
        }
        for action in ["CreateLogStream", "PutLogEvents"] {
            assert!(policies.allow(function, &Access::log(action, &format!("{function}Logs"))), "{function}");
            for other in recorded.keys().filter(|other| *other != function) {
                let foreign = Access::log(action, &format!("{other}Logs"));
                assert!(!policies.allow(function, &foreign), "{function} may write the log of {other}");
            }
            assert!(!policies.allow(function, &Access::log(action, "AccessLogs")), "{function}");
        }
        assert!(!policies.allow(function, &Access::log("DeleteLogGroup", &format!("{function}Logs"))), "{function}");
    }
}

#[test]
fn conditions_hold_as_in_iam() {
    let list = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>();
    let patterns = list(&["A#*", "B?"]);
    for (operator, values, expected) in [
        ("ForAllValues:StringLike", Some(list(&["A#1", "B1"])), true),
        ("ForAllValues:StringLike", Some(list(&["A#1", "C"])), false),
        ("ForAllValues:StringLike", Some(list(&["B12"])), false),
        ("ForAllValues:StringLike", None, true),
        ("ForAnyValue:StringLike", Some(list(&["C", "A#1"])), true),
        ("ForAnyValue:StringLike", Some(list(&["C"])), false),
        ("ForAnyValue:StringLike", None, false),
    ] {
        assert_eq!(holds(operator, &patterns, values.as_ref()), expected, "{operator} {values:?}");
    }
    let is_missing = |expected: &str, values: Option<Vec<String>>| holds("Null", &list(&[expected]), values.as_ref());
    assert!(is_missing("true", None) && is_missing("false", Some(list(&["x"]))));
    assert!(!is_missing("false", None) && !is_missing("true", Some(list(&["x"]))));
}
