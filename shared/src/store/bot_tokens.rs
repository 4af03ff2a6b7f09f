//! Bot tokens: how CI acts as a bot for a while.
//!
//! A token is one item. It names the trust that admitted its job and the bot's generation of tokens;
//! each use reads bot and trust as well. It therefore ends at the next use after the bot is deleted,
//! the trust is removed or the generation has changed, without a write to any token, and it has no
//! more roles than bot and trust have then.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::audit::{Caller, Entry, Subject};
use super::bots::StoredBot;
use super::leaks::{Cause, Recipient};
use super::tokens::{Acting, BotToken, StoredToken};
use super::{Committed, Store, StoreError, keys};
use crate::clock::Moment;
use crate::ids::{AuditId, BotId, OrgId, TokenId};
use crate::secret::{Token, TokenHash, TokenKind};
use crate::trust::Trust;

/// How long the item of a token is kept after its end.
const KEPT: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Refused exchanges that the audit log names for each bot and hour. The others are one entry.
pub const REFUSALS_PER_HOUR: u64 = 60;

const HOUR: i64 = 60 * 60;

/// An ID token that may be exchanged once.
#[derive(Debug, Clone, Copy)]
pub struct IdToken<'a> {
    /// Its issuer.
    pub issuer: &'a str,
    /// What identifies it among those of its issuer.
    pub replay_id: &'a str,
    /// Until when it is accepted.
    pub accepted_until: Moment,
}

/// The item of an ID token that was exchanged.
#[derive(Serialize)]
struct Exchange {
    ttl: i64,
}

/// An item of a bot token, with its time to live.
#[derive(Serialize)]
struct Stored<'a> {
    #[serde(flatten)]
    token: &'a StoredToken,
    ttl: i64,
}

/// The result of exchanging an ID token.
#[derive(Debug)]
pub enum Exchanged {
    /// It was exchanged. The plain token is returned only here.
    Done(Box<BotToken>, Token),
    /// The ID token was exchanged before.
    Replayed,
}

impl BotToken {
    /// Whether it ends by itself, or was revoked.
    fn is_over(&self, now: Moment) -> bool {
        self.revoked_at.is_some() || self.expires_at <= now
    }
}

impl Store {
    /// Finds out what a job's token may do now.
    pub(super) async fn note_acting(&self, token: &mut BotToken) -> Result<(), StoreError> {
        token.acting = None;
        if token.is_over(self.clock.now()) {
            return Ok(());
        }
        let (bot, trust) = futures::try_join!(self.bot(&token.bot_id), self.trust(&token.bot_id, &token.trust_id))?;
        if let (Some(bot), Some(trust)) = (bot, trust)
            && bot.token_generation == token.generation
        {
            let roles = trust.roles_of(&bot.roles());
            token.acting = Some(Acting { roles, may_mint_longer: trust.may_mint_longer, revision: bot.revision });
        }
        Ok(())
    }

    /// Exchanges an ID token for a token of this bot. `bot` and `trust` are as they were read: if one
    /// has gone since, or the bot's tokens were ended, the token is never active.
    pub async fn exchange(
        &self,
        bot: &StoredBot,
        trust: &Trust,
        id_token: IdToken<'_>,
        expires_at: Moment,
        caller: &Caller,
    ) -> Result<Exchanged, StoreError> {
        let plain = Token::generate(TokenKind::Bot)?;
        let token = BotToken {
            id: TokenId::new(&self.clock)?,
            org_id: bot.org_id.clone(),
            bot_id: bot.id.clone(),
            trust_id: trust.id.clone(),
            generation: bot.token_generation,
            subject: caller.workload.clone().unwrap_or_default(),
            created_at: self.clock.now(),
            expires_at,
            revoked_at: None,
            revoked_by: None,
            acting: None,
        };
        let used = Exchange { ttl: id_token.accepted_until.epoch_seconds() };
        let entry = Entry::done(&self.clock, caller, "bot.exchange", Subject::new(BotToken::SUBJECT, &token.id))?;
        let ttl = expires_at.plus(KEPT).epoch_seconds();
        let mut transaction = self.transaction();
        transaction.put_new(keys::exchanged_id_token(&identity(id_token)), &used);
        let stored = StoredToken::Bot(token.clone());
        transaction.put_new(keys::token(plain.hash()), &Stored { token: &stored, ttl });
        match transaction.audit(&bot.org_id, &entry).commit().await? {
            Committed::Yes => Ok(Exchanged::Done(Box::new(token), plain)),
            Committed::No(0) => Ok(Exchanged::Replayed),
            // A collision of 214 random bits: the generator is broken.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// Ends a bot token. False if there is no such token, or it was revoked before.
    pub(super) async fn end_bot_token(
        &self,
        token: &BotToken,
        hash: TokenHash,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let subject = Subject::new(BotToken::SUBJECT, &token.id);
        let entry = cause.entry(&self.clock, caller, BotToken::SUBJECT, subject)?;
        let mut transaction = self.transaction().persistent();
        transaction.update(
            keys::token(hash),
            "SET #revoked_at = :now, #revoked_by = :by",
            "attribute_exists(pk) AND attribute_not_exists(#revoked_at)",
            &self.revocation(caller)?,
        );
        let recipient = Recipient::Org(token.org_id.clone());
        transaction.audit(&token.org_id, &entry).tell(cause, hash, &recipient, None, &entry);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// Records that an exchange for a bot was refused: once an hour for each workload, and at most
    /// [`REFUSALS_PER_HOUR`] times an hour. All others of the hour share one entry with their count.
    /// `why` names the claim that did not match, never its value.
    pub async fn record_refused_exchange(
        &self,
        org: &OrgId,
        bot: &BotId,
        why: String,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let now = self.clock.now().epoch_seconds();
        let (hour, end) = (now / HOUR, Some((now / HOUR + 1) * HOUR));
        let workload = caller.workload.as_deref().unwrap_or_default();
        let workload = hex::encode(Sha256::digest(workload));
        if self.count(keys::refused_exchanges(bot, &workload, hour), "count", end).await? > 1 {
            return Ok(());
        }
        let subject = Subject::new(StoredBot::SUBJECT, bot);
        let entry = Entry::done(&self.clock, caller, "bot.exchange", subject)?.refused();
        if self.count(keys::all_refused_exchanges(bot, hour), "count", end).await? <= REFUSALS_PER_HOUR {
            return self.record_refusal(org, &entry.with_detail(why)).await;
        }
        // The same entry for the rest of the hour.
        let id = AuditId::in_hour(hour, &format!("refused exchanges of {bot}"));
        let entry = Entry { id: id.clone(), count: Some(1), workload: None, source_ip: None, ..entry };
        let entry = entry.with_detail("further workloads of this hour".to_owned());
        let log = org.into();
        if self
            .transaction()
            .put_new(keys::audit_entry(&log, &id), &super::audit::stored(&log, &entry))
            .commit()
            .await?
            == Committed::Yes
        {
            return Ok(());
        }
        let values = [(":one", 1)];
        self.update(keys::audit_entry(&log, &id), "ADD #count :one", "attribute_exists(pk)", &values).await.map(|_| ())
    }

    /// Reads a job's token again, as it is now.
    pub(super) async fn bot_token_again(&self, hash: TokenHash) -> Result<Option<BotToken>, StoreError> {
        match self.stored_token(hash).await? {
            Some(StoredToken::Bot(mut token)) => {
                self.note_acting(&mut token).await?;
                Ok(Some(token))
            }
            _ => Ok(None),
        }
    }
}

/// Identifies an ID token among those of all issuers.
fn identity(id_token: IdToken<'_>) -> String {
    // No issuer contains a space.
    hex::encode(Sha256::digest(format!("{} {}", id_token.issuer, id_token.replay_id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TrustId;

    #[test]
    fn stored_items_match_their_snapshots() {
        let at = |text| Moment::parse(text).unwrap();
        let token = StoredToken::Bot(BotToken {
            id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            org_id: OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            bot_id: BotId::parse("BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            trust_id: TrustId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
            generation: 0,
            subject: "repo:acme/widgets:ref:refs/heads/main".to_owned(),
            created_at: at("2026-11-21T10:00:00Z"),
            expires_at: at("2026-11-21T10:30:00Z"),
            revoked_at: None,
            revoked_by: None,
            acting: None,
        });
        insta::assert_json_snapshot!("token", Stored { token: &token, ttl: 1_797_071_400 });
        insta::assert_json_snapshot!("exchange", Exchange { ttl: 1_795_861_860 });
    }

    #[test]
    fn id_tokens_of_two_issuers_never_share_an_identity() {
        let until = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        let of = |issuer, replay_id| identity(IdToken { issuer, replay_id, accepted_until: until });
        assert_ne!(of("https://a.example.com", "00"), of("https://b.example.com", "00"));
        assert_ne!(of("https://a.example.com", "00"), of("https://a.example.com", "01"));
    }
}
