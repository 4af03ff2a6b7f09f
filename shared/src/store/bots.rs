//! Bots: the credentials that manage tokens.
//!
//! A bot is one item with its roles and the hashes of its API keys. The credential contains the bot
//! ID, so one read authenticates and authorizes it. Changing roles, rotating the key or deleting
//! the bot is one write to that item and takes effect at the next use.
//!
//! Each API key also has an item under its own hash, which names the bot, so that a key that was found
//! without its bot's ID can be ended ([`super::leaks`]). It authenticates nothing: the hashes in the
//! bot's item decide. It is written and deleted in the transactions that change those.
//!
//! A rotation gives the bot a new API key. The one before it may stay for a while, as the rules of
//! [`super::rotation`] say: it has no ID of its own to be rotated by, so a rotation replaces the
//! newest key, or again the one before that while the newest is unused. That a key was used is
//! written to its item, at most every few minutes, so that the bot's item changes only with its
//! rights.
//!
//! A request that is under way at that moment may not outrun the change: what it creates is handed
//! out only after a second read of the bot ([`crate::auth::BotWith::confirm`]), and what it changes
//! is written on the condition that the bot's `revision` is the one that was read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::idempotency::Repeat;
use super::keys::{self, Key};
use super::leaks::{Cause, Recipient};
use super::members::Authority;
use super::rotation::{By, Rotate, Rotation, Successor, Unrotatable};
use super::tokens::{Acting, AnyToken, ApiKey, BotApiKey, BotToken};
use super::{Backoff, Committed, Condition, Located, SortKeys, Store, StoreError};
use crate::clock::Moment;
use crate::domain::{Held, OrUnknown};
use crate::error::ApiError;
use crate::ids::{BotId, OrgId, TokenId};
use crate::permissions::Role;
use crate::secret::{Token, TokenHash, TokenKind};

/// A stored bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBot {
    /// Its ID.
    pub id: BotId,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// Its display name.
    pub name: String,
    /// Its roles as stored. Roles unknown to this version grant nothing.
    pub roles: Vec<String>,
    /// Its API keys: the current one and, during a rotation overlap, the previous one.
    pub keys: Vec<BotKey>,
    /// When it was created.
    pub created_at: Moment,
    /// Incremented when `keys` or `roles` change, or the bot's tokens are ended. A concurrent
    /// rotation then starts over, as does a change that the bot asked for.
    pub revision: u64,
    /// The generation of the tokens by which CI acts as the bot. Incremented to end them all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub token_generation: u64,
    /// The number of its trusts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) trust_count: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An authenticated bot, or a CI job that acts as it.
#[derive(Debug, Clone)]
pub struct Bot {
    /// Its ID.
    pub id: BotId,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// Its roles.
    pub roles: Held<Role>,
    /// What authenticated it.
    credential: BotCredential,
    /// The revision that was read.
    revision: u64,
}

/// What authenticates a bot.
#[derive(Debug, Clone)]
enum BotCredential {
    /// An API key, and what the first use of a successor means to it.
    Key(TokenHash, Link),
    /// The token of a CI job.
    Token(Box<BotToken>, TokenHash),
}

impl Bot {
    /// The bot that a CI job acts as with its token. `None` if the token is not active.
    pub fn of_job(token: BotToken, hash: TokenHash) -> Option<Self> {
        let Acting { roles, revision, .. } = token.acting.clone()?;
        let (id, org_id) = (token.bot_id.clone(), token.org_id.clone());
        Some(Self { id, org_id, roles, credential: BotCredential::Token(Box::new(token), hash), revision })
    }

    /// The CI job that acts as the bot, as its ID token names it.
    pub fn workload(&self) -> Option<&str> {
        match &self.credential {
            BotCredential::Key(..) => None,
            BotCredential::Token(token, _) => Some(&token.subject),
        }
    }

    /// Whether the bot may create something that lives until then; `None` is forever. What a CI job
    /// creates does not outlive its token, unless its trust allows that.
    pub fn may_mint_until(&self, expires_at: Option<Moment>) -> bool {
        match &self.credential {
            BotCredential::Key(..) => true,
            BotCredential::Token(token, _) => {
                token.acting.as_ref().is_some_and(|acting| acting.may_mint_longer)
                    || expires_at.is_some_and(|expires_at| expires_at <= token.expires_at)
            }
        }
    }

    /// The right of the bot, for changes that give rights to somebody.
    pub fn authority(&self) -> Authority<'_> {
        match &self.credential {
            BotCredential::Key(_, link) => Authority::Bot(&self.id, self.revision, link.successor()),
            BotCredential::Token(token, hash) => Authority::Job(token, *hash, self.revision),
        }
    }
}

/// An API key of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotKey {
    /// The hash of the whole key.
    pub hash: TokenHash,
    /// Its ID, which tells when it was made. `None` if that was before version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TokenId>,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// That the newer key has replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Replaced>,
}

impl BotKey {
    /// Whether it is active at this time, unless the use of its successor has ended it.
    fn is_unexpired(&self, now: Moment) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// When it expired before it was replaced, which a new key takes over.
    fn own_expiry(&self) -> Option<Moment> {
        self.rotated.as_ref().map_or(self.expires_at, |rotated| rotated.expires_at)
    }
}

/// That an API key of a bot was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// When it expired before it was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// Whether it also ends at the first use of the newer key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub until_first_use: bool,
    /// The end of an earlier overlap, which no rotation prolongs: the key that replaced it then was
    /// ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_by: Option<Moment>,
}

/// What the first use of a successor means to an API key of a bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Nothing.
    None,
    /// Its own first use ends the key before it.
    Ends,
    /// It ends at the first use of this one.
    EndsWith(TokenHash),
}

impl Link {
    fn successor(self) -> Option<TokenHash> {
        match self {
            Link::EndsWith(successor) => Some(successor),
            Link::None | Link::Ends => None,
        }
    }
}

/// When the API keys of bots were last used, to within a few minutes.
#[derive(Debug, Default)]
pub struct KeyUses(BTreeMap<String, Moment>);

impl KeyUses {
    /// When this key was last used.
    pub fn of(&self, key: &BotKey) -> Option<Moment> {
        self.0.get(&keys::token(key.hash).pk).copied()
    }
}

/// The item of a key, of which only the last use is read.
#[derive(Deserialize)]
struct Used {
    #[serde(default)]
    last_used_at: Option<Moment>,
}

/// `last_used_at` of an API key is updated at most this often by each process.
const RECORDED_EVERY: Duration = Duration::from_secs(5 * 60);

/// Keys that a process remembers at most.
const MAX_REMEMBERED: usize = 10_000;

/// The API keys whose use this process has recorded, and when: it needs no read to know that there is
/// nothing to write.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorded(Arc<Mutex<BTreeMap<[u8; 32], Moment>>>);

impl Recorded {
    fn is_recent(&self, key: TokenHash, now: Moment) -> bool {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.get(&key.bytes()).is_some_and(|at| now < at.plus(RECORDED_EVERY))
    }

    fn note(&self, key: TokenHash, now: Moment) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded.len() >= MAX_REMEMBERED {
            recorded.clear();
        }
        recorded.insert(key.bytes(), now);
    }
}

/// A bot whose API key is to be rotated, as it was read.
#[derive(Debug, Clone)]
pub struct OldKey {
    bot: StoredBot,
    /// Whether its newest key was never used, and the one before it is active.
    is_unused: bool,
    expires_at: Option<Moment>,
}

impl OldKey {
    fn new(bot: StoredBot, is_unused: bool) -> Self {
        let expires_at = bot.to_replace(is_unused).and_then(BotKey::own_expiry);
        Self { bot, is_unused, expires_at }
    }

    /// Whether the key that is replaced has expired.
    fn has_expired(&self, now: Moment) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

/// A bot whose API key is to be rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyToRotate {
    /// The bot.
    pub bot: BotId,
    /// When the new key expires, if the one that it replaces has expired; `Some(None)` is never. With
    /// `None` such a rotation has to say so itself.
    pub renewed_until: Option<Option<Moment>>,
}

impl StoredBot {
    /// The name of this kind in audit entries.
    pub const SUBJECT: &str = "bot";

    /// The item under the hash of each of its API keys.
    fn key_item(&self) -> AnyToken {
        AnyToken::BotApiKey(BotApiKey { bot_id: self.id.clone(), org_id: self.org_id.clone(), last_used_at: None })
    }

    /// Its roles.
    pub fn roles(&self) -> Held<Role> {
        let known =
            |role: &String| Role::parse(role).map_or_else(|| OrUnknown::Unknown(role.clone()), OrUnknown::Known);
        self.roles.iter().map(known).collect()
    }

    /// The key that the newest one has replaced, and what was noted then, while it is active. Whether
    /// the newest key was used is not known here.
    fn replaced(&self, now: Moment) -> Option<(&BotKey, &Replaced)> {
        let [_, old] = &self.keys[..] else { return None };
        Some((old, old.rotated.as_ref()?)).filter(|_| old.is_unexpired(now))
    }

    /// The previous key while it is active.
    pub fn previous_key(&self, uses: &KeyUses, now: Moment) -> Option<&BotKey> {
        let newest_is_used = self.keys.first().is_some_and(|newest| uses.of(newest).is_some());
        let ended =
            |key: &BotKey| key.rotated.as_ref().is_some_and(|rotated| rotated.until_first_use && newest_is_used);
        self.keys.get(1).filter(|key| key.is_unexpired(now) && !ended(key))
    }

    /// The key that a rotation replaces.
    fn to_replace(&self, is_unused: bool) -> Option<&BotKey> {
        self.keys.get(usize::from(is_unused))
    }

    fn link_of(&self, key: TokenHash, now: Moment) -> Link {
        match (&self.keys[..], self.replaced(now)) {
            ([newest, _], Some((_, rotated))) if rotated.until_first_use => {
                if newest.hash == key {
                    Link::Ends
                } else {
                    Link::EndsWith(newest.hash)
                }
            }
            _ => Link::None,
        }
    }

    /// Compares all keys, each in constant time.
    fn accepts(&self, key: TokenHash, now: Moment) -> bool {
        self.keys.iter().fold(false, |held, candidate| held | ((candidate.hash == key) & candidate.is_unexpired(now)))
    }
}

/// The result of creating a bot with its API key.
#[derive(Debug)]
pub enum Keyed {
    /// It was made. The plain key is returned only here.
    Done(Box<StoredBot>, Token),
    /// The caller's own rights changed in the meantime, so nothing was made.
    CallerChanged,
    /// The idempotency key was used before.
    Repeated(Repeat),
}

/// The result of changing a bot's roles.
#[derive(Debug)]
pub enum BotChange {
    /// The changed bot.
    Done(Box<StoredBot>),
    /// There is no such bot.
    NotFound,
    /// The caller's own rights changed in the meantime, so nothing was done.
    CallerChanged,
}

/// Reads of a bot whose newest API key is ended again and again.
const MAX_READS: usize = 3;

/// The entry of a bot in its organization. All data is in the key.
#[derive(Serialize)]
struct Member {}

impl Store {
    /// The bot that this credential authenticates, with one read. `None` if the credential is
    /// invalid in any way.
    pub async fn authenticate_bot(&self, id: &BotId, key: &Token) -> Result<Option<Bot>, StoreError> {
        self.bot_with_key(id, key.hash()).await
    }

    /// The bot as it is now. `None` if it was deleted, or the API key or token that authenticated it
    /// is no longer valid.
    pub async fn authenticate_bot_again(&self, bot: &Bot) -> Result<Option<Bot>, StoreError> {
        match &bot.credential {
            BotCredential::Key(key, _) => self.bot_with_key(&bot.id, *key).await,
            BotCredential::Token(_, hash) => {
                Ok(self.bot_token_again(*hash).await?.and_then(|token| Bot::of_job(token, *hash)))
            }
        }
    }

    async fn bot_with_key(&self, id: &BotId, key: TokenHash) -> Result<Option<Bot>, StoreError> {
        for _ in 0..MAX_READS {
            let bot = self.bot(id).await?;
            let now = self.clock.now();
            let Some(bot) = bot.filter(|bot| bot.accepts(key, now)) else { return Ok(None) };
            let link = bot.link_of(key, now);
            if let Link::EndsWith(successor) = link {
                match self.get::<Used>(keys::token(successor)).await? {
                    Some(Used { last_used_at: Some(_) }) => return Ok(None),
                    Some(Used { last_used_at: None }) => {}
                    // The successor was ended in the meantime.
                    None => continue,
                }
            }
            return Ok(Some(Bot {
                roles: bot.roles(),
                id: bot.id,
                org_id: bot.org_id,
                credential: BotCredential::Key(key, link),
                revision: bot.revision,
            }));
        }
        Ok(None)
    }

    /// Updates `last_used_at` of the API key that authenticated this bot, at most every few minutes by
    /// each process. What a process remembers saves the read that would tell when it was.
    ///
    /// # Errors
    ///
    /// Only at the first use of a key that ends the one before it. The request then fails too.
    pub async fn record_bot_use(&self, bot: &Bot) -> Result<(), StoreError> {
        let BotCredential::Key(hash, link) = bot.credential else { return Ok(()) };
        let now = self.clock.now();
        if self.recorded.is_recent(hash, now) {
            return Ok(());
        }
        if link == Link::Ends {
            self.record_first_use(hash).await?;
        }
        let values = [(":now", now), (":before", now.minus(RECORDED_EVERY))];
        let recording = self.update(
            keys::token(hash),
            "SET #last_used_at = :now",
            // Keys of version 0.1 have no item before `guardctl migrate`.
            "attribute_exists(pk) AND (attribute_not_exists(#last_used_at) OR #last_used_at <= :before)",
            &values,
        );
        match tokio::time::timeout(self.patience, recording).await {
            Ok(Ok(_)) => self.recorded.note(hash, now),
            // The next use tries again: a rotation would take a used key for an unused one.
            _ => tracing::warn!("last_used_at was not updated"),
        }
        Ok(())
    }

    /// When the API keys of these bots were last used.
    pub async fn bot_key_uses(&self, bots: &[StoredBot]) -> Result<KeyUses, StoreError> {
        let hashes: Vec<TokenHash> = bots.iter().flat_map(|bot| bot.keys.iter().map(|key| key.hash)).collect();
        let mut uses = BTreeMap::new();
        for hashes in hashes.chunks(100) {
            let keys = hashes.iter().map(|hash| keys::token(*hash)).collect();
            let found: Vec<Located<Used>> = self.get_all(keys).await?;
            uses.extend(found.into_iter().filter_map(|Located { pk, item }| Some((pk, item.last_used_at?))));
        }
        Ok(KeyUses(uses))
    }

    /// Reads a bot.
    pub async fn bot(&self, id: &BotId) -> Result<Option<StoredBot>, StoreError> {
        self.get(keys::bot(id)).await
    }

    /// An organization's bots, oldest first.
    pub async fn bots(&self, org: &OrgId) -> Result<Vec<StoredBot>, StoreError> {
        let (pk, prefix) = keys::org_bots(org);
        let ids = self.names_in(&pk, SortKeys::StartingWith(prefix)).await?;
        let mut bots: Vec<StoredBot> = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(100) {
            let ids = chunk.iter().filter_map(|id| BotId::parse(id));
            bots.extend(self.get_all(ids.map(|id| keys::bot(&id)).collect()).await?);
        }
        bots.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(bots)
    }

    /// Creates a bot and its first API key, which does not expire, as the operator. The plain key is
    /// returned only here.
    pub async fn create_bot(
        &self,
        org: &OrgId,
        name: &str,
        roles: &[Role],
        caller: &Caller,
    ) -> Result<(StoredBot, Token), StoreError> {
        self.create_bot_until(None, org, name, roles, caller).await
    }

    /// As [`Self::create_bot`], with an API key that expires at this time.
    pub async fn create_bot_until(
        &self,
        expires_at: Option<Moment>,
        org: &OrgId,
        name: &str,
        roles: &[Role],
        caller: &Caller,
    ) -> Result<(StoredBot, Token), StoreError> {
        let by = By { api_key: None, authority: Authority::Operator, caller, once: None };
        match self.create_bot_by(by, org, name, roles, expires_at).await? {
            Keyed::Done(bot, key) => Ok((*bot, key)),
            Keyed::CallerChanged | Keyed::Repeated(_) => Err(StoreError::Defect),
        }
    }

    /// Creates a bot and its first API key, if the caller's own rights have not changed.
    pub async fn create_bot_by(
        &self,
        By { authority, caller, once, .. }: By<'_>,
        org: &OrgId,
        name: &str,
        roles: &[Role],
        expires_at: Option<Moment>,
    ) -> Result<Keyed, StoreError> {
        let key = Token::generate(TokenKind::BotApiKey)?;
        let bot = StoredBot {
            id: BotId::new(&self.clock)?,
            org_id: org.clone(),
            name: name.to_owned(),
            roles: role_names(roles),
            keys: vec![BotKey { hash: key.hash(), id: Some(TokenId::new(&self.clock)?), expires_at, rotated: None }],
            created_at: self.clock.now(),
            revision: 0,
            token_generation: 0,
            trust_count: 0,
        };
        let subject = Subject::new(StoredBot::SUBJECT, &bot.id);
        let entry = Entry::done(&self.clock, caller, "bot.create", subject.clone())?;
        let mut transaction = self.transaction();
        // First, so that somebody who was cut off learns nothing from the other conditions.
        let own_checks = transaction.require_authority(authority);
        transaction
            .put_new(keys::bot(&bot.id), &bot)
            .put_new(keys::org_bot(org, &bot.id), &Member {})
            .put_new(keys::token(key.hash()), &bot.key_item());
        let key_used = transaction.audit(org, &entry).once(org, once, caller, subject);
        match transaction.commit().await? {
            Committed::Yes => Ok(Keyed::Done(Box::new(bot), key)),
            Committed::No(index) if index < own_checks => Ok(Keyed::CallerChanged),
            Committed::No(index) if Some(index) == key_used => {
                self.repeated(org, once, caller).await?.map(Keyed::Repeated).ok_or(StoreError::Unavailable)
            }
            // A collision of 80 random bits: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// Replaces a bot's roles, as the operator. `None` if there is no such bot.
    pub async fn set_bot_roles(
        &self,
        id: &BotId,
        roles: &[Role],
        caller: &Caller,
    ) -> Result<Option<StoredBot>, StoreError> {
        match self.set_bot_roles_by(Authority::Operator, id, roles, caller).await? {
            BotChange::Done(bot) => Ok(Some(*bot)),
            BotChange::NotFound | BotChange::CallerChanged => Ok(None),
        }
    }

    /// Replaces a bot's roles, if the caller's own rights have not changed.
    pub async fn set_bot_roles_by(
        &self,
        authority: Authority<'_>,
        id: &BotId,
        roles: &[Role],
        caller: &Caller,
    ) -> Result<BotChange, StoreError> {
        let Some(bot) = self.bot(id).await? else { return Ok(BotChange::NotFound) };
        let entry = Entry::done(&self.clock, caller, "bot.set_roles", Subject::new(StoredBot::SUBJECT, id))?;
        let mut transaction = self.transaction().persistent();
        let own_checks = transaction.require_authority(authority);
        let values = [(":roles", serde_json::json!(role_names(roles))), (":one", 1.into())];
        let change = "SET #roles = :roles ADD #revision :one";
        transaction.update(keys::bot(id), change, "attribute_exists(pk)", &values);
        match transaction.audit(&bot.org_id, &entry).commit().await? {
            Committed::Yes => {
                let changed = self.bot(id).await?;
                Ok(changed.map_or(BotChange::NotFound, |bot| BotChange::Done(Box::new(bot))))
            }
            Committed::No(index) if index < own_checks => Ok(BotChange::CallerChanged),
            Committed::No(_) => Ok(BotChange::NotFound),
        }
    }

    /// Creates a new API key for a bot, as the operator. The previous key stays valid for `overlap`;
    /// without it, it stops working at once. `None` if there is no such bot.
    pub async fn rotate_bot_key(
        &self,
        id: &BotId,
        overlap: Option<Duration>,
        caller: &Caller,
    ) -> Result<Option<Token>, StoreError> {
        let overlap = overlap.unwrap_or_default();
        let rotated = self.rotate_bot_key_until(id, overlap, false, None, caller).await?;
        Ok(rotated.map(|(_, key)| key))
    }

    /// As [`Self::rotate_bot_key`]. The previous key ends at the first use of the new one too, if
    /// `until_first_use`. The new one expires when the previous key did, unless that is given.
    ///
    /// # Errors
    ///
    /// [`StoreError::ExpiryMissing`] if the previous key has expired, and nothing is given.
    pub async fn rotate_bot_key_until(
        &self,
        id: &BotId,
        overlap: Duration,
        until_first_use: bool,
        expires_at: Option<Moment>,
        caller: &Caller,
    ) -> Result<Option<(StoredBot, Token)>, StoreError> {
        loop {
            let Some(bot) = self.bot(id).await? else { return Ok(None) };
            let old = self.old_key(bot).await?;
            let expires_at = expires_at.or(old.expires_at);
            let by = By { api_key: None, authority: Authority::Operator, caller, once: None };
            match self.replace_key(old, Rotation { overlap, until_first_use, expires_at }, by).await? {
                Successor::Done(bot, key) => return Ok(Some((*bot, key))),
                // The operator's rotation starts over.
                Successor::Conflict => {}
                _ => return Ok(None),
            }
        }
    }

    /// Whether the API key that a rotation of this bot's replaces has expired: then the new one needs an
    /// expiry of its own.
    pub async fn needs_key_expiry(&self, bot: &StoredBot) -> Result<bool, StoreError> {
        Ok(self.old_key(bot.clone()).await?.has_expired(self.clock.now()))
    }

    /// What a rotation of this bot's API key replaces.
    async fn old_key(&self, bot: StoredBot) -> Result<OldKey, StoreError> {
        let now = self.clock.now();
        let newest = bot.replaced(now).and_then(|_| bot.keys.first());
        let is_unused = match newest {
            // Also if it has expired: nobody has it, then.
            Some(newest) => {
                let used: Option<Used> = self.get(keys::token(newest.hash)).await?;
                used.is_some_and(|used| used.last_used_at.is_none())
            }
            None => false,
        };
        Ok(OldKey::new(bot, is_unused))
    }

    /// Gives a bot a new API key. What its rotation ends, and what it keeps for a while, is in one
    /// write to the bot's item.
    ///
    /// # Errors
    ///
    /// [`StoreError::ExpiryMissing`] if the key that is replaced has expired, and the new one would
    /// take that over.
    async fn replace_key(
        &self,
        mut old: OldKey,
        rotation: Rotation,
        by: By<'_>,
    ) -> Result<Successor<StoredBot>, StoreError> {
        let By { authority, caller, once, .. } = by;
        let (id, org) = (old.bot.id.clone(), old.bot.org_id.clone());
        if rotation.expires_at.is_some_and(|expires_at| expires_at <= self.clock.now()) {
            return Err(StoreError::ExpiryMissing);
        }
        // An operator may do so for a suspended organization.
        if !matches!(authority, Authority::Operator) && self.org(&org).await?.is_some_and(|org| org.suspended) {
            return Ok(Successor::Suspended);
        }
        let newest = old.bot.keys.first().map(|key| key.hash);
        let mut backoff = Backoff::persistent();
        loop {
            let OldKey { bot, is_unused, .. } = &old;
            let now = self.clock.now();
            let plain = Token::generate(TokenKind::BotApiKey)?;
            let new_id = TokenId::new(&self.clock)?;
            let mut detail = format!("new key {new_id}");
            if let Some(unused) = bot.keys.first().filter(|_| *is_unused).and_then(|key| key.id.as_ref()) {
                detail = format!("{detail}, in place of {unused}, which was never used");
            }
            let kept = bot.to_replace(*is_unused).and_then(|key| kept(key, *is_unused, rotation, now));
            let made = Subject::new(BotApiKey::SUBJECT, &new_id);
            let new = BotKey { hash: plain.hash(), id: Some(new_id), expires_at: rotation.expires_at, rotated: None };
            let held: Vec<BotKey> = [new].into_iter().chain(kept).collect();
            let subject = Subject::new(StoredBot::SUBJECT, &id);
            let entry = Entry::done(&self.clock, caller, "bot.rotate_key", subject)?.with_detail(detail);
            let values = [
                (":keys", serde_json::to_value(&held).map_err(|_| StoreError::Defect)?),
                (":old", bot.revision.into()),
                (":new", (bot.revision + 1).into()),
            ];
            let mut transaction = self.transaction();
            let own_checks = match authority {
                // A transaction has one write for the bot's item, whose condition says the same.
                Authority::Bot(own, revision, successor) if *own == id => {
                    // The first use of its successor has ended the caller's key.
                    if revision != bot.revision || successor.is_some() && !is_unused {
                        return Ok(Successor::CallerChanged);
                    }
                    0
                }
                _ => transaction.require_authority(authority),
            };
            // Before the bot: a repeat must not read the bot again and again.
            let key_used = transaction.once(&org, once, caller, made);
            transaction
                .update(keys::bot(&id), "SET #keys = :keys, #revision = :new", "#revision = :old", &values)
                .put_new(keys::token(plain.hash()), &bot.key_item());
            for dropped in bot.keys.iter().filter(|known| held.iter().all(|held| held.hash != known.hash)) {
                // A key that is used in the meantime is not replaced as an unused one.
                let condition = if *is_unused && Some(dropped.hash) == bot.keys.first().map(|key| key.hash) {
                    Condition::plain("attribute_not_exists(last_used_at)")
                } else {
                    Condition::default()
                };
                transaction.delete_if(keys::token(dropped.hash), condition);
            }
            match transaction.audit(&org, &entry).try_commit(&mut backoff).await? {
                Some(Committed::Yes) => {
                    let bot = StoredBot { keys: held, revision: bot.revision + 1, ..old.bot };
                    return Ok(Successor::Done(Box::new(bot), plain));
                }
                Some(Committed::No(index)) if index < own_checks => return Ok(Successor::CallerChanged),
                Some(Committed::No(index)) if Some(index) == key_used => {
                    return self
                        .repeated(&org, once, caller)
                        .await?
                        .map(Successor::Repeated)
                        .ok_or(StoreError::Unavailable);
                }
                // Another change won, the newest key was used, or the bot was deleted: read it again.
                Some(Committed::No(_)) | None => {}
            }
            let Some(now) = self.bot(&id).await? else { return Ok(Successor::NotFound) };
            if now.keys.first().map(|key| key.hash) != newest {
                return Ok(match self.repeated(&org, once, caller).await? {
                    Some(repeat) => Successor::Repeated(repeat),
                    None => Successor::Conflict,
                });
            }
            old = self.old_key(now).await?;
        }
    }

    /// Deletes a bot and with it its API keys and trusts. False if there is no such bot.
    pub async fn delete_bot(&self, id: &BotId, caller: &Caller) -> Result<bool, StoreError> {
        loop {
            let Some(bot) = self.bot(id).await? else { return Ok(false) };
            let entry = Entry::done(&self.clock, caller, "bot.delete", Subject::new(StoredBot::SUBJECT, id))?;
            let trusts = self.trusts(id).await?;
            let mut transaction = self.transaction().persistent();
            // A trust that is added meanwhile would stay behind.
            let (condition, count) = if trusts.is_empty() {
                ("#revision = :revision AND (attribute_not_exists(#trust_count) OR #trust_count = :count)", 0)
            } else {
                ("#revision = :revision AND #trust_count = :count", trusts.len() as u64)
            };
            // The revision, so that the items of all its API keys go.
            transaction.delete_where(keys::bot(id), condition, &[(":revision", bot.revision), (":count", count)]);
            transaction.delete(keys::org_bot(&bot.org_id, id));
            for key in &bot.keys {
                transaction.delete(keys::token(key.hash));
            }
            for trust in &trusts {
                transaction.delete_existing(keys::trust(id, &trust.id));
            }
            if transaction.audit(&bot.org_id, &entry).commit().await? == Committed::Yes {
                return Ok(true);
            }
        }
    }

    /// Ends one API key of a bot; the bot and its other key stay. False if the bot does not have it.
    pub(super) async fn end_bot_api_key(
        &self,
        id: &BotId,
        hash: TokenHash,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let entry = cause.entry(&self.clock, caller, BotApiKey::SUBJECT, Subject::new(StoredBot::SUBJECT, id))?;
        let mut backoff = Backoff::persistent();
        loop {
            let Some(bot) = self.bot(id).await? else { return Ok(false) };
            let mut held: Vec<BotKey> = bot.keys.iter().filter(|key| key.hash != hash).cloned().collect();
            if held.len() == bot.keys.len() {
                return Ok(false);
            }
            let mut condition = Condition::default();
            if bot.link_of(hash, self.clock.now()) == Link::Ends {
                let used: Option<Used> = self.get(keys::token(hash)).await?;
                if matches!(cause, Cause::Own) || used.is_some_and(|used| used.last_used_at.is_some()) {
                    // Its use has ended the key before it, which must not come back.
                    held.clear();
                } else {
                    condition = Condition::plain("attribute_not_exists(last_used_at)");
                }
            }
            if bot.keys.first().is_some_and(|newest| newest.hash == hash) {
                // What is left of the pair has no successor any more.
                for left in &mut held {
                    let expires_at = left.rotated.take().and_then(|rotated| rotated.expires_at);
                    left.rotated = Some(Replaced { expires_at, until_first_use: false, ends_by: None });
                }
            }
            let values = [
                (":keys", serde_json::to_value(&held).map_err(|_| StoreError::Defect)?),
                (":old", bot.revision.into()),
                (":new", (bot.revision + 1).into()),
            ];
            let mut transaction = self.transaction();
            transaction
                .update(keys::bot(id), "SET #keys = :keys, #revision = :new", "#revision = :old", &values)
                .delete_if(keys::token(hash), condition);
            for ended in bot.keys.iter().filter(|key| key.hash != hash && held.iter().all(|held| held.hash != key.hash))
            {
                transaction.delete(keys::token(ended.hash));
            }
            transaction.audit(&bot.org_id, &entry).tell(cause, hash, &Recipient::Org(bot.org_id.clone()), None, &entry);
            match transaction.try_commit(&mut backoff).await? {
                Some(Committed::Yes) => return Ok(true),
                // Another change won, or the bot was deleted: read it again.
                Some(Committed::No(_)) => backoff.pause().await?,
                None => {}
            }
        }
    }

    /// As the holder of what authenticated this bot, ends that: one API key, or the token of a CI
    /// job. False if it ended before.
    pub async fn revoke_own_bot_credential(&self, bot: &Bot, caller: &Caller) -> Result<bool, StoreError> {
        let cause = Cause::Own;
        match &bot.credential {
            BotCredential::Key(hash, _) => self.end_bot_api_key(&bot.id, *hash, cause, caller).await,
            BotCredential::Token(token, hash) => self.end_bot_token(token, *hash, cause, caller).await,
        }
    }

    /// Writes the items that the API keys of a bot of version 0.1 lack, and returns their number.
    /// Idempotent, and safe while the bot is changed. For `guardctl migrate`.
    pub async fn write_api_key_items(&self, id: &BotId) -> Result<usize, StoreError> {
        let mut backoff = Backoff::new();
        loop {
            let Some(bot) = self.bot(id).await? else { return Ok(0) };
            let mut missing: Vec<Key> = Vec::new();
            for key in &bot.keys {
                let key = keys::token(key.hash);
                if self.get::<AnyToken>(key.clone()).await?.is_none() {
                    missing.push(key);
                }
            }
            if missing.is_empty() {
                return Ok(0);
            }
            let mut transaction = self.transaction();
            transaction.require_where(keys::bot(id), "#revision = :revision", &[(":revision", bot.revision)]);
            for key in &missing {
                transaction.put(key.clone(), &bot.key_item());
            }
            match transaction.try_commit(&mut backoff).await? {
                Some(Committed::Yes) => return Ok(missing.len()),
                // The bot was changed in the meantime: read it again.
                Some(Committed::No(_)) => backoff.pause().await?,
                None => {}
            }
        }
    }
}

/// What stays of a key that a rotation replaces; nothing without an overlap.
fn kept(key: &BotKey, is_again: bool, rotation: Rotation, now: Moment) -> Option<BotKey> {
    let (before, expires_at, ends_by) = match &key.rotated {
        None => (key.expires_at, key.expires_at, None),
        Some(rotated) if is_again => (rotated.ends_by.or(rotated.expires_at), rotated.expires_at, rotated.ends_by),
        // It is left of a pair whose newer key was ended, perhaps since it leaked.
        Some(rotated) => (key.expires_at, rotated.expires_at, key.expires_at),
    };
    let end = rotation.end_of_old(now, before)?;
    let rotated = Some(Replaced { expires_at, until_first_use: rotation.until_first_use, ends_by });
    Some(BotKey { expires_at: Some(end), rotated, ..key.clone() })
}

impl Rotate for StoredBot {
    type Id = KeyToRotate;
    type Old = OldKey;

    const NOT_FOUND: ApiError = ApiError::BotNotFound;

    async fn find(
        store: &Store,
        org: &OrgId,
        KeyToRotate { bot: id, renewed_until }: &KeyToRotate,
        received_at: u64,
    ) -> Result<Result<OldKey, Unrotatable>, StoreError> {
        let Some(bot) = store.bot(id).await?.filter(|bot| bot.org_id == *org) else {
            return Ok(Err(Unrotatable::NotFound));
        };
        let newest = bot.keys.first().and_then(|key| key.id.as_ref());
        if newest.is_some_and(|id| id.milliseconds() > received_at) {
            return Ok(Err(Unrotatable::Conflict));
        }
        let mut old = store.old_key(bot).await?;
        if let Some(expires_at) = renewed_until.filter(|_| old.has_expired(store.clock.now())) {
            old.expires_at = expires_at;
        }
        Ok(Ok(old))
    }

    fn expires_at(old: &OldKey) -> Option<Moment> {
        old.expires_at
    }

    /// No API key rotates them.
    fn bind_to(_: &mut OldKey, _: &ApiKey) {}

    /// No API key rotates them.
    fn exceeds(_: &OldKey, _: &ApiKey, _: Option<Moment>) -> Option<&'static str> {
        None
    }

    async fn rotate(store: &Store, old: OldKey, rotation: Rotation, by: By<'_>) -> Result<Successor<Self>, StoreError> {
        store.replace_key(old, rotation, by).await
    }
}

fn role_names(roles: &[Role]) -> Vec<String> {
    roles.iter().map(|role| role.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bot(keys: Vec<BotKey>) -> StoredBot {
        StoredBot {
            id: BotId::parse("BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            name: "ci".to_owned(),
            roles: vec!["organization/owner".to_owned(), "organization/of-a-later-version".to_owned()],
            keys,
            created_at: moment("2026-11-21T10:00:00Z"),
            revision: 0,
            token_generation: 0,
            trust_count: 0,
        }
    }

    fn moment(text: &str) -> Moment {
        Moment::parse(text).unwrap()
    }

    fn key(hash: TokenHash, expires_at: Option<Moment>) -> BotKey {
        BotKey { hash, id: None, expires_at, rotated: None }
    }

    #[test]
    fn stored_item_matches_its_snapshot() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        let expires_at = Some(moment("2026-11-22T10:00:00Z"));
        let rotated = Some(Replaced { expires_at, until_first_use: true, ends_by: expires_at });
        let id = TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC");
        insta::assert_json_snapshot!(bot(vec![key(hash, None), BotKey { id, rotated, ..key(hash, expires_at) }]));
    }

    #[test]
    fn item_of_an_api_key_matches_its_snapshot() {
        insta::assert_json_snapshot!(bot(vec![]).key_item());
    }

    #[test]
    fn unknown_role_grants_nothing() {
        let roles = bot(vec![]).roles();
        assert!(Role::ALL.iter().all(|role| roles.contains(role) == (*role == Role::Owner)));
        assert_eq!(roles.as_slice()[1], OrUnknown::Unknown("organization/of-a-later-version".to_owned()));
    }

    #[test]
    fn previous_key_is_valid_until_its_overlap_ends() {
        let [current, before, foreign] = [1, 2, 3].map(|_| Token::generate(TokenKind::BotApiKey).unwrap().hash());
        let bot = bot(vec![key(current, None), key(before, Some(moment("2026-11-21T11:00:00Z")))]);
        assert!(bot.accepts(current, moment("2030-01-01T00:00:00Z")));
        assert!(bot.accepts(before, moment("2026-11-21T10:59:59Z")));
        assert!(!bot.accepts(before, moment("2026-11-21T11:00:00Z")));
        assert!(!bot.accepts(foreign, moment("2026-11-21T10:00:00Z")));
    }
}
