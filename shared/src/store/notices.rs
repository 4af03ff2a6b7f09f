//! What organizations have asked to be told of: new tokens, and keys of bots that were rotated.
//!
//! The audit log has all of it, in the transactions that do it, whatever does it. So nothing more is
//! written, and functions that make tokens need no part in it: a *subscription* of each organization
//! that has asked holds how far its log was read, and a scheduled function reads on from there.
//!
//! Entries are in the order of their IDs, which come from the clocks of several machines and are made
//! before their transactions are committed: those of the last minutes are left to the next run.
//! Whoever sends the mail claims the subscription before and moves it on afterwards, so a crash
//! repeats a mail and loses none. An organization gets at most one mail an hour.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::audit::{Outcome, Subject};
use super::keys::{self, Key, Log, SUBSCRIPTIONS};
use super::rate_limits::HOUR;
use super::{Committed, Range, SortKeys, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::domain::{Notify, OrUnknown};
use crate::ids::{AuditId, OrgId};

/// Entries as old as this have been committed, whatever clock their IDs come from.
pub const SETTLED_AFTER: Duration = Duration::from_secs(2 * 60);

/// How long somebody who is about to send a mail keeps others from it.
const CLAIMED_FOR: Duration = Duration::from_secs(10 * 60);

/// Entries per read, and reads of one log in a run. The next run reads on.
const PAGE: usize = 100;
const PAGES: usize = 100;

/// What is kept of what happened: a mail lists no more.
pub const LISTED: usize = 20;

/// Subscriptions per read.
const SUBSCRIPTIONS_PER_PAGE: usize = 100;

/// A stored subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// The log was read up to this ID.
    after: AuditId,
    /// The hour of the last mail, since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hour: Option<i64>,
}

/// An organization that is to be told, and how far.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The organization.
    pub org_id: OrgId,
    stored: Stored,
}

/// The right to tell an organization.
#[derive(Debug)]
#[must_use]
pub struct NoticeClaim {
    key: Key,
    after: AuditId,
    until: i64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Happened {
    /// When.
    pub at: Moment,
    /// Who did it.
    pub actor: Subject,
    /// The action, as in the audit log.
    pub action: String,
    /// What was made or changed.
    pub target: Subject,
    outcome: OrUnknown<Outcome>,
}

/// What happened since an organization was told last.
#[derive(Debug)]
pub struct News {
    /// The first of it, at most [`LISTED`].
    pub first: Vec<Happened>,
    /// How much it is in all.
    pub count: usize,
    /// The log was read up to this ID.
    read: AuditId,
}

/// What somebody asks to be told of that did this.
fn asked_by(action: &str) -> Option<Notify> {
    match action {
        "org_user_token.issue" | "api_key.create" | "org_access_token.create" => Some(Notify::NewToken),
        "bot.rotate_key" => Some(Notify::BotKeyRotated),
        _ => None,
    }
}

impl Transaction<'_> {
    /// Subscribes an organization from now on, or keeps its subscription; or ends it.
    pub(super) fn subscribe(&mut self, org: &OrgId, is_asked: bool) -> &mut Self {
        let key = keys::subscription(org);
        if !is_asked {
            return self.delete(key);
        }
        let now = AuditId::last_before(self.store.clock.now());
        self.update(
            key,
            "SET #after = if_not_exists(#after, :after)",
            "attribute_exists(pk) OR attribute_not_exists(pk)",
            &[(":after", now)],
        )
    }
}

impl Store {
    /// A page of the organizations that are to be told, after this one. None are left if it is empty.
    pub async fn subscriptions(&self, after: Option<&OrgId>) -> Result<Vec<Subscription>, StoreError> {
        let range = Range::new(SUBSCRIPTIONS, SortKeys::All).start_after(after.map(OrgId::as_str));
        let found: Vec<(String, Stored)> = self.query(range, SUBSCRIPTIONS_PER_PAGE).await?;
        let subscription = |(org, stored): (String, Stored)| {
            OrgId::parse(&org).map(|org_id| Subscription { org_id, stored }).ok_or(StoreError::Defect)
        };
        found.into_iter().map(subscription).collect()
    }

    /// What has happened of this kind since the organization was told last. `None` if it got a mail in
    /// this hour.
    pub async fn news(&self, subscription: &Subscription, of: &[Notify]) -> Result<Option<News>, StoreError> {
        let Subscription { org_id, stored } = subscription;
        if stored.hour == Some(self.this_hour()) {
            return Ok(None);
        }
        let pk = keys::audit_log(&Log::from(org_id));
        let end = AuditId::last_before(self.clock.now().minus(SETTLED_AFTER));
        let mut news = News { first: Vec::new(), count: 0, read: stored.after.clone() };
        for _ in 0..PAGES {
            if news.read >= end {
                break;
            }
            let (start, is_asked) = (news.read.clone(), |entry: &Happened| {
                entry.outcome == Outcome::Done && asked_by(&entry.action).is_some_and(|kind| of.contains(&kind))
            });
            let range = Range::new(&pk, SortKeys::Between(start.as_str(), end.as_str()));
            let range = range.start_after(Some(start.as_str()));
            let page: Vec<(String, Happened)> = self.query(range, PAGE).await?;
            let is_last = page.len() < PAGE;
            let last = page.last().and_then(|(id, _)| AuditId::parse(id));
            news.read = if is_last { end.clone() } else { last.ok_or(StoreError::Defect)? };
            let asked: Vec<Happened> = page.into_iter().map(|(_, entry)| entry).filter(is_asked).collect();
            news.count += asked.len();
            let room = LISTED - news.first.len();
            news.first.extend(asked.into_iter().take(room));
        }
        Ok(Some(news))
    }

    fn this_hour(&self) -> i64 {
        self.clock.now().epoch_seconds().div_euclid(HOUR)
    }

    /// Claims what is to be told. `None` if another call has told it, or is about to.
    pub async fn claim_notices(&self, subscription: &Subscription) -> Result<Option<NoticeClaim>, StoreError> {
        let Subscription { org_id, stored } = subscription;
        let now = self.clock.now();
        let (key, after) = (keys::subscription(org_id), stored.after.clone());
        let until = now.plus(CLAIMED_FOR).epoch_seconds();
        let values: [(&str, Value); 3] =
            [(":until", until.into()), (":now", now.epoch_seconds().into()), (":after", after.as_str().into())];
        let condition = "#after = :after AND (attribute_not_exists(#until) OR #until <= :now)";
        let claimed = self.update(key.clone(), "SET #until = :until", condition, &values).await?;
        Ok((claimed == Committed::Yes).then_some(NoticeClaim { key, after, until }))
    }

    /// Moves a subscription on: what was read was told, or nobody is to be told.
    pub async fn notices_told(&self, claim: NoticeClaim, news: &News) -> Result<(), StoreError> {
        let values: [(&str, Value); 3] = [
            (":read", news.read.as_str().into()),
            (":hour", self.this_hour().into()),
            (":after", claim.after.as_str().into()),
        ];
        // If the organization has asked for nothing meanwhile, there is none.
        let _: Committed =
            self.update(claim.key, "SET #after = :read, #hour = :hour", "#after = :after", &values).await?;
        Ok(())
    }

    /// Moves a subscription on over entries that nobody has asked for.
    pub async fn nothing_to_tell(&self, subscription: &Subscription, news: &News) -> Result<(), StoreError> {
        let values = [(":read", &news.read), (":after", &subscription.stored.after)];
        let key = keys::subscription(&subscription.org_id);
        let _: Committed = self.update(key, "SET #after = :read", "#after = :after", &values).await?;
        Ok(())
    }

    /// Gives the claim back, after mails that were certainly not sent.
    pub async fn release_notices(&self, claim: NoticeClaim) -> Result<(), StoreError> {
        let values = [(":zero", 0), (":until", claim.until)];
        let _: Committed = self.update(claim.key, "SET #until = :zero", "#until = :until", &values).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_item_matches_its_snapshot() {
        let after = AuditId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        insta::assert_json_snapshot!("subscription", Stored { after, hour: Some(498_682) });
    }
}
