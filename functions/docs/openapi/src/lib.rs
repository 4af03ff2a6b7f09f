//! `GET` and `HEAD /v1/docs/openapi.json`: the OpenAPI document of the whole service, public.

use std::io::Write;
use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use shared::NoQuery;
use shared::accept::accepts_gzip;
use shared::openapi::tag;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The document: generated from the code, checked in, and compared with the code by a test.
pub const DOCUMENT: &str = include_str!("../../../../openapi.json");

/// The document compressed, once per process: anybody may ask for it at any rate. Empty if that
/// fails.
static COMPRESSED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(DOCUMENT.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default()
});

/// Its entity tag. It is weak, because the compressed and the plain document share it.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(DOCUMENT);
    let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
});

/// The routes of this function.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(openapi, head))
}

/// Get the OpenAPI document
///
/// The OpenAPI 3.1 document of the whole service.
#[utoipa::path(
    get,
    path = "/v1/docs/openapi.json",
    operation_id = "docs-openapi",
    tag = tag::DOCS,
    responses(
        (status = 200, description = "The OpenAPI document.", body = serde_json::Value, headers(
            ("ETag" = String, description = "The document's entity tag, for `If-None-Match`."),
        )),
        (status = 304, description = "The document has the entity tag in `If-None-Match`."),
    ),
)]
async fn openapi(_: NoQuery, headers: HeaderMap) -> Response {
    let common = [
        (ETAG, format!("W/{}", *TAG)),
        (CACHE_CONTROL, "public, max-age=300".to_owned()),
        (VARY, "Accept-Encoding".to_owned()),
    ];
    if is_known(&headers) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = [(CONTENT_TYPE, "application/json")];
    if accepts_gzip(&headers) && !COMPRESSED.is_empty() {
        return (common, kind, [(CONTENT_ENCODING, "gzip")], COMPRESSED.as_slice()).into_response();
    }
    (common, kind, DOCUMENT).into_response()
}

/// Get the headers of the OpenAPI document
///
/// As `GET`, without the document.
#[utoipa::path(
    head,
    path = "/v1/docs/openapi.json",
    operation_id = "docs-openapi-head",
    tag = tag::DOCS,
    responses(
        (status = 200, description = "The headers of the OpenAPI document.", headers(
            ("ETag" = String, description = "The document's entity tag, for `If-None-Match`."),
        )),
        (status = 304, description = "The document has the entity tag in `If-None-Match`."),
    ),
)]
async fn head(query: NoQuery, headers: HeaderMap) -> Response {
    // hyper sends no body to `HEAD`, and the length of the one that it would.
    openapi(query, headers).await
}

/// Whether the caller has this document: `If-None-Match` is a list of tags, or `*`.
fn is_known(headers: &HeaderMap) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == *TAG)
}
