//! `POST /api/v1/tokens`: registers an e-mail address. The token arrives by mail.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::email::{EmailAddress, Language};
use shared::mail::{Mail, MailError, Mailer};
use shared::openapi::{RateLimitedErrors, tag};
use shared::store::audit::Caller;
use shared::store::email_tokens::Registration;
use shared::store::mail_limits::{CountedMail, Recipient};
use shared::store::registration::RegistrationPolicy;
use shared::{ApiError, App, Json, MailApp, NoQuery, RateLimitedCaller};
use tokio::time::Instant;
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
    responses((status = 202, description = "Accepted. A mail is sent unless a limit of mails is reached or registration is not open to the address.", body = Accepted), RateLimitedErrors),
)]
async fn register(
    State(MailApp { app, mailer }): State<MailApp>,
    RateLimitedCaller { caller }: RateLimitedCaller,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let started = Instant::now();
    let result = register_and_mail(&app, &mailer, &request, &caller).await;
    tokio::time::sleep_until(started + app.limits().registration_end(started.elapsed())).await;
    result?;
    let message = "If this address can receive mail, a message is on its way.";
    Ok((StatusCode::ACCEPTED, Json(Accepted { message })))
}

async fn register_and_mail(app: &App, mailer: &Mailer, request: &Request, caller: &Caller) -> Result<(), ApiError> {
    let store = app.store();
    let (recipient, policy) = tokio::try_join!(store.recipient(request.email.hash()), store.registration())?;
    let policy = policy.as_ref().unwrap_or(&app.limits().registration);
    // Checked first, so that an address over its limit uses up no other limit.
    let Some(mut recipient) = recipient else { return Ok(()) };
    let Some(mut counted) = admitted(app, policy, recipient, &request.email, caller).await? else { return Ok(()) };
    let registration = store.register(&request.email, request.language, caller).await?;
    let sent = match &registration {
        Registration::Welcome { to, language, token, .. } => {
            if recipient == Recipient::Known {
                // The token was revoked in the meantime: this mail was counted as another kind.
                store.uncount_mail(counted).await?;
                recipient = Recipient::New;
                match admitted(app, policy, recipient, &request.email, caller).await? {
                    Some(again) => counted = again,
                    None => return Ok(store.mail_failed(&request.email, &registration, true).await?),
                }
            }
            mailer.send(to, *language, &Mail::Welcome { token }).await
        }
        Registration::Recovery { to, language, code, .. } => mailer.send(to, *language, &Mail::Recovery { code }).await,
        Registration::Limited => return Ok(store.uncount_mail(counted).await?),
    };
    if let Err(error) = sent {
        let definitely_not_sent = error == MailError::NotSent;
        store.mail_failed(&request.email, &registration, definitely_not_sent).await?;
        if definitely_not_sent {
            store.uncount_mail(counted).await?;
        }
        // An address of the other kind that is sent no mail is answered 202, so this one must be too.
        let Some(other) = admitted(app, policy, recipient.other(), &request.email, caller).await? else {
            return Ok(());
        };
        store.uncount_mail(other).await?;
        return Err(error.into());
    }
    Ok(())
}

/// Counts a mail; `None` if it must not be sent. The caller cannot tell: who is registered, and how
/// much others register, is not theirs to know.
async fn admitted(
    app: &App,
    policy: &RegistrationPolicy,
    recipient: Recipient,
    email: &EmailAddress,
    caller: &Caller,
) -> Result<Option<CountedMail>, ApiError> {
    if recipient == Recipient::New && !policy.admits(email) {
        tracing::info!("registration is not open to this address");
        return Ok(None);
    }
    let limits = &app.limits().mails;
    match app.store().count_mail(recipient, email, caller.source_ip, limits).await? {
        Ok(counted) => {
            // Early enough to react.
            if counted.reaches_80_percent(limits) {
                tracing::error!("80 percent of the hourly mail limit of the deployment is used");
            }
            Ok(Some(counted))
        }
        Err(reached) => {
            reached.log(email);
            Ok(None)
        }
    }
}
