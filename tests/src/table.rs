//! The table from outside: read over DynamoDB's wire format, past the code under test, so that what the service says
//! of its table can be compared with what lies in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dynoxide::types::Item;
use dynoxide::{Database, ImportOptions};
use local::dynamodb::DynamoDb;
use serde_json::{Map, Value, json};
use shared::Clock;
use shared::ids::{OrgId, TokenId};
use shared::secret::{Token, TokenKind};

use crate::Issued;

/// The name of the table of every test service.
pub const TABLE: &str = "tokens";

/// The name of the table of every test service's installation log.
pub const INSTALLATIONS: &str = "installations";

/// The emulator wants a signature and verifies none.
const SIGNATURE: &str =
    "AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";

/// A reader of one table.
#[derive(Clone)]
pub struct Table {
    endpoint: String,
    database: Database,
    http: reqwest::Client,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Table {
    /// A reader of the table at this DynamoDB.
    pub fn new(dynamodb: &DynamoDb) -> Self {
        let (endpoint, database) = (dynamodb.endpoint.clone(), dynamodb.database.clone());
        Self { endpoint, database, http: reqwest::Client::new() }
    }

    async fn ask(&self, operation: &str, body: &Value) -> Value {
        let request = self.http.post(&self.endpoint).header("content-type", "application/x-amz-json-1.0");
        let request = request.header("x-amz-target", format!("DynamoDB_20120810.{operation}"));
        let request = request.header("authorization", SIGNATURE).header("x-amz-date", "20261121T100000Z");
        let response = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{operation}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Every item as DynamoDB writes it. Only tests read a whole table; the service has no permission to.
    async fn raw_items(&self, table: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut request = json!({"TableName": table, "ConsistentRead": true});
        loop {
            let answer = self.ask("Scan", &request).await;
            items.extend(answer["Items"].as_array().unwrap().iter().cloned());
            match answer.get("LastEvaluatedKey") {
                Some(key) => request["ExclusiveStartKey"] = key.clone(),
                None => return items,
            }
        }
    }

    /// Every item, as plain JSON, in the order of their keys.
    pub async fn items(&self) -> Vec<Value> {
        let mut items: Vec<Value> = self.raw_items(TABLE).await.iter().map(plain_item).collect();
        items.sort_by_key(|item| (text(item, "pk").to_owned(), text(item, "sk").to_owned()));
        items
    }

    /// What DynamoDB says of a table.
    pub async fn describe(&self, table: &str) -> Value {
        self.ask("DescribeTable", &json!({ "TableName": table })).await["Table"].take()
    }

    /// Every item of the installation log, as plain JSON.
    pub async fn installations(&self) -> Vec<Value> {
        self.raw_items(INSTALLATIONS).await.iter().map(plain_item).collect()
    }

    /// Every item but those of audit logs: what a refused call must leave as it was.
    pub async fn items_without_audit(&self) -> Vec<Value> {
        let mut items = self.items().await;
        items.retain(|item| !text(item, "pk").ends_with("#AUDIT"));
        items
    }

    /// An organization's audit log, oldest first.
    pub async fn audit_entries(&self, org: &OrgId) -> Vec<Value> {
        let request = json!({
            "TableName": TABLE,
            "ConsistentRead": true,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": {"S": format!("ORG#{org}#AUDIT")}},
        });
        let answer = self.ask("Query", &request).await;
        assert!(answer.get("LastEvaluatedKey").is_none(), "a log of more than a megabyte: read it in pages");
        answer["Items"].as_array().unwrap().iter().map(plain_item).collect()
    }

    /// The entries of an organization's audit log that are about org user tokens, oldest first.
    pub async fn audited_tokens(&self, org: &OrgId) -> Vec<Value> {
        let mut entries = self.audit_entries(org).await;
        entries.retain(|entry| text(entry, "action").starts_with("org_user_token."));
        entries
    }

    /// Makes copies of a token, in the state it is in, one for each identifier: thousands in the time in which the
    /// service issues dozens. The items are those that the service wrote, with other ids; audit entries have no copies.
    pub async fn copies(&self, original: &Issued, identifiers: Vec<String>) -> Vec<Issued> {
        let original_token = Token::parse(&original.token).unwrap();
        let original_hash = original_token.hash().to_hex();
        let items: Vec<String> = self.raw_items(TABLE).await.iter().map(Value::to_string).collect();
        let is_its = |item: &&String| item.contains(&original_hash) && !item.contains("#AUDIT");
        let items: Vec<&String> = items.iter().filter(is_its).collect();
        let mut copies = Vec::with_capacity(identifiers.len());
        let mut writes: Vec<Item> = Vec::new();
        for user_identifier in identifiers {
            let token = Token::generate(TokenKind::OrgUser).unwrap();
            let id = TokenId::new(&Clock::System).unwrap().to_string();
            for item in &items {
                let copy = item.replace(&original_hash, &token.hash().to_hex()).replace(&original.id, &id);
                // As a whole value, and as the beginning of a place.
                let copy = ["\"", "#"].iter().fold(copy, |copy, end| {
                    copy.replace(&format!("\"{}{end}", original.user_identifier), &format!("\"{user_identifier}{end}"))
                });
                let copy = copy.replace(&original_token.shown_prefix(), &token.shown_prefix());
                writes.push(serde_json::from_str(&copy).unwrap());
            }
            copies.push(Issued { id, token: token.expose().to_owned(), user_identifier });
        }
        // Not over HTTP: of tens of thousands of items most of the time would be spent on the way.
        let imported = self.database.import_items(TABLE, writes, ImportOptions::default()).unwrap();
        assert_eq!(imported.items_imported, copies.len() * items.len());
        copies
    }

    /// What is not as it must be among the org user tokens: the truth about each, its pointers and its audit entries
    /// must tell the same story. Each finding begins with the organization.
    pub async fn findings(&self) -> Vec<String> {
        let items = self.items().await;
        let by_key: BTreeMap<(&str, &str), &Value> =
            items.iter().map(|item| ((text(item, "pk"), text(item, "sk")), item)).collect();
        let mut told: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for entry in items.iter().filter(|item| item["outcome"] == "done") {
            let id = text(&entry["target"], "id");
            told.entry((text(entry, "pk"), id)).or_default().push(text(entry, "action"));
        }
        let mut findings = Vec::new();
        let mut explained: BTreeSet<(String, String)> = BTreeSet::new();
        for token in items.iter().filter(|item| text(item, "kind") == "org_user") {
            let (org, id, hash) =
                (text(token, "org_id"), text(token, "id"), text(token, "pk").trim_start_matches("TOKEN#"));
            let mut finding = |what: &str| findings.push(format!("{org}: token {id}: {what}"));
            let mut look = |pk: String, sk: String| {
                let found = by_key.get(&(pk.as_str(), sk.as_str())).copied();
                explained.insert((pk, sk));
                if found.is_some_and(|pointer| text(pointer, "hash") != hash) {
                    finding("a pointer leads elsewhere");
                }
                found.is_some()
            };
            let place = format!("{}#{id}", text(token, "user_identifier"));
            let is_named = look(format!("ORG#{org}#USER_TOKEN"), id.to_owned());
            let mut listed_in = |state: &str| look(format!("ORG#{org}#USER_TOKENS#{state}"), place.clone());
            let listed = [listed_in("ACTIVE"), listed_in("EXPIRED"), listed_in("REVOKED")];
            let expires_at = token["expires_at"].as_str().map(|at| shared::Moment::parse(at).unwrap().epoch_seconds());
            let is_due =
                expires_at.is_some_and(|at| look(format!("ORG#{org}#USER_TOKENS#EXPIRY"), format!("{at:012}#{id}")));
            let is_revoked = token.get("revoked_at").is_some();
            if !is_named {
                finding("it cannot be found by its id");
            }
            if listed.iter().filter(|listed| **listed).count() != 1 {
                finding(&format!("it is not in exactly one listing: {listed:?}"));
            }
            if listed[2] != is_revoked {
                finding("its listing says otherwise about its revocation");
            }
            if is_due != (listed[0] && expires_at.is_some()) {
                finding("the order of expiries has it while it is not active, or has it not while it is");
            }
            let actions = told.get(&(format!("ORG#{org}#AUDIT").as_str(), id)).cloned().unwrap_or_default();
            let (issues, others): (Vec<&str>, Vec<&str>) =
                actions.into_iter().partition(|action| *action == "org_user_token.issue");
            if issues.len() != 1 || others.len() != usize::from(is_revoked) {
                finding(&format!("{} entries tell of its issue, {} of its revocation", issues.len(), others.len()));
            }
        }
        for ((pk, sk), item) in by_key {
            if pk.contains("#USER_TOKEN")
                && !pk.ends_with("#AUDIT")
                && !explained.contains(&(pk.to_owned(), sk.to_owned()))
            {
                let org = pk.split('#').nth(1).unwrap_or_default();
                findings.push(format!("{org}: {pk} {sk} leads to no token: {item}"));
            }
        }
        findings
    }

    /// Checks that there are no [`Table::findings`].
    pub async fn assert_sound(&self) {
        assert_eq!(self.findings().await, Vec::<String>::new());
    }
}

/// A text attribute, or nothing.
pub fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item[name].as_str().unwrap_or_default()
}

fn plain_item(item: &Value) -> Value {
    Value::Object(item.as_object().unwrap().iter().map(|(name, value)| (name.clone(), plain(value))).collect())
}

/// `{"S": "x"}` is `"x"`, and so on.
fn plain(value: &Value) -> Value {
    let (kind, value) = value.as_object().and_then(|value| value.iter().next()).unwrap();
    match kind.as_str() {
        "N" => serde_json::from_str(value.as_str().unwrap()).unwrap(),
        "NULL" => Value::Null,
        "L" => value.as_array().unwrap().iter().map(plain).collect(),
        "M" => {
            Value::Object(value.as_object().unwrap().iter().map(|(n, v)| (n.clone(), plain(v))).collect::<Map<_, _>>())
        }
        _ => value.clone(),
    }
}
