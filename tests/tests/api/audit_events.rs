//! The events of audit entries: the filter and the input template of the pipe in `template.yaml`, run
//! over stored items as EventBridge documents it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use shared::Moment;
use shared::ids::{AuditId, OrgId};
use shared::store::audit::{Entry, Outcome, Subject};
use tests::table::{TABLE, text};
use tests::{Org, Service, operator};

/// What Pipes may leave in place of a path that an item lacks. They document nothing ("that variable
/// isn't created"); event buses leave an empty string.
const ABSENT: [&str; 3] = ["", r#""""#, "null"];

/// Attributes of entries that are in no event: keys of indexes, and the end.
const LEFT_OUT: [&str; 6] = ["sk", "actor_pk", "action_pk", "actor_action_pk", "target_pk", "ttl"];

/// A text of a caller who would like to write other fields.
const HOSTILE: &str = "x\"}],\"outcome\":\"refused\" \\ \n <$.dynamodb.NewImage.ttl.N> パイプ";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The resources of the template.
fn resources() -> Value {
    let template: Value = serde_saphyr::from_str(&fs::read_to_string(file("template.yaml")).unwrap()).unwrap();
    template["Resources"].clone()
}

/// The pipe's filter, and the template of its events.
struct Pipe {
    pattern: Value,
    template: String,
}

impl Pipe {
    fn of_the_template() -> Self {
        let properties = &resources()["AuditEventsPipe"]["Properties"];
        let filters = properties["SourceParameters"]["FilterCriteria"]["Filters"].as_array().unwrap();
        let [filter] = filters.as_slice() else { panic!("several filters pass what either passes: {filters:?}") };
        let template = text(&properties["TargetParameters"], "InputTemplate");
        Self {
            pattern: serde_json::from_str(text(filter, "Pattern")).unwrap(),
            template: template.replace("${AWS::StackName}", "guard-tokens"),
        }
    }

    fn passes(&self, record: &Value) -> bool {
        matches(&self.pattern, Some(record))
    }

    /// The `detail` of a record's event. `absent` stands where a path leads to nothing.
    fn event(&self, record: &Value, absent: &str) -> Value {
        let mut event = String::new();
        let mut in_quotes = false;
        let mut rest = self.template.as_str();
        while let Some((before, after)) = rest.split_once('<') {
            let (path, after) = after.split_once('>').unwrap();
            in_quotes ^= before.matches('"').count() % 2 == 1;
            event += before;
            event += &rendered(at(record, path), in_quotes, absent);
            rest = after;
        }
        event += rest;
        serde_json::from_str(&event).unwrap_or_else(|error| panic!("{error}: {event}"))
    }

    /// The paths between quotes, and the others.
    fn paths(&self) -> [Vec<&str>; 2] {
        let mut paths = [Vec::new(), Vec::new()];
        for part in self.template.split('<').skip(1) {
            let (path, after) = part.split_once('>').unwrap();
            paths[usize::from(!after.starts_with('"'))].push(path);
        }
        paths
    }
}

/// The value at a path such as `$.dynamodb.Keys`.
fn at<'a>(record: &'a Value, path: &str) -> Option<&'a Value> {
    path.strip_prefix("$.").unwrap().split('.').try_fold(record, |value, name| value.get(name))
}

/// A value in the place of its variable. Strings are not escaped, in quotes or not; objects are JSON,
/// which loses its quotes in quotes.
fn rendered(value: Option<&Value>, in_quotes: bool, absent: &str) -> String {
    match value {
        None if in_quotes => String::new(),
        None => absent.to_owned(),
        Some(Value::String(text)) if in_quotes => text.clone(),
        Some(Value::String(text)) => format!("\"{text}\""),
        Some(value) if in_quotes => value.to_string().replace('"', ""),
        Some(value) => value.to_string(),
    }
}

/// Whether an event pattern matches: every field of it must, and of the alternatives of a field one.
fn matches(pattern: &Value, event: Option<&Value>) -> bool {
    match pattern {
        Value::Object(fields) => {
            fields.iter().all(|(name, pattern)| matches(pattern, event.and_then(|event| event.get(name))))
        }
        Value::Array(alternatives) => alternatives.iter().any(|one| matches_leaf(one, event)),
        _ => panic!("a pattern's value is a list: {pattern}"),
    }
}

fn matches_leaf(pattern: &Value, event: Option<&Value>) -> bool {
    let Some(operators) = pattern.as_object() else { return event == Some(pattern) };
    let (operator, operand) = operators.iter().next().unwrap();
    let (text, operand) = (event.and_then(Value::as_str), operand.as_str().unwrap());
    match operator.as_str() {
        "prefix" => text.is_some_and(|text| text.starts_with(operand)),
        "suffix" => text.is_some_and(|text| text.ends_with(operand)),
        _ => panic!("Pipes may not know the operator {operator}"),
    }
}

/// A record of the table's stream, with the view `NEW_IMAGE`.
fn record(kind: &str, item: &Value) -> Value {
    let mut change = json!({
        "ApproximateCreationDateTime": 1_795_255_200,
        "Keys": {"pk": item["pk"], "sk": item["sk"]},
        "SequenceNumber": "4421584500000000017450439091",
        "SizeBytes": 26,
        "StreamViewType": "NEW_IMAGE",
    });
    if kind != "REMOVE" {
        change["NewImage"] = item.clone();
    }
    json!({
        "eventID": "c4ca4238a0b923820dcc509a6f75849b",
        "eventName": kind,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-central-1",
        "dynamodb": change,
        "eventSourceARN": "arn:aws:dynamodb:eu-central-1:111122223333:table/tokens/stream/2026-11-21T10:00:00.000",
    })
}

fn is_of_an_org_log(item: &Value) -> bool {
    let pk = text(&item["pk"], "S").split('#').collect::<Vec<_>>();
    matches!(pk.as_slice(), ["ORG", id, "AUDIT"] if OrgId::parse(id).is_some())
}

/// The items of the tokens table that every version has written.
fn fixtures() -> Vec<Value> {
    let paths = fs::read_dir(file("tests/fixtures")).unwrap().map(|entry| entry.unwrap().path());
    let items = paths.flat_map(|path| {
        let fixture: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        fixture["items"][TABLE].as_array().unwrap().clone()
    });
    let items: Vec<Value> = items.collect();
    assert!(items.len() > 200, "{}", items.len());
    items
}

/// A service with entries in the logs of two organizations, of an address and of the deployment, among
/// them one with every field and one whose texts are hostile; and the first organization's reader.
async fn service_with_entries() -> (Service, Org, String) {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice-laptop").await;
    service.revoke(&org, &owner, &token).await;
    let (other, other_owner) = service.org_with_owner().await;
    service.issue(&other, &other_owner, "alice-laptop").await;
    service.email_token("alice@example.com").await;
    service.store.set_registration(Some(&"example.com".parse().unwrap()), &operator()).await.unwrap();
    let target = Subject::new("organization", &org.id);
    let entry = |text: &str| Entry {
        source_ip: Some(IpAddr::from([203, 0, 113, 7])),
        detail: Some(text.to_owned()),
        workload: Some(text.to_owned()),
        count: Some(3),
        ..Entry::done(&service.clock, &operator(), "bot.exchange", target.clone()).unwrap()
    };
    for text in ["plain", HOSTILE, "\"", "\\", ""] {
        service.store.record_refusal(&org.id, &entry(text)).await.unwrap();
    }
    (service, org, owner.credential)
}

/// The value in a field that an entry may lack, as `docs/EVENTS.md` tells consumers to read it.
fn optional(field: &Value) -> Value {
    let values = field.as_array().unwrap();
    assert!(values.len() <= 1, "{field}");
    match values.first().and_then(Value::as_object).and_then(|value| value.iter().next()) {
        Some((kind, value)) if kind == "S" => value.clone(),
        Some((kind, value)) if kind == "N" => serde_json::from_str(value.as_str().unwrap()).unwrap(),
        _ => Value::Null,
    }
}

/// The entry that an event tells of, as the audit log shows it.
fn entry_of(event: &Value) -> Value {
    let mut entry = event.as_object().unwrap().clone();
    for name in ["version", "stack", "log"] {
        entry.remove(name).unwrap();
    }
    for name in ["source_ip", "detail", "workload", "count"] {
        let value = optional(&entry[name]);
        entry.insert(name.to_owned(), value);
    }
    without_nulls(&Value::Object(entry))
}

fn without_nulls(object: &Value) -> Value {
    let fields = object.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[tokio::test]
async fn only_new_entries_of_organizations_pass_the_filter() {
    let pipe = Pipe::of_the_template();
    let (service, _, _) = service_with_entries().await;
    let mut items = fixtures();
    items.extend(service.table.raw_items(TABLE));
    let (entries, others): (Vec<Value>, Vec<Value>) = items.into_iter().partition(is_of_an_org_log);
    assert!(entries.len() > 50 && others.len() > 100, "{} and {}", entries.len(), others.len());
    for log in ["EMAIL#", "DEPLOYMENT#"] {
        let pk = |item: &Value| text(&item["pk"], "S").to_owned();
        assert!(others.iter().map(pk).any(|pk| pk.starts_with(log) && pk.ends_with("#AUDIT")), "no entry of {log}");
    }
    for entry in entries {
        assert!(pipe.passes(&record("INSERT", &entry)), "{entry}");
        for kind in ["MODIFY", "REMOVE"] {
            assert!(!pipe.passes(&record(kind, &entry)), "{kind} {entry}");
        }
    }
    for item in others {
        for kind in ["INSERT", "MODIFY", "REMOVE"] {
            assert!(!pipe.passes(&record(kind, &item)), "{kind} {item}");
        }
    }
}

#[tokio::test]
async fn event_says_what_the_audit_log_shows_and_nothing_else() {
    let pipe = Pipe::of_the_template();
    let (service, org, reader) = service_with_entries().await;
    let log = service.audit_log(&org, &reader, "?limit=100").await;
    let mut shown: Vec<Value> = log["entries"].as_array().unwrap().iter().map(without_nulls).collect();
    shown.reverse();
    let mut items = service.table.raw_items(TABLE);
    items.retain(|item| text(&item["pk"], "S") == format!("ORG#{}#AUDIT", org.id));
    items.sort_by_key(|item| item["sk"].to_string());
    for absent in ABSENT {
        let events = items.iter().map(|item| pipe.event(&record("INSERT", item), absent));
        let events: Vec<Value> = events.collect();
        assert_eq!(events.iter().map(entry_of).collect::<Vec<_>>(), shown, "absent: {absent:?}");
        for event in events {
            assert_eq!(event["log"], format!("ORG#{}#AUDIT", org.id));
            assert_eq!((&event["version"], &event["stack"]), (&json!(1), &json!("guard-tokens")));
        }
    }
    assert!(shown.iter().any(|entry| entry["detail"] == HOSTILE && entry["workload"] == HOSTILE));
}

#[tokio::test]
async fn events_of_all_stored_entries_are_complete() {
    let pipe = Pipe::of_the_template();
    let (service, _, _) = service_with_entries().await;
    let items = fixtures().into_iter().chain(service.table.raw_items(TABLE)).filter(is_of_an_org_log);
    let [in_quotes, others] = pipe.paths();
    for item in items {
        let record = record("INSERT", &item);
        // Strings are not escaped, so what stands in quotes must not need it.
        for path in &in_quotes {
            let value = at(&record, path).and_then(Value::as_str).unwrap_or_else(|| panic!("no {path}: {item}"));
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.:=+/#".contains(c);
            assert!(!value.is_empty() && value.chars().all(is_plain), "{path}: {value}");
        }
        // Each attribute is in the event or left out on purpose.
        for name in item.as_object().unwrap().keys() {
            let of_image = format!("$.dynamodb.NewImage.{name}");
            let of_keys = format!("$.dynamodb.Keys.{name}.");
            let is_its = |path: &&str| {
                path.strip_prefix(&of_image).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    || path.starts_with(&of_keys)
            };
            let is_sent = in_quotes.iter().chain(&others).any(is_its);
            assert_ne!(is_sent, LEFT_OUT.contains(&name.as_str()), "{name}");
        }
        for absent in ABSENT {
            pipe.event(&record, absent);
        }
    }
}

#[tokio::test]
async fn documented_event_is_that_of_the_stored_entry() {
    let document = fs::read_to_string(file("docs/EVENTS.md")).unwrap();
    let example = document.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    let target = &resources()["AuditEventsPipe"]["Properties"]["TargetParameters"];
    let target = &target["EventBridgeEventBusParameters"];
    assert_eq!((&example["source"], &example["detail-type"]), (&target["Source"], &target["DetailType"]));

    let service = Service::start_with_manual_clock().await;
    service.table.skip_final_check(); // no organization has this entry
    let org = OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
    let entry = Entry {
        id: AuditId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WD").unwrap(),
        at: Moment::parse("2026-11-21T10:00:00Z").unwrap(),
        actor: Subject::new("bot", "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
        action: "org_user_token.issue".to_owned(),
        target: Subject::new("org_user_token", "01KAJ8M4R2X7Z9V5T3Q1N6P8WE"),
        detail: None,
        workload: Some("repo:acme/widgets:ref:refs/heads/main".to_owned()),
        count: None,
        outcome: Outcome::Done.into(),
        source_ip: Some(IpAddr::from([203, 0, 113, 7])),
        request_id: "JKJaXmPLvHcESHA=".to_owned(),
    };
    service.store.record_refusal(&org, &entry).await.unwrap();
    let items = service.table.raw_items(TABLE);
    let [item] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(Pipe::of_the_template().event(&record("INSERT", item), ""), example["detail"]);
}

#[test]
fn no_event_holds_a_mail_address() {
    let pipe = Pipe::of_the_template();
    for item in fixtures().iter().filter(|item| is_of_an_org_log(item)) {
        let event = pipe.event(&record("INSERT", item), "").to_string();
        assert!(!event.contains('@'), "{event}");
    }
}

/// What the pipe's role may do.
#[test]
fn pipe_may_read_the_stream_send_to_one_bus_and_fill_its_queue() {
    let resources = resources();
    let role = &resources["AuditEventsRole"]["Properties"];
    let statements: Vec<Value> = role["Policies"].as_array().unwrap().iter().flat_map(statements).collect();
    let bus = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/default";
    let stream: Vec<String> = ["DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"]
        .iter()
        .map(|action| format!("dynamodb:{action}"))
        .collect();
    assert_eq!(
        statements,
        [
            json!({"Effect": "Allow", "Action": stream, "Resource": "TokensTable.StreamArn"}),
            json!({"Effect": "Allow", "Action": "events:PutEvents", "Resource": bus}),
            json!({"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "AuditEventsDeadLetters.Arn"}),
        ]
    );
    assert_eq!(role.get("ManagedPolicyArns"), None);
    let pipe = &resources["AuditEventsPipe"]["Properties"];
    assert_eq!((&pipe["Target"], &pipe["Source"]), (&json!(bus), &json!("TokensTable.StreamArn")));
    // Nothing of an entry in the pipe's log.
    assert_eq!(pipe["LogConfiguration"].get("IncludeExecutionData"), None);
    let named: Map<String, Value> = resources.as_object().unwrap().clone();
    for (name, resource) in named.iter().filter(|(name, _)| name.starts_with("AuditEvents")) {
        assert_eq!(resource["Condition"], "SendsAuditEvents", "{name}");
    }
}

fn statements(policy: &Value) -> Vec<Value> {
    policy["PolicyDocument"]["Statement"].as_array().unwrap().clone()
}
