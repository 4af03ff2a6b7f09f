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
//! A request that is under way at that moment may not outrun the change: what it creates is handed
//! out only after a second read of the bot ([`crate::auth::BotWith::confirm`]), and what it changes
//! is written on the condition that the bot's `revision` is the one that was read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::idempotency::{Once, Repeat};
use super::keys::{self, Key};
use super::leaks::{Cause, Recipient};
use super::members::Authority;
use super::tokens::{Acting, AnyToken, BotApiKey, BotToken};
use super::{Backoff, Committed, SortKeys, Store, StoreError};
use crate::clock::Moment;
use crate::domain::{Held, OrUnknown};
use crate::ids::{BotId, OrgId};
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
    /// An API key.
    Key(TokenHash),
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
            BotCredential::Key(_) => None,
            BotCredential::Token(token, _) => Some(&token.subject),
        }
    }

    /// Whether the bot may create something that lives until then; `None` is forever. What a CI job
    /// creates does not outlive its token, unless its trust allows that.
    pub fn may_mint_until(&self, expires_at: Option<Moment>) -> bool {
        match &self.credential {
            BotCredential::Key(_) => true,
            BotCredential::Token(token, _) => {
                token.acting.as_ref().is_some_and(|acting| acting.may_mint_longer)
                    || expires_at.is_some_and(|expires_at| expires_at <= token.expires_at)
            }
        }
    }

    /// The right of the bot, for changes that give rights to somebody.
    pub fn authority(&self) -> Authority<'_> {
        match &self.credential {
            BotCredential::Key(_) => Authority::Bot(&self.id, self.revision),
            BotCredential::Token(token, hash) => Authority::Job(token, *hash, self.revision),
        }
    }
}

/// An API key of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotKey {
    /// The hash of the whole key.
    pub hash: TokenHash,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
}

impl StoredBot {
    /// The name of this kind in audit entries.
    pub const SUBJECT: &str = "bot";

    /// The item under the hash of each of its API keys.
    fn key_item(&self) -> AnyToken {
        AnyToken::BotApiKey(BotApiKey { bot_id: self.id.clone(), org_id: self.org_id.clone() })
    }

    /// Its roles.
    pub fn roles(&self) -> Held<Role> {
        let known =
            |role: &String| Role::parse(role).map_or_else(|| OrUnknown::Unknown(role.clone()), OrUnknown::Known);
        self.roles.iter().map(known).collect()
    }

    /// Compares all keys, each in constant time.
    fn accepts(&self, key: TokenHash, now: Moment) -> bool {
        self.keys.iter().fold(false, |held, candidate| {
            held | ((candidate.hash == key) & candidate.expires_at.is_none_or(|expires_at| now < expires_at))
        })
    }
}

/// The result of making an API key, with or without its bot.
#[derive(Debug)]
pub enum Keyed {
    /// It was made. The plain key is returned only here.
    Done(Box<StoredBot>, Token),
    /// There is no such bot.
    NotFound,
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
            BotCredential::Key(key) => self.bot_with_key(&bot.id, *key).await,
            BotCredential::Token(_, hash) => {
                Ok(self.bot_token_again(*hash).await?.and_then(|token| Bot::of_job(token, *hash)))
            }
        }
    }

    async fn bot_with_key(&self, id: &BotId, key: TokenHash) -> Result<Option<Bot>, StoreError> {
        let bot = self.bot(id).await?;
        let now = self.clock.now();
        Ok(bot.filter(|bot| bot.accepts(key, now)).map(|bot| Bot {
            roles: bot.roles(),
            id: bot.id,
            org_id: bot.org_id,
            credential: BotCredential::Key(key),
            revision: bot.revision,
        }))
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

    /// Creates a bot and its first API key, as the operator. The plain key is returned only here.
    pub async fn create_bot(
        &self,
        org: &OrgId,
        name: &str,
        roles: &[Role],
        caller: &Caller,
    ) -> Result<(StoredBot, Token), StoreError> {
        match self.create_bot_by(Authority::Operator, org, name, roles, caller, None).await? {
            Keyed::Done(bot, key) => Ok((*bot, key)),
            Keyed::NotFound | Keyed::CallerChanged | Keyed::Repeated(_) => Err(StoreError::Defect),
        }
    }

    /// Creates a bot and its first API key, if the caller's own rights have not changed.
    pub async fn create_bot_by(
        &self,
        authority: Authority<'_>,
        org: &OrgId,
        name: &str,
        roles: &[Role],
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<Keyed, StoreError> {
        let key = Token::generate(TokenKind::BotApiKey)?;
        let bot = StoredBot {
            id: BotId::new(&self.clock)?,
            org_id: org.clone(),
            name: name.to_owned(),
            roles: role_names(roles),
            keys: vec![BotKey { hash: key.hash(), expires_at: None }],
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
            Committed::No(index) if Some(index) == key_used => self.made_before(org, once, caller).await,
            // A collision of 80 random bits: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// What the key of a request was used for, after it was found to be used.
    async fn made_before(&self, org: &OrgId, once: Option<&Once>, caller: &Caller) -> Result<Keyed, StoreError> {
        self.repeated(org, once, caller).await?.map(Keyed::Repeated).ok_or(StoreError::Unavailable)
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

    /// Creates a new API key for a bot, as the operator. `None` if there is no such bot.
    pub async fn rotate_bot_key(
        &self,
        id: &BotId,
        overlap: Option<Duration>,
        caller: &Caller,
    ) -> Result<Option<Token>, StoreError> {
        match self.rotate_bot_key_by(Authority::Operator, id, overlap, caller, None).await? {
            Keyed::Done(_, key) => Ok(Some(key)),
            Keyed::NotFound | Keyed::CallerChanged | Keyed::Repeated(_) => Ok(None),
        }
    }

    /// Creates a new API key for a bot, if the caller's own rights have not changed. The previous
    /// key stays valid for `overlap`; without it, it stops working at once, as all older keys do.
    pub async fn rotate_bot_key_by(
        &self,
        authority: Authority<'_>,
        id: &BotId,
        overlap: Option<Duration>,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<Keyed, StoreError> {
        loop {
            let Some(bot) = self.bot(id).await? else { return Ok(Keyed::NotFound) };
            let key = Token::generate(TokenKind::BotApiKey)?;
            let mut held = vec![BotKey { hash: key.hash(), expires_at: None }];
            if let (Some(overlap), Some(current)) = (overlap, bot.keys.first()) {
                let end = self.clock.now().plus(overlap);
                // One that ends sooner is not prolonged: it is left of a pair whose newer key leaked.
                let expires_at = Some(current.expires_at.map_or(end, |expires_at| expires_at.min(end)));
                held.push(BotKey { expires_at, ..current.clone() });
            }
            let subject = Subject::new(StoredBot::SUBJECT, id);
            let entry = Entry::done(&self.clock, caller, "bot.rotate_key", subject.clone())?;
            let values = [
                (":keys", serde_json::to_value(&held).map_err(|_| StoreError::Defect)?),
                (":old", bot.revision.into()),
                (":new", (bot.revision + 1).into()),
            ];
            let mut transaction = self.transaction().persistent();
            let own_checks = transaction.require_authority(authority);
            // Before the bot: a repeat must not read the bot again and again.
            let key_used = transaction.once(&bot.org_id, once, caller, subject);
            transaction
                .update(keys::bot(id), "SET #keys = :keys, #revision = :new", "#revision = :old", &values)
                .put_new(keys::token(key.hash()), &bot.key_item());
            for dropped in bot.keys.iter().filter(|known| held.iter().all(|held| held.hash != known.hash)) {
                transaction.delete(keys::token(dropped.hash));
            }
            match transaction.audit(&bot.org_id, &entry).commit().await? {
                Committed::Yes => {
                    return Ok(Keyed::Done(Box::new(StoredBot { keys: held, revision: bot.revision + 1, ..bot }), key));
                }
                Committed::No(index) if index < own_checks => return Ok(Keyed::CallerChanged),
                Committed::No(index) if Some(index) == key_used => {
                    return self.made_before(&bot.org_id, once, caller).await;
                }
                // Another change won, or the bot was deleted: read it again.
                Committed::No(_) => {}
            }
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
            let held: Vec<&BotKey> = bot.keys.iter().filter(|key| key.hash != hash).collect();
            if held.len() == bot.keys.len() {
                return Ok(false);
            }
            let values = [
                (":keys", serde_json::to_value(&held).map_err(|_| StoreError::Defect)?),
                (":old", bot.revision.into()),
                (":new", (bot.revision + 1).into()),
            ];
            let mut transaction = self.transaction();
            transaction
                .update(keys::bot(id), "SET #keys = :keys, #revision = :new", "#revision = :old", &values)
                .delete(keys::token(hash))
                .audit(&bot.org_id, &entry)
                .tell(cause, hash, &Recipient::Org(bot.org_id.clone()), None, &entry);
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
            BotCredential::Key(hash) => self.end_bot_api_key(&bot.id, *hash, cause, caller).await,
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

    #[test]
    fn stored_item_matches_its_snapshot() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        let expires_at = Some(moment("2026-11-22T10:00:00Z"));
        insta::assert_json_snapshot!(bot(vec![BotKey { hash, expires_at: None }, BotKey { hash, expires_at }]));
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
        let bot = bot(vec![
            BotKey { hash: current, expires_at: None },
            BotKey { hash: before, expires_at: Some(moment("2026-11-21T11:00:00Z")) },
        ]);
        assert!(bot.accepts(current, moment("2030-01-01T00:00:00Z")));
        assert!(bot.accepts(before, moment("2026-11-21T10:59:59Z")));
        assert!(!bot.accepts(before, moment("2026-11-21T11:00:00Z")));
        assert!(!bot.accepts(foreign, moment("2026-11-21T10:00:00Z")));
    }
}
