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
//! A successor may be rotated before it was used, and so on. Then the tokens are a line, in which a
//! first use ends all that come before it, and a rotation revokes all that come after.
//!
//! The old token keeps `Rotated`, the successor `Replaces`. The end of the overlap is the old
//! token's expiry. If the overlap lasts until the successor's first use, each use of the old token
//! reads whether the successor was used, and the successor's first use is written before it is
//! answered: a client that saw the successor work never sees the old token work again. The next
//! listing revokes the old token, so that it shows why it ended. API keys count towards the plan's
//! limit once: the successor does, the old key no longer, unless the successor ends first
//! (`Place`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::idempotency::{Once, Repeat};
use super::keys::{self, Key};
use super::leaks::Cause;
use super::lifetimes::Limited;
use super::members::Authority;
use super::tokens::{ApiKey, Replaces, Rotated, StoredToken};
use super::{Backoff, Committed, Condition, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::domain::TokenState;
use crate::error::ApiError;
use crate::ids::{OrgId, TokenId};
use crate::secret::{Token, TokenHash, TokenKind};

/// The longest overlap, and its length where it ends at the successor's first use.
pub const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The most tokens in a line of which only the first was ever used. A rotation of the first revokes the
/// 14 others: six writes each, and at most 16 of its own, of a transaction's 100.
pub(super) const MAX_LINE: usize = 15;

/// Tokens that a listing revokes at the same time.
const CONCURRENCY: usize = 16;

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
    pub(crate) fn end_of_old(&self, now: Moment, before: Option<Moment>) -> Option<Moment> {
        let end = now.plus(self.overlap);
        (!self.overlap.is_zero()).then(|| before.map_or(end, |before| before.min(end)))
    }
}

impl Transaction<'_> {
    /// Notes a successor at a token, if it is as it was read. The token ends at `end`, or without it at
    /// once. If `only_unused`, it must not have been used either.
    fn rotate<T: Rotatable>(
        &mut self,
        old: &Old<T>,
        rotated: &Rotated,
        end: Option<Moment>,
        only_unused: bool,
        caller: &Caller,
    ) -> Result<&mut Self, StoreError> {
        let mut values = vec![(":rotated", value(rotated)?)];
        // If a plan limits tokens of this kind, it no longer counts.
        let change = match end {
            Some(end) if T::IS_COUNTED => {
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
        let pointers = pointers_as_read(old.token.expires_at(), old.token.is_counted(), &mut values);
        let successor = rotated_as_read(old.rotated.as_ref(), &mut values)?;
        let mut condition = format!("{UNREVOKED} AND {pointers} AND {successor}");
        if only_unused {
            condition = format!("{condition} AND {UNUSED}");
        }
        Ok(self.update(keys::token(old.hash), change, &condition, &values))
    }

    /// Revokes a token whose pointers are those of a token with this expiry, counted or not. A rotation
    /// changes both.
    pub(super) fn revoke_as_read(
        &mut self,
        key: Key,
        (expires_at, is_counted): (Option<Moment>, bool),
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<&mut Self, StoreError> {
        let mut values = self.store.revocation(caller)?.to_vec();
        let is_as_read = format!("{UNREVOKED} AND {}", pointers_as_read(expires_at, is_counted, &mut values));
        let change = match cause {
            // A call with the token: a successor that was never used before ends what it replaces.
            Cause::Own => "SET #revoked_at = :now, #revoked_by = :by, #last_used_at = :now",
            Cause::Asked(_) | Cause::Leaked(_) => "SET #revoked_at = :now, #revoked_by = :by",
        };
        Ok(self.update(key, change, &is_as_read, &values))
    }

    /// Moves the pointers of a token that was rotated and ends at this time, or without it at once.
    fn end_rotated<T: Rotatable>(&mut self, token: &T, hash: TokenHash, end: Option<Moment>) {
        let (org, listed) = (token.org_id(), token.pointer(hash));
        let Some(end) = end else { return T::list_as_revoked(self, org, &listed) };
        let shortened = T::ending(&listed, end);
        self.put(T::by_id(org, token.id()), &shortened).put_if(
            T::listed(&shortened, org, TokenState::Active),
            &shortened,
            Some(Condition::plain(EXISTS)),
        );
        if let Some(expiry) = T::expiry(&shortened, org) {
            // One item may be written once in a transaction.
            if let Some(before) = T::expiry(&listed, org).filter(|before| *before != expiry) {
                self.delete(before);
            }
            self.put(expiry, &shortened);
        }
    }

    /// Writes a new token and its pointers.
    pub(super) fn put_token<T: Rotatable>(&mut self, token: &T, hash: TokenHash) -> &mut Self {
        let (org, pointer) = (token.org_id(), token.pointer(hash));
        let stored: StoredToken = token.clone().into();
        self.put_new(keys::token(hash), &stored)
            .put_new(T::by_id(org, token.id()), &pointer)
            .put_new(T::listed(&pointer, org, TokenState::Active), &pointer);
        if let Some(expiry) = T::expiry(&pointer, org) {
            self.put_new(expiry, &pointer);
        }
        self.note_expiry(&stored, hash)
    }

    /// Revokes a successor, if it is as it was read: never used, and with the same pointers.
    fn revoke_unused<T: Rotatable>(&mut self, unused: &Unused<T>, caller: &Caller) -> Result<&mut Self, StoreError> {
        let Unused { token, hash, rotated } = unused;
        let mut values = self.store.revocation(caller)?.to_vec();
        let pointers = pointers_as_read(token.expires_at(), token.is_counted(), &mut values);
        let rotated = rotated_as_read(rotated.as_ref(), &mut values)?;
        let condition = format!("{UNREVOKED} AND {UNUSED} AND {pointers} AND {rotated}");
        self.update(keys::token(*hash), "SET #revoked_at = :now, #revoked_by = :by", &condition, &values);
        T::list_as_revoked(self, token.org_id(), &token.pointer(*hash));
        Ok(self)
    }
}

/// The condition that a token was not revoked.
pub(super) const UNREVOKED: &str = "attribute_exists(pk) AND attribute_not_exists(#revoked_at)";

/// The condition that a token was never used.
const UNUSED: &str = "attribute_not_exists(#last_used_at)";

/// Whether a token was used, and revoked.
#[derive(Deserialize)]
struct UseAndEnd {
    last_used_at: Option<Moment>,
    revoked_at: Option<Moment>,
}

/// The values of an update.
pub(super) type Values = Vec<(&'static str, serde_json::Value)>;

fn value<V: Serialize>(value: &V) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|_| StoreError::Defect)
}

/// The condition that a token's pointers are those of one with this expiry, counted or not. A rotation
/// changes both.
pub(super) fn pointers_as_read(expires_at: Option<Moment>, is_counted: bool, values: &mut Values) -> String {
    let expiry = match expires_at {
        Some(expires_at) => {
            values.push((":expires_at", expires_at.to_string().into()));
            "#expires_at = :expires_at"
        }
        None => "attribute_not_exists(#expires_at)",
    };
    let counts = if is_counted { "attribute_not_exists" } else { "attribute_exists" };
    format!("{expiry} AND {counts}(#uncounted)")
}

/// The condition that a token's successor is this one.
pub(super) fn rotated_as_read(rotated: Option<&Rotated>, values: &mut Values) -> Result<&'static str, StoreError> {
    let Some(rotated) = rotated else { return Ok("attribute_not_exists(#rotated)") };
    values.push((":before", value(rotated)?));
    Ok("#rotated = :before")
}

/// The condition that an item exists.
const EXISTS: &str = "attribute_exists(pk)";

/// A token that may be rotated, as it was read.
#[derive(Debug, Clone)]
pub struct Old<T> {
    pub(super) token: T,
    /// As [`Rotate::expires_at`].
    pub(super) expires_at: Option<Moment>,
    hash: TokenHash,
    rotated: Option<Rotated>,
    /// Its active successors, none of which was used: its own, that one's, and so on.
    successors: Vec<Unused<T>>,
}

/// A successor that was never used, as it was read.
#[derive(Debug, Clone)]
struct Unused<T> {
    token: T,
    hash: TokenHash,
    rotated: Option<Rotated>,
}

/// Why what is found under an ID cannot be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrotatable {
    /// There is no such active token, or its successor was used.
    NotFound,
    /// Another call has rotated it since this one came in.
    Conflict,
    /// It is the last of a line of unused tokens that is as long as it may be.
    NeverUsed,
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

/// Who rotates a token.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// The calling API key and its hash, if the caller is one.
    pub api_key: Option<&'a (ApiKey, TokenHash)>,
    /// The right to rotate, if it is not that of the API key.
    pub authority: Authority<'a>,
    /// For the audit log.
    pub caller: &'a Caller,
    /// The request, if it has an idempotency key.
    pub once: Option<&'a Once>,
}

/// What can be rotated by ID.
pub trait Rotate: Sized + Send {
    /// Its ID.
    type Id: Sync;
    /// It, as it was read.
    type Old: Send + Sync;

    /// The answer if there is none with this ID.
    const NOT_FOUND: ApiError;
    /// Its kind, if an organization's policy may limit the lifetime of successors.
    const LIMITED: Option<Limited> = None;

    /// What a rotation finds under this ID of this organization. `received_at` is when the call came
    /// in, in milliseconds since 1970.
    fn find(
        store: &Store,
        org: &OrgId,
        id: &Self::Id,
        received_at: u64,
    ) -> impl Future<Output = Result<Result<Self::Old, Unrotatable>, StoreError>> + Send;

    /// When it expired before it was rotated, and its successor expires unless that is given.
    fn expires_at(old: &Self::Old) -> Option<Moment>;

    /// Notes that this API key is to create the successor: if somebody else has ended it sooner by a
    /// rotation, it is not to prolong itself.
    fn bind_to(old: &mut Self::Old, by: &ApiKey);

    /// How a successor that expires at this time exceeds the API key that is to create it.
    fn exceeds(old: &Self::Old, by: &ApiKey, expires_at: Option<Moment>) -> Option<&'static str>;

    /// Creates a successor with the same rights.
    fn rotate(
        store: &Store,
        old: Self::Old,
        rotation: Rotation,
        by: By<'_>,
    ) -> impl Future<Output = Result<Successor<Self>, StoreError>> + Send;
}

impl<T: Rotatable> Rotate for T {
    type Id = TokenId;
    type Old = Old<T>;

    const NOT_FOUND: ApiError = ApiError::TokenNotFound;
    const LIMITED: Option<Limited> = Some(T::LIFETIME);

    async fn find(
        store: &Store,
        org: &OrgId,
        id: &TokenId,
        received_at: u64,
    ) -> Result<Result<Old<T>, Unrotatable>, StoreError> {
        store.to_rotate(org, id, received_at).await
    }

    fn expires_at(old: &Old<T>) -> Option<Moment> {
        old.expires_at
    }

    fn bind_to(old: &mut Old<T>, by: &ApiKey) {
        let own = Subject::new(ApiKey::SUBJECT, &by.id);
        let successor = old.rotated.as_ref().map(|rotated| &rotated.id);
        let made_by_itself =
            |unused: &Unused<T>| Some(unused.token.id()) == successor && *unused.token.created_by() == own;
        if T::KIND == ApiKey::SUBJECT && *old.token.id() == by.id && !old.successors.iter().any(made_by_itself) {
            old.expires_at = old.token.expires_at();
        }
    }

    fn exceeds(old: &Old<T>, by: &ApiKey, expires_at: Option<Moment>) -> Option<&'static str> {
        <T as Rotatable>::exceeds(old, by, expires_at)
    }

    async fn rotate(store: &Store, old: Old<T>, rotation: Rotation, by: By<'_>) -> Result<Successor<T>, StoreError> {
        store.rotate_token(old, rotation, by).await
    }
}

/// A kind of token that can be rotated: where its pointers are, and how they are named.
pub(super) trait Rotatable: Clone + Into<StoredToken> + Send + Sync {
    /// What is stored by ID, in a listing and in expiry order.
    type Pointer: Serialize + DeserializeOwned + Clone + Send + Sync;

    /// The name of this kind in audit entries.
    const KIND: &'static str;
    /// The verb in the audit entry of a new one.
    const MADE: &'static str;
    /// Whether the plan limits their number.
    const IS_COUNTED: bool;
    /// The kind by which a policy limits its lifetime.
    const LIFETIME: Limited;

    /// This kind of token, if it is one.
    fn of(token: StoredToken) -> Option<Self>;
    fn id(&self) -> &TokenId;
    fn org_id(&self) -> &OrgId;
    fn expires_at(&self) -> Option<Moment>;
    fn created_by(&self) -> &Subject;
    /// Whether it counts towards the plan's limit, if that limits their number.
    fn is_counted(&self) -> bool;
    /// The kind of the secret of its successor.
    fn secret(&self) -> TokenKind;
    /// A successor with the same rights.
    fn succeeded_by(&self, new: NewToken) -> Self;
    /// As [`Rotate::exceeds`].
    fn exceeds(old: &Old<Self>, by: &ApiKey, expires_at: Option<Moment>) -> Option<&'static str>;

    fn pointer(&self, hash: TokenHash) -> Self::Pointer;
    fn hash(pointer: &Self::Pointer) -> TokenHash;
    /// The pointer of a token that was rotated and ends at this time.
    fn ending(pointer: &Self::Pointer, end: Moment) -> Self::Pointer;
    fn by_id(org: &OrgId, id: &TokenId) -> Key;
    fn listed(pointer: &Self::Pointer, org: &OrgId, state: TokenState) -> Key;
    fn expiry(pointer: &Self::Pointer, org: &OrgId) -> Option<Key>;
    /// Moves an active token to the listing of the revoked ones.
    fn list_as_revoked(transaction: &mut Transaction<'_>, org: &OrgId, pointer: &Self::Pointer);
}

/// What a successor does not take over from what it replaces.
pub(super) struct NewToken {
    pub id: TokenId,
    pub shown_prefix: String,
    pub created_at: Moment,
    pub created_by: Subject,
    pub expires_at: Option<Moment>,
    pub replaces: Replaces,
}

impl Store {
    async fn to_rotate<T: Rotatable>(
        &self,
        org: &OrgId,
        id: &TokenId,
        received_at: u64,
    ) -> Result<Result<Old<T>, Unrotatable>, StoreError> {
        let pointer: Option<T::Pointer> = self.get(T::by_id(org, id)).await?;
        let Some(hash) = pointer.as_ref().map(T::hash) else { return Ok(Err(Unrotatable::NotFound)) };
        let Some(mut stored) = self.stored_token(hash).await? else { return Ok(Err(Unrotatable::NotFound)) };
        let rotated = stored.rotated().cloned();
        // This call was on its way when the other one rotated the token.
        if rotated.as_ref().is_some_and(|rotated| rotated.id.milliseconds() > received_at) {
            return Ok(Err(Unrotatable::Conflict));
        }
        self.note_all(&mut stored).await?;
        if !stored.is_active(self.clock.now()) {
            return Ok(Err(Unrotatable::NotFound));
        }
        let Some(successors) = self.unused_successors(rotated.as_ref()).await? else {
            return Ok(Err(Unrotatable::NotFound));
        };
        if self.is_line_full(&stored).await? {
            return Ok(Err(Unrotatable::NeverUsed));
        }
        let Some(token) = T::of(stored) else { return Ok(Err(Unrotatable::NotFound)) };
        let expires_at = rotated.as_ref().map_or_else(|| token.expires_at(), |rotated| rotated.expires_at);
        Ok(Ok(Old { token, expires_at, hash, rotated, successors }))
    }

    /// The active successors of a token that was rotated: its own, that one's, and so on. `None` if one
    /// of them was used.
    async fn unused_successors<T: Rotatable>(
        &self,
        rotated: Option<&Rotated>,
    ) -> Result<Option<Vec<Unused<T>>>, StoreError> {
        let (now, mut unused, mut next) = (self.clock.now(), Vec::new(), rotated.cloned());
        for _ in 0..MAX_LINE {
            let Some(Rotated { hash, .. }) = next else { break };
            let Some(stored) = self.stored_token(hash).await? else { break };
            if stored.last_used_at().is_some() {
                return Ok(None);
            }
            next = stored.rotated().cloned();
            let token = T::of(stored).filter(|token| token.clone().into().is_active(now));
            unused.extend(token.map(|token| Unused { token, hash, rotated: next.clone() }));
        }
        Ok(Some(unused))
    }

    /// Whether a line of tokens that were never used has no room for a successor of this one. What was
    /// replaced before the longest overlap has ended.
    async fn is_line_full(&self, token: &StoredToken) -> Result<bool, StoreError> {
        let oldest = self.clock.now().minus(MAX_OVERLAP);
        let mut last = token.clone();
        for _ in 1..MAX_LINE {
            let is_followed = last.last_used_at().is_none() && last.created_at() > oldest;
            let replaces = last.replaces().filter(|_| is_followed);
            let Some(hash) = replaces.map(|replaces| replaces.hash) else { return Ok(false) };
            let Some(replaced) = self.stored_token(hash).await? else { return Ok(false) };
            last = replaced;
        }
        Ok(true)
    }

    /// As [`Rotate::rotate`]. If only a successor has changed since they were read, it starts over, and
    /// once if the plan refuses: keys that have ended may still be counted.
    async fn rotate_token<T: Rotatable>(
        &self,
        mut old: Old<T>,
        rotation: Rotation,
        by: By<'_>,
    ) -> Result<Successor<T>, StoreError> {
        let (mut backoff, mut has_looked) = (Backoff::new(), false);
        loop {
            let org = old.token.org_id();
            match self.try_rotate(&old, rotation, by).await? {
                None => backoff.pause().await?,
                Some(Successor::PlanLimitReached) if !has_looked => {
                    has_looked = true;
                    self.api_key_plan(org).await?;
                }
                Some(outcome) => return Ok(outcome),
            }
            old = match self.to_rotate::<T>(org, old.token.id(), u64::MAX).await? {
                Ok(now) if now.rotated == old.rotated => Old { expires_at: old.expires_at, ..now },
                Ok(_) | Err(Unrotatable::Conflict | Unrotatable::NeverUsed) => return Ok(Successor::Conflict),
                Err(Unrotatable::NotFound) => return Ok(Successor::NotFound),
            };
        }
    }

    /// Rotates a token. `None` if a successor of it is no longer as it was read.
    async fn try_rotate<T: Rotatable>(
        &self,
        old: &Old<T>,
        rotation: Rotation,
        by: By<'_>,
    ) -> Result<Option<Successor<T>>, StoreError> {
        let By { api_key, authority, caller, once } = by;
        let Old { token, expires_at: before, hash, rotated: was, successors } = old;
        let (org, hash) = (token.org_id(), *hash);
        // This call is a use of its caller.
        if api_key.is_some_and(|(_, own)| successors.iter().any(|successor| successor.hash == *own)) {
            return Ok(Some(Successor::NotFound));
        }
        let mut max = None;
        if T::IS_COUNTED {
            let stored = self.org(org).await?.ok_or(StoreError::Defect)?;
            if stored.suspended {
                return Ok(Some(match api_key {
                    Some((_, own)) if self.is_revoked(*own).await? => Successor::CallerRevoked,
                    _ => Successor::Suspended,
                }));
            }
            max = stored.plan.max_api_keys();
        }
        let (now, plain) = (self.clock.now(), Token::generate(token.secret())?);
        let stored: StoredToken = token.clone().into();
        // If this is used first, it ends what its predecessor would have ended.
        let ends_others = stored.last_used_at().is_none() && stored.replaces().is_some_and(|old| old.until_first_use);
        let new = token.succeeded_by(NewToken {
            id: TokenId::new(&self.clock)?,
            shown_prefix: plain.shown_prefix(),
            created_at: now,
            created_by: caller.actor.clone(),
            expires_at: rotation.expires_at,
            replaces: Replaces {
                id: token.id().clone(),
                hash,
                until_first_use: rotation.until_first_use || ends_others,
            },
        });
        let rotated = Rotated {
            id: new.id().clone(),
            hash: plain.hash(),
            expires_at: *before,
            until_first_use: rotation.until_first_use,
        };
        let entry = |verb: &str, id: &TokenId, detail: String| -> Result<Entry, StoreError> {
            let entry = Entry::done(&self.clock, caller, &format!("{}.{verb}", T::KIND), Subject::new(T::KIND, id))?;
            Ok(entry.with_detail(detail))
        };
        let rotate = entry("rotate", token.id(), format!("replaced by {}", new.id()))?;
        let made = entry(T::MADE, new.id(), format!("replaces {}", token.id()))?;
        let mut transaction = self.transaction();
        // First, so that a caller who was cut off learns nothing from the other conditions.
        let own_checks = transaction.require_authority(authority);
        let is_itself = api_key.is_some_and(|(_, own)| *own == hash);
        // Its first use would have ended the caller. A transaction has one write for each item.
        let ends_caller = api_key.is_some_and(|(key, _)| key.is_ended_by(hash));
        match api_key.filter(|_| !is_itself) {
            Some((_, own)) if ends_caller => transaction.require_unrevoked(keys::token(*own)),
            Some(api_key) => transaction.require_api_key(api_key)?,
            None => &mut transaction,
        };
        let own = transaction.writes.len();
        let end = rotation.end_of_old(now, *before);
        transaction.rotate(old, &rotated, end, ends_caller, caller)?;
        transaction.end_rotated(token, hash, end);
        let first_successor = transaction.writes.len();
        for unused in successors {
            let detail = "its predecessor was rotated again".to_owned();
            let entry = entry("revoke", unused.token.id(), detail)?;
            transaction.revoke_unused(unused, caller)?.audit(org, &entry);
        }
        let of_successors = first_successor..transaction.writes.len();
        // The new token takes over what the old one or an unused successor counts.
        let tokens = [token].into_iter().chain(successors.iter().map(|unused| &unused.token));
        let counted = tokens.filter(|token| T::IS_COUNTED && token.is_counted()).count();
        let limit = transaction.writes.len();
        if T::IS_COUNTED {
            transaction.replace_counted(org, counted, max);
        }
        let after = transaction.writes.len();
        transaction.put_token(&new, plain.hash()).audit(org, &made).audit(org, &rotate);
        let key_used = transaction.once(org, once, caller, Subject::new(T::KIND, new.id()));
        let mut backoff = Backoff::new();
        loop {
            let outcome = transaction.try_commit(&mut backoff).await?;
            match outcome {
                Some(Committed::Yes) => return Ok(Some(Successor::Done(Box::new(new), plain))),
                Some(Committed::No(index)) if index < own_checks => return Ok(Some(Successor::CallerChanged)),
                Some(Committed::No(index)) if index < own => {
                    self.confirm_ended(api_key).await?;
                    return Ok(Some(Successor::CallerRevoked));
                }
                Some(Committed::No(index)) if (limit..after).contains(&index) => {
                    return Ok(Some(Successor::PlanLimitReached));
                }
                _ => {}
            }
            // Whatever refused it, the same request may have been carried out meanwhile.
            if let Some(repeat) = self.repeated(org, once, caller).await? {
                return Ok(Some(Successor::Repeated(repeat)));
            }
            match outcome {
                Some(Committed::No(index)) if Some(index) == key_used => return Err(StoreError::Unavailable),
                _ => {}
            }
            let found = self.stored_token(hash).await?;
            if found.as_ref().is_some_and(|found| found.rotated() != was.as_ref()) {
                return Ok(Some(Successor::Conflict));
            }
            let has_moved = found.and_then(T::of).is_some_and(|found| {
                found.expires_at() != token.expires_at() || found.is_counted() != token.is_counted()
            });
            match outcome {
                // Another transaction was under way.
                None => {}
                Some(Committed::No(index)) if has_moved || of_successors.contains(&index) => return Ok(None),
                Some(_) if is_itself => return Ok(Some(Successor::CallerRevoked)),
                Some(_) => return Ok(Some(Successor::NotFound)),
            }
        }
    }

    /// Finds out whether a token has ended because its successor was used. One more read, and one
    /// for each unused successor that was rotated itself.
    pub(super) async fn is_superseded(&self, rotated: Option<&Rotated>) -> Result<bool, StoreError> {
        let mut next = rotated.filter(|rotated| rotated.until_first_use).cloned();
        for _ in 0..MAX_LINE {
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

    /// As [`Self::is_superseded`], for the active ones among up to 100 tokens at once: one more read,
    /// and one for each generation of unused successors. Those that have ended are revoked, so that
    /// listings tell: `hash_of` knows their hashes, and `request_id` is that of the listing.
    pub(super) async fn note_superseded(
        &self,
        tokens: &mut [StoredToken],
        hash_of: impl Fn(&StoredToken) -> Option<TokenHash>,
        request_id: &str,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let rotated = tokens.iter().filter(|token| token.is_active(now));
        let rotated = rotated.filter_map(|token| Some((token.id(), token.rotated()?.clone())));
        let superseded = self.superseded(rotated.collect()).await?;
        let mut ended: Vec<(TokenHash, &StoredToken)> = Vec::with_capacity(superseded.len());
        for token in tokens.iter_mut().filter(|token| superseded.contains(&token.id())) {
            token.supersede();
            ended.extend(hash_of(token).map(|hash| (hash, &*token)));
        }
        for some in ended.chunks(CONCURRENCY) {
            join_all(some.iter().map(|(hash, token)| self.settle_superseded(*hash, token, request_id))).await;
        }
        Ok(())
    }

    /// The IDs of those of these tokens that have ended because a successor was used.
    pub(super) async fn superseded(&self, rotated: Vec<(String, Rotated)>) -> Result<BTreeSet<String>, StoreError> {
        let mut open = rotated;
        open.retain(|(_, rotated)| rotated.until_first_use);
        let mut ended = BTreeSet::new();
        for _ in 0..MAX_LINE {
            if open.is_empty() {
                return Ok(ended);
            }
            let successors = self.stored_tokens(open.iter().map(|(_, rotated)| rotated.hash)).await?;
            let successors: BTreeMap<String, StoredToken> =
                successors.into_iter().map(|successor| (successor.id(), successor)).collect();
            let mut next = Vec::new();
            for (id, rotated) in open {
                match successors.get(rotated.id.as_str()) {
                    Some(successor) if successor.last_used_at().is_some() => {
                        ended.insert(id);
                    }
                    Some(successor) => next.extend(successor.rotated().cloned().map(|rotated| (id, rotated))),
                    None => {}
                }
            }
            open = next;
        }
        // Nobody rotates that often without a use: end them.
        ended.extend(open.into_iter().map(|(id, _)| id));
        Ok(ended)
    }

    /// Records the first use of a successor. This ends what it replaces.
    ///
    /// # Errors
    ///
    /// If it could not be recorded: the request must not be answered. [`StoreError::Ended`] if the
    /// successor is gone, or another request has recorded it and it has ended since.
    pub(super) async fn record_first_use(&self, hash: TokenHash) -> Result<(), StoreError> {
        let values = [(":now", self.clock.now())];
        // It names no other attribute: the functions that record uses have rights on this one alone.
        let condition = format!("attribute_exists(pk) AND {UNUSED}");
        if self.update(keys::token(hash), "SET #last_used_at = :now", &condition, &values).await? == Committed::Yes {
            return Ok(());
        }
        // If another request was first, it has recorded it.
        let now: Option<UseAndEnd> = self.get(keys::token(hash)).await?;
        let is_recorded = now.is_some_and(|now| now.last_used_at.is_some() && now.revoked_at.is_none());
        if is_recorded { Ok(()) } else { Err(StoreError::Ended) }
    }

    /// Revokes a token whose successor was used, so that listings tell. If that fails, the next listing
    /// does it: the token has ended already.
    async fn settle_superseded(&self, hash: TokenHash, token: &StoredToken, request_id: &str) {
        let Some(Rotated { id: successor, .. }) = token.rotated() else { return };
        let settled = match token {
            StoredToken::ApiKey(key) => self.revoke_superseded(hash, key, successor, request_id).await,
            StoredToken::OrgUser(token) => self.revoke_superseded(hash, token, successor, request_id).await,
            // Other kinds have no successors.
            StoredToken::Bot(_) | StoredToken::EmailVerified(_) | StoredToken::OrgAccess(_) => return,
        };
        if let Err(error) = settled {
            tracing::warn!(%error, "a token whose successor was used is still listed as active");
        }
    }

    async fn revoke_superseded<T: Rotatable>(
        &self,
        hash: TokenHash,
        token: &T,
        successor: &TokenId,
        request_id: &str,
    ) -> Result<(), StoreError> {
        let (by, request_id) = (Subject::new(T::KIND, successor), request_id.to_owned());
        let caller = Caller { actor: by, source_ip: None, request_id, workload: None };
        let (action, subject) = (format!("{}.revoke", T::KIND), Subject::new(T::KIND, token.id()));
        let entry = Entry::done(&self.clock, &caller, &action, subject)?;
        let entry = entry.with_detail("its successor was used".to_owned());
        let place = self.place_of_any(&token.clone().into()).await?;
        let mut transaction = self.transaction();
        let as_read = (token.expires_at(), token.is_counted());
        transaction.revoke_as_read(keys::token(hash), as_read, Cause::Asked("revoke"), &caller)?;
        transaction.give_back(token.org_id(), [&place]);
        T::list_as_revoked(&mut transaction, token.org_id(), &token.pointer(hash));
        // If another call has changed it meanwhile, the next listing settles it.
        transaction.audit(token.org_id(), &entry).commit().await.map(|_| ())
    }
}
