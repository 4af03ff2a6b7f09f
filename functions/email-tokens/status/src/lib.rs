//! `GET /api/v1/tokens/status`: the status of the caller's token.

use axum::extract::State;
use serde::Serialize;
use shared::email::Language;
use shared::error::Unauthorized;
use shared::ids::TokenId;
use shared::openapi::{HolderErrors, tag};
use shared::permissions::EmailTokensStatus;
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

/// An email-verified token, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EmailToken)]
struct Status {
    /// The token's management id.
    id: TokenId,
    /// Whether its holder is known to have received it.
    status: EmailTokenStatus,
    /// The e-mail address of the token, masked.
    #[schema(example = "y***@example.com")]
    email: String,
    /// The language of mails to this address.
    #[schema(inline)]
    language: Language,
    /// When the token was created.
    created_at: Moment,
    /// When the token was last used, accurate to a minute; null if never.
    last_used_at: Option<Moment>,
    /// Downloads with the token.
    usage: Usage,
}

/// Get a token's status
///
/// Returns the status of the caller's token. This call does not update `last_used_at`.
#[utoipa::path(
    get,
    path = "/api/v1/tokens/status",
    operation_id = "email-tokens-status",
    tag = tag::EMAIL_TOKENS,
    responses((status = 200, description = "The token's status.", body = Status), HolderErrors),
)]
async fn status(
    State(app): State<App>,
    holder: EmailHolder<EmailTokensStatus>,
    _: NoQuery,
) -> Result<Json<Status>, ApiError> {
    let token = holder.token;
    let (address, usage) = tokio::try_join!(app.store().address_of(&token), app.store().usage(&token.id))?;
    // No address: the token was replaced or revoked after it was authenticated.
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
