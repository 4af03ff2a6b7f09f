//! The cookies of a browser. Only the console reads cookies: a request of the API never
//! authenticates by one.

use axum::response::{AppendHeaders, IntoResponseParts};
use http::{HeaderMap, HeaderName, header};

use super::Console;
use crate::secret::{Token, TokenKind};
use crate::store::sessions;

/// A cookie of the console, by what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cookie {
    /// The secret of a session.
    Session,
    /// The secret of a browser that is signing in.
    SigningIn,
    /// The secret of a browser that has signed in before.
    Device,
    /// What a browser keeps while its person is at the identity provider.
    Away,
}

impl Cookie {
    fn name(self, console: &Console) -> String {
        let name = match self {
            Cookie::Session => "guard_session",
            Cookie::SigningIn => "guard_signing_in",
            Cookie::Device => "guard_device",
            Cookie::Away => "guard_away",
        };
        match console.local_port() {
            // Cookies ignore ports: without the port, services on this machine would share one.
            Some(port) => format!("{name}_{port}"),
            None => format!("__Host-{name}"),
        }
    }

    /// How long a browser keeps it, in seconds.
    fn max_age(self) -> u64 {
        match self {
            Cookie::Session => sessions::LIFETIME.as_secs(),
            Cookie::SigningIn => 15 * 60,
            Cookie::Device => 180 * 24 * 60 * 60,
            Cookie::Away => 10 * 60,
        }
    }

    /// The secret in this cookie. `None` if there is none, it is malformed, or given twice.
    pub fn read(self, console: &Console, headers: &HeaderMap) -> Option<Token> {
        Token::parse(self.value(console, headers)?).filter(|token| token.kind() == TokenKind::Session)
    }

    /// The text of this cookie. `None` if there is none, or it is given twice.
    pub(super) fn value<'a>(self, console: &Console, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = self.name(console);
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
        let (value, second) = (values.next()?, values.next());
        second.is_none().then_some(value)
    }

    /// The header that sets this cookie.
    pub fn set(self, console: &Console, secret: &Token) -> impl IntoResponseParts + use<> {
        self.header(console, secret.expose(), self.max_age())
    }

    /// The header that sets this cookie to a text of characters that cookies may hold.
    #[cfg(feature = "provider")]
    pub(super) fn set_value(self, console: &Console, text: &str) -> impl IntoResponseParts + use<> {
        self.header(console, text, self.max_age())
    }

    /// The header that removes this cookie.
    pub fn remove(self, console: &Console) -> impl IntoResponseParts + use<> {
        self.header(console, "", 0)
    }

    fn header(self, console: &Console, value: &str, max_age: u64) -> AppendHeaders<[(HeaderName, String); 1]> {
        let secure = if console.local_port().is_some() { "" } else { "; Secure" };
        let name = self.name(console);
        let cookie = format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
        AppendHeaders([(header::SET_COOKIE, cookie)])
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[String]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn cookie_is_bound_to_the_host_and_to_https() {
        let secret = Token::generate(TokenKind::Session).unwrap();
        let AppendHeaders([(_, header)]) =
            Cookie::Session.header(&Console::at("https://guard.example.com"), secret.expose(), 86_400);
        let expected =
            format!("__Host-guard_session={}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax; Secure", secret.expose());
        assert_eq!(header, expected);
        let AppendHeaders([(_, header)]) =
            Cookie::Session.header(&Console::at("http://127.0.0.1:3000"), secret.expose(), 86_400);
        assert!(header.starts_with("guard_session_3000=gs_") && !header.contains("Secure"), "{header}");
    }

    #[test]
    fn cookie_is_read_if_it_is_there_once_and_well_formed() {
        let console = Console::at("https://guard.example.com");
        let secret = Token::generate(TokenKind::Session).unwrap();
        let good = format!("__Host-guard_session={}", secret.expose());
        let read = |lines: &[String]| Cookie::Session.read(&console, &headers(lines)).map(|token| token.hash());
        assert_eq!(read(&[format!("a=b; {good}; c=d")]), Some(secret.hash()));
        assert_eq!(read(&["a=b".to_owned(), good.clone()]), Some(secret.hash()));
        let foreign = Token::generate(TokenKind::OrgUser).unwrap();
        for lines in [
            vec![],
            vec![good.clone(), good.clone()],
            vec![format!("guard_session={}", secret.expose())],
            vec![format!("__Host-guard_session={}x", secret.expose())],
            vec![format!("__Host-guard_session={}", foreign.expose())],
            vec!["__Host-guard_session=".to_owned()],
        ] {
            assert_eq!(read(&lines), None, "{lines:?}");
        }
    }
}
