//! `POST /v1/api-keys/{id}/rotate`: replaces an API key.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use shared::ids::TokenId;
use shared::openapi::{
    BodyErrors, HolderErrors, IdempotencyKeyHeader, PlanErrors, RefusalErrors, RepeatErrors, TokenErrors, tag,
};
use shared::permissions::ApiKeysRotate;
use shared::rotate_request::RotateRequest;
use shared::secret::ShownOnce;
use shared::store::tokens::ApiKey;
use shared::views::ApiKeyView;
use shared::{ApiError, App, Json, JsonOnce, ManagerWith, NoQuery, PathParams};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(rotate))
}

/// The new key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RotatedApiKey)]
struct Answer {
    /// The key. Returned only once.
    #[schema(value_type = String, example = "tk_live_a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90", pattern = "^tk_(live|test)_[0-9a-f]{64}$")]
    key: ShownOnce,
    #[serde(flatten)]
    about: ApiKeyView,
}

/// Rotate an API key
///
/// Creates a successor with the same name, environment and scopes, and ends the old key: at once,
/// after `overlap`, or at the successor's first use. As long as the successor is unused, the old key
/// may be rotated again: then that successor is revoked, so a lost response strands nobody. Both
/// count as one towards the plan's limit. An API key may rotate keys whose rights it has itself.
#[utoipa::path(
    post,
    path = "/v1/api-keys/{id}/rotate",
    operation_id = "api-keys-rotate",
    tag = tag::API_KEYS,
    params(("id" = String, Path, description = "The key's `id`", example = "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"), IdempotencyKeyHeader),
    request_body = RotateRequest,
    responses(
        (status = 201, description = "The successor was created.", body = Answer),
        HolderErrors,
        BodyErrors,
        TokenErrors,
        PlanErrors,
        RefusalErrors,
        RepeatErrors,
    ),
)]
async fn rotate(
    State(app): State<App>,
    manager: ManagerWith<ApiKeysRotate>,
    _: NoQuery,
    path: PathParams,
    request: JsonOnce<ApiKeysRotate, RotateRequest>,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let (request, once) = request.unless_repeated(&app, &manager.org_id, &manager.caller).await?;
    let id = TokenId::parse(path.get("id")).ok_or(ApiError::TokenNotFound)?;
    let (key, plain) = manager.minter().rotate::<ApiKey>(&app, &id, &request, once.as_ref()).await?;
    let about = ApiKeyView::new(*key, app.clock().now());
    Ok((StatusCode::CREATED, Json(Answer { key: ShownOnce(plain), about })))
}
