//! An organization's policy on the lifetimes of its tokens.
//!
//! - The longest lifetime of each kind, counted from `created_at`, binds whoever sets an expiry.
//!   Existing tokens are untouched.
//! - A token that is not used for some days has ended. Nobody writes at that moment: every read that
//!   decides compares the token's item with the policy (`Store::note_unused`). Listings and a daily
//!   run ([`super::unused`]) then write the end as the token's expiry and move it; from then on it has
//!   expired, whatever the policy.
//!
//! Uses remember the policy for a minute. That write cannot be taken back, so it reads the policy
//! afresh (`Store::unused_days_now`).
//!
//! A use and that write exclude each other: the write is conditional on `last_used_at`, and the use
//! of a token that was idle for a day looks at the token as its own write has left it
//! (`Store::record_idle_use`). A token that was used within a day needs no policy: no policy is
//! shorter.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnValue;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::keys::{self, Key};
use super::tokens::{AnyToken, ApiKey, OrgAccessToken, OrgUserToken, RECORDED_EVERY, StoredToken};
use super::{Committed, Store, StoreError, Transaction, attribute_values, key_item, names, read_item, updated};
use crate::clock::Moment;
use crate::domain::TokenState;
use crate::error::ApiError;
use crate::ids::{OrgId, TokenId};
use crate::secret::TokenHash;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a process remembers an organization's policy for tokens in use.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The maximum number of policies that a process remembers.
const MAX_REMEMBERED: usize = 10_000;

/// A number of days, at least 1.
pub type Days = NonZeroU32;

/// A kind of token whose lifetime a policy limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, VariantArray, IntoStaticStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Limited {
    /// An org user token.
    OrgUserToken,
    /// An API key.
    ApiKey,
    /// An organization access token.
    OrgAccessToken,
}

impl Limited {
    /// Every kind.
    pub const ALL: &[Limited] = Limited::VARIANTS;

    /// Its name, as in responses.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The policy. Each limit is an attribute of the organization, so that changes of different ones do
/// not meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    /// The longest lifetime of an org user token.
    #[serde(rename = "max_days_org_user_token", default, skip_serializing_if = "Option::is_none")]
    pub org_user_token: Option<Days>,
    /// The longest lifetime of an API key.
    #[serde(rename = "max_days_api_key", default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Days>,
    /// The longest lifetime of an organization access token.
    #[serde(rename = "max_days_org_access_token", default, skip_serializing_if = "Option::is_none")]
    pub org_access_token: Option<Days>,
    /// After how long without a use a token has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_after_unused_days: Option<Days>,
}

/// A token would live longer than the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// The longest lifetime.
    pub days: Days,
    /// The last moment that it may expire at.
    pub longest: Moment,
}

impl From<TooLong> for ApiError {
    fn from(TooLong { days, longest }: TooLong) -> Self {
        let unit = if days.get() == 1 { "day" } else { "days" };
        let message = format!(
            "must be set: this organization allows tokens of this kind for at most {days} {unit} from their creation; \
             send a time no later than {longest}"
        );
        ApiError::invalid("expires_at", message)
    }
}

impl Lifetimes {
    /// The longest lifetime of this kind, if it is limited.
    pub fn max_days(&self, kind: Limited) -> Option<Days> {
        match kind {
            Limited::OrgUserToken => self.org_user_token,
            Limited::ApiKey => self.api_key,
            Limited::OrgAccessToken => self.org_access_token,
        }
    }

    /// Checks the expiry of a token that was created at this time. `None` lives forever.
    ///
    /// # Errors
    ///
    /// If the token would live longer than the policy allows.
    pub fn check(&self, kind: Limited, created_at: Moment, expires_at: Option<Moment>) -> Result<(), TooLong> {
        let Some(days) = self.max_days(kind) else { return Ok(()) };
        let longest = created_at.plus(DAY * days.get());
        let is_within = expires_at.is_some_and(|expires_at| expires_at <= longest);
        if is_within { Ok(()) } else { Err(TooLong { days, longest }) }
    }
}

/// After how many days without a use tokens end, and when that was read, by organization.
type Policies = HashMap<OrgId, (Option<Days>, Moment)>;

/// The policies that a process remembers for tokens in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Remembered(Arc<Mutex<Policies>>);

impl Remembered {
    fn lock(&self) -> MutexGuard<'_, Policies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kind of token that ends if it is not used.
pub(super) trait EndsUnused {
    /// The organization it belongs to.
    fn org(&self) -> &OrgId;
    /// When it was created and last used.
    fn since(&self) -> (Moment, Option<Moment>);
    /// Whether it is active at this time, unless it has ended unused.
    fn is_active_at(&self, now: Moment) -> bool;
    /// Sets its expiry.
    fn expire(&mut self, at: Moment);

    /// When it has ended because it was not used for so many days; `None` if it has not, or is not
    /// active for another reason.
    fn unused_end(&self, days: Option<Days>, now: Moment) -> Option<Moment> {
        let end = end_of_unused(self.since(), days?);
        (end <= now && self.is_active_at(now)).then_some(end)
    }
}

macro_rules! ends_unused {
    ($($token:ty),+) => {
        $(impl EndsUnused for $token {
            fn org(&self) -> &OrgId {
                &self.org_id
            }

            fn since(&self) -> (Moment, Option<Moment>) {
                (self.created_at, self.last_used_at)
            }

            fn is_active_at(&self, now: Moment) -> bool {
                self.state(now) == TokenState::Active
            }

            fn expire(&mut self, at: Moment) {
                self.expires_at = Some(at);
            }
        })+
    };
}

ends_unused!(ApiKey, OrgAccessToken, OrgUserToken);

/// From when on a token counts as unused. `last_used_at` may be as old as [`RECORDED_EVERY`] when the
/// token is used again without a record.
fn unused_since((created_at, last_used_at): (Moment, Option<Moment>)) -> Moment {
    last_used_at.map_or(created_at, |last| last.plus(RECORDED_EVERY))
}

/// When a token ends that is not used again.
fn end_of_unused(since: (Moment, Option<Moment>), days: Days) -> Moment {
    unused_since(since).plus(DAY * days.get())
}

/// Whether the token with this ID was created a day ago, or is about to be: a younger one has not ended
/// unused.
pub(super) fn is_old(id: &TokenId, now: Moment) -> bool {
    let day = u64::try_from((DAY - RECORDED_EVERY).as_millis()).unwrap_or(u64::MAX);
    id.milliseconds().saturating_add(day) <= now.epoch_milliseconds()
}

/// Whether a policy may have ended a token that was last used then, or may do so within a minute.
fn is_idle(since: (Moment, Option<Moment>), now: Moment) -> bool {
    unused_since(since).plus(DAY) <= now.plus(RECORDED_EVERY)
}

impl StoredToken {
    /// Whether a policy may have ended it for want of use, or may do so within a minute.
    pub(super) fn is_idle(&self, now: Moment) -> bool {
        match self {
            StoredToken::ApiKey(token) => is_idle(token.since(), now),
            StoredToken::OrgAccess(token) => is_idle(token.since(), now),
            StoredToken::OrgUser(token) => is_idle(token.since(), now),
            StoredToken::Bot(_) | StoredToken::EmailVerified(_) => false,
        }
    }
}

/// A token as it was read, for the condition of [`Transaction::end_unused`].
#[derive(Debug, Clone, Copy)]
pub(super) struct AsRead {
    pub last_used_at: Option<Moment>,
    pub expires_at: Option<Moment>,
    pub uncounted: bool,
    /// Of an organization access token: each change has another one.
    pub revision: Option<u64>,
}

/// The result of [`Store::settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It was written.
    Yes,
    /// A token was used, revoked, rotated or moved in the meantime: nothing was written.
    Changed,
    /// It could not be written.
    Failed(StoreError),
}

impl Settled {
    /// Whether nothing is left to be written.
    ///
    /// # Errors
    ///
    /// Why it could not be written.
    pub(super) fn done(self) -> Result<(), StoreError> {
        match self {
            Settled::Yes | Settled::Changed => Ok(()),
            Settled::Failed(error) => Err(error),
        }
    }
}

impl Transaction<'_> {
    /// Makes a token expire at the time at which it ended unused, if it was neither used, revoked,
    /// rotated nor changed since it was read.
    pub(super) fn end_unused(&mut self, key: Key, token: AsRead, end: Moment) -> &mut Self {
        let mut values: Vec<(&str, Value)> = vec![(":end", end.to_string().into())];
        let mut is_as_read = |name: &str, placeholder: &'static str, value: Option<Moment>| match value {
            Some(value) => {
                values.push((placeholder, value.to_string().into()));
                format!("#{name} = {placeholder}")
            }
            None => format!("attribute_not_exists(#{name})"),
        };
        let unused = is_as_read("last_used_at", ":last_used_at", token.last_used_at);
        let expiry = is_as_read("expires_at", ":expires_at", token.expires_at);
        let counts = if token.uncounted { "attribute_exists(#uncounted)" } else { "attribute_not_exists(#uncounted)" };
        let mut change = "SET #expires_at = :end".to_owned();
        let mut condition = format!(
            "attribute_exists(pk) AND attribute_not_exists(#revoked_at) AND {unused} AND {expiry} AND {counts}"
        );
        if let Some(revision) = token.revision {
            change.push_str(", #revision = :next");
            condition.push_str(" AND #revision = :revision");
            values.extend([(":next", (revision + 1).into()), (":revision", revision.into())]);
        }
        self.update(key, &change, &condition, &values)
    }
}

impl Store {
    /// After how many days without a use an organization's tokens end, if they do. As it was up to a
    /// minute ago.
    pub(super) async fn unused_days(&self, org: &OrgId) -> Result<Option<Days>, StoreError> {
        let now = self.clock.now();
        let oldest = now.minus(REMEMBERED);
        let known = self.remembered.lock().get(org).filter(|(_, since)| *since > oldest).map(|(days, _)| *days);
        if let Some(days) = known {
            return Ok(days);
        }
        self.unused_days_now(org).await
    }

    /// As [`Self::unused_days`], but as it is now: for what cannot be taken back.
    pub(super) async fn unused_days_now(&self, org: &OrgId) -> Result<Option<Days>, StoreError> {
        let now = self.clock.now();
        let days = self.lifetimes(org).await?.end_after_unused_days;
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(org.clone(), (days, now));
        Ok(days)
    }

    /// An organization's policy, as it is now.
    pub async fn lifetimes(&self, org: &OrgId) -> Result<Lifetimes, StoreError> {
        Ok(self.org(org).await?.map(|org| org.lifetimes).unwrap_or_default())
    }

    /// Checks the expiry of a token by the organization's policy, as [`Lifetimes::check`].
    pub async fn check_policy(
        &self,
        org: &OrgId,
        kind: Limited,
        created_at: Moment,
        expires_at: Option<Moment>,
    ) -> Result<Result<(), TooLong>, StoreError> {
        Ok(self.lifetimes(org).await?.check(kind, created_at, expires_at))
    }

    /// Finds out whether a token has ended because it was not used: then that is when it expires. No
    /// read for one that was used within a day, else at most that of the policy.
    pub(super) async fn note_unused<T: EndsUnused>(&self, token: &mut T) -> Result<Option<Moment>, StoreError> {
        let now = self.clock.now();
        if !is_idle(token.since(), now) || !token.is_active_at(now) {
            return Ok(None);
        }
        let end = token.unused_end(self.unused_days(token.org()).await?, now);
        if let Some(end) = end {
            token.expire(end);
        }
        Ok(end)
    }

    /// As [`Self::note_unused`], for a token of any kind.
    pub(super) async fn note_unused_of(&self, token: &mut StoredToken) -> Result<(), StoreError> {
        match token {
            StoredToken::ApiKey(token) => self.note_unused(token).await,
            StoredToken::OrgAccess(token) => self.note_unused(token).await,
            StoredToken::OrgUser(token) => self.note_unused(token).await,
            StoredToken::Bot(_) | StoredToken::EmailVerified(_) => Ok(None),
        }
        .map(|_| ())
    }

    /// Reads the token with this hash, and what else decides whether it is active.
    pub(super) async fn current_token(&self, hash: TokenHash) -> Result<Option<StoredToken>, StoreError> {
        let mut token = self.stored_token(hash).await?;
        if let Some(token) = &mut token {
            self.note_all(token).await?;
        }
        Ok(token)
    }

    /// Records the use of a token that was idle for a day. `is_needed` if the use must not be answered
    /// without a record; nor may it if a policy ends unused tokens.
    ///
    /// # Errors
    ///
    /// [`StoreError::Ended`] if the token has ended in the meantime.
    pub(super) async fn record_idle_use(
        &self,
        hash: TokenHash,
        token: &StoredToken,
        is_needed: bool,
    ) -> Result<(), StoreError> {
        let is_needed = match token.org_id() {
            Some(org) => is_needed || self.unused_days(org).await?.is_some(),
            None => is_needed,
        };
        let recording = self.record_and_read(hash);
        let left = if is_needed {
            recording.await?
        } else {
            match tokio::time::timeout(self.patience, recording).await {
                Ok(Ok(left)) => left,
                _ => {
                    tracing::warn!("last_used_at was not updated");
                    return Ok(());
                }
            }
        };
        if left.is_some_and(|token| token.is_active(self.clock.now())) { Ok(()) } else { Err(StoreError::Ended) }
    }

    /// Updates `last_used_at`, unless it is recent. The token as it is then.
    async fn record_and_read(&self, hash: TokenHash) -> Result<Option<StoredToken>, StoreError> {
        let now = self.clock.now();
        let (expression, condition) = (
            "SET #last_used_at = :now",
            "attribute_exists(pk) AND (attribute_not_exists(#last_used_at) OR #last_used_at <= :minute_ago)",
        );
        let values = [(":now", now), (":minute_ago", now.minus(RECORDED_EVERY))];
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_item(keys::token(hash))))
            .update_expression(expression)
            .condition_expression(condition)
            .set_expression_attribute_names(names(&[expression, condition]))
            .set_expression_attribute_values(Some(attribute_values(&values).map_err(|_| StoreError::Defect)?))
            .return_values(ReturnValue::AllNew);
        match updated(request).await? {
            Some(output) => {
                let token: Option<AnyToken> = output.attributes.map(read_item).transpose()?;
                Ok(token.and_then(AnyToken::known))
            }
            None => self.stored_token(hash).await,
        }
    }

    /// Writes that a token has ended unused, if that is still so. A failure is logged: the token has
    /// ended whether it is written or not.
    pub(super) async fn settle(&self, mut transaction: Transaction<'_>) -> Settled {
        match transaction.commit().await {
            Ok(Committed::Yes) => Settled::Yes,
            Ok(Committed::No(_)) => Settled::Changed,
            Err(error) => {
                tracing::warn!(%error, "a token that ended unused is still listed as active");
                Settled::Failed(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        Moment::parse(text).unwrap()
    }

    #[test]
    fn longest_lifetime_is_counted_from_the_creation_to_the_second() {
        let policy = Lifetimes { api_key: Days::new(90), ..Lifetimes::default() };
        let created_at = at("2026-11-21T10:00:00Z");
        let check = |kind, expires_at: Option<&str>| policy.check(kind, created_at, expires_at.map(at));
        assert_eq!(check(Limited::ApiKey, Some("2027-02-19T10:00:00Z")), Ok(()));
        let too_long = TooLong { days: Days::new(90).unwrap(), longest: at("2027-02-19T10:00:00Z") };
        for expires_at in [Some("2027-02-19T10:00:01Z"), None] {
            assert_eq!(check(Limited::ApiKey, expires_at), Err(too_long));
            assert_eq!(check(Limited::OrgUserToken, expires_at), Ok(()));
        }
        let forever = Lifetimes { api_key: Some(Days::MAX), ..Lifetimes::default() };
        assert!(forever.check(Limited::ApiKey, created_at, Some(at("9999-12-31T23:59:59Z"))).is_ok());
    }

    #[test]
    fn token_ends_after_the_days_and_never_for_a_use_that_was_not_recorded() {
        let (created, used) = (at("2026-11-21T10:00:00Z"), at("2026-11-22T10:00:00Z"));
        let one = Days::new(1).unwrap();
        assert_eq!(end_of_unused((created, None), one), at("2026-11-22T10:00:00Z"));
        assert_eq!(end_of_unused((created, Some(used)), one), at("2026-11-23T10:01:00Z"));
        assert!(!is_idle((created, Some(used)), at("2026-11-23T09:59:59Z")));
        assert!(is_idle((created, Some(used)), at("2026-11-23T10:00:00Z")));
        // A minute before it could end.
        assert!(!is_idle((created, None), at("2026-11-22T09:58:59Z")));
        assert!(is_idle((created, None), at("2026-11-22T09:59:00Z")));
    }
}
