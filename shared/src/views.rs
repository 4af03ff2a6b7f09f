//! What callers see of things that several functions answer.

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Moment;
use crate::domain::{TokenState, UserIdentifier};
use crate::ids::{BotId, TokenId};
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
