//! `POST /v1/o/{org_id}/guard/org-user-tokens/revoke-by-user`: revokes all tokens of a user.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::UserIdentifier;
use shared::ids::TokenId;
use shared::openapi::{BodyErrors, ConflictErrors, HolderErrors, OrgInPath, tag};
use shared::permissions::OrgUserTokensRevokeByUser;
use shared::store::org_user_tokens::RevokeByUser;
use shared::{ApiError, App, BotWith, Json, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(revoke_by_user))
}

/// The user whose tokens to revoke.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RevokeOrgUserTokensByUser)]
struct Request {
    /// Revokes tokens with exactly this identifier: `alice` does not match `alice2`.
    user_identifier: UserIdentifier,
    /// If true, revokes nothing and returns the tokens it would revoke.
    #[serde(default)]
    dry_run: bool,
    /// The expected number of active tokens. If it differs, the call fails with 409 and revokes
    /// nothing.
    #[schema(minimum = 0, example = 3)]
    expected_count: Option<u64>,
}

/// The result of the revocation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RevokedOrgUserTokens)]
struct Revoked {
    /// The number of tokens with this identifier that were active.
    matched: usize,
    /// The ids of the tokens that this call revoked; empty in a dry run.
    revoked: Vec<TokenId>,
    /// The ids of the tokens to revoke. Present only in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_revoke: Option<Vec<TokenId>>,
    /// The number of tokens that are still active, including any issued meanwhile. Call again while
    /// it is above 0.
    remaining: usize,
}

/// Revoke all org user tokens of a user
///
/// For users who leave. Each token is revoked atomically, and one call revokes at least 500.
/// Repeating the call is safe.
#[utoipa::path(
    post,
    path = "/v1/o/{org_id}/guard/org-user-tokens/revoke-by-user",
    operation_id = "org-user-tokens-revoke-by-user",
    tag = tag::ORG_USER_TOKENS,
    params(OrgInPath),
    request_body = Request,
    responses(
        (status = 200, description = "The revoked tokens, or those a dry run would revoke.", body = Revoked),
        HolderErrors,
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
        app.store().revoke_org_user_tokens_of(&bot.org_id, &user_identifier, expected_count, dry_run, &caller);
    let RevokeByUser::Done(done) = revoking.await? else {
        return Err(ApiError::Conflict(
            "The number of active tokens differs from `expected_count`; nothing was revoked. Check with `dry_run`.",
        ));
    };
    let (revoked, would_revoke) = if dry_run { (Vec::new(), Some(done.ids)) } else { (done.ids, None) };
    Ok(Json(Revoked { matched: done.matched, revoked, would_revoke, remaining: done.remaining }))
}
