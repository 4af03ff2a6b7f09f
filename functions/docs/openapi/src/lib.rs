//! `GET /v1/docs/openapi.json`: the OpenAPI document of the whole service, public.

use axum::http::header;
use axum::response::IntoResponse;
use shared::NoQuery;
use shared::openapi::tag;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The document: generated from the code, checked in, and compared with the code by a test.
pub const DOCUMENT: &str = include_str!("../../../../openapi.json");

/// The routes of this function.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// Get the OpenAPI document
///
/// The OpenAPI 3.1 document of the whole service.
#[utoipa::path(
    get,
    path = "/v1/docs/openapi.json",
    operation_id = "docs-openapi",
    tag = tag::DOCS,
    responses((status = 200, description = "The OpenAPI document.", body = serde_json::Value)),
)]
async fn openapi(_: NoQuery) -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, DOCUMENT)
}
