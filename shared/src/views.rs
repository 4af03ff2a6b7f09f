//! Response bodies that several functions share.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Moment;
use crate::domain::{AccessRole, Environment, Name, OrUnknown, ProjectId, Scope, TokenState, UserIdentifier};
use crate::ids::{BotId, OrgId, TokenId};
use crate::permissions::Role;
use crate::principal::Principal;
use crate::secret::ShownOnce;
use crate::store::email_tokens::Replaced;
use crate::store::tokens::ApiKey;
use crate::store::tokens::EmailToken;
use crate::store::tokens::OrgUserToken;
use crate::store::tokens::StoredToken;
use crate::store::tokens::{AccessConfig, OrgAccessToken};

/// An org user token, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrgUserToken)]
pub struct OrgUserTokenView {
    /// The token's management id.
    pub id: TokenId,
    /// The first characters of the token, to recognize it by.
    #[schema(example = "tg_org_a1B2")]
    pub token_prefix: String,
    /// The user that the token is for.
    pub user_identifier: UserIdentifier,
    /// Whether the token is active, expired or revoked.
    pub status: TokenState,
    /// When the token was issued.
    pub created_at: Moment,
    /// The id of the bot or member that issued the token.
    #[schema(example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    pub created_by: String,
    /// When the token expires; null if it does not.
    pub expires_at: Option<Moment>,
    /// When the token was last used, accurate to a minute; null if never.
    pub last_used_at: Option<Moment>,
    /// When the token was revoked. Present only if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// The id of the bot or member that revoked the token, of the token itself (`npm logout`), or
    /// `guardctl`. Present only if it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// The id of the token that it replaces. Present only if it was made by a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<TokenId>,
    /// The id of its successor. Present only if it was rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<TokenId>,
}

impl OrgUserTokenView {
    /// The view of a token at this moment.
    pub fn new(token: OrgUserToken, now: Moment) -> Self {
        Self {
            status: token.state(now),
            id: token.id,
            token_prefix: token.token_prefix,
            user_identifier: token.user_identifier,
            created_at: token.created_at,
            created_by: token.created_by.id,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
            revoked_by: token.revoked_by.map(|by| by.id),
            replaces: token.replaces.map(|old| old.id),
            replaced_by: token.rotated.map(|successor| successor.id),
        }
    }
}

/// Whether a person is known to have received their token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EmailTokenStatus {
    /// The token was mailed and has not been used yet.
    Pending,
    /// The token was used, or requested with a reset code.
    Active,
}

impl From<&EmailToken> for EmailTokenStatus {
    fn from(token: &EmailToken) -> Self {
        if token.confirmed || token.last_used_at.is_some() { Self::Active } else { Self::Pending }
    }
}

/// An email-verified token that replaced another.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewEmailToken)]
pub struct NewEmailTokenView {
    /// The new token. Returned only once.
    #[schema(value_type = String, example = "tg_anon_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1", pattern = "^tg_anon_[0-9A-Za-z]{42}$")]
    pub token: ShownOnce,
    /// The token's management id.
    pub id: TokenId,
    /// The first characters of the token, to recognize it by.
    #[schema(example = "tg_anon_a1B2")]
    pub token_prefix: String,
    /// Whether its holder is known to have received it.
    pub status: EmailTokenStatus,
    /// When the token was created.
    pub created_at: Moment,
}

impl From<Replaced> for NewEmailTokenView {
    fn from(replaced: Replaced) -> Self {
        let status = EmailTokenStatus::from(&replaced.stored);
        let EmailToken { id, token_prefix, created_at, .. } = replaced.stored;
        Self { token: ShownOnce(replaced.token), id, token_prefix, status, created_at }
    }
}

/// An API key, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyView {
    /// The key's management id.
    pub id: TokenId,
    /// The first characters of the key, to recognize it by.
    #[schema(example = "tk_live_a1b2c3d4")]
    pub prefix: String,
    /// The key's name.
    pub name: Name,
    /// The key's environment.
    #[schema(inline, value_type = Environment)]
    pub environment: OrUnknown<Environment>,
    /// The key's scopes.
    #[schema(value_type = Vec<Scope>)]
    pub scopes: Vec<OrUnknown<Scope>>,
    /// Whether the key is active, expired or revoked.
    pub status: TokenState,
    /// The bot or API key that created the key.
    #[schema(example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    pub created_by: String,
    /// When the key was created.
    pub created_at: Moment,
    /// When the key expires; null if it does not.
    pub expires_at: Option<Moment>,
    /// When the key was last used, accurate to a minute; null if never.
    pub last_used_at: Option<Moment>,
    /// When the key was revoked. Present only if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Moment>,
    /// The bot or API key that revoked the key, or `guardctl`. Present only if it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// The id of the token that it replaces. Present only if it was made by a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<TokenId>,
    /// The id of its successor. Present only if it was rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<TokenId>,
}

impl ApiKeyView {
    /// The view of a key at this moment.
    pub fn new(key: ApiKey, now: Moment) -> Self {
        Self {
            status: key.state(now),
            id: key.id,
            prefix: key.prefix,
            name: key.name,
            environment: key.environment,
            scopes: key.scopes.as_slice().to_vec(),
            created_by: key.created_by.id,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
            revoked_by: key.revoked_by.map(|by| by.id),
            replaces: key.replaces.map(|old| old.id),
            replaced_by: key.rotated.map(|successor| successor.id),
        }
    }
}

/// An organization access token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrgAccessToken)]
pub struct OrgAccessTokenView {
    /// The token's number in the organization.
    #[schema(example = 12)]
    pub id: u64,
    /// The token's name, unique in the organization.
    pub name: Name,
    /// The whole token in the response to its creation. Afterwards only the first 8 characters
    /// after `oat_`, and `...`.
    #[schema(value_type = String, example = "rjm9czn9...")]
    pub token: ShownToken,
    /// Whether the token is enabled.
    pub is_active: bool,
    /// When the token expires; null if it does not.
    pub expires_at: Option<Moment>,
    /// When the token was created.
    pub created_at: Moment,
    /// When the token was last used, accurate to a minute; null if never.
    pub last_used_at: Option<Moment>,
    /// The token's role and projects.
    #[schema(inline)]
    pub access_config: AccessConfigView,
}

/// A token in a response.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ShownToken {
    /// The whole token, once.
    Whole(ShownOnce),
    /// Its first characters.
    Masked(String),
}

/// The role and projects of an organization access token.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccessConfigView {
    /// The token's role.
    #[schema(inline, value_type = AccessRole)]
    pub role: OrUnknown<AccessRole>,
    /// Whether the token may access every project of the organization.
    pub all_projects: bool,
    /// Projects the token may access; ignored if `all_projects` is true. Empty means none.
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

/// The wildcard for every project of the organization. No project can have this id.
pub const ALL_PROJECTS: &str = "*";

/// The principal behind a credential, as the authorizer passes it on. Fields that do not apply to
/// its kind are omitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Principal)]
pub struct PrincipalView {
    /// The kind of the credential: `bot`, `bot_token`, `email_token`, `org_user_token`, `api_key` or
    /// `org_access_token`.
    #[schema(example = "api_key")]
    pub kind: String,
    /// The id of the bot or token; a number for an organization access token.
    pub id: Id,
    /// The organization that the credential belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrgId>,
    /// The bot that a bot token acts as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bot_id: Option<BotId>,
    /// The CI job that holds a bot token, as its ID token names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "repo:acme/widgets:ref:refs/heads/main")]
    pub subject: Option<String>,
    /// The roles of a bot, or those with which a bot token acts as it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub roles: Option<Vec<OrUnknown<Role>>>,
    /// The environment of an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline, value_type = Option<Environment>)]
    pub environment: Option<OrUnknown<Environment>>,
    /// The scopes of an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Scope>>)]
    pub scopes: Option<Vec<OrUnknown<Scope>>>,
    /// The role of an organization access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline, value_type = Option<AccessRole>)]
    pub role: Option<OrUnknown<AccessRole>>,
    /// The projects that an organization access token may access; `["*"]` means every project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projects: Option<Vec<String>>,
    /// The user that an org user token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_identifier: Option<UserIdentifier>,
    /// When the token expires, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
}

/// A management id: a number for organization access tokens, else a string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ManagementId)]
pub enum Id {
    /// Number of an organization access token.
    Number(u64),
    /// ULID of any other token or bot.
    Text(String),
}

impl From<&Principal> for PrincipalView {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::Bot(bot) => Self {
                org_id: Some(bot.org_id.clone()),
                roles: Some(bot.roles.as_slice().to_vec()),
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
                environment: Some(key.environment.clone()),
                scopes: Some(key.scopes.as_slice().to_vec()),
                expires_at: key.expires_at,
                ..Self::bare(kind, Id::Text(key.id.to_string()))
            },
            StoredToken::Bot(token) => Self {
                org_id,
                bot_id: Some(token.bot_id.clone()),
                subject: Some(token.subject.clone()),
                roles: token.acting.as_ref().map(|acting| acting.roles.as_slice().to_vec()),
                expires_at: Some(token.expires_at),
                ..Self::bare(kind, Id::Text(token.id.to_string()))
            },
            StoredToken::EmailVerified(token) => Self::bare(kind, Id::Text(token.id.to_string())),
            StoredToken::OrgAccess(token) => Self {
                org_id,
                role: Some(token.access_config.role.clone()),
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
            bot_id: None,
            subject: None,
            roles: None,
            environment: None,
            scopes: None,
            role: None,
            projects: None,
            user_identifier: None,
            expires_at: None,
        }
    }
}

fn projects(config: &AccessConfig) -> Vec<String> {
    // An unknown role grants nothing, so it reaches no project.
    if config.role.known().is_none() {
        return Vec::new();
    }
    if config.all_projects {
        return vec![ALL_PROJECTS.to_owned()];
    }
    config.projects.iter().map(|project| project.as_str().to_owned()).collect()
}
