//! `GET /console/sign-in`: the page on which people sign in.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::console::messages::Messages;
use shared::console::page::preferred;
use shared::console::respond::return_path;
use shared::console::sign_in::SignInPage;
use shared::console::{Console, SIGN_IN, SignedIn, html, see_other};
use shared::{ApiError, App, ConsoleApp};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new().route(SIGN_IN, get(start))
}

#[derive(Default, Deserialize)]
struct Asked {
    return_to: Option<String>,
    signed_out: Option<String>,
    failed: Option<String>,
    unverified: Option<String>,
}

async fn start(
    State(app): State<App>,
    State(console): State<Console>,
    me: Result<SignedIn, ApiError>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(asked) = asked.unwrap_or_default();
    let return_to = return_path(asked.return_to.as_deref());
    let (mut language, mut no_membership) = (preferred(&headers), false);
    match me {
        Ok(me) => match me.memberships(&app).await {
            Ok(_) => return Ok(see_other(return_to)),
            // Every page would lead back to this one.
            Err(ApiError::Unauthorized(_)) => (language, no_membership) = (me.language, true),
            Err(error) => return Err(error),
        },
        Err(ApiError::Unauthorized(_)) => {}
        Err(error) => return Err(error),
    }
    let m = Messages::of(language);
    let first =
        |texts: &[(bool, &'static str)]| texts.iter().find(|(is_shown, _)| *is_shown).map_or("", |(_, text)| text);
    let page = SignInPage {
        message: first(&[(asked.signed_out.is_some(), m.signed_out), (no_membership, m.no_membership_text)]),
        error: first(&[
            (asked.failed.is_some(), m.sign_in_failed),
            (asked.unverified.is_some(), m.address_not_verified),
        ]),
        ..SignInPage::new(&console, language, return_to)
    };
    html(StatusCode::OK, &page)
}
