//! `DELETE /v1/o/{org_id}/guard/org-user-tokens/by-id/{token_id}`: revokes an org user token.

use axum::extract::State;
use shared::ids::TokenId;
use shared::openapi::{HolderErrors, OrgInPath, TokenErrors, tag};
use shared::permissions::OrgUserTokensRevoke;
use shared::{ApiError, App, BotWith, NoContent, NoQuery, PathParams};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// Revoke an org user token
///
/// The token stops working, permanently, once this call returns. Repeating the call changes nothing
/// and returns 204 again. Expired tokens can be revoked too.
#[utoipa::path(
    delete,
    path = "/v1/o/{org_id}/guard/org-user-tokens/by-id/{token_id}",
    operation_id = "org-user-tokens-revoke",
    tag = tag::ORG_USER_TOKENS,
    params(
        OrgInPath,
        ("token_id" = String, Path, description = "The token's `id`", example = "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
    ),
    responses((status = 204, description = "The token is revoked."), HolderErrors, TokenErrors),
)]
async fn revoke(
    State(app): State<App>,
    caller: BotWith<OrgUserTokensRevoke>,
    _: NoQuery,
    path: PathParams,
) -> Result<NoContent, ApiError> {
    let id = TokenId::parse(path.get("token_id")).ok_or(ApiError::TokenNotFound)?;
    let BotWith { bot, caller, .. } = caller;
    let found = app.store().revoke_org_user_token(&bot.org_id, &id, &caller).await?;
    found.then_some(NoContent).ok_or(ApiError::TokenNotFound)
}
