//! The upstream of a registry, and the requests to it.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Client, RequestBuilder, Response};
use url::{Host, Position, Url};

use super::Registries;
use crate::error::ApiError;

/// How long a connection to an upstream may take.
const CONNECTING: Duration = Duration::from_secs(4);

/// How much metadata is taken from an upstream, in bytes, uncompressed. The largest packages have some 40 MB.
const LARGEST: usize = 64 * 1024 * 1024;

/// How often an upstream may send us on.
const REDIRECTS: usize = 5;

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

    /// The URL, with a slash at its end.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
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
        .redirect(Policy::custom(follow))
        .referer(false)
        .build()
}

/// Follows an upstream to where it sends us, if we may go there.
fn follow(attempt: Attempt<'_>) -> Action {
    let may = attempt.previous().first().is_some_and(|asked| may_follow(asked, attempt.url()));
    if may && attempt.previous().len() <= REDIRECTS { attempt.follow() } else { attempt.stop() }
}

/// Whether an upstream that was asked there may send us there: not out of TLS, and not into this machine or its network,
/// where Lambda has the events of other callers to tell and AWS the function's credentials.
fn may_follow(asked: &Url, next: &Url) -> bool {
    let keeps_tls = next.scheme() == "https" || next.scheme() == asked.scheme();
    keeps_tls && (is_inside(asked) || !is_inside(next))
}

/// Whether a URL names this machine, or an address that has a meaning in this network alone.
fn is_inside(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => {
            address.is_loopback() || address.is_link_local() || address.is_private() || address.is_unspecified()
        }
        Some(Host::Ipv6(address)) => {
            let is_mapped = address.to_ipv4_mapped().is_some();
            address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_unique_local()
                || address.is_unspecified()
                || is_mapped
        }
        None => true,
    }
}

/// An answer of an upstream with metadata.
#[derive(Debug)]
pub enum Fetched {
    /// It is as the caller has it, by this entity tag.
    NotModified(Option<HeaderValue>),
    /// What it is.
    Document(Document),
}

/// Metadata as the upstream has it.
#[derive(Debug)]
pub struct Document {
    /// Where it was in the end: what it names relatively, lies relative to this.
    pub url: Url,
    /// Its type, without parameters, in lower case.
    pub content_type: String,
    /// By what it is known again.
    pub etag: Option<HeaderValue>,
    /// What it says.
    pub body: Vec<u8>,
}

impl Registries {
    /// Asks an upstream for metadata. Nothing that the caller sent is passed on but the entity
    /// tag of what it has already.
    ///
    /// # Errors
    ///
    /// 404 where the upstream says so, and only there: package managers remember that. Everything else that goes wrong is
    /// 502, or 504 where it took too long.
    pub async fn fetch(&self, url: Url, accept: &'static str, known: Option<HeaderValue>) -> Result<Fetched, ApiError> {
        let mut request = self.http.get(url).header(ACCEPT, accept);
        if let Some(etag) = &known {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(failure)?;
        match response.status() {
            StatusCode::OK => Ok(Fetched::Document(document(response).await?)),
            // What has not changed since we do not know when, is no answer.
            StatusCode::NOT_MODIFIED if known.is_some() => {
                Ok(Fetched::NotModified(response.headers().get(ETAG).cloned()))
            }
            status => Err(refusal(status)),
        }
    }

    /// Asks an upstream for metadata that the caller has not.
    ///
    /// # Errors
    ///
    /// As [`Self::fetch`].
    pub async fn fetch_whole(&self, url: Url, accept: &'static str) -> Result<Document, ApiError> {
        match self.fetch(url, accept, None).await? {
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
        document(response).await
    }
}

const UNREACHABLE: &str = "The registry behind this one cannot be reached; try again.";
const FAILED: &str = "The registry behind this one failed; try again.";
const UNEXPECTED: &str = "The registry behind this one answered what this one cannot pass on.";
const TOO_LARGE: &str = "The registry behind this one has more metadata of this package than can be passed on.";

async fn document(mut response: Response) -> Result<Document, ApiError> {
    let headers = response.headers();
    let content_type = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (etag, url) = (headers.get(ETAG).cloned(), response.url().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > LARGEST {
            return Err(ApiError::BadGateway(TOO_LARGE));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Document { url, content_type, etag, body })
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
    fn an_upstream_leads_neither_out_of_tls_nor_into_our_network() {
        let may = |asked: &str, next: &str| may_follow(&Url::parse(asked).unwrap(), &Url::parse(next).unwrap());
        let (asked, elsewhere) = ("https://packages.example.com/a", "https://cdn.example.net/a");
        assert!(may(asked, elsewhere));
        assert!(may("http://packages.example.com/a", elsewhere));
        assert!(may("http://localhost:4873/a", "http://localhost:4873/b"));
        for next in [
            "http://packages.example.com/a",
            "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
            "http://169.254.169.254/latest/meta-data/",
            "https://127.0.0.1/",
            "https://10.0.0.1/",
            "ftp://packages.example.com/a",
        ] {
            assert!(!may(asked, next), "{next}");
        }
        assert!(!may("http://packages.example.com/a", "http://127.0.0.1:9001/"));
    }

    #[test]
    fn what_means_something_in_here_alone_is_inside() {
        for url in [
            "http://localhost:1/",
            "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
            "http://[::1]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(is_inside(&Url::parse(url).unwrap()), "{url}");
        }
        assert!(!is_inside(&Url::parse("https://packages.example.com/").unwrap()));
        assert!(!is_inside(&Url::parse("https://203.0.113.7/").unwrap()));
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
