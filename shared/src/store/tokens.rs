//! Tokens by hash: the one read with which a use of a token is decided.

use serde::{Deserialize, Serialize};

use super::email_tokens::EmailToken;
use super::org_user_tokens::OrgUserToken;
use super::{Store, StoreError, keys};
use crate::secret::Token;

/// A token of any kind, as it is stored under its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StoredToken {
    /// A person, known by e-mail.
    EmailVerified(EmailToken),
    /// A member of an organization.
    OrgUser(OrgUserToken),
}

impl Store {
    /// Reads what is known of a token, in one strongly consistent read.
    pub async fn token(&self, token: &Token) -> Result<Option<StoredToken>, StoreError> {
        self.get(keys::token(token.hash())).await
    }
}
