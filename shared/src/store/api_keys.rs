//! API keys: scoped keys for an organization's tools, limited in number by its plan.
//!
//! Their states are those of org user tokens: active, expired, revoked (see
//! [`super::org_user_tokens`]). A counter holds the number of active keys. Every transaction that
//! adds or removes an active key also updates the counter, so it always equals the number of counted
//! pointers in the active listing:
//!
//! - create adds a pointer and increments the counter, if it is below the plan's limit and the plan
//!   has not changed;
//! - revoking an active key removes the pointer and decrements the counter;
//! - the next create or list after an expiry moves the expired keys and decrements the counter. Where
//!   a policy ends unused keys, a list, a create at the limit or a daily run moves those too.
//!
//! A key that was rotated does not count while it still works, since its successor does. If the
//! successor ends first, it counts again (`Place`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::idempotency::{Once, Repeat};
use super::keys::{self, Key};
use super::leaks::{Cause, Recipient};
use super::lifetimes::{AsRead, Days, EndsUnused, Limited, Settled, TooLong, is_old};
use super::orgs::Org;
use super::rotation::{MAX_LINE, MAX_OVERLAP, NewToken, Old, Rotatable, UNREVOKED, pointers_as_read, rotated_as_read};
use super::tokens::{ApiKey, Replaces, StoredToken};
use super::{Backoff, Committed, Condition, Range, SortKeys, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::domain::{Environment, Name, OrUnknown, Plan, Scopes, StateFilter, TokenState};
use crate::ids::{OrgId, TokenId};
use crate::secret::{Token, TokenHash, TokenKind};

/// Expired keys moved per transaction (three writes each) and per call. If more are due, the call
/// fails as retryable, and each retry has fewer left to move.
const DUE_PER_TRANSACTION: usize = 30;
const DUE_PER_CALL: usize = 600;

/// Maximum active keys of an environment that are looked through for unused ones.
const LOOKED_THROUGH: usize = 1_000;

/// Active keys per page that a daily run looks through.
const PAGE: usize = 100;

/// Keys that ended unused moved per transaction (five writes each, and the counter).
const UNUSED_PER_TRANSACTION: usize = 19;

/// Maximum reads per listing if keys change state in the meantime.
const ROUNDS: usize = 10;

/// An immutable pointer to an API key, stored by ID, in a listing and in expiry order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pointer {
    id: TokenId,
    environment: OrUnknown<Environment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Moment>,
    /// As [`ApiKey::uncounted`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    uncounted: bool,
    hash: TokenHash,
}

/// A key that has ended unused, as it is stored.
struct Unused {
    key: ApiKey,
    hash: TokenHash,
    end: Moment,
    place: Place,
}

/// What becomes of a key's place in the plan's count when it ends.
#[derive(Debug)]
pub(super) enum Place {
    /// It has none.
    None,
    /// It becomes free.
    Free,
    /// A key that it replaces still works, and takes it.
    Taken(Box<ApiKey>, TokenHash),
}

impl Place {
    /// Whether another key takes it.
    fn is_taken(&self) -> bool {
        matches!(self, Place::Taken(..))
    }
}

/// The counter of an organization's active API keys.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Active {
    active: i64,
}

/// The properties of a new API key.
#[derive(Debug)]
pub struct NewApiKey {
    /// Its name.
    pub name: Name,
    /// The environment it is for.
    pub environment: Environment,
    /// Its scopes.
    pub scopes: Scopes,
    /// When it expires.
    pub expires_at: Option<Moment>,
}

/// The result of creating an API key.
#[derive(Debug)]
pub enum Created {
    /// It was created. The plain key is returned only here.
    Done(Box<ApiKey>, Token),
    /// The plan's limit of active keys is reached.
    PlanLimitReached,
    /// The organization is suspended.
    Suspended,
    /// It would live longer than the organization's policy allows.
    TooLong(TooLong),
    /// The API key that made the call was revoked in the meantime, so it must not create another
    /// key.
    CallerRevoked,
    /// The idempotency key was used before.
    Repeated(Repeat),
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// The keys, newest first.
    pub keys: Vec<ApiKey>,
    /// The ID after which the next page starts; `None` on the last page.
    pub next: Option<TokenId>,
}

/// Filters and start of a listing.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    /// In these states.
    pub states: StateFilter,
    /// Only in this environment.
    pub environment: Option<Environment>,
    /// After this ID.
    pub after: Option<&'a TokenId>,
    /// Maximum number of results, at least 1.
    pub limit: usize,
    /// The request that lists them, for the audit entries of keys that it finds ended.
    pub request_id: &'a str,
}

impl Store {
    /// The API key of this organization with this ID.
    pub async fn api_key(&self, org: &OrgId, id: &TokenId) -> Result<Option<ApiKey>, StoreError> {
        let pointer: Option<Pointer> = self.get(keys::api_key_by_id(org, id)).await?;
        let Some(pointer) = pointer else { return Ok(None) };
        Ok(self.current_token(pointer.hash).await?.and_then(ApiKey::of))
    }

    /// Creates an API key if the plan's limit allows it, exactly, even with concurrent calls. `by`
    /// is the calling API key, if the caller is one.
    pub async fn create_api_key(
        &self,
        org: &OrgId,
        new: NewApiKey,
        by: Option<&(ApiKey, TokenHash)>,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<Created, StoreError> {
        let plain = Token::generate(match new.environment {
            Environment::Live => TokenKind::ApiKeyLive,
            Environment::Test => TokenKind::ApiKeyTest,
        })?;
        let key = ApiKey {
            id: TokenId::new(&self.clock)?,
            org_id: org.clone(),
            prefix: plain.shown_prefix(),
            name: new.name,
            environment: new.environment.into(),
            scopes: new.scopes.into(),
            created_at: self.clock.now(),
            created_by: caller.actor.clone(),
            expires_at: new.expires_at,
            last_used_at: None,
            revoked_at: None,
            revoked_by: None,
            rotated: None,
            replaces: None,
            uncounted: false,
            superseded: false,
        };
        let subject = Subject::new(ApiKey::SUBJECT, &key.id);
        let entry = Entry::done(&self.clock, caller, "api_key.create", subject.clone())?;
        let mut backoff = Backoff::new();
        let refused = loop {
            // A read is cheaper than a transaction that fails, and conflicts with no other call.
            let (Org { plan, suspended, lifetimes, .. }, active) = self.org_with_active_api_keys(org).await?;
            let is_full = plan.max_api_keys().is_some_and(|max| active >= max);
            let too_long = lifetimes.check(Limited::ApiKey, self.clock.now(), key.expires_at).err();
            if suspended || too_long.is_some() || is_full {
                // A revoked caller learns nothing about plan and policy.
                break match (by, too_long) {
                    (Some((_, by)), _) if self.is_revoked(*by).await? => return Ok(Created::CallerRevoked),
                    _ if suspended => Some(Created::Suspended),
                    (_, Some(too_long)) => Some(Created::TooLong(too_long)),
                    (_, None) => {
                        // Those that have ended unused make room.
                        if self.settle_unused_api_keys(org, lifetimes.end_after_unused_days).await? {
                            continue;
                        }
                        Some(Created::PlanLimitReached)
                    }
                };
            }
            let mut transaction = self.transaction();
            // First, since the first condition that fails is the answer.
            if let Some(by) = by {
                transaction.require_api_key(by)?;
            }
            let counted = transaction.writes.len();
            transaction.count_api_key(org, plan.max_api_keys());
            transaction
                .require_where(keys::org(org), "#plan = :plan", &[(":plan", &plan)])
                .put_token(&key, plain.hash())
                .audit(org, &entry);
            let key_used = transaction.once(org, once, caller, subject.clone());
            match transaction.try_commit(&mut backoff).await? {
                None => {}
                Some(Committed::Yes) => return Ok(Created::Done(Box::new(key), plain)),
                Some(Committed::No(index)) if index < counted => {
                    self.confirm_ended(by).await?;
                    return Ok(Created::CallerRevoked);
                }
                Some(Committed::No(index)) if index == counted => break Some(Created::PlanLimitReached),
                Some(Committed::No(index)) if Some(index) == key_used => break None,
                // The plan changed in the meantime: read it again.
                Some(Committed::No(_)) => backoff.pause().await?,
            }
        };
        // Whatever refused it, the same request may have been carried out meanwhile.
        match self.repeated(org, once, caller).await? {
            Some(repeat) => Ok(Created::Repeated(repeat)),
            None => refused.ok_or(StoreError::Unavailable),
        }
    }

    /// Lists API keys, newest first, including all completed changes.
    pub async fn list_api_keys(&self, org: &OrgId, listing: &Listing<'_>) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut after = listing.after.map(ToString::to_string);
        let environments = match listing.environment {
            Some(environment) => &[environment][..],
            None => &[Environment::Live, Environment::Test],
        };
        for round in 0.. {
            let wanted = listing.limit - page.keys.len();
            let mut pointers: Vec<Pointer> = Vec::new();
            // Sequentially, in the order in which keys change state (see `TokenState::ALL`), so
            // that none is missed.
            for state in listing.states.states() {
                for environment in environments {
                    let pk = keys::api_keys_in(org, *state, &(*environment).into());
                    let range = Range::new(&pk, SortKeys::All).start_after(after.as_deref()).newest_first();
                    let found = self.query::<Pointer>(range, wanted + 1).await?;
                    pointers.extend(found.into_iter().map(|(_, pointer)| pointer));
                }
            }
            pointers.sort_by(|a, b| b.id.cmp(&a.id));
            pointers.dedup_by(|a, b| a.id == b.id);
            let more = pointers.len() > wanted;
            pointers.truncate(wanted);
            after = pointers.last().map(|pointer| pointer.id.to_string());
            let mut tokens = self.stored_tokens(pointers.iter().map(|pointer| pointer.hash)).await?;
            let pointer_to = |token: &StoredToken| pointers.iter().find(|pointer| pointer.id.as_str() == token.id());
            let hash_of = |token: &StoredToken| pointer_to(token).map(|pointer| pointer.hash);
            let mut unused = Vec::new();
            for token in &mut tokens {
                let hash = hash_of(token);
                if let (StoredToken::ApiKey(key), Some(hash)) = (token, hash) {
                    let stored = key.clone();
                    if self.note_unused(key).await?.is_some() {
                        unused.push((stored, hash));
                    }
                }
            }
            self.move_unused_api_keys(org, unused).await?;
            self.note_superseded(&mut tokens, hash_of, listing.request_id).await?;
            let now = self.clock.now();
            for key in tokens.into_iter().filter_map(ApiKey::of) {
                if listing.states.states().contains(&key.state(now)) {
                    page.keys.push(key);
                }
            }
            // Keys may have changed state since the query: fill the page with further reads.
            if !more || page.keys.len() == listing.limit || round == ROUNDS {
                page.next = after.filter(|_| more).and_then(|id| TokenId::parse(&id));
                break;
            }
        }
        page.keys.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(page)
    }

    /// The organization's plan and its number of active API keys, without those that have ended unused.
    pub async fn api_key_plan(&self, id: &OrgId) -> Result<(OrUnknown<Plan>, u64), StoreError> {
        let (mut org, mut active) = self.org_with_active_api_keys(id).await?;
        if active > 0 && self.settle_unused_api_keys(id, org.lifetimes.end_after_unused_days).await? {
            (org, active) = self.org_with_active_api_keys(id).await?;
        }
        Ok((org.plan, active))
    }

    /// Moves keys that were not used for so many days to the listing of expired ones, among the oldest
    /// [`LOOKED_THROUGH`] of each environment. False if it has moved none.
    async fn settle_unused_api_keys(&self, org: &OrgId, days: Option<Days>) -> Result<bool, StoreError> {
        let Some(days) = days else { return Ok(false) };
        let mut unused = Vec::new();
        for environment in [Environment::Live, Environment::Test] {
            let pk = keys::api_keys_in(org, TokenState::Active, &environment.into());
            let pointers: Vec<(String, Pointer)> = self.query(Range::new(&pk, SortKeys::All), LOOKED_THROUGH).await?;
            unused.extend(self.unused_keys_among(pointers, days).await?);
        }
        Ok(self.move_unused_api_keys(org, unused).await?.contains(&Settled::Yes))
    }

    /// Moves those of a page of an environment's active keys that were not used for so many days. Returns
    /// the sort key after which the next page starts; `None` on the last page.
    pub(super) async fn end_unused_api_keys(
        &self,
        org: &OrgId,
        environment: Environment,
        days: Days,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let pk = keys::api_keys_in(org, TokenState::Active, &environment.into());
        let range = Range::new(&pk, SortKeys::All).start_after(after);
        let pointers: Vec<(String, Pointer)> = self.query(range, PAGE).await?;
        let next = pointers.last().filter(|_| pointers.len() == PAGE).map(|(sort_key, _)| sort_key.clone());
        let unused = self.unused_keys_among(pointers, days).await?;
        for settled in self.move_unused_api_keys(org, unused).await? {
            settled.done()?;
        }
        Ok(next)
    }

    /// Those of these keys that were not used for so many days, as they are stored. Reads none that is
    /// younger than a day.
    async fn unused_keys_among(
        &self,
        pointers: Vec<(String, Pointer)>,
        days: Days,
    ) -> Result<Vec<(ApiKey, TokenHash)>, StoreError> {
        let (now, mut unused) = (self.clock.now(), Vec::new());
        let old = pointers.into_iter().map(|(_, pointer)| pointer).filter(|pointer| is_old(&pointer.id, now));
        for chunk in old.collect::<Vec<_>>().chunks(100) {
            for token in self.stored_tokens(chunk.iter().map(|pointer| pointer.hash)).await? {
                let StoredToken::ApiKey(key) = token else { continue };
                let hash = chunk.iter().find(|pointer| pointer.id == key.id).map(|pointer| pointer.hash);
                if let (Some(_), Some(hash)) = (key.unused_end(Some(days), now), hash) {
                    unused.push((key, hash));
                }
            }
        }
        Ok(unused)
    }

    /// Moves those of these keys that have ended unused by the policy as it is now, one transaction after
    /// the other, since all of them write the counter. Returns what became of each transaction.
    async fn move_unused_api_keys(
        &self,
        org: &OrgId,
        keys: Vec<(ApiKey, TokenHash)>,
    ) -> Result<Vec<Settled>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (days, now) = (self.unused_days_now(org).await?, self.clock.now());
        let mut unused = Vec::with_capacity(keys.len());
        for (key, hash) in keys {
            if let Some(end) = key.unused_end(days, now) {
                let place = self.place_of(&key, false).await?;
                unused.push(Unused { key, hash, end, place });
            }
        }
        let mut settled = Vec::new();
        // A key that takes a place may be in no other write.
        for batch in unused.chunk_by(|one, next| !one.place.is_taken() && !next.place.is_taken()) {
            settled.extend(self.move_unused_in_batches(org, batch).await);
        }
        Ok(settled)
    }

    async fn move_unused_in_batches(&self, org: &OrgId, unused: &[Unused]) -> Vec<Settled> {
        let mut all = Vec::new();
        for batch in unused.chunks(UNUSED_PER_TRANSACTION) {
            match self.settle(self.unused_api_keys(org, batch)).await {
                // One of them was used, revoked or moved in the meantime: move the rest one by one.
                Settled::Changed if batch.len() > 1 => {
                    for one in batch {
                        all.push(self.settle(self.unused_api_keys(org, std::slice::from_ref(one))).await);
                    }
                }
                settled => all.push(settled),
            }
            if matches!(all.last(), Some(Settled::Failed(_))) {
                break;
            }
        }
        all
    }

    /// A transaction that makes keys expire when they ended unused.
    fn unused_api_keys(&self, org: &OrgId, batch: &[Unused]) -> Transaction<'_> {
        let mut transaction = self.transaction();
        transaction.give_back(org, batch.iter().map(|unused| &unused.place));
        for Unused { key, hash, end, .. } in batch {
            let before = key.pointer(*hash);
            let after = Pointer { expires_at: Some(*end), ..before.clone() };
            let ApiKey { last_used_at, expires_at, uncounted, .. } = *key;
            transaction
                .end_unused(keys::token(*hash), AsRead { last_used_at, expires_at, uncounted, revision: None }, *end)
                .delete_existing(ApiKey::listed(&before, org, TokenState::Active))
                .put(ApiKey::listed(&after, org, TokenState::Expired), &after)
                .put(keys::api_key_by_id(org, &key.id), &after);
            if let Some(expiry) = ApiKey::expiry(&before, org) {
                transaction.delete(expiry);
            }
        }
        transaction
    }

    /// Confirms that the API key that makes a call has ended.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if it was only rotated since it was read: the call is to be repeated.
    pub(super) async fn confirm_ended(&self, by: Option<&(ApiKey, TokenHash)>) -> Result<(), StoreError> {
        let Some((_, hash)) = by else { return Ok(()) };
        let now = self.current_token(*hash).await?;
        if now.is_some_and(|key| key.is_active(self.clock.now())) { Err(StoreError::Unavailable) } else { Ok(()) }
    }

    async fn org_with_active_api_keys(&self, org: &OrgId) -> Result<(Org, u64), StoreError> {
        self.move_due_api_keys(org).await?;
        let (org, count) = futures::try_join!(self.org(org), self.get::<Active>(keys::api_key_count(org)))?;
        let active = u64::try_from(count.unwrap_or_default().active).unwrap_or(0);
        Ok((org.ok_or(StoreError::Defect)?, active))
    }

    /// Moves expired keys from the active to the expired listing and decrements the counter.
    /// Transactions run sequentially, because they all write the counter and would conflict.
    async fn move_due_api_keys(&self, org: &OrgId) -> Result<(), StoreError> {
        let pk = keys::api_key_expiries(org);
        let mut backoff = Backoff::new();
        'attempts: loop {
            let end = keys::expiry_sort_key_prefix(self.clock.now().plus(std::time::Duration::from_secs(1)));
            let due: Vec<(String, Pointer)> = self.query(Range::new(&pk, SortKeys::Before(&end)), DUE_PER_CALL).await?;
            let due: Vec<Pointer> = due.into_iter().map(|(_, pointer)| pointer).collect();
            let count = due.len();
            let due = self.with_places(due).await?;
            // A key that takes a place may be in no other write.
            let batches = due.chunk_by(|(_, one), (_, next)| !one.is_taken() && !next.is_taken());
            for batch in batches.flat_map(|batch| batch.chunks(DUE_PER_TRANSACTION)) {
                match self.expired_api_keys(org, batch).try_commit(&mut backoff).await? {
                    Some(Committed::Yes) => {}
                    // Another call may be moving them.
                    None => continue 'attempts,
                    // Another call moved or revoked one of them: move the rest one by one.
                    Some(Committed::No(_)) => {
                        for one in batch {
                            let mut one = self.expired_api_keys(org, std::slice::from_ref(one));
                            let _moved_by_another = one.commit().await?;
                        }
                    }
                }
            }
            return if count == DUE_PER_CALL { Err(StoreError::Unavailable) } else { Ok(()) };
        }
    }

    /// What becomes of the places of expired keys. Reads none that is too old to have replaced a key
    /// that still works.
    async fn with_places(&self, pointers: Vec<Pointer>) -> Result<Vec<(Pointer, Place)>, StoreError> {
        let mut places = BTreeMap::new();
        let oldest = self.clock.now().minus(MAX_OVERLAP).epoch_milliseconds();
        let young = |pointer: &&Pointer| !pointer.uncounted && pointer.id.milliseconds() >= oldest;
        let young: Vec<TokenHash> = pointers.iter().filter(young).map(|pointer| pointer.hash).collect();
        for hashes in young.chunks(100) {
            for key in self.stored_tokens(hashes.iter().copied()).await?.into_iter().filter_map(ApiKey::of) {
                places.insert(key.id.clone(), self.place_of(&key, false).await?);
            }
        }
        let pointers = pointers.into_iter().map(|pointer| {
            let place = if pointer.uncounted { Place::None } else { Place::Free };
            let place = places.remove(&pointer.id).unwrap_or(place);
            (pointer, place)
        });
        Ok(pointers.collect())
    }

    /// What becomes of the place of a token that ends now. Those of other kinds have none.
    pub(super) async fn place_of_any(&self, token: &StoredToken) -> Result<Place, StoreError> {
        match token {
            StoredToken::ApiKey(key) => self.place_of(key, false).await,
            _ => Ok(Place::None),
        }
    }

    /// What becomes of the place of a key that ends now, perhaps by a use of it.
    async fn place_of(&self, key: &ApiKey, is_use: bool) -> Result<Place, StoreError> {
        if key.uncounted {
            return Ok(Place::None);
        }
        let now = self.clock.now();
        let mut last = key.clone();
        for _ in 0..MAX_LINE {
            // The overlap of its rotation is over later.
            let is_young = last.created_at.plus(MAX_OVERLAP) > now;
            let Some(Replaces { hash, .. }) = last.replaces.filter(|_| is_young) else { break };
            let Some(mut stored) = self.stored_token(hash).await? else { break };
            if stored.is_idle(now) {
                // Whoever loses the place never gets it back: read afresh whether unused keys end.
                self.unused_days_now(&key.org_id).await?;
            }
            self.note_all(&mut stored).await?;
            let is_active = stored.is_active(now);
            let Some(old) = ApiKey::of(stored) else { break };
            // It was rotated again: the place is that of its successor now.
            if old.rotated.as_ref().is_none_or(|rotated| rotated.id != last.id) {
                break;
            }
            let ends_with_use = is_use && old.rotated.as_ref().is_some_and(|rotated| rotated.until_first_use);
            if is_active && old.uncounted && !ends_with_use {
                return Ok(Place::Taken(Box::new(old), hash));
            }
            last = old;
        }
        Ok(Place::Free)
    }

    /// A transaction that moves expired keys.
    fn expired_api_keys(&self, org: &OrgId, batch: &[(Pointer, Place)]) -> Transaction<'_> {
        let mut transaction = self.transaction();
        transaction.give_back(org, batch.iter().map(|(_, place)| place));
        for (pointer, _) in batch {
            // A rotation may have changed what it counts.
            let counts = if pointer.uncounted { "attribute_exists" } else { "attribute_not_exists" };
            transaction
                .delete_if(
                    ApiKey::listed(pointer, org, TokenState::Active),
                    Condition::plain(&format!("attribute_exists(pk) AND {counts}(uncounted)")),
                )
                .put(ApiKey::listed(pointer, org, TokenState::Expired), pointer);
            if let Some(expiry) = ApiKey::expiry(pointer, org) {
                transaction.delete(expiry);
            }
        }
        transaction
    }

    /// Revokes an API key of this organization by ID. Idempotent; false if there is no such key.
    pub async fn revoke_api_key(&self, org: &OrgId, id: &TokenId, caller: &Caller) -> Result<bool, StoreError> {
        let pointer: Option<Pointer> = self.get(keys::api_key_by_id(org, id)).await?;
        let Some(pointer) = pointer else { return Ok(false) };
        // Revoked before is revoked, too: `revoked_at` stays unchanged.
        let _: bool = self.end_listed(org, &pointer, Cause::Asked("revoke"), caller).await?;
        Ok(true)
    }

    /// Ends a key. False if it was revoked before.
    pub(super) async fn end_api_key(
        &self,
        key: &ApiKey,
        hash: TokenHash,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        self.end_listed(&key.org_id, &key.pointer(hash), cause, caller).await
    }

    async fn end_listed(
        &self,
        org: &OrgId,
        pointer: &Pointer,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let subject = Subject::new(ApiKey::SUBJECT, &pointer.id);
        let entry = cause.entry(&self.clock, caller, ApiKey::SUBJECT, subject)?;
        let mut backoff = Backoff::persistent();
        'attempts: loop {
            let Some(StoredToken::ApiKey(key)) = self.stored_token(pointer.hash).await? else { break };
            if key.revoked_at.is_some() {
                break;
            }
            let pointer = key.pointer(pointer.hash);
            let place = self.place_of(&key, matches!(cause, Cause::Own)).await?;
            // Only an active key counts towards the plan. Its listing tells: try active first, then
            // expired.
            for state in [TokenState::Active, TokenState::Expired] {
                let mut transaction = self.transaction();
                transaction
                    .delete_existing(ApiKey::listed(&pointer, org, state))
                    .revoke_as_read(keys::token(pointer.hash), (key.expires_at, key.is_counted()), cause, caller)?
                    .put(ApiKey::listed(&pointer, org, TokenState::Revoked), &pointer);
                if state == TokenState::Active {
                    transaction.give_back(org, [&place]);
                    if let Some(expiry) = ApiKey::expiry(&pointer, org) {
                        transaction.delete(expiry);
                    }
                }
                transaction.audit(org, &entry).tell(cause, pointer.hash, &Recipient::Org(org.clone()), None, &entry);
                match transaction.try_commit(&mut backoff).await? {
                    Some(Committed::Yes) => return Ok(true),
                    Some(Committed::No(_)) => {}
                    None => continue 'attempts,
                }
            }
            // In neither listing, or changed: it was revoked or rotated in the meantime.
            backoff.pause().await?;
        }
        Ok(false)
    }
}

impl From<ApiKey> for StoredToken {
    fn from(key: ApiKey) -> Self {
        StoredToken::ApiKey(key)
    }
}

impl Rotatable for ApiKey {
    type Pointer = Pointer;

    const KIND: &'static str = Self::SUBJECT;
    const MADE: &'static str = "create";
    const IS_COUNTED: bool = true;
    const LIFETIME: Limited = Limited::ApiKey;

    fn of(token: StoredToken) -> Option<Self> {
        match token {
            StoredToken::ApiKey(key) => Some(key),
            _ => None,
        }
    }

    fn id(&self) -> &TokenId {
        &self.id
    }

    fn org_id(&self) -> &OrgId {
        &self.org_id
    }

    fn expires_at(&self) -> Option<Moment> {
        self.expires_at
    }

    fn created_by(&self) -> &Subject {
        &self.created_by
    }

    fn is_counted(&self) -> bool {
        !self.uncounted
    }

    fn secret(&self) -> TokenKind {
        if self.environment == Environment::Live { TokenKind::ApiKeyLive } else { TokenKind::ApiKeyTest }
    }

    fn succeeded_by(&self, new: NewToken) -> Self {
        Self {
            id: new.id,
            prefix: new.shown_prefix,
            created_at: new.created_at,
            created_by: new.created_by,
            expires_at: new.expires_at,
            last_used_at: None,
            rotated: None,
            replaces: Some(new.replaces),
            uncounted: false,
            superseded: false,
            ..self.clone()
        }
    }

    fn exceeds(old: &Old<Self>, by: &ApiKey, expires_at: Option<Moment>) -> Option<&'static str> {
        // A key that has rotated itself and lost the answer may do so again (`Rotate::bind_to`).
        let is_itself = by.id == old.token.id;
        let by = ApiKey { expires_at: if is_itself { old.expires_at } else { by.expires_at }, ..by.clone() };
        by.exceeded_by(&old.token.scopes, &old.token.environment, expires_at)
    }

    fn pointer(&self, hash: TokenHash) -> Pointer {
        let ApiKey { id, environment, expires_at, uncounted, .. } = self.clone();
        Pointer { id, environment, expires_at, uncounted, hash }
    }

    fn hash(pointer: &Pointer) -> TokenHash {
        pointer.hash
    }

    fn ending(pointer: &Pointer, end: Moment) -> Pointer {
        Pointer { expires_at: Some(end), uncounted: true, ..pointer.clone() }
    }

    fn by_id(org: &OrgId, id: &TokenId) -> Key {
        keys::api_key_by_id(org, id)
    }

    fn listed(pointer: &Pointer, org: &OrgId, state: TokenState) -> Key {
        keys::api_key_in(org, state, &pointer.environment, &pointer.id)
    }

    fn expiry(pointer: &Pointer, org: &OrgId) -> Option<Key> {
        pointer.expires_at.map(|expires_at| keys::api_key_expiry(org, expires_at, &pointer.id))
    }

    /// Its successor takes over what it counts.
    fn list_as_revoked(transaction: &mut Transaction<'_>, org: &OrgId, pointer: &Pointer) {
        transaction.delete_existing(Self::listed(pointer, org, TokenState::Active));
        if let Some(expiry) = Self::expiry(pointer, org) {
            transaction.delete(expiry);
        }
        transaction.put(Self::listed(pointer, org, TokenState::Revoked), pointer);
    }
}

impl Transaction<'_> {
    /// Requires that this API key, which makes the call, was not revoked or rotated since it was read, nor
    /// its successor used.
    pub(super) fn require_api_key(&mut self, (key, hash): &(ApiKey, TokenHash)) -> Result<&mut Self, StoreError> {
        let mut values = Vec::new();
        let rotated = rotated_as_read(key.rotated.as_ref(), &mut values)?;
        self.require_where(keys::token(*hash), &format!("{UNREVOKED} AND {rotated}"), &values);
        Ok(match key.rotated.as_ref().filter(|rotated| rotated.until_first_use) {
            Some(rotated) => self.require_unused(keys::token(rotated.hash)),
            None => self,
        })
    }

    /// Gives the places of keys that end back to the plan, or to the keys that take them.
    pub(super) fn give_back<'a>(&mut self, org: &OrgId, places: impl IntoIterator<Item = &'a Place>) -> &mut Self {
        let mut freed = 0;
        for place in places {
            match place {
                Place::None => {}
                Place::Free => freed += 1,
                Place::Taken(key, hash) => self.count_again(org, key, *hash),
            }
        }
        if freed > 0 {
            self.add(keys::api_key_count(org), ACTIVE, -freed);
        }
        self
    }

    /// Counts a key that was rotated in place of its successor, if it still is as it was read.
    fn count_again(&mut self, org: &OrgId, key: &ApiKey, hash: TokenHash) {
        let mut values = Vec::new();
        let as_read = pointers_as_read(key.expires_at, key.is_counted(), &mut values);
        let condition = format!("attribute_exists(pk) AND attribute_not_exists(#revoked_at) AND {as_read}");
        let pointer = Pointer { uncounted: false, ..key.pointer(hash) };
        let is_listed = Condition::plain("attribute_exists(pk)");
        self.update(keys::token(hash), "REMOVE #uncounted", &condition, &values)
            .put(ApiKey::by_id(org, &key.id), &pointer)
            .put_if(ApiKey::listed(&pointer, org, TokenState::Active), &pointer, Some(is_listed));
        if let Some(expiry) = ApiKey::expiry(&pointer, org) {
            self.put(expiry, &pointer);
        }
    }

    /// Counts a new active key in place of so many that no longer count. Only one that replaces none may
    /// exceed the plan's limit.
    pub(super) fn replace_counted(&mut self, org: &OrgId, replaced: usize, max: Option<u64>) {
        match i64::try_from(replaced).unwrap_or(i64::MAX) {
            0 => {
                self.count_api_key(org, max);
            }
            1 => {}
            more => {
                self.add(keys::api_key_count(org), ACTIVE, 1 - more);
            }
        }
    }

    /// Counts a new active key, unless that exceeds the plan's limit.
    pub(super) fn count_api_key(&mut self, org: &OrgId, max: Option<u64>) -> &mut Self {
        match max {
            Some(max) => self.update(
                keys::api_key_count(org),
                "ADD #active :one",
                "attribute_not_exists(#active) OR #active < :max",
                &[(":one", 1), (":max", max)],
            ),
            None => self.add(keys::api_key_count(org), ACTIVE, 1),
        }
    }
}

/// The attribute name in [`Active`].
const ACTIVE: &str = "active";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Scope;

    fn key() -> ApiKey {
        let moment = |text| Moment::parse(text);
        ApiKey {
            id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            prefix: "tk_live_a1b2c3d4".to_owned(),
            name: Name::try_from("ci-pipeline".to_owned()).unwrap(),
            environment: Environment::Live.into(),
            scopes: Scopes::try_from(vec![Scope::ShieldWrite, Scope::OrgRead]).unwrap().into(),
            created_at: moment("2026-11-21T10:00:00Z").unwrap(),
            created_by: Subject::new("bot", "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            expires_at: moment("2026-12-21T10:00:00Z"),
            last_used_at: moment("2026-11-22T10:00:00Z"),
            revoked_at: moment("2026-11-23T10:00:00Z"),
            revoked_by: Some(Subject::new("api_key", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC")),
            rotated: None,
            replaces: None,
            uncounted: false,
            superseded: false,
        }
    }

    #[test]
    fn stored_items_match_their_snapshots() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        insta::assert_json_snapshot!("api_key", StoredToken::ApiKey(key()));
        insta::assert_json_snapshot!("api_key_pointer", key().pointer(hash));
    }
}
