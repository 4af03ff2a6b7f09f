//! `GET /api/v2/organization/tokens/`: lists organization access tokens, masked.

use axum::extract::State;
use axum::routing::get;
use shared::openapi::{HolderErrors, tag};
use shared::org_access_token_request::wrong_method_of_token;
use shared::permissions::OrgAccessTokensList;
use shared::views::OrgAccessTokenView;
use shared::{ApiError, App, BotWith, Json, NoQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function, with and without the trailing slash.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .route("/api/v2/organization/tokens", get(list))
        .route("/api/v2/organization/tokens/{token_id}", get(wrong_method_of_token))
        .route("/api/v2/organization/tokens/{token_id}/", get(wrong_method_of_token))
}

/// List organization access tokens
///
/// Returns all tokens, newest first, with their secrets masked.
#[utoipa::path(
    get,
    path = "/api/v2/organization/tokens/",
    operation_id = "org-access-tokens-list",
    tag = tag::ORG_ACCESS_TOKENS,
    responses((status = 200, description = "All tokens.", body = Vec<OrgAccessTokenView>), HolderErrors),
)]
async fn list(
    State(app): State<App>,
    caller: BotWith<OrgAccessTokensList>,
    _: NoQuery,
) -> Result<Json<Vec<OrgAccessTokenView>>, ApiError> {
    let tokens = app.store().org_access_tokens(&caller.bot.org_id).await?;
    Ok(Json(tokens.into_iter().map(OrgAccessTokenView::from).collect()))
}
