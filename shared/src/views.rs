//! What callers see of things that several functions answer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Moment;
use crate::domain::{AccessRole, Environment, Name, ProjectId, Scope, TokenState, UserIdentifier};
use crate::ids::{BotId, OrgId, TokenId};
use crate::principal::Principal;
use crate::secret::ShownOnce;
use crate::store::api_keys::ApiKey;
use crate::store::email_tokens::{EmailToken, Replaced};
use crate::store::org_access_tokens::{AccessConfig, OrgAccessToken};
use crate::store::org_user_tokens::OrgUserToken;
use crate::store::tokens::StoredToken;

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
    /// When it was last used, give or take a minute; null if it never was.
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

/// An API key, without the key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyView {
    /// Its management id.
    pub id: TokenId,
    /// The beginning of the key, to tell it from others.
    #[schema(example = "tk_live_a1b2c3d4")]
    pub prefix: String,
    /// Its name.
    pub name: Name,
    /// Where it is used.
    #[schema(inline)]
    pub environment: Environment,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Whether it counts.
    pub status: TokenState,
    /// The bot or API key that created it.
    #[schema(example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    pub created_by: String,
    /// When it was created.
    pub created_at: Moment,
    /// When it ends by itself; null if it does not.
    pub expires_at: Option<Moment>,
    /// When it was last used, give or take a minute; null if it never was.
    pub last_used_at: Option<Moment>,
    /// When it was revoked; only there if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// The bot or API key that revoked it; only there if it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
}

impl ApiKeyView {
    /// What is seen of a key at this moment.
    pub fn new(key: ApiKey, now: Moment) -> Self {
        Self {
            status: key.state(now),
            id: key.id,
            prefix: key.prefix,
            name: key.name,
            environment: key.environment,
            scopes: key.scopes.as_slice().to_vec(),
            created_by: key.created_by,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
            revoked_by: key.revoked_by,
        }
    }
}

/// An organization access token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrgAccessToken)]
pub struct OrgAccessTokenView {
    /// Its number in the organization.
    #[schema(example = 12)]
    pub id: u64,
    /// Its name, unique in the organization.
    pub name: Name,
    /// The whole token in the answer to its creation; ever after the first 8 characters behind its prefix, and dots.
    #[schema(value_type = String, example = "rjm9czn9...")]
    pub token: ShownToken,
    /// Whether it is switched on.
    pub is_active: bool,
    /// When it ends by itself; null if it does not.
    pub expires_at: Option<Moment>,
    /// When it was created.
    pub created_at: Moment,
    /// When it was last used, give or take a minute; null if it never was.
    pub last_used_at: Option<Moment>,
    /// What it may do, and where.
    #[schema(inline)]
    pub access_config: AccessConfigView,
}

/// What of a token is shown.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ShownToken {
    /// All of it, this once.
    Whole(ShownOnce),
    /// Its beginning.
    Masked(String),
}

/// What an organization access token may do, and where.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccessConfigView {
    /// What it may do.
    #[schema(inline)]
    pub role: AccessRole,
    /// Everywhere in the organization.
    pub all_projects: bool,
    /// Where, unless everywhere; none is nowhere.
    pub projects: Vec<ProjectId>,
}

impl From<OrgAccessToken> for OrgAccessTokenView {
    fn from(token: OrgAccessToken) -> Self {
        let AccessConfig { role, all_projects, projects } = token.access_config;
        Self {
            id: token.id,
            name: token.name,
            token: ShownToken::Masked(format!("{}...", token.token_prefix)),
            is_active: token.is_active,
            expires_at: token.expires_at,
            created_at: token.created_at,
            last_used_at: token.last_used_at,
            access_config: AccessConfigView { role, all_projects, projects },
        }
    }
}

/// What stands for every project of the organization, where projects are listed: no project can have this id.
pub const ALL_PROJECTS: &str = "*";

/// Who a caller is, as the authorizer hands it on. What does not apply is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Principal)]
pub struct PrincipalView {
    /// What the caller showed: `bot`, `email_token`, `org_user_token`, `api_key` or `org_access_token`.
    #[schema(example = "api_key")]
    pub kind: String,
    /// The bot's or the token's id; a number for an organization access token.
    pub id: Id,
    /// The organization it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrgId>,
    /// A bot's roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub roles: Option<Vec<crate::principal::Role>>,
    /// An API key's scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// An organization access token's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub role: Option<AccessRole>,
    /// The projects that an organization access token reaches; `*` alone stands for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projects: Option<Vec<String>>,
    /// Who an org user token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_identifier: Option<UserIdentifier>,
    /// When it ends by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
}

/// A management id: a number for organization access tokens, text for everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ManagementId)]
pub enum Id {
    /// Of an organization access token.
    Number(u64),
    /// Of everything else.
    Text(String),
}

impl From<&Principal> for PrincipalView {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::Bot(bot) => Self {
                org_id: Some(bot.org_id.clone()),
                roles: Some(bot.roles.clone()),
                ..Self::bare("bot", Id::Text(bot.id.to_string()))
            },
            Principal::Holder(holder) => Self::from(&holder.token),
        }
    }
}

impl From<&StoredToken> for PrincipalView {
    fn from(token: &StoredToken) -> Self {
        let kind = token.kind_name();
        let org_id = token.org_id().cloned();
        match token {
            StoredToken::ApiKey(key) => Self {
                org_id,
                scopes: Some(key.scopes.as_slice().to_vec()),
                expires_at: key.expires_at,
                ..Self::bare(kind, Id::Text(key.id.to_string()))
            },
            StoredToken::EmailVerified(token) => Self::bare(kind, Id::Text(token.id.to_string())),
            StoredToken::OrgAccess(token) => Self {
                org_id,
                role: Some(token.access_config.role),
                projects: Some(projects(&token.access_config)),
                expires_at: token.expires_at,
                ..Self::bare(kind, Id::Number(token.id))
            },
            StoredToken::OrgUser(token) => Self {
                org_id,
                user_identifier: Some(token.user_identifier.clone()),
                expires_at: token.expires_at,
                ..Self::bare(kind, Id::Text(token.id.to_string()))
            },
        }
    }
}

impl PrincipalView {
    fn bare(kind: &str, id: Id) -> Self {
        Self {
            kind: kind.to_owned(),
            id,
            org_id: None,
            roles: None,
            scopes: None,
            role: None,
            projects: None,
            user_identifier: None,
            expires_at: None,
        }
    }
}

fn projects(config: &AccessConfig) -> Vec<String> {
    if config.all_projects {
        return vec![ALL_PROJECTS.to_owned()];
    }
    config.projects.iter().map(|project| project.as_str().to_owned()).collect()
}
