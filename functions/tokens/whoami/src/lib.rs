//! `GET /v1/whoami`: says who the caller is, as the authorizer before it handed on.

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

/// Say who the caller is
///
/// For any credential that counts. What does not apply to its kind is left out. The call is a use of a token.
#[utoipa::path(
    get,
    path = "/v1/whoami",
    operation_id = "tokens-whoami",
    tag = tag::TOKENS,
    responses((status = 200, description = "Who the caller is.", body = PrincipalView), UnauthorizedErrors),
)]
async fn whoami(authorized: Option<Extension<Authorized>>, _: NoQuery) -> Result<Json<PrincipalView>, ApiError> {
    // Without the authorizer's word nobody gets in, however the function came to be called.
    let Some(Extension(Authorized(context))) = authorized else { return Err(ApiError::Forbidden) };
    let principal = serde_json::from_value(context).map_err(|_| {
        tracing::error!("the authorizer handed on what cannot be read");
        ApiError::Internal
    })?;
    Ok(Json(principal))
}
