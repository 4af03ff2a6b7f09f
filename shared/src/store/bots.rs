//! Bots: the credentials that manage tokens.
//!
//! A bot is one item with its roles and the hashes of its API keys. The credential contains the bot
//! ID, so one read authenticates and authorizes it. Changing roles, rotating the key or deleting
//! the bot is one write to that item and takes effect at the next use.
//!
//! A request that is under way at that moment may not outrun the change: what it creates is handed
//! out only after a second read of the bot ([`crate::auth::BotWith::confirm`]), and what it changes
//! is written on the condition that the bot's `revision` is the one that was read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::idempotency::{Once, Repeat};
use super::keys;
use super::members::Authority;
use super::{Committed, SortKeys, Store, StoreError};
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
    /// Incremented when `keys` or `roles` change. A concurrent rotation then starts over, as does
    /// a change that the bot asked for.
    pub revision: u64,
}

/// An authenticated bot.
#[derive(Debug, Clone)]
pub struct Bot {
    /// Its ID.
    pub id: BotId,
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// Its roles.
    pub roles: Held<Role>,
    /// The hash of the API key that authenticated it.
    key: TokenHash,
    /// The revision that was read.
    revision: u64,
}

impl Bot {
    /// The right of the bot, for changes that give rights to somebody.
    pub fn authority(&self) -> Authority<'_> {
        Authority::Bot(&self.id, self.revision)
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

    /// The bot as it is now, with one read. `None` if it was deleted, or the API key that
    /// authenticated it is no longer valid.
    pub async fn authenticate_bot_again(&self, bot: &Bot) -> Result<Option<Bot>, StoreError> {
        self.bot_with_key(&bot.id, bot.key).await
    }

    async fn bot_with_key(&self, id: &BotId, key: TokenHash) -> Result<Option<Bot>, StoreError> {
        let bot = self.bot(id).await?;
        let now = self.clock.now();
        Ok(bot.filter(|bot| bot.accepts(key, now)).map(|bot| Bot {
            roles: bot.roles(),
            id: bot.id,
            org_id: bot.org_id,
            key,
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
        };
        let subject = Subject::new(StoredBot::SUBJECT, &bot.id);
        let entry = Entry::done(&self.clock, caller, "bot.create", subject.clone())?;
        let mut transaction = self.transaction();
        // First, so that somebody who was cut off learns nothing from the other conditions.
        let checks_caller = transaction.require_authority(authority);
        transaction.put_new(keys::bot(&bot.id), &bot).put_new(keys::org_bot(org, &bot.id), &Member {});
        let key_used = transaction.audit(org, &entry).once(org, once, caller, subject);
        match transaction.commit().await? {
            Committed::Yes => Ok(Keyed::Done(Box::new(bot), key)),
            Committed::No(0) if checks_caller => Ok(Keyed::CallerChanged),
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
        let checks_caller = transaction.require_authority(authority);
        let values = [(":roles", serde_json::json!(role_names(roles))), (":one", 1.into())];
        let change = "SET #roles = :roles ADD #revision :one";
        transaction.update(keys::bot(id), change, "attribute_exists(pk)", &values);
        match transaction.audit(&bot.org_id, &entry).commit().await? {
            Committed::Yes => {
                let changed = self.bot(id).await?;
                Ok(changed.map_or(BotChange::NotFound, |bot| BotChange::Done(Box::new(bot))))
            }
            Committed::No(0) if checks_caller => Ok(BotChange::CallerChanged),
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
                held.push(BotKey { expires_at: Some(self.clock.now().plus(overlap)), ..current.clone() });
            }
            let subject = Subject::new(StoredBot::SUBJECT, id);
            let entry = Entry::done(&self.clock, caller, "bot.rotate_key", subject.clone())?;
            let values = [
                (":keys", serde_json::to_value(&held).map_err(|_| StoreError::Defect)?),
                (":old", bot.revision.into()),
                (":new", (bot.revision + 1).into()),
            ];
            let mut transaction = self.transaction().persistent();
            let checks_caller = transaction.require_authority(authority);
            // Before the bot: a repeat must not read the bot again and again.
            let key_used = transaction.once(&bot.org_id, once, caller, subject);
            transaction.update(keys::bot(id), "SET #keys = :keys, #revision = :new", "#revision = :old", &values);
            match transaction.audit(&bot.org_id, &entry).commit().await? {
                Committed::Yes => {
                    return Ok(Keyed::Done(Box::new(StoredBot { keys: held, revision: bot.revision + 1, ..bot }), key));
                }
                Committed::No(0) if checks_caller => return Ok(Keyed::CallerChanged),
                Committed::No(index) if Some(index) == key_used => {
                    return self.made_before(&bot.org_id, once, caller).await;
                }
                // Another change won, or the bot was deleted: read it again.
                Committed::No(_) => {}
            }
        }
    }

    /// Deletes a bot and with it its API keys. False if there is no such bot.
    pub async fn delete_bot(&self, id: &BotId, caller: &Caller) -> Result<bool, StoreError> {
        let Some(bot) = self.bot(id).await? else { return Ok(false) };
        let entry = Entry::done(&self.clock, caller, "bot.delete", Subject::new(StoredBot::SUBJECT, id))?;
        let mut transaction = self.transaction().persistent();
        transaction.delete_existing(keys::bot(id)).delete(keys::org_bot(&bot.org_id, id));
        Ok(transaction.audit(&bot.org_id, &entry).commit().await? == Committed::Yes)
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
