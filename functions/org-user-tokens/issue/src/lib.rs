//! `POST /v1/o/{org_id}/guard/org-user-tokens`: issues an org user token.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::domain::UserIdentifier;
use shared::extract::in_the_future;
use shared::openapi::{BodyErrors, GuardErrors, IdempotencyKeyHeader, OrgInPath, RefusalErrors, RepeatErrors, tag};
use shared::permissions::OrgUserTokensIssue;
use shared::secret::ShownOnce;
use shared::store::lifetimes::Limited;
use shared::store::org_user_tokens::Issued;
use shared::views::OrgUserTokenView;
use shared::{ApiError, App, BotWith, Json, JsonOnce, Moment, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(issue))
}

/// The user of the token, and its expiry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IssueOrgUserToken)]
struct Request {
    user_identifier: UserIdentifier,
    /// When the token expires. Must be in the future. If null or omitted, the token does not
    /// expire, unless the organization's policy requires an expiry.
    #[schema(example = "2099-12-31T23:59:59Z")]
    expires_at: Option<Moment>,
}

/// The new token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssuedOrgUserToken)]
struct Answer {
    /// The token. Returned only once.
    #[schema(value_type = String, example = "tg_org_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1", pattern = "^tg_org_[0-9A-Za-z]{42}$")]
    token: ShownOnce,
    #[serde(flatten)]
    about: OrgUserTokenView,
}

/// Issue an org user token
///
/// Returns the token only once. Tokens may share a `user_identifier`.
#[utoipa::path(
    post,
    path = "/v1/o/{org_id}/guard/org-user-tokens",
    operation_id = "org-user-tokens-issue",
    tag = tag::ORG_USER_TOKENS,
    params(OrgInPath, IdempotencyKeyHeader),
    request_body = Request,
    responses(
        (status = 201, description = "The token was issued.", body = Answer),
        GuardErrors,
        BodyErrors,
        RefusalErrors,
        RepeatErrors,
    ),
)]
async fn issue(
    State(app): State<App>,
    caller: BotWith<OrgUserTokensIssue>,
    _: NoQuery,
    request: JsonOnce<OrgUserTokensIssue, Request>,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let (store, BotWith { bot, caller: by, .. }) = (app.store(), &caller);
    let (Request { user_identifier, expires_at }, once) = request.unless_repeated(&app, &bot.org_id, by).await?;
    let now = app.clock().now();
    let expires_at = in_the_future(expires_at, now)?;
    caller.check_policy(Limited::OrgUserToken, now, expires_at)?;
    caller.check_lifetime(&app, expires_at).await?;
    let issued = store.issue_org_user_token(&bot.org_id, user_identifier, expires_at, by, once.as_ref());
    let (token, plain) = match issued.await? {
        Issued::Done(token, plain) => (token, plain),
        Issued::Repeated(repeat) => return Err(repeat.into()),
    };
    caller.confirm(&app, once.as_ref(), store.revoke_org_user_token(&bot.org_id, &token.id, by)).await?;
    let about = OrgUserTokenView::new(*token, app.clock().now());
    Ok((StatusCode::CREATED, Json(Answer { token: ShownOnce(plain), about })))
}
