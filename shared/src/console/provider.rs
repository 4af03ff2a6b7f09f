//! The way to an identity provider and back: the state of its pages, and what a browser keeps
//! meanwhile.

use axum::extract::FromRef;
use axum::response::IntoResponseParts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;

use super::cookie::Cookie;
use super::respond::return_path;
use super::{Console, ConsoleApp, ROOT};
use crate::app::App;
use crate::oidc::{Attempt, IdentityProvider};
use crate::secret::RandomnessUnavailable;

/// The longest path that is returned to, in bytes: a browser keeps cookies of 4,096.
const LONGEST_PATH: usize = 2_048;

/// The state of pages on the way to an identity provider and back.
#[derive(Debug, Clone, FromRef)]
pub struct ConsoleProviderApp {
    /// The state that every function needs.
    pub app: App,
    /// The console.
    pub console: Console,
    /// The identity provider, where people sign in with one.
    pub provider: Option<IdentityProvider>,
}

impl ConsoleProviderApp {
    /// Configures the state from the environment.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed.
    pub async fn from_env() -> Result<Self, lambda_http::Error> {
        let ConsoleApp { app, console } = ConsoleApp::from_env().await?;
        let provider = match console.sign_in().by_provider() {
            true => Some(IdentityProvider::from_env(app.clock().clone()).await?),
            false => None,
        };
        Ok(Self { app, console, provider })
    }
}

/// Somebody who is at the identity provider: what the browser's cookie holds.
#[derive(Debug, Clone)]
pub struct Away {
    /// The sign-in.
    pub attempt: Attempt,
    /// The path to return to.
    pub return_to: String,
}

impl Away {
    /// Somebody who leaves for the provider and is to return to this path.
    ///
    /// # Errors
    ///
    /// If the operating system's random number generator fails.
    pub fn new(return_to: Option<&str>) -> Result<Self, RandomnessUnavailable> {
        let return_to = return_path(return_to.filter(|path| path.len() <= LONGEST_PATH));
        Ok(Self { attempt: Attempt::generate()?, return_to: return_to.to_owned() })
    }

    /// Who the browser says is away. `None` if it has no such cookie, or a malformed one.
    pub fn read(console: &Console, headers: &HeaderMap) -> Option<Self> {
        let (attempt, return_to) = Cookie::Away.value(console, headers)?.split_once('.')?;
        let path = String::from_utf8(URL_SAFE_NO_PAD.decode(return_to).ok()?).ok()?;
        Some(Self { attempt: Attempt::parse(attempt)?, return_to: return_path(Some(&path)).to_owned() })
    }

    /// The header that sets the cookie.
    pub fn set(&self, console: &Console) -> impl IntoResponseParts + use<> {
        let path = if self.return_to == ROOT { "" } else { &self.return_to };
        let value = format!("{}.{}", self.attempt.expose(), URL_SAFE_NO_PAD.encode(path));
        Cookie::Away.set_value(console, &value)
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::header;

    use super::*;

    /// What a browser sends back of the cookie.
    fn kept(away: &Away, console: &Console) -> String {
        let response = (away.set(console), ()).into_response();
        let set = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
        assert!(set.len() < 4_096 && set.contains("; Max-Age=600; HttpOnly; SameSite=Lax"), "{set}");
        set.split(';').next().unwrap().to_owned()
    }

    fn read(console: &Console, cookie: &str) -> Option<Away> {
        Away::read(console, &HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]))
    }

    #[test]
    fn cookie_round_trips_attempt_and_path() {
        let console = Console::at("https://guard.example.com");
        let longest = format!("/console/{}", "a".repeat(LONGEST_PATH - 9));
        for (path, expected) in [
            (Some("/console/o/OG1/tokens?state=revoked;a=b"), "/console/o/OG1/tokens?state=revoked;a=b"),
            (Some(longest.as_str()), longest.as_str()),
            (Some(format!("{longest}a").as_str()), ROOT),
            (Some("https://evil.example/"), ROOT),
            (None, ROOT),
        ] {
            let away = Away::new(path).unwrap();
            let cookie = kept(&away, &console);
            assert!(cookie.starts_with("__Host-guard_away="), "{cookie}");
            let back = read(&console, &cookie).unwrap();
            assert_eq!((back.return_to.as_str(), back.attempt.expose()), (expected, away.attempt.expose()));
        }
    }

    #[test]
    fn altered_cookie_leads_nowhere_else() {
        let console = Console::at("https://guard.example.com");
        let secret = "a".repeat(43);
        let with = |path: &str| read(&console, &format!("__Host-guard_away={secret}.{}", URL_SAFE_NO_PAD.encode(path)));
        for path in ["https://evil.example/", "//evil.example/console/", "/v1/whoami", "/console/\r\na: b"] {
            assert_eq!(with(path).unwrap().return_to, ROOT, "{path}");
        }
        for value in ["", ".", &secret, "a.", &format!("{secret}.="), &format!("{secret}._w"), &format!("{secret}a.")] {
            assert!(read(&console, &format!("__Host-guard_away={value}")).is_none(), "{value}");
        }
    }
}
