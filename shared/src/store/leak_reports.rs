//! Reports of leaked tokens: what each token is, who decides about it, and its end.
//!
//! A report may name tokens of every kind, sessions, and API keys of bots, in any state. What is not
//! revoked yet ends, unless its organization has decided to be told only; what belongs to no
//! organization always ends. [`super::leaks`] holds what is told, and to whom.
//!
//! Each token is a transaction of its own. A report that fails has ended some, and a repeat does the
//! rest.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use serde::de::DeserializeOwned;

use super::audit::{Caller, Subject};
use super::bots::StoredBot;
use super::keys::{self, Key};
use super::leaks::{Cause, Mark, Place, Recipient, leak_entry};
use super::sessions::Session;
use super::tokens::{AnyToken, BotApiKey, StoredToken};
use super::{Committed, Located, Store, StoreError};
use crate::domain::LeakPolicy;
use crate::ids::OrgId;
use crate::secret::{Token, TokenHash, TokenKind};

/// Maximum tokens in one report.
pub const MAX_REPORTED: usize = 1_000;

/// Tokens per read, and transactions at the same time.
const BATCH: usize = 100;
const CONCURRENCY: usize = 16;

/// A reported token.
#[derive(Debug, Clone)]
pub struct Reported {
    /// The token.
    pub token: Token,
    /// Where it was found, if that is known.
    pub place: Option<Place>,
}

/// What a report has done.
#[derive(Debug)]
pub struct Report {
    /// Whether each token, in the order of the report, is stored, or was until a report ended it.
    pub known: Vec<bool>,
    /// Who is to be told.
    pub recipients: BTreeSet<Recipient>,
    /// The error, if a token could not be decided. What was done is done, and a repeat does the rest.
    pub result: Result<(), StoreError>,
}

/// What is stored under the hash of a reported token.
enum Leaked {
    Token(Box<StoredToken>),
    BotApiKey(BotApiKey),
    Session(Session),
}

impl Leaked {
    /// The organization that decides about it; `None` if it belongs to none.
    fn org_id(&self) -> Option<&OrgId> {
        match self {
            Leaked::Token(token) => token.org_id(),
            Leaked::BotApiKey(key) => Some(&key.org_id),
            Leaked::Session(_) => None,
        }
    }

    /// Whether it was revoked before. What was deleted is not stored.
    fn is_revoked(&self) -> bool {
        let Leaked::Token(token) = self else { return false };
        match &**token {
            StoredToken::ApiKey(token) => token.revoked_at.is_some(),
            StoredToken::Bot(token) => token.revoked_at.is_some(),
            StoredToken::OrgUser(token) => token.revoked_at.is_some(),
            StoredToken::EmailVerified(_) | StoredToken::OrgAccess(_) => false,
        }
    }

    /// The name of its kind, and what audit entries say is acted on.
    fn subject(&self) -> (&'static str, Subject) {
        match self {
            Leaked::Token(token) => (token.kind_name(), Subject::new(token.kind_name(), token.id())),
            Leaked::BotApiKey(key) => (BotApiKey::SUBJECT, Subject::new(StoredBot::SUBJECT, &key.bot_id)),
            Leaked::Session(session) => (Session::SUBJECT, Subject::new(Session::SUBJECT, &session.id)),
        }
    }
}

/// The key of what a token or the secret of a session opens.
fn key_of(token: &Token) -> Key {
    match token.kind() {
        TokenKind::Session => keys::session(token.hash()),
        _ => keys::token(token.hash()),
    }
}

/// These keys, each once: DynamoDB refuses a key that is named twice.
fn distinct(keys: impl Iterator<Item = Key>) -> Vec<Key> {
    keys.map(|key| (key.pk.clone(), key)).collect::<BTreeMap<_, _>>().into_values().collect()
}

impl Store {
    /// Ends the reported tokens, or has their organizations told, as those have decided. A token that
    /// was reported twice counts once.
    pub async fn report_leaks(&self, reported: &[Reported], caller: &Caller) -> Report {
        // By the key in the table, with the place that is known.
        let mut places: BTreeMap<String, (TokenHash, Option<Place>)> = BTreeMap::new();
        for Reported { token, place } in reported {
            let known = places.entry(key_of(token).pk).or_insert((token.hash(), None));
            known.1 = known.1.take().or_else(|| place.clone());
        }
        let (found, mut result) = self.leaked(reported).await;
        let policies = match self.leak_policies(found.values().filter_map(Leaked::org_id)).await {
            Ok(policies) => policies,
            Err(error) => {
                result = Err(error);
                BTreeMap::new()
            }
        };
        let known = reported.iter().map(|reported| found.contains_key(&key_of(&reported.token).pk)).collect();
        let mut decided: Vec<(Leaked, LeakPolicy, TokenHash, Option<Place>)> = Vec::with_capacity(found.len());
        for (pk, leaked) in found {
            let policy = match leaked.org_id() {
                None => Some(LeakPolicy::Revoke),
                Some(org) => policies.get(org).copied(),
            };
            if let (Some(policy), Some((hash, place)), false) = (policy, places.get(&pk), leaked.is_revoked()) {
                decided.push((leaked, policy, *hash, place.clone()));
            }
        }
        let ended = stream::iter(decided).map(|(leaked, policy, hash, place)| async move {
            match (policy, leaked.org_id()) {
                (LeakPolicy::TellOnly, Some(org)) => self.tell_only(&leaked, org, hash, place.as_ref(), caller).await,
                _ => self.end_leaked(&leaked, hash, place.as_ref(), caller).await,
            }
        });
        let mut recipients = BTreeSet::new();
        for outcome in ended.buffer_unordered(CONCURRENCY).collect::<Vec<_>>().await {
            match outcome {
                Ok(recipient) => recipients.extend(recipient),
                Err(error) => result = Err(error),
            }
        }
        Report { known, recipients, result }
    }

    /// What is stored under the hashes of reported tokens, by partition.
    async fn leaked(&self, reported: &[Reported]) -> (BTreeMap<String, Leaked>, Result<(), StoreError>) {
        let is_session = |reported: &&Reported| reported.token.kind() == TokenKind::Session;
        let (sessions, tokens): (Vec<&Reported>, Vec<&Reported>) = reported.iter().partition(is_session);
        let ((sessions, first), (tokens, second)) =
            futures::join!(self.located::<Session>(&sessions), self.located::<AnyToken>(&tokens));
        let sessions = sessions.into_iter().map(|(pk, session)| (pk, Leaked::Session(session)));
        let tokens = tokens.into_iter().filter_map(|(pk, token)| {
            let leaked = match token {
                AnyToken::BotApiKey(key) => Leaked::BotApiKey(key),
                other => Leaked::Token(Box::new(other.known()?)),
            };
            Some((pk, leaked))
        });
        (sessions.chain(tokens).collect(), first.and(second))
    }

    async fn located<T: DeserializeOwned>(&self, reported: &[&Reported]) -> (Vec<(String, T)>, Result<(), StoreError>) {
        let keys = distinct(reported.iter().map(|reported| key_of(&reported.token)));
        let (mut found, mut result) = (Vec::new(), Ok(()));
        for keys in keys.chunks(BATCH) {
            match self.get_all::<Located<T>>(keys.to_vec()).await {
                Ok(items) => found.extend(items.into_iter().map(|Located { pk, item }| (pk, item))),
                Err(error) => result = Err(error),
            }
        }
        (found, result)
    }

    /// What these organizations have decided about leaked tokens.
    async fn leak_policies(
        &self,
        orgs: impl Iterator<Item = &OrgId>,
    ) -> Result<BTreeMap<OrgId, LeakPolicy>, StoreError> {
        let ids: Vec<OrgId> = orgs.collect::<BTreeSet<_>>().into_iter().cloned().collect();
        // One that is not stored, or has decided what this version does not know, has not decided.
        let mut policies: BTreeMap<OrgId, LeakPolicy> = BTreeMap::new();
        for ids in ids.chunks(BATCH) {
            policies.extend(ids.iter().map(|id| (id.clone(), LeakPolicy::default())));
            for org in self.orgs_with(ids.iter().cloned()).await? {
                policies.insert(org.id, org.leaked.known().unwrap_or_default());
            }
        }
        Ok(policies)
    }

    /// Ends a leaked token. Returns who is to be told; `None` if it ended in the meantime.
    async fn end_leaked(
        &self,
        leaked: &Leaked,
        hash: TokenHash,
        place: Option<&Place>,
        caller: &Caller,
    ) -> Result<Option<Recipient>, StoreError> {
        let cause = Cause::Leaked(place);
        let (ended, recipient) = match leaked {
            Leaked::Token(token) => {
                let recipient = match &**token {
                    StoredToken::EmailVerified(token) => Recipient::at(token.address),
                    StoredToken::ApiKey(_)
                    | StoredToken::Bot(_)
                    | StoredToken::OrgAccess(_)
                    | StoredToken::OrgUser(_) => Recipient::Org(token.org_id().ok_or(StoreError::Defect)?.clone()),
                };
                (self.end_token(token, hash, cause, caller).await?, recipient)
            }
            Leaked::BotApiKey(key) => {
                let ended = self.end_bot_api_key(&key.bot_id, hash, cause, caller).await?;
                (ended, Recipient::Org(key.org_id.clone()))
            }
            Leaked::Session(session) => {
                let ended = self.end_leaked_session(session, hash, cause, caller).await?;
                (ended, Recipient::at(session.email.hash()))
            }
        };
        Ok(ended.then_some(recipient))
    }

    /// Ends a token of any kind. False if it ended before.
    async fn end_token(
        &self,
        token: &StoredToken,
        hash: TokenHash,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        match token {
            StoredToken::ApiKey(key) => self.end_api_key(key, hash, cause, caller).await,
            StoredToken::Bot(token) => self.end_bot_token(token, hash, cause, caller).await,
            StoredToken::EmailVerified(token) => self.end_email_token(token, hash, cause, caller).await,
            StoredToken::OrgAccess(token) => self.end_org_access_token(&token.org_id, token.id, cause, caller).await,
            StoredToken::OrgUser(token) => self.end_org_user_token(token, hash, cause, caller).await,
        }
    }

    /// Ends a token at the wish of its holder. False if it ended before.
    pub async fn revoke_own_token(
        &self,
        token: &StoredToken,
        hash: TokenHash,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        self.end_token(token, hash, Cause::Own, caller).await
    }

    /// Leaves a leaked token as it is and has its organization told, once in 24 hours. Returns who is
    /// to be told, unless that was done before.
    async fn tell_only(
        &self,
        leaked: &Leaked,
        org: &OrgId,
        hash: TokenHash,
        place: Option<&Place>,
        caller: &Caller,
    ) -> Result<Option<Recipient>, StoreError> {
        let now = self.clock.now();
        let mark: Option<Mark> = self.get(keys::leak_mark(hash)).await?;
        if mark.is_some_and(|mark| now.epoch_seconds() < mark.ttl) {
            return Ok(None);
        }
        let (kind, subject) = leaked.subject();
        let entry = leak_entry(&self.clock, caller, kind, subject, place, "not revoked, told only: found")?;
        let recipient = Recipient::Org(org.clone());
        let mut transaction = self.transaction();
        transaction
            .put_where(
                keys::leak_mark(hash),
                &Mark::at(now),
                "attribute_not_exists(pk) OR #ttl <= :now",
                &[(":now", now.epoch_seconds())],
            )
            .audit(org, &entry)
            .leave_notice(place, false, &recipient, None, &entry);
        Ok((transaction.commit().await? == Committed::Yes).then_some(recipient))
    }

    /// Which of these tokens were reported in the last 24 hours, by the place in the list. Their items
    /// may be gone.
    pub async fn reported_before(&self, tokens: &[&Token]) -> Result<Vec<bool>, StoreError> {
        let mut marked: BTreeSet<String> = BTreeSet::new();
        let keys = distinct(tokens.iter().map(|token| keys::leak_mark(token.hash())));
        for keys in keys.chunks(BATCH) {
            let found: Vec<Located<Mark>> = self.get_all(keys.to_vec()).await?;
            marked.extend(found.into_iter().map(|mark| mark.pk));
        }
        Ok(tokens.iter().map(|token| marked.contains(&keys::leak_mark(token.hash()).pk)).collect())
    }
}
