//! The way into the console on this machine: a link that is printed at each start and works once.
//! It signs in as the owner of the demo organization.

use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::Router;
use axum::extract::{FromRef, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use shared::console::cookie::Cookie;
use shared::console::form::OpenForm;
use shared::console::guard::user_agent;
use shared::console::messages::Messages;
use shared::console::page::preferred;
use shared::console::respond::{problem, respond};
use shared::console::{Console, Frame, ROOT, html, see_other};
use shared::observe::{Origin, observed};
use shared::person::Person;
use shared::secret::{RandomnessUnavailable, Token, TokenKind};
use shared::store::audit::{Caller, Subject};
use shared::{ApiError, App};

/// The route of the link.
const PATH: &str = "/console/sign-in/local/";

/// The link that was printed. Only the process knows it.
#[derive(Debug, Clone)]
pub struct Link {
    key: Arc<Mutex<Option<Token>>>,
}

#[derive(Debug, Clone, FromRef)]
struct SignInApp {
    app: App,
    console: Console,
    link: Link,
    owner: Arc<Person>,
}

impl Link {
    /// Makes a link, and its URL on this base URL.
    pub fn generate(base_url: &str) -> Result<(Self, String), RandomnessUnavailable> {
        let key = Token::generate(TokenKind::Session)?;
        let url = format!("{base_url}{PATH}{}", key.expose());
        Ok((Self { key: Arc::new(Mutex::new(Some(key))) }, url))
    }

    /// The routes of the link, which signs in as this person.
    pub fn router(self, app: App, console: Console, owner: Person) -> Router {
        let state = SignInApp { app, console: console.clone(), link: self, owner: Arc::new(owner) };
        let routes = Router::new().route(&format!("{PATH}{{key}}"), get(ask).post(sign_in)).with_state(state);
        observed(routes.layer(from_fn_with_state(console, respond)))
    }

    fn is(&self, key: &str) -> bool {
        let known = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let given = Token::parse(key);
        known.as_ref().zip(given).is_some_and(|(known, given)| known.hash() == given.hash())
    }

    /// Uses up the link, of concurrent callers for exactly one.
    fn take(&self, key: &str) -> Option<Token> {
        let mut known = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let given = Token::parse(key)?;
        known.take_if(|known| known.hash() == given.hash())
    }

    fn put_back(&self, key: Token) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

#[derive(Template)]
#[template(path = "console/one_button.html")]
struct OneButton<'a> {
    page: Frame,
    text: &'a str,
    submit: &'a str,
    action: String,
}

/// Opening the link changes nothing: browsers and chat programs open links by themselves.
async fn ask(State(link): State<Link>, headers: HeaderMap, Path(key): Path<String>) -> Result<Response, ApiError> {
    let language = preferred(&headers);
    if !link.is(&key) {
        return Ok(used_up(&headers));
    }
    let m = Messages::of(language);
    let page = Frame::new(language, m.demo_sign_in);
    let action = format!("{PATH}{key}");
    html(StatusCode::OK, &OneButton { page, text: m.demo_sign_in_text, submit: m.sign_in, action })
}

#[derive(Deserialize)]
struct Nothing {}

async fn sign_in(
    State(SignInApp { app, console, link, owner }): State<SignInApp>,
    origin: Origin,
    headers: HeaderMap,
    Path(key): Path<String>,
    _: OpenForm<Nothing>,
) -> Result<Response, ApiError> {
    let Some(key) = link.take(&key) else { return Ok(used_up(&headers)) };
    let Origin { request_id, source_ip } = origin;
    let caller = Caller { actor: Subject::new("operator", "local"), source_ip, request_id, workload: None };
    match app.store().start_session(&owner, user_agent(&headers), &caller).await {
        Ok((_, secret)) => Ok((Cookie::Session.set(&console, &secret), see_other(ROOT)).into_response()),
        Err(error) => {
            link.put_back(key);
            Err(error.into())
        }
    }
}

fn used_up(headers: &HeaderMap) -> Response {
    let language = preferred(headers);
    let m = Messages::of(language);
    problem(StatusCode::GONE, Frame::new(language, m.link_used), m.link_used_text, "")
}
