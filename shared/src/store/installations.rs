//! The installation log: which file was downloaded with which token. A table of its own, in which an entry lives 14 days.
//!
//! # Keys
//!
//! An entry lies under a hash of what makes it one: token, package, file, and the client command it belongs to. So the
//! entry is its own check for duplicates: a retry meets it and is not logged again. A command is known by the session
//! that its client sends; without one, a minute stands for it.
//!
//! Nothing is read by that key. Three indexes list an organization's entries by id, which sorts by time:
//!
//! | index | partition | what is asked |
//! |---|---|---|
//! | `by_org` | `ORG#<org>#<ecosystem>#<shard>` | all of them |
//! | `by_user` | `ORG#<org>#USER#<user_identifier>#<ecosystem>#<shard>` | what did this user install? |
//! | `by_package` | `ORG#<org>#PACKAGE#<package>#<ecosystem>#<shard>` | who installed this package? |
//!
//! DynamoDB takes 1,000 units a second for one key. `SHARDS`, eight keys, take eight times that, should an organization
//! download just one package with just one token. The downloads of tokens that belong to no organization are in no index:
//! nobody lists them.
//!
//! # Cost
//!
//! | what | units |
//! |---|---|
//! | an entry, with its places in three indexes | 4 write units; of a person's token 1; each once more per further KB |
//! | a retry | 1 write unit |
//! | either, without a session | 1 read unit more |
//! | a page | half a read unit for each partition and 4 KB of it: 4 to 8 for a short page, 8 to 12 for 50 entries, whatever the log's length |

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keys::{PK, TTL};
use super::{Store, StoreError, failure, read_item, table};
use crate::clock::{Clock, Moment};
use crate::cost::{self, Units};
use crate::domain::Ecosystem;
use crate::ids::{InstallationId, OrgId, TokenId};

/// How long an entry is kept.
pub const RETENTION: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How many partitions each list of each ecosystem is spread over.
const SHARDS: u8 = 8;

/// How long downloads without a session are taken for one, in milliseconds.
const WINDOW: u64 = 60_000;

/// The sort key of the indexes.
const ID: &str = "id";
/// The index of all entries, and its partition key.
const BY_ORG: (&str, &str) = ("by_org", "org_pk");
/// The index by user, and its partition key.
const BY_USER: (&str, &str) = ("by_user", "user_pk");
/// The index by package, and its partition key.
const BY_PACKAGE: (&str, &str) = ("by_package", "package_pk");

/// A download of a file, as it happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Whose package.
    pub ecosystem: Ecosystem,
    /// Which package. PyPI's are logged under their normalized name.
    pub package: String,
    /// Which version.
    pub version: String,
    /// Which file.
    pub file: String,
    /// For whom: an org user token's `user_identifier`, or the masked address of an e-mail-verified one.
    pub user_identifier: String,
    /// With which token.
    pub token_id: TokenId,
    /// With which client, as it says itself: `npm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// With which version of it, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// By which of its commands, as it says itself: `ci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// In which of its runs, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<IpAddr>,
}

impl Download {
    /// The same as it is logged. What comes from outside is cut to a length that keeps an ordinary entry below 1 KB, and
    /// has no control characters.
    fn logged(&self) -> Self {
        let said = |text: &Option<String>| text.as_deref().map(|text| cut(text, 64)).filter(|text| !text.is_empty());
        Self {
            ecosystem: self.ecosystem,
            package: cut(&self.ecosystem.normalized(&self.package), 255),
            version: cut(&self.version, 255),
            file: cut(&self.file, 255),
            user_identifier: cut(&self.user_identifier, 255),
            token_id: self.token_id.clone(),
            client: said(&self.client),
            client_version: said(&self.client_version),
            command: said(&self.command),
            session: said(&self.session),
            source_ip: self.source_ip,
        }
    }

    /// A hash of what makes the entry one: token, file, and this command.
    fn hash(&self, command: [&str; 2]) -> Hash {
        let Self { ecosystem, token_id, .. } = self;
        let package = ecosystem.normalized(&self.package);
        let mut hasher = Sha256::new();
        for part in [token_id.as_str(), ecosystem.as_str(), &package, &self.file].into_iter().chain(command) {
            // The length in front keeps ("ab", "c") and ("a", "bc") apart.
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize()[..16]);
        Hash(u128::from_be_bytes(hash))
    }
}

/// At most so many bytes of a text, without control characters.
fn cut(text: &str, most: usize) -> String {
    let mut kept = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if kept.len() + character.len_utf8() > most {
            break;
        }
        kept.push(character);
    }
    kept
}

/// Names an entry: nobody can find two with the same one.
#[derive(Clone, Copy)]
struct Hash(u128);

impl Hash {
    /// The partition of the table.
    fn pk(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Which shard of each list the entry is in.
    fn shard(self) -> u8 {
        u8::try_from(self.0 % u128::from(SHARDS)).unwrap_or(0)
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Its id, which sorts by time.
    pub id: InstallationId,
    /// When.
    pub time: Moment,
    /// What.
    #[serde(flatten)]
    pub download: Download,
}

/// An entry with its keys, and what the time to live looks at.
#[derive(Serialize)]
struct Stored<'a> {
    pk: String,
    #[serde(flatten)]
    installation: &'a Installation,
    #[serde(flatten)]
    places: Option<Places>,
    ttl: i64,
}

/// An entry's partition in each index.
#[derive(Serialize)]
struct Places {
    org_pk: String,
    user_pk: String,
    package_pk: String,
}

fn stored<'a>(org: Option<&OrgId>, hash: Hash, installation: &'a Installation) -> Stored<'a> {
    let Download { ecosystem, package, user_identifier, .. } = &installation.download;
    let partition = |list: String| partition(&list, *ecosystem, hash.shard());
    Stored {
        pk: hash.pk(),
        installation,
        places: org.map(|org| Places {
            org_pk: partition(of_org(org)),
            user_pk: partition(of_user(org, user_identifier)),
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

/// What became of a download that was to be logged.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It has an entry.
    New,
    /// It is a retry of one that has an entry.
    Repeated,
}

/// How many times one call reads on for entries that all filters let through, and how many of each partition each time.
/// A call that finds too few answers a page that is not full, with a cursor.
const ROUNDS: usize = 10;
const ROUND: usize = 32;

/// Which entries to read, and from where on. What is given must all hold.
#[derive(Debug, Clone, Default)]
pub struct Search<'a> {
    /// Of this package, in any spelling that its ecosystem knows.
    pub package: Option<&'a str>,
    /// Of this ecosystem.
    pub ecosystem: Option<Ecosystem>,
    /// For this user.
    pub user_identifier: Option<&'a str>,
    /// At this moment or later.
    pub from: Option<Moment>,
    /// Before this moment.
    pub to: Option<Moment>,
    /// Behind this entry.
    pub after: Option<&'a InstallationId>,
    /// At most so many, at least one.
    pub limit: usize,
}

impl Search<'_> {
    /// The index that holds the fewest entries besides those searched for, and the partitions to read of it.
    fn partitions(&self, org: &OrgId) -> ((&'static str, &'static str), Vec<String>) {
        let ecosystems = Ecosystem::ALL.into_iter().filter(|each| self.ecosystem.is_none_or(|only| only == *each));
        let all = ecosystems.flat_map(|ecosystem| (0..SHARDS).map(move |shard| (ecosystem, shard)));
        match (self.package, self.user_identifier) {
            // One run of one client downloads hundreds of packages, but each just once.
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

    /// Whether an entry of these partitions is searched for.
    fn finds(&self, entry: &Installation) -> bool {
        self.user_identifier.is_none_or(|user| entry.download.user_identifier == user)
    }

    /// How many entries of each partition to read at a time.
    fn portion(&self, round: usize) -> usize {
        if round > 0 && self.package.is_some() && self.user_identifier.is_some() {
            return ROUND;
        }
        // An even share, and twice the square root of it: shards are filled by chance, and seldom have more.
        let share = (self.limit + 1).div_ceil(usize::from(SHARDS));
        share + 2 * share.isqrt()
    }
}

/// A part of the log.
#[derive(Debug, Default)]
pub struct Page {
    /// The entries, newest first.
    pub installations: Vec<Installation>,
    /// The entry behind which the next part begins; `None` where this was the last.
    pub next: Option<InstallationId>,
}

/// A partition of an index while it is being read, newest first.
struct Shard {
    pk: String,
    /// What was read and not yet looked at.
    entries: VecDeque<Installation>,
    /// Up to where it has not been read; `None` once all was.
    unread: Option<InstallationId>,
}

impl Shard {
    /// Whether it must be read on before it can be said which entry of the log is next.
    fn is_dry(&self) -> bool {
        self.entries.is_empty() && self.unread.is_some()
    }
}

/// The installation log.
#[derive(Debug, Clone)]
pub struct InstallationLog {
    client: Client,
    table: String,
    clock: Clock,
}

impl Store {
    /// The installation log in the table of this name, beside this one.
    pub fn installation_log(&self, table: impl Into<String>) -> InstallationLog {
        InstallationLog { client: self.client.clone(), table: table.into(), clock: self.clock.clone() }
    }
}

impl InstallationLog {
    /// Creates the table, with its indexes and time to live, unless it is there. True if it was not.
    pub async fn create_table(&self) -> Result<bool, StoreError> {
        let indexes = [BY_ORG, BY_USER, BY_PACKAGE].map(|(name, pk)| (name, pk, ID));
        table::create(&self.client, &self.table, (PK, None), &indexes).await
    }

    /// Logs a download with a token of this organization, or of none, unless it repeats one: the same file with the same
    /// token in the same session, or, where the client sends none, in the same minute. Two clients at once get one entry.
    /// Without a session they may get two if they call within milliseconds on both sides of a full minute.
    pub async fn record(&self, org: Option<&OrgId>, download: &Download) -> Result<Recorded, StoreError> {
        let id = InstallationId::new(&self.clock)?;
        let (now, time) = (id.milliseconds(), self.clock.now());
        let download = download.logged();
        let hash = match &download.session {
            Some(session) => download.hash(["session", session]),
            None => {
                let minute = now / WINDOW;
                let in_minute = |minute: u64| download.hash(["minute", &minute.to_string()]);
                let last = self.entry_id(in_minute(minute.saturating_sub(1))).await?;
                if last.is_some_and(|id| now.saturating_sub(id.milliseconds()) < WINDOW) {
                    return Ok(Recorded::Repeated);
                }
                in_minute(minute)
            }
        };
        let installation = Installation { id, time, download };
        let item = serde_dynamo::to_item(stored(org, hash, &installation)).map_err(|_| StoreError::Defect)?;
        let request = self.client.put_item().table_name(&self.table).set_item(Some(item));
        // One that has outlived its time is none, whether it was removed yet or not.
        let request = request.condition_expression("attribute_not_exists(pk) OR #ttl <= :now");
        let request = request.expression_attribute_names("#ttl", TTL);
        let now = AttributeValue::N(time.epoch_seconds().to_string());
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
        // Where an answer was lost and the SDK tried again, it meets what the first attempt wrote.
        let there = failed.item.clone().map(read_item::<Installation>).transpose()?;
        Ok(if there.is_some_and(|there| there.id == installation.id) { Recorded::New } else { Recorded::Repeated })
    }

    /// The id of an entry, if there is one.
    async fn entry_id(&self, hash: Hash) -> Result<Option<InstallationId>, StoreError> {
        let request = self.client.get_item().table_name(&self.table).key(PK, AttributeValue::S(hash.pk()));
        let request = request.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request.send().await.map_err(failure)?;
        cost::add(Units::Read, output.consumed_capacity.as_slice());
        Ok(output.item.map(read_item::<Installation>).transpose()?.map(|entry| entry.id))
    }

    /// Reads an organization's log, newest first. Entries show within about a second: indexes follow the table.
    pub async fn list(&self, org: &OrgId, search: &Search<'_>) -> Result<Page, StoreError> {
        // Ids sort by the time they were made at, so a time is a place. What is older than the log is long is not in it,
        // whether it was removed yet or not.
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
        let mut looked_at = search.after.cloned();
        for round in 0..ROUNDS {
            let dry = shards.iter_mut().filter(|shard| shard.is_dry());
            try_join_all(dry.map(|shard| self.read_on(index, shard, &first, search.portion(round)))).await?;
            while !shards.iter().any(Shard::is_dry) {
                // Each partition is in order, so the newest entry is the first of one of them.
                let newest = shards.iter_mut().max_by(|a, b| id_of_first(a).cmp(&id_of_first(b)));
                let Some(entry) = newest.and_then(|shard| shard.entries.pop_front()) else {
                    return Ok(page);
                };
                if search.finds(&entry) {
                    if page.installations.len() == search.limit {
                        page.next = looked_at;
                        return Ok(page);
                    }
                    looked_at = Some(entry.id.clone());
                    page.installations.push(entry);
                } else {
                    looked_at = Some(entry.id);
                }
            }
        }
        // Enough was looked at for one call: what is left is behind the cursor.
        page.next = looked_at;
        Ok(page)
    }

    /// Reads up to `count` more entries of a partition, back to `first`.
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
        // Only a missing key says that there is no more. No two entries have one id, so an id is a place to go on from.
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
            user_identifier: "alice-laptop".to_owned(),
            token_id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            client: Some("npm".to_owned()),
            client_version: Some("11.6.2".to_owned()),
            command: Some("ci".to_owned()),
            session: Some("8c1f3e0d52a9b764".to_owned()),
            source_ip: Some(IpAddr::from([203, 0, 113, 7])),
        }
    }

    fn of_org_and_person(download: &Download) -> [serde_json::Value; 2] {
        let time = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        let hash = download.hash(["session", "8c1f3e0d52a9b764"]);
        let id = InstallationId::parse("01M7YRRTBV0A12JNPMJ0EEKCFW").unwrap();
        let installation = Installation { id, time, download: download.logged() };
        let org = OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        [Some(&org), None].map(|org| serde_json::to_value(stored(org, hash, &installation)).unwrap())
    }

    /// The size of an item as DynamoDB counts it: names and values.
    fn size(item: &serde_json::Value) -> usize {
        let attributes = item.as_object().unwrap().iter();
        attributes.map(|(name, value)| name.len() + value.as_str().map_or(8, str::len)).sum()
    }

    #[test]
    fn the_stored_shape_is_pinned() {
        insta::assert_json_snapshot!(of_org_and_person(&download()));
    }

    #[test]
    fn an_entry_reads_back() {
        for item in of_org_and_person(&download()) {
            let read: Installation = serde_json::from_value(item).unwrap();
            assert_eq!(read.download, download());
            assert_eq!(read.id.milliseconds(), read.time.epoch_milliseconds() + 123);
        }
    }

    #[test]
    fn an_ordinary_entry_is_smaller_than_a_write_unit_and_none_is_large() {
        let [ordinary, _] = of_org_and_person(&download());
        assert!(size(&ordinary) < 800, "{}", size(&ordinary));
        let long = |text: Option<String>| text.map(|_| "x".repeat(10_000));
        let endless = Download {
            package: "p".repeat(10_000),
            version: "1".repeat(10_000),
            file: "f".repeat(10_000),
            user_identifier: "u".repeat(255),
            client: long(download().client),
            client_version: long(download().client_version),
            command: long(download().command),
            session: long(download().session),
            ..download()
        };
        let [largest, _] = of_org_and_person(&endless);
        assert!(size(&largest) < 3 * 1024, "{}", size(&largest));
    }

    #[test]
    fn what_a_client_says_is_cut_and_cleaned() {
        assert_eq!(cut("npm\r\n\u{7}\u{0}11", 64), "npm11");
        assert_eq!(cut("日本語", 7), "日本");
        let empty = Download { client: Some("\n".to_owned()), ..download() };
        assert_eq!(empty.logged().client, None);
    }

    #[test]
    fn what_makes_an_entry_one_tells_it_from_others() {
        let one = download();
        let others = [
            Download { ecosystem: Ecosystem::Pypi, ..one.clone() },
            Download { package: "@example/left".to_owned(), ..one.clone() },
            Download { package: "@example/left-padl".to_owned(), file: "eft-pad-1.3.0.tgz".to_owned(), ..one.clone() },
            Download { file: "left-pad-1.3.1.tgz".to_owned(), ..one.clone() },
            Download { token_id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WD").unwrap(), ..one.clone() },
        ];
        let hash = |download: &Download| download.hash(["session", "1"]).pk();
        for other in &others {
            assert_ne!(hash(other), hash(&one), "{other:?}");
        }
        assert_ne!(one.hash(["session", "1"]).pk(), one.hash(["minute", "1"]).pk());
        let same = Download { version: "2".to_owned(), client: None, source_ip: None, ..one.clone() };
        assert_eq!(hash(&same), hash(&one));
    }
}
