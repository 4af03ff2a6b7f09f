//! `GET /scim/v2/Users/{user_id}`: gets a provisioned person.

use axum::extract::State;
use shared::openapi::{ScimErrors, ScimUserErrors, tag};
use shared::permissions::ScimUsersGet;
use shared::scim::{self, ScimAnswer, ScimUserView};
use shared::{ApiError, App, BotWith, PathParams};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get))
}

/// Get a SCIM user
///
/// `active` says whether somebody is a member of the organization, or invited to it, with the user's
/// address.
#[utoipa::path(
    get,
    path = "/scim/v2/Users/{user_id}",
    operation_id = "scim-users-get",
    tag = tag::SCIM,
    params(("user_id" = String, Path, description = "The user's `id`", example = "MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC")),
    responses(
        (status = 200, description = "The user.", body = ScimUserView, content_type = "application/scim+json"),
        ScimErrors,
        ScimUserErrors,
    ),
)]
async fn get(
    State(app): State<App>,
    caller: BotWith<ScimUsersGet>,
    path: PathParams,
) -> Result<ScimAnswer<ScimUserView>, ApiError> {
    let user = app.store().scim_user(&caller.bot.org_id, &scim::user_id(&path)?).await?;
    user.map(|user| ScimAnswer(user.into())).ok_or(ApiError::UserNotFound)
}
