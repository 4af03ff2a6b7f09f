//! `POST /v1/o/{org_id}/guard/org-user-tokens/by-id/{token_id}/rotate`: replaces an org user token.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use shared::ids::TokenId;
use shared::openapi::{
    BodyErrors, GuardErrors, IdempotencyKeyHeader, OrgInPath, RefusalErrors, RepeatErrors, TokenErrors, tag,
};
use shared::permissions::OrgUserTokensRotate;
use shared::rotate_request::RotateRequest;
use shared::secret::ShownOnce;
use shared::store::tokens::OrgUserToken;
use shared::views::OrgUserTokenView;
use shared::{ApiError, App, BotWith, Json, JsonOnce, NoQuery, PathParams};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(rotate))
}

/// The new token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RotatedOrgUserToken)]
struct Answer {
    /// The token. Returned only once.
    #[schema(value_type = String, example = "tg_org_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1", pattern = "^tg_org_[0-9A-Za-z]{42}$")]
    token: ShownOnce,
    #[serde(flatten)]
    about: OrgUserTokenView,
}

/// Rotate an org user token
///
/// Issues a successor for the same user, and ends the old token: at once, after `overlap`, or at the
/// successor's first use. As long as the successor is unused, the old token may be rotated again:
/// then that successor is revoked, so a lost response strands nobody.
#[utoipa::path(
    post,
    path = "/v1/o/{org_id}/guard/org-user-tokens/by-id/{token_id}/rotate",
    operation_id = "org-user-tokens-rotate",
    tag = tag::ORG_USER_TOKENS,
    params(
        OrgInPath,
        ("token_id" = String, Path, description = "The token's `id`", example = "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
        IdempotencyKeyHeader,
    ),
    request_body = RotateRequest,
    responses(
        (status = 201, description = "The successor was issued.", body = Answer),
        GuardErrors,
        BodyErrors,
        TokenErrors,
        RefusalErrors,
        RepeatErrors,
    ),
)]
async fn rotate(
    State(app): State<App>,
    caller: BotWith<OrgUserTokensRotate>,
    _: NoQuery,
    path: PathParams,
    request: JsonOnce<OrgUserTokensRotate, RotateRequest>,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let (request, once) = request.unless_repeated(&app, &caller.bot.org_id, &caller.caller).await?;
    let id = TokenId::parse(path.get("token_id")).ok_or(ApiError::TokenNotFound)?;
    let (token, plain) = caller.minter().rotate::<OrgUserToken>(&app, &id, &request, once.as_ref()).await?;
    let about = OrgUserTokenView::new(*token, app.clock().now());
    Ok((StatusCode::CREATED, Json(Answer { token: ShownOnce(plain), about })))
}
