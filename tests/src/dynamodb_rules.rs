//! The limits and rules that AWS documents for DynamoDB requests, checked on every request that goes
//! through the proxy of [`crate::faults`].
//!
//! Emulators accept more than DynamoDB does. A request that an emulator accepts and DynamoDB refuses
//! would fail only after a deployment.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use shared::store::keys::{AUDIT_BY_ACTION, AUDIT_BY_ACTOR, AUDIT_BY_ACTOR_AND_ACTION, AUDIT_BY_TARGET, PK, SK};

use crate::table::{INSTALLATIONS, TABLE};

const MAX_ACTIONS: usize = 100;
const MAX_TRANSACTION_BYTES: usize = 4 * 1024 * 1024;
const MAX_ITEM_BYTES: usize = 400 * 1024;
const MAX_PARTITION_KEY_BYTES: usize = 2048;
const MAX_SORT_KEY_BYTES: usize = 1024;
const MAX_BATCH_READS: usize = 100;
const MAX_BATCH_WRITES: usize = 25;
const MAX_EXPRESSION_BYTES: usize = 4096;
const MAX_OPERATORS: usize = 300;
const MAX_VALUES_BYTES: usize = 2 * 1024 * 1024;
const MAX_PLACEHOLDER_BYTES: usize = 255;
const MAX_REQUEST_TOKEN: usize = 36;
const MAX_DEPTH: usize = 32;
const MAX_DIGITS: usize = 38;

/// The parameters that contain an expression.
const EXPRESSIONS: [&str; 5] =
    ["ConditionExpression", "UpdateExpression", "KeyConditionExpression", "FilterExpression", "ProjectionExpression"];

/// Words with a meaning in expressions, which attributes cannot have as bare names.
const KEYWORDS: [&str; 9] = ["set", "remove", "add", "delete", "and", "or", "not", "between", "in"];

/// The clauses of an update expression.
const CLAUSES: [&str; 4] = ["set", "remove", "add", "delete"];

/// The keys of a table and of its indexes.
struct Schema {
    key: &'static [&'static str],
    /// Name, partition key and sort key.
    indexes: &'static [(&'static str, &'static str, &'static str)],
}

fn schema(table: &str) -> Option<Schema> {
    const AUDIT: [(&str, &str, &str); 4] = [
        (AUDIT_BY_ACTOR.0, AUDIT_BY_ACTOR.1, SK),
        (AUDIT_BY_ACTION.0, AUDIT_BY_ACTION.1, SK),
        (AUDIT_BY_TARGET.0, AUDIT_BY_TARGET.1, SK),
        (AUDIT_BY_ACTOR_AND_ACTION.0, AUDIT_BY_ACTOR_AND_ACTION.1, SK),
    ];
    const DOWNLOADS: [(&str, &str, &str); 3] =
        [("by_org", "org_pk", "id"), ("by_user", "user_pk", "id"), ("by_package", "package_pk", "id")];
    match table {
        TABLE => Some(Schema { key: &[PK, SK], indexes: &AUDIT }),
        INSTALLATIONS => Some(Schema { key: &[PK], indexes: &DOWNLOADS }),
        _ => None,
    }
}

/// The rules that a request breaks. Values are not repeated, since they may be secret.
pub fn violations(operation: &str, request: &Value) -> Vec<String> {
    let mut check = Check::default();
    match operation {
        "GetItem" => check.one(request, "Key", &[]),
        "PutItem" => check.one(request, "Item", &["NONE", "ALL_OLD"]),
        "DeleteItem" => check.one(request, "Key", &["NONE", "ALL_OLD"]),
        "UpdateItem" => {
            check.one(request, "Key", &["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"]);
        }
        "Query" => check.query(request),
        "BatchGetItem" => check.batch(request, MAX_BATCH_READS, |of_table| list(&of_table["Keys"]).to_vec()),
        "BatchWriteItem" => check.batch(request, MAX_BATCH_WRITES, |writes| list(writes).to_vec()),
        "TransactWriteItems" => check.transaction(request),
        _ => check.broken("the rules of this operation are not known"),
    }
    check.found.into_iter().map(|found| format!("{operation}: {found}")).collect()
}

#[derive(Default)]
struct Check {
    found: Vec<String>,
}

impl Check {
    fn broken(&mut self, rule: impl Into<String>) {
        self.found.push(rule.into());
    }

    fn require(&mut self, holds: bool, rule: impl Into<String>) {
        if !holds {
            self.broken(rule);
        }
    }

    /// A request for one item.
    fn one(&mut self, request: &Value, named_by: &str, return_values: &[&str]) {
        let returned = request["ReturnValues"].as_str();
        self.require(returned.is_none_or(|it| return_values.contains(&it)), "ReturnValues does not exist here");
        self.action(request, named_by);
    }

    /// Checks an action on one item. Returns the bytes that it writes.
    fn action(&mut self, action: &Value, named_by: &str) -> usize {
        let Some(schema) = self.table(action) else { return 0 };
        let Some(item) = action[named_by].as_object() else {
            self.broken(format!("{named_by} is missing"));
            return 0;
        };
        if named_by == "Item" {
            self.item(item, &schema);
        } else {
            self.key(item, schema.key);
        }
        self.expressions(action, &schema, schema.key);
        let values = action["ExpressionAttributeValues"].as_object();
        size_of_item(item) + values.map_or(0, size_of_item)
    }

    fn table(&mut self, request: &Value) -> Option<Schema> {
        let schema = request["TableName"].as_str().and_then(schema);
        self.require(schema.is_some(), "there is no such table");
        schema
    }

    /// A key names all key attributes and no others.
    fn key(&mut self, key: &Map<String, Value>, names: &[&str]) {
        let named: BTreeSet<&str> = key.keys().map(String::as_str).collect();
        self.require(named == names.iter().copied().collect(), format!("a key has the attributes {named:?}"));
        for (name, longest) in names.iter().zip([MAX_PARTITION_KEY_BYTES, MAX_SORT_KEY_BYTES]) {
            self.key_attribute(key.get(*name), name, longest);
        }
    }

    fn key_attribute(&mut self, value: Option<&Value>, name: &str, longest: usize) {
        let bytes = value.and_then(|value| value["S"].as_str()).map(str::len);
        match bytes {
            None => self.broken(format!("the key attribute {name} is not a string")),
            Some(0) => self.broken(format!("the key attribute {name} is empty")),
            Some(bytes) if bytes > longest => {
                self.broken(format!("the key attribute {name} has {bytes} bytes, more than {longest}"));
            }
            Some(_) => {}
        }
    }

    fn item(&mut self, item: &Map<String, Value>, schema: &Schema) {
        for (name, longest) in schema.key.iter().zip([MAX_PARTITION_KEY_BYTES, MAX_SORT_KEY_BYTES]) {
            self.key_attribute(item.get(*name), name, longest);
        }
        // An item without an index's keys is not in the index.
        for (_, pk, sk) in schema.indexes {
            for (name, longest) in [(pk, MAX_PARTITION_KEY_BYTES), (sk, MAX_SORT_KEY_BYTES)] {
                if item.contains_key(*name) && !schema.key.contains(name) {
                    self.key_attribute(item.get(*name), name, longest);
                }
            }
        }
        for (name, value) in item {
            self.value(name, value, 0);
        }
        let bytes = size_of_item(item);
        self.require(bytes <= MAX_ITEM_BYTES, format!("an item has {bytes} bytes, more than {MAX_ITEM_BYTES}"));
    }

    fn value(&mut self, name: &str, value: &Value, depth: usize) {
        self.require(depth <= MAX_DEPTH, format!("{name} is nested more than {MAX_DEPTH} levels deep"));
        let Some((kind, value)) = value.as_object().filter(|it| it.len() == 1).and_then(|it| it.iter().next()) else {
            return self.broken(format!("{name} does not have exactly one type"));
        };
        match (kind.as_str(), value) {
            ("S" | "B", Value::String(_)) | ("BOOL", Value::Bool(_)) | ("NULL", Value::Bool(true)) => {}
            ("N", Value::String(number)) => self.number(name, number),
            ("M", Value::Object(map)) => map.iter().for_each(|(name, value)| self.value(name, value, depth + 1)),
            ("L", Value::Array(list)) => list.iter().for_each(|value| self.value(name, value, depth + 1)),
            ("SS" | "NS" | "BS", Value::Array(set)) => {
                let distinct: BTreeSet<String> = set.iter().map(Value::to_string).collect();
                self.require(!set.is_empty(), format!("{name} is an empty set"));
                self.require(distinct.len() == set.len(), format!("{name} is a set with duplicates"));
            }
            _ => self.broken(format!("{name} is not a valid {kind}")),
        }
    }

    fn number(&mut self, name: &str, number: &str) {
        self.require(number.parse::<f64>().is_ok_and(f64::is_finite), format!("{name} is not a number"));
        let digits = number.split(['e', 'E']).next().unwrap_or_default().replace(['.', '-', '+'], "");
        let digits = digits.trim_matches('0').len();
        self.require(digits <= MAX_DIGITS, format!("{name} has {digits} digits, more than {MAX_DIGITS}"));
    }

    /// Expressions and their placeholders.
    fn expressions(&mut self, request: &Value, schema: &Schema, key: &[&str]) {
        let mut used = BTreeSet::new();
        let mut operators = 0;
        for parameter in EXPRESSIONS {
            let Some(expression) = request.get(parameter).filter(|it| !it.is_null()) else { continue };
            let Some(expression) = expression.as_str() else {
                self.broken(format!("{parameter} is not a string"));
                continue;
            };
            let bytes = expression.len();
            self.require(
                (1..=MAX_EXPRESSION_BYTES).contains(&bytes),
                format!("{parameter} has {bytes} bytes, not 1 to {MAX_EXPRESSION_BYTES}"),
            );
            let tokens = tokens(expression);
            operators += tokens.iter().enumerate().filter(|(at, _)| is_operator(&tokens, *at)).count();
            for (at, token) in tokens.iter().enumerate() {
                if token.starts_with(['#', ':']) {
                    used.insert(*token);
                } else if is_name(&tokens, at) && is_reserved(token) {
                    self.broken(format!("{parameter} uses the reserved word {token} without #"));
                } else if !is_known(&tokens, at) {
                    self.broken(format!("{parameter} contains {token}, which is not understood"));
                }
            }
            if parameter == "UpdateExpression" {
                self.update(&tokens, request, schema);
            }
            if parameter == "FilterExpression" {
                for name in attributes(expression, &request["ExpressionAttributeNames"]) {
                    self.require(!key.contains(&name.as_str()), format!("FilterExpression uses the key {name}"));
                }
            }
        }
        self.require(operators <= MAX_OPERATORS, format!("{operators} operators, more than {MAX_OPERATORS}"));
        self.placeholders(request, "ExpressionAttributeNames", '#', &used);
        self.placeholders(request, "ExpressionAttributeValues", ':', &used);
        if let Some(values) = request["ExpressionAttributeValues"].as_object() {
            for (name, value) in values {
                self.value(name, value, 0);
            }
            self.require(size_of_item(values) <= MAX_VALUES_BYTES, "the values of expressions exceed 2 MB");
        }
    }

    fn placeholders(&mut self, request: &Value, parameter: &str, sign: char, used: &BTreeSet<&str>) {
        let defined: BTreeSet<&str> = match request.get(parameter) {
            None | Some(Value::Null) => BTreeSet::new(),
            Some(Value::Object(map)) if !map.is_empty() => map.keys().map(String::as_str).collect(),
            Some(_) => return self.broken(format!("{parameter} is empty")),
        };
        for name in &defined {
            let is_word = name.len() > 1 && name[1..].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            self.require(name.starts_with(sign) && is_word, format!("{parameter} defines {name}"));
            self.require(
                name.len() <= MAX_PLACEHOLDER_BYTES,
                format!("{parameter} defines a name of 256 bytes or more"),
            );
            self.require(used.contains(name), format!("{name} is defined, but not used"));
        }
        for name in used.iter().filter(|name| name.starts_with(sign)) {
            self.require(defined.contains(name), format!("{name} is used, but not defined"));
        }
    }

    /// Each clause once, no key attribute, and no two paths that overlap.
    fn update(&mut self, tokens: &[&str], request: &Value, schema: &Schema) {
        let mut clauses = BTreeSet::new();
        let mut paths: Vec<Vec<String>> = Vec::new();
        let (mut depth, mut in_path) = (0_usize, false);
        for token in tokens {
            let word = token.to_lowercase();
            match *token {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ if CLAUSES.contains(&word.as_str()) => {
                    self.require(clauses.insert(word), format!("UpdateExpression has two {token} clauses"));
                    paths.push(Vec::new());
                    in_path = true;
                }
                "," if depth == 0 => {
                    paths.push(Vec::new());
                    in_path = true;
                }
                "=" => in_path = false,
                _ if token.starts_with(':') => in_path = false,
                "." | "[" | "]" => {}
                _ if in_path => {
                    let name = request["ExpressionAttributeNames"][*token].as_str().unwrap_or(token).to_owned();
                    if let Some(path) = paths.last_mut() {
                        path.push(name);
                    }
                }
                _ => {}
            }
        }
        self.require(!clauses.is_empty(), "UpdateExpression has no clause");
        for (at, path) in paths.iter().enumerate() {
            let Some(first) = path.first() else {
                self.broken("UpdateExpression has a clause without an attribute");
                continue;
            };
            self.require(!schema.key.contains(&first.as_str()), format!("UpdateExpression changes the key {first}"));
            let overlaps = paths[..at].iter().any(|other| path.starts_with(other) || other.starts_with(path));
            self.require(!overlaps, format!("UpdateExpression changes {} twice", path.join(".")));
        }
    }

    fn query(&mut self, request: &Value) {
        let Some(schema) = self.table(request) else { return };
        let index = request["IndexName"].as_str();
        let (pk, sk) = match index {
            None => (schema.key[0], schema.key.get(1).copied()),
            Some(name) => match schema.indexes.iter().find(|index| index.0 == name) {
                Some((_, pk, sk)) => (*pk, Some(*sk)),
                None => return self.broken("there is no such index"),
            },
        };
        let key: Vec<&str> = [Some(pk), sk].into_iter().flatten().collect();
        self.expressions(request, &schema, &key);
        let is_consistent = request["ConsistentRead"] == true;
        self.require(index.is_none() || !is_consistent, "an index cannot be read consistently");
        self.require(request["Limit"].is_null() || request["Limit"].as_i64() >= Some(1), "Limit is below 1");
        let condition = request["KeyConditionExpression"].as_str().unwrap_or_default();
        let names = &request["ExpressionAttributeNames"];
        let conditions = attributes(condition, names);
        self.require(
            conditions.iter().filter(|name| *name == pk).count() == 1,
            "KeyConditionExpression does not name the partition key once",
        );
        let is_equal = tokens(condition)
            .windows(2)
            .any(|pair| pair[1] == "=" && (pair[0] == pk || names[pair[0]].as_str() == Some(pk)));
        self.require(is_equal, "KeyConditionExpression does not compare the partition key with =");
        self.require(
            conditions.iter().all(|name| key.contains(&name.as_str())) && conditions.len() <= 2,
            "KeyConditionExpression has more than one condition on the sort key, or another attribute",
        );
        if let Some(values) = request["ExpressionAttributeValues"].as_object() {
            let filter = request["FilterExpression"].as_str().unwrap_or_default();
            let filtered = tokens(filter);
            for (name, value) in values.iter().filter(|(name, _)| !filtered.contains(&name.as_str())) {
                self.require(value["S"].as_str() != Some(""), format!("the key value {name} is empty"));
            }
        }
        if let Some(start) = request["ExclusiveStartKey"].as_object() {
            let named: BTreeSet<&str> = start.keys().map(String::as_str).collect();
            let expected = schema.key.iter().copied().chain(key.iter().copied()).collect();
            self.require(named == expected, format!("ExclusiveStartKey has the attributes {named:?}"));
            for (name, value) in start {
                self.key_attribute(Some(value), name, MAX_PARTITION_KEY_BYTES);
            }
        }
    }

    fn batch(&mut self, request: &Value, most: usize, entries: fn(&Value) -> Vec<Value>) {
        let Some(tables) = request["RequestItems"].as_object() else {
            return self.broken("RequestItems is missing");
        };
        let mut count = 0;
        for (table, of_table) in tables {
            let Some(schema) = schema(table) else {
                self.broken("there is no such table");
                continue;
            };
            let mut seen = BTreeSet::new();
            for entry in entries(of_table) {
                count += 1;
                if let Some(item) = entry["PutRequest"]["Item"].as_object() {
                    self.item(item, &schema);
                }
                let key = key_of(&entry["PutRequest"]["Item"], &schema)
                    .or_else(|| key_of(&entry["DeleteRequest"]["Key"], &schema))
                    .or_else(|| key_of(&entry, &schema));
                if entry.get("PutRequest").is_none() {
                    let key = entry.get("DeleteRequest").map_or(&entry, |delete| &delete["Key"]);
                    self.key(key.as_object().unwrap_or(&Map::new()), schema.key);
                }
                self.require(seen.insert(key), "a batch names one item twice");
            }
        }
        self.require((1..=most).contains(&count), format!("a batch has {count} entries, not 1 to {most}"));
    }

    fn transaction(&mut self, request: &Value) {
        let actions = list(&request["TransactItems"]);
        let count = actions.len();
        self.require(
            (1..=MAX_ACTIONS).contains(&count),
            format!("a transaction has {count} actions, not 1 to {MAX_ACTIONS}"),
        );
        if let Some(token) = request["ClientRequestToken"].as_str() {
            let is_valid = (1..=MAX_REQUEST_TOKEN).contains(&token.len());
            self.require(is_valid, format!("ClientRequestToken does not have 1 to {MAX_REQUEST_TOKEN} characters"));
        }
        let (mut seen, mut bytes) = (BTreeSet::new(), 0);
        for action in actions {
            let Some((kind, action)) = action.as_object().filter(|it| it.len() == 1).and_then(|it| it.iter().next())
            else {
                self.broken("an entry of a transaction is not exactly one action");
                continue;
            };
            let (named_by, required) = match kind.as_str() {
                "Put" => ("Item", None),
                "Delete" => ("Key", None),
                "Update" => ("Key", Some("UpdateExpression")),
                "ConditionCheck" => ("Key", Some("ConditionExpression")),
                _ => {
                    self.broken(format!("there is no action {kind}"));
                    continue;
                }
            };
            self.require(required.is_none_or(|it| action[it].is_string()), format!("{kind} has no {required:?}"));
            bytes += self.action(action, named_by);
            let table = action["TableName"].as_str().unwrap_or_default();
            let key = schema(table).and_then(|schema| key_of(&action[named_by], &schema));
            self.require(seen.insert((table.to_owned(), key)), "two actions of a transaction are on one item");
        }
        self.require(
            bytes <= MAX_TRANSACTION_BYTES,
            format!("a transaction has {bytes} bytes, more than {MAX_TRANSACTION_BYTES}"),
        );
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What identifies an item: the values of its key attributes.
fn key_of(item: &Value, schema: &Schema) -> Option<Vec<String>> {
    schema.key.iter().map(|name| item.get(*name).map(Value::to_string)).collect()
}

/// The size of an item, or of the values of expressions: names and values, as DynamoDB counts them.
fn size_of_item(item: &Map<String, Value>) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of(value)).sum()
}

fn size_of(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return 0 };
    match (kind.as_str(), value) {
        ("S", Value::String(text)) => text.len(),
        // Base64.
        ("B", Value::String(text)) => text.len() / 4 * 3,
        ("N", Value::String(number)) => number.len() / 2 + 2,
        ("M", Value::Object(map)) => 3 + map.len() + size_of_item(map),
        ("L", Value::Array(list)) => 3 + list.iter().map(|value| 1 + size_of(value)).sum::<usize>(),
        (_, Value::Array(set)) => set.iter().map(|value| value.as_str().map_or(0, str::len)).sum(),
        _ => 1,
    }
}

/// Splits an expression into names, placeholders, numbers and signs.
fn tokens(expression: &str) -> Vec<&str> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = expression.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            byte if byte.is_ascii_whitespace() => continue,
            byte if is_word(byte) || matches!(byte, b'#' | b':') => {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
            }
            b'<' | b'>' if at < bytes.len() && matches!(bytes[at], b'=' | b'>') => at += 1,
            _ => {
                while !expression.is_char_boundary(at) {
                    at += 1;
                }
            }
        }
        tokens.push(&expression[start..at]);
    }
    tokens
}

fn starts_like_a_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn is_function(tokens: &[&str], at: usize) -> bool {
    const FUNCTIONS: [&str; 8] = [
        "attribute_exists",
        "attribute_not_exists",
        "attribute_type",
        "begins_with",
        "contains",
        "size",
        "if_not_exists",
        "list_append",
    ];
    tokens.get(at + 1) == Some(&"(") && FUNCTIONS.contains(&tokens[at])
}

/// Whether this token is the bare name of an attribute.
fn is_name(tokens: &[&str], at: usize) -> bool {
    let token = tokens[at];
    starts_like_a_name(token) && !KEYWORDS.contains(&token.to_lowercase().as_str()) && !is_function(tokens, at)
}

fn is_known(tokens: &[&str], at: usize) -> bool {
    const SIGNS: [&str; 14] = ["(", ")", "[", "]", ",", ".", "=", "<", ">", "<=", ">=", "<>", "+", "-"];
    let token = tokens[at];
    let is_index = token.bytes().all(|byte| byte.is_ascii_digit()) && at > 0 && tokens[at - 1] == "[";
    starts_like_a_name(token) || SIGNS.contains(&token) || is_index
}

fn is_operator(tokens: &[&str], at: usize) -> bool {
    const OPERATORS: [&str; 13] = ["and", "or", "not", "between", "in", "=", "<", ">", "<=", ">=", "<>", "+", "-"];
    is_function(tokens, at) || OPERATORS.contains(&tokens[at].to_lowercase().as_str())
}

/// The top-level attributes that an expression names, with placeholders replaced.
pub fn attributes(expression: &str, names: &Value) -> Vec<String> {
    let tokens = tokens(expression);
    let is_top = |at: usize| at == 0 || tokens[at - 1] != ".";
    let named = (0..tokens.len()).filter(|&at| is_top(at) && (tokens[at].starts_with('#') || is_name(&tokens, at)));
    named.map(|at| names[tokens[at]].as_str().unwrap_or(tokens[at]).to_owned()).collect()
}

fn is_reserved(word: &str) -> bool {
    RESERVED_WORDS.split_ascii_whitespace().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

/// The reserved words of DynamoDB's documentation.
const RESERVED_WORDS: &str = "
abort absolute action add after agent aggregate all allocate alter analyze and any archive are array
as asc ascii asensitive assertion asymmetric at atomic attach attribute auth authorization authorize
auto avg back backup base batch before begin between bigint binary bit blob block boolean both
breadth bucket bulk by byte call called calling capacity cascade cascaded case cast catalog char
character check class clob close cluster clustered clustering clusters coalesce collate collation
collection column columns combine comment commit compact compile compress condition conflict connect
connection consistency consistent constraint constraints constructor consumed continue convert copy
corresponding count counter create cross cube current cursor cycle data database date datetime day
deallocate dec decimal declare default deferrable deferred define defined definition delete
delimited depth deref desc describe descriptor detach deterministic diagnostics directories disable
disconnect distinct distribute do domain double drop dump duration dynamic each element else elseif
empty enable end equal equals error escape escaped eval evaluate exceeded except exception
exceptions exclusive exec execute exists exit explain explode export expression extended external
extract fail false family fetch fields file filter filtering final finish first fixed flattern float
for force foreign format forward found free from full function functions general generate get glob
global go goto grant greater group grouping handler hash have having heap hidden hold hour
identified identity if ignore immediate import in including inclusive increment incremental index
indexed indexes indicator infinite initially inline inner innter inout input insensitive insert
instead int integer intersect interval into invalidate is isolation item items iterate join key keys
lag language large last lateral lead leading leave left length less level like limit limited lines
list load local localtime localtimestamp location locator lock locks log loged long loop lower map
match materialized max maxlen member merge method metrics min minus minute missing mod mode modifies
modify module month multi multiset name names national natural nchar nclob new next no none not null
nullif number numeric object of offline offset old on online only opaque open operator option or
order ordinality other others out outer output over overlaps override owner pad parallel parameter
parameters partial partition partitioned partitions path percent percentile permission permissions
pipe pipelined plan pool position precision prepare preserve primary prior private privileges
procedure processed project projection property provisioning public put query quit quorum raise
random range rank raw read reads real rebuild record recursive reduce ref reference references
referencing regexp region reindex relative release remainder rename repeat replace request reset
resignal resource response restore restrict result return returning returns reverse revoke right
role roles rollback rollup routine row rows rule rules sample satisfies save savepoint scan schema
scope scroll search second section segment segments select self semi sensitive separate sequence
serializable session set sets shard share shared short show signal similar size skewed smallint
snapshot some source space spaces sparse specific specifictype split sql sqlcode sqlerror
sqlexception sqlstate sqlwarning start state static status storage store stored stream string struct
style sub submultiset subpartition substring subtype sum super symmetric synonym system table
tablesample temp temporary terminated text than then throughput time timestamp timezone tinyint to
token total touch trailing transaction transform translate translation treat trigger trim true
truncate ttl tuple type under undo union unique unit unknown unlogged unnest unprocessed unsigned
until update upper url usage use user users using uuid vacuum value valued values varchar variable
variance varint varying view views virtual void wait when whenever where while window with within
without work wrapped write year zone
";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(item: &Value) -> Value {
        json!({"TableName": TABLE, "Item": item})
    }

    fn update(expression: &str, names: &Value, values: &Value) -> Value {
        let mut request = json!({"TableName": TABLE, "Key": {"pk": {"S": "a"}, "sk": {"S": "b"}}});
        request["UpdateExpression"] = expression.into();
        for (parameter, map) in [("ExpressionAttributeNames", names), ("ExpressionAttributeValues", values)] {
            if !map.is_null() {
                request[parameter] = map.clone();
            }
        }
        request
    }

    fn check(sk: usize) -> Value {
        let key = json!({"pk": {"S": "a"}, "sk": {"S": sk.to_string()}});
        json!({"ConditionCheck": {"TableName": TABLE, "Key": key, "ConditionExpression": "attribute_exists(pk)"}})
    }

    fn key(pk: &str, sk: &str) -> Value {
        json!({"pk": {"S": pk}, "sk": {"S": sk}})
    }

    #[track_caller]
    fn assert_breaks(operation: &str, request: &Value, rule: &str) {
        let found = violations(operation, request);
        assert!(found.len() == 1 && found[0].contains(rule), "expected {rule:?}, found {found:?}");
    }

    #[track_caller]
    fn assert_keeps(operation: &str, request: &Value) {
        assert_eq!(violations(operation, request), Vec::<String>::new());
    }

    #[test]
    fn reserved_words_are_complete() {
        assert_eq!(RESERVED_WORDS.split_ascii_whitespace().count(), 573);
        assert!(is_reserved("Status") && is_reserved("ttl") && !is_reserved("pk") && !is_reserved("revoked_at"));
    }

    #[test]
    fn transaction_has_at_most_100_actions_on_distinct_items() {
        let of = |actions: Vec<Value>| json!({"TransactItems": actions});
        assert_keeps("TransactWriteItems", &of((0..100).map(check).collect()));
        assert_breaks("TransactWriteItems", &of((0..101).map(check).collect()), "101 actions");
        assert_breaks("TransactWriteItems", &of(vec![]), "0 actions");
        assert_breaks("TransactWriteItems", &of(vec![check(1), check(1)]), "on one item");
        let no_condition = json!({"ConditionCheck": {"TableName": TABLE, "Key": key("a", "b")}});
        assert_breaks("TransactWriteItems", &of(vec![no_condition]), "ConditionCheck has no");
        let with_token = |token: &str| json!({"TransactItems": [check(1)], "ClientRequestToken": token});
        assert_keeps("TransactWriteItems", &with_token(&"x".repeat(36)));
        assert_breaks("TransactWriteItems", &with_token(&"x".repeat(37)), "ClientRequestToken");
    }

    #[test]
    fn transaction_has_at_most_4_mb() {
        let big = |sk: usize| {
            let item = json!({"pk": {"S": "a"}, "sk": {"S": sk.to_string()}, "text": {"S": "x".repeat(400_000)}});
            json!({"Put": put(&item)})
        };
        let of = |count: usize| json!({"TransactItems": (0..count).map(big).collect::<Vec<_>>()});
        assert_keeps("TransactWriteItems", &of(10));
        assert_breaks("TransactWriteItems", &of(11), "a transaction has");
    }

    #[test]
    fn item_has_at_most_400_kb_and_valid_values() {
        let with = |value: Value| put(&json!({"pk": {"S": "a"}, "sk": {"S": "b"}, "text": value}));
        let room = MAX_ITEM_BYTES - "pkaskbtext".len();
        assert_keeps("PutItem", &with(json!({"S": "x".repeat(room)})));
        assert_breaks("PutItem", &with(json!({"S": "x".repeat(room + 1)})), "an item has");
        assert_keeps("PutItem", &with(json!({"S": ""})));
        assert_breaks("PutItem", &with(json!({"SS": []})), "empty set");
        assert_breaks("PutItem", &with(json!({"SS": ["a", "a"]})), "duplicates");
        assert_breaks("PutItem", &with(json!({"S": "a", "N": "1"})), "exactly one type");
        assert_breaks("PutItem", &with(json!({"N": 1})), "not a valid N");
        assert_keeps("PutItem", &with(json!({"N": "9".repeat(38)})));
        assert_breaks("PutItem", &with(json!({"N": "9".repeat(39)})), "39 digits");
        let nested = |levels: usize| (0..levels).fold(json!({"BOOL": true}), |value, _| json!({"L": [value]}));
        assert_keeps("PutItem", &with(nested(32)));
        assert_breaks("PutItem", &with(nested(33)), "32 levels");
    }

    #[test]
    fn keys_are_strings_within_their_limits() {
        let get = |key: Value| json!({"TableName": TABLE, "Key": key});
        assert_keeps("GetItem", &get(key(&"x".repeat(2048), &"x".repeat(1024))));
        assert_breaks("GetItem", &get(key(&"x".repeat(2049), "b")), "2049 bytes");
        // Bytes, not characters.
        assert_breaks("GetItem", &get(key("a", &"\u{e9}".repeat(513))), "1026 bytes");
        assert_breaks("GetItem", &get(key("", "b")), "pk is empty");
        assert_breaks("GetItem", &get(json!({"pk": {"S": "a"}, "sk": {"N": "1"}})), "not a string");
        assert_breaks("GetItem", &json!({"TableName": "other", "Key": key("a", "b")}), "no such table");
        let with_more = json!({"pk": {"S": "a"}, "sk": {"S": "b"}, "id": {"S": "c"}});
        assert_breaks("GetItem", &get(with_more), "a key has the attributes");
        let mut indexed = key("a", "b");
        indexed["actor_pk"] = json!({"S": ""});
        assert_breaks("PutItem", &put(&indexed), "actor_pk is empty");
    }

    #[test]
    fn batches_are_limited_and_name_an_item_once() {
        let read = |count: usize| {
            let keys: Vec<_> = (0..count).map(|sk| key("a", &sk.to_string())).collect();
            json!({"RequestItems": {TABLE: {"Keys": keys}}})
        };
        assert_keeps("BatchGetItem", &read(100));
        assert_breaks("BatchGetItem", &read(101), "101 entries");
        assert_breaks("BatchGetItem", &read(0), "0 entries");
        let twice = json!({"RequestItems": {TABLE: {"Keys": [key("a", "b"), key("a", "b")]}}});
        assert_breaks("BatchGetItem", &twice, "one item twice");
        let write = |count: usize| {
            let puts = (0..count).map(|sk| json!({"PutRequest": {"Item": key("a", &sk.to_string())}}));
            json!({"RequestItems": {TABLE: puts.collect::<Vec<_>>()}})
        };
        assert_keeps("BatchWriteItem", &write(25));
        assert_breaks("BatchWriteItem", &write(26), "26 entries");
    }

    #[test]
    fn expressions_define_what_they_use_and_use_what_they_define() {
        let (names, values) = (json!({"#a": "status"}), json!({":v": {"S": "x"}}));
        assert_keeps("UpdateItem", &update("SET #a = :v", &names, &values));
        assert_keeps("UpdateItem", &update("SET #a.#a = if_not_exists(#a, :v)", &names, &values));
        assert_breaks("UpdateItem", &update("SET #a = :v", &names, &Value::Null), ":v is used, but not defined");
        assert_breaks("UpdateItem", &update("SET x1 = :v", &names, &values), "#a is defined, but not used");
        assert_breaks("UpdateItem", &update("REMOVE #a", &names, &values), ":v is defined, but not used");
        assert_breaks("UpdateItem", &update("REMOVE x1", &json!({}), &Value::Null), "Names is empty");
        assert_breaks("UpdateItem", &update("SET status = :v", &Value::Null, &values), "reserved word status");
        let long = format!("SET x1 = :v REMOVE {}", "x".repeat(MAX_EXPRESSION_BYTES));
        assert_breaks("UpdateItem", &update(&long, &Value::Null, &values), "UpdateExpression has");
        let many = format!("SET x1 = :v{}", " + :v".repeat(300));
        assert_breaks("UpdateItem", &update(&many, &Value::Null, &values), "301 operators");
        assert_breaks("UpdateItem", &update("SET x1 = :v ;", &Value::Null, &values), "not understood");
    }

    #[test]
    fn updates_change_each_attribute_once_and_no_key() {
        let values = json!({":v": {"S": "x"}});
        let of = |expression: &str| update(expression, &Value::Null, &values);
        assert_keeps("UpdateItem", &of("SET x1 = :v, x2 = list_append(:v, x3) REMOVE x3.y1, x3.y2"));
        assert_breaks("UpdateItem", &of("SET x1 = :v, x1 = :v"), "changes x1 twice");
        assert_breaks("UpdateItem", &of("SET x1.y1 = :v REMOVE x1"), "changes x1 twice");
        assert_breaks("UpdateItem", &of("SET x1 = :v SET x2 = :v"), "two SET clauses");
        assert_breaks("UpdateItem", &of("SET pk = :v"), "changes the key pk");
        let mut returning = of("SET x1 = :v");
        returning["ReturnValues"] = "ALL".into();
        assert_breaks("UpdateItem", &returning, "ReturnValues");
    }

    #[test]
    fn queries_name_one_partition() {
        let query = |condition: &str| {
            json!({
                "TableName": TABLE, "KeyConditionExpression": condition,
                "ExpressionAttributeValues": {":a": {"S": "a"}}
            })
        };
        assert_keeps("Query", &query("pk = :a"));
        assert_keeps("Query", &query("pk = :a AND begins_with(sk, :a)"));
        assert_breaks("Query", &query("pk = :a AND id = :a"), "another attribute");
        assert!(!violations("Query", &query("begins_with(pk, :a)")).is_empty());
        assert!(!violations("Query", &query("sk = :a")).is_empty());
        let with = |parameter: &str, value: Value| {
            let mut request = query("pk = :a");
            request[parameter] = value;
            request
        };
        assert_breaks("Query", &with("Limit", json!(0)), "Limit");
        assert_breaks("Query", &with("FilterExpression", json!("sk = :a")), "uses the key sk");
        assert_breaks("Query", &with("IndexName", json!("other")), "no such index");
        assert_breaks("Query", &with("ExclusiveStartKey", json!({"pk": {"S": "a"}})), "ExclusiveStartKey");
        assert_breaks(
            "Query",
            &with("ExpressionAttributeValues", json!({":a": {"S": ""}})),
            "the key value :a is empty",
        );
        let mut indexed = query("actor_pk = :a");
        indexed["IndexName"] = AUDIT_BY_ACTOR.0.into();
        assert_keeps("Query", &indexed);
        indexed["ConsistentRead"] = true.into();
        assert_breaks("Query", &indexed, "read consistently");
    }

    #[test]
    fn unknown_operation_is_a_violation() {
        assert_breaks("Scan", &json!({"TableName": TABLE}), "not known");
    }
}
