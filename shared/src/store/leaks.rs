//! Tokens that were found where they should not be, and the notices to the people they belong to.
//!
//! Whoever finds a token reports it, and it ends: a token of any kind, a session, or one API key of
//! a bot. An organization may decide to be told only. What belongs to no organization always ends.
//!
//! | leaked | ends by | who is told |
//! |---|---|---|
//! | org user token, API key, token of a bot | revocation | the organization |
//! | organization access token | deletion | the organization |
//! | API key of a bot | deletion of this one | the organization |
//! | email-verified token | deletion | its holder |
//! | session | deletion | its person |
//!
//! The transaction that ends a token also writes its audit entry, a *notice* and a *mark*:
//!
//! - Notices are in one partition, by recipient. They are deleted once they are told, so a crash or
//!   a failing mail loses none, and finding what is to be told costs what is to be told.
//! - The mark, under the token's hash, lives 24 hours. An organization that is told only is told
//!   once in that time.
//!
//! A recipient gets at most one mail an hour: whoever sends it first claims the hour
//! ([`Store::claim_leak_mail`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keys::{self, Key};
use super::{Committed, Range, SortKeys, Store, StoreError};
use crate::clock::Moment;
use crate::email::{EmailAddress, Language};
use crate::ids::OrgId;

/// A recipient gets at most one mail in this time.
const MAIL_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Who is told about leaked tokens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipient {
    /// An organization: its security contacts.
    Org(OrgId),
    /// A person, by the hash of the address. Each of the notices has the address itself.
    Address(String),
}

impl Recipient {
    /// The recipient as part of a key.
    pub(super) fn as_key(&self) -> String {
        match self {
            Recipient::Org(org) => format!("ORG#{org}"),
            Recipient::Address(hash) => format!("ADDRESS#{hash}"),
        }
    }

    /// The recipient of the notice with this sort key.
    fn of_notice(sort_key: &str) -> Option<Self> {
        let mut parts = sort_key.split('#');
        match (parts.next()?, parts.next()?) {
            ("ORG", org) => OrgId::parse(org).map(Recipient::Org),
            ("ADDRESS", hash) => Some(Recipient::Address(hash.to_owned())),
            _ => None,
        }
    }
}

/// A person to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The address, which the notice alone still knows.
    pub email: EmailAddress,
    /// The language of mails.
    #[serde(default, deserialize_with = "Language::stored")]
    pub language: Language,
}

/// What a recipient is to be told about one leaked token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The kind of the token: `api_key`, `session`…
    pub kind: String,
    /// Its ID; of a bot's API key the bot's.
    pub id: String,
    /// Where it was found: host and path, without tokens. To be shown as text, never as a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// When it was reported.
    pub at: Moment,
    /// Whether it was ended; otherwise the organization is told only.
    pub ended: bool,
    /// Whom to tell, if the recipient is a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// When it is dropped, told or not.
    ttl: i64,
}

/// A notice that is not told yet.
#[derive(Debug, Clone)]
pub struct PendingNotice {
    key: Key,
    /// What to tell.
    pub notice: Notice,
}

/// The right to send a recipient's mail of this hour.
#[derive(Debug)]
#[must_use]
pub struct MailClaim {
    key: Key,
    until: i64,
}

/// The stored claim.
#[derive(Serialize)]
struct Claimed {
    /// When the next mail may be sent, in seconds since the Unix epoch.
    ttl: i64,
}

impl Store {
    /// The recipients of notices that are not told yet, after this one: at most `limit`.
    pub async fn leak_recipients(&self, after: Option<&Recipient>, limit: usize) -> Result<Vec<Recipient>, StoreError> {
        let mut found: Vec<Recipient> = Vec::new();
        while found.len() < limit {
            // One notice of each: the next query starts after all of the last recipient's.
            let start = found.last().or(after).map_or_else(String::new, |last| format!("{}#~", last.as_key()));
            let sort_keys = if start.is_empty() { SortKeys::All } else { SortKeys::After(&start) };
            let next: Vec<(String, Notice)> = self.query(Range::new(keys::LEAK_NOTICES, sort_keys), 1).await?;
            let Some((sort_key, _)) = next.first() else { break };
            found.push(Recipient::of_notice(sort_key).ok_or(StoreError::Defect)?);
        }
        Ok(found)
    }

    /// Claims the one mail that a recipient gets in an hour. `None` if it was sent, or another call
    /// is about to send it.
    pub async fn claim_leak_mail(&self, recipient: &Recipient) -> Result<Option<MailClaim>, StoreError> {
        let now = self.clock.now();
        let key = keys::leak_mail(&recipient.as_key());
        let until = now.plus(MAIL_INTERVAL).epoch_seconds();
        let mut transaction = self.transaction();
        transaction.put_where(
            key.clone(),
            &Claimed { ttl: until },
            "attribute_not_exists(pk) OR #ttl <= :now",
            &[(":now", now.epoch_seconds())],
        );
        Ok((transaction.commit().await? == Committed::Yes).then_some(MailClaim { key, until }))
    }

    /// Gives the claim back, after a mail that was certainly not sent.
    pub async fn release_leak_mail(&self, claim: MailClaim) -> Result<(), StoreError> {
        let mut transaction = self.transaction();
        transaction.delete_where(claim.key, "#ttl = :until", &[(":until", claim.until)]);
        // Another call has claimed a later hour: that claim stays.
        let _: Committed = transaction.commit().await?;
        Ok(())
    }

    /// What a recipient is to be told, oldest first: at most `limit`.
    pub async fn leak_notices(&self, recipient: &Recipient, limit: usize) -> Result<Vec<PendingNotice>, StoreError> {
        let prefix = format!("{}#", recipient.as_key());
        let range = Range::new(keys::LEAK_NOTICES, SortKeys::StartingWith(&prefix));
        let found: Vec<(String, Notice)> = self.query(range, limit).await?;
        let pending = |(sk, notice)| PendingNotice { key: Key { pk: keys::LEAK_NOTICES.to_owned(), sk }, notice };
        Ok(found.into_iter().map(pending).collect())
    }

    /// Deletes notices that were told.
    pub async fn leaks_told(&self, told: &[PendingNotice]) -> Result<(), StoreError> {
        let keys: Vec<Key> = told.iter().map(|pending| pending.key.clone()).collect();
        self.delete_all(&keys).await
    }
}
