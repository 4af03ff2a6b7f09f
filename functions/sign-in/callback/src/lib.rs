//! The way to an identity provider, and back with a callback. The only function that knows our
//! secret there, and that asks it anything.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use shared::console::cookie::Cookie;
use shared::console::page::preferred;
use shared::console::provider::Away;
use shared::console::respond::error_page;
use shared::console::sign_in::enter;
use shared::console::{Frame, SIGN_IN, see_other};
use shared::observe::Origin;
use shared::oidc::{Callback, Reason, Refusal};
use shared::person::Person;
use shared::{ApiError, ConsoleProviderApp};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleProviderApp> {
    OpenApiRouter::new()
        .route("/console/sign-in/provider", get(leave))
        .route("/console/sign-in/callback", get(come_back))
}

#[derive(Default, Deserialize)]
struct Asked {
    return_to: Option<String>,
}

async fn leave(
    State(ConsoleProviderApp { console, provider, .. }): State<ConsoleProviderApp>,
    origin: Origin,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, ApiError> {
    let provider = provider.ok_or(ApiError::NotFound)?;
    let Query(asked) = asked.unwrap_or_default();
    let away = Away::new(asked.return_to.as_deref())?;
    match provider.authorization_url(&away.attempt).await {
        Ok(url) => Ok((away.set(&console), see_other(url.as_str())).into_response()),
        Err(refusal) => Ok(refused(refusal, &origin, &headers)),
    }
}

async fn come_back(
    State(ConsoleProviderApp { app, console, provider }): State<ConsoleProviderApp>,
    origin: Origin,
    headers: HeaderMap,
    callback: Result<Query<Callback>, QueryRejection>,
) -> Result<Response, ApiError> {
    let provider = provider.ok_or(ApiError::NotFound)?;
    // A callback that repeats a parameter is one without a state.
    let Query(callback) = callback.unwrap_or_default();
    let Some(away) = Away::read(&console, &headers) else {
        tracing::warn!("a callback came to a browser that is not signing in");
        return Ok(back_to_sign_in("failed"));
    };
    let removed = Cookie::Away.remove(&console);
    let person = match provider.sign_in(&callback, &away.attempt).await {
        Ok(person) => person,
        // Neither uses up the attempt: this callback is another one's, or it may be repeated.
        Err(refusal @ (Refusal::Invalid(Reason::State) | Refusal::Unavailable { .. })) => {
            return Ok(refused(refusal, &origin, &headers));
        }
        Err(refusal) => return Ok((removed, refused(refusal, &origin, &headers)).into_response()),
    };
    let Some(email) = person.verified_email else {
        return Ok((removed, back_to_sign_in("unverified")).into_response());
    };
    let person = Person::of_provider(&person.issuer, &person.subject, email);
    let store = app.store();
    let (memberships, invitations) =
        tokio::try_join!(store.memberships(person.id), store.invitations_of(&person.email))?;
    if memberships.is_empty() && invitations.is_empty() {
        return Ok((removed, back_to_sign_in("uninvited")).into_response());
    }
    let entered = enter(&app, &console, &headers, origin, &person, Some(&away.return_to)).await?;
    Ok((removed, entered).into_response())
}

/// Answers that nobody is signed in. The person is not told why; the log is, without any value.
fn refused(refusal: Refusal, origin: &Origin, headers: &HeaderMap) -> Response {
    match refusal {
        Refusal::Invalid(reason) => {
            tracing::warn!(%reason, "the identity provider signed nobody in");
            back_to_sign_in("failed")
        }
        Refusal::Unavailable { retry_after } => {
            let frame = Frame::new(preferred(headers), "");
            let mut response = error_page(&ApiError::Unavailable, &origin.request_id, frame);
            let seconds = HeaderValue::from(retry_after.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
            response
        }
    }
}

/// Leads to the page on which people sign in, which says what happened.
fn back_to_sign_in(what: &str) -> Response {
    see_other(&format!("{SIGN_IN}?{what}"))
}
