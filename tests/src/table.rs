//! The table from outside: read past the code under test, so that what the service says
//! of its table can be compared with what lies in it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dynoxide::types::Item;
use dynoxide::{Database, ImportOptions};
use local::dynamodb::DynamoDb;
use serde_json::{Map, Value, json};
use shared::Clock;
use shared::ids::{OrgId, TokenId};
use shared::secret::{Token, TokenKind};

use crate::{Issued, invariants};

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
    exceptions: Arc<Mutex<Exceptions>>,
}

/// What of the tables a test has made by hand, so that it is not measured by what the service makes.
#[derive(Default)]
struct Exceptions {
    /// The ids of tokens that have no history.
    copied: BTreeSet<String>,
    /// Whether nothing is checked at all.
    unchecked: bool,
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
        Self { endpoint, database, http: reqwest::Client::new(), exceptions: Arc::default() }
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
    fn raw_items(&self, table: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut request = json!({"TableName": table, "ConsistentRead": true});
        loop {
            let answer = self.database.scan(serde_json::from_value(request.clone()).unwrap()).unwrap();
            items.extend(answer.items.unwrap_or_default().iter().map(|item| serde_json::to_value(item).unwrap()));
            match answer.last_evaluated_key {
                Some(key) => request["ExclusiveStartKey"] = serde_json::to_value(key).unwrap(),
                None => return items,
            }
        }
    }

    fn plain_items(&self, table: &str) -> Vec<Value> {
        self.raw_items(table).iter().map(plain_item).collect()
    }

    /// Every item, as plain JSON, in the order of their keys.
    pub async fn items(&self) -> Vec<Value> {
        let mut items: Vec<Value> = self.plain_items(TABLE);
        items.sort_by_key(|item| (text(item, "pk").to_owned(), text(item, "sk").to_owned()));
        items
    }

    /// What DynamoDB says of a table.
    pub async fn describe(&self, table: &str) -> Value {
        self.ask("DescribeTable", &json!({ "TableName": table })).await["Table"].take()
    }

    /// Every item of the installation log, as plain JSON.
    pub async fn installations(&self) -> Vec<Value> {
        self.plain_items(INSTALLATIONS)
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
        let items: Vec<String> = self.raw_items(TABLE).iter().map(Value::to_string).collect();
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
            self.exceptions().copied.insert(id.clone());
            copies.push(Issued { id, token: token.expose().to_owned(), user_identifier });
        }
        // Not over HTTP: of tens of thousands of items most of the time would be spent on the way.
        let imported = self.database.import_items(TABLE, writes, ImportOptions::default()).unwrap();
        assert_eq!(imported.items_imported, copies.len() * items.len());
        copies
    }

    /// What does not hold of the tables: see [`invariants`].
    pub fn findings(&self) -> Vec<String> {
        let installations = self.plain_items(INSTALLATIONS);
        invariants::findings(&self.plain_items(TABLE), &installations, &self.exceptions().copied)
    }

    /// Checks that there are no [`Table::findings`].
    #[track_caller]
    pub fn assert_sound(&self) {
        assert_eq!(self.findings(), Vec::<String>::new());
    }

    /// Leaves the tables unchecked at the end: they take too long to go through.
    pub fn leave_unchecked(&self) {
        self.exceptions().unchecked = true;
    }

    /// Checks the tables when a test ends, unless it said not to.
    pub(crate) fn check_at_the_end(&self) {
        if !self.exceptions().unchecked {
            self.assert_sound();
        }
    }

    fn exceptions(&self) -> MutexGuard<'_, Exceptions> {
        self.exceptions.lock().unwrap_or_else(PoisonError::into_inner)
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
