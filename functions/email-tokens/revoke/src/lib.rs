//! `DELETE /api/v1/tokens`: revokes the caller's own token.

use axum::extract::State;
use shared::error::Unauthorized;
use shared::openapi::{HolderErrors, NoFieldsErrors, tag};
use shared::permissions::EmailTokensRevoke;
use shared::{ApiError, App, EmailHolder, NoContent, NoFields, NoQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// Revoke a token
///
/// The caller's token stops working, permanently, once this call returns, and so does an
/// outstanding reset code. The address can register again.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens",
    operation_id = "email-tokens-revoke",
    tag = tag::EMAIL_TOKENS,
    responses((status = 204, description = "The token is revoked."), HolderErrors, NoFieldsErrors),
)]
async fn revoke(
    State(app): State<App>,
    holder: EmailHolder<EmailTokensRevoke>,
    _: NoQuery,
    _: NoFields,
) -> Result<NoContent, ApiError> {
    let revoked = app.store().revoke_email_token(&holder.token, holder.hash, &holder.caller).await?;
    revoked.then_some(NoContent).ok_or(ApiError::Unauthorized(Unauthorized::Invalid))
}
