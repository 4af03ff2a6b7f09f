//! `POST /console/sign-out`: ends the own session.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use shared::console::cookie::Cookie;
use shared::console::{Console, Form, SIGN_IN, SignedIn, see_other};
use shared::{ApiError, App, ConsoleApp};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new().route("/console/sign-out", post(sign_out))
}

#[derive(Deserialize)]
struct Nothing {}

async fn sign_out(
    State(app): State<App>,
    State(console): State<Console>,
    me: SignedIn,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    app.store().end_session(me.session.person, &me.session.id, &me.caller()).await?;
    Ok((Cookie::Session.remove(&console), see_other(&format!("{SIGN_IN}?signed_out"))).into_response())
}
