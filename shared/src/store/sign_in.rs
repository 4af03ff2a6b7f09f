//! Sign-in by mail: the codes, and the browsers that have signed in before.
//!
//! A code belongs to one browser and one address: whoever asks in another browser, or for another
//! address, neither ends nor replaces it. So nobody can tell from their own code whether another
//! address is known, or end somebody else's. It ends at its use, when a newer one is mailed for the
//! same browser and address, and after [`SIGN_IN_CODE_LIFETIME`].
//!
//! The caller decides whether an address is known, counts the mail
//! ([`Store::count_sign_in_mail`]), stores the code and mails it, in this order. A crash in between
//! leaves a code that nobody received.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keys;
use super::{Committed, Store, StoreError};
use crate::email::AddressHash;
use crate::secret::{MailedCode, TokenHash};

/// How long a sign-in code is valid.
pub const SIGN_IN_CODE_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// How long a browser is remembered after a sign-in.
pub const DEVICE_LIFETIME: Duration = Duration::from_secs(180 * 24 * 60 * 60);

/// A stored code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredCode {
    code: TokenHash,
    /// When it expires, in seconds since the Unix epoch.
    ttl: i64,
}

/// A browser that has signed in.
#[derive(Debug, Serialize, Deserialize)]
struct Device {
    /// Until when it is remembered, in seconds since the Unix epoch.
    ttl: i64,
}

/// A code to mail, and the one that it replaced.
#[derive(Debug)]
pub struct IssuedCode {
    /// The code to mail.
    pub code: MailedCode,
    before: Option<StoredCode>,
}

impl Store {
    /// Stores a new code for a sign-in with this address from the browser with this pre-session
    /// cookie. The caller mails it and calls [`Store::sign_in_mail_failed`] if it was not sent.
    pub async fn issue_sign_in_code(&self, address: AddressHash, browser: TokenHash) -> Result<IssuedCode, StoreError> {
        let key = keys::sign_in_code(browser, address);
        for _ in 0..MAX_ATTEMPTS {
            let before: Option<StoredCode> = self.get(key.clone()).await?;
            let code = MailedCode::generate()?;
            let ttl = self.clock.now().plus(SIGN_IN_CODE_LIFETIME).epoch_seconds();
            let stored = StoredCode { code: code.hash(), ttl };
            let mut transaction = self.transaction();
            // Conditional, so that `before` was not used in the meantime: it may be restored.
            match &before {
                None => transaction.put_new(key.clone(), &stored),
                Some(before) => {
                    transaction.put_where(key.clone(), &stored, "#code = :before", &[(":before", before.code)])
                }
            };
            if transaction.commit().await? == Committed::Yes {
                return Ok(IssuedCode { code, before });
            }
        }
        Err(StoreError::Unavailable)
    }

    /// Restores the code that this one replaced, because the mail was definitely not sent. Does
    /// nothing if a newer one has replaced it.
    pub async fn sign_in_mail_failed(
        &self,
        address: AddressHash,
        browser: TokenHash,
        issued: &IssuedCode,
    ) -> Result<(), StoreError> {
        let (key, values) = (keys::sign_in_code(browser, address), [(":code", issued.code.hash())]);
        let mut transaction = self.transaction();
        match &issued.before {
            Some(before) => transaction.put_where(key, before, "#code = :code", &values),
            None => transaction.delete_where(key, "#code = :code", &values),
        };
        let _restored = transaction.commit().await?;
        Ok(())
    }

    /// Uses up a code: true if it was valid for this address in this browser. Of concurrent callers
    /// one gets true.
    pub async fn redeem_sign_in_code(
        &self,
        address: AddressHash,
        browser: TokenHash,
        code: &MailedCode,
    ) -> Result<bool, StoreError> {
        let key = keys::sign_in_code(browser, address);
        let stored: Option<StoredCode> = self.get(key.clone()).await?;
        let now = self.clock.now().epoch_seconds();
        // Compared in constant time (see `TokenHash`).
        let is_valid = stored.is_some_and(|stored| (stored.code == code.hash()) & (now < stored.ttl));
        if !is_valid {
            return Ok(false);
        }
        let mut transaction = self.transaction();
        transaction.delete_where(key, "#code = :code", &[(":code", code.hash())]);
        Ok(transaction.commit().await? == Committed::Yes)
    }

    /// Remembers for [`DEVICE_LIFETIME`] that the browser with this device cookie has signed in with
    /// this address.
    pub async fn remember_device(&self, device: TokenHash, address: AddressHash) -> Result<(), StoreError> {
        let ttl = self.clock.now().plus(DEVICE_LIFETIME).epoch_seconds();
        let mut transaction = self.transaction();
        transaction.put(keys::signed_in_device(device, address), &Device { ttl });
        match transaction.commit().await? {
            Committed::Yes => Ok(()),
            // It has no condition.
            Committed::No(_) => Err(StoreError::Defect),
        }
    }

    /// Whether the browser with this device cookie has signed in with this address.
    pub(super) async fn has_signed_in(&self, device: TokenHash, address: AddressHash) -> Result<bool, StoreError> {
        let stored: Option<Device> = self.get(keys::signed_in_device(device, address)).await?;
        // TTL deletes items late.
        Ok(stored.is_some_and(|stored| self.clock.now().epoch_seconds() < stored.ttl))
    }
}

/// Maximum attempts of a call that loses races, before it fails as retryable.
const MAX_ATTEMPTS: usize = 8;
