//! What the endpoints of organization access tokens share: how their settings are asked for and refused.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::clock::Moment;
use crate::domain::{AccessRole, Name, ProjectId};
use crate::error::ApiError;
use crate::extract::{PathParams, in_the_future, present_object};
use crate::store::org_access_tokens::{AccessConfig, Rejected, Settings};

/// The most projects that one token may name: each is checked in the transaction of the change, which takes 100 items.
pub const MAX_PROJECTS: usize = 50;

/// All settings of a token: what a creation asks for, and a replacement. What is left out has its default.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetOrgAccessToken)]
pub struct Replacement {
    /// What the token is for, for auditing; unique in the organization.
    name: Name,
    /// False switches the token off: it answers 401 until it is switched on again.
    #[serde(default = "switched_on")]
    #[schema(default = true)]
    is_active: bool,
    /// When the token is to end by itself, which must lie in the future; null or left out, it does not.
    #[schema(example = "2099-12-31T23:59:59Z")]
    expires_at: Option<Moment>,
    #[serde(default, deserialize_with = "present_object")]
    #[schema(inline, nullable = false)]
    access_config: Option<AccessConfigRequest>,
}

/// What a token may do, and where. What is left out has its default.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessConfigRequest {
    /// What the token may do; each role may what those before it may.
    #[serde(default)]
    #[schema(inline, default = "readonly")]
    role: AccessRole,
    /// Everywhere in the organization.
    #[serde(default)]
    #[schema(default = false)]
    all_projects: bool,
    /// Where, unless everywhere; none is nowhere.
    #[serde(default)]
    #[schema(value_type = HashSet<ProjectId>, max_items = 50)]
    projects: Vec<ProjectId>,
}

fn switched_on() -> bool {
    true
}

impl Replacement {
    /// The settings, checked as far as the table is not needed.
    pub fn settings(self, now: Moment) -> Result<Settings, ApiError> {
        let AccessConfigRequest { role, all_projects, projects } = self.access_config.unwrap_or_default();
        let access_config = AccessConfig { role, all_projects, projects };
        let Self { name, is_active, expires_at, .. } = self;
        checked(Settings { name, is_active, expires_at, access_config }, now)
    }
}

/// Checks settings as far as the table is not needed.
pub fn checked(settings: Settings, now: Moment) -> Result<Settings, ApiError> {
    let projects = &settings.access_config.projects;
    if projects.len() > MAX_PROJECTS {
        return Err(ApiError::invalid("access_config.projects", "must name at most 50 projects; see `all_projects`"));
    }
    if projects.iter().enumerate().any(|(place, project)| projects[..place].contains(project)) {
        return Err(ApiError::invalid("access_config.projects", "must not name a project twice"));
    }
    in_the_future(settings.expires_at, now)?;
    Ok(settings)
}

/// The error for settings that the table refused.
pub fn rejected(reason: Rejected) -> ApiError {
    match reason {
        Rejected::NameTaken => ApiError::invalid("name", "is the name of another token of the organization"),
        Rejected::UnknownProject => {
            ApiError::invalid("access_config.projects", "must name only projects of the organization")
        }
    }
}

/// The number of the token that a path names. What cannot be one names no token.
pub fn token_id(path: &PathParams) -> Result<u64, ApiError> {
    let text = path.get("token_id");
    let is_plain = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain).ok_or(ApiError::TokenNotFound)
}
