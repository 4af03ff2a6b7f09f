//! The `bot` commands, without those of its trusts. Creating a bot or rotating its key prints the API
//! key, once.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use shared::Moment;
use shared::ids::{BotId, OrgId};
use shared::permissions::Role;
use shared::secret::{ShownOnce, Token};
use shared::store::StoreError;
use shared::store::bots::{KeyUses, StoredBot};
use shared::store::members::Authority;
use shared::store::rotation::MAX_OVERLAP;
use shared::store::trusts::BotTokensEnded;

use crate::cli::BotCommand;
use crate::failure::Failure;
use crate::operator::Operator;
use crate::{output, trust};

/// Runs a `bot` command.
pub async fn run(command: BotCommand, operator: &Operator) -> Result<(), Failure> {
    let (store, caller) = (operator.store(), &operator.caller);
    match command {
        BotCommand::Create { org, name, roles, expires_at } => {
            operator.require_org(&org).await?;
            let made = store.create_bot_until(expires_at, &org, &name, &distinct(roles), caller).await;
            let look = "the bot may have been created anyway: check with `guardctl bot list`";
            let (bot, key) = made.map_err(Failure::of_change(look))?;
            operator.answer(&NewKey::new(BotView::new(bot, &KeyUses::default(), operator.now()), key))
        }
        BotCommand::List { org } => {
            operator.require_org(&org).await?;
            let now = operator.now();
            let bots = store.bots(&org).await?;
            let uses = store.bot_key_uses(&bots).await?;
            let bots = bots.into_iter().map(|bot| BotView::new(bot, &uses, now)).collect();
            operator.answer(&BotsView { bots })
        }
        BotCommand::SetRoles { bot, roles } => {
            let changed = store.set_bot_roles(&bot, &distinct(roles), caller).await?;
            let changed = changed.ok_or(Failure::NoSuchBot(bot))?;
            operator.answer(&BotView::of(changed, operator).await?)
        }
        BotCommand::RotateKey { bot, overlap, until_first_use, expires_at } => {
            let longest = if until_first_use { MAX_OVERLAP } else { Duration::ZERO };
            let overlap = overlap.unwrap_or(longest);
            let rotated = store.rotate_bot_key_until(&bot, overlap, until_first_use, expires_at, caller).await;
            let look = "the API key may have been replaced anyway: running the command again creates another key, \
                        and ends the one that was never shown";
            let rotated = match rotated {
                Err(StoreError::ExpiryMissing) => return Err(Failure::ExpiryMissing(bot)),
                rotated => rotated.map_err(Failure::of_change(look))?,
            };
            let (rotated, key) = rotated.ok_or(Failure::NoSuchBot(bot))?;
            operator.answer(&NewKey::new(BotView::new(rotated, &KeyUses::default(), operator.now()), key))
        }
        BotCommand::Delete { bot } => {
            let mut deleted = operator.bot(&bot).await?;
            if !store.delete_bot(&bot, caller).await? {
                return Err(Failure::NoSuchBot(bot));
            }
            // With its keys.
            deleted.keys.clear();
            let deleted = BotView::new(deleted, &KeyUses::default(), operator.now());
            operator.answer(&Deleted { deleted })
        }
        BotCommand::Trust(command) => trust::run(command, operator).await,
        BotCommand::EndTokens { bot } => {
            let found = operator.bot(&bot).await?;
            match store.end_bot_tokens(Authority::Operator, &bot, caller).await? {
                BotTokensEnded::Done => {
                    operator.answer(&TokensEnded { tokens_ended: BotView::of(found, operator).await? })
                }
                BotTokensEnded::NotFound | BotTokensEnded::CallerChanged => Err(Failure::NoSuchBot(bot)),
            }
        }
    }
}

/// Removes duplicate roles and keeps the order.
pub fn distinct(roles: Vec<Role>) -> Vec<Role> {
    let mut distinct = Vec::with_capacity(roles.len());
    for role in roles {
        if !distinct.contains(&role) {
            distinct.push(role);
        }
    }
    distinct
}

#[derive(Serialize)]
struct BotView {
    id: BotId,
    org_id: OrgId,
    name: String,
    roles: Vec<String>,
    created_at: Moment,
    /// When its API key expires.
    key_expires_at: Option<Moment>,
    /// When its API key was last used.
    last_used_at: Option<Moment>,
    /// When the previous key expires, while it is still valid.
    previous_key_expires_at: Option<Moment>,
}

impl BotView {
    fn new(bot: StoredBot, uses: &KeyUses, now: Moment) -> Self {
        let previous_key_expires_at = bot.previous_key(uses, now).and_then(|key| key.expires_at);
        let key = bot.keys.first();
        let (key_expires_at, last_used_at) = (key.and_then(|key| key.expires_at), key.and_then(|key| uses.of(key)));
        let StoredBot { id, org_id, name, roles, created_at, .. } = bot;
        Self { id, org_id, name, roles, created_at, key_expires_at, last_used_at, previous_key_expires_at }
    }

    /// The view of a bot as it is now.
    async fn of(bot: StoredBot, operator: &Operator) -> Result<Self, Failure> {
        let uses = operator.store().bot_key_uses(std::slice::from_ref(&bot)).await?;
        Ok(Self::new(bot, &uses, operator.now()))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        let mut lines = vec![
            ("organization", self.org_id.to_string()),
            ("name", self.name.clone()),
            ("roles", self.roles.join(", ")),
            ("created", self.created_at.to_string()),
        ];
        if let Some(expires_at) = self.key_expires_at {
            lines.push(("key expires", expires_at.to_string()));
        }
        if let Some(last_used_at) = self.last_used_at {
            lines.push(("last used", last_used_at.to_string()));
        }
        if let Some(expires_at) = self.previous_key_expires_at {
            lines.push(("previous key", format!("valid until {expires_at}")));
        }
        output::card(f, &format!("{title} {}", self.id), &lines)
    }
}

impl fmt::Display for BotView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "Bot")
    }
}

#[derive(Serialize)]
struct BotsView {
    bots: Vec<BotView>,
}

impl fmt::Display for BotsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |bot: &BotView| {
            let previous_key = bot.previous_key_expires_at.map_or("-".to_owned(), |until| format!("until {until}"));
            let moment = |at: Option<Moment>, otherwise: &str| at.map_or(otherwise.to_owned(), |at| at.to_string());
            [
                bot.id.to_string(),
                bot.created_at.to_string(),
                moment(bot.last_used_at, "never"),
                moment(bot.key_expires_at, "-"),
                previous_key,
                bot.name.clone(),
                bot.roles.join(", "),
            ]
        };
        let rows: Vec<_> = self.bots.iter().map(row).collect();
        let heading = ["ID", "CREATED", "LAST USED", "KEY EXPIRES", "PREVIOUS KEY", "NAME", "ROLES"];
        output::table(f, "bots", heading, &rows)
    }
}

/// A bot that was just deleted.
#[derive(Serialize)]
struct Deleted {
    deleted: BotView,
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deleted.write(f, "Deleted bot")
    }
}

/// A bot whose tokens of CI jobs were just ended.
#[derive(Serialize)]
struct TokensEnded {
    tokens_ended: BotView,
}

impl fmt::Display for TokensEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens_ended.write(f, "Ended all job tokens of bot")
    }
}

/// A bot with its new API key. No other output contains a secret.
#[derive(Serialize)]
struct NewKey {
    #[serde(flatten)]
    bot: BotView,
    api_key: ShownOnce,
    credential: Credential,
}

impl NewKey {
    fn new(bot: BotView, key: Token) -> Self {
        let credential = Credential { key: key.clone(), bot: bot.id.clone() };
        Self { bot, api_key: ShownOnce(key), credential }
    }
}

impl fmt::Display for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bot)?;
        writeln!(f, "\nAPI key (shown only once):\n  {}", self.api_key.0.expose())?;
        writeln!(f, "Credential (send it as `Authorization: Bearer …`):\n  {}", self.credential.expose())
    }
}

/// The bearer credential: API key and bot ID, joined by a colon.
struct Credential {
    key: Token,
    bot: BotId,
}

impl Credential {
    fn expose(&self) -> String {
        format!("{}:{}", self.key.expose(), self.bot)
    }
}

impl Serialize for Credential {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.expose())
    }
}
