//! Which package manager calls, and for which command: what it says of itself, for the installation log. Anybody can
//! say anything, so nothing is decided by it.

use http::HeaderMap;
use http::header::USER_AGENT;
use serde::Deserialize;

use crate::secret::Token;

/// How much is kept of each of these.
const LONGEST: usize = 64;

/// A package manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Its name, as its `User-Agent` begins: `npm`.
    pub name: Option<String>,
    /// Its version: `11.5.2`.
    pub version: Option<String>,
    /// What it was told to do, where it says so: `install`.
    pub command: Option<String>,
    /// Which run of it this is, where it says so.
    pub session: Option<String>,
}

impl Client {
    /// Reads what a request says.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let agent = header(headers, USER_AGENT.as_str()).unwrap_or_default();
        let (product, details) = agent.split_once(' ').unwrap_or((agent, ""));
        let (name, version) = match product.split_once('/') {
            Some((name, version)) => (word(name), word(version)),
            None => (word(product), None),
        };
        Self {
            name: name.map(|name| name.to_ascii_lowercase()),
            version,
            command: header(headers, "npm-command").and_then(word).or_else(|| subcommand(details)),
            session: header(headers, "npm-session").and_then(word),
        }
    }
}

/// What uv says of itself behind its name, in JSON, as far as it is of interest.
#[derive(Deserialize)]
struct Details {
    installer: Installer,
}

#[derive(Deserialize)]
struct Installer {
    subcommand: Vec<String>,
}

/// The command as uv says it: `["pip", "install"]`.
fn subcommand(details: &str) -> Option<String> {
    let details: Details = serde_json::from_str(details).ok()?;
    let words: Option<Vec<String>> = details.installer.subcommand.iter().map(|part| word(part)).collect();
    let command = words?.join(" ");
    (1..=LONGEST).contains(&command.len()).then_some(command)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A word of letters, digits and a few signs, cut to a length; no token that somebody put into the wrong place.
fn word(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    (!text.is_empty() && text.chars().all(allowed) && Token::parse(text).is_none())
        .then(|| text.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::secret::TokenKind;

    fn client(agent: &str) -> (Option<String>, Option<String>) {
        let headers = HeaderMap::from_iter([(USER_AGENT, agent.parse().unwrap())]);
        let Client { name, version, .. } = Client::from_headers(&headers);
        (name, version)
    }

    #[test]
    fn package_managers_are_told_apart_by_what_they_say_first() {
        for (agent, name, version) in [
            ("npm/11.5.2 node/v20.20.2 linux x64 workspaces/false", "npm", Some("11.5.2")),
            ("Bun/1.3.0", "bun", Some("1.3.0")),
            (r#"pip/25.3 {"ci":null,"cpu":"x86_64"}"#, "pip", Some("25.3")),
            ("got (https://example.com/got)", "got", None),
        ] {
            assert_eq!(client(agent), (Some(name.to_owned()), version.map(str::to_owned)), "{agent}");
        }
    }

    #[test]
    fn the_command_is_known_where_a_client_says_it() {
        let uv = r#"uv/0.13.9 {"installer":{"name":"uv","version":"0.13.9","subcommand":["pip","install"]},"ci":true}"#;
        let headers = HeaderMap::from_iter([(USER_AGENT, uv.parse().unwrap())]);
        assert_eq!(Client::from_headers(&headers).command.as_deref(), Some("pip install"));
        let mut npm = HeaderMap::from_iter([(USER_AGENT, "npm/11.5.2 node/v20.20.2".parse().unwrap())]);
        npm.insert("npm-command", "ci".parse().unwrap());
        assert_eq!(Client::from_headers(&npm).command.as_deref(), Some("ci"));
        for agent in
            [r#"uv/1 {"installer":{"subcommand":["<x>"]}}"#, r#"uv/1 {"installer":{"subcommand":[]}}"#, "uv/1 {"]
        {
            let headers = HeaderMap::from_iter([(USER_AGENT, agent.parse().unwrap())]);
            assert_eq!(Client::from_headers(&headers).command, None, "{agent}");
        }
    }

    #[test]
    fn what_is_no_word_is_left_out_and_what_is_long_is_cut() {
        for agent in ["", " ", "=cmd()/1", "<script>"] {
            assert_eq!(client(agent).0, None, "{agent}");
        }
        assert_eq!(client(&"a".repeat(1000)).0.unwrap().len(), LONGEST);
        assert_eq!(client("npm/1;2"), (Some("npm".to_owned()), None));
        // A token in the wrong place is nobody's session.
        let token = Token::generate(TokenKind::OrgUser).unwrap();
        let headers = HeaderMap::from_iter(
            ["npm-session", "npm-command", "user-agent"]
                .map(|name| (HeaderName::from_static(name), token.expose().parse().unwrap())),
        );
        assert_eq!(Client::from_headers(&headers), Client::default());
    }
}
