//! Org user tokens and their states: active, expired, revoked.
//!
//! ```text
//!             issue        clock, unused for too long (moved by a listing or a daily run)
//!   (nothing) ─────▶ active ─────────────────────────────────────────────────────────▶ expired
//!                      │  revoke, revoke by user                              revoke      │
//!                      └──────────────────────────────▶ revoked ◀─────────────────────────┘
//! ```
//!
//! The item under the token's hash is the source of truth; listings contain pointers to it. Each
//! transition is one transaction that updates the item and moves the pointer, so a token is always
//! in exactly one listing.

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::idempotency::{Once, Repeat};
use super::keys::{self, Key};
use super::leaks::{Cause, Recipient};
use super::lifetimes::{AsRead, Days, EndsUnused, Limited, Settled, is_old};
use super::members::Member;
use super::orgs::Org;
use super::rotation::{MAX_OVERLAP, NewToken, Old, Rotatable};
use super::tokens::{ApiKey, OrgUserToken, StoredToken};
use super::{Backoff, Committed, Range, SortKeys, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::domain::{StateFilter, TokenState, UserIdentifier, UserIdentifierPrefix};
use crate::ids::{OrgId, TokenId};
use crate::person::Binding;
use crate::secret::{Token, TokenHash, TokenKind};

/// Maximum concurrent transactions per call.
const CONCURRENCY: usize = 16;

/// Expired tokens that a listing of active ones moves first. Any others are filtered out and moved
/// by the next listing.
const DUE_PER_LISTING: usize = 100;

/// Expired tokens that a listing of expired ones moves. It needs all of them to be complete, so if
/// more are due, the call fails as retryable, and each retry has fewer left to move.
const DUE_PER_LISTING_OF_EXPIRED: usize = 2_000;

/// Minimum pointers per additional read of a listing, and maximum number of these reads.
const ROUND: usize = 100;
const ROUNDS: usize = 10;

/// Maximum active tokens that a listing of expired ones looks through for unused ones. Others are moved
/// by the listings that show them.
const LOOKED_THROUGH: usize = 1_000;

/// Maximum active tokens of one identifier that a call counts. The next call sees the rest.
const MAX_COUNTED: usize = 10_000;

/// Maximum tokens that one call of [`Store::revoke_org_user_tokens_of`] revokes.
pub const REVOKED_PER_CALL: usize = 1_000;

/// An immutable pointer to a token, stored by ID, in a listing and in expiry order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pointer {
    id: TokenId,
    user_identifier: UserIdentifier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound_to: Option<Binding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Moment>,
    hash: TokenHash,
}

impl Pointer {
    fn has_expired(&self, now: Moment) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

impl From<OrgUserToken> for StoredToken {
    fn from(token: OrgUserToken) -> Self {
        StoredToken::OrgUser(token)
    }
}

impl Rotatable for OrgUserToken {
    type Pointer = Pointer;

    const KIND: &'static str = Self::SUBJECT;
    const MADE: &'static str = "issue";
    const IS_COUNTED: bool = false;
    const LIFETIME: Limited = Limited::OrgUserToken;

    fn of(token: StoredToken) -> Option<Self> {
        match token {
            StoredToken::OrgUser(token) => Some(token),
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
        true
    }

    fn secret(&self) -> TokenKind {
        TokenKind::OrgUser
    }

    fn succeeded_by(&self, new: NewToken) -> Self {
        Self {
            id: new.id,
            token_prefix: new.shown_prefix,
            created_at: new.created_at,
            created_by: new.created_by,
            expires_at: new.expires_at,
            last_used_at: None,
            rotated: None,
            replaces: Some(new.replaces),
            superseded: false,
            ..self.clone()
        }
    }

    /// No API key rotates them.
    fn exceeds(_: &Old<Self>, _: &ApiKey, _: Option<Moment>) -> Option<&'static str> {
        None
    }

    fn pointer(&self, hash: TokenHash) -> Pointer {
        Pointer {
            id: self.id.clone(),
            user_identifier: self.user_identifier.clone(),
            bound_to: self.bound_to.clone(),
            expires_at: self.expires_at,
            hash,
        }
    }

    fn hash(pointer: &Pointer) -> TokenHash {
        pointer.hash
    }

    fn ending(pointer: &Pointer, end: Moment) -> Pointer {
        Pointer { expires_at: Some(end), ..pointer.clone() }
    }

    fn by_id(org: &OrgId, id: &TokenId) -> Key {
        keys::org_user_token_by_id(org, id)
    }

    fn listed(pointer: &Pointer, org: &OrgId, state: TokenState) -> Key {
        keys::org_user_token_in(org, state, &pointer.user_identifier, &pointer.id)
    }

    fn expiry(pointer: &Pointer, org: &OrgId) -> Option<Key> {
        pointer.expires_at.map(|expires_at| keys::org_user_token_expiry(org, expires_at, &pointer.id))
    }

    /// From whatever listing it is in.
    fn list_as_revoked(transaction: &mut Transaction<'_>, org: &OrgId, pointer: &Pointer) {
        transaction.delete(Self::listed(pointer, org, TokenState::Active)).delete(Self::listed(
            pointer,
            org,
            TokenState::Expired,
        ));
        if let Some(expiry) = Self::expiry(pointer, org) {
            transaction.delete(expiry);
        }
        transaction.put(Self::listed(pointer, org, TokenState::Revoked), pointer);
    }
}

/// The result of issuing a token.
#[derive(Debug)]
pub enum Issued {
    /// It was issued. The plain token is returned only here.
    Done(Box<OrgUserToken>, Token),
    /// The idempotency key was used before.
    Repeated(Repeat),
}

/// Filters and start of a listing.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    /// In these states.
    pub states: StateFilter,
    /// Only with this identifier.
    pub user_identifier: Option<&'a UserIdentifier>,
    /// Only with identifiers that start with this prefix.
    pub user_identifier_prefix: Option<&'a UserIdentifierPrefix>,
    /// Only those that this member issued for themselves.
    pub bound_to: Option<&'a Binding>,
    /// After this sort key (see [`Page::next`]).
    pub after: Option<&'a str>,
    /// Maximum number of results, at least 1.
    pub limit: usize,
    /// The request that lists them, for the audit entries of tokens that it finds ended.
    pub request_id: &'a str,
}

impl Listing<'_> {
    /// The sort key prefix to list; `None` if the filters exclude each other.
    fn sort_key_prefix(&self) -> Option<String> {
        match (self.user_identifier, self.user_identifier_prefix) {
            (Some(identifier), Some(prefix)) if !identifier.as_str().starts_with(prefix.as_str()) => None,
            (Some(identifier), _) => Some(keys::org_user_token_sort_key_prefix(identifier)),
            (None, Some(prefix)) => Some(prefix.as_str().to_owned()),
            (None, None) => Some(String::new()),
        }
    }

    /// Whether `after` is a valid start key of this listing. DynamoDB rejects any other.
    pub fn has_valid_start(&self) -> bool {
        self.after.is_none_or(|after| {
            let is_sort_key = after.rsplit_once('#').is_some_and(|(identifier, id)| {
                UserIdentifier::try_from(identifier.to_owned()).is_ok() && TokenId::parse(id).is_some()
            });
            is_sort_key && self.sort_key_prefix().is_some_and(|prefix| after.starts_with(&prefix))
        })
    }
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// The tokens, by identifier, then age.
    pub tokens: Vec<OrgUserToken>,
    /// The sort key after which the next page starts; `None` on the last page.
    pub next: Option<String>,
}

/// The tokens of one identifier after a revoke or dry run.
#[derive(Debug, PartialEq, Eq)]
pub struct RevokedByUser {
    /// Number of active tokens at the start of the call.
    pub matched: usize,
    /// IDs of the revoked tokens, or in a dry run of those that would be revoked.
    pub ids: Vec<TokenId>,
    /// Number of active tokens at the end of the call.
    pub remaining: usize,
}

/// The result of revoking the tokens of one identifier.
#[derive(Debug, PartialEq, Eq)]
pub enum RevokeByUser {
    /// They were revoked, or would be in a dry run.
    Done(RevokedByUser),
    /// The number of active tokens differs from the expected count; nothing was revoked.
    CountDiffers,
}

impl Store {
    /// Issues an org user token.
    pub async fn issue_org_user_token(
        &self,
        org: &OrgId,
        user_identifier: UserIdentifier,
        expires_at: Option<Moment>,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<Issued, StoreError> {
        self.issue(org, user_identifier, None, expires_at, caller, once).await
    }

    /// Issues an org user token to the member who asks for it. It ends with the membership.
    pub async fn issue_own_org_user_token(
        &self,
        member: &Member,
        user_identifier: UserIdentifier,
        expires_at: Option<Moment>,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<Issued, StoreError> {
        self.issue(&member.org_id, user_identifier, Some(member.binding()), expires_at, caller, once).await
    }

    async fn issue(
        &self,
        org: &OrgId,
        user_identifier: UserIdentifier,
        bound_to: Option<Binding>,
        expires_at: Option<Moment>,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<Issued, StoreError> {
        let plain = Token::generate(TokenKind::OrgUser)?;
        let token = OrgUserToken {
            id: TokenId::new(&self.clock)?,
            org_id: org.clone(),
            token_prefix: plain.shown_prefix(),
            user_identifier,
            created_at: self.clock.now(),
            created_by: caller.actor.clone(),
            bound_to,
            member_left: false,
            expires_at,
            last_used_at: None,
            revoked_at: None,
            revoked_by: None,
            rotated: None,
            replaces: None,
            superseded: false,
        };
        let subject = Subject::new(OrgUserToken::SUBJECT, &token.id);
        let entry = Entry::done(&self.clock, caller, "org_user_token.issue", subject.clone())?;
        let mut transaction = self.transaction();
        transaction.put_token(&token, plain.hash()).audit(org, &entry);
        let key = transaction.once(org, once, caller, subject);
        match transaction.commit().await? {
            Committed::Yes => Ok(Issued::Done(Box::new(token), plain)),
            Committed::No(index) if Some(index) == key => {
                self.repeated(org, once, caller).await?.map(Issued::Repeated).ok_or(StoreError::Unavailable)
            }
            // A collision of 80 and 214 random bits: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// Lists org user tokens by identifier, then age, including all completed changes.
    pub async fn list_org_user_tokens(&self, org: &OrgId, listing: &Listing<'_>) -> Result<Page, StoreError> {
        let Some(prefix) = listing.sort_key_prefix() else { return Ok(Page::default()) };
        match listing.states {
            StateFilter::Active => {
                self.move_due_org_user_tokens(org, DUE_PER_LISTING).await?;
            }
            StateFilter::Expired => {
                if listing.after.is_none() {
                    self.settle_unused_org_user_tokens(org).await?;
                }
                let moved = self.move_due_org_user_tokens(org, DUE_PER_LISTING_OF_EXPIRED).await?;
                if moved == DUE_PER_LISTING_OF_EXPIRED {
                    return Err(StoreError::Unavailable);
                }
            }
            StateFilter::Revoked | StateFilter::All => {}
        }
        let mut page = Page::default();
        let mut after = listing.after.map(str::to_owned);
        for round in 0.. {
            // Tokens may have changed state since the query: fill the page with further reads.
            let wanted = if round == 0 { listing.limit } else { (listing.limit - page.tokens.len()).max(ROUND) };
            let mut pointers: Vec<(String, Pointer)> = Vec::new();
            // Sequentially, in the order in which tokens change state (see `TokenState::ALL`), so
            // that none is missed.
            for state in listing.states.states() {
                let pk = keys::org_user_tokens_in(org, *state);
                let sort_keys = if prefix.is_empty() { SortKeys::All } else { SortKeys::StartingWith(&prefix) };
                let range = Range::new(&pk, sort_keys).start_after(after.as_deref());
                // One extra pointer shows whether there is a next page.
                pointers.extend(self.query::<Pointer>(range, wanted + 1).await?);
            }
            pointers.sort_by(|(a, _), (b, _)| a.cmp(b));
            pointers.dedup_by(|(a, _), (b, _)| a == b);
            let more = pointers.len() > wanted;
            pointers.truncate(wanted);
            after = pointers.last().map(|(sort_key, _)| sort_key.clone());
            if listing.states == StateFilter::Active {
                let now = self.clock.now();
                pointers.retain(|(_, pointer)| !pointer.has_expired(now));
            }
            if let Some(own) = listing.bound_to {
                pointers.retain(|(_, pointer)| pointer.bound_to.as_ref() == Some(own));
            }
            let followed = self.follow(org, &pointers, listing).await?;
            let room = listing.limit - page.tokens.len();
            if followed.len() > room {
                page.tokens.extend(followed.into_iter().take(room));
                page.next =
                    page.tokens.last().map(|last| keys::org_user_token_sort_key(&last.user_identifier, &last.id));
                break;
            }
            page.tokens.extend(followed);
            if !more || page.tokens.len() == listing.limit || round == ROUNDS {
                page.next = after.filter(|_| more);
                break;
            }
        }
        Ok(page)
    }

    /// Counts an organization's active tokens. Stops once it has counted more than 100.
    pub async fn count_active_org_user_tokens(&self, org: &Org) -> Result<usize, StoreError> {
        let (pk, now) = (keys::org_user_tokens_in(&org.id, TokenState::Active), self.clock.now());
        let (mut count, mut after) = (0, None);
        for _ in 0..ROUNDS {
            let range = Range::new(&pk, SortKeys::All).start_after(after.as_deref());
            let found: Vec<(String, Pointer)> = self.query(range, ROUND).await?;
            let is_last = found.len() < ROUND;
            after = found.last().map(|(sort_key, _)| sort_key.clone());
            let pointers = found.into_iter().map(|(_, pointer)| pointer);
            let mut unexpired: Vec<Pointer> = pointers.filter(|pointer| !pointer.has_expired(now)).collect();
            if let Some(days) = org.lifetimes.end_after_unused_days {
                let unused = self.unused_among(&unexpired, days).await?;
                unexpired.retain(|pointer| unused.iter().all(|(token, _)| token.id != pointer.id));
            }
            self.drop_superseded(&mut unexpired).await?;
            let bindings = unexpired.iter().filter_map(|pointer| pointer.bound_to.as_ref());
            let members = self.current_members(&org.id, bindings).await?;
            let is_current = |binding: &Binding| members.contains(&binding.member);
            count += unexpired.iter().filter(|pointer| pointer.bound_to.as_ref().is_none_or(is_current)).count();
            if is_last || count > ROUND {
                break;
            }
        }
        Ok(count)
    }

    /// Those of these tokens that were not used for so many days, as they are stored. Reads none that
    /// is younger than a day.
    async fn unused_among(
        &self,
        pointers: &[Pointer],
        days: Days,
    ) -> Result<Vec<(OrgUserToken, TokenHash)>, StoreError> {
        let mut unused = Vec::new();
        let now = self.clock.now();
        let old: Vec<&Pointer> = pointers.iter().filter(|pointer| is_old(&pointer.id, now)).collect();
        for chunk in old.chunks(100) {
            for token in self.stored_tokens(chunk.iter().map(|pointer| pointer.hash)).await? {
                let StoredToken::OrgUser(token) = token else { continue };
                let hash = chunk.iter().find(|pointer| pointer.id == token.id).map(|pointer| pointer.hash);
                if let (Some(_), Some(hash)) = (token.unused_end(Some(days), now), hash) {
                    unused.push((token, hash));
                }
            }
        }
        Ok(unused)
    }

    /// Drops those of these tokens that a first use of a successor has ended. Reads none that outlives
    /// the longest overlap of a rotation.
    async fn drop_superseded(&self, pointers: &mut Vec<Pointer>) -> Result<(), StoreError> {
        let last = self.clock.now().plus(MAX_OVERLAP);
        let may_be = |pointer: &&Pointer| pointer.expires_at.is_some_and(|end| end <= last);
        let hashes: Vec<TokenHash> = pointers.iter().filter(may_be).map(|pointer| pointer.hash).collect();
        for hashes in hashes.chunks(100) {
            let tokens = self.stored_tokens(hashes.iter().copied()).await?;
            let rotated = tokens.iter().filter_map(|token| Some((token.id(), token.rotated()?.clone())));
            let superseded = self.superseded(rotated.collect()).await?;
            pointers.retain(|pointer| !superseded.contains(pointer.id.as_str()));
        }
        Ok(())
    }

    /// Moves tokens that have ended unused to the listing of expired ones, among the first
    /// [`LOOKED_THROUGH`] of the active ones.
    async fn settle_unused_org_user_tokens(&self, org: &OrgId) -> Result<(), StoreError> {
        if let Some(days) = self.unused_days(org).await? {
            let pk = keys::org_user_tokens_in(org, TokenState::Active);
            let pointers: Vec<(String, Pointer)> = self.query(Range::new(&pk, SortKeys::All), LOOKED_THROUGH).await?;
            let pointers: Vec<Pointer> = pointers.into_iter().map(|(_, pointer)| pointer).collect();
            let unused = self.unused_among(&pointers, days).await?;
            self.move_unused_org_user_tokens(org, unused).await?;
        }
        Ok(())
    }

    /// Moves those of a page of active tokens that were not used for so many days. Returns the sort key
    /// after which the next page starts; `None` on the last page.
    pub(super) async fn end_unused_org_user_tokens(
        &self,
        org: &OrgId,
        days: Days,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let pk = keys::org_user_tokens_in(org, TokenState::Active);
        let range = Range::new(&pk, SortKeys::All).start_after(after);
        let found: Vec<(String, Pointer)> = self.query(range, ROUND).await?;
        let next = found.last().filter(|_| found.len() == ROUND).map(|(sort_key, _)| sort_key.clone());
        let pointers: Vec<Pointer> = found.into_iter().map(|(_, pointer)| pointer).collect();
        let unused = self.unused_among(&pointers, days).await?;
        for (_, settled) in self.move_unused_org_user_tokens(org, unused).await? {
            settled.done()?;
        }
        Ok(next)
    }

    /// Moves those of these tokens that have ended unused by the policy as it is now.
    async fn move_unused_org_user_tokens(
        &self,
        org: &OrgId,
        unused: Vec<(OrgUserToken, TokenHash)>,
    ) -> Result<Vec<(TokenId, Settled)>, StoreError> {
        if unused.is_empty() {
            return Ok(Vec::new());
        }
        let (days, now) = (self.unused_days_now(org).await?, self.clock.now());
        let moving = stream::iter(unused).map(async |(token, hash)| {
            let end = token.unused_end(days, now)?;
            let settled = self.settle(self.unused_org_user_token(&token, hash, end)).await;
            Some((token.id, settled))
        });
        Ok(moving.buffer_unordered(CONCURRENCY).filter_map(std::future::ready).collect().await)
    }

    /// Notes which tokens of a listing have ended unused, and moves them.
    async fn note_and_move_unused(
        &self,
        org: &OrgId,
        tokens: &mut [StoredToken],
        hash_of: impl Fn(&StoredToken) -> Option<TokenHash>,
    ) -> Result<(), StoreError> {
        let mut unused = Vec::new();
        for token in tokens {
            let hash = hash_of(token);
            if let (StoredToken::OrgUser(token), Some(hash)) = (token, hash) {
                let stored = token.clone();
                unused.extend(self.note_unused(token).await?.map(|_| (stored, hash)));
            }
        }
        self.move_unused_org_user_tokens(org, unused).await?;
        Ok(())
    }

    /// A transaction that makes a token expire when it ended unused.
    fn unused_org_user_token(&self, token: &OrgUserToken, hash: TokenHash, end: Moment) -> Transaction<'_> {
        let (org, before) = (&token.org_id, token.pointer(hash));
        let after = Pointer { expires_at: Some(end), ..before.clone() };
        let OrgUserToken { last_used_at, expires_at, .. } = *token;
        let mut transaction = self.transaction();
        transaction
            .end_unused(keys::token(hash), AsRead { last_used_at, expires_at, uncounted: false, revision: None }, end)
            .delete_existing(OrgUserToken::listed(&before, org, TokenState::Active))
            .put(OrgUserToken::listed(&after, org, TokenState::Expired), &after)
            .put(keys::org_user_token_by_id(org, &token.id), &after);
        if let Some(expiry) = OrgUserToken::expiry(&before, org) {
            transaction.delete(expiry);
        }
        transaction
    }

    /// The tokens of these pointers in the same order, without those that are no longer in one of
    /// the states.
    async fn follow(
        &self,
        org: &OrgId,
        pointers: &[(String, Pointer)],
        listing: &Listing<'_>,
    ) -> Result<Vec<OrgUserToken>, StoreError> {
        let mut tokens: Vec<OrgUserToken> = Vec::with_capacity(pointers.len());
        for chunk in pointers.chunks(100) {
            let hashes = chunk.iter().map(|(_, pointer)| pointer.hash);
            let mut found = self.stored_tokens(hashes).await?;
            let bindings = found.iter().filter_map(|token| match token {
                StoredToken::OrgUser(token) => token.bound_to.as_ref(),
                _ => None,
            });
            let members = self.current_members(org, bindings).await?;
            for token in &mut found {
                if let StoredToken::OrgUser(token) = token {
                    token.member_left = token.bound_to.as_ref().is_some_and(|own| !members.contains(&own.member));
                }
            }
            let pointer_to = |token: &StoredToken| chunk.iter().find(|(_, pointer)| pointer.id.as_str() == token.id());
            let hash_of = |token: &StoredToken| pointer_to(token).map(|(_, pointer)| pointer.hash);
            self.note_and_move_unused(org, &mut found, hash_of).await?;
            self.note_superseded(&mut found, hash_of, listing.request_id).await?;
            tokens.extend(found.into_iter().filter_map(OrgUserToken::of));
        }
        let now = self.clock.now();
        tokens.retain(|token| listing.states.states().contains(&token.state(now)));
        tokens.sort_by_cached_key(|token| keys::org_user_token_sort_key(&token.user_identifier, &token.id));
        Ok(tokens)
    }

    /// Moves up to `at_most` expired tokens from the active to the expired listing and returns
    /// their number. Each token is moved once, so listings pay for it no more than its issue did.
    async fn move_due_org_user_tokens(&self, org: &OrgId, at_most: usize) -> Result<usize, StoreError> {
        // Everything that expires in this second or earlier.
        let end = keys::expiry_sort_key_prefix(self.clock.now().plus(std::time::Duration::from_secs(1)));
        let pk = keys::org_user_token_expiries(org);
        let due: Vec<(String, Pointer)> = self.query(Range::new(&pk, SortKeys::Before(&end)), at_most).await?;
        let moved = due.len();
        stream::iter(due)
            .map(Ok)
            .try_for_each_concurrent(CONCURRENCY, |(_, pointer)| async move {
                let mut transaction = self.transaction();
                // If another listing or a revocation moved it first, there is nothing to do.
                transaction
                    .delete_existing(OrgUserToken::listed(&pointer, org, TokenState::Active))
                    .put(OrgUserToken::listed(&pointer, org, TokenState::Expired), &pointer);
                if let Some(expiry) = OrgUserToken::expiry(&pointer, org) {
                    transaction.delete(expiry);
                }
                transaction.commit().await.map(|_| ())
            })
            .await?;
        Ok(moved)
    }

    /// The token of this organization with this ID.
    pub async fn org_user_token(&self, org: &OrgId, id: &TokenId) -> Result<Option<OrgUserToken>, StoreError> {
        let pointer: Option<Pointer> = self.get(keys::org_user_token_by_id(org, id)).await?;
        let Some(pointer) = pointer else { return Ok(None) };
        Ok(self.current_token(pointer.hash).await?.and_then(OrgUserToken::of))
    }

    /// Revokes a token of this organization by ID. Idempotent; false if there is no such token.
    pub async fn revoke_org_user_token(&self, org: &OrgId, id: &TokenId, caller: &Caller) -> Result<bool, StoreError> {
        let pointer: Option<Pointer> = self.get(keys::org_user_token_by_id(org, id)).await?;
        let Some(pointer) = pointer else { return Ok(false) };
        if !self.is_revoked(pointer.hash).await? {
            // Revoked in the meantime is revoked, too.
            let _: bool = self.revoke(org, &pointer, Cause::Asked("revoke"), caller).await?;
        }
        Ok(true)
    }

    /// Ends a token. False if it was revoked before.
    pub(super) async fn end_org_user_token(
        &self,
        token: &OrgUserToken,
        hash: TokenHash,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        self.revoke(&token.org_id, &token.pointer(hash), cause, caller).await
    }

    /// Revokes a token. False if it was revoked before.
    async fn revoke(
        &self,
        org: &OrgId,
        pointer: &Pointer,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let subject = Subject::new(OrgUserToken::SUBJECT, &pointer.id);
        let entry = cause.entry(&self.clock, caller, OrgUserToken::SUBJECT, subject)?;
        let mut pointer = pointer.clone();
        let mut backoff = Backoff::persistent();
        loop {
            let mut transaction = self.transaction();
            transaction.revoke_as_read(keys::token(pointer.hash), (pointer.expires_at, true), cause, caller)?;
            OrgUserToken::list_as_revoked(&mut transaction, org, &pointer);
            transaction.audit(org, &entry).tell(cause, pointer.hash, &Recipient::Org(org.clone()), None, &entry);
            if transaction.try_commit(&mut backoff).await? == Some(Committed::Yes) {
                return Ok(true);
            }
            // Another call conflicts, has revoked it (`revoked_at` stays unchanged), or has rotated it.
            match self.stored_token(pointer.hash).await? {
                Some(StoredToken::OrgUser(token)) if token.revoked_at.is_none() => {
                    pointer = token.pointer(pointer.hash);
                }
                _ => return Ok(false),
            }
        }
    }

    /// Revokes the active tokens of exactly this identifier, one transaction each, at most
    /// [`REVOKED_PER_CALL`].
    pub async fn revoke_org_user_tokens_of(
        &self,
        org: &OrgId,
        user_identifier: &UserIdentifier,
        expected_count: Option<u64>,
        dry_run: bool,
        caller: &Caller,
    ) -> Result<RevokeByUser, StoreError> {
        let matched = self.active_tokens_of(org, user_identifier).await?;
        if expected_count.is_some_and(|expected| expected != matched.len() as u64) {
            return Ok(RevokeByUser::CountDiffers);
        }
        let batch = &matched[..matched.len().min(REVOKED_PER_CALL)];
        let ids = batch.iter().map(|pointer| pointer.id.clone()).collect();
        let remaining = if dry_run {
            matched.len()
        } else {
            stream::iter(batch)
                .map(Ok)
                .try_for_each_concurrent(CONCURRENCY, async |pointer| {
                    self.revoke(org, pointer, Cause::Asked("revoke_by_user"), caller).await.map(|_| ())
                })
                .await?;
            // Queried again, not calculated, to include tokens issued in the meantime.
            self.active_tokens_of(org, user_identifier).await?.len()
        };
        Ok(RevokeByUser::Done(RevokedByUser { matched: matched.len(), ids, remaining }))
    }

    async fn active_tokens_of(&self, org: &OrgId, identifier: &UserIdentifier) -> Result<Vec<Pointer>, StoreError> {
        let pk = keys::org_user_tokens_in(org, TokenState::Active);
        let prefix = keys::org_user_token_sort_key_prefix(identifier);
        let range = Range::new(&pk, SortKeys::StartingWith(&prefix));
        let now = self.clock.now();
        let pointers = self.query::<Pointer>(range, MAX_COUNTED).await?;
        let mut pointers: Vec<Pointer> =
            pointers.into_iter().map(|(_, pointer)| pointer).filter(|pointer| !pointer.has_expired(now)).collect();
        if pointers.iter().any(|pointer| is_old(&pointer.id, now))
            && let Some(days) = self.unused_days(org).await?
        {
            // Moved, so that none of them works again if the policy is taken away.
            let unused = self.unused_among(&pointers, days).await?;
            let moved = self.move_unused_org_user_tokens(org, unused).await?;
            let is_moved = |id: &TokenId| moved.iter().any(|(moved, settled)| moved == id && *settled == Settled::Yes);
            pointers.retain(|pointer| !is_moved(&pointer.id));
        }
        self.drop_superseded(&mut pointers).await?;
        // Few: an identifier is the address of one person.
        let mut members: Vec<(Binding, bool)> = Vec::new();
        for binding in pointers.iter().filter_map(|pointer| pointer.bound_to.as_ref()) {
            if !members.iter().any(|(known, _)| known == binding) {
                members.push((binding.clone(), self.is_current(org, binding).await?));
            }
        }
        pointers.retain(|pointer| {
            pointer
                .bound_to
                .as_ref()
                .is_none_or(|own| members.iter().any(|(known, is_current)| known == own && *is_current))
        });
        Ok(pointers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::email::EmailAddress;
    use crate::ids::MemberId;
    use crate::person::Person;

    fn token() -> OrgUserToken {
        let moment = |text| Moment::parse(text);
        OrgUserToken {
            id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            token_prefix: "tg_org_a1B2".to_owned(),
            user_identifier: UserIdentifier::try_from("alice-laptop".to_owned()).unwrap(),
            created_at: moment("2026-11-21T10:00:00Z").unwrap(),
            created_by: Subject::new("bot", "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            bound_to: None,
            member_left: false,
            expires_at: moment("2026-12-21T10:00:00Z"),
            last_used_at: moment("2026-11-22T10:00:00Z"),
            revoked_at: moment("2026-11-23T10:00:00Z"),
            revoked_by: Some(Subject::new("operator", "guardctl")),
            rotated: None,
            replaces: None,
            superseded: false,
        }
    }

    #[test]
    fn stored_items_match_their_snapshots() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        insta::assert_json_snapshot!("token", StoredToken::OrgUser(token()));
        insta::assert_json_snapshot!("pointer", token().pointer(hash));
        let member = MemberId::parse("MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        let email = EmailAddress::try_from("you@example.com".to_owned()).unwrap();
        let own = OrgUserToken {
            created_by: Subject::new(Member::SUBJECT, &member),
            bound_to: Some(Binding { member, person: Person::by_mail(email).id }),
            ..token()
        };
        insta::assert_json_snapshot!("own_token", StoredToken::OrgUser(own.clone()));
        insta::assert_json_snapshot!("own_pointer", own.pointer(hash));
    }

    #[test]
    fn token_expires_at_expires_at_and_stays_revoked_afterwards() {
        let active = OrgUserToken { revoked_at: None, ..token() };
        let at = |text| Moment::parse(text).unwrap();
        assert_eq!(active.state(at("2026-12-21T09:59:59Z")), TokenState::Active);
        assert_eq!(active.state(at("2026-12-21T10:00:00Z")), TokenState::Expired);
        assert_eq!(token().state(at("2027-01-01T00:00:00Z")), TokenState::Revoked);
        let left = OrgUserToken { member_left: true, ..active };
        assert_eq!(left.state(at("2026-12-21T09:59:59Z")), TokenState::Revoked);
    }
}
