//! `GET /api/v1/tokens/status`: what is known of the caller's own token.

use axum::extract::State;
use serde::Serialize;
use shared::email::Language;
use shared::error::Unauthorized;
use shared::ids::TokenId;
use shared::openapi::{HolderErrors, tag};
use shared::principal::EmailTokensStatus;
use shared::store::usage::Usage;
use shared::views::EmailTokenStatus;
use shared::{ApiError, App, EmailHolder, Json, Moment, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(status))
}

/// An e-mail-verified token, without the token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EmailToken)]
struct Status {
    /// Its management id.
    id: TokenId,
    /// Whether its holder is known to have it.
    status: EmailTokenStatus,
    /// The address it was mailed to, masked.
    #[schema(example = "y***@example.com")]
    email: String,
    /// What mails are written in.
    #[schema(inline)]
    language: Language,
    /// When it was made.
    created_at: Moment,
    /// When it was last used, give or take a minute; null if it never was.
    last_used_at: Option<Moment>,
    /// What it was used for.
    usage: Usage,
}

/// Check a token's status
///
/// Reading it is no use of the token.
#[utoipa::path(
    get,
    path = "/api/v1/tokens/status",
    operation_id = "email-tokens-status",
    tag = tag::EMAIL_TOKENS,
    responses((status = 200, description = "What is known of the token.", body = Status), HolderErrors),
)]
async fn status(
    State(app): State<App>,
    holder: EmailHolder<EmailTokensStatus>,
    _: NoQuery,
) -> Result<Json<Status>, ApiError> {
    let token = holder.token;
    let (address, usage) = tokio::try_join!(app.store().address_of(&token), app.store().usage(&token.id))?;
    // Without its address the token was replaced or revoked since the guard looked.
    let address = address.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?;
    Ok(Json(Status {
        status: EmailTokenStatus::from(&token),
        id: token.id,
        email: address.email.masked(),
        language: address.language,
        created_at: token.created_at,
        last_used_at: token.last_used_at,
        usage,
    }))
}
