//! What a removed email-verified token leaves, and its erasure 7 days later.
//!
//! Its holder's revocation deletes the token and the mail address at once, and leaves an erasure to
//! do: an item in a partition that is in the order in which erasures are due. A scheduled function
//! takes what is due and erases
//!
//! 1. the usage of every token that the address has had until then;
//! 2. the source addresses in the address's audit entries until then. The entries end 30 days later;
//! 3. the item itself, last.
//!
//! If the address has registered again, what belongs to its new token stays.
//!
//! Every step can be repeated: a run that was killed is continued by the next one, and two runs at
//! once do no harm. Long logs are erased page by page; the item remembers how far.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::audit::{Entry, Subject};
use super::keys::{self, Key, Log};
use super::tokens::EmailToken;
use super::{Committed, Range, SortKeys, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::email::AddressHash;
use crate::ids::{AuditId, TokenId};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the history of a removed token is kept, so that a thief who removes it wipes no traces
/// before its holder has read the mail.
pub const DELAY: Duration = DAY.saturating_mul(7);

/// How long audit entries are kept after their source addresses were erased.
pub const REMAINDER: Duration = DAY.saturating_mul(30);

/// How much the clocks may differ that the IDs of entries come from.
const SKEW: Duration = Duration::from_secs(60);

/// Erasures per query, and audit entries per step.
const PAGE: usize = 100;

/// Tokens or entries of a page that are erased at the same time.
const CONCURRENCY: usize = 16;

/// The erasure of what a removed token has left.
#[derive(Debug)]
pub struct Erasure {
    key: Key,
    stored: Stored,
}

/// A stored erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// The address that the token belonged to.
    address: AddressHash,
    /// The audit entry of the removal: it and those before it are erased.
    removal: AuditId,
    /// When the token was removed.
    removed_at: Moment,
    /// The last entry that was erased, once a step has left others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<AuditId>,
}

/// What erasing looks at in an audit entry.
#[derive(Debug, Deserialize)]
struct Traced {
    id: AuditId,
    target: Subject,
    source_ip: Option<IpAddr>,
    ttl: i64,
}

impl Traced {
    /// Whether it was erased before, if it would now end at `end`.
    fn is_erased(&self, end: i64) -> bool {
        self.source_ip.is_none() && self.ttl <= end
    }
}

impl Transaction<'_> {
    /// Leaves the erasure of a token whose removal this entry records. Returns when it is due.
    pub(super) fn leave_erasure(&mut self, token: &EmailToken, entry: &Entry) -> Moment {
        let due_at = entry.at.plus(DELAY);
        let erasure = Stored { address: token.address, removal: entry.id.clone(), removed_at: entry.at, after: None };
        self.put_new(keys::erasure(due_at, &token.id), &erasure);
        due_at
    }
}

impl Store {
    /// The erasures that are due, oldest first: the next page after this one.
    pub async fn due_erasures(&self, after: Option<&Erasure>) -> Result<Vec<Erasure>, StoreError> {
        // Everything that is due in this second or earlier.
        let end = keys::expiry_sort_key_prefix(self.clock.now().plus(Duration::from_secs(1)));
        let range = Range::new(keys::ERASURES, SortKeys::Before(&end));
        let range = range.start_after(after.map(|erasure| erasure.key.sk.as_str()));
        let due: Vec<(String, Stored)> = self.query(range, PAGE).await?;
        let erasure = |(sk, stored)| Erasure { key: Key { pk: keys::ERASURES.to_owned(), sk }, stored };
        Ok(due.into_iter().map(erasure).collect())
    }

    /// Erases a page of what is left. True once nothing is.
    pub async fn erase(&self, erasure: &Erasure) -> Result<bool, StoreError> {
        let Erasure { key, stored: Stored { address, removal, removed_at, after } } = erasure;
        let new = self.token_at(*address).await?;
        // IDs come from the clocks of several machines: around the removal, the token decides.
        let is_meant = |entry: &Traced| {
            let token = entry.target.id.as_str();
            token == erasure.token() || entry.id <= *removal && new.as_ref().is_none_or(|new| new.as_str() != token)
        };
        let log = Log::Address(*address);
        let pk = keys::audit_log(&log);
        let (first, last) = (AuditId::first_at(Moment::EPOCH), AuditId::last_before(removed_at.plus(SKEW)));
        let range = Range::new(&pk, SortKeys::Between(first.as_str(), last.as_str()));
        let range = range.start_after(after.as_ref().map(AuditId::as_str));
        let entries: Vec<(String, Traced)> = self.query(range, PAGE).await?;
        let end = self.clock.now().plus(REMAINDER).epoch_seconds();
        let left = entries.iter().map(|(_, entry)| entry);
        let left: Vec<&Traced> = left.filter(|entry| is_meant(entry) && !entry.is_erased(end)).collect();
        // Before the entries, which lead to them.
        let tokens: BTreeSet<TokenId> = left.iter().filter_map(|entry| TokenId::parse(&entry.target.id)).collect();
        let tokens = stream::iter(tokens).map(Ok);
        tokens.try_for_each_concurrent(CONCURRENCY, async |token| self.erase_usage(&token).await).await?;
        let left = stream::iter(left).map(Ok);
        left.try_for_each_concurrent(CONCURRENCY, |entry| self.erase_source(&log, entry, end)).await?;
        match entries.last() {
            Some((_, last)) if entries.len() == PAGE => {
                let values = [(":after", &last.id)];
                // Another run may have finished it.
                let _: Committed =
                    self.update(key.clone(), "SET #after = :after", "attribute_exists(pk)", &values).await?;
                Ok(false)
            }
            _ => {
                self.delete_all(std::slice::from_ref(key)).await?;
                tracing::info!(token = erasure.token(), "a removed token was erased");
                Ok(true)
            }
        }
    }

    /// Erases the source address of an audit entry, which then ends at `end` or as before.
    async fn erase_source(&self, log: &Log, entry: &Traced, end: i64) -> Result<(), StoreError> {
        let values = [(":none", Value::Null), (":end", entry.ttl.min(end).into())];
        let key = keys::audit_entry(log, &entry.id);
        // TTL may have deleted it.
        let _: Committed =
            self.update(key, "SET #source_ip = :none, #ttl = :end", "attribute_exists(pk)", &values).await?;
        Ok(())
    }
}

impl Erasure {
    /// The ID of the removed token.
    pub fn token(&self) -> &str {
        self.key.sk.split_once('#').map_or("", |(_, token)| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::email::EmailAddress;

    #[test]
    fn stored_item_matches_its_snapshot() {
        let id = AuditId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        let address = EmailAddress::try_from("You@example.com".to_owned()).unwrap().hash();
        insta::assert_json_snapshot!(Stored {
            address,
            removal: id.clone(),
            removed_at: Moment::parse("2026-11-21T10:00:00Z").unwrap(),
            after: Some(id),
        });
    }
}
