//! `POST /api/v1/tokens/regenerate`: replaces the caller's token.

use axum::extract::State;
use shared::error::Unauthorized;
use shared::mail::send_key_changed;
use shared::openapi::{HolderErrors, NoFieldsErrors, tag};
use shared::permissions::EmailTokensRegenerate;
use shared::views::NewEmailTokenView;
use shared::{ApiError, EmailHolder, Json, MailApp, NoFields, NoQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<MailApp> {
    OpenApiRouter::new().routes(routes!(regenerate))
}

/// Regenerate a token
///
/// Replaces the caller's token. The old token stops working, permanently, once this call returns.
/// Of concurrent calls exactly one succeeds; the others get 401. A mail notifies the address of the
/// change.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/regenerate",
    operation_id = "email-tokens-regenerate",
    tag = tag::EMAIL_TOKENS,
    responses((status = 200, description = "The new token.", body = NewEmailTokenView), HolderErrors, NoFieldsErrors),
)]
async fn regenerate(
    State(MailApp { app, mailer }): State<MailApp>,
    holder: EmailHolder<EmailTokensRegenerate>,
    _: NoQuery,
    _: NoFields,
) -> Result<Json<NewEmailTokenView>, ApiError> {
    let replaced = app.store().regenerate(&holder.token, holder.hash, &holder.caller).await?;
    let replaced = replaced.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?;
    send_key_changed(&app, &mailer, &replaced, false).await;
    Ok(Json(replaced.into()))
}
