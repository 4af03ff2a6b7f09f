//! `POST /api/v1/tokens`: registers an address; the key arrives by mail.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::email::{EmailAddress, Language};
use shared::mail::{Mail, MailError};
use shared::openapi::{AnybodyErrors, tag};
use shared::store::audit::Caller;
use shared::store::email_tokens::Registration;
use shared::{Anybody, ApiError, App, Json, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(register))
}

/// Whose address to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegisterAddress)]
struct Request {
    email: EmailAddress,
    /// What the mails are to be written in; left out, as before, or English.
    language: Option<Language>,
}

/// That a mail is on its way, if one is due.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RegisteredAddress)]
struct Accepted {
    /// For people.
    #[schema(example = "If this address can receive mail, a message is on its way.")]
    message: &'static str,
}

/// Register an address
///
/// A new address is mailed a key; one that has a key already is mailed how to find it, with a code to get another. The
/// answer is the same for every address, and says nothing about whose it is.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    operation_id = "email-tokens-register",
    tag = tag::EMAIL_TOKENS,
    request_body = Request,
    responses((status = 202, description = "A mail is on its way, if one is due.", body = Accepted), AnybodyErrors),
)]
async fn register(
    State(app): State<App>,
    Anybody { caller }: Anybody,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    // Runs beside the work and begins here: see `Limits::registration_time`.
    let long_enough = tokio::time::sleep(app.limits().registration_time);
    let result = register_and_mail(&app, &request, &caller).await;
    long_enough.await;
    result?;
    let message = "If this address can receive mail, a message is on its way.";
    Ok((StatusCode::ACCEPTED, Json(Accepted { message })))
}

async fn register_and_mail(app: &App, request: &Request, caller: &Caller) -> Result<(), ApiError> {
    let (store, mailer) = (app.store(), app.mailer()?);
    // Before the deployment's mails are counted: an address that gets none must not use them up.
    if !store.may_mail(request.email.hash()).await? {
        return Ok(());
    }
    if let Some(limit) = app.limits().mails_per_hour {
        let mails = store.count_mail().await?;
        if mails > limit {
            tracing::error!(limit, "the deployment's mails of this hour are used up");
            return Err(ApiError::Unavailable);
        }
        // While there is time to do something. Once in an hour at the most: a count whose answer was lost is given to nobody.
        if mails == limit - limit / 5 {
            tracing::error!(limit, "four fifths of the deployment's mails of this hour are used");
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
