//! Trusts of bots. Each is an item of its own in the bot's partition, whose ID the tokens that it
//! admits keep: removing it ends them at their next use.
//!
//! The bot's item counts its trusts, so that there are never more than [`MAX_TRUSTS`], and a bot is
//! deleted together with all of them.

use super::audit::{Caller, Entry, Subject};
use super::bots::StoredBot;
use super::idempotency::{Once, Repeat};
use super::keys;
use super::members::Authority;
use super::{Committed, Range, SortKeys, Store, StoreError};
use crate::ids::{BotId, TrustId};
use crate::permissions::Role;
use crate::trust::{MAX_TRUSTS, NewTrust, Trust};

/// The result of adding a trust to a bot.
#[derive(Debug)]
pub enum TrustAdded {
    /// It was added.
    Done(Box<Trust>),
    /// There is no such bot.
    NotFound,
    /// The bot does not have this role.
    RoleNotHeld(Role),
    /// The bot has [`MAX_TRUSTS`] trusts.
    LimitReached,
    /// The caller's own rights changed in the meantime, so nothing was done.
    CallerChanged,
    /// The idempotency key was used before.
    Repeated(Repeat),
}

/// The result of removing a trust of a bot, or of ending its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BotTokensEnded {
    /// The tokens end at their next use.
    Done,
    /// There is no such bot or trust.
    NotFound,
    /// The caller's own rights changed in the meantime, so nothing was done.
    CallerChanged,
}

impl Store {
    /// A bot's trusts, oldest first.
    pub async fn trusts(&self, bot: &BotId) -> Result<Vec<Trust>, StoreError> {
        let (pk, prefix) = keys::trusts(bot);
        let most = usize::try_from(MAX_TRUSTS).unwrap_or(usize::MAX);
        let found: Vec<(String, Trust)> = self.query(Range::new(&pk, SortKeys::StartingWith(prefix)), most).await?;
        Ok(found.into_iter().map(|(_, trust)| trust).collect())
    }

    /// One trust of a bot.
    pub async fn trust(&self, bot: &BotId, id: &TrustId) -> Result<Option<Trust>, StoreError> {
        self.get(keys::trust(bot, id)).await
    }

    /// Adds a trust to a bot.
    pub async fn add_trust(
        &self,
        authority: Authority<'_>,
        bot: &BotId,
        new: NewTrust,
        caller: &Caller,
        once: Option<&Once>,
    ) -> Result<TrustAdded, StoreError> {
        let Some(stored) = self.bot(bot).await? else { return Ok(TrustAdded::NotFound) };
        let held = stored.roles();
        if let Some(role) = new.roles().iter().find(|role| !held.contains(*role)) {
            return Ok(TrustAdded::RoleNotHeld(*role));
        }
        let trust = new.stored(TrustId::new(&self.clock)?, self.clock.now(), caller.actor.clone());
        let entry = Entry::done(&self.clock, caller, "bot.add_trust", Subject::new(StoredBot::SUBJECT, bot))?
            .with_detail(trust.id.to_string());
        let mut transaction = self.transaction().persistent();
        let own_checks = transaction.require_authority(authority);
        // Before the bot: a repeat is one even if the limit was reached since.
        let made = Subject::new(Trust::SUBJECT, &trust.id);
        let key_used = transaction.once(&stored.org_id, once, caller, made);
        transaction.update(
            keys::bot(bot),
            "ADD #trust_count :one",
            "attribute_exists(pk) AND (attribute_not_exists(#trust_count) OR #trust_count < :most)",
            &[(":one", 1), (":most", MAX_TRUSTS)],
        );
        transaction.put_new(keys::trust(bot, &trust.id), &trust).audit(&stored.org_id, &entry);
        match transaction.commit().await? {
            Committed::Yes => Ok(TrustAdded::Done(Box::new(trust))),
            Committed::No(index) if index < own_checks => Ok(TrustAdded::CallerChanged),
            Committed::No(index) if Some(index) == key_used => {
                let repeat = self.repeated(&stored.org_id, once, caller).await?;
                repeat.map(TrustAdded::Repeated).ok_or(StoreError::Unavailable)
            }
            Committed::No(_) => Ok(match self.bot(bot).await? {
                Some(_) => TrustAdded::LimitReached,
                None => TrustAdded::NotFound,
            }),
        }
    }

    /// Removes a trust of a bot. The tokens that it admitted end at their next use.
    pub async fn remove_trust(
        &self,
        authority: Authority<'_>,
        bot: &BotId,
        id: &TrustId,
        caller: &Caller,
    ) -> Result<BotTokensEnded, StoreError> {
        let Some(stored) = self.bot(bot).await? else { return Ok(BotTokensEnded::NotFound) };
        let entry = Entry::done(&self.clock, caller, "bot.remove_trust", Subject::new(StoredBot::SUBJECT, bot))?
            .with_detail(id.to_string());
        let mut transaction = self.transaction().persistent();
        let own_checks = transaction.require_authority(authority);
        transaction.update(keys::bot(bot), "ADD #trust_count :one", "attribute_exists(pk)", &[(":one", -1)]);
        transaction.delete_existing(keys::trust(bot, id)).audit(&stored.org_id, &entry);
        Ok(ended(transaction.commit().await?, own_checks))
    }

    /// Ends every token by which CI acts as a bot, at its next use. New ones can be had at once.
    pub async fn end_bot_tokens(
        &self,
        authority: Authority<'_>,
        bot: &BotId,
        caller: &Caller,
    ) -> Result<BotTokensEnded, StoreError> {
        let Some(stored) = self.bot(bot).await? else { return Ok(BotTokensEnded::NotFound) };
        let entry = Entry::done(&self.clock, caller, "bot.end_tokens", Subject::new(StoredBot::SUBJECT, bot))?;
        let mut transaction = self.transaction().persistent();
        let own_checks = transaction.require_authority(authority);
        // The revision too: what such a token has asked for must not be done after this.
        let change = "ADD #token_generation :one, #revision :one";
        transaction.update(keys::bot(bot), change, "attribute_exists(pk)", &[(":one", 1)]);
        transaction.audit(&stored.org_id, &entry);
        Ok(ended(transaction.commit().await?, own_checks))
    }
}

fn ended(committed: Committed, own_checks: usize) -> BotTokensEnded {
    match committed {
        Committed::Yes => BotTokensEnded::Done,
        Committed::No(index) if index < own_checks => BotTokensEnded::CallerChanged,
        Committed::No(_) => BotTokensEnded::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::trust::Wanted;

    #[test]
    fn stored_item_matches_its_snapshot() {
        let claims = [("repository_owner_id", "123"), ("ref", "refs/heads/main")];
        let wanted = Wanted {
            issuer: "https://token.actions.githubusercontent.com".to_owned(),
            audience: "guard.example.com".to_owned(),
            claims: claims.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            roles: vec![Role::Owner],
            ..Wanted::default()
        };
        let id = TrustId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        let created_at = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        let trust = NewTrust::try_from(wanted).unwrap().stored(id, created_at, Subject::new("operator", "guardctl"));
        insta::assert_json_snapshot!(trust);
    }
}
