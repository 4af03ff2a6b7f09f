//! The days that are left of a token, in its last week: a header that npm prints.
//!
//! npm prints it for every response, of which an installation has hundreds. So within one command,
//! which npm names in `npm-session`, it is left out once npm was sent it with a response that it
//! prints for: not a redirect, and not one that npm answers from its own cache.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use shared::Moment;
use shared::principal::Holder;
use shared::secret::TokenHash;
use shared::store::tokens::{OrgUserToken, StoredToken};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Commands that are remembered, and the longest name of one.
const COMMANDS: usize = 1_000;
const LONGEST_NAME: usize = 64;

/// The commands that were sent the header, by token. One process knows only some: others repeat it.
static SHOWN: Mutex<VecDeque<(TokenHash, String)>> = Mutex::new(VecDeque::new());

/// Adds the header to a successful response to this holder, if the token is in its last week. Bot
/// tokens live for a day at most and renew themselves; email-verified tokens do not expire.
pub fn add(mut response: Response, headers: &HeaderMap, holder: Option<&Holder>, now: Moment) -> Response {
    let Some(Holder { token: StoredToken::OrgUser(token), hash }) = holder else { return response };
    let Some(notice) = sentence(token, now).and_then(|sentence| HeaderValue::try_from(sentence).ok()) else {
        return response;
    };
    let session = headers.get("npm-session").and_then(|name| name.to_str().ok());
    if let Some(name) = session.filter(|name| name.len() <= LONGEST_NAME) {
        let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.iter().any(|(known, session)| known == hash && session == name) {
            return response;
        }
        if response.status() == StatusCode::OK {
            if shown.len() == COMMANDS {
                shown.pop_front();
            }
            shown.push_back((*hash, name.to_owned()));
        }
    }
    response.headers_mut().insert("npm-notice", notice);
    response
}

/// What is left of a token; `None` if it is more than a week.
fn sentence(token: &OrgUserToken, now: Moment) -> Option<String> {
    let end = token.expires_at.filter(|end| *end <= now.plus(WEEK))?;
    let days = match now.days_until(end) {
        ..=0 => "today".to_owned(),
        1 => "in 1 day".to_owned(),
        days => format!("in {days} days"),
    };
    let advice = match token.rotated {
        Some(_) => "It was rotated: set its successor in its place.",
        None => "Rotate it, or get a new one, and set that in its place.",
    };
    Some(format!("This token expires {days} ({}). {advice}", end.date()))
}
