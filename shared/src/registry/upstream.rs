//! The upstream of a registry, and the requests to it.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};
use url::{Host, Position, Url};

use super::Registries;
use crate::error::ApiError;

/// How long a connection to an upstream may take.
const CONNECTING: Duration = Duration::from_secs(4);

/// How much metadata is taken from an upstream, in bytes, uncompressed. The largest packages have some 40 MB.
const LARGEST: usize = 96 * 1024 * 1024;

/// A registry that packages come from.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream(Url);

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.0)
    }
}

impl Upstream {
    /// Reads a URL: `http` or `https`, without credentials, since callers are sent on to it; without query and fragment.
    pub fn parse(text: &str) -> Option<Self> {
        let mut url = Url::parse(text).ok()?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_base = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
        if !is_plain || !is_base {
            return None;
        }
        // What is joined to it lies below it.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Some(Self(url))
    }

    /// Whether it is on this machine, at this port.
    pub fn is_local(&self, port: u16) -> bool {
        let is_loopback = match self.0.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        is_loopback && self.0.port_or_known_default() == Some(port)
    }

    /// The place of something below it. The path must be percent-encoded.
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.0.path()));
        url
    }

    /// The place of something on its host. The path must be percent-encoded, and begins with a slash.
    pub fn on_host(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }

    /// What of this URL lies below it, percent-encoded as it is there; none where it does not.
    pub fn path_below<'a>(&self, url: &'a Url) -> Option<&'a str> {
        self.path_on_host(url)?;
        url.path().strip_prefix(self.0.path())
    }

    /// The path of this URL where it lies on the same host, and is all that there is to it.
    pub fn path_on_host<'a>(&self, url: &'a Url) -> Option<&'a str> {
        let is_same = url[..Position::BeforePath] == self.0[..Position::BeforePath];
        (is_same && url.query().is_none()).then(|| url.path())
    }
}

/// Whether an upstream may send callers there: a place on the web, without credentials.
pub fn is_web_place(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
}

/// A client for upstreams.
///
/// # Errors
///
/// Where this machine has no certificates to trust.
pub(super) fn client(patience: Duration) -> reqwest::Result<Client> {
    Client::builder()
        .user_agent(concat!("guard-tokens/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECTING)
        .timeout(patience)
        .redirect(Policy::limited(5))
        .referer(false)
        .build()
}

/// What a caller has already, as the upstream knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The entity tag.
    pub etag: Option<HeaderValue>,
    /// When it was last modified.
    pub last_modified: Option<HeaderValue>,
}

/// An answer of an upstream with metadata.
#[derive(Debug)]
pub enum Fetched {
    /// It is as the caller has it.
    NotModified(Validators),
    /// What it is.
    Document(Document),
}

/// By what the upstream knows a version of metadata again.
#[derive(Debug, Clone, Default)]
pub struct Validators {
    /// Its entity tag.
    pub etag: Option<HeaderValue>,
    /// When it was last modified.
    pub last_modified: Option<HeaderValue>,
}

/// Metadata as the upstream has it.
#[derive(Debug)]
pub struct Document {
    /// Where it was in the end: what it names relatively, lies relative to this.
    pub url: Url,
    /// Its type, with parameters.
    pub content_type: HeaderValue,
    /// By what it is known again.
    pub validators: Validators,
    /// What it says.
    pub body: Bytes,
}

impl Registries {
    /// Asks an upstream for metadata. Nothing that the caller sent is passed on but what it has already.
    ///
    /// # Errors
    ///
    /// 404 where the upstream says so, and only there: package managers remember that. Everything else that goes wrong is
    /// 502, or 504 where it took too long.
    pub async fn fetch(&self, url: Url, accept: &'static str, conditions: Conditions) -> Result<Fetched, ApiError> {
        let mut request = self.http.get(url).header(ACCEPT, accept);
        if let Some(etag) = conditions.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(time) = conditions.last_modified {
            request = request.header(IF_MODIFIED_SINCE, time);
        }
        let response = request.send().await.map_err(failure)?;
        let validators = Validators { etag: copied(&response, ETAG), last_modified: copied(&response, LAST_MODIFIED) };
        match response.status() {
            StatusCode::OK => {
                let url = response.url().clone();
                let content_type = copied(&response, CONTENT_TYPE);
                let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
                let body = whole(response).await?;
                Ok(Fetched::Document(Document { url, content_type, validators, body }))
            }
            StatusCode::NOT_MODIFIED => Ok(Fetched::NotModified(validators)),
            status => Err(refusal(status)),
        }
    }

    /// Asks an upstream for metadata that the caller has not.
    ///
    /// # Errors
    ///
    /// As [`Self::fetch`].
    pub async fn fetch_whole(&self, url: Url, accept: &'static str) -> Result<Document, ApiError> {
        match self.fetch(url, accept, Conditions::default()).await? {
            Fetched::Document(document) => Ok(document),
            Fetched::NotModified(_) => Err(ApiError::BadGateway(UNEXPECTED)),
        }
    }

    /// Hands a body that holds no credential on to an upstream, and its answer back.
    ///
    /// # Errors
    ///
    /// As [`Self::fetch`].
    pub async fn post(&self, url: Url, headers: &HeaderMap, body: Bytes) -> Result<Document, ApiError> {
        let mut request: RequestBuilder = self.http.post(url).body(body);
        for name in [CONTENT_TYPE, CONTENT_ENCODING] {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let response = request.header(ACCEPT, "application/json").send().await.map_err(failure)?;
        if !response.status().is_success() {
            return Err(refusal(response.status()));
        }
        let url = response.url().clone();
        let content_type = copied(&response, CONTENT_TYPE).unwrap_or(HeaderValue::from_static("application/json"));
        let body = whole(response).await?;
        Ok(Document { url, content_type, validators: Validators::default(), body })
    }
}

const UNREACHABLE: &str = "The registry behind this one cannot be reached; try again.";
const FAILED: &str = "The registry behind this one failed; try again.";
const UNEXPECTED: &str = "The registry behind this one answered what this one cannot pass on.";
const TOO_LARGE: &str = "The registry behind this one has more metadata of this package than can be passed on.";

fn copied(response: &Response, name: HeaderName) -> Option<HeaderValue> {
    response.headers().get(name).cloned()
}

async fn whole(mut response: Response) -> Result<Bytes, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > LARGEST {
            return Err(ApiError::BadGateway(TOO_LARGE));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// What an upstream's status means to our caller.
fn refusal(status: StatusCode) -> ApiError {
    tracing::warn!(upstream_status = status.as_u16(), "the upstream did not answer with metadata");
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => ApiError::PackageNotFound,
        StatusCode::GATEWAY_TIMEOUT => ApiError::GatewayTimeout,
        _ => ApiError::BadGateway(FAILED),
    }
}

/// What it means that an upstream did not answer.
fn failure(error: reqwest::Error) -> ApiError {
    // Its text has the URL in it, which the caller knows and the log need not.
    let error = error.without_url();
    tracing::warn!(%error, "the upstream did not answer");
    if error.is_timeout() { ApiError::GatewayTimeout } else { ApiError::BadGateway(UNREACHABLE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_plain_url() {
        for (text, url) in [
            ("https://packages.example.com", "https://packages.example.com/"),
            ("http://localhost:4873/npm", "http://localhost:4873/npm/"),
            ("https://packages.example.com/simple/", "https://packages.example.com/simple/"),
        ] {
            assert_eq!(Upstream::parse(text).unwrap().0.as_str(), url);
        }
        for text in [
            "",
            "packages.example.com",
            "ftp://x/",
            "file:///etc",
            "https://user:pw@x/",
            "https://x/?a",
            "https://x/#a",
        ] {
            assert_eq!(Upstream::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_lies_elsewhere_is_not_below_it() {
        let upstream = Upstream::parse("https://packages.example.com/npm/").unwrap();
        let below = |text: &str| upstream.path_below(&Url::parse(text).unwrap()).map(str::to_owned);
        assert_eq!(below("https://packages.example.com/npm/a/-/a-1.tgz").as_deref(), Some("a/-/a-1.tgz"));
        for text in [
            "https://packages.example.com/a",
            "https://packages.example.com/npmx/a",
            "https://packages.example.com:8443/npm/a",
            "http://packages.example.com/npm/a",
            "https://user@packages.example.com/npm/a",
            "https://packages.example.com.evil.example/npm/a",
            "https://packages.example.com/npm/a?x",
            "https://packages.example.com/npm/../a",
        ] {
            assert_eq!(below(text), None, "{text}");
        }
    }
}
