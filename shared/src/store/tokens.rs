//! Tokens by hash: the one read with which a use of a token is decided.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::api_keys::{self, ApiKey};
use super::email_tokens::{self, EmailToken};
use super::org_access_tokens::{self, OrgAccessToken};
use super::org_user_tokens::{self, OrgUserToken};
use super::{Store, StoreError, keys};
use crate::clock::Moment;
use crate::domain::TokenState;
use crate::ids::OrgId;
use crate::secret::{Token, TokenHash};

/// A token of any kind, as it is stored under its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StoredToken {
    /// A tool of an organization.
    ApiKey(ApiKey),
    /// A person, known by e-mail.
    EmailVerified(EmailToken),
    /// A server or device of an organization.
    OrgAccess(OrgAccessToken),
    /// A member of an organization.
    OrgUser(OrgUserToken),
}

const MINUTE: Duration = Duration::from_secs(60);

/// How long recording a use may hold up what the token is used for.
const RECORDING: Duration = Duration::from_millis(500);

impl StoredToken {
    /// Whether it counts at this moment.
    pub fn counts(&self, now: Moment) -> bool {
        match self {
            StoredToken::ApiKey(token) => token.state(now) == TokenState::Active,
            // It is there as long as it counts.
            StoredToken::EmailVerified(_) => true,
            StoredToken::OrgAccess(token) => token.state(now) == TokenState::Active,
            StoredToken::OrgUser(token) => token.state(now) == TokenState::Active,
        }
    }

    /// What callers know its kind by.
    pub fn kind_name(&self) -> &'static str {
        match self {
            StoredToken::ApiKey(_) => api_keys::SUBJECT,
            StoredToken::EmailVerified(_) => email_tokens::SUBJECT,
            StoredToken::OrgAccess(_) => org_access_tokens::SUBJECT,
            StoredToken::OrgUser(_) => org_user_tokens::SUBJECT,
        }
    }

    /// Its management id; an organization access token's is a number.
    pub fn id(&self) -> String {
        match self {
            StoredToken::ApiKey(token) => token.id.to_string(),
            StoredToken::EmailVerified(token) => token.id.to_string(),
            StoredToken::OrgAccess(token) => token.id.to_string(),
            StoredToken::OrgUser(token) => token.id.to_string(),
        }
    }

    /// Since when it exists.
    pub fn created_at(&self) -> Moment {
        match self {
            StoredToken::ApiKey(token) => token.created_at,
            StoredToken::EmailVerified(token) => token.created_at,
            StoredToken::OrgAccess(token) => token.created_at,
            StoredToken::OrgUser(token) => token.created_at,
        }
    }

    /// The organization it belongs to; an e-mail-verified one belongs to a person.
    pub fn org_id(&self) -> Option<&OrgId> {
        match self {
            StoredToken::ApiKey(token) => Some(&token.org_id),
            StoredToken::EmailVerified(_) => None,
            StoredToken::OrgAccess(token) => Some(&token.org_id),
            StoredToken::OrgUser(token) => Some(&token.org_id),
        }
    }

    /// When it was last used.
    pub fn last_used_at(&self) -> Option<Moment> {
        match self {
            StoredToken::ApiKey(token) => token.last_used_at,
            StoredToken::EmailVerified(token) => token.last_used_at,
            StoredToken::OrgAccess(token) => token.last_used_at,
            StoredToken::OrgUser(token) => token.last_used_at,
        }
    }
}

impl Store {
    /// Notes that a token was used, unless that was noted less than a minute ago: a hot token is written once a minute.
    /// Never moves the time back, never brings back a token that is gone, and never fails what the token was used for.
    pub async fn record_use(&self, hash: TokenHash, token: &StoredToken) {
        let now = self.clock.now();
        let minute_ago = now.minus(MINUTE);
        if token.last_used_at().is_some_and(|last| last > minute_ago) {
            return;
        }
        let values = [(":now", now), (":minute_ago", minute_ago)];
        let recording = self.update(
            keys::token(hash),
            "SET #last_used_at = :now",
            "attribute_exists(pk) AND (attribute_not_exists(#last_used_at) OR #last_used_at <= :minute_ago)",
            &values,
        );
        if !matches!(tokio::time::timeout(RECORDING, recording).await, Ok(Ok(_))) {
            tracing::warn!("a use was not recorded");
        }
    }

    /// Reads what is known of a token, in one strongly consistent read.
    pub async fn token(&self, token: &Token) -> Result<Option<StoredToken>, StoreError> {
        self.get(keys::token(token.hash())).await
    }
}
