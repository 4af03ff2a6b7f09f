//! Org user tokens: their shape, and their way from active over expired to revoked.
//!
//! ```text
//!             issue                     clock (moved by the next listing)
//!   (nothing) ─────▶ active ───────────────────────────────────────────▶ expired
//!                      │  revoke, revoke by user                revoke      │
//!                      └──────────────────────▶ revoked ◀───────────────────┘
//! ```
//!
//! The item under the token's hash is the truth; the listings are pointers to it. Each arrow is one transaction that
//! changes the truth and moves the pointer, so a token is in exactly one listing at any time.

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys::{self, Key};
use super::tokens::StoredToken;
use super::{Committed, Places, Range, Store, StoreError};
use crate::clock::Moment;
use crate::domain::{StateFilter, TokenState, UserIdentifier, UserIdentifierPrefix};
use crate::ids::{BotId, OrgId, TokenId};
use crate::secret::{Token, TokenHash, TokenKind};

/// The kind of these tokens in the audit log.
pub const SUBJECT: &str = "org_user_token";

/// How many transactions of one call run at a time.
const PARALLEL: usize = 16;

/// How many due tokens a listing of active ones moves before it reads. What is left stays out of the answer all the
/// same, and is moved by the next.
const DUE_PER_LISTING: usize = 100;

/// How many a listing of expired ones moves; the answer would not be whole without all of them, so where more are due
/// the caller is asked to repeat, and finds fewer left.
const DUE_PER_LISTING_OF_EXPIRED: usize = 2_000;

/// How many pointers a listing reads at the least when it reads on, and how often it does.
const ROUND: usize = 100;
const ROUNDS: usize = 10;

/// How many active tokens of one identifier are counted: more are as good as this many, and the next call sees them.
const COUNTED: usize = 10_000;

/// How many tokens [`Store::revoke_org_user_tokens_of`] revokes in one call.
pub const REVOKED_PER_CALL: usize = 1_000;

/// An org user token, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgUserToken {
    /// Its management id.
    pub id: TokenId,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// Its beginning, which may be shown.
    pub token_prefix: String,
    /// Who it is for.
    pub user_identifier: UserIdentifier,
    /// Since when it exists.
    pub created_at: Moment,
    /// The bot that issued it.
    pub created_by: BotId,
    /// The moment from which it no longer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// The bot that revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<BotId>,
}

impl OrgUserToken {
    /// Whether it counts at this moment.
    pub fn state(&self, now: Moment) -> TokenState {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => TokenState::Revoked,
            (None, Some(expires_at)) if expires_at <= now => TokenState::Expired,
            (None, _) => TokenState::Active,
        }
    }

    fn pointer(&self, hash: TokenHash) -> Pointer {
        Pointer {
            id: self.id.clone(),
            user_identifier: self.user_identifier.clone(),
            expires_at: self.expires_at,
            hash,
        }
    }
}

/// What leads to a token from its id, from a listing or from the order of expiries: nothing in it ever changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    id: TokenId,
    user_identifier: UserIdentifier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Moment>,
    hash: TokenHash,
}

impl Pointer {
    fn listed(&self, org: &OrgId, state: TokenState) -> Key {
        keys::org_user_token_in(org, state, &self.user_identifier, &self.id)
    }

    fn expiry(&self, org: &OrgId) -> Option<Key> {
        self.expires_at.map(|expires_at| keys::org_user_token_expiry(org, expires_at, &self.id))
    }

    fn has_expired(&self, now: Moment) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

/// Which tokens to list, and from where on.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    /// In which states.
    pub states: StateFilter,
    /// Of this identifier only.
    pub user_identifier: Option<&'a UserIdentifier>,
    /// Of identifiers that begin so only.
    pub user_identifier_prefix: Option<&'a UserIdentifierPrefix>,
    /// Behind this place; see [`Page::next`].
    pub after: Option<&'a str>,
    /// At most so many, at least one.
    pub limit: usize,
}

impl Listing<'_> {
    /// What the places to be listed begin with; `None` where the filters exclude each other.
    fn places(&self) -> Option<String> {
        match (self.user_identifier, self.user_identifier_prefix) {
            (Some(identifier), Some(prefix)) if !identifier.as_str().starts_with(prefix.as_str()) => None,
            (Some(identifier), _) => Some(keys::org_user_token_places_of(identifier)),
            (None, Some(prefix)) => Some(prefix.as_str().to_owned()),
            (None, None) => Some(String::new()),
        }
    }

    /// Whether the place to begin behind can be one of this listing's: DynamoDB refuses any other.
    pub fn begins_inside(&self) -> bool {
        self.after.is_none_or(|after| {
            let is_place = after.rsplit_once('#').is_some_and(|(identifier, id)| {
                UserIdentifier::try_from(identifier.to_owned()).is_ok() && TokenId::parse(id).is_some()
            });
            is_place && self.places().is_some_and(|places| after.starts_with(&places))
        })
    }
}

/// A part of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// The tokens, by identifier, then age.
    pub tokens: Vec<OrgUserToken>,
    /// The place behind which the next part begins; `None` where this was the last.
    pub next: Option<String>,
}

/// What became of the tokens of one identifier.
#[derive(Debug, PartialEq, Eq)]
pub struct RevokedByUser {
    /// How many were active when the call looked.
    pub matched: usize,
    /// Those that it was about: revoked now, or to be revoked in a dry run.
    pub ids: Vec<TokenId>,
    /// How many are active now.
    pub remaining: usize,
}

/// Whether revoking the tokens of one identifier went ahead.
#[derive(Debug, PartialEq, Eq)]
pub enum RevokeByUser {
    /// It did, or would have.
    Done(RevokedByUser),
    /// Other tokens than the caller expected are there: nothing was revoked.
    CountDiffers,
}

impl Store {
    /// Mints an org user token. It is in the answer this once.
    pub async fn issue_org_user_token(
        &self,
        org: &OrgId,
        bot: &BotId,
        user_identifier: UserIdentifier,
        expires_at: Option<Moment>,
        caller: &Caller,
    ) -> Result<(OrgUserToken, Token), StoreError> {
        let plain = Token::generate(TokenKind::OrgUser)?;
        let token = OrgUserToken {
            id: TokenId::new(&self.clock)?,
            org_id: org.clone(),
            token_prefix: plain.shown_prefix(),
            user_identifier,
            created_at: self.clock.now(),
            created_by: bot.clone(),
            expires_at,
            last_used_at: None,
            revoked_at: None,
            revoked_by: None,
        };
        let pointer = token.pointer(plain.hash());
        let subject = Subject::new(SUBJECT, &token.id);
        let entry = Entry::done(&self.clock, caller, "org_user_token.issue", subject)?;
        let mut transaction = self.transaction();
        transaction
            .put_new(keys::token(plain.hash()), &StoredToken::OrgUser(token.clone()))
            .put_new(keys::org_user_token_by_id(org, &token.id), &pointer)
            .put_new(pointer.listed(org, TokenState::Active), &pointer);
        if let Some(expiry) = pointer.expiry(org) {
            transaction.put_new(expiry, &pointer);
        }
        match transaction.audit(org, &entry).commit().await? {
            Committed::Yes => Ok((token, plain)),
            // 80 and 214 random bits came twice: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// Lists org user tokens by identifier, then age. What the last answered change did is in it.
    pub async fn list_org_user_tokens(&self, org: &OrgId, listing: &Listing<'_>) -> Result<Page, StoreError> {
        let Some(places) = listing.places() else { return Ok(Page::default()) };
        match listing.states {
            StateFilter::Active => {
                self.move_due_org_user_tokens(org, DUE_PER_LISTING).await?;
            }
            StateFilter::Expired => {
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
            // A pointer may lead to a token that has expired or moved since: then more are read, some rounds long.
            let wanted = if round == 0 { listing.limit } else { (listing.limit - page.tokens.len()).max(ROUND) };
            let mut pointers: Vec<(String, Pointer)> = Vec::new();
            // One after the other, in the order in which tokens move: see `TokenState::ALL`.
            for state in listing.states.states() {
                let pk = keys::org_user_tokens_in(org, *state);
                let places = if places.is_empty() { Places::All } else { Places::BeginningWith(&places) };
                let range = Range::new(&pk, places).behind(after.as_deref());
                // One more than wanted tells whether there is a next page.
                pointers.extend(self.query::<Pointer>(range, wanted + 1).await?);
            }
            pointers.sort_by(|(a, _), (b, _)| a.cmp(b));
            pointers.dedup_by(|(a, _), (b, _)| a == b);
            let more = pointers.len() > wanted;
            pointers.truncate(wanted);
            after = pointers.last().map(|(place, _)| place.clone());
            if listing.states == StateFilter::Active {
                let now = self.clock.now();
                pointers.retain(|(_, pointer)| !pointer.has_expired(now));
            }
            let followed = self.follow(&pointers, listing.states).await?;
            let room = listing.limit - page.tokens.len();
            if followed.len() > room {
                page.tokens.extend(followed.into_iter().take(room));
                page.next = page.tokens.last().map(|last| keys::org_user_token_place(&last.user_identifier, &last.id));
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

    /// The tokens that these pointers lead to, in the same order, without those in other states by now.
    async fn follow(
        &self,
        pointers: &[(String, Pointer)],
        states: StateFilter,
    ) -> Result<Vec<OrgUserToken>, StoreError> {
        let now = self.clock.now();
        let mut tokens: Vec<OrgUserToken> = Vec::with_capacity(pointers.len());
        for chunk in pointers.chunks(100) {
            let keys = chunk.iter().map(|(_, pointer)| keys::token(pointer.hash)).collect();
            for token in self.get_all(keys).await? {
                if let StoredToken::OrgUser(token) = token {
                    tokens.push(token);
                }
            }
        }
        tokens.retain(|token| states.states().contains(&token.state(now)));
        tokens.sort_by_cached_key(|token| keys::org_user_token_place(&token.user_identifier, &token.id));
        Ok(tokens)
    }

    /// Moves tokens whose time is over from the active to the expired listing, at most so many. The answer is how many
    /// there were. Each is moved once in
    /// its life, so over time a listing pays for it no more than the issue did.
    async fn move_due_org_user_tokens(&self, org: &OrgId, at_most: usize) -> Result<usize, StoreError> {
        // Everything that expires in this second or before.
        let end = keys::expiry_place(self.clock.now().plus(std::time::Duration::from_secs(1)));
        let pk = keys::org_user_token_expiries(org);
        let due: Vec<(String, Pointer)> = self.query(Range::new(&pk, Places::Before(&end)), at_most).await?;
        let moved = due.len();
        stream::iter(due)
            .map(Ok)
            .try_for_each_concurrent(PARALLEL, |(_, pointer)| async move {
                let mut transaction = self.transaction();
                // If another listing or a revocation moved it first, there is nothing left to do.
                transaction
                    .delete_existing(pointer.listed(org, TokenState::Active))
                    .put(pointer.listed(org, TokenState::Expired), &pointer);
                if let Some(expiry) = pointer.expiry(org) {
                    transaction.delete(expiry);
                }
                transaction.commit().await.map(|_| ())
            })
            .await?;
        Ok(moved)
    }

    /// Revokes a token of this organization by its id, in the name of a bot, or of the operator. False if there is none; a
    /// second time changes nothing.
    pub async fn revoke_org_user_token(
        &self,
        org: &OrgId,
        id: &TokenId,
        bot: Option<&BotId>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let pointer: Option<Pointer> = self.get(keys::org_user_token_by_id(org, id)).await?;
        let Some(pointer) = pointer else { return Ok(false) };
        self.revoke(org, &pointer, bot, "org_user_token.revoke", caller).await?;
        Ok(true)
    }

    async fn revoke(
        &self,
        org: &OrgId,
        pointer: &Pointer,
        bot: Option<&BotId>,
        action: &str,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let entry = Entry::done(&self.clock, caller, action, Subject::new(SUBJECT, &pointer.id))?;
        let mut values = vec![(":now", self.clock.now().to_string())];
        values.extend(bot.map(|bot| (":bot", bot.to_string())));
        let by = if bot.is_some() { ", #revoked_by = :bot" } else { "" };
        let mut transaction = self.transaction();
        transaction
            .update(
                keys::token(pointer.hash),
                &format!("SET #revoked_at = :now{by}"),
                "attribute_exists(pk) AND attribute_not_exists(#revoked_at)",
                &values,
            )
            .delete(pointer.listed(org, TokenState::Active))
            .delete(pointer.listed(org, TokenState::Expired))
            .put(pointer.listed(org, TokenState::Revoked), pointer);
        if let Some(expiry) = pointer.expiry(org) {
            transaction.delete(expiry);
        }
        // A failed condition means that it was revoked before: `revoked_at` stays what it was.
        transaction.audit(org, &entry).commit().await.map(|_| ())
    }

    /// Revokes the active tokens of exactly this identifier, each on its own, at most [`REVOKED_PER_CALL`].
    pub async fn revoke_org_user_tokens_of(
        &self,
        org: &OrgId,
        user_identifier: &UserIdentifier,
        expected_count: Option<u64>,
        dry_run: bool,
        bot: &BotId,
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
                .try_for_each_concurrent(PARALLEL, |pointer| {
                    self.revoke(org, pointer, Some(bot), "org_user_token.revoke_by_user", caller)
                })
                .await?;
            // Looked up, not calculated: a token issued meanwhile must not go unseen.
            self.active_tokens_of(org, user_identifier).await?.len()
        };
        Ok(RevokeByUser::Done(RevokedByUser { matched: matched.len(), ids, remaining }))
    }

    async fn active_tokens_of(&self, org: &OrgId, identifier: &UserIdentifier) -> Result<Vec<Pointer>, StoreError> {
        let pk = keys::org_user_tokens_in(org, TokenState::Active);
        let prefix = keys::org_user_token_places_of(identifier);
        let range = Range::new(&pk, Places::BeginningWith(&prefix));
        let now = self.clock.now();
        let pointers = self.query::<Pointer>(range, COUNTED).await?;
        Ok(pointers.into_iter().map(|(_, pointer)| pointer).filter(|pointer| !pointer.has_expired(now)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> OrgUserToken {
        let moment = |text| Moment::parse(text);
        OrgUserToken {
            id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            token_prefix: "tg_org_a1B2".to_owned(),
            user_identifier: UserIdentifier::try_from("alice-laptop".to_owned()).unwrap(),
            created_at: moment("2026-11-21T10:00:00Z").unwrap(),
            created_by: BotId::parse("BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            expires_at: moment("2026-12-21T10:00:00Z"),
            last_used_at: moment("2026-11-22T10:00:00Z"),
            revoked_at: moment("2026-11-23T10:00:00Z"),
            revoked_by: BotId::parse("BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
        }
    }

    #[test]
    fn the_stored_shapes_are_pinned() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        insta::assert_json_snapshot!("token", StoredToken::OrgUser(token()));
        insta::assert_json_snapshot!("pointer", token().pointer(hash));
    }

    #[test]
    fn a_token_expires_at_its_moment_and_stays_revoked_after_it() {
        let active = OrgUserToken { revoked_at: None, ..token() };
        let at = |text| Moment::parse(text).unwrap();
        assert_eq!(active.state(at("2026-12-21T09:59:59Z")), TokenState::Active);
        assert_eq!(active.state(at("2026-12-21T10:00:00Z")), TokenState::Expired);
        assert_eq!(token().state(at("2027-01-01T00:00:00Z")), TokenState::Revoked);
    }
}
