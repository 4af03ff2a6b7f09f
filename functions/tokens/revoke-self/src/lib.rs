//! `DELETE /v1/tokens/self`: revokes the token that the request is sent with.

use axum::extract::State;
use shared::openapi::{NoFieldsErrors, UnauthorizedErrors, tag};
use shared::permissions::TokensRevokeSelf;
use shared::{ApiError, App, NoContent, NoFields, NoQuery, OwnToken};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// Revoke the own token
///
/// The token that the request is sent with stops working, permanently and everywhere, once this call
/// returns. Works for every kind of token, without Guard, and in a suspended organization. An
/// organization access token is deleted. Of a bot's API keys only the one that was sent ends.
#[utoipa::path(
    delete,
    path = "/v1/tokens/self",
    operation_id = "tokens-revoke-self",
    tag = tag::LEAKS,
    responses((status = 204, description = "The token is revoked."), UnauthorizedErrors, NoFieldsErrors),
)]
async fn revoke(
    State(app): State<App>,
    own: OwnToken<TokensRevokeSelf>,
    _: NoQuery,
    _: NoFields,
) -> Result<NoContent, ApiError> {
    own.revoke(&app).await?;
    Ok(NoContent)
}
