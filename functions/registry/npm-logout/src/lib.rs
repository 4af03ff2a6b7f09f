//! `DELETE /npm/-/user/token/{token}`: `npm logout` revokes the token that it is sent with.
//!
//! A function of its own, so that the registry itself needs no right to revoke tokens.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::openapi::{LogoutErrors, tag};
use shared::permissions::RegistryNpmLogout;
use shared::secret::Token;
use shared::{ApiError, App, PathParams, RegistryHolder};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const OTHER_TOKEN: ApiError = ApiError::Refused(
    "The token in the path is not the one that the request was sent with, so it was not revoked. \
     npm logout revokes only its own token.",
);

const REVOKED: &str = "The token is revoked and no longer works anywhere.";

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(logout))
}

/// An empty object, which npm expects.
#[derive(Serialize, ToSchema)]
#[schema(as = LoggedOut)]
struct Answer {}

/// Revoke the token of `npm logout`
///
/// The token stops working, permanently and everywhere, once this call returns. The token in the
/// path must be the one that the request is sent with. Works without Guard.
#[utoipa::path(
    delete,
    path = "/npm/-/user/token/{token}",
    operation_id = "registry-npm-logout",
    tag = tag::REGISTRIES,
    params(("token" = String, Path, description = "The token that the request is sent with")),
    responses(
        (status = 200, description = "The token is revoked.", body = Answer, headers(
            ("npm-notice" = String, description = "A sentence that npm prints.")
        )),
        LogoutErrors,
    ),
)]
async fn logout(
    State(app): State<App>,
    caller: RegistryHolder<RegistryNpmLogout>,
    path: PathParams,
) -> Result<Response, ApiError> {
    if Token::parse(path.get("token")).is_none_or(|token| token.hash() != caller.holder.hash) {
        caller.record_use(&app).await?;
        return Err(OTHER_TOKEN);
    }
    caller.revoke_token(&app).await?;
    Ok(([("npm-notice", REVOKED)], Json(Answer {})).into_response())
}
