//! `POST /scim/v2/Users`: provisions a person.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use shared::openapi::{ScimBodyErrors, ScimCreateErrors, ScimErrors, tag};
use shared::permissions::ScimUsersCreate;
use shared::scim::{self, MAX_ATTEMPTS, ScimAnswer, ScimUserRequest, ScimUserView};
use shared::{ApiError, App, BotWith, ScimJson};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Create a SCIM user
///
/// Creates a user for the members of the organization who joined with this address. If nobody has,
/// makes an invitation with the role `organization/member`, which does not lapse: the person accepts
/// it after signing in to the console with this address. No mail is sent. A user that is created with
/// `active` false ends what there is, as a change does. Attributes that are not described here are
/// ignored.
#[utoipa::path(
    post,
    path = "/scim/v2/Users",
    operation_id = "scim-users-create",
    tag = tag::SCIM,
    request_body(content((ScimUserRequest = "application/scim+json"), (ScimUserRequest = "application/json"))),
    responses(
        (status = 201, description = "The user.", body = ScimUserView, content_type = "application/scim+json",
            headers(("Location" = String, description = "The path of the user."))),
        ScimErrors,
        ScimBodyErrors,
        ScimCreateErrors,
    ),
)]
async fn create(
    State(app): State<App>,
    mut caller: BotWith<ScimUsersCreate>,
    ScimJson(body): ScimJson,
) -> Result<Response, ApiError> {
    let new = scim::new_user(&body)?;
    for _ in 0..MAX_ATTEMPTS {
        let (org, by) = (&caller.bot.org_id, caller.bot.authority());
        let change = app.store().create_scim_user(org, &new, by, &caller.caller).await?;
        if let Some(user) = scim::settled(&app, &mut caller, change).await? {
            return created(user.into());
        }
    }
    Err(ApiError::Unavailable)
}

fn created(user: ScimUserView) -> Result<Response, ApiError> {
    let location = HeaderValue::from_str(user.location()).map_err(|_| ApiError::Internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], ScimAnswer(user)).into_response())
}
