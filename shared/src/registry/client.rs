//! Detects the package manager and its command from request headers, for the installation log.
//! Callers can forge these headers, so nothing else may depend on them.

use http::HeaderMap;
use http::header::USER_AGENT;
use serde::Deserialize;

use crate::secret::Token;

/// The maximum length of each field.
const MAX_LENGTH: usize = 64;

/// A package manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// The name at the start of its `User-Agent`: `npm`.
    pub name: Option<String>,
    /// Its version: `11.5.2`.
    pub version: Option<String>,
    /// Its command, if the client sends it: `install`.
    pub command: Option<String>,
    /// The ID of its run, if the client sends one.
    pub session: Option<String>,
}

impl Client {
    /// Reads a request's headers.
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

/// The JSON in uv's `User-Agent`. Other fields are ignored.
#[derive(Deserialize)]
struct Details {
    installer: Installer,
}

#[derive(Deserialize)]
struct Installer {
    subcommand: Vec<String>,
}

/// The command in uv's `User-Agent`: `["pip", "install"]`.
fn subcommand(details: &str) -> Option<String> {
    let details: Details = serde_json::from_str(details).ok()?;
    let words: Option<Vec<String>> = details.installer.subcommand.iter().map(|part| word(part)).collect();
    let command = words?.join(" ");
    (1..=MAX_LENGTH).contains(&command.len()).then_some(command)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Accepts letters, digits and `.-_+`, and truncates to [`MAX_LENGTH`]. A token in the wrong header,
/// alone or in a longer text, must not get into the log.
fn word(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    (!text.is_empty() && text.chars().all(allowed) && Token::found_in(text).is_none())
        .then(|| text.chars().take(MAX_LENGTH).collect())
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
    fn name_and_version_come_from_the_start_of_the_user_agent() {
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
    fn command_comes_from_npm_and_uv_headers() {
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
    fn invalid_values_and_tokens_are_dropped_and_long_ones_truncated() {
        for agent in ["", " ", "=cmd()/1", "<script>"] {
            assert_eq!(client(agent).0, None, "{agent}");
        }
        assert_eq!(client(&"a".repeat(1000)).0.unwrap().len(), MAX_LENGTH);
        assert_eq!(client("npm/1;2"), (Some("npm".to_owned()), None));
        // A token in the wrong header must not be recorded.
        let token = Token::generate(TokenKind::OrgUser).unwrap();
        let headers = HeaderMap::from_iter(
            ["npm-session", "npm-command", "user-agent"]
                .map(|name| (HeaderName::from_static(name), token.expose().parse().unwrap())),
        );
        assert_eq!(Client::from_headers(&headers), Client::default());
        for longer in [format!("npm-{}", token.expose()), format!("{}x", token.expose())] {
            assert_eq!(client(&format!("{longer}/{longer}")), (None, None));
            let headers = HeaderMap::from_iter(
                ["npm-session", "npm-command"].map(|name| (HeaderName::from_static(name), longer.parse().unwrap())),
            );
            assert_eq!(Client::from_headers(&headers), Client::default());
            let uv = format!(r#"uv/1 {{"installer":{{"subcommand":["pip","{longer}"]}}}}"#);
            let headers = HeaderMap::from_iter([(USER_AGENT, uv.parse().unwrap())]);
            assert_eq!(Client::from_headers(&headers).command, None);
        }
    }
}
