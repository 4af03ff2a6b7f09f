//! `POST /api/v1/tokens/regenerate`: puts a new token in the place of the caller's own.

use axum::extract::State;
use shared::error::Unauthorized;
use shared::mail::tell_of_change;
use shared::openapi::{HolderErrors, tag};
use shared::principal::EmailTokensRegenerate;
use shared::views::NewEmailTokenView;
use shared::{ApiError, App, EmailHolder, Json, NoQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(regenerate))
}

/// Regenerate a token
///
/// The old token counts no more from the moment of the answer. Of callers at once exactly one gets a new token; the
/// others hold the old one, and get 401. A mail tells the address of the change.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/regenerate",
    operation_id = "email-tokens-regenerate",
    tag = tag::EMAIL_TOKENS,
    responses((status = 200, description = "The new token.", body = NewEmailTokenView), HolderErrors),
)]
async fn regenerate(
    State(app): State<App>,
    holder: EmailHolder<EmailTokensRegenerate>,
    _: NoQuery,
) -> Result<Json<NewEmailTokenView>, ApiError> {
    let mailer = app.mailer()?;
    let replaced = app.store().regenerate(&holder.token, holder.hash, &holder.caller).await?;
    let replaced = replaced.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?;
    tell_of_change(&app, mailer, &replaced, false).await;
    Ok(Json(replaced.into()))
}
