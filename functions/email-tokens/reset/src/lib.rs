//! `POST /api/v1/tokens/reset`: puts a new token in the place of a lost one, for a code from a mail.

use axum::extract::State;
use serde::Deserialize;
use shared::email::EmailAddress;
use shared::mail::tell_of_change;
use shared::openapi::{ResetErrors, tag};
use shared::secret::TypedCode;
use shared::store::audit::Subject;
use shared::views::NewEmailTokenView;
use shared::{Anybody, ApiError, App, Json, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(reset))
}

/// An address and the code it was sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ResetEmailToken)]
struct Request {
    email: EmailAddress,
    /// The code; case and dashes do not matter.
    #[schema(value_type = String, example = "7K3M-9QXT-2VWB-5RHE")]
    code: TypedCode,
}

/// Reset a token
///
/// The old token counts no more from the moment of the answer, and the code neither. A mail tells the address of the
/// change. A code that is wrong, expired, used up or unknown is answered alike.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/reset",
    operation_id = "email-tokens-reset",
    tag = tag::EMAIL_TOKENS,
    request_body = Request,
    responses((status = 200, description = "The new token.", body = NewEmailTokenView), ResetErrors),
)]
async fn reset(
    State(app): State<App>,
    Anybody { mut caller }: Anybody,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<Json<NewEmailTokenView>, ApiError> {
    let mailer = app.mailer()?;
    let code = request.code.0.ok_or(ApiError::InvalidResetCode)?;
    // Whoever has the code reads the address's mail, and acts as the address.
    caller.actor = Subject::new("email_address", request.email.hash().to_hex());
    let replaced = app.store().reset(&request.email, &code, &caller).await?;
    let replaced = replaced.ok_or(ApiError::InvalidResetCode)?;
    tell_of_change(&app, mailer, &replaced, true).await;
    Ok(Json(replaced.into()))
}
