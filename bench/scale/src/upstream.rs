//! An npm registry of prepared responses.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, json};
use tokio::net::TcpListener;

/// Versions of each package: its abbreviated metadata has some 8 KB.
const VERSIONS: usize = 25;
/// The size of a file, in bytes.
pub(crate) const FILE: usize = 20_000;

struct Package {
    etag: String,
    plain: Bytes,
    gzipped: Bytes,
}

/// A running registry.
pub(crate) struct Upstream {
    /// Its URL, with a trailing slash.
    pub(crate) url: String,
    /// The names of its packages.
    pub(crate) packages: Vec<String>,
}

impl Upstream {
    /// Starts a registry with this number of packages.
    pub(crate) async fn start(packages: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Another name than the service's: it never redirects to its own.
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let names: Vec<_> = (0..packages).map(|number| format!("package-{number}")).collect();
        let served: HashMap<_, _> = names.iter().map(|name| (name.clone(), package(&url, name))).collect();
        let router = Router::new().route("/{name}", get(metadata)).route("/{name}/-/{file}", get(file));
        let router = router.with_state(Arc::new(served));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, packages: names }
    }
}

fn package(url: &str, name: &str) -> Package {
    let mut versions = Map::new();
    for number in 0..VERSIONS {
        let version = format!("1.{number}.0");
        let integrity = format!("sha512-{:0>86}==", format!("{name}{number}"));
        let dist = json!({"integrity": integrity, "tarball": format!("{url}{name}/-/{name}-{version}.tgz")});
        let needed = json!({"package-1": "^1.0.0", "package-2": "^1.2.0"});
        versions
            .insert(version.clone(), json!({"name": name, "version": version, "dependencies": needed, "dist": dist}));
    }
    let document = json!({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": versions}).to_string();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(document.as_bytes()).unwrap();
    Package { etag: format!("\"{name}\""), plain: document.into(), gzipped: encoder.finish().unwrap().into() }
}

async fn metadata(
    State(packages): State<Arc<HashMap<String, Package>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(package) = packages.get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let etag = (ETAG, package.etag.clone());
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == package.etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [etag]).into_response();
    }
    let json = (CONTENT_TYPE, "application/vnd.npm.install-v1+json".to_owned());
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|accepted| accepted.to_str().ok());
    if accepted.is_some_and(|accepted| accepted.contains("gzip")) {
        return ([etag, json, (CONTENT_ENCODING, "gzip".to_owned())], package.gzipped.clone()).into_response();
    }
    ([etag, json], package.plain.clone()).into_response()
}

async fn file() -> Bytes {
    Bytes::from_static(&[0; FILE])
}
