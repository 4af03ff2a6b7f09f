//! `PATCH` and `PUT /scim/v2/Users/{user_id}`: end or restore the membership of a provisioned person.

use axum::extract::State;
use shared::openapi::{ScimBodyErrors, ScimConflictErrors, ScimErrors, ScimUserErrors, tag};
use shared::permissions::ScimUsersUpdate;
use shared::scim::{self, MAX_ATTEMPTS, ScimAnswer, ScimPatchRequest, ScimUserRequest, ScimUserView};
use shared::store::scim_users::ScimUpdate;
use shared::{ApiError, App, BotWith, PathParams, ScimJson};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(replace, patch))
}

/// Replace a SCIM user
///
/// Sets `active` and `externalId`, if they are sent, as PATCH does. Other attributes are ignored,
/// except that another `userName` is refused.
#[utoipa::path(
    put,
    path = "/scim/v2/Users/{user_id}",
    operation_id = "scim-users-replace",
    tag = tag::SCIM,
    params(("user_id" = String, Path, description = "The user's `id`", example = "MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC")),
    request_body(content((ScimUserRequest = "application/scim+json"), (ScimUserRequest = "application/json"))),
    responses(
        (status = 200, description = "The user.", body = ScimUserView, content_type = "application/scim+json"),
        ScimErrors,
        ScimBodyErrors,
        ScimUserErrors,
        ScimConflictErrors,
    ),
)]
async fn replace(
    State(app): State<App>,
    caller: BotWith<ScimUsersUpdate>,
    path: PathParams,
    ScimJson(body): ScimJson,
) -> Result<ScimAnswer<ScimUserView>, ApiError> {
    change(&app, caller, &path, &scim::replacement(&body)?).await
}

/// Change a SCIM user
///
/// With `active` false, the memberships, the sessions and the person's own tokens end, whichever way
/// the person signs in, and so does an invitation. With `active` true, memberships come back that
/// ended this way, without the role `organization/owner` and without tokens. Nobody comes back whom
/// an owner has removed.
#[utoipa::path(
    patch,
    path = "/scim/v2/Users/{user_id}",
    operation_id = "scim-users-update",
    tag = tag::SCIM,
    params(("user_id" = String, Path, description = "The user's `id`", example = "MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC")),
    request_body(content((ScimPatchRequest = "application/scim+json"), (ScimPatchRequest = "application/json"))),
    responses(
        (status = 200, description = "The user.", body = ScimUserView, content_type = "application/scim+json"),
        ScimErrors,
        ScimBodyErrors,
        ScimUserErrors,
        ScimConflictErrors,
    ),
)]
async fn patch(
    State(app): State<App>,
    caller: BotWith<ScimUsersUpdate>,
    path: PathParams,
    ScimJson(body): ScimJson,
) -> Result<ScimAnswer<ScimUserView>, ApiError> {
    change(&app, caller, &path, &scim::patch(&body)?).await
}

async fn change(
    app: &App,
    mut caller: BotWith<ScimUsersUpdate>,
    path: &PathParams,
    update: &ScimUpdate,
) -> Result<ScimAnswer<ScimUserView>, ApiError> {
    let id = scim::user_id(path)?;
    for _ in 0..MAX_ATTEMPTS {
        let (org, by) = (&caller.bot.org_id, caller.bot.authority());
        let change = app.store().update_scim_user(org, &id, update, by, &caller.caller).await?;
        if let Some(user) = scim::settled(app, &mut caller, change).await? {
            return Ok(ScimAnswer(user.into()));
        }
    }
    Err(ApiError::Unavailable)
}
