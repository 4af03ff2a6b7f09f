//! Upstream registries and the requests to them.
//!
//! Requests are built from parsed paths with our own headers: no credential of a caller is
//! forwarded. Redirects are followed only to hosts that are safe to reach from inside a function.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use flate2::read::MultiGzDecoder;
use futures::FutureExt;
use futures::future::{join_all, select_ok};
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, DATE, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Client, RequestBuilder, Response};
use rustls::ClientConfig;
use tokio::time::timeout;
use tower::{Layer, Service};
use url::{Position, Url};

use super::metadata::{entity_tag, has_directive};
use super::{Http, Registries, Settings, TOKEN_IN_BODY, reason};
use crate::aws::IDLE_TIMEOUT;
use crate::error::ApiError;
use crate::resolver::{Resolver, has_internal_host, has_link_local_host};
use crate::secret::Token;
use crate::store::CONNECTING;

/// The timeout for connecting to an upstream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long to wait for a response on an old connection, which may have died while the function was
/// frozen, before the request is sent again on a new one.
const RESEND_AFTER: Duration = Duration::from_secs(3);

/// The maximum size of upstream metadata in bytes, uncompressed. The largest packages have some 120
/// MB. It is in memory once, of the 1,024 MB that `template.yaml` gives the registries.
const MAX_DOCUMENT: usize = 128 * 1024 * 1024;

/// The maximum size of a posted body in bytes, uncompressed.
const MAX_POSTED: u64 = 32 * 1024 * 1024;

/// How much of an error response is read, in bytes.
const MAX_ERROR: usize = 16 * 1024;

/// The maximum number of redirects.
const MAX_REDIRECTS: usize = 5;

/// The base URL of an upstream registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream(Url);

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.0)
    }
}

impl Upstream {
    /// Parses an `http` or `https` URL without query and fragment. It must not have credentials,
    /// since callers are redirected to it, nor a link-local address.
    pub fn parse(text: &str) -> Option<Self> {
        let mut url = Url::parse(text).ok()?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_base = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
        if !is_plain || !is_base || has_link_local_host(&url) {
            return None;
        }
        // Joined paths must be below this one.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Some(Self(url))
    }

    /// The URL, with a trailing slash.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Its scheme, host and port.
    pub fn origin(&self) -> &str {
        &self.0[..Position::BeforePath]
    }

    /// The URL for a path below the base URL. The path must be percent-encoded.
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.0.path()));
        url
    }

    /// The URL for an absolute path on the upstream's host. The path must be percent-encoded.
    pub fn on_host(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }

    /// The path of this URL relative to the base URL, still percent-encoded. `None` if the URL is
    /// not below it.
    pub fn path_below<'a>(&self, url: &'a Url) -> Option<&'a str> {
        let is_same = url[..Position::BeforePath] == *self.origin() && url.query().is_none();
        url.path().strip_prefix(self.0.path()).filter(|_| is_same)
    }
}

/// Whether callers may be redirected to this URL: `http` or `https`, without credentials.
pub fn is_plain_http_url(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
}

/// An HTTP client for upstreams.
///
/// # Errors
///
/// If it cannot be set up.
pub(super) fn client(settings: &Settings, tls: &ClientConfig) -> reqwest::Result<Client> {
    let upstreams = [&settings.npm, &settings.pypi].into_iter().flatten().map(|upstream| upstream.0.clone());
    let resolver = Resolver::new(&upstreams.collect::<Vec<_>>());
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .user_agent(concat!("guard-tokens/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(settings.timeout)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .dns_resolver(Arc::new(resolver))
        .connector_layer(NoteConnecting)
        .redirect(Policy::custom(follow))
        .referer(false)
        .build()
}

tokio::task_local! {
    /// Whether the request that is being sent has made a connection, at its latest redirect. Else it
    /// uses one of an earlier request.
    static IS_CONNECTING: Arc<AtomicBool>;
}

fn note_connecting(is_connecting: bool) {
    let _ = IS_CONNECTING.try_with(|noted| noted.store(is_connecting, Ordering::Relaxed));
}

/// Notes when a request makes a connection.
#[derive(Clone)]
struct NoteConnecting;

impl<S> Layer<S> for NoteConnecting {
    type Service = Noting<S>;

    fn layer(&self, connector: S) -> Noting<S> {
        Noting(connector)
    }
}

#[derive(Clone)]
struct Noting<S>(S);

impl<R, S: Service<R>> Service<R> for Noting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        note_connecting(true);
        self.0.call(request)
    }
}

/// The redirect policy.
fn follow(attempt: Attempt<'_>) -> Action {
    note_connecting(false);
    let is_allowed = attempt.previous().first().is_some_and(|first| may_follow(first, attempt.url()));
    if is_allowed && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

/// Whether a redirect is allowed: not from `https` to `http`, and not to internal addresses, where
/// Lambda serves other callers' events and AWS the function's credentials. An internal upstream may
/// redirect to its own host and port. What a name resolves to is the [`Resolver`]'s to check.
fn may_follow(first: &Url, next: &Url) -> bool {
    let keeps_tls = next.scheme() == "https" || next.scheme() == first.scheme();
    let is_same_place = next.host() == first.host() && next.port_or_known_default() == first.port_or_known_default();
    keeps_tls && (is_same_place || !has_internal_host(next))
}

/// An upstream's response.
#[derive(Debug)]
pub enum Fetched {
    /// A copy is current; it has this entity tag, and is the document at this URL after redirects.
    NotModified(Option<HeaderValue>, Url),
    /// The document.
    Document(Document),
}

/// A document from an upstream.
#[derive(Debug)]
pub struct Document {
    /// Its URL after redirects, the base for relative URLs in it.
    pub url: Url,
    /// The content type in lower case, without parameters.
    pub content_type: String,
    /// The entity tag. `None` if it is malformed: some upstreams send such ones.
    pub etag: Option<HeaderValue>,
    /// Whether it may be kept. Its entity tag tells it from other versions.
    pub may_be_kept: bool,
    /// The body.
    pub body: Vec<u8>,
}

impl Registries {
    /// Opens a connection to each upstream, so that the next request finds one: the name is resolved
    /// and TLS is done. Takes a second at most, and ignores failures: a later request connects
    /// itself, and reports what is wrong.
    pub async fn connect(&self) {
        let Http { client, .. } = self.http();
        let upstreams = [&self.settings.npm, &self.settings.pypi].into_iter().flatten();
        // A path that costs an upstream nothing: the base URL of an index lists all projects.
        let path = |upstream: &Upstream| upstream.on_host("/robots.txt");
        let connecting = upstreams.map(|upstream| timeout(CONNECTING, client.head(path(upstream)).send()));
        join_all(connecting).await;
    }

    /// Fetches a document from an upstream, or 304 if it has one of these entity tags. Nothing else of
    /// the caller's headers is forwarded than the tags of its copies.
    ///
    /// # Errors
    ///
    /// 404 and 410 only if the upstream says so, since package managers cache them. 403 if the upstream
    /// refuses, 429 if it limits the rate, 422 if the document is too large: clients retry 5xx. 504
    /// after a timeout, 502 for every other failure.
    pub async fn fetch(&self, url: Url, accept: &'static str, known: Option<HeaderValue>) -> Result<Fetched, ApiError> {
        let request = self.http().client.get(url).header(ACCEPT, accept);
        let is_conditional = known.is_some();
        let request = known.into_iter().fold(request, |request, tags| request.header(IF_NONE_MATCH, tags));
        let response = self.send(request).await.map_err(failure)?;
        match response.status() {
            StatusCode::OK => Ok(Fetched::Document(document(response).await?)),
            // A 304 to an unconditional request is an error.
            StatusCode::NOT_MODIFIED if is_conditional => {
                Ok(Fetched::NotModified(entity_tag(response.headers()), response.url().clone()))
            }
            _ => Err(refusal(response, Request::Metadata).await),
        }
    }

    /// Fetches a document from an upstream unconditionally.
    ///
    /// # Errors
    ///
    /// As [`Self::fetch`].
    pub async fn fetch_document(&self, url: Url, accept: &'static str) -> Result<Document, ApiError> {
        match self.fetch(url, accept, None).await? {
            Fetched::Document(document) => Ok(document),
            Fetched::NotModified(..) => Err(ApiError::BadGateway(UNEXPECTED)),
        }
    }

    /// Posts a JSON body, which may be compressed with gzip, to an upstream.
    ///
    /// # Errors
    ///
    /// As [`Self::fetch`]; 400 if the body contains a token or the upstream rejects it, 404 if the
    /// upstream does not have the endpoint.
    pub async fn post(&self, url: Url, headers: &HeaderMap, body: Bytes) -> Result<Document, ApiError> {
        let mut request =
            self.http().client.post(url).header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/json");
        let plain = if is_gzip(headers)? {
            request = request.header(CONTENT_ENCODING, "gzip");
            decompressed(&body)?
        } else {
            body.to_vec()
        };
        if Token::found_in(&unescaped(&String::from_utf8_lossy(&plain))).is_some() {
            return Err(ApiError::Malformed(TOKEN_IN_BODY));
        }
        let response = self.send(request.body(body)).await.map_err(failure)?;
        if !response.status().is_success() {
            return Err(refusal(response, Request::Audit).await);
        }
        document(response).await
    }

    /// Sends a request that may arrive twice: all our requests only ask. If its connection breaks,
    /// or is an old one on which no response arrives in time, it is sent once more on a new
    /// connection, and the first response wins. On a new connection the upstream is merely slow.
    /// Both attempts share one timeout.
    async fn send(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        let started = Instant::now();
        let request = request.build()?;
        let Http { client, generation } = self.http();
        let Some(mut again) = request.try_clone() else { return client.execute(request).await };
        let is_connecting = Arc::new(AtomicBool::new(false));
        let mut first = IS_CONNECTING.scope(Arc::clone(&is_connecting), client.execute(request)).boxed();
        let outcome = loop {
            match timeout(RESEND_AFTER, &mut first).await {
                Err(_) if is_connecting.load(Ordering::Relaxed) => {}
                outcome => break outcome,
            }
        };
        *again.timeout_mut() = Some(self.settings.timeout.saturating_sub(started.elapsed()));
        let second = async { self.renewed_http(generation)?.execute(again).await };
        match outcome {
            Ok(Err(error)) if !error.is_connect() && !error.is_timeout() && !error.is_redirect() => second.await,
            Ok(result) => result,
            Err(_) => select_ok([first, second.boxed()]).await.map(|(response, _)| response),
        }
    }
}

/// What an upstream was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Metadata,
    Audit,
}

/// Whether a body is compressed.
fn is_gzip(headers: &HeaderMap) -> Result<bool, ApiError> {
    match headers.get(CONTENT_ENCODING).map(|coding| coding.as_bytes().to_ascii_lowercase()).as_deref() {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip" | b"x-gzip") => Ok(true),
        Some(_) => Err(ApiError::Malformed("The request body must be sent plain or with `Content-Encoding: gzip`.")),
    }
}

fn decompressed(body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(body).take(MAX_POSTED + 1).read_to_end(&mut plain);
    read.map_err(|_| ApiError::Malformed("The request body is not valid gzip."))?;
    if plain.len() as u64 > MAX_POSTED { Err(ApiError::PayloadTooLarge("32 MiB, uncompressed")) } else { Ok(plain) }
}

/// A JSON text with its `\u` escapes decoded, as far as a token can be written with them. It need not
/// be valid JSON.
fn unescaped(text: &str) -> String {
    let mut parts = text.split(r"\u");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..4).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[4..]);
            }
            None => plain.extend([r"\u", part]),
        }
    }
    plain
}

const UNREACHABLE: &str = "The upstream registry cannot be reached. Try again.";
const FAILED: &str = "The upstream registry failed. Try again.";
const UNAUTHORIZED: &str =
    "The upstream registry requires a credential, which this service does not have. Ask the operator of this service.";
const UNEXPECTED: &str = "The upstream registry returned an unexpected response.";
const ENDPOINT_GONE: &str = "The upstream registry no longer offers this endpoint. Update the package manager.";
const PACKAGE_GONE: &str = "The upstream registry has removed this package or file. Use another one.";
const NO_AUDIT: &str = "The upstream registry does not offer this kind of audit. Ask the operator of this service.";
const TOO_LARGE: &str = "The upstream registry's metadata of this package is too large to serve.";

async fn document(mut response: Response) -> Result<Document, ApiError> {
    let headers = response.headers();
    let content_type = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (etag, url) = (entity_tag(headers), response.url().clone());
    let may_be_kept = etag.is_some() && !has_directive(headers, "no-store");
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Err(ApiError::TooLarge(TOO_LARGE));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Document { url, content_type, etag, may_be_kept, body })
}

/// Our error for an upstream's error response.
async fn refusal(response: Response, request: Request) -> ApiError {
    let status = response.status();
    tracing::warn!(upstream_status = status.as_u16(), "the upstream returned an error status");
    match (status, request) {
        (StatusCode::GONE, Request::Audit) => ApiError::UpstreamGone(ENDPOINT_GONE),
        (StatusCode::GONE, Request::Metadata) => ApiError::UpstreamGone(PACKAGE_GONE),
        // npm and pnpm take a 404 as a registry without this kind of audit.
        (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, Request::Audit) => ApiError::NotOffered(NO_AUDIT),
        (StatusCode::NOT_FOUND, Request::Metadata) => ApiError::PackageNotFound,
        (StatusCode::FORBIDDEN | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, _) => {
            ApiError::UpstreamRefused(reason_in(response).await)
        }
        (StatusCode::BAD_REQUEST, Request::Audit) => ApiError::UpstreamRejected(reason_in(response).await),
        (StatusCode::UNAUTHORIZED, _) => ApiError::BadGateway(UNAUTHORIZED),
        (StatusCode::TOO_MANY_REQUESTS, _) => ApiError::UpstreamRateLimited(retry_after(response.headers())),
        (StatusCode::GATEWAY_TIMEOUT, _) => ApiError::GatewayTimeout,
        _ => ApiError::BadGateway(FAILED),
    }
}

/// The upstream's reason for an error, or a phrase that says that it gave none.
async fn reason_in(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR - body.len())]);
        if body.len() == MAX_ERROR {
            break;
        }
    }
    reason::in_body(&String::from_utf8_lossy(&body)).unwrap_or_else(|| "it gave no reason".to_owned())
}

/// How long an upstream asks to wait: a number of seconds or a date. A minute if it does not say.
fn retry_after(headers: &HeaderMap) -> Duration {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let moment = |text: &str| DateTimeParser::new().parse_timestamp(text).ok();
    let seconds = text(RETRY_AFTER).and_then(|after| {
        let until = || Some((moment(after)?.as_second() - moment(text(DATE)?)?.as_second()).try_into().unwrap_or(0));
        after.trim().parse::<u64>().ok().or_else(until)
    });
    Duration::from_secs(seconds.unwrap_or(60).min(MAX_RETRY_AFTER))
}

/// The longest time to wait that is passed on, in seconds.
const MAX_RETRY_AFTER: u64 = 24 * 60 * 60;

/// Our error for a failed request to an upstream.
fn failure(error: reqwest::Error) -> ApiError {
    // Keeps URLs out of the log.
    let error = error.without_url();
    tracing::warn!(%error, "the upstream request failed");
    if error.is_timeout() { ApiError::GatewayTimeout } else { ApiError::BadGateway(UNREACHABLE) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicUsize;

    use tokio::net::TcpListener;

    use super::super::PublicUrl;
    use super::*;
    use crate::hosts::RegistryHosts;
    use crate::tls;

    #[test]
    fn only_plain_http_urls_are_accepted_as_upstreams() {
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
            "http://169.254.169.254/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
        ] {
            assert_eq!(Upstream::parse(text), None, "{text}");
        }
    }

    #[test]
    fn content_codings_are_understood_in_any_case() {
        let coded = |coding: &'static str| {
            is_gzip(&HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))])).ok()
        };
        for (coding, is_gzip) in [
            ("gzip", Some(true)),
            ("GZip", Some(true)),
            ("X-GZIP", Some(true)),
            ("Identity", Some(false)),
            ("br", None),
            ("gzip, gzip", None),
            ("", None),
        ] {
            assert_eq!(coded(coding), is_gzip, "{coding}");
        }
    }

    #[test]
    fn escapes_of_ascii_are_decoded_and_everything_else_is_kept() {
        for (text, plain) in [
            ("", ""),
            ("é{}", "é{}"),
            (r"\u0074g_\u006Frg_", "tg_org_"),
            (r"x\u00e9\u", r"xé\u"),
            (r"\u12é4\u30421", r"\u12é4\u30421"),
            (r"\u00", r"\u00"),
        ] {
            assert_eq!(unescaped(text), plain, "{text}");
        }
    }

    #[test]
    fn time_to_wait_is_read_from_seconds_or_a_date() {
        let date = "Sat, 21 Nov 2026 10:00:00 GMT";
        for (after, seconds) in [
            (Some("7"), 7),
            (Some("0"), 0),
            (Some("Sat, 21 Nov 2026 10:02:00 GMT"), 120),
            (Some("Sat, 21 Nov 2026 09:00:00 GMT"), 0),
            (Some("999999999"), MAX_RETRY_AFTER),
            (Some("soon"), 60),
            (Some("-1"), 60),
            (None, 60),
        ] {
            let mut headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]);
            if let Some(after) = after {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(after));
            }
            assert_eq!(retry_after(&headers).as_secs(), seconds, "{after:?}");
        }
    }

    #[test]
    fn redirects_to_plain_http_or_internal_addresses_are_not_followed() {
        let allowed = |first: &str, next: &str| may_follow(&Url::parse(first).unwrap(), &Url::parse(next).unwrap());
        let (first, elsewhere) = ("https://packages.example.com/a", "https://cdn.example.net/a");
        assert!(allowed(first, elsewhere));
        assert!(allowed("http://packages.example.com/a", elsewhere));
        assert!(allowed("http://localhost:4873/a", "http://localhost:4873/b"));
        for next in [
            "http://packages.example.com/a",
            "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
            "http://169.254.169.254/latest/meta-data/",
            "https://127.0.0.1/",
            "https://10.0.0.1/",
            "https://100.64.0.1/",
            "https://[::ffff:10.0.0.1]/",
            "https://localhost./",
            "ftp://packages.example.com/a",
        ] {
            assert!(!allowed(first, next), "{next}");
        }
        assert!(!allowed("http://packages.example.com/a", "http://127.0.0.1:9001/"));
        // An internal upstream opens nothing but itself.
        for (first, own) in [
            ("http://127.0.0.1:4873/a", "http://127.0.0.1:4873/b"),
            ("https://10.0.0.1/a", "https://10.0.0.1:443/b"),
            ("http://[::1]:4873/a", "http://[::1]:4873/b"),
        ] {
            assert!(allowed(first, own) && allowed(first, elsewhere), "{first}");
            for next in [
                "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
                "http://169.254.169.254/latest/meta-data/",
                "http://localhost:4873/b",
                "https://10.0.0.2/b",
                "https://10.0.0.1:8443/b",
                "https://[fd00:ec2::254]/",
            ] {
                assert!(!allowed(first, next), "{first} {next}");
            }
        }
    }

    #[test]
    fn only_urls_below_the_base_url_have_a_relative_path() {
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

    fn settings(npm: &str, pypi: Option<&str>) -> Settings {
        Settings {
            npm: Upstream::parse(npm),
            pypi: pypi.and_then(Upstream::parse),
            pypi_file_hosts: Vec::new(),
            anonymous_access: false,
            public_url: PublicUrl::FromHostHeader("https"),
            hosts: RegistryHosts::default(),
            timeout: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn name_that_resolves_to_this_machine_is_not_connected_to_unless_configured() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        // Closes each connection unanswered.
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (public, local) = ("https://packages.example.com/", format!("http://localhost:{port}/"));
        let connects = async |settings: Settings, host: &str| {
            let client = client(&settings, &tls::from_env().unwrap()).unwrap();
            let error = client.get(format!("http://{host}:{port}/")).send().await.unwrap_err();
            !error.is_connect()
        };
        for host in ["localhost", "localhost."] {
            assert!(!connects(settings(public, None), host).await, "{host}");
            assert!(!connects(settings(public, Some("https://pypi.example.com/simple/")), host).await, "{host}");
        }
        // An upstream on this machine does not open it to other names.
        assert!(!connects(settings("http://127.0.0.1:4873/", None), "localhost").await);
        assert!(connects(settings(&local, None), "localhost").await);
        assert!(connects(settings(public, Some(&local)), "localhost").await);
        assert_eq!(accepted.load(Ordering::SeqCst), 2);
    }
}
