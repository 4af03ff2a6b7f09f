//! `GET /console/assets/{file}`: the stylesheet and the script. Public, and kept by browsers for good.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use shared::ApiError;
use shared::console::assets::asset;
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter {
    OpenApiRouter::new().route("/console/assets/{file}", get(file))
}

async fn file(Path(file): Path<String>) -> Result<Response, ApiError> {
    let asset = asset(&file).ok_or(ApiError::NotFound)?;
    let headers = [("content-type", asset.media_type), ("cache-control", "public, max-age=31536000, immutable")];
    Ok((headers, asset.text).into_response())
}
