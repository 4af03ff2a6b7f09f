//! Email-verified tokens and the states of an email address.
//!
//! | state | event | next state | effect |
//! |---|---|---|---|
//! | no token | register | token | welcome mail with a new token |
//! | token, with or without code | register | token and code | recovery mail with a new reset code |
//! | token, with or without code | regenerate | unchanged | new token, *key changed* mail |
//! | token and code | reset | token | new token, *key changed* mail |
//! | token and code | the code expires | token | |
//! | token, with or without code | revoke | no token | |
//! | token that was never used for 30 days | register | token | welcome mail with a new token |
//!
//! An address with a token is one item: the email address and the hashes of the token and the reset
//! code. The token itself is an item under its hash, like every token. Each transition is one
//! transaction over both items, conditional on the token (and code) it started from. Of two
//! concurrent transitions one wins and the other starts over.
//!
//! The holder's own revocation also leaves an erasure to do, see [`super::erasures`]. Other
//! revocations do not.
//!
//! Only the holder of the token or the reader of the mail can change or revoke the token.
//! Registering someone else's address sends them a mail, at most [`MAILS_PER_HOUR`] an hour, and
//! changes nothing else for them.
//!
//! Mail is sent after the transaction. If the welcome mail was definitely not sent, the
//! registration is undone and the next call sends a new one. If that is unknown, the token stays
//! and the next call sends the recovery mail. Likewise, a code is replaced only by a newer one
//! whose mail may have been sent. Retrying therefore always leads to a token, and a mailed token is
//! always active.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Subject};
use super::keys;
use super::keys::Log;
use super::leaks::{self, Cause, Contact};
use super::mail_limits::Recipient;
use super::tokens::{EmailToken, StoredToken};
use super::{Committed, Condition, Store, StoreError, Transaction};
use crate::clock::Moment;
use crate::email::{AddressHash, EmailAddress, Language};
use crate::ids::TokenId;
use crate::secret::{MailedCode, Token, TokenHash, TokenKind};

/// Maximum mails per address and hour, not counting *key changed* mails.
pub const MAILS_PER_HOUR: u64 = 5;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// How long a reset code is valid.
pub const CODE_LIFETIME: Duration = HOUR;

/// A stored address that has a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address in the spelling of the first registration, whatever later calls use.
    pub email: EmailAddress,
    /// The language of mails, unless a request specifies another.
    #[serde(deserialize_with = "Language::stored")]
    pub language: Language,
    /// The hash of the token.
    token: TokenHash,
    /// The management ID of the token.
    token_id: TokenId,
    /// The most recent reset code, until it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<StoredCode>,
}

/// A stored reset code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCode {
    hash: TokenHash,
    expires_at: Moment,
    /// The language of mails once the code is used.
    #[serde(deserialize_with = "Language::stored")]
    language: Language,
}

/// The pointer from a token's ID to its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    address: AddressHash,
}

/// The number of mails sent to an address within one hour of the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mails {
    count: u64,
    /// When the hour ends, in seconds since the Unix epoch.
    ttl: i64,
}

/// The mail to send after a registration.
#[derive(Debug)]
pub enum Registration {
    /// A token, for an address that had none.
    Welcome {
        /// The recipient.
        to: EmailAddress,
        /// The language of the mail.
        language: Language,
        /// The token.
        token: Token,
        /// Its ID.
        id: TokenId,
    },
    /// A reset code, for an address that has a token.
    Recovery {
        /// The recipient, in the spelling of the first registration.
        to: EmailAddress,
        /// The language of the mail.
        language: Language,
        /// The reset code.
        code: MailedCode,
        /// The code that it replaced.
        before: Option<StoredCode>,
    },
    /// No mail: the address has reached its hourly limit.
    Limited,
}

/// A token that replaced another one.
#[derive(Debug)]
pub struct Replaced {
    /// The new token as stored.
    pub stored: EmailToken,
    /// The new token.
    pub token: Token,
    /// The recipient of the *key changed* mail.
    pub to: EmailAddress,
    /// The language of the mail.
    pub language: Language,
}

/// A token that its holder has revoked.
#[derive(Debug)]
pub struct Removed {
    /// Its ID.
    pub id: TokenId,
    /// The recipient of the *key removed* mail.
    pub to: EmailAddress,
    /// The language of the mail.
    pub language: Language,
    /// When it was revoked.
    pub at: Moment,
    /// When what it has left is erased.
    pub erased_at: Moment,
}

impl Store {
    /// What registering this address now would send; `None` if the address has reached its limit.
    /// Asked before the mail is counted.
    pub async fn recipient(&self, address: AddressHash) -> Result<Option<Recipient>, StoreError> {
        let (stored, mails) =
            futures::try_join!(self.stored_address(address), self.get::<Mails>(keys::address_mails(address)))?;
        let recipient = if matches!(stored, Stored::Active(_)) { Recipient::Known } else { Recipient::New };
        Ok(self.next_mail_count(mails.as_ref()).map(|_| recipient))
    }

    /// Registers an address. The caller sends the returned mail and calls [`Store::mail_failed`] if
    /// that fails.
    pub async fn register(
        &self,
        email: &EmailAddress,
        language: Option<Language>,
        caller: &Caller,
    ) -> Result<Registration, StoreError> {
        let hash = email.hash();
        for _ in 0..MAX_ATTEMPTS {
            let (address, mails) =
                futures::try_join!(self.stored_address(hash), self.get::<Mails>(keys::address_mails(hash)),)?;
            let Some(counted) = self.next_mail_count(mails.as_ref()) else { return Ok(Registration::Limited) };
            let mut transaction = self.transaction();
            match &mails {
                None => transaction.put_new(keys::address_mails(hash), &counted),
                Some(mails) => transaction.put_where(
                    keys::address_mails(hash),
                    &counted,
                    "#count = :count AND #ttl = :ttl",
                    &[(":count", json(&mails.count)?), (":ttl", json(&mails.ttl)?)],
                ),
            };
            let registration = match address {
                Stored::Missing | Stored::Ended(_) => {
                    let language = language.unwrap_or_default();
                    let token = Token::generate(TokenKind::EmailVerified)?;
                    let stored = self.new_email_token(&token, hash, false)?;
                    let id = stored.id.clone();
                    let new = Address {
                        email: email.clone(),
                        language,
                        token: token.hash(),
                        token_id: stored.id.clone(),
                        code: None,
                    };
                    let entry = self.email_token_entry(caller, "register", &stored.id)?;
                    match address {
                        Stored::Ended(old) => transaction
                            .put_where(keys::address(hash), &new, "#token = :old", &[(":old", old.token)])
                            // Fails if its first use, made in time, was recorded late.
                            .delete_if(keys::token(old.token), Condition::plain("attribute_not_exists(last_used_at)"))
                            .delete(keys::email_token_by_id(&old.token_id)),
                        _ => transaction.put_new(keys::address(hash), &new),
                    };
                    transaction
                        .put_new(keys::email_token_by_id(&stored.id), &Pointer { address: hash })
                        .put_new(keys::token(token.hash()), &StoredToken::EmailVerified(stored))
                        .audit(Log::Address(hash), &entry);
                    Registration::Welcome { to: email.clone(), language, token, id }
                }
                Stored::Active(address) => {
                    let language = language.unwrap_or(address.language);
                    let code = MailedCode::generate()?;
                    let expires_at = self.clock.now().plus(CODE_LIFETIME);
                    let stored = StoredCode { hash: code.hash(), expires_at, language };
                    let entry = self.email_token_entry(caller, "register", &address.token_id)?;
                    transaction
                        .update(
                            keys::address(hash),
                            "SET #code = :code",
                            "#token = :token",
                            &[(":code", json(&stored)?), (":token", json(&address.token)?)],
                        )
                        .audit(Log::Address(hash), &entry);
                    Registration::Recovery { to: address.email, language, code, before: address.code }
                }
            };
            if transaction.commit().await? == Committed::Yes {
                return Ok(registration);
            }
        }
        Err(StoreError::Unavailable)
    }

    /// Undoes a registration whose mail failed. Only if the mail was definitely not sent
    /// (`definitely_not_sent`), the token is deleted, so that the next registration creates
    /// another, or the previous code is restored.
    pub async fn mail_failed(
        &self,
        email: &EmailAddress,
        registration: &Registration,
        definitely_not_sent: bool,
    ) -> Result<(), StoreError> {
        let hash = email.hash();
        if definitely_not_sent {
            let mut transaction = self.transaction();
            match registration {
                Registration::Welcome { token, id, .. } => {
                    // If there is a code, a later registration has mailed this address: keep its
                    // token.
                    let condition = "#token = :token AND attribute_not_exists(#code)";
                    transaction
                        .delete_where(keys::address(hash), condition, &[(":token", token.hash())])
                        .delete(keys::token(token.hash()))
                        .delete(keys::email_token_by_id(id))
                }
                Registration::Recovery { code, before, .. } => {
                    let mut values = vec![(":code", json(&code.hash())?)];
                    let expression = match before {
                        Some(before) => {
                            values.push((":before", json(before)?));
                            "SET #code = :before"
                        }
                        None => "REMOVE #code",
                    };
                    transaction.update(keys::address(hash), expression, "#code.#hash = :code", &values)
                }
                Registration::Limited => return Ok(()),
            };
            let _undone = transaction.commit().await?;
        }
        let values = [(":one", 1), (":zero", 0)];
        let mails = keys::address_mails(hash);
        let _refunded = self.update(mails, "SET #count = #count - :one", "#count > :zero", &values).await?;
        Ok(())
    }

    /// Replaces this token with a new one. `None` if it is no longer active. Of concurrent callers,
    /// one wins.
    pub async fn regenerate(
        &self,
        old: &EmailToken,
        hash: TokenHash,
        caller: &Caller,
    ) -> Result<Option<Replaced>, StoreError> {
        let address: Option<Address> = self.get(keys::address(old.address)).await?;
        let Some(address) = address.filter(|address| address.token == hash) else { return Ok(None) };
        let token = Token::generate(TokenKind::EmailVerified)?;
        let stored = self.new_email_token(&token, old.address, true)?;
        let entry = self.email_token_entry(caller, "regenerate", &stored.id)?;
        let mut transaction = self.transaction();
        transaction
            .update(
                keys::address(old.address),
                "SET #token = :new, #token_id = :id",
                "#token = :old",
                &[(":new", json(&token.hash())?), (":id", json(&stored.id)?), (":old", json(&hash)?)],
            )
            .delete_existing(keys::token(hash))
            .put_new(keys::token(token.hash()), &StoredToken::EmailVerified(stored.clone()))
            .delete(keys::email_token_by_id(&old.id))
            .put_new(keys::email_token_by_id(&stored.id), &Pointer { address: old.address })
            .audit(Log::Address(old.address), &entry);
        let won = transaction.commit().await? == Committed::Yes;
        Ok(won.then_some(Replaced { stored, token, to: address.email, language: address.language }))
    }

    /// Uses a reset code to replace the address's token. `None` if the code is invalid in any way.
    pub async fn reset(
        &self,
        email: &EmailAddress,
        code: &MailedCode,
        caller: &Caller,
    ) -> Result<Option<Replaced>, StoreError> {
        let hash = email.hash();
        for _ in 0..MAX_ATTEMPTS {
            let address: Option<Address> = self.get(keys::address(hash)).await?;
            let Some(address) = address else { return Ok(None) };
            let now = self.clock.now();
            // Compared in constant time (see `TokenHash`).
            let live = address.code.as_ref().filter(|live| (live.hash == code.hash()) & (now < live.expires_at));
            let Some(live) = live else { return Ok(None) };
            let token = Token::generate(TokenKind::EmailVerified)?;
            let stored = self.new_email_token(&token, hash, true)?;
            let entry = self.email_token_entry(caller, "reset", &stored.id)?;
            let mut transaction = self.transaction();
            transaction
                .update(
                    keys::address(hash),
                    "SET #token = :new, #token_id = :id, #language = :language REMOVE #code",
                    "#token = :old AND #code.#hash = :code",
                    &[
                        (":new", json(&token.hash())?),
                        (":id", json(&stored.id)?),
                        (":language", json(&live.language)?),
                        (":old", json(&address.token)?),
                        (":code", json(&live.hash)?),
                    ],
                )
                .delete_existing(keys::token(address.token))
                .put_new(keys::token(token.hash()), &StoredToken::EmailVerified(stored.clone()))
                .delete(keys::email_token_by_id(&address.token_id))
                .put_new(keys::email_token_by_id(&stored.id), &Pointer { address: hash })
                .audit(Log::Address(hash), &entry);
            if transaction.commit().await? == Committed::Yes {
                return Ok(Some(Replaced { stored, token, to: address.email, language: live.language }));
            }
            // The token was regenerated or the code was used in the meantime: read again.
        }
        Err(StoreError::Unavailable)
    }

    /// Deletes a token and its address, including a pending reset code. False if the token is no
    /// longer active.
    pub async fn revoke_email_token(
        &self,
        token: &EmailToken,
        hash: TokenHash,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        self.end_email_token(token, hash, Cause::Asked("revoke"), caller).await
    }

    /// Ends a token: like [`Self::revoke_email_token`], whatever the cause.
    pub(super) async fn end_email_token(
        &self,
        token: &EmailToken,
        hash: TokenHash,
        cause: Cause<'_>,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let subject = Subject::new(EmailToken::SUBJECT, &token.id);
        let entry = cause.entry(&self.clock, caller, EmailToken::SUBJECT, subject)?;
        let contact = match cause {
            Cause::Asked(_) | Cause::Own => None,
            // The transaction deletes the address.
            Cause::Leaked(_) => {
                let Some(Address { email, language, .. }) = self.address_of(token).await? else { return Ok(false) };
                Some(Contact { email, language })
            }
        };
        let mut transaction = self.revocation_of(token, hash, &entry);
        transaction.tell(cause, hash, &leaks::Recipient::at(token.address), contact, &entry);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// Like [`Self::revoke_email_token`] for the holder, who also wants what is left to be erased.
    /// `None` if the token is no longer active.
    pub async fn remove_email_token(
        &self,
        token: &EmailToken,
        hash: TokenHash,
        caller: &Caller,
    ) -> Result<Option<Removed>, StoreError> {
        let Some(address) = self.address_of(token).await? else { return Ok(None) };
        let entry = self.email_token_entry(caller, "revoke", &token.id)?;
        let mut transaction = self.revocation_of(token, hash, &entry);
        let erased_at = transaction.leave_erasure(token, &entry);
        let removed = transaction.commit().await? == Committed::Yes;
        let Address { email: to, language, .. } = address;
        Ok(removed.then_some(Removed { id: token.id.clone(), to, language, at: entry.at, erased_at }))
    }

    fn revocation_of(&self, token: &EmailToken, hash: TokenHash, entry: &Entry) -> Transaction<'_> {
        let mut transaction = self.transaction().persistent();
        transaction
            .delete_where(keys::address(token.address), "#token = :token", &[(":token", hash)])
            .delete_existing(keys::token(hash))
            .delete(keys::email_token_by_id(&token.id))
            .audit(Log::Address(token.address), entry);
        transaction
    }

    /// Deletes the token with this ID, like [`Self::revoke_email_token`]. False if there is none.
    /// Only for the operator.
    pub async fn revoke_email_token_by_id(&self, id: &TokenId, caller: &Caller) -> Result<bool, StoreError> {
        let Some(Pointer { address }) = self.get(keys::email_token_by_id(id)).await? else { return Ok(false) };
        let stored: Option<Address> = self.get(keys::address(address)).await?;
        let Some(stored) = stored.filter(|stored| stored.token_id == *id) else { return Ok(false) };
        let token: Option<StoredToken> = self.get(keys::token(stored.token)).await?;
        match token {
            // False if the token was replaced or revoked in the meantime: then it is gone.
            Some(StoredToken::EmailVerified(token)) => self.revoke_email_token(&token, stored.token, caller).await,
            _ => Ok(false),
        }
    }

    /// The address that a token belongs to. `None` if it was replaced or revoked in the meantime.
    pub async fn address_of(&self, token: &EmailToken) -> Result<Option<Address>, StoreError> {
        let address: Option<Address> = self.get(keys::address(token.address)).await?;
        Ok(address.filter(|address| address.token_id == token.id))
    }

    /// The ID of the token that this address has now, if any.
    pub(super) async fn token_at(&self, address: AddressHash) -> Result<Option<TokenId>, StoreError> {
        let address: Option<Address> = self.get(keys::address(address)).await?;
        Ok(address.map(|address| address.token_id))
    }

    /// Reads an address and whether its token is active.
    async fn stored_address(&self, hash: AddressHash) -> Result<Stored, StoreError> {
        let Some(address) = self.get::<Address>(keys::address(hash)).await? else { return Ok(Stored::Missing) };
        let token: Option<StoredToken> = self.get(keys::token(address.token)).await?;
        Ok(match token {
            Some(token) if token.is_active(self.clock.now()) => Stored::Active(address),
            // The token is missing only if it was replaced in between: the transaction then fails.
            _ => Stored::Ended(address),
        })
    }

    /// The mail count plus one; `None` if the hourly limit is reached.
    fn next_mail_count(&self, mails: Option<&Mails>) -> Option<Mails> {
        let now = self.clock.now();
        match mails {
            Some(mails) if now.epoch_seconds() < mails.ttl => {
                (mails.count < MAILS_PER_HOUR).then_some(Mails { count: mails.count + 1, ttl: mails.ttl })
            }
            // The hour is over, even if TTL has not deleted the item yet.
            _ => Some(Mails { count: 1, ttl: now.plus(HOUR).epoch_seconds() }),
        }
    }

    fn new_email_token(&self, token: &Token, address: AddressHash, confirmed: bool) -> Result<EmailToken, StoreError> {
        Ok(EmailToken {
            id: TokenId::new(&self.clock)?,
            address,
            token_prefix: token.shown_prefix(),
            created_at: self.clock.now(),
            confirmed,
            last_used_at: None,
        })
    }

    fn email_token_entry(&self, caller: &Caller, verb: &str, id: &TokenId) -> Result<Entry, StoreError> {
        Ok(Entry::done(
            &self.clock,
            caller,
            &format!("{}.{verb}", EmailToken::SUBJECT),
            Subject::new(EmailToken::SUBJECT, id),
        )?)
    }
}

/// What is stored of an address.
enum Stored {
    /// Nothing.
    Missing,
    /// It has an active token.
    Active(Address),
    /// Its token was never used and has ended.
    Ended(Address),
}

/// Maximum attempts of a call that loses races, before it fails as retryable.
const MAX_ATTEMPTS: usize = 8;

fn json<T: Serialize>(value: &T) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|_| StoreError::Defect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_items_match_their_snapshots() {
        let email = EmailAddress::try_from("You@example.com".to_owned()).unwrap();
        let moment = |text| Moment::parse(text).unwrap();
        let hash = TokenHash::from_hex(&"ab".repeat(32)).unwrap();
        let id = TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        insta::assert_json_snapshot!(
            "email_token",
            StoredToken::EmailVerified(EmailToken {
                id: id.clone(),
                address: email.hash(),
                token_prefix: "tg_anon_a1B2".to_owned(),
                created_at: moment("2026-11-21T10:00:00Z"),
                confirmed: true,
                last_used_at: Some(moment("2026-11-22T10:00:00Z")),
            })
        );
        let code = StoredCode { hash, expires_at: moment("2026-11-21T11:00:00Z"), language: Language::Ja };
        insta::assert_json_snapshot!(
            "address",
            Address { email, language: Language::En, token: hash, token_id: id, code: Some(code) }
        );
        insta::assert_json_snapshot!("mails", Mails { count: 1, ttl: 1_763_722_800 });
    }
}
