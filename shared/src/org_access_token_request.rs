//! The settings of an organization access token in requests: their schema, validation and errors.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::clock::Moment;
use crate::domain::{AccessRole, Name, OrUnknown, ProjectId};
use crate::error::ApiError;
use crate::extract::{PathParams, in_the_future, present, present_object};
use crate::store::org_access_tokens::{Rejected, Settings};
use crate::store::tokens::{AccessConfig, OrgAccessToken};

/// 405 at the path of one token, for a method of the list. API Gateway has no routes that end in a
/// slash, so the greedy routes of `GET` and `POST` also catch these paths.
pub async fn wrong_method_of_token() -> ApiError {
    ApiError::MethodNotAllowed("DELETE, PATCH, PUT".to_owned())
}

/// 405 at the path of the list, for a method of single tokens.
pub async fn wrong_method_of_list() -> ApiError {
    ApiError::MethodNotAllowed("GET, POST".to_owned())
}

/// Maximum projects per token. Each is checked in the write transaction, which DynamoDB limits to
/// 100 items.
pub const MAX_PROJECTS: usize = 50;

/// All settings of a token. Omitted fields get their default.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetOrgAccessToken)]
pub struct Replacement {
    /// What the token is for, as shown in lists and audits. Unique in the organization.
    name: Name,
    /// `false` disables the token: it is refused with 401 until it is enabled again.
    #[serde(default = "enabled")]
    #[schema(default = true)]
    is_active: bool,
    /// When the token expires. Must be in the future. If null or omitted, the token does not
    /// expire, unless the organization's policy requires an expiry.
    #[schema(example = "2099-12-31T23:59:59Z")]
    expires_at: Option<Moment>,
    #[serde(default, deserialize_with = "present_object")]
    #[schema(inline, nullable = false)]
    access_config: Option<AccessConfigRequest>,
}

/// The token's role and projects. Omitted fields get their default.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessConfigRequest {
    /// The token's role. Each role includes the ones before it.
    #[serde(default)]
    #[schema(inline, default = "readonly")]
    role: AccessRole,
    /// Whether the token may access every project of the organization.
    #[serde(default)]
    #[schema(default = false)]
    all_projects: bool,
    /// Projects the token may access; ignored if `all_projects` is true. Empty means none.
    #[serde(default)]
    #[schema(value_type = HashSet<ProjectId>, max_items = 50)]
    projects: Vec<ProjectId>,
}

fn enabled() -> bool {
    true
}

impl Replacement {
    /// Validates the settings, except for the checks that need the table.
    pub fn settings(self, now: Moment) -> Result<Settings, ApiError> {
        let AccessConfigRequest { role, all_projects, projects } = self.access_config.unwrap_or_default();
        let access_config = AccessConfig { role: role.into(), all_projects, projects };
        let Self { name, is_active, expires_at, .. } = self;
        checked(Settings { name, is_active, expires_at, access_config }, now)
    }
}

/// The settings to change. Omitted fields stay unchanged.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MergeOrgAccessToken)]
pub struct Merge {
    /// What the token is for. Unique in the organization.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", nullable = false)]
    pub name: Option<Name>,
    /// `false` disables the token: it is refused with 401 until it is enabled again.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub is_active: Option<bool>,
    /// When the token expires. Must be in the future. If null, the token does not expire, unless the
    /// organization's policy requires an expiry.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Moment>)]
    pub expires_at: Option<Option<Moment>>,
    /// The token's role and projects.
    #[serde(default, deserialize_with = "present_object")]
    #[schema(inline, nullable = false)]
    pub access_config: Option<MergeAccessConfig>,
}

/// The access settings to change. Omitted fields stay unchanged.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeAccessConfig {
    /// The token's role. Each role includes the ones before it.
    #[serde(default, deserialize_with = "present")]
    #[schema(inline, nullable = false)]
    pub role: Option<AccessRole>,
    /// Whether the token may access every project of the organization.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub all_projects: Option<bool>,
    /// Projects the token may access; ignored if `all_projects` is true. Empty means none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<HashSet<ProjectId>>, max_items = 50, nullable = false)]
    pub projects: Option<Vec<ProjectId>>,
}

impl Merge {
    /// The token's settings after the change.
    ///
    /// # Errors
    ///
    /// 400 if they are not valid.
    pub fn onto(&self, token: &OrgAccessToken, now: Moment) -> Result<Settings, ApiError> {
        let OrgAccessToken { access_config: AccessConfig { role, all_projects, projects }, .. } = token;
        let access = self.access_config.as_ref();
        let merged = Settings {
            name: self.name.clone().unwrap_or_else(|| token.name.clone()),
            is_active: self.is_active.unwrap_or(token.is_active),
            expires_at: self.expires_at.unwrap_or(token.expires_at),
            access_config: AccessConfig {
                role: access.and_then(|access| access.role).map_or_else(|| role.clone(), OrUnknown::Known),
                all_projects: access.and_then(|access| access.all_projects).unwrap_or(*all_projects),
                projects: access.and_then(|access| access.projects.clone()).unwrap_or_else(|| projects.clone()),
            },
        };
        // An unchanged `expires_at` may be in the past: an expired token can still be renamed or
        // disabled.
        let untouched = self.expires_at.is_none();
        let expires_at = merged.expires_at;
        let checked = checked(Settings { expires_at: expires_at.filter(|_| !untouched), ..merged }, now)?;
        Ok(Settings { expires_at, ..checked })
    }
}

/// Validates settings, except for the checks that need the table.
pub fn checked(settings: Settings, now: Moment) -> Result<Settings, ApiError> {
    let projects = &settings.access_config.projects;
    if projects.len() > MAX_PROJECTS {
        return Err(ApiError::invalid(
            "access_config.projects",
            "must contain at most 50 projects; to allow every project, set `all_projects`",
        ));
    }
    if projects.iter().enumerate().any(|(place, project)| projects[..place].contains(project)) {
        return Err(ApiError::invalid("access_config.projects", "must not contain a project twice"));
    }
    in_the_future(settings.expires_at, now)?;
    Ok(settings)
}

/// The error for settings that conflict with the table.
pub fn rejected(reason: Rejected) -> ApiError {
    match reason {
        Rejected::NameTaken => {
            ApiError::invalid("name", "is already used by another token of this organization; choose another name")
        }
        Rejected::TooMany => ApiError::TooManyAccessTokens,
        Rejected::Suspended => ApiError::Suspended,
        Rejected::TooLong(too_long) => too_long.into(),
        Rejected::UnknownProject => {
            ApiError::invalid("access_config.projects", "must contain only existing projects of this organization")
        }
    }
}

/// The token id in the path. A malformed id is answered like an unknown one.
pub fn token_id(path: &PathParams) -> Result<u64, ApiError> {
    parse_id(path.get("token_id")).ok_or(ApiError::TokenNotFound)
}

/// Parses the id of a token, which has no leading zeros.
pub fn parse_id(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain)
}
