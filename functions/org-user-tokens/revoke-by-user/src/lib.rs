//! `POST /v1/o/{org_id}/guard/org-user-tokens/revoke-by-user`: revokes all tokens of a member who leaves.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::UserIdentifier;
use shared::ids::TokenId;
use shared::openapi::{BodyErrors, ConflictErrors, GuardErrors, OrgInPath, tag};
use shared::principal::OrgUserTokensRevokeByUser;
use shared::store::org_user_tokens::RevokeByUser;
use shared::{ApiError, App, BotWith, Json, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(revoke_by_user))
}

/// Whose tokens to revoke.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RevokeOrgUserTokensByUser)]
struct Request {
    /// Exactly this identifier: `alice` is not `alice2`.
    user_identifier: UserIdentifier,
    /// Only say what would be revoked.
    #[serde(default)]
    dry_run: bool,
    /// How many active tokens there must be; if there are more or fewer, none is revoked.
    #[schema(minimum = 0, example = 3)]
    expected_count: Option<u64>,
}

/// What was revoked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RevokedOrgUserTokens)]
struct Revoked {
    /// How many tokens of this identifier were active.
    matched: usize,
    /// The ids of those that are revoked now; empty in a dry run.
    revoked: Vec<TokenId>,
    /// The ids of those that would be revoked; only there in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_revoke: Option<Vec<TokenId>>,
    /// How many are still active, among them any that were issued meanwhile. Call again while it is above 0.
    remaining: usize,
}

/// Revoke all org user tokens of a user
///
/// The leaver workflow. Each token is revoked atomically, at least 500 in one call. Repeating the call is safe.
#[utoipa::path(
    post,
    path = "/v1/o/{org_id}/guard/org-user-tokens/revoke-by-user",
    operation_id = "org-user-tokens-revoke-by-user",
    tag = tag::ORG_USER_TOKENS,
    params(OrgInPath),
    request_body = Request,
    responses(
        (status = 200, description = "What was revoked, or would be.", body = Revoked),
        GuardErrors,
        BodyErrors,
        ConflictErrors,
    ),
)]
async fn revoke_by_user(
    State(app): State<App>,
    caller: BotWith<OrgUserTokensRevokeByUser>,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<Json<Revoked>, ApiError> {
    let Request { user_identifier, dry_run, expected_count } = request;
    let BotWith { bot, caller, .. } = caller;
    let revoking =
        app.store().revoke_org_user_tokens_of(&bot.org_id, &user_identifier, expected_count, dry_run, &bot.id, &caller);
    let RevokeByUser::Done(done) = revoking.await? else {
        return Err(ApiError::Conflict(
            "Another number of tokens is active than `expected_count` says; none was revoked.",
        ));
    };
    let (revoked, would_revoke) = if dry_run { (Vec::new(), Some(done.ids)) } else { (done.ids, None) };
    Ok(Json(Revoked { matched: done.matched, revoked, would_revoke, remaining: done.remaining }))
}
