//! `POST /api/v1/tokens`: registers an e-mail address. The token arrives by mail.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::email::{EmailAddress, Language};
use shared::mail::{Mail, MailError, Mailer};
use shared::openapi::{RateLimitedErrors, tag};
use shared::store::audit::Caller;
use shared::store::email_tokens::Registration;
use shared::{ApiError, App, Json, MailApp, NoQuery, RateLimitedCaller};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<MailApp> {
    OpenApiRouter::new().routes(routes!(register))
}

/// The address to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegisterAddress)]
struct Request {
    email: EmailAddress,
    /// The language of the mails. Defaults to the language used before, else English.
    language: Option<Language>,
}

/// The same response for every address.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RegisteredAddress)]
struct Accepted {
    /// A message for people.
    #[schema(example = "If this address can receive mail, a message is on its way.")]
    message: &'static str,
}

/// Register an e-mail address
///
/// A new address is mailed a token. An address that already has one is mailed where to find it, and
/// a reset code to replace it. The response is the same for every address, so it does not reveal
/// who is registered.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    operation_id = "email-tokens-register",
    tag = tag::EMAIL_TOKENS,
    request_body = Request,
    responses((status = 202, description = "Accepted. A mail is sent unless the address has reached its mail limit.", body = Accepted), RateLimitedErrors),
)]
async fn register(
    State(MailApp { app, mailer }): State<MailApp>,
    RateLimitedCaller { caller }: RateLimitedCaller,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    // Starts before the work: see `Limits::registration_time`.
    let minimum_duration = tokio::time::sleep(app.limits().registration_time);
    let result = register_and_mail(&app, &mailer, &request, &caller).await;
    minimum_duration.await;
    result?;
    let message = "If this address can receive mail, a message is on its way.";
    Ok((StatusCode::ACCEPTED, Json(Accepted { message })))
}

async fn register_and_mail(app: &App, mailer: &Mailer, request: &Request, caller: &Caller) -> Result<(), ApiError> {
    let store = app.store();
    // Checked first, so that an address over its limit does not use up the deployment's mails.
    if !store.may_mail(request.email.hash()).await? {
        return Ok(());
    }
    if let Some(limit) = app.limits().mails_per_hour {
        let mails = store.count_mail().await?;
        if mails > limit {
            tracing::error!(limit, "the hourly mail limit of the deployment is reached");
            return Err(ApiError::Unavailable);
        }
        // Early enough to react. At most once an hour: a count whose response was lost is never
        // returned again.
        if mails == limit - limit / 5 {
            tracing::error!(limit, "80 percent of the hourly mail limit of the deployment is used");
        }
    }
    let registration = store.register(&request.email, request.language, caller).await?;
    let sent = match &registration {
        Registration::Welcome { to, language, token } => mailer.send(to, *language, &Mail::Welcome { token }).await,
        Registration::Recovery { to, language, code, .. } => mailer.send(to, *language, &Mail::Recovery { code }).await,
        Registration::Limited => Ok(()),
    };
    if let Err(error) = sent {
        store.mail_failed(&request.email, &registration, error == MailError::NotSent).await?;
        return Err(error.into());
    }
    Ok(())
}
