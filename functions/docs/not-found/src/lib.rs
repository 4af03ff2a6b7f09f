//! `$default`: everything that no other route takes. 404, or 405 where the path takes other methods.
//!
//! API Gateway matches method and path exactly and knows one catch-all route; this function tells the two cases apart
//! by the paths of the OpenAPI document, which a test holds to the routes of the template.

use std::sync::LazyLock;

use axum::extract::Request;
use matchit::Router as Paths;
use shared::ApiError;
use utoipa_axum::router::OpenApiRouter;

/// The methods of each path, as the `Allow` header lists them.
static METHODS: LazyLock<Paths<String>> = LazyLock::new(|| {
    let mut paths = Paths::new();
    let document: serde_json::Value = serde_json::from_str(docs_openapi::DOCUMENT).unwrap_or_default();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        let methods = operations.as_object().into_iter().flatten().map(|(method, _)| method.to_uppercase());
        let methods = methods.collect::<Vec<_>>().join(", ");
        // Where a path is documented with a slash at its end, it is taken without as well.
        for path in [Some(path.as_str()), path.strip_suffix('/')].into_iter().flatten() {
            // A path that cannot be inserted is one the service could not route either.
            let _ = paths.insert(path, methods.clone());
        }
    }
    paths
});

/// The routes of this function: the fallback.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().fallback(not_found)
}

/// Answers a request that no route takes.
pub async fn not_found(request: Request) -> ApiError {
    let path = request.uri().path();
    match METHODS.at(path) {
        // A path that looks like a route and is none, such as one with an empty part, comes here with its method.
        Ok(path) if path.value.split(", ").any(|method| method == request.method().as_str()) => ApiError::NotFound,
        Ok(path) => ApiError::MethodNotAllowed(path.value.clone()),
        Err(_) => ApiError::NotFound,
    }
}
