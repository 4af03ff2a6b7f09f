//! Signing in: the ways that are on, the page that offers them, and the start of a session in a
//! browser, whichever way was taken.

use std::str::FromStr;

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;

use super::cookie::Cookie;
use super::guard::user_agent;
use super::page::Frame;
use super::respond::{return_path, returning};
use super::{Console, see_other};
use crate::app::App;
use crate::email::Language;
use crate::error::ApiError;
use crate::observe::Origin;
use crate::person::Person;
use crate::store::audit::{Caller, Subject};

/// The path that leads to the identity provider.
const PROVIDER: &str = "/console/sign-in/provider";

/// The ways to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignIn {
    /// With a code that is mailed.
    #[default]
    Mail,
    /// With an account of the identity provider.
    Provider,
    /// Either way.
    Both,
}

impl SignIn {
    /// Whether people sign in with a code that is mailed.
    pub fn by_mail(self) -> bool {
        self != SignIn::Provider
    }

    /// Whether people sign in with an account of the identity provider.
    pub fn by_provider(self) -> bool {
        self != SignIn::Mail
    }
}

/// A text that names no way to sign in.
#[derive(Debug, thiserror::Error)]
#[error("must be mail, provider or both")]
pub struct UnknownWay;

impl FromStr for SignIn {
    type Err = UnknownWay;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "mail" => Ok(SignIn::Mail),
            "provider" => Ok(SignIn::Provider),
            "both" => Ok(SignIn::Both),
            _ => Err(UnknownWay),
        }
    }
}

/// The page on which people sign in.
#[derive(Debug, Template)]
#[template(path = "console/sign_in.html")]
pub struct SignInPage {
    /// The frame.
    pub page: Frame,
    /// Whether people sign in by mail.
    pub by_mail: bool,
    /// The link to the identity provider, or an empty text.
    pub provider: String,
    /// Where to go afterwards.
    pub return_to: String,
    /// The address as typed.
    pub email: String,
    /// What is wrong with the address, or an empty text.
    pub email_error: &'static str,
    /// Why signing in failed, or an empty text.
    pub error: &'static str,
    /// What happened before, or an empty text.
    pub message: &'static str,
}

impl SignInPage {
    /// The page in this language, which leads to this path afterwards.
    pub fn new(console: &Console, language: Language, return_to: &str) -> Self {
        let frame = Frame::new(language, "");
        let provider = console.sign_in().by_provider().then(|| returning(PROVIDER, return_to));
        Self {
            page: Frame { title: frame.m.sign_in.to_owned(), ..frame },
            by_mail: console.sign_in().by_mail(),
            provider: provider.unwrap_or_default(),
            return_to: return_to.to_owned(),
            email: String::new(),
            email_error: "",
            error: "",
            message: "",
        }
    }
}

/// Starts a session of this person in this browser, and leads to a path of the console.
///
/// It is always a new session: one that the browser had before ends, whosever it was.
pub async fn enter(
    app: &App,
    console: &Console,
    headers: &HeaderMap,
    origin: Origin,
    person: &Person,
    return_to: Option<&str>,
) -> Result<Response, ApiError> {
    let store = app.store();
    let Origin { request_id, source_ip } = origin;
    let caller = Caller { actor: Subject::new("person", person.id.to_hex()), source_ip, request_id, workload: None };
    if let Some(secret) = Cookie::Session.read(console, headers)
        && let Some(earlier) = store.session(secret.hash()).await?
    {
        store.end_session(earlier.person, &earlier.id, &caller).await?;
    }
    let (_, secret) = store.start_session(person, user_agent(headers), &caller).await?;
    let cookies = (Cookie::Session.set(console, &secret), Cookie::SigningIn.remove(console));
    Ok((cookies.0, cookies.1, see_other(return_path(return_to))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_sign_in_are_named() {
        for (text, by_mail, by_provider) in [("mail", true, false), ("provider", false, true), ("both", true, true)] {
            let sign_in: SignIn = text.parse().unwrap();
            assert_eq!((sign_in.by_mail(), sign_in.by_provider()), (by_mail, by_provider), "{text}");
        }
        assert!("oidc".parse::<SignIn>().is_err());
    }
}
