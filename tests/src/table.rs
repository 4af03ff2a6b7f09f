//! Direct access to the tables, bypassing the code under test, to compare what the service returns
//! with what it stored.

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

/// The tokens table of every test service.
pub const TABLE: &str = "tokens";

/// The installation log's table of every test service.
pub const INSTALLATIONS: &str = "installations";

/// The emulator requires a signature but does not verify it.
const SIGNATURE: &str =
    "AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";

/// Reads the tables of one service.
#[derive(Clone)]
pub struct Table {
    endpoint: String,
    database: Database,
    http: reqwest::Client,
    exceptions: Arc<Mutex<Exceptions>>,
}

/// What the final check must ignore because a test created it by hand.
#[derive(Default)]
struct Exceptions {
    /// IDs of tokens without audit entries.
    copied: BTreeSet<String>,
    /// Whether the final check is skipped.
    unchecked: bool,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Table {
    /// Reads the tables of this DynamoDB.
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

    /// Every item in DynamoDB's JSON. Only tests scan a table; the service has no permission to.
    pub fn raw_items(&self, table: &str) -> Vec<Value> {
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

    /// Stores an item in DynamoDB's JSON as it is.
    pub async fn put(&self, table: &str, item: &Value) {
        self.ask("PutItem", &json!({"TableName": table, "Item": item})).await;
    }

    /// Deletes an item of the tokens table, by the text of its key.
    pub async fn delete(&self, pk: &str, sk: &str) {
        let key = json!({"pk": {"S": pk}, "sk": {"S": sk}});
        self.ask("DeleteItem", &json!({"TableName": TABLE, "Key": key})).await;
    }

    fn plain_items(&self, table: &str) -> Vec<Value> {
        self.raw_items(table).iter().map(plain_item).collect()
    }

    /// Every item as plain JSON, ordered by key.
    pub async fn items(&self) -> Vec<Value> {
        let mut items: Vec<Value> = self.plain_items(TABLE);
        items.sort_by_key(|item| (text(item, "pk").to_owned(), text(item, "sk").to_owned()));
        items
    }

    /// DynamoDB's description of a table.
    pub async fn describe(&self, table: &str) -> Value {
        self.ask("DescribeTable", &json!({ "TableName": table })).await["Table"].take()
    }

    /// Every entry of the installation log, as plain JSON.
    pub async fn installations(&self) -> Vec<Value> {
        let mut entries = self.plain_items(INSTALLATIONS);
        entries.retain(|item| !is_counter(item));
        entries
    }

    /// Every counter of installations, as plain JSON.
    pub async fn installation_counters(&self) -> Vec<Value> {
        let mut counters = self.plain_items(INSTALLATIONS);
        counters.retain(is_counter);
        counters
    }

    /// Every item except audit entries and the counters of refusals: what a refused call must leave
    /// unchanged.
    pub async fn items_without_audit(&self) -> Vec<Value> {
        let mut items = self.items().await;
        items.retain(|item| !text(item, "pk").ends_with("#AUDIT") && !text(item, "pk").starts_with("REFUSED#"));
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
        assert!(answer.get("LastEvaluatedKey").is_none(), "the log exceeds one query page");
        answer["Items"].as_array().unwrap().iter().map(plain_item).collect()
    }

    /// An organization's audit entries about org user tokens, oldest first.
    pub async fn audited_tokens(&self, org: &OrgId) -> Vec<Value> {
        let mut entries = self.audit_entries(org).await;
        entries.retain(|entry| text(entry, "action").starts_with("org_user_token."));
        entries
    }

    /// Copies a token in its current state, once per identifier, which is far faster than issuing.
    /// Copies have new IDs and no audit entries.
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
                // Both as a whole value and as the prefix of a sort key.
                let copy = ["\"", "#"].iter().fold(copy, |copy, end| {
                    copy.replace(&format!("\"{}{end}", original.user_identifier), &format!("\"{user_identifier}{end}"))
                });
                let copy = copy.replace(&original_token.shown_prefix(), &token.shown_prefix());
                writes.push(serde_json::from_str(&copy).unwrap());
            }
            self.exceptions().copied.insert(id.clone());
            copies.push(Issued { id, token: token.expose().to_owned(), user_identifier });
        }
        // Bypasses HTTP, which would dominate the time for tens of thousands of items.
        let imported = self.database.import_items(TABLE, writes, ImportOptions::default()).unwrap();
        assert_eq!(imported.items_imported, copies.len() * items.len());
        copies
    }

    /// Violated invariants of the tables; see [`invariants`].
    pub fn findings(&self) -> Vec<String> {
        let mut installations = self.plain_items(INSTALLATIONS);
        installations.retain(|item| !is_counter(item));
        invariants::findings(&self.plain_items(TABLE), &installations, &self.exceptions().copied)
    }

    /// Asserts that there are no [`Table::findings`].
    #[track_caller]
    pub fn assert_sound(&self) {
        assert_eq!(self.findings(), Vec::<String>::new());
    }

    /// Skips the check at the end, for tables that are too large.
    pub fn skip_final_check(&self) {
        self.exceptions().unchecked = true;
    }

    /// Checks the tables at the end of a test, unless skipped.
    pub(crate) fn final_check(&self) {
        if !self.exceptions().unchecked {
            self.assert_sound();
        }
    }

    fn exceptions(&self) -> MutexGuard<'_, Exceptions> {
        self.exceptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text attribute, or an empty string.
pub fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item[name].as_str().unwrap_or_default()
}

fn plain_item(item: &Value) -> Value {
    Value::Object(item.as_object().unwrap().iter().map(|(name, value)| (name.clone(), plain(value))).collect())
}

/// Turns DynamoDB's `{"S": "x"}` into `"x"`, and so on.
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

/// Whether an item of the installation log's table counts entries.
fn is_counter(item: &Value) -> bool {
    text(item, "pk").starts_with("ORG#")
}
