//! `DELETE /v1/api-keys/{id}`: revokes an API key.

use axum::extract::State;
use shared::ids::TokenId;
use shared::openapi::{HolderErrors, TokenErrors, tag};
use shared::permissions::ApiKeysRevoke;
use shared::{ApiError, App, ManagerWith, NoContent, NoQuery, PathParams};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// Revoke an API key
///
/// The key stops working, permanently, once this call returns. Repeating the call changes nothing
/// and returns 204 again. A key may revoke itself.
#[utoipa::path(
    delete,
    path = "/v1/api-keys/{id}",
    operation_id = "api-keys-revoke",
    tag = tag::API_KEYS,
    params(("id" = String, Path, description = "The key's `id`", example = "01KAJ8M4R2X7Z9V5T3Q1N6P8WC")),
    responses((status = 204, description = "The key is revoked."), HolderErrors, TokenErrors),
)]
async fn revoke(
    State(app): State<App>,
    manager: ManagerWith<ApiKeysRevoke>,
    _: NoQuery,
    path: PathParams,
) -> Result<NoContent, ApiError> {
    let id = TokenId::parse(path.get("id")).ok_or(ApiError::TokenNotFound)?;
    let found = app.store().revoke_api_key(&manager.org_id, &id, &manager.caller).await?;
    found.then_some(NoContent).ok_or(ApiError::TokenNotFound)
}
