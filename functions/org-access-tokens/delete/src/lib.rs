//! `DELETE /api/v2/organization/tokens/{token_id}/`: deletes an organization access token.

use axum::extract::State;
use axum::routing;
use shared::openapi::{HolderErrors, TokenErrors, tag};
use shared::org_access_token_request::{token_id, wrong_method_of_list};
use shared::permissions::OrgAccessTokensDelete;
use shared::{ApiError, App, BotWith, NoContent, NoQuery, PathParams};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function, with and without the trailing slash.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(delete))
        .route("/api/v2/organization/tokens/{token_id}", routing::delete(delete))
        .route("/api/v2/organization/tokens/", routing::delete(wrong_method_of_list))
}

/// Delete an organization access token
///
/// The token stops working, permanently, once this call returns. Its name can be used again.
#[utoipa::path(
    delete,
    path = "/api/v2/organization/tokens/{token_id}/",
    operation_id = "org-access-tokens-delete",
    tag = tag::ORG_ACCESS_TOKENS,
    params(("token_id" = u64, Path, description = "The token's `id`", example = 12)),
    responses((status = 204, description = "The token is deleted."), HolderErrors, TokenErrors),
)]
async fn delete(
    State(app): State<App>,
    caller: BotWith<OrgAccessTokensDelete>,
    _: NoQuery,
    path: PathParams,
) -> Result<NoContent, ApiError> {
    let deleted = app.store().delete_org_access_token(&caller.bot.org_id, token_id(&path)?, &caller.caller).await?;
    deleted.then_some(NoContent).ok_or(ApiError::TokenNotFound)
}
