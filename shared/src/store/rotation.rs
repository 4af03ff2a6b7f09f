//! Rotation: a token gets a successor with the same rights, and ends later, so that a lost answer
//! strands nobody.
//!
//! ```text
//!   rotate                    overlap over, or first use of the successor
//!   old ──▶ old + successor ─────────────────────────────────────────────▶ successor
//!                  │ rotate the old one again, while the successor is unused
//!                  └──▶ old + another successor; the first one is revoked
//! ```
//!
//! The old token keeps `Rotated`, the successor `Replaces`. The end of the overlap is the old
//! token's expiry. If the overlap lasts until the successor's first use, each use of the old token
//! reads whether the successor was used, and the successor's first use is written before it is
//! answered: a client that saw the successor work never sees the old token work again. The next
//! listing revokes the old token, so that it shows why it ended. API keys count towards the plan's
//! limit once: the successor does, the old key no longer.

use std::time::Duration;

use serde::Serialize;

use super::audit::{Caller, Entry, Subject};
use super::idempotency::Repeat;
use super::keys::{self, Key};
use super::tokens::{ApiKey, OrgUserToken, Rotated, StoredToken};
use super::{Condition, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::domain::TokenState;
use crate::secret::{Token, TokenHash};

/// The longest overlap, and its length where it ends at the successor's first use.
pub const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest chain of unused successors that is followed.
const MAX_CHAIN: usize = 20;

/// How a token is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How long the old token stays active. Zero ends it at once.
    pub overlap: Duration,
    /// Whether the old token also ends at the successor's first use.
    pub until_first_use: bool,
    /// When the successor expires.
    pub expires_at: Option<Moment>,
}

impl Rotation {
    /// When the old token ends, which expired at `before` until now. `None` if at once.
    pub(super) fn end_of_old(&self, now: Moment, before: Option<Moment>) -> Option<Moment> {
        let end = now.plus(self.overlap);
        (!self.overlap.is_zero()).then(|| before.map_or(end, |before| before.min(end)))
    }
}

impl Transaction<'_> {
    /// Notes a successor at a token that was rotated as `before` says. The token ends at `end`, or
    /// without it at once. `is_counted` if a plan limits tokens of this kind: then it no longer counts.
    pub(super) fn rotate(
        &mut self,
        key: Key,
        before: Option<&Rotated>,
        rotated: &Rotated,
        end: Option<Moment>,
        is_counted: bool,
        caller: &Caller,
    ) -> Result<&mut Self, StoreError> {
        let value = |value| serde_json::to_value(value).map_err(|_| StoreError::Defect);
        let mut values = vec![(":rotated", value(rotated)?)];
        let change = match end {
            Some(end) if is_counted => {
                values.push((":end", end.to_string().into()));
                values.push((":true", true.into()));
                "SET #rotated = :rotated, #expires_at = :end, #uncounted = :true"
            }
            Some(end) => {
                values.push((":end", end.to_string().into()));
                "SET #rotated = :rotated, #expires_at = :end"
            }
            None => {
                values.extend(self.store.revocation(caller)?);
                "SET #rotated = :rotated, #revoked_at = :now, #revoked_by = :by"
            }
        };
        let is_as_read = match before {
            Some(before) => {
                values.push((":before", value(before)?));
                "attribute_not_exists(#revoked_at) AND #rotated = :before"
            }
            None => "attribute_exists(pk) AND attribute_not_exists(#revoked_at) AND attribute_not_exists(#rotated)",
        };
        Ok(self.update(key, change, is_as_read, &values))
    }

    /// Revokes a token whose pointers are those of a token with this expiry, counted or not. A rotation
    /// changes both.
    pub(super) fn revoke_as_read(
        &mut self,
        key: Key,
        (expires_at, uncounted): (Option<Moment>, bool),
        caller: &Caller,
    ) -> Result<&mut Self, StoreError> {
        let mut values = self.store.revocation(caller)?.to_vec();
        let expiry = match expires_at {
            Some(expires_at) => {
                values.push((":expires_at", expires_at.to_string().into()));
                "#expires_at = :expires_at"
            }
            None => "attribute_not_exists(#expires_at)",
        };
        let counts = if uncounted { "attribute_exists(#uncounted)" } else { "attribute_not_exists(#uncounted)" };
        let is_as_read =
            format!("attribute_exists(pk) AND attribute_not_exists(#revoked_at) AND {expiry} AND {counts}");
        Ok(self.update(key, "SET #revoked_at = :now, #revoked_by = :by", &is_as_read, &values))
    }

    /// Revokes a successor that was never used.
    pub(super) fn revoke_unused(&mut self, key: Key, caller: &Caller) -> Result<&mut Self, StoreError> {
        Ok(self.update(
            key,
            "SET #revoked_at = :now, #revoked_by = :by",
            "attribute_exists(pk) AND attribute_not_exists(#revoked_at) AND attribute_not_exists(#last_used_at)",
            &self.store.revocation(caller)?,
        ))
    }

    /// Replaces an item that must exist.
    pub(super) fn put_existing<T: Serialize>(&mut self, key: Key, body: &T) -> &mut Self {
        self.put_if(key, body, Some(Condition::plain("attribute_exists(pk)")))
    }

    /// Moves a token to another place in the expiry order.
    pub(super) fn move_expiry<T: Serialize>(&mut self, from: Option<Key>, to: Key, pointer: &T) -> &mut Self {
        // One item may be written once in a transaction.
        if let Some(from) = from.filter(|from| *from != to) {
            self.delete(from);
        }
        self.put(to, pointer)
    }
}

/// A token that may be rotated, as it was read.
#[derive(Debug, Clone)]
pub struct Old<T> {
    /// The token.
    pub token: T,
    pub(super) hash: TokenHash,
    /// Its successor, which is active and unused.
    pub(super) successor: Option<T>,
}

impl<T: Rotatable> Old<T> {
    /// When it expired before it was rotated, and its successor expires unless that is given.
    pub fn expires_at(&self) -> Option<Moment> {
        self.token.rotated().map_or_else(|| self.token.expires_at(), |rotated| rotated.expires_at)
    }
}

/// What was found under an ID that is to be rotated.
#[derive(Debug, Clone)]
pub enum Found<T> {
    /// It may be rotated.
    Old(Box<Old<T>>),
    /// There is no such active token, or its successor was used.
    NotFound,
    /// Another call has rotated it since this one came in.
    Conflict,
}

/// The result of a rotation.
#[derive(Debug)]
pub enum Successor<T> {
    /// The successor. The plain token is returned only here.
    Done(Box<T>, Token),
    /// The token is no longer active.
    NotFound,
    /// Another call has rotated it in the meantime.
    Conflict,
    /// The API key that made the call was revoked in the meantime.
    CallerRevoked,
    /// The rights of the bot that made the call changed in the meantime.
    CallerChanged,
    /// The organization is suspended.
    Suspended,
    /// The plan's limit of active keys is reached.
    PlanLimitReached,
    /// The idempotency key was used before.
    Repeated(Repeat),
}

/// A kind of token that can be rotated.
pub trait Rotatable: Clone + Sized {
    /// This kind of token, if it is one.
    fn of(token: StoredToken) -> Option<Self>;
    /// Its state at this time.
    fn state_at(&self, now: Moment) -> TokenState;
    /// Its successor, if it was rotated.
    fn rotated(&self) -> Option<&Rotated>;
    /// When it expires.
    fn expires_at(&self) -> Option<Moment>;
    /// When it was last used.
    fn last_used_at(&self) -> Option<Moment>;
}

impl Rotatable for OrgUserToken {
    fn of(token: StoredToken) -> Option<Self> {
        match token {
            StoredToken::OrgUser(token) => Some(token),
            _ => None,
        }
    }

    fn state_at(&self, now: Moment) -> TokenState {
        self.state(now)
    }

    fn rotated(&self) -> Option<&Rotated> {
        self.rotated.as_ref()
    }

    fn expires_at(&self) -> Option<Moment> {
        self.expires_at
    }

    fn last_used_at(&self) -> Option<Moment> {
        self.last_used_at
    }
}

impl Rotatable for ApiKey {
    fn of(token: StoredToken) -> Option<Self> {
        match token {
            StoredToken::ApiKey(key) => Some(key),
            _ => None,
        }
    }

    fn state_at(&self, now: Moment) -> TokenState {
        self.state(now)
    }

    fn rotated(&self) -> Option<&Rotated> {
        self.rotated.as_ref()
    }

    fn expires_at(&self) -> Option<Moment> {
        self.expires_at
    }

    fn last_used_at(&self) -> Option<Moment> {
        self.last_used_at
    }
}

impl Store {
    /// What a rotation finds. `received_at` is when the call came in, in milliseconds since 1970.
    pub(super) async fn to_rotate<T: Rotatable>(
        &self,
        token: T,
        hash: TokenHash,
        received_at: u64,
    ) -> Result<Found<T>, StoreError> {
        let now = self.clock.now();
        let successor = match token.rotated() {
            // This call was on its way when the other one rotated the token.
            Some(rotated) if rotated.id.milliseconds() > received_at => return Ok(Found::Conflict),
            Some(rotated) => self.stored_token(rotated.hash).await?.and_then(T::of),
            None => None,
        };
        if token.state_at(now) != TokenState::Active
            || self.is_superseded(token.rotated()).await?
            || successor.as_ref().is_some_and(|successor| successor.last_used_at().is_some())
        {
            return Ok(Found::NotFound);
        }
        let successor = successor.filter(|successor| successor.state_at(now) == TokenState::Active);
        Ok(Found::Old(Box::new(Old { token, hash, successor })))
    }

    /// Finds out whether a token has ended because its successor was used. One more read, and one
    /// for each unused successor that was rotated itself.
    pub(super) async fn is_superseded(&self, rotated: Option<&Rotated>) -> Result<bool, StoreError> {
        let mut next = rotated.filter(|rotated| rotated.until_first_use).cloned();
        for _ in 0..MAX_CHAIN {
            let Some(rotated) = next else { return Ok(false) };
            let Some(successor) = self.stored_token(rotated.hash).await? else { return Ok(false) };
            if successor.last_used_at().is_some() {
                return Ok(true);
            }
            next = successor.rotated().cloned();
        }
        // Nobody rotates that often without a use: end it.
        Ok(true)
    }

    /// Records the first use of a successor. This ends what it replaces.
    ///
    /// # Errors
    ///
    /// If it could not be recorded: the request must not be answered.
    pub(super) async fn record_first_use(&self, hash: TokenHash) -> Result<(), StoreError> {
        let values = [(":now", self.clock.now())];
        let is_unused = "attribute_exists(pk) AND attribute_not_exists(#last_used_at)";
        // If another request was first, it has recorded it.
        self.update(keys::token(hash), "SET #last_used_at = :now", is_unused, &values).await.map(|_| ())
    }

    /// Revokes a token whose successor was used, so that listings tell. If that fails, the next listing
    /// does it: the token has ended already.
    pub(super) async fn settle_superseded(&self, hash: TokenHash, token: &StoredToken) {
        if let Err(error) = self.revoke_superseded(hash, token).await {
            tracing::warn!(%error, "a token whose successor was used is still listed as active");
        }
    }

    async fn revoke_superseded(&self, hash: TokenHash, token: &StoredToken) -> Result<(), StoreError> {
        let Some(Rotated { id, .. }) = token.rotated() else { return Ok(()) };
        let kind = token.kind_name();
        let by = Subject::new(kind, id);
        let caller = Caller { actor: by, source_ip: None, request_id: String::new(), workload: None };
        let entry = Entry::done(&self.clock, &caller, &format!("{kind}.revoke"), Subject::new(kind, token.id()))?
            .with_detail("its successor was used".to_owned());
        let mut transaction = self.transaction();
        let org = match token {
            StoredToken::OrgUser(token) => {
                transaction.revoke_as_read(keys::token(hash), (token.expires_at, false), &caller)?;
                transaction.list_org_user_token_as_revoked(token, hash);
                &token.org_id
            }
            StoredToken::ApiKey(key) => {
                transaction.revoke_as_read(keys::token(hash), (key.expires_at, key.uncounted), &caller)?;
                transaction.list_replaced_api_key_as_revoked(key, hash);
                &key.org_id
            }
            // Other kinds have no successors.
            _ => return Ok(()),
        };
        // If another call has changed it meanwhile, the next listing settles it.
        transaction.audit(org, &entry).commit().await.map(|_| ())
    }
}
