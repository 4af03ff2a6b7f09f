//! `DELETE /scim/v2/Users/{user_id}`: ends the membership of a provisioned person for good.

use axum::extract::State;
use shared::openapi::{ScimConflictErrors, ScimErrors, ScimUserErrors, tag};
use shared::permissions::ScimUsersDelete;
use shared::scim::{self, MAX_ATTEMPTS};
use shared::{ApiError, App, BotWith, NoContent, PathParams};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(delete))
}

/// Delete a SCIM user
///
/// Ends what a change to `active` false ends, and forgets it: nothing can be brought back. The
/// `userName` can be used again.
#[utoipa::path(
    delete,
    path = "/scim/v2/Users/{user_id}",
    operation_id = "scim-users-delete",
    tag = tag::SCIM,
    params(("user_id" = String, Path, description = "The user's `id`", example = "MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC")),
    responses((status = 204, description = "The user is deleted."), ScimErrors, ScimUserErrors, ScimConflictErrors),
)]
async fn delete(
    State(app): State<App>,
    mut caller: BotWith<ScimUsersDelete>,
    path: PathParams,
) -> Result<NoContent, ApiError> {
    let id = scim::user_id(&path)?;
    for _ in 0..MAX_ATTEMPTS {
        let (org, by) = (&caller.bot.org_id, caller.bot.authority());
        let change = app.store().delete_scim_user(org, &id, by, &caller.caller).await?;
        if scim::settled(&app, &mut caller, change).await?.is_some() {
            return Ok(NoContent);
        }
    }
    Err(ApiError::Unavailable)
}
