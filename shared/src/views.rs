//! What callers see of things that several functions answer.

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Moment;
use crate::domain::{TokenState, UserIdentifier};
use crate::ids::{BotId, TokenId};
use crate::secret::ShownOnce;
use crate::store::email_tokens::{EmailToken, Replaced};
use crate::store::org_user_tokens::OrgUserToken;

/// An org user token, without the token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrgUserToken)]
pub struct OrgUserTokenView {
    /// Its management id.
    pub id: TokenId,
    /// The beginning of the token, to tell it from others.
    #[schema(example = "tg_org_a1B2")]
    pub token_prefix: String,
    /// Who it is for.
    pub user_identifier: UserIdentifier,
    /// Whether it counts.
    pub status: TokenState,
    /// When it was issued.
    pub created_at: Moment,
    /// The bot that issued it.
    pub created_by: BotId,
    /// When it ends by itself; null if it does not.
    pub expires_at: Option<Moment>,
    /// When it was last used, to the minute; null if it never was.
    pub last_used_at: Option<Moment>,
    /// When it was revoked; only there if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// The bot that revoked it; only there if it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<BotId>,
}

impl OrgUserTokenView {
    /// What is seen of a token at this moment.
    pub fn new(token: OrgUserToken, now: Moment) -> Self {
        Self {
            status: token.state(now),
            id: token.id,
            token_prefix: token.token_prefix,
            user_identifier: token.user_identifier,
            created_at: token.created_at,
            created_by: token.created_by,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
            revoked_by: token.revoked_by,
        }
    }
}

/// Whether a person is known to have their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EmailTokenStatus {
    /// The key was mailed, and has not been used yet.
    Pending,
    /// The key was used, or asked for with a code from a mail.
    Active,
}

impl From<&EmailToken> for EmailTokenStatus {
    fn from(token: &EmailToken) -> Self {
        if token.confirmed || token.last_used_at.is_some() { Self::Active } else { Self::Pending }
    }
}

/// A key that took the place of another.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewEmailToken)]
pub struct NewEmailTokenView {
    /// The new key. It is in this answer and never again.
    #[schema(value_type = String, example = "tg_anon_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1", pattern = "^tg_anon_[0-9A-Za-z]{42}$")]
    pub token: ShownOnce,
    /// Its management id.
    pub id: TokenId,
    /// The beginning of the key, to tell it from others.
    #[schema(example = "tg_anon_a1B2")]
    pub token_prefix: String,
    /// Whether its holder is known to have it.
    pub status: EmailTokenStatus,
    /// When it was made.
    pub created_at: Moment,
}

impl From<Replaced> for NewEmailTokenView {
    fn from(replaced: Replaced) -> Self {
        let status = EmailTokenStatus::from(&replaced.stored);
        let EmailToken { id, token_prefix, created_at, .. } = replaced.stored;
        Self { token: ShownOnce(replaced.token), id, token_prefix, status, created_at }
    }
}
