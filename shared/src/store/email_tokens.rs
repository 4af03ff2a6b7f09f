//! E-mail-verified tokens: the whole life of an address.
//!
//! ```text
//!                        register: welcome mail, with a key
//!        ┌─────────────────────────────────────────────────────────────┐
//!        │                                                             ▼
//!   no living key ◀───────────────── revoke ─────────────────── living key, no code ◀─┐ regenerate: another key,
//!        ▲                                                        │         ▲   └─────┘ key-changed mail
//!        │                  register: recovery mail, with a code  │         │
//!        │                                                        ▼         │ reset with the code: another key,
//!        └───────────────────── revoke ─────────────────── living key, code ┘ key-changed mail;
//!                                                            │      ▲          or the hour is over
//!                                                            └──────┘ register: another code; regenerate: another key
//! ```
//!
//! An address that has a living key is one item: where mail goes, and the hashes of the key and of the code. The key
//! itself is an item under its hash, like every token. Each arrow is one transaction over both, conditional on the key
//! (and the code) that it started from: of two at once one wins, and the other looks again.
//!
//! Nobody but the holder of the key or the reader of the mail gets past *living key*: registering somebody else's
//! address sends them a mail, at most [`MAILS_PER_HOUR`] an hour, and changes nothing they depend on.
//!
//! Mail goes out after the transaction. If SES surely did not take the welcome mail, the registration is undone, so that
//! the next call sends another; if nobody knows, the key stays, and the next call sends the recovery mail. Likewise a
//! code dies only for a newer one whose mail may have been sent. Either way repeating the call leads to a key, and a key
//! that was mailed counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{Caller, Entry, Log, Subject};
use super::keys;
use super::tokens::StoredToken;
use super::{Committed, Store, StoreError};
use crate::clock::Moment;
use crate::email::{AddressHash, EmailAddress, Language};
use crate::ids::TokenId;
use crate::secret::{ResetCode, Token, TokenHash, TokenKind};

/// How many mails an address is sent in an hour, *key changed* aside.
pub const MAILS_PER_HOUR: u64 = 5;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// How long a reset code lives.
pub const CODE_LIFETIME: Duration = HOUR;

/// The kind of these tokens in the audit log.
pub const SUBJECT: &str = "email_token";

/// An e-mail-verified token, as it is stored under its hash. It is there as long as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailToken {
    /// Its management id.
    pub id: TokenId,
    /// Whose it is.
    pub address: AddressHash,
    /// Its beginning, which may be shown.
    pub token_prefix: String,
    /// Since when it exists.
    pub created_at: Moment,
    /// Whether its holder is known to have it: the one before was used to make it, or a code from the mail.
    pub confirmed: bool,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Moment>,
}

/// An address with a living key, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Where mail goes: the spelling that the key was first sent to, whatever others type later.
    pub email: EmailAddress,
    /// What mail is written in, unless a request says otherwise.
    pub language: Language,
    /// The living key.
    token: TokenHash,
    /// The living key's management id.
    token_id: TokenId,
    /// The code that was sent last, until it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<StoredCode>,
}

/// A reset code, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCode {
    hash: TokenHash,
    expires_at: Moment,
    /// What mail is to be written in once the code comes back.
    language: Language,
}

/// How many mails an address was sent in the hour that the first of them began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mails {
    count: u64,
    /// When the hour is over, in seconds since 1970.
    ttl: i64,
}

/// What a registration asks to be mailed.
#[derive(Debug)]
pub enum Registration {
    /// A key, to an address that had none.
    Welcome {
        /// Where the mail goes.
        to: EmailAddress,
        /// What it is written in.
        language: Language,
        /// The key.
        token: Token,
    },
    /// A code, to an address that has a key.
    Recovery {
        /// Where the mail goes: the spelling that the key was sent to.
        to: EmailAddress,
        /// What it is written in.
        language: Language,
        /// The code.
        code: ResetCode,
        /// The code that it took the place of.
        before: Option<StoredCode>,
    },
    /// Nothing: the address was sent enough for this hour.
    Limited,
}

/// A key that took the place of another.
#[derive(Debug)]
pub struct Replaced {
    /// The new key, as it is stored.
    pub stored: EmailToken,
    /// The new key.
    pub token: Token,
    /// Where the *key changed* mail goes.
    pub to: EmailAddress,
    /// What it is written in.
    pub language: Language,
}

impl Store {
    /// Whether a registration of this address would send a mail now: lets the caller look before it counts the mail.
    pub async fn may_mail(&self, address: AddressHash) -> Result<bool, StoreError> {
        let mails: Option<Mails> = self.get(keys::address_mails(address)).await?;
        Ok(mails.is_none_or(|mails| self.one_more(Some(&mails)).is_some()))
    }

    /// Registers an address. What is answered is to be mailed, and to be told to [`Store::mail_failed`] if that fails.
    pub async fn register(
        &self,
        email: &EmailAddress,
        language: Option<Language>,
        caller: &Caller,
    ) -> Result<Registration, StoreError> {
        let hash = email.hash();
        for _ in 0..RACES {
            let (address, mails) = futures::try_join!(
                self.get::<Address>(keys::address(hash)),
                self.get::<Mails>(keys::address_mails(hash)),
            )?;
            let Some(counted) = self.one_more(mails.as_ref()) else { return Ok(Registration::Limited) };
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
                None => {
                    let language = language.unwrap_or_default();
                    let token = Token::generate(TokenKind::EmailVerified)?;
                    let stored = self.new_email_token(&token, hash, false)?;
                    let address = Address {
                        email: email.clone(),
                        language,
                        token: token.hash(),
                        token_id: stored.id.clone(),
                        code: None,
                    };
                    let entry = self.email_token_entry(caller, "register", &stored.id)?;
                    transaction
                        .put_new(keys::address(hash), &address)
                        .put_new(keys::token(token.hash()), &StoredToken::EmailVerified(stored))
                        .audit(Log::Address(hash), &entry);
                    Registration::Welcome { to: email.clone(), language, token }
                }
                Some(address) => {
                    let language = language.unwrap_or(address.language);
                    let code = ResetCode::generate()?;
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

    /// Takes back what a registration did for a mail that was not sent. `surely` says whether the mail cannot have been
    /// sent: only then is a key that nobody has removed, so that the next registration makes another, and is the code
    /// that was sent before put back in its place.
    pub async fn mail_failed(
        &self,
        email: &EmailAddress,
        registration: &Registration,
        surely: bool,
    ) -> Result<(), StoreError> {
        let hash = email.hash();
        if surely {
            let mut transaction = self.transaction();
            match registration {
                Registration::Welcome { token, .. } => {
                    // A code means that another registration has mailed this address since: then its key must stay.
                    let condition = "#token = :token AND attribute_not_exists(#code)";
                    transaction
                        .delete_where(keys::address(hash), condition, &[(":token", token.hash())])
                        .delete(keys::token(token.hash()))
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

    /// Puts a new key in the place of this one. `None` if this one no longer counts: of callers at once, one wins.
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
            .audit(Log::Address(old.address), &entry);
        let won = transaction.commit().await? == Committed::Yes;
        Ok(won.then_some(Replaced { stored, token, to: address.email, language: address.language }))
    }

    /// Swaps a code for a new key in the place of the address's. `None` for every way in which the code does not count.
    pub async fn reset(
        &self,
        email: &EmailAddress,
        code: &ResetCode,
        caller: &Caller,
    ) -> Result<Option<Replaced>, StoreError> {
        let hash = email.hash();
        for _ in 0..RACES {
            let address: Option<Address> = self.get(keys::address(hash)).await?;
            let Some(address) = address else { return Ok(None) };
            let now = self.clock.now();
            // Compared in constant time: see `TokenHash`.
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
                .audit(Log::Address(hash), &entry);
            if transaction.commit().await? == Committed::Yes {
                return Ok(Some(Replaced { stored, token, to: address.email, language: live.language }));
            }
            // The key was regenerated or the code used meanwhile: look again which.
        }
        Err(StoreError::Unavailable)
    }

    /// Removes a key and all that is known of its address, an outstanding code included. False if the key no longer
    /// counts.
    pub async fn revoke_email_token(
        &self,
        token: &EmailToken,
        hash: TokenHash,
        caller: &Caller,
    ) -> Result<bool, StoreError> {
        let entry = self.email_token_entry(caller, "revoke", &token.id)?;
        let mut transaction = self.transaction();
        transaction
            .delete_where(keys::address(token.address), "#token = :token", &[(":token", hash)])
            .delete_existing(keys::token(hash))
            .audit(Log::Address(token.address), &entry);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// The address that a key belongs to. `None` if the key was replaced or revoked meanwhile.
    pub async fn address_of(&self, token: &EmailToken) -> Result<Option<Address>, StoreError> {
        let address: Option<Address> = self.get(keys::address(token.address)).await?;
        Ok(address.filter(|address| address.token_id == token.id))
    }

    /// The count of mails with one more; `None` where the hour's are used up.
    fn one_more(&self, mails: Option<&Mails>) -> Option<Mails> {
        let now = self.clock.now();
        match mails {
            Some(mails) if now.epoch_seconds() < mails.ttl => {
                (mails.count < MAILS_PER_HOUR).then_some(Mails { count: mails.count + 1, ttl: mails.ttl })
            }
            // The hour is over, whether or not the item was removed.
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
        Ok(Entry::done(&self.clock, caller, &format!("{SUBJECT}.{verb}"), Subject::new(SUBJECT, id))?)
    }
}

/// How often a call that lost a race looks again before it asks the caller to.
const RACES: usize = 8;

fn json<T: Serialize>(value: &T) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|_| StoreError::Defect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_shapes_are_pinned() {
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
