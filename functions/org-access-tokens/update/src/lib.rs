//! `PUT` and `PATCH /api/v2/organization/tokens/{token_id}/`: change an organization access token.

use axum::extract::State;
use axum::routing::put;
use serde::Deserialize;
use shared::domain::{AccessRole, Name, OrUnknown, ProjectId};
use shared::extract::{present, present_object};
use shared::openapi::{BodyErrors, HolderErrors, TokenErrors, tag};
use shared::org_access_token_request::{Replacement, checked, rejected, token_id, wrong_method_of_list};
use shared::permissions::OrgAccessTokensUpdate;
use shared::store::org_access_tokens::{Changed, Settings};
use shared::store::tokens::{AccessConfig, OrgAccessToken};
use shared::views::OrgAccessTokenView;
use shared::{ApiError, App, BotWith, Json, Moment, NoQuery, PathParams};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function, with and without the trailing slash.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(replace, merge))
        .route("/api/v2/organization/tokens/{token_id}", put(replace).patch(merge))
        .route("/api/v2/organization/tokens/", put(wrong_method_of_list).patch(wrong_method_of_list))
}

/// The settings to change. Omitted fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MergeOrgAccessToken)]
struct Merge {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", nullable = false)]
    name: Option<Name>,
    /// `false` disables the token: it is refused with 401 until it is enabled again.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    is_active: Option<bool>,
    /// When the token expires. Must be in the future. If null, the token does not expire.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Moment>)]
    expires_at: Option<Option<Moment>>,
    #[serde(default, deserialize_with = "present_object")]
    #[schema(inline, nullable = false)]
    access_config: Option<MergeAccessConfig>,
}

/// The access settings to change. Omitted fields stay unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MergeAccessConfig {
    #[serde(default, deserialize_with = "present")]
    #[schema(inline, nullable = false)]
    role: Option<AccessRole>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    all_projects: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<HashSet<ProjectId>>, max_items = 50, nullable = false)]
    projects: Option<Vec<ProjectId>>,
}

impl Merge {
    /// The token's settings after the change.
    fn onto(&self, token: &OrgAccessToken, now: Moment) -> Result<Settings, ApiError> {
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

/// Replace an organization access token's settings
///
/// Replaces all settings. Omitted fields get their default, as on creation.
#[utoipa::path(
    put,
    path = "/api/v2/organization/tokens/{token_id}/",
    operation_id = "org-access-tokens-replace",
    tag = tag::ORG_ACCESS_TOKENS,
    params(("token_id" = u64, Path, description = "The token's `id`", example = 12)),
    request_body = Replacement,
    responses(
        (status = 200, description = "The updated token.", body = OrgAccessTokenView),
        HolderErrors,
        BodyErrors,
        TokenErrors,
    ),
)]
async fn replace(
    State(app): State<App>,
    caller: BotWith<OrgAccessTokensUpdate>,
    _: NoQuery,
    path: PathParams,
    Json(request): Json<Replacement>,
) -> Result<Json<OrgAccessTokenView>, ApiError> {
    let settings = request.settings(app.clock().now())?;
    change(&app, caller, &path, |_| Ok(settings.clone())).await
}

/// Change an organization access token
///
/// Changes only the given fields; an empty object changes nothing. Use it to rotate permissions, or
/// to disable a compromised token without deleting it.
#[utoipa::path(
    patch,
    path = "/api/v2/organization/tokens/{token_id}/",
    operation_id = "org-access-tokens-update",
    tag = tag::ORG_ACCESS_TOKENS,
    params(("token_id" = u64, Path, description = "The token's `id`", example = 12)),
    request_body = Merge,
    responses(
        (status = 200, description = "The updated token.", body = OrgAccessTokenView),
        HolderErrors,
        BodyErrors,
        TokenErrors,
    ),
)]
async fn merge(
    State(app): State<App>,
    caller: BotWith<OrgAccessTokensUpdate>,
    _: NoQuery,
    path: PathParams,
    Json(request): Json<Merge>,
) -> Result<Json<OrgAccessTokenView>, ApiError> {
    let now = app.clock().now();
    change(&app, caller, &path, |token| request.onto(token, now)).await
}

/// Attempts of a change whose bot is changed meanwhile.
const MAX_ATTEMPTS: usize = 8;

async fn change(
    app: &App,
    mut caller: BotWith<OrgAccessTokensUpdate>,
    path: &PathParams,
    change: impl Fn(&OrgAccessToken) -> Result<Settings, ApiError>,
) -> Result<Json<OrgAccessTokenView>, ApiError> {
    let id = token_id(path)?;
    for _ in 0..MAX_ATTEMPTS {
        return match app.store().change_org_access_token(&caller.bot, id, &caller.caller, &change).await?? {
            Changed::Done(token) => Ok(Json((*token).into())),
            Changed::Rejected(reason) => Err(rejected(reason)),
            Changed::NotFound => Err(ApiError::TokenNotFound),
            Changed::CallerChanged => {
                caller.check_again(app).await?;
                continue;
            }
        };
    }
    Err(ApiError::Unavailable)
}
