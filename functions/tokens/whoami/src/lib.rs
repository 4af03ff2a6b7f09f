//! `GET /v1/whoami`: returns the principal that the authorizer passed on.

use axum::Extension;
use shared::lambda::Authorized;
use shared::openapi::{UnauthorizedErrors, tag};
use shared::views::PrincipalView;
use shared::{ApiError, Json, NoQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(whoami))
}

/// Get the caller's identity
///
/// Accepts any active credential. Fields that do not apply to its kind are omitted. This call
/// updates a token's `last_used_at`.
#[utoipa::path(
    get,
    path = "/v1/whoami",
    operation_id = "tokens-whoami",
    tag = tag::TOKENS,
    responses((status = 200, description = "The caller.", body = PrincipalView), UnauthorizedErrors),
)]
async fn whoami(authorized: Option<Extension<Authorized>>, _: NoQuery) -> Result<Json<PrincipalView>, ApiError> {
    // Without the authorizer's context nobody gets in, however the function was invoked.
    let Some(Extension(Authorized(context))) = authorized else { return Err(ApiError::Forbidden) };
    let principal = serde_json::from_value(context).map_err(|_| {
        tracing::error!("the authorizer context could not be parsed");
        ApiError::Internal
    })?;
    Ok(Json(principal))
}
