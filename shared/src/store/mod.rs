//! The DynamoDB tables. No other code calls DynamoDB. [`Store`] is the tokens table,
//! [`installations`] is the installation log.
//!
//! [`keys`] lists all keys, access patterns and costs. Each kind of item has a module with its
//! state transitions. Every change is one transaction of conditional writes that includes its audit
//! entry, so a crash at any point leaves a valid state.

pub mod api_keys;
pub mod audit;
pub mod bot_tokens;
pub mod bots;
pub mod email_tokens;
pub mod erasures;
pub mod idempotency;
pub mod installations;
pub mod keys;
pub mod leak_reports;
pub mod leaks;
pub mod lifetimes;
pub mod mail_limits;
pub mod members;
pub mod notices;
pub mod org_access_tokens;
pub mod org_user_tokens;
pub mod orgs;
pub mod rate_limits;
pub mod registration;
pub mod reminders;
pub mod rotation;
pub mod scim_users;
pub mod sessions;
pub mod sign_in;
pub mod table;
pub mod tokens;
pub mod trusts;
pub mod unused;
pub mod usage;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, KeysAndAttributes, Put, ReturnConsumedCapacity, TransactWriteItem, Update,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use self::keys::{Key, PK, SK};
use crate::clock::Clock;
use crate::cost::{self, Units};
use crate::error::{ApiError, Unauthorized};
use crate::secret::RandomnessUnavailable;

type Item = HashMap<String, AttributeValue>;

/// How long a request waits for records that it does not need.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long [`Store::connect`] takes at most.
pub(crate) const CONNECTING: Duration = Duration::from_secs(1);

/// Why a read or write failed. Callers see only the resulting [`ApiError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB throttles, times out or is down. Retrying is safe.
    #[error("the table is unavailable")]
    Unavailable,
    /// A bug: DynamoDB rejected the request, or an item cannot be deserialized.
    #[error("the table rejected the request or contains an invalid item")]
    Defect,
    /// The token that is used has ended in the meantime.
    #[error("the token has ended")]
    Ended,
    /// The API key of a bot that is replaced has expired, and nothing says when the new one does.
    #[error("the key that is replaced has expired, and the new one has no expiry of its own")]
    ExpiryMissing,
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable => ApiError::Unavailable,
            StoreError::Defect => ApiError::Internal,
            StoreError::Ended => ApiError::Unauthorized(Unauthorized::Invalid),
            StoreError::ExpiryMissing => {
                ApiError::invalid("expires_at", "must be set: the key that is replaced has expired; null means never")
            }
        }
    }
}

impl From<RandomnessUnavailable> for StoreError {
    fn from(error: RandomnessUnavailable) -> Self {
        tracing::error!(%error, "no randomness available");
        StoreError::Unavailable
    }
}

/// The tokens table.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    table: String,
    clock: Clock,
    remembered: lifetimes::Remembered,
    recorded: bots::Recorded,
    patience: Duration,
}

impl Store {
    /// A store on this table.
    pub fn new(client: Client, table: impl Into<String>, clock: Clock) -> Self {
        let (remembered, recorded) = (lifetimes::Remembered::default(), bots::Recorded::default());
        Self { client, table: table.into(), clock, remembered, recorded, patience: PATIENCE }
    }

    /// Lets a request wait so long for records that it does not need, such as `last_used_at`, instead of
    /// half a second.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long a request waits for records that it does not need.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Opens a connection to DynamoDB, so that the next request finds one: TLS, credentials and
    /// endpoint are done. Takes a second at most, and ignores failures: a later request
    /// connects itself, and reports what is wrong.
    pub async fn connect(&self) {
        // A signed request that every function may make. If it is denied, it connects as well.
        let request = self.client.get_item().table_name(&self.table).set_key(Some(key_item(keys::nothing())));
        let _ = timeout(CONNECTING, request.send()).await;
    }

    /// Reads one item with a strongly consistent read.
    async fn get<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>, StoreError> {
        let request = self.client.get_item().table_name(&self.table).set_key(Some(key_item(key)));
        let request = request.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request.send().await.map_err(failure)?;
        cost::add(Units::Read, output.consumed_capacity.as_slice());
        output.item.map(read_item).transpose()
    }

    /// Reads up to 100 items by key with strongly consistent reads, in no particular order. Missing
    /// items are left out.
    async fn get_all<T: DeserializeOwned>(&self, mut keys: Vec<Key>) -> Result<Vec<T>, StoreError> {
        // DynamoDB refuses to read a key twice.
        keys.sort();
        keys.dedup();
        let mut found = Vec::with_capacity(keys.len());
        let mut missing: Vec<Item> = keys.into_iter().map(key_item).collect();
        let mut backoff = Backoff::new();
        while !missing.is_empty() {
            let keys = KeysAndAttributes::builder().set_keys(Some(std::mem::take(&mut missing))).consistent_read(true);
            let keys = keys.build().map_err(|_| StoreError::Defect)?;
            let request = self.client.batch_get_item().request_items(&self.table, keys);
            let output =
                request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(failure)?;
            cost::add(Units::Read, output.consumed_capacity());
            for items in output.responses.unwrap_or_default().into_values() {
                for item in items {
                    found.push(read_item(item)?);
                }
            }
            // DynamoDB returns the keys that it had no capacity to read.
            if let Some(rest) = output.unprocessed_keys.unwrap_or_default().remove(&self.table) {
                missing = rest.keys;
                backoff.pause().await?;
            }
        }
        Ok(found)
    }

    /// Reads up to `limit` items of a partition in sort key order. Reads are strongly consistent,
    /// except from an index.
    async fn query<T: DeserializeOwned>(&self, range: Range<'_>, limit: usize) -> Result<Vec<(String, T)>, StoreError> {
        let mut found = Vec::new();
        let mut start = range.after.map(|sk| key_item(Key { pk: range.pk.to_owned(), sk: sk.to_owned() }));
        let (index, pk) = range.index.as_ref().map_or((None, PK), |index| (Some(index.name), index.pk));
        if let (Some(start), Some(index)) = (&mut start, &range.index) {
            // A start key in an index consists of the index key and the table key.
            let own = start.insert(PK.to_owned(), AttributeValue::S(index.table_pk.clone()));
            start.extend(own.map(|own| (index.pk.to_owned(), own)));
        }
        loop {
            let missing = i32::try_from(limit - found.len()).unwrap_or(i32::MAX);
            let request = self
                .client
                .query()
                .table_name(&self.table)
                .set_index_name(index.map(str::to_owned))
                .consistent_read(index.is_none())
                .scan_index_forward(!range.newest_first)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .expression_attribute_names("#pk", pk)
                .expression_attribute_values(":pk", AttributeValue::S(range.pk.to_owned()))
                .set_exclusive_start_key(start)
                .limit(missing);
            let request = match range.sort_keys {
                SortKeys::All => request.key_condition_expression("#pk = :pk"),
                SortKeys::StartingWith(prefix) => request
                    .key_condition_expression("#pk = :pk AND begins_with(sk, :prefix)")
                    .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned())),
                SortKeys::Between(first, last) => request
                    .key_condition_expression("#pk = :pk AND sk BETWEEN :first AND :last")
                    .expression_attribute_values(":first", AttributeValue::S(first.to_owned()))
                    .expression_attribute_values(":last", AttributeValue::S(last.to_owned())),
                SortKeys::After(start) => request
                    .key_condition_expression("#pk = :pk AND sk > :start")
                    .expression_attribute_values(":start", AttributeValue::S(start.to_owned())),
                SortKeys::Before(end) => request
                    .key_condition_expression("#pk = :pk AND sk < :end")
                    .expression_attribute_values(":end", AttributeValue::S(end.to_owned())),
            };
            let output = request.send().await.map_err(failure)?;
            cost::add(Units::Read, output.consumed_capacity.as_slice());
            for item in output.items.unwrap_or_default() {
                let sk = item.get(SK).and_then(|sk| sk.as_s().ok()).ok_or(StoreError::Defect)?.clone();
                found.push((sk, read_item(item)?));
            }
            // A page may end early, at 1 MB. Only a missing key means that there are no more items.
            start = output.last_evaluated_key;
            if start.is_none() || found.len() >= limit {
                return Ok(found);
            }
        }
    }

    /// Updates one item outside a transaction if the condition holds. Attributes are written
    /// `#name`.
    async fn update<V: Serialize>(
        &self,
        key: Key,
        expression: &str,
        condition: &str,
        values: &[(&str, V)],
    ) -> Result<Committed, StoreError> {
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_item(key)))
            .update_expression(expression)
            .condition_expression(condition)
            .set_expression_attribute_names(names(&[expression, condition]))
            .set_expression_attribute_values(given(attribute_values(values).map_err(|_| StoreError::Defect)?));
        Ok(if updated(request).await?.is_some() { Committed::Yes } else { Committed::No(0) })
    }

    /// Deletes these items, up to 100 in a transaction.
    async fn delete_all(&self, keys: &[Key]) -> Result<(), StoreError> {
        for keys in keys.chunks(MAX_WRITES) {
            let mut transaction = self.transaction();
            for key in keys {
                transaction.delete(key.clone());
            }
            // It has no condition.
            let _: Committed = transaction.commit().await?;
        }
        Ok(())
    }

    /// Begins a transaction.
    fn transaction(&self) -> Transaction<'_> {
        Transaction { store: self, writes: Vec::new(), entry: None, defect: false, attempts: Backoff::TRIES }
    }
}

/// Sends an update of one item. `None` if its condition failed. It waits for transactions that hold the
/// item: DynamoDB refuses it at once, and the SDK does not repeat that.
async fn updated(request: UpdateItemFluentBuilder) -> Result<Option<UpdateItemOutput>, StoreError> {
    let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
    let mut backoff = Backoff::new();
    loop {
        let error = match request.clone().send().await {
            Ok(output) => {
                cost::add(Units::Write, output.consumed_capacity.as_slice());
                return Ok(Some(output));
            }
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(_)) => return Ok(None),
            Some(UpdateItemError::TransactionConflictException(_)) => backoff.pause().await?,
            _ => return Err(failure(error)),
        }
    }
}

/// An item with its partition, which tells it from others that were read with it.
#[derive(Deserialize)]
struct Located<T> {
    pk: String,
    #[serde(flatten)]
    item: T,
}

/// Maximum writes in a transaction.
const MAX_WRITES: usize = 100;

/// A range of items in a partition.
#[derive(Clone)]
struct Range<'a> {
    pk: &'a str,
    sort_keys: SortKeys<'a>,
    /// Start after this sort key, which must be within the range.
    after: Option<&'a str>,
    /// Descending order. Sort keys that are ULIDs ascend by age.
    newest_first: bool,
    /// Query this index instead of the table.
    index: Option<Index>,
}

/// An index of the table. Its sort key is [`SK`].
#[derive(Clone)]
struct Index {
    name: &'static str,
    /// The name of its partition key.
    pk: &'static str,
    /// The table partition that contains its items.
    table_pk: String,
}

impl<'a> Range<'a> {
    fn new(pk: &'a str, sort_keys: SortKeys<'a>) -> Self {
        Self { pk, sort_keys, after: None, newest_first: false, index: None }
    }

    fn start_after(self, after: Option<&'a str>) -> Self {
        Self { after, ..self }
    }

    fn newest_first(self) -> Self {
        Self { newest_first: true, ..self }
    }
}

#[derive(Clone, Copy)]
enum SortKeys<'a> {
    All,
    /// Both included.
    Between(&'a str, &'a str),
    StartingWith(&'a str),
    After(&'a str),
    Before(&'a str),
}

/// Writes that are committed atomically.
struct Transaction<'a> {
    store: &'a Store,
    writes: Vec<TransactWriteItem>,
    /// The index of the write of the audit entry.
    entry: Option<usize>,
    defect: bool,
    /// Attempts before conflicts make it fail.
    attempts: u32,
}

/// The result of a transaction.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
enum Committed {
    /// All writes were committed.
    Yes,
    /// Nothing was written: the condition of the write with this index failed.
    No(usize),
}

impl Transaction<'_> {
    /// Tries for some seconds longer. For revocations and what else cuts a caller off: calls that
    /// are repeated without pause must not keep it from happening.
    fn persistent(self) -> Self {
        Self { attempts: Backoff::PERSISTENT_TRIES, ..self }
    }

    /// Writes an item, replacing any existing one.
    fn put<T: Serialize>(&mut self, key: Key, body: &T) -> &mut Self {
        self.put_if(key, body, None)
    }

    /// Writes an item that must not exist yet.
    fn put_new<T: Serialize>(&mut self, key: Key, body: &T) -> &mut Self {
        self.put_if(key, body, Some(Condition::plain("attribute_not_exists(pk)")))
    }

    /// Replaces an item if the condition holds. Attributes are written `#name`, as in
    /// [`Self::update`].
    fn put_where<T: Serialize, V: Serialize>(
        &mut self,
        key: Key,
        body: &T,
        condition: &str,
        values: &[(&str, V)],
    ) -> &mut Self {
        match Condition::with_values(condition, values) {
            Ok(condition) => self.put_if(key, body, Some(condition)),
            Err(_) => self.push(None),
        }
    }

    fn put_if<T: Serialize>(&mut self, key: Key, body: &T, condition: Option<Condition>) -> &mut Self {
        let condition = condition.unwrap_or_default();
        let put = write_item(key, body).ok().and_then(|item| {
            let put = Put::builder().table_name(&self.store.table).set_item(Some(item));
            let put =
                put.set_expression_attribute_names(condition.names).set_expression_attribute_values(condition.values);
            put.set_condition_expression(condition.expression).build().ok()
        });
        self.push(put.map(|put| TransactWriteItem::builder().put(put).build()))
    }

    /// Deletes an item if it exists.
    fn delete(&mut self, key: Key) -> &mut Self {
        self.delete_if(key, Condition::default())
    }

    /// Deletes an item that must exist.
    fn delete_existing(&mut self, key: Key) -> &mut Self {
        self.delete_if(key, Condition::plain("attribute_exists(pk)"))
    }

    /// Deletes an item if the condition holds. Attributes are written `#name`, as in
    /// [`Self::update`].
    fn delete_where<V: Serialize>(&mut self, key: Key, condition: &str, values: &[(&str, V)]) -> &mut Self {
        match Condition::with_values(condition, values) {
            Ok(condition) => self.delete_if(key, condition),
            Err(_) => self.push(None),
        }
    }

    fn delete_if(&mut self, key: Key, condition: Condition) -> &mut Self {
        let delete = Delete::builder().table_name(&self.store.table).set_key(Some(key_item(key)));
        let delete =
            delete.set_expression_attribute_names(condition.names).set_expression_attribute_values(condition.values);
        let delete = delete.set_condition_expression(condition.expression).build().ok();
        self.push(delete.map(|delete| TransactWriteItem::builder().delete(delete).build()))
    }

    /// Updates an item. Attributes are written `#name`, because DynamoDB reserves many plain names.
    fn update<V: Serialize>(&mut self, key: Key, expression: &str, condition: &str, values: &[(&str, V)]) -> &mut Self {
        let update = attribute_values(values).ok().and_then(|values| {
            let update = Update::builder().table_name(&self.store.table).set_key(Some(key_item(key)));
            let update = update.update_expression(expression).condition_expression(condition);
            let update = update.set_expression_attribute_names(names(&[expression, condition]));
            update.set_expression_attribute_values(given(values)).build().ok()
        });
        self.push(update.map(|update| TransactWriteItem::builder().update(update).build()))
    }

    /// Adds to a number attribute, which starts at 0.
    fn add(&mut self, key: Key, attribute: &str, amount: i64) -> &mut Self {
        let update = Update::builder().table_name(&self.store.table).set_key(Some(key_item(key)));
        let update = update.update_expression("ADD #attribute :amount");
        let update = update.expression_attribute_names("#attribute", attribute);
        let update = update.expression_attribute_values(":amount", AttributeValue::N(amount.to_string())).build().ok();
        self.push(update.map(|update| TransactWriteItem::builder().update(update).build()))
    }

    /// Requires that this item exists.
    fn require(&mut self, key: Key) -> &mut Self {
        let check = ConditionCheck::builder().table_name(&self.store.table).set_key(Some(key_item(key)));
        let check = check.condition_expression("attribute_exists(pk)").build().ok();
        self.push(check.map(|check| TransactWriteItem::builder().condition_check(check).build()))
    }

    /// Requires that this item does not exist.
    fn require_absent(&mut self, key: Key) -> &mut Self {
        let check = ConditionCheck::builder().table_name(&self.store.table).set_key(Some(key_item(key)));
        let check = check.condition_expression("attribute_not_exists(pk)").build().ok();
        self.push(check.map(|check| TransactWriteItem::builder().condition_check(check).build()))
    }

    /// Requires that this token exists and is not revoked.
    fn require_unrevoked(&mut self, key: Key) -> &mut Self {
        let condition = "attribute_exists(pk) AND attribute_not_exists(revoked_at)";
        let check = ConditionCheck::builder().table_name(&self.store.table).set_key(Some(key_item(key)));
        let check = check.condition_expression(condition).build().ok();
        self.push(check.map(|check| TransactWriteItem::builder().condition_check(check).build()))
    }

    /// Requires that this token was never used.
    fn require_unused(&mut self, key: Key) -> &mut Self {
        let check = ConditionCheck::builder().table_name(&self.store.table).set_key(Some(key_item(key)));
        let check = check.condition_expression("attribute_not_exists(last_used_at)").build().ok();
        self.push(check.map(|check| TransactWriteItem::builder().condition_check(check).build()))
    }

    /// Requires that the condition holds for this item.
    fn require_where<V: Serialize>(&mut self, key: Key, condition: &str, values: &[(&str, V)]) -> &mut Self {
        let check = attribute_values(values).ok().and_then(|values| {
            let check = ConditionCheck::builder().table_name(&self.store.table).set_key(Some(key_item(key)));
            let check = check.condition_expression(condition).set_expression_attribute_names(names(&[condition]));
            check.set_expression_attribute_values(given(values)).build().ok()
        });
        self.push(check.map(|check| TransactWriteItem::builder().condition_check(check).build()))
    }

    /// Adds an audit log entry, which never replaces another.
    fn audit(&mut self, log: impl Into<keys::Log>, entry: &audit::Entry) -> &mut Self {
        let log = log.into();
        let item = audit::stored(&log, entry);
        self.entry = Some(self.writes.len());
        self.put_new(keys::audit_entry(&log, &entry.id), &item)
    }

    fn push(&mut self, write: Option<TransactWriteItem>) -> &mut Self {
        match write {
            Some(write) => self.writes.push(write),
            None => self.defect = true,
        }
        self
    }

    /// Commits the writes. Retries if another transaction conflicts.
    async fn commit(&mut self) -> Result<Committed, StoreError> {
        let mut backoff = Backoff { tries: 0, at_most: self.attempts };
        loop {
            if let Some(committed) = self.try_commit(&mut backoff).await? {
                return Ok(committed);
            }
        }
    }

    /// Commits the writes, unless another transaction conflicts: then it pauses and returns `None`,
    /// so that the caller reads first whether there is still anything to write.
    async fn try_commit(&mut self, backoff: &mut Backoff) -> Result<Option<Committed>, StoreError> {
        if self.defect {
            tracing::error!("cannot build a transaction");
            return Err(StoreError::Defect);
        }
        // The client request token makes retries idempotent if a response is lost.
        let token = request_token()?;
        loop {
            let request = self.store.client.transact_write_items().client_request_token(&token);
            let request = request.set_transact_items(Some(self.writes.clone()));
            let result = request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
            let error = match result {
                Ok(output) => {
                    cost::add(Units::Write, output.consumed_capacity());
                    return Ok(Some(Committed::Yes));
                }
                Err(error) => error,
            };
            match cancellation(&error) {
                Some(Cancellation::ConditionFailed { first, all }) => {
                    cost::add(Units::Write, &[]);
                    // Its ID is new: if the entry exists, an earlier attempt was committed.
                    let is_committed = self.entry.is_some_and(|entry| all.contains(&entry));
                    return Ok(Some(if is_committed { Committed::Yes } else { Committed::No(first) }));
                }
                // Nothing was written: the next attempt is a new transaction.
                Some(Cancellation::Retry) => {
                    backoff.pause().await?;
                    return Ok(None);
                }
                // An earlier attempt with this token is still in progress: ask for its result.
                Some(Cancellation::InProgress) => backoff.pause().await?,
                None => return Err(failure(error)),
            }
        }
    }
}

/// A condition on the item that is written.
#[derive(Default)]
struct Condition {
    expression: Option<String>,
    names: Option<HashMap<String, String>>,
    values: Option<Item>,
}

impl Condition {
    fn plain(expression: &str) -> Self {
        Self { expression: Some(expression.to_owned()), ..Self::default() }
    }

    fn with_values<V: Serialize>(expression: &str, values: &[(&str, V)]) -> Result<Self, serde_dynamo::Error> {
        Ok(Self { names: names(&[expression]), values: Some(attribute_values(values)?), ..Self::plain(expression) })
    }
}

enum Cancellation {
    /// The indexes of the writes whose condition failed.
    ConditionFailed {
        first: usize,
        all: Vec<usize>,
    },
    Retry,
    InProgress,
}

/// A unique client request token.
fn request_token() -> Result<String, StoreError> {
    Ok(format!("{:020x}", crate::secret::random_80_bits()?))
}

/// Why a transaction was cancelled. `None` if it failed otherwise, or for an unknown reason.
fn cancellation(error: &SdkError<TransactWriteItemsError>) -> Option<Cancellation> {
    let cancelled = match error.as_service_error()? {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => cancelled,
        TransactWriteItemsError::TransactionInProgressException(_) => return Some(Cancellation::InProgress),
        _ => return None,
    };
    let codes: Vec<&str> = cancelled.cancellation_reasons().iter().map(|r| r.code().unwrap_or("None")).collect();
    let failed = codes.iter().enumerate().filter(|(_, code)| **code == "ConditionalCheckFailed");
    let all: Vec<usize> = failed.map(|(index, _)| index).collect();
    if let Some(&first) = all.first() {
        return Some(Cancellation::ConditionFailed { first, all });
    }
    let retryable = ["None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
    codes.iter().all(|code| retryable.contains(code)).then_some(Cancellation::Retry)
}

/// Exponential backoff with full jitter between attempts: at most 20 ms, then twice as long each
/// time, up to 640 ms. That is enough for 100 callers who all write one item in transactions of
/// 12 ms, and ends before Lambda's timeout.
struct Backoff {
    tries: u32,
    at_most: u32,
}

impl Backoff {
    const TRIES: u32 = 16;
    const LONGEST: u64 = 640;

    /// About 10 seconds in all.
    const PERSISTENT_TRIES: u32 = 36;

    fn new() -> Self {
        Self { tries: 0, at_most: Self::TRIES }
    }

    /// As [`Transaction::persistent`].
    fn persistent() -> Self {
        Self { tries: 0, at_most: Self::PERSISTENT_TRIES }
    }

    async fn pause(&mut self) -> Result<(), StoreError> {
        self.tries += 1;
        if self.tries >= self.at_most {
            tracing::warn!(tries = self.tries, "retries exhausted on a contended or throttled item");
            return Err(StoreError::Unavailable);
        }
        let longest = (10_u64 << self.tries.min(16)).min(Self::LONGEST);
        let jitter = u64::try_from(crate::secret::random_80_bits()? & 0xffff).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(1 + longest * jitter / 0xffff)).await;
        Ok(())
    }
}

/// Classifies an SDK error and logs its kind, but not its message, which may quote the request.
fn failure<E: ProvideErrorMetadata + std::fmt::Debug>(error: SdkError<E>) -> StoreError {
    let code = error.code().map(str::to_owned);
    let (kind, result) = match &error {
        SdkError::TimeoutError(_) => ("timeout", StoreError::Unavailable),
        SdkError::DispatchFailure(_) => ("dispatch", StoreError::Unavailable),
        SdkError::ResponseError(_) => ("response", StoreError::Unavailable),
        SdkError::ServiceError(context) => match code.as_deref() {
            Some(
                "ProvisionedThroughputExceededException"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "InternalServerError"
                | "TransactionConflictException"
                | "LimitExceededException",
            ) => ("service", StoreError::Unavailable),
            _ if context.raw().status().is_server_error() => ("service", StoreError::Unavailable),
            _ => ("service", StoreError::Defect),
        },
        _ => ("construction", StoreError::Defect),
    };
    tracing::error!(kind, code, "dynamodb request failed");
    result
}

fn attribute_values<V: Serialize>(values: &[(&str, V)]) -> Result<Item, serde_dynamo::Error> {
    values.iter().map(|(name, value)| Ok(((*name).to_owned(), serde_dynamo::to_attribute_value(value)?))).collect()
}

/// DynamoDB refuses a map of values that is empty.
fn given(values: Item) -> Option<Item> {
    Some(values).filter(|values| !values.is_empty())
}

/// Maps each `#name` in the expressions to the attribute `name`.
fn names(expressions: &[&str]) -> Option<HashMap<String, String>> {
    let words =
        expressions.iter().flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || "#_".contains(c))));
    let names = words.filter_map(|word| Some((word.to_owned(), word.strip_prefix('#')?.to_owned())));
    Some(names.collect::<HashMap<_, _>>()).filter(|names| !names.is_empty())
}

fn key_item(key: Key) -> Item {
    HashMap::from([(PK.to_owned(), AttributeValue::S(key.pk)), (SK.to_owned(), AttributeValue::S(key.sk))])
}

fn write_item<T: Serialize>(key: Key, body: &T) -> Result<Item, serde_dynamo::Error> {
    let mut item: Item = serde_dynamo::to_item(body)?;
    item.extend(key_item(key));
    Ok(item)
}

fn read_item<T: DeserializeOwned>(item: Item) -> Result<T, StoreError> {
    serde_dynamo::from_item(item).map_err(|_| {
        // The error would quote the item, so it is not logged.
        tracing::error!(item = std::any::type_name::<T>(), "cannot read a stored item");
        StoreError::Defect
    })
}
