//! `DELETE /api/v1/tokens`: revokes the caller's own token.

use axum::extract::State;
use shared::error::Unauthorized;
use shared::mail::send_key_removed;
use shared::openapi::{HolderErrors, NoFieldsErrors, tag};
use shared::permissions::EmailTokensRevoke;
use shared::{ApiError, EmailHolder, MailApp, NoContent, NoFields, NoQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<MailApp> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// Revoke a token
///
/// The caller's token stops working, permanently, once this call returns, and so does an
/// outstanding reset code. The address is deleted and can register again. A mail notifies it of the
/// removal. After 7 days the usage counts and the source addresses in the audit log are erased.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens",
    operation_id = "email-tokens-revoke",
    tag = tag::EMAIL_TOKENS,
    responses((status = 204, description = "The token is revoked."), HolderErrors, NoFieldsErrors),
)]
async fn revoke(
    State(MailApp { app, mailer }): State<MailApp>,
    holder: EmailHolder<EmailTokensRevoke>,
    _: NoQuery,
    _: NoFields,
) -> Result<NoContent, ApiError> {
    let removed = app.store().remove_email_token(&holder.token, holder.hash, &holder.caller).await?;
    let removed = removed.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?;
    send_key_removed(&mailer, &removed).await;
    Ok(NoContent)
}
