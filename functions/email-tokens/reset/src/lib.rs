//! `POST /api/v1/tokens/reset`: replaces a lost token, given a reset code from a mail.

use axum::extract::State;
use serde::Deserialize;
use shared::email::EmailAddress;
use shared::mail::send_key_changed;
use shared::openapi::{ResetErrors, tag};
use shared::secret::TypedCode;
use shared::store::audit::Subject;
use shared::views::NewEmailTokenView;
use shared::{ApiError, Json, MailApp, NoQuery, RateLimitedCaller};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<MailApp> {
    OpenApiRouter::new().routes(routes!(reset))
}

/// An address and its reset code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResetEmailToken)]
struct Request {
    email: EmailAddress,
    /// The reset code from the mail. Case and dashes are ignored.
    #[schema(value_type = String, example = "7K3M-9QXT-2VWB-5RHE")]
    code: TypedCode,
}

/// Reset a token
///
/// Replaces the address's token. The old token and the code stop working, permanently, once this
/// call returns. A mail notifies the address of the change. A wrong, expired, used or unknown code
/// always gets the same error.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/reset",
    operation_id = "email-tokens-reset",
    tag = tag::EMAIL_TOKENS,
    request_body = Request,
    responses((status = 200, description = "The new token.", body = NewEmailTokenView), ResetErrors),
)]
async fn reset(
    State(MailApp { app, mailer }): State<MailApp>,
    RateLimitedCaller { mut caller }: RateLimitedCaller,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<Json<NewEmailTokenView>, ApiError> {
    let code = request.code.0.ok_or(ApiError::InvalidResetCode)?;
    // The code proves access to the mailbox, so the address is the actor.
    caller.actor = Subject::new("email_address", request.email.hash().to_hex());
    let replaced = app.store().reset(&request.email, &code, &caller).await?;
    let replaced = replaced.ok_or(ApiError::InvalidResetCode)?;
    send_key_changed(&app, &mailer, &replaced, true).await;
    Ok(Json(replaced.into()))
}
