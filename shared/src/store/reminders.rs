//! Tokens that are about to expire, and who was reminded of it.
//!
//! Whatever sets the end of an org user token, an API key or an organization access token leaves, in
//! its own transaction, one *expiry* under the day on which the token ends: a pointer to the token,
//! in one of a few partitions of that day. A day's work reads the expiries of the days that are 30, 7
//! and 1 days ahead, so it costs what is due.
//!
//! - An expiry is never changed. One that the token no longer confirms (another end, revoked, rotated,
//!   disabled, deleted) is passed over, and ends by TTL.
//! - Tokens that live for less than a week leave none: whoever makes them knows.
//! - A token is not reminded of on the day on which it was made, and hears only of stages that are
//!   still ahead when its end is set.
//! - Days that were missed are made up for: a token is then reminded of once, for the latest stage.
//!
//! A recipient gets one mail a day. The item of its address holds the last day whose reminders it has
//! got, which is written once the mail is sent; before, whoever sends it claims it for some minutes.
//! The day's work is done when all recipients have theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys::{self, EXPIRY_SHARDS, Key};
use super::members::Member;
use super::tokens::{AnyToken, StoredToken};
use super::{Committed, Range, SortKeys, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::email::{AddressHash, EmailAddress};
use crate::ids::OrgId;
use crate::person::PersonId;
use crate::secret::TokenHash;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How many days before its end a token is reminded of.
pub const STAGES: [u32; 3] = [30, 7, 1];

/// Missed days that are made up for: the day before them has no stage that is still ahead.
const MOST_MISSED: u32 = 30;

/// Tokens that live for less are not reminded of.
pub const SHORTEST_LIFE: Duration = DAY.saturating_mul(7);

/// How long somebody who is about to send a reminder keeps others from it. Longer than Lambda takes
/// to repeat a failed run.
const CLAIMED_FOR: Duration = Duration::from_secs(10 * 60);

/// How long it is known that an address was reminded: longer than missed days are made up for.
const REMEMBERED_FOR: Duration = DAY.saturating_mul(40);

/// Expiries per read.
const PAGE: usize = 100;

/// A pointer to a token, under the day of its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Expiry {
    hash: TokenHash,
    ttl: i64,
}

impl Expiry {
    /// What a token leaves under the day of its end; `None` if it is not reminded of.
    fn of(token: &StoredToken, hash: TokenHash) -> Option<(Key, Self)> {
        let kind = match token {
            StoredToken::ApiKey(_) | StoredToken::OrgAccess(_) | StoredToken::OrgUser(_) => token.kind_name(),
            StoredToken::Bot(_) | StoredToken::EmailVerified(_) => return None,
        };
        let expires_at = token.expires_at().filter(|end| token.created_at().plus(SHORTEST_LIFE) <= *end)?;
        let key = keys::expiry_on(&expires_at.date(), token.org_id()?, kind, &token.id(), hash);
        Some((key, Self { hash, ttl: expires_at.plus(DAY).epoch_seconds() }))
    }
}

/// How far the work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// The last day whose work is done.
    done: String,
}

/// What is to be done today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueReminders {
    /// Today, such as `2026-11-21`.
    pub today: String,
    /// Whether work of earlier days was left undone.
    pub is_late: bool,
    /// The days on which tokens end, each with the day whose work the reminder is.
    pub days: BTreeMap<String, String>,
}

impl DueReminders {
    /// What is to be done, if the work until `done` is; `None` if all is done.
    fn after(done: &str, now: Moment) -> Option<Self> {
        let today = now.date();
        let mut days = BTreeMap::new();
        let mut is_late = false;
        for ago in (0..=MOST_MISSED).rev() {
            let day = now.minus(DAY * ago).date();
            if day.as_str() > done {
                is_late |= ago > 0;
                // The latest stage of a token wins. What has ended needs none.
                let ahead = STAGES.into_iter().filter_map(|stage| stage.checked_sub(ago));
                days.extend(ahead.map(|ahead| (now.plus(DAY * ahead).date(), day.clone())));
            }
        }
        (!days.is_empty()).then_some(Self { today, is_late, days })
    }

    /// The partitions to read, with the day on which their tokens end and the day of the reminder.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, &str, u8)> {
        let days = self.days.iter();
        days.flat_map(|(end, day)| (0..EXPIRY_SHARDS).map(move |shard| (end.as_str(), day.as_str(), shard)))
    }
}

/// A token that expires on the day in question.
#[derive(Debug, Clone)]
pub struct Expiring {
    /// The token.
    pub token: StoredToken,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// The member that it is bound to.
    pub holder: Option<Holder>,
}

/// The member to remind of a token.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The verified address.
    pub email: EmailAddress,
    /// The person, who may have chosen a language.
    pub person: PersonId,
}

/// A page of the tokens that expire on a day.
#[derive(Debug)]
pub struct Page {
    /// The tokens that are to be reminded of.
    pub tokens: Vec<Expiring>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<String>,
}

/// What is known about the reminders of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reminded {
    /// The last day whose reminders it has got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<String>,
}

impl Reminded {
    /// Whether it has got the reminders of this day.
    pub fn is_told(&self, day: &str) -> bool {
        self.told.as_deref().is_some_and(|told| told >= day)
    }
}

/// The right to send the day's reminder to an address.
#[derive(Debug)]
#[must_use]
pub struct ReminderClaim {
    key: Key,
    until: i64,
}

/// A token with its partition, which holds its hash.
#[derive(Deserialize)]
struct Placed {
    pk: String,
    #[serde(flatten)]
    token: AnyToken,
}

/// A pointer of which only the hash is read.
#[derive(Deserialize)]
struct Pointer {
    hash: TokenHash,
}

/// The key of an item that exists.
#[derive(Deserialize)]
struct Existing {
    pk: String,
    sk: String,
}

/// What `guardctl migrate` has looked at and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backfilled {
    /// Tokens with an end.
    pub looked_at: usize,
    /// Expiries that were missing.
    pub written: usize,
}

impl Transaction<'_> {
    /// Notes when a token expires, if it is to be reminded of. To be called by whatever sets its end.
    pub(super) fn note_expiry(&mut self, token: &StoredToken, hash: TokenHash) -> &mut Self {
        match Expiry::of(token, hash) {
            Some((key, expiry)) => self.put(key, &expiry),
            None => self,
        }
    }
}

impl Store {
    /// The work on reminders that is to be done now; `None` if today's is done.
    pub async fn due_reminders(&self) -> Result<Option<DueReminders>, StoreError> {
        let now = self.clock.now();
        if let Some(Progress { done }) = self.get(keys::reminders()).await? {
            return Ok(DueReminders::after(&done, now));
        }
        // The first run: nothing is made up for, but if it fails, it is.
        let yesterday = now.minus(DAY).date();
        self.reminders_done(&yesterday).await?;
        Ok(DueReminders::after(&yesterday, now))
    }

    /// Notes that the work of this day is done.
    pub async fn reminders_done(&self, day: &str) -> Result<(), StoreError> {
        let condition = "attribute_not_exists(#done) OR #done < :done";
        // Another run may have done it, or a later day's.
        let _: Committed = self.update(keys::reminders(), "SET #done = :done", condition, &[(":done", day)]).await?;
        Ok(())
    }

    /// A page of the tokens in a partition of this day that are active and expire on it, without
    /// those that were rotated: they have a successor.
    pub async fn expiring(&self, day: &str, shard: u8, after: Option<&str>) -> Result<Page, StoreError> {
        let pk = keys::expiries_on(day, shard);
        let range = Range::new(&pk, SortKeys::All).start_after(after);
        let found: Vec<(String, Expiry)> = self.query(range, PAGE).await?;
        let next = found.last().filter(|_| found.len() == PAGE).map(|(sort_key, _)| sort_key.clone());
        let now = self.clock.now();
        let tokens = self.stored_tokens(found.iter().map(|(_, expiry)| expiry.hash)).await?.into_iter();
        let is_due = |token: &StoredToken| {
            let ends = token.expires_at().map(Moment::date);
            token.is_active(now) && token.rotated().is_none() && ends.as_deref() == Some(day)
        };
        let mut tokens: Vec<StoredToken> = tokens.filter(is_due).collect();
        for token in &mut tokens {
            self.note_unused_of(token).await?;
        }
        tokens.retain(is_due);
        let members = self.holders(&tokens).await?;
        let expiring = |token: StoredToken| {
            let org_id = token.org_id()?.clone();
            let holder = match &token {
                StoredToken::OrgUser(token) => match &token.bound_to {
                    // The token has ended with the membership.
                    Some(own) => Some(members.iter().find(|member| member.id == own.member)?),
                    None => None,
                },
                _ => None,
            };
            let holder = holder.map(|member| Holder { email: member.email.clone(), person: member.person });
            Some(Expiring { token, org_id, holder })
        };
        Ok(Page { tokens: tokens.into_iter().filter_map(expiring).collect(), next })
    }

    /// The members that these tokens are bound to.
    async fn holders(&self, tokens: &[StoredToken]) -> Result<Vec<Member>, StoreError> {
        let key = |token: &StoredToken| match token {
            StoredToken::OrgUser(token) => Some(keys::membership(token.bound_to.as_ref()?.person, &token.org_id)),
            _ => None,
        };
        self.get_all(tokens.iter().filter_map(key).collect()).await
    }

    /// What is known about the reminders of an address.
    pub async fn reminded(&self, address: AddressHash) -> Result<Reminded, StoreError> {
        Ok(self.get(keys::reminded(address)).await?.unwrap_or_default())
    }

    /// Claims the reminder of this day. `None` if it was sent, or another call is about to send it.
    pub async fn claim_reminder(&self, address: AddressHash, today: &str) -> Result<Option<ReminderClaim>, StoreError> {
        let now = self.clock.now();
        let key = keys::reminded(address);
        let until = now.plus(CLAIMED_FOR).epoch_seconds();
        let values: [(&str, Value); 4] = [
            (":until", until.into()),
            (":ttl", now.plus(REMEMBERED_FOR).epoch_seconds().into()),
            (":today", today.into()),
            (":now", now.epoch_seconds().into()),
        ];
        let condition = "(attribute_not_exists(#told) OR #told < :today) AND \
                         (attribute_not_exists(#until) OR #until <= :now)";
        let claimed = self.update(key.clone(), "SET #until = :until, #ttl = :ttl", condition, &values).await?;
        Ok((claimed == Committed::Yes).then_some(ReminderClaim { key, until }))
    }

    /// Notes that the reminder was sent: the address has got those of all days until this one.
    pub async fn reminder_sent(&self, claim: ReminderClaim, today: &str) -> Result<(), StoreError> {
        let condition = "attribute_not_exists(#told) OR #told < :today";
        let _: Committed = self.update(claim.key, "SET #told = :today", condition, &[(":today", today)]).await?;
        Ok(())
    }

    /// Gives the claim back, after a reminder that was certainly not sent.
    pub async fn release_reminder(&self, claim: ReminderClaim) -> Result<(), StoreError> {
        let values = [(":zero", 0), (":until", claim.until)];
        // If another call has claimed it since, that claim stays.
        let _: Committed = self.update(claim.key, "SET #until = :zero", "#until = :until", &values).await?;
        Ok(())
    }

    /// Writes the expiries of an organization's tokens that an earlier version has left out.
    pub async fn backfill_expiries(&self, org: &OrgId) -> Result<Backfilled, StoreError> {
        let mut backfilled = Backfilled::default();
        let from = keys::expiry_sort_key_prefix(self.clock.now());
        for (pk, sort_keys) in [
            (keys::org_user_token_expiries(org), SortKeys::After(&from)),
            (keys::api_key_expiries(org), SortKeys::After(&from)),
            (keys::org_access_tokens(org), SortKeys::All),
        ] {
            let mut after: Option<String> = None;
            loop {
                let range = Range::new(&pk, sort_keys).start_after(after.as_deref());
                let page: Vec<(String, Pointer)> = self.query(range, PAGE).await?;
                let Backfilled { looked_at, written } = self.write_expiries(&page).await?;
                backfilled.looked_at += looked_at;
                backfilled.written += written;
                after = page.last().filter(|_| page.len() == PAGE).map(|(sort_key, _)| sort_key.clone());
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(backfilled)
    }

    /// Writes those expiries of a page of tokens that are missing.
    async fn write_expiries(&self, page: &[(String, Pointer)]) -> Result<Backfilled, StoreError> {
        let keys = page.iter().map(|(_, pointer)| keys::token(pointer.hash)).collect();
        let tokens: Vec<Placed> = self.get_all(keys).await?;
        let expiry = |Placed { pk, token }: Placed| {
            let hash = TokenHash::from_hex(pk.rsplit('#').next()?)?;
            Expiry::of(&token.known()?, hash)
        };
        let expiries: Vec<(Key, Expiry)> = tokens.into_iter().filter_map(expiry).collect();
        let there: Vec<Existing> = self.get_all(expiries.iter().map(|(key, _)| key.clone()).collect()).await?;
        let there: BTreeSet<(String, String)> = there.into_iter().map(|Existing { pk, sk }| (pk, sk)).collect();
        let is_missing = |(key, _): &&(Key, Expiry)| !there.contains(&(key.pk.clone(), key.sk.clone()));
        let missing: Vec<&(Key, Expiry)> = expiries.iter().filter(is_missing).collect();
        if !missing.is_empty() {
            let mut transaction = self.transaction();
            for (key, expiry) in &missing {
                transaction.put(key.clone(), expiry);
            }
            // It has no condition.
            let _: Committed = transaction.commit().await?;
        }
        Ok(Backfilled { looked_at: expiries.len(), written: missing.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        Moment::parse(text).unwrap()
    }

    fn days(done: &str) -> Vec<(String, String)> {
        let due = DueReminders::after(done, at("2026-11-21T10:00:00Z"));
        due.map_or_else(Vec::new, |due| due.days.into_iter().collect())
    }

    fn pair((end, day): (&str, &str)) -> (String, String) {
        (end.to_owned(), day.to_owned())
    }

    #[test]
    fn day_reminds_of_what_ends_in_30_7_and_1_days() {
        let today = [("2026-11-22", "2026-11-21"), ("2026-11-28", "2026-11-21"), ("2026-12-21", "2026-11-21")];
        assert_eq!(days("2026-11-20"), today.map(pair));
        for done in ["2026-11-21", "2026-11-22"] {
            assert_eq!(days(done), [], "{done}");
        }
        let late = |done| DueReminders::after(done, at("2026-11-21T10:00:00Z")).unwrap().is_late;
        assert_eq!((late("2026-11-20"), late("2026-11-19")), (false, true));
    }

    #[test]
    fn missed_days_are_made_up_for_with_the_latest_stage_of_each_end() {
        let expected = [
            ("2026-11-21", "2026-11-20"),
            ("2026-11-22", "2026-11-21"),
            ("2026-11-26", "2026-11-19"),
            ("2026-11-27", "2026-11-20"),
            ("2026-11-28", "2026-11-21"),
            ("2026-12-19", "2026-11-19"),
            ("2026-12-20", "2026-11-20"),
            ("2026-12-21", "2026-11-21"),
        ];
        assert_eq!(days("2026-11-18"), expected.map(pair));
        // However long ago: each of the next 30 days once, for its latest stage.
        let all = days("2020-01-01");
        assert_eq!(all.len(), 31);
        assert_eq!(all.first(), Some(&pair(("2026-11-21", "2026-11-20"))));
        assert!(all.contains(&pair(("2026-11-28", "2026-11-21"))) && all.contains(&pair(("2026-11-29", "2026-10-30"))));
    }

    #[test]
    fn stored_items_match_their_snapshots() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        insta::assert_json_snapshot!("expiry", Expiry { hash, ttl: 1_797_847_200 });
        insta::assert_json_snapshot!("progress", Progress { done: "2026-11-21".to_owned() });
        insta::assert_json_snapshot!("reminded", Reminded { told: Some("2026-11-21".to_owned()) });
    }
}
