//! The installation log: which file was downloaded with which token. It is a separate table that
//! keeps entries for 14 days.
//!
//! # Keys
//!
//! The key of an entry is a hash of token, package, file, client, command and run. A retry therefore
//! hits the existing entry and is not logged again. The session that the client sends identifies
//! its run; without a session, the minute does. The client's version is not part of the key. The
//! token is in it by its own hash, so that the entry is looked up while the token is being read.
//!
//! Lists do not use that key. Three indexes list an organization's entries by ID, which sorts by
//! time:
//!
//! | index | partition | question |
//! |---|---|---|
//! | `by_org` | `ORG#<org>#<ecosystem>#<shard>` | all of them |
//! | `by_user` | `ORG#<org>#USER#<user_identifier>#<ecosystem>#<shard>` | what did this user install? |
//! | `by_package` | `ORG#<org>#PACKAGE#<package>#<ecosystem>#<shard>` | who installed this package? |
//!
//! DynamoDB accepts 1,000 write units per second and partition key. Eight partitions (`SHARDS`)
//! accept eight times that, even if an organization downloads a single package with a single token.
//! Downloads with tokens outside organizations are in no index, because nobody lists them.
//!
//! # Counters
//!
//! Beside each new entry of an organization, a counter of the day and ecosystem is incremented, for
//! the overview. Counters have as many shards as the lists. They are not in a transaction with the
//! entry: transactions on one item conflict, and one install downloads a thousand files. An entry is
//! counted at most once, because the request is not repeated; one that fails leaves it uncounted. If
//! another call writes the same entry between look-up and write, the count is taken back.
//!
//! # Cost
//!
//! | operation | units |
//! |---|---|
//! | new entry with three index entries | 4 write units, or 1 for an email-verified token; the same again per additional KB |
//! | counter of an organization's new entry | 1 write unit |
//! | retry | none; 1 write unit if it comes at the same time |
//! | either of them | 1 additional read unit, or 2 without a session |
//! | page | half a read unit per partition and 4 KB: 4 to 8 for a short page, 8 to 12 for 50 entries, regardless of the log's size |
//! | counters of 14 days | half a read unit per day and shard: 56 |

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Config;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
};
use futures::future::{OptionFuture, try_join_all};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::keys::{PK, TTL};
use super::usage::Day;
use super::{Backoff, Store, StoreError, failure, read_item, table};
use crate::clock::{Clock, Moment};
use crate::cost::{self, Units};
use crate::domain::Ecosystem;
use crate::ids::{InstallationId, OrgId, TokenId};
use crate::secret::TokenHash;

/// How long entries are kept.
pub const RETENTION: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Days of the overview, today included, and how much longer their counters are kept.
const DAYS: u32 = 14;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const COUNTERS_KEPT: Duration = Duration::from_secs(17 * 24 * 60 * 60);

/// Partitions per list and ecosystem, and counters per day.
const SHARDS: u8 = 8;

/// Window in which repeated downloads without a session are one entry, in milliseconds.
const WINDOW: u64 = 60_000;

/// The sort key of the indexes.
const ID: &str = "id";
/// The index of all entries, and its partition key.
const BY_ORG: (&str, &str) = ("by_org", "org_pk");
/// The index by user, and its partition key.
const BY_USER: (&str, &str) = ("by_user", "user_pk");
/// The index by package, and its partition key.
const BY_PACKAGE: (&str, &str) = ("by_package", "package_pk");

/// A download to log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// The ecosystem of the package.
    pub ecosystem: Ecosystem,
    /// The package. PyPI packages are logged under their normalized name.
    pub package: String,
    /// The version.
    pub version: String,
    /// The file.
    pub file: String,
    /// The `user_identifier` of an org user token. `None` for other tokens; up to 0.1 the masked
    /// address of an email-verified one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_identifier: Option<String>,
    /// The management ID of the token.
    pub token_id: TokenId,
    /// The CI job that holds a bot token, as its ID token names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The client as it reports itself, such as `npm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The reported client version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// The reported client command, such as `ci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The reported session, one per run of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<IpAddr>,
}

impl Download {
    /// The download as logged: client input is truncated, so that a typical entry stays below 1 KB,
    /// and stripped of control characters.
    fn logged(&self) -> Self {
        Self {
            ecosystem: self.ecosystem,
            package: truncated(&self.ecosystem.normalized(&self.package), 255),
            version: truncated(&self.version, 255),
            file: truncated(&self.file, 255),
            user_identifier: self.user_identifier.as_deref().map(|user| truncated(user, 255)),
            token_id: self.token_id.clone(),
            subject: self.subject.as_deref().map(|subject| truncated(subject, 255)),
            client: reported(self.client.as_deref()),
            client_version: reported(self.client_version.as_deref()),
            command: reported(self.command.as_deref()),
            session: reported(self.session.as_deref()),
            source_ip: self.source_ip,
        }
    }

    /// What identifies it, if it is made with this token.
    pub fn attempt(&self, token: TokenHash) -> Attempt<'_> {
        let Self { ecosystem, package, file, client, command, session, .. } = self;
        let [client, command, session] = [client, command, session].map(Option::as_deref);
        Attempt { token, ecosystem: *ecosystem, package, file, client, command, session }
    }
}

/// What identifies a download, apart from its time. It is known before the token is read.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The token.
    pub token: TokenHash,
    /// The ecosystem of the package.
    pub ecosystem: Ecosystem,
    /// The package.
    pub package: &'a str,
    /// The file.
    pub file: &'a str,
    /// The client as it reports itself.
    pub client: Option<&'a str>,
    /// The reported client command.
    pub command: Option<&'a str>,
    /// The reported session.
    pub session: Option<&'a str>,
}

impl Attempt<'_> {
    /// The hash of token, package, file, client, command and run that identifies an entry.
    fn hash(&self, run: [&str; 2]) -> Hash {
        let package = truncated(&self.ecosystem.normalized(self.package), 255);
        let [client, command] = [self.client, self.command].map(|text| reported(text).unwrap_or_default());
        let token = self.token.to_hex();
        let file = [&token, self.ecosystem.as_str(), &package, &truncated(self.file, 255)];
        let mut hasher = Sha256::new();
        for part in file.into_iter().chain([client.as_str(), &command]).chain(run) {
            // The length prefix distinguishes ("ab", "c") from ("a", "bc").
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize()[..16]);
        Hash(u128::from_be_bytes(hash))
    }
}

/// The place of a new entry. Where it is decides whether a download is one that is already logged.
#[derive(Debug, Clone)]
pub struct Place {
    id: InstallationId,
    time: Moment,
    hash: Hash,
}

/// What a client reports about itself, as logged.
fn reported(text: Option<&str>) -> Option<String> {
    text.map(|text| truncated(text, 64)).filter(|text| !text.is_empty())
}

/// Truncates a text to this many bytes and removes control characters.
fn truncated(text: &str, most: usize) -> String {
    let mut kept = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if kept.len() + character.len_utf8() > most {
            break;
        }
        kept.push(character);
    }
    kept
}

/// The collision-resistant hash that identifies an entry.
#[derive(Debug, Clone, Copy)]
struct Hash(u128);

impl Hash {
    /// The partition key in the table.
    fn pk(self) -> String {
        format!("{:032x}", self.0)
    }

    /// The shard of the entry in each list.
    fn shard(self) -> u8 {
        u8::try_from(self.0 % u128::from(SHARDS)).unwrap_or(0)
    }
}

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Its ID, which sorts by time.
    pub id: InstallationId,
    /// The time of the download.
    pub time: Moment,
    /// The download.
    #[serde(flatten)]
    pub download: Download,
}

/// An entry with its keys and TTL.
#[derive(Serialize)]
struct Stored<'a> {
    pk: String,
    #[serde(flatten)]
    installation: &'a Installation,
    #[serde(flatten)]
    index_keys: Option<IndexKeys>,
    ttl: i64,
}

/// The partition keys of an entry in the indexes.
#[derive(Serialize)]
struct IndexKeys {
    org_pk: String,
    /// A bot token has no user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_pk: Option<String>,
    package_pk: String,
}

fn stored<'a>(org: Option<&OrgId>, hash: Hash, installation: &'a Installation) -> Stored<'a> {
    let Download { ecosystem, package, user_identifier, .. } = &installation.download;
    let partition = |list: String| partition(&list, *ecosystem, hash.shard());
    Stored {
        pk: hash.pk(),
        installation,
        index_keys: org.map(|org| IndexKeys {
            org_pk: partition(of_org(org)),
            user_pk: user_identifier.as_deref().map(|user| partition(of_user(org, user))),
            package_pk: partition(of_package(org, package)),
        }),
        ttl: installation.time.plus(RETENTION).epoch_seconds(),
    }
}

fn of_org(org: &OrgId) -> String {
    format!("ORG#{org}")
}

fn of_user(org: &OrgId, user_identifier: &str) -> String {
    format!("ORG#{org}#USER#{user_identifier}")
}

fn of_package(org: &OrgId, package: &str) -> String {
    format!("ORG#{org}#PACKAGE#{package}")
}

fn partition(list: &str, ecosystem: Ecosystem, shard: u8) -> String {
    let ecosystem = match ecosystem {
        Ecosystem::Npm => "NPM",
        Ecosystem::Pypi => "PYPI",
    };
    format!("{list}#{ecosystem}#{shard}")
}

/// The partition key of one shard of an organization's counters of a day, such as `2026-11-21`. Its
/// attributes are the ecosystems.
fn counter(org: &OrgId, day: &str, shard: u8) -> String {
    format!("ORG#{org}#{day}#{shard}")
}

/// One shard of the counters of a day.
#[derive(Deserialize)]
struct Counter {
    pk: String,
    #[serde(default)]
    npm: u64,
    #[serde(default)]
    pypi: u64,
}

impl Counter {
    fn is_of(&self, day: &str) -> bool {
        self.pk.split('#').nth(2) == Some(day)
    }
}

/// The result of logging a download.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// A new entry was written.
    New,
    /// It repeats a download that is already logged.
    Repeated,
}

/// Maximum reads per call if filters drop most entries, and entries per partition and read. After
/// that, the call returns a partial page with a cursor.
const ROUNDS: usize = 10;
const ROUND: usize = 32;

/// A search with filters, all of which must match.
#[derive(Debug, Clone, Default)]
pub struct Search<'a> {
    /// Of this package, in any spelling that is equivalent in its ecosystem.
    pub package: Option<&'a str>,
    /// Of this ecosystem.
    pub ecosystem: Option<Ecosystem>,
    /// For this user.
    pub user_identifier: Option<&'a str>,
    /// With this token.
    pub token_id: Option<&'a TokenId>,
    /// At this time or later.
    pub from: Option<Moment>,
    /// Before this time.
    pub to: Option<Moment>,
    /// After this entry, in page order.
    pub after: Option<&'a InstallationId>,
    /// Maximum number of results, at least 1.
    pub limit: usize,
}

impl Search<'_> {
    /// The most selective index for this search, and its partitions to read.
    fn partitions(&self, org: &OrgId) -> ((&'static str, &'static str), Vec<String>) {
        let ecosystems = Ecosystem::ALL.iter().copied().filter(|each| self.ecosystem.is_none_or(|only| only == *each));
        let all = ecosystems.flat_map(|ecosystem| (0..SHARDS).map(move |shard| (ecosystem, shard)));
        match (self.package, self.user_identifier) {
            // One run of a client downloads hundreds of packages, but each only once.
            (Some(package), _) => {
                let list = |ecosystem: Ecosystem| of_package(org, &ecosystem.normalized(package));
                (BY_PACKAGE, all.map(|(each, shard)| partition(&list(each), each, shard)).collect())
            }
            (None, Some(user)) => {
                let list = of_user(org, user);
                (BY_USER, all.map(|(each, shard)| partition(&list, each, shard)).collect())
            }
            (None, None) => (BY_ORG, all.map(|(each, shard)| partition(&of_org(org), each, shard)).collect()),
        }
    }

    /// Whether an entry of these partitions matches all filters.
    fn matches(&self, entry: &Installation) -> bool {
        self.user_identifier.is_none_or(|user| entry.download.user_identifier.as_deref() == Some(user))
            && self.token_id.is_none_or(|token| entry.download.token_id == *token)
    }

    /// Entries to read per partition in this round.
    fn entries_per_round(&self, round: usize) -> usize {
        let drops_entries = self.package.is_some() && self.user_identifier.is_some() || self.token_id.is_some();
        if round > 0 && drops_entries {
            return ROUND;
        }
        // An even share plus twice its square root: shards fill randomly and rarely hold more.
        let share = (self.limit + 1).div_ceil(usize::from(SHARDS));
        share + 2 * share.isqrt()
    }
}

/// A page of the log.
#[derive(Debug, Default)]
pub struct Page {
    /// The entries, newest first.
    pub installations: Vec<Installation>,
    /// The entry after which the next page starts; `None` on the last page.
    pub next: Option<InstallationId>,
}

/// An index partition that is being read, newest first.
struct Shard {
    pk: String,
    /// Entries read but not yet processed.
    entries: VecDeque<Installation>,
    /// Where to continue reading; `None` once everything is read.
    unread: Option<InstallationId>,
}

impl Shard {
    /// Whether more must be read before the next entry of the log is known.
    fn needs_more(&self) -> bool {
        self.entries.is_empty() && self.unread.is_some()
    }
}

/// The installation log.
#[derive(Debug, Clone)]
pub struct InstallationLog {
    client: Client,
    table: String,
    clock: Clock,
    patience: Duration,
}

impl Store {
    /// The installation log in this table.
    pub fn installation_log(&self, table: impl Into<String>) -> InstallationLog {
        let (client, clock, patience) = (self.client.clone(), self.clock.clone(), self.patience());
        InstallationLog { client, table: table.into(), clock, patience }
    }
}

impl InstallationLog {
    /// How long recording a download may delay the response.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Creates the table with its indexes and TTL. False if it already exists.
    pub async fn create_table(&self) -> Result<bool, StoreError> {
        let indexes = [BY_ORG, BY_USER, BY_PACKAGE].map(|(name, pk)| (name, pk, ID));
        table::create(&self.client, &self.table, (PK, None), &indexes).await
    }

    /// The place of a download's entry; `None` if it is already logged. The same file with the same
    /// token, client and command in the same session, or without a session in the same minute, is
    /// one download. Without a session, two calls within milliseconds around a full minute may both
    /// be logged.
    ///
    /// Nothing is written, so the token need not be known to be active. A read that fails leaves a
    /// retry to [`Self::write`], which finds it unless it crosses a full minute.
    pub async fn look_up(&self, attempt: Attempt<'_>) -> Result<Option<Place>, StoreError> {
        let id = InstallationId::new(&self.clock)?;
        let (now, time) = (id.milliseconds(), self.clock.now());
        let (hash, previous) = match reported(attempt.session) {
            Some(session) => (attempt.hash(["session", &session]), None),
            None => {
                let minute = now / WINDOW;
                let in_minute = |minute: u64| attempt.hash(["minute", &minute.to_string()]);
                (in_minute(minute), Some(in_minute(minute.saturating_sub(1))))
            }
        };
        let previous = OptionFuture::from(previous.map(|previous| self.entry(previous)));
        let (same, previous) = futures::join!(self.entry(hash), previous);
        let is_kept = |entry: Installation| entry.time.plus(RETENTION) > time;
        let is_recent = |entry: Installation| now.saturating_sub(entry.id.milliseconds()) < WINDOW;
        let is_logged =
            same.ok().flatten().is_some_and(is_kept) || previous.and_then(Result::ok).flatten().is_some_and(is_recent);
        Ok((!is_logged).then_some(Place { id, time, hash }))
    }

    /// Logs a download with a token of this organization, or of none, at a place that was looked up,
    /// unless another call has taken it since. `count` counts the download elsewhere: it runs beside
    /// the write with 1, and with -1 if there was nothing to count.
    ///
    /// All of it ends by the deadline. An entry that is written by then is logged, counted or not.
    pub async fn write<F: Future<Output = ()>>(
        &self,
        org: Option<&OrgId>,
        place: Place,
        download: &Download,
        deadline: Instant,
        count: impl Fn(i64) -> F,
    ) -> Result<Recorded, StoreError> {
        let Place { id, time, hash } = place;
        let installation = Installation { id, time, download: download.logged() };
        let counted = async |number| {
            let counting = async {
                futures::join!(self.count(org, hash.shard(), &installation, number), count(number));
            };
            if timeout_at(deadline, counting).await.is_err() {
                tracing::warn!("an installation was not counted in time");
            }
        };
        let put = timeout_at(deadline, self.put(org, hash, &installation));
        let (recorded, ()) = futures::join!(put, counted(1));
        let recorded = recorded.map_err(|_| StoreError::Unavailable)??;
        if recorded == Recorded::Repeated {
            counted(-1).await;
        }
        Ok(recorded)
    }

    /// Looks a download up and logs it: [`Self::look_up`] and [`Self::write`], in a minute at most.
    pub async fn record(
        &self,
        org: Option<&OrgId>,
        token: TokenHash,
        download: &Download,
    ) -> Result<Recorded, StoreError> {
        match self.look_up(download.attempt(token)).await? {
            Some(place) => {
                let deadline = Instant::now() + Duration::from_secs(60);
                self.write(org, place, download, deadline, async |_| ()).await
            }
            None => Ok(Recorded::Repeated),
        }
    }

    /// Writes an entry, unless there is one.
    async fn put(&self, org: Option<&OrgId>, hash: Hash, installation: &Installation) -> Result<Recorded, StoreError> {
        let item = serde_dynamo::to_item(stored(org, hash, installation)).map_err(|_| StoreError::Defect)?;
        let request = self.client.put_item().table_name(&self.table).set_item(Some(item));
        // Expired entries are overwritten, even if TTL has not deleted them yet.
        let request = request.condition_expression("attribute_not_exists(pk) OR #ttl <= :now");
        let request = request.expression_attribute_names("#ttl", TTL);
        let now = AttributeValue::N(installation.time.epoch_seconds().to_string());
        let request = request.expression_attribute_values(":now", now);
        let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(output) => {
                cost::add(Units::Write, output.consumed_capacity.as_slice());
                return Ok(Recorded::New);
            }
            Err(error) => error,
        };
        let Some(PutItemError::ConditionalCheckFailedException(failed)) = error.as_service_error() else {
            return Err(failure(error));
        };
        cost::add(Units::Write, &[]);
        // If a response was lost, the SDK's retry finds the entry of the first attempt.
        let there = failed.item.clone().map(read_item::<Installation>).transpose()?;
        let is_own = there.is_some_and(|there| there.id == installation.id);
        Ok(if is_own { Recorded::New } else { Recorded::Repeated })
    }

    /// Adds a number to the counter of an organization's entries. An entry that is not counted is
    /// still logged.
    async fn count(&self, org: Option<&OrgId>, shard: u8, entry: &Installation, added: i64) {
        let Some(org) = org else { return };
        let number = |number: i64| AttributeValue::N(number.to_string());
        let one_of = |ecosystem| number(if entry.download.ecosystem == ecosystem { added } else { 0 });
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(PK, AttributeValue::S(counter(org, &entry.time.date(), shard)))
            .update_expression("SET #ttl = if_not_exists(#ttl, :end) ADD npm :npm, pypi :pypi")
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(":end", number(entry.time.plus(COUNTERS_KEPT).epoch_seconds()))
            .expression_attribute_values(":npm", one_of(Ecosystem::Npm))
            .expression_attribute_values(":pypi", one_of(Ecosystem::Pypi))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize()
            // A request that is repeated because its answer was lost would count twice.
            .config_override(Config::builder().retry_config(RetryConfig::disabled()));
        match request.send().await {
            Ok(output) => cost::add(Units::Write, output.consumed_capacity.as_slice()),
            Err(error) => {
                let error = failure(error);
                tracing::warn!(%error, "an installation was not counted");
            }
        }
    }

    /// What an organization installed on each of the last 14 days, oldest first. Days without
    /// installations are included.
    pub async fn by_day(&self, org: &OrgId) -> Result<Vec<Day>, StoreError> {
        let now = self.clock.now();
        let days: Vec<String> = (0..DAYS).rev().map(|ago| now.minus(DAY * ago).date()).collect();
        let keys = days.iter().flat_map(|day| (0..SHARDS).map(move |shard| counter(org, day, shard)));
        let keys: Vec<String> = keys.collect();
        // DynamoDB reads up to 100 items in one call.
        let found = try_join_all(keys.chunks(keys.len() / 2).map(|keys| self.counters(keys))).await?;
        let counters: Vec<Counter> = found.into_iter().flatten().collect();
        let day = |date: String| {
            let (npm, pypi) = counters
                .iter()
                .filter(|counter| counter.is_of(&date))
                .fold((0, 0), |(npm, pypi), counter| (npm + counter.npm, pypi + counter.pypi));
            Day { date, npm, pypi }
        };
        Ok(days.into_iter().map(day).collect())
    }

    /// The counters at these keys that exist.
    async fn counters(&self, keys: &[String]) -> Result<Vec<Counter>, StoreError> {
        let mut found = Vec::new();
        let key = |pk: &String| HashMap::from([(PK.to_owned(), AttributeValue::S(pk.clone()))]);
        let mut missing: Vec<_> = keys.iter().map(key).collect();
        let mut backoff = Backoff::new();
        while !missing.is_empty() {
            let keys = KeysAndAttributes::builder().set_keys(Some(std::mem::take(&mut missing)));
            let keys = keys.build().map_err(|_| StoreError::Defect)?;
            let request = self.client.batch_get_item().request_items(&self.table, keys);
            let output =
                request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(failure)?;
            cost::add(Units::Read, output.consumed_capacity());
            for item in output.responses.unwrap_or_default().into_values().flatten() {
                found.push(read_item(item)?);
            }
            // DynamoDB returns the keys that it had no capacity to read.
            if let Some(rest) = output.unprocessed_keys.unwrap_or_default().remove(&self.table) {
                missing = rest.keys;
                backoff.pause().await?;
            }
        }
        Ok(found)
    }

    /// The entry at this place, if there is one.
    async fn entry(&self, hash: Hash) -> Result<Option<Installation>, StoreError> {
        let request = self.client.get_item().table_name(&self.table).key(PK, AttributeValue::S(hash.pk()));
        let request = request.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request.send().await.map_err(failure)?;
        cost::add(Units::Read, output.consumed_capacity.as_slice());
        output.item.map(read_item::<Installation>).transpose()
    }

    /// Reads an organization's log, newest first. Indexes are eventually consistent: entries appear
    /// within about a second.
    pub async fn list(&self, org: &OrgId, search: &Search<'_>) -> Result<Page, StoreError> {
        // IDs sort by creation time, so a time maps to a sort key. Entries past retention are
        // hidden, even if TTL has not deleted them yet.
        let kept = self.clock.now().minus(RETENTION);
        let first = InstallationId::first_at(search.from.map_or(kept, |from| from.max(kept)));
        let last = match search.to {
            Some(to) => InstallationId::last_before(to),
            None => InstallationId::last(),
        };
        let last = search.after.map_or(last.clone(), |after| after.before().min(last));
        if first > last {
            return Ok(Page::default());
        }
        let (index, partitions) = search.partitions(org);
        let shard = |pk| Shard { pk, entries: VecDeque::new(), unread: Some(last.clone()) };
        let mut shards: Vec<Shard> = partitions.into_iter().map(shard).collect();
        let mut page = Page::default();
        let mut last_seen = search.after.cloned();
        for round in 0..ROUNDS {
            let incomplete = shards.iter_mut().filter(|shard| shard.needs_more());
            try_join_all(incomplete.map(|shard| self.read_on(index, shard, &first, search.entries_per_round(round))))
                .await?;
            while !shards.iter().any(Shard::needs_more) {
                // Each partition is sorted, so the newest entry is the first of one of them.
                let newest = shards.iter_mut().max_by(|a, b| id_of_first(a).cmp(&id_of_first(b)));
                let Some(entry) = newest.and_then(|shard| shard.entries.pop_front()) else {
                    return Ok(page);
                };
                if search.matches(&entry) {
                    if page.installations.len() == search.limit {
                        page.next = last_seen;
                        return Ok(page);
                    }
                    last_seen = Some(entry.id.clone());
                    page.installations.push(entry);
                } else {
                    last_seen = Some(entry.id);
                }
            }
        }
        // This call has read enough: the cursor leads to the rest.
        page.next = last_seen;
        Ok(page)
    }

    /// Reads up to `count` more entries of a partition, not older than `first`.
    async fn read_on(
        &self,
        (index, pk): (&str, &str),
        shard: &mut Shard,
        first: &InstallationId,
        count: usize,
    ) -> Result<(), StoreError> {
        let Some(last) = &shard.unread else { return Ok(()) };
        let text = |id: &InstallationId| AttributeValue::S(id.to_string());
        let request = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(index)
            .key_condition_expression("#pk = :pk AND #id BETWEEN :first AND :last")
            .set_expression_attribute_names(Some(HashMap::from([
                ("#pk".to_owned(), pk.to_owned()),
                ("#id".to_owned(), ID.to_owned()),
            ])))
            .expression_attribute_values(":pk", AttributeValue::S(shard.pk.clone()))
            .expression_attribute_values(":first", text(first))
            .expression_attribute_values(":last", text(last))
            .scan_index_forward(false)
            .limit(i32::try_from(count).unwrap_or(i32::MAX))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request.send().await.map_err(failure)?;
        cost::add(Units::Read, output.consumed_capacity.as_slice());
        for item in output.items.unwrap_or_default() {
            shard.entries.push_back(read_item(item)?);
        }
        // Only a missing key means that there are no more entries. IDs are unique, so reading
        // continues from an ID.
        let oldest = shard.entries.back().map(|entry| entry.id.before());
        shard.unread = output.last_evaluated_key.and(oldest.or(shard.unread.take())).filter(|last| last >= first);
        Ok(())
    }
}

fn id_of_first(shard: &Shard) -> Option<&InstallationId> {
    shard.entries.front().map(|entry| &entry.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download() -> Download {
        Download {
            ecosystem: Ecosystem::Npm,
            package: "@example/left-pad".to_owned(),
            version: "1.3.0".to_owned(),
            file: "left-pad-1.3.0.tgz".to_owned(),
            user_identifier: Some("alice-laptop".to_owned()),
            token_id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            subject: None,
            client: Some("npm".to_owned()),
            client_version: Some("11.6.2".to_owned()),
            command: Some("ci".to_owned()),
            session: Some("8c1f3e0d52a9b764".to_owned()),
            source_ip: Some(IpAddr::from([203, 0, 113, 7])),
        }
    }

    fn token() -> TokenHash {
        TokenHash::of_text("a token")
    }

    fn org_and_personal_items(download: &Download) -> [serde_json::Value; 2] {
        let time = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        let hash = download.attempt(token()).hash(["session", "8c1f3e0d52a9b764"]);
        let id = InstallationId::parse("01M7YRRTBV0A12JNPMJ0EEKCFW").unwrap();
        let installation = Installation { id, time, download: download.logged() };
        let org = OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        [Some(&org), None].map(|org| serde_json::to_value(stored(org, hash, &installation)).unwrap())
    }

    /// The size of an item as DynamoDB counts it: attribute names and values.
    fn size(item: &serde_json::Value) -> usize {
        let attributes = item.as_object().unwrap().iter();
        attributes.map(|(name, value)| name.len() + value.as_str().map_or(8, str::len)).sum()
    }

    #[test]
    fn stored_item_matches_its_snapshot() {
        insta::assert_json_snapshot!(org_and_personal_items(&download()));
    }

    #[test]
    fn stored_entry_round_trips() {
        for item in org_and_personal_items(&download()) {
            let read: Installation = serde_json::from_value(item).unwrap();
            assert_eq!(read.download, download());
            assert_eq!(read.id.milliseconds(), read.time.epoch_milliseconds() + 123);
        }
    }

    #[test]
    fn typical_entry_fits_one_write_unit_and_largest_fits_three() {
        let [ordinary, _] = org_and_personal_items(&download());
        assert!(size(&ordinary) < 800, "{}", size(&ordinary));
        let long = |text: Option<String>| text.map(|_| "x".repeat(10_000));
        let endless = Download {
            package: "p".repeat(10_000),
            version: "1".repeat(10_000),
            file: "f".repeat(10_000),
            user_identifier: Some("u".repeat(255)),
            client: long(download().client),
            client_version: long(download().client_version),
            command: long(download().command),
            session: long(download().session),
            ..download()
        };
        let [largest, _] = org_and_personal_items(&endless);
        assert!(size(&largest) < 3 * 1024, "{}", size(&largest));
    }

    #[test]
    fn client_input_is_truncated_and_stripped_of_control_characters() {
        assert_eq!(truncated("npm\r\n\u{7}\u{0}11", 64), "npm11");
        assert_eq!(truncated("日本語", 7), "日本");
        let empty = Download { client: Some("\n".to_owned()), ..download() };
        assert_eq!(empty.logged().client, None);
    }

    #[test]
    fn entry_is_identified_by_token_package_file_client_and_command() {
        let one = download();
        let others = [
            Download { ecosystem: Ecosystem::Pypi, ..one.clone() },
            Download { package: "@example/left".to_owned(), ..one.clone() },
            Download { package: "@example/left-padl".to_owned(), file: "eft-pad-1.3.0.tgz".to_owned(), ..one.clone() },
            Download { file: "left-pad-1.3.1.tgz".to_owned(), ..one.clone() },
            Download { client: Some("pnpm".to_owned()), ..one.clone() },
            Download { command: Some("install".to_owned()), ..one.clone() },
            Download { command: None, ..one.clone() },
        ];
        let hash = |download: &Download| download.attempt(token()).hash(["session", "1"]).pk();
        for other in &others {
            assert_ne!(hash(other), hash(&one), "{other:?}");
        }
        let other = one.attempt(TokenHash::of_text("other"));
        assert_ne!(other.hash(["session", "1"]).pk(), hash(&one));
        let run = |kind| one.attempt(token()).hash([kind, "1"]).pk();
        assert_ne!(run("session"), run("minute"));
        let same =
            Download { version: "2".to_owned(), client_version: Some("12".to_owned()), source_ip: None, ..one.clone() };
        assert_eq!(hash(&same), hash(&one));
    }
}
