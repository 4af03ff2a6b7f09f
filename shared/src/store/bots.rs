//! Bots: the credentials that manage everything else.
//!
//! A bot is one item under its id, with its roles and the hashes of its API keys in it. Its credential names the id,
//! so one read answers whether the key belongs to the bot and what the bot may do; a new role, a rotated key or the
//! bot's deletion is one write to one item, and holds for the very next use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys;
use super::{Committed, Places, Store, StoreError};
use crate::clock::Moment;
use crate::ids::{BotId, OrgId};
use crate::principal::{Bot, Role};
use crate::secret::{Token, TokenHash, TokenKind};

/// A bot, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBot {
    /// Its id.
    pub id: BotId,
    /// The one organization it belongs to.
    pub org_id: OrgId,
    /// Its name, for people.
    pub name: String,
    /// Its roles, as they are written. One that this version does not know grants nothing.
    pub roles: Vec<String>,
    /// Its API keys: the current one, and while a rotation overlaps the one before.
    pub keys: Vec<BotKey>,
    /// Since when it exists.
    pub created_at: Moment,
    /// Counts changes of `keys`, so that of two rotations at once one starts over.
    pub revision: u64,
}

/// An API key of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotKey {
    /// The hash of the whole key.
    pub hash: TokenHash,
    /// The moment from which it no longer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
}

impl StoredBot {
    fn roles(&self) -> Vec<Role> {
        self.roles.iter().filter_map(|role| Role::parse(role)).collect()
    }

    /// Every key is compared, and each in constant time.
    fn holds(&self, key: TokenHash, now: Moment) -> bool {
        self.keys.iter().fold(false, |held, candidate| {
            held | ((candidate.hash == key) & candidate.expires_at.is_none_or(|expires_at| now < expires_at))
        })
    }
}

/// The entry of a bot in its organization: the key says it all.
#[derive(Serialize)]
struct Member {}

impl Store {
    /// The bot that this credential is good for, in one read. `None` for every way in which it is not.
    pub async fn authenticate_bot(&self, id: &BotId, key: &Token) -> Result<Option<Bot>, StoreError> {
        let bot: Option<StoredBot> = self.get(keys::bot(id)).await?;
        let now = self.clock.now();
        Ok(bot.filter(|bot| bot.holds(key.hash(), now)).map(|bot| Bot {
            roles: bot.roles(),
            id: bot.id,
            org_id: bot.org_id,
        }))
    }

    /// Reads a bot.
    pub async fn bot(&self, id: &BotId) -> Result<Option<StoredBot>, StoreError> {
        self.get(keys::bot(id)).await
    }

    /// An organization's bots, by id: so by age.
    pub async fn bots(&self, org: &OrgId) -> Result<Vec<StoredBot>, StoreError> {
        let (pk, prefix) = keys::org_bots(org);
        let ids = self.names_in(&pk, Places::BeginningWith(prefix)).await?;
        let mut bots: Vec<StoredBot> = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(100) {
            let ids = chunk.iter().filter_map(|id| BotId::parse(id));
            bots.extend(self.get_all(ids.map(|id| keys::bot(&id)).collect()).await?);
        }
        bots.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(bots)
    }

    /// Makes a bot and its first API key. The key is in the answer this once.
    pub async fn create_bot(
        &self,
        org: &OrgId,
        name: &str,
        roles: &[Role],
        caller: &Caller,
    ) -> Result<(StoredBot, Token), StoreError> {
        let key = Token::generate(TokenKind::BotApiKey)?;
        let bot = StoredBot {
            id: BotId::new(&self.clock)?,
            org_id: org.clone(),
            name: name.to_owned(),
            roles: written(roles),
            keys: vec![BotKey { hash: key.hash(), expires_at: None }],
            created_at: self.clock.now(),
            revision: 0,
        };
        let entry = Entry::done(&self.clock, caller, "bot.create", Subject::new("bot", &bot.id))?;
        let mut transaction = self.transaction();
        transaction.put_new(keys::bot(&bot.id), &bot).put_new(keys::org_bot(org, &bot.id), &Member {});
        match transaction.audit(org, &entry).commit().await? {
            Committed::Yes => Ok((bot, key)),
            // 80 random bits came twice: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// Replaces a bot's roles. `None` if there is no such bot.
    pub async fn set_bot_roles(
        &self,
        id: &BotId,
        roles: &[Role],
        caller: &Caller,
    ) -> Result<Option<StoredBot>, StoreError> {
        let Some(bot) = self.bot(id).await? else { return Ok(None) };
        let entry = Entry::done(&self.clock, caller, "bot.set_roles", Subject::new("bot", id))?;
        let mut transaction = self.transaction();
        let values = [(":roles", written(roles))];
        transaction.update(keys::bot(id), "SET #roles = :roles", "attribute_exists(pk)", &values);
        match transaction.audit(&bot.org_id, &entry).commit().await? {
            Committed::Yes => self.bot(id).await,
            Committed::No(_) => Ok(None),
        }
    }

    /// Gives a bot a new API key, in the answer this once. The one before counts for `overlap` longer; without, and
    /// any older one, no more. `None` if there is no such bot.
    pub async fn rotate_bot_key(
        &self,
        id: &BotId,
        overlap: Option<Duration>,
        caller: &Caller,
    ) -> Result<Option<Token>, StoreError> {
        loop {
            let Some(bot) = self.bot(id).await? else { return Ok(None) };
            let key = Token::generate(TokenKind::BotApiKey)?;
            let mut keys = vec![BotKey { hash: key.hash(), expires_at: None }];
            if let (Some(overlap), Some(current)) = (overlap, bot.keys.first()) {
                keys.push(BotKey { expires_at: Some(self.clock.now().plus(overlap)), ..current.clone() });
            }
            let entry = Entry::done(&self.clock, caller, "bot.rotate_key", Subject::new("bot", id))?;
            let values = [
                (":keys", serde_json::to_value(keys).map_err(|_| StoreError::Defect)?),
                (":old", bot.revision.into()),
                (":new", (bot.revision + 1).into()),
            ];
            let mut transaction = self.transaction();
            transaction.update(keys::bot(id), "SET #keys = :keys, #revision = :new", "#revision = :old", &values);
            // Another rotation came first, or the bot is gone: look again.
            if transaction.audit(&bot.org_id, &entry).commit().await? == Committed::Yes {
                return Ok(Some(key));
            }
        }
    }

    /// Removes a bot; its keys no longer count. False if there is no such bot.
    pub async fn delete_bot(&self, id: &BotId, caller: &Caller) -> Result<bool, StoreError> {
        let Some(bot) = self.bot(id).await? else { return Ok(false) };
        let entry = Entry::done(&self.clock, caller, "bot.delete", Subject::new("bot", id))?;
        let mut transaction = self.transaction();
        transaction.delete_existing(keys::bot(id)).delete(keys::org_bot(&bot.org_id, id));
        Ok(transaction.audit(&bot.org_id, &entry).commit().await? == Committed::Yes)
    }
}

fn written(roles: &[Role]) -> Vec<String> {
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
    fn the_stored_shape_is_pinned() {
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        let expires_at = Some(moment("2026-11-22T10:00:00Z"));
        insta::assert_json_snapshot!(bot(vec![BotKey { hash, expires_at: None }, BotKey { hash, expires_at }]));
    }

    #[test]
    fn a_role_of_a_later_version_grants_nothing() {
        assert_eq!(bot(vec![]).roles(), [Role::Owner]);
    }

    #[test]
    fn a_key_counts_until_the_moment_its_overlap_ends() {
        let [current, before, foreign] = [1, 2, 3].map(|_| Token::generate(TokenKind::BotApiKey).unwrap().hash());
        let bot = bot(vec![
            BotKey { hash: current, expires_at: None },
            BotKey { hash: before, expires_at: Some(moment("2026-11-21T11:00:00Z")) },
        ]);
        assert!(bot.holds(current, moment("2030-01-01T00:00:00Z")));
        assert!(bot.holds(before, moment("2026-11-21T10:59:59Z")));
        assert!(!bot.holds(before, moment("2026-11-21T11:00:00Z")));
        assert!(!bot.holds(foreign, moment("2026-11-21T10:00:00Z")));
    }
}
