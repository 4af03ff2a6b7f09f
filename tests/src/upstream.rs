//! A registry for the service's registries to stand before: it answers what a test says, and remembers what it was asked.

use std::collections::HashMap;
use std::io::Write;
use std::net::Ipv4Addr;
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
use tokio::net::TcpListener;

use crate::no_upstreams;

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path and query, as they were sent.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Says {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
}

impl Says {
    /// 200 with a body of this type.
    pub fn found(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status: 200, headers, body: body.into(), delay: Duration::ZERO }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), delay: Duration::ZERO }
    }

    /// The same with a header more.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, late.
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The same, compressed.
    pub fn compressed(self) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.body).unwrap();
        Self { body: encoder.finish().unwrap(), ..self }.with("content-encoding", "gzip")
    }
}

#[derive(Debug, Default)]
struct Memory {
    says: HashMap<String, Says>,
    asked: Vec<Asked>,
}

/// The registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Its root, without a slash at the end: on a host that is not the service's.
    pub url: String,
    memory: Arc<Mutex<Memory>>,
}

impl Registry {
    /// Starts one that knows nothing.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let registry = Self { url, memory: Arc::default() };
        let router = Router::new().fallback(answer).with_state(registry.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        registry
    }

    /// Starts one that is an npm registry and a simple index, each with the package `widgets`.
    pub async fn with_widgets() -> Self {
        let registry = Self::start().await;
        let tarball = format!("{}/npm/widgets/-/widgets-1.0.0.tgz", registry.url);
        let packument = json!({"name": "widgets", "versions": {"1.0.0": {"dist": {"tarball": tarball}}}});
        registry.says("/npm/widgets", Says::found("application/json", packument.to_string()));
        let page = r#"<a href="/packages/widgets-1.0-py3-none-any.whl#sha256=00">widgets</a>"#;
        registry.says("/simple/widgets/", Says::found("text/html", page));
        registry
    }

    /// The settings of a service before both registries of [`Self::with_widgets`].
    pub fn settings(&self) -> Settings {
        Settings { npm: self.upstream("/npm/"), pypi: self.upstream("/simple/"), ..no_upstreams() }
    }

    /// The same as an upstream, with this path behind its root.
    pub fn upstream(&self, path: &str) -> Option<upstream::Upstream> {
        upstream::Upstream::parse(&format!("{}{path}", self.url))
    }

    /// What it says at a path, from now on.
    pub fn says(&self, path: &str, says: Says) {
        self.memory.lock().unwrap().says.insert(path.to_owned(), says);
    }

    /// What it was asked since the last call of this.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.memory.lock().unwrap().asked)
    }

    /// The one thing that it was asked since the last call of this or of [`Self::asked`].
    #[track_caller]
    pub fn asked_once(&self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }
}

async fn answer(State(registry): State<Registry>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let asked = Asked { method: parts.method, path: path.clone(), headers: parts.headers.clone(), body };
    let says = {
        let mut memory = registry.memory.lock().unwrap();
        memory.asked.push(asked);
        memory.says.get(&path).cloned().unwrap_or_else(|| Says::status(404))
    };
    tokio::time::sleep(says.delay).await;
    let tag = says.headers.iter().find(|(name, _)| name == "etag").map(|(_, tag)| tag.as_str());
    let known = parts.headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let is_known = tag.is_some() && tag == known;
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::from_u16(says.status).unwrap() };
    let mut response = (status, Body::from(if is_known { Vec::new() } else { says.body })).into_response();
    for (name, value) in says.headers {
        let name: header::HeaderName = name.parse().unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
