//! A fake upstream registry that returns stubbed replies and records the requests it receives.

use std::collections::HashMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use shared::registry::{Settings, upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::no_upstreams;

/// A request that the registry received.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// Its method.
    pub method: Method,
    /// Its path and query, as sent.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A stubbed reply.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
}

impl Reply {
    /// 200 with a body of this content type.
    pub fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status: 200, headers, body: body.into(), delay: Duration::ZERO }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), delay: Duration::ZERO }
    }

    /// Adds a header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Delays the reply.
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Compresses the body with gzip.
    pub fn compressed(self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.body).unwrap();
        Self { body: encoder.finish().unwrap(), ..self }.with_header("content-encoding", "gzip")
    }
}

/// How a connection is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It breaks at the next request.
    Reset,
    /// Nothing ever arrives.
    Silent,
}

/// Starts a server that returns this JSON to the first request of each connection, which is dead
/// afterwards. Returns its base URL and the number of requests it received.
pub async fn mortal(death: Death, body: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let counter = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&counter);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (count, body) = (Arc::clone(&count), body.clone());
            tokio::spawn(async move {
                let (mut buffer, mut is_dead) = ([0; 65_536], false);
                while stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                    count.fetch_add(1, Ordering::SeqCst);
                    match (is_dead, death) {
                        (false, _) => {}
                        (true, Death::Reset) => return,
                        (true, Death::Silent) => continue,
                    }
                    stream.write_all(json_response(&body).as_bytes()).await.unwrap();
                    is_dead = true;
                }
            });
        }
    });
    (url, counter)
}

/// A server that returns one JSON to every request, until its connections fall silent. New ones live.
#[derive(Debug, Clone, Default)]
pub struct Revival {
    accepted: Arc<AtomicUsize>,
    silent: Arc<AtomicUsize>,
}

impl Revival {
    /// Starts it. Also returns its base URL.
    pub async fn start(body: String) -> (String, Self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let server = Self::default();
        let revival = server.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let number = server.accepted.fetch_add(1, Ordering::SeqCst);
                let (silent, body) = (Arc::clone(&server.silent), body.clone());
                tokio::spawn(async move {
                    let mut buffer = [0; 65_536];
                    while stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                        if number < silent.load(Ordering::SeqCst) {
                            continue;
                        }
                        // Long enough that parallel requests need a connection each.
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        let body = if buffer.starts_with(b"HEAD") { "" } else { &body };
                        stream.write_all(json_response(body).as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (url, revival)
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// On the connections so far nothing arrives any more.
    pub fn silence_connections(&self) {
        self.silent.store(self.connections(), Ordering::SeqCst);
    }
}

fn json_response(body: &str) -> String {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
    format!("{head}: {}\r\n\r\n{body}", body.len())
}

#[derive(Debug, Default)]
struct Inner {
    replies: HashMap<String, Reply>,
    requests: Vec<ReceivedRequest>,
    compares_tags_as_text: bool,
}

/// The fake registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Its base URL without trailing slash, on another host name than the service's.
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Registry {
    /// Starts a registry that returns 404 for everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let registry = Self { url, inner: Arc::default() };
        let router = Router::new().fallback(answer).with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        registry
    }

    /// Starts an npm registry and simple index, each with the package `widgets`.
    pub async fn with_widgets() -> Self {
        let registry = Self::start().await;
        let tarball = format!("{}/npm/widgets/-/widgets-1.0.0.tgz", registry.url);
        let packument = json!({"name": "widgets", "versions": {"1.0.0": {"dist": {"tarball": tarball}}}});
        registry.stub("/npm/widgets", Reply::ok("application/json", packument.to_string()));
        let page = r#"<a href="/packages/widgets-1.0-py3-none-any.whl#sha256=00">widgets</a>"#;
        registry.stub("/simple/widgets/", Reply::ok("text/html", page));
        registry
    }

    /// Settings for a service in front of [`Self::with_widgets`].
    pub fn settings(&self) -> Settings {
        Settings { npm: self.upstream("/npm/"), pypi: self.upstream("/simple/"), ..no_upstreams() }
    }

    /// This registry as an upstream, with a path below its base URL.
    pub fn upstream(&self, path: &str) -> Option<upstream::Upstream> {
        upstream::Upstream::parse(&format!("{}{path}", self.url))
    }

    /// Sets the reply for a path.
    pub fn stub(&self, path: &str, reply: Reply) {
        self.inner.lock().unwrap().replies.insert(path.to_owned(), reply);
    }

    /// From now on, `If-None-Match` is compared as one text, as if it were never a list.
    pub fn compares_tags_as_text(&self) {
        self.inner.lock().unwrap().compares_tags_as_text = true;
    }

    /// Takes the requests received since the last call.
    pub fn take_requests(&self) -> Vec<ReceivedRequest> {
        std::mem::take(&mut self.inner.lock().unwrap().requests)
    }

    /// Takes the only request received since the last call; panics if there is not exactly one.
    #[track_caller]
    pub fn take_one_request(&self) -> ReceivedRequest {
        let requests = self.take_requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

async fn answer(State(registry): State<Registry>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let received = ReceivedRequest { method: parts.method, path: path.clone(), headers: parts.headers.clone(), body };
    let (reply, as_text) = {
        let mut inner = registry.inner.lock().unwrap();
        inner.requests.push(received);
        let reply = inner.replies.get(&path).cloned().unwrap_or_else(|| Reply::status(404));
        (reply, inner.compares_tags_as_text)
    };
    tokio::time::sleep(reply.delay).await;
    let sent = |wanted: &str| reply.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let asked = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let is_known = reply.status == 200
        && match (asked(header::IF_NONE_MATCH), sent("etag")) {
            (Some(known), Some(tag)) if as_text => known == tag,
            (Some(known), Some(tag)) => known.split(", ").any(|known| known == tag),
            (Some(_), None) => false,
            // Not modified later than that. The dates in tests are of one day.
            (None, _) => sent("last-modified").is_some_and(|date| asked(header::IF_MODIFIED_SINCE) >= Some(date)),
        };
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::from_u16(reply.status).unwrap() };
    let mut response = (status, Body::from(if is_known { Vec::new() } else { reply.body })).into_response();
    for (name, value) in reply.headers {
        let name: header::HeaderName = name.parse().unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
