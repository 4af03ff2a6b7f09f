//! `POST /api/v2/organization/tokens/`: creates an organization access token.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use shared::openapi::{BodyErrors, HolderErrors, IdempotencyKeyHeader, PlanErrors, RefusalErrors, RepeatErrors, tag};
use shared::org_access_token_request::{Replacement, rejected, wrong_method_of_token};
use shared::permissions::OrgAccessTokensCreate;
use shared::secret::ShownOnce;
use shared::store::org_access_tokens::{Created, Rejected};
use shared::views::{OrgAccessTokenView, ShownToken};
use shared::{ApiError, App, BotWith, Json, JsonOnce, NoQuery};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function, with and without the trailing slash.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .route("/api/v2/organization/tokens", post(create))
        .route("/api/v2/organization/tokens/{token_id}", post(wrong_method_of_token))
        .route("/api/v2/organization/tokens/{token_id}/", post(wrong_method_of_token))
}

/// Create an organization access token
///
/// Returns the token only once. Its name must be unique in the organization, and its projects must
/// exist. An organization has at most 1,000 access tokens.
#[utoipa::path(
    post,
    path = "/api/v2/organization/tokens/",
    operation_id = "org-access-tokens-create",
    tag = tag::ORG_ACCESS_TOKENS,
    params(IdempotencyKeyHeader),
    request_body = Replacement,
    responses(
        (status = 201, description = "The token was created.", body = OrgAccessTokenView),
        HolderErrors,
        BodyErrors,
        PlanErrors,
        RefusalErrors,
        RepeatErrors,
    ),
)]
async fn create(
    State(app): State<App>,
    caller: BotWith<OrgAccessTokensCreate>,
    _: NoQuery,
    request: JsonOnce<OrgAccessTokensCreate, Replacement>,
) -> Result<(StatusCode, Json<OrgAccessTokenView>), ApiError> {
    let org = &caller.bot.org_id;
    let (request, once) = request.unless_repeated(&app, org, &caller.caller).await?;
    let settings = request.settings(app.clock().now())?;
    caller.check_lifetime(&app, settings.expires_at).await?;
    let created = app.store().create_org_access_token(org, settings, &caller.caller, once.as_ref()).await?;
    let (token, plain) = match created {
        Created::Done(token, plain) => (token, plain),
        Created::Repeated(repeat) => return Err(repeat.into()),
        Created::Rejected(reason) => {
            if matches!(reason, Rejected::TooMany | Rejected::Suspended) {
                caller.record_refusal(&app).await?;
            }
            return Err(rejected(reason));
        }
    };
    let take_back = app.store().delete_org_access_token(org, token.id, &caller.caller);
    caller.confirm(&app, once.as_ref(), take_back).await?;
    let view = OrgAccessTokenView { token: ShownToken::Whole(ShownOnce(plain)), ..(*token).into() };
    Ok((StatusCode::CREATED, Json(view)))
}
