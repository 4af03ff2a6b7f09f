//! What the pages of org user tokens share: those of the organization, and the member's own.

use askama::Template;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::page::{Confirm, Fact, Frame, html};
use super::{Console, messages::Messages};
use crate::clock::Moment;
use crate::error::ApiError;
use crate::secret::Token;
use crate::setup::Setup;
use crate::store::tokens::OrgUserToken;

/// The page that shows a new token, once.
#[derive(Template)]
#[template(path = "console/token_issued.html")]
struct Issued<'a> {
    page: Frame,
    identifier: &'a str,
    token: &'a str,
    expires_at: String,
    note: String,
    list: String,
    setup: Setup,
}

/// Shows a new token, once. `list` is where "Done" leads, and `note` says when the token that it
/// replaces ends.
///
/// # Errors
///
/// If the page cannot be rendered.
pub fn issued(
    page: Frame,
    (token, plain): (&OrgUserToken, &Token),
    (note, list): (String, &str),
    console: &Console,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let issued = Issued {
        list: format!("{}/{list}", page.base()),
        identifier: token.user_identifier.as_str(),
        token: plain.expose(),
        expires_at: token.expires_at.map(|at| at.to_string()).unwrap_or_default(),
        note,
        setup: console.setup(headers, plain.expose()),
        page,
    };
    html(StatusCode::OK, &issued)
}

/// What a page says of a token before it ends or is rotated.
pub fn facts(token: &OrgUserToken, m: &Messages) -> Vec<Fact> {
    let optional = |label: &str, at: Option<Moment>, otherwise: &str| match at {
        Some(at) => Fact::time(label, at),
        None => Fact::new(label, otherwise),
    };
    vec![
        Fact::new(m.user_identifier, token.user_identifier.as_str()),
        Fact::new(m.prefix, &token.token_prefix),
        Fact::time(m.issued, token.created_at),
        optional(m.expires, token.expires_at, m.not_expiring),
        optional(m.last_used, token.last_used_at, m.never_used),
    ]
}

/// Asks before a token is revoked. `list` is the page to go back to.
pub fn ask_to_revoke(page: Frame, token: &OrgUserToken, list: &str) -> Confirm {
    let (m, cancel) = (page.m, format!("{}/{list}", page.base()));
    Confirm::new(page, m.revoke_token_text, facts(token, m), m.revoke, cancel)
}
