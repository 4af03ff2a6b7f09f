//! `$default`: the catch-all route. Returns 404, or 405 if the path has other methods.
//!
//! API Gateway matches method and path together, so this function looks up the path in the OpenAPI
//! document. A test checks that the document and the template have the same routes.

use std::sync::LazyLock;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use matchit::Router as Paths;
use shared::ApiError;
use shared::console::{ORGANIZATIONS, ROOT, see_other};
use utoipa_axum::router::OpenApiRouter;

/// The methods of each path, as the `Allow` header lists them.
static METHODS: LazyLock<Paths<String>> = LazyLock::new(|| {
    let mut paths = Paths::new();
    let document: serde_json::Value = serde_json::from_str(docs_openapi::DOCUMENT).unwrap_or_default();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        let methods = operations.as_object().into_iter().flatten().map(|(method, _)| method.to_uppercase());
        let methods = methods.collect::<Vec<_>>().join(", ");
        // A path documented with a trailing slash is also served without it.
        for path in [Some(path.as_str()), path.strip_suffix('/')].into_iter().flatten() {
            // A path that cannot be inserted could not be routed either.
            let _ = paths.insert(path, methods.clone());
        }
    }
    paths
});

/// The routes of this function: the fallback.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().fallback(not_found)
}

/// Handles a request that matches no route.
pub async fn not_found(request: Request) -> Response {
    if request.uri().path() == ROOT {
        // API Gateway has no route that ends in a slash.
        return see_other(ORGANIZATIONS);
    }
    error_at(&request).into_response()
}

fn error_at(request: &Request) -> ApiError {
    let path = request.uri().path();
    match METHODS.at(path) {
        // A path that only resembles a route, such as one with an empty segment, arrives with an
        // allowed method.
        Ok(path) if path.value.split(", ").any(|method| method == request.method().as_str()) => ApiError::NotFound,
        Ok(path) => ApiError::MethodNotAllowed(path.value.clone()),
        Err(_) => ApiError::NotFound,
    }
}
