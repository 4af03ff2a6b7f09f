//! `PUT` and `PATCH /api/v2/organization/tokens/{token_id}/`: change an organization access token.

use axum::extract::State;
use axum::routing::put;
use shared::auth::OUTLIVES_JOB;
use shared::openapi::{BodyErrors, HolderErrors, TokenErrors, tag};
use shared::org_access_token_request::{Merge, Replacement, rejected, token_id, wrong_method_of_list};
use shared::permissions::OrgAccessTokensUpdate;
use shared::store::lifetimes::{Lifetimes, Limited};
use shared::store::org_access_tokens::{Changed, Settings};
use shared::store::tokens::OrgAccessToken;
use shared::views::OrgAccessTokenView;
use shared::{ApiError, App, BotWith, Json, NoQuery, PathParams};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function, with and without the trailing slash.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(replace, merge))
        .route("/api/v2/organization/tokens/{token_id}", put(replace).patch(merge))
        .route("/api/v2/organization/tokens/", put(wrong_method_of_list).patch(wrong_method_of_list))
}

/// Replace an organization access token's settings
///
/// Replaces all settings. Omitted fields get their default, as on creation. The organization's policy
/// binds an `expires_at` that changes.
#[utoipa::path(
    put,
    path = "/api/v2/organization/tokens/{token_id}/",
    operation_id = "org-access-tokens-replace",
    tag = tag::ORG_ACCESS_TOKENS,
    params(("token_id" = u64, Path, description = "The token's `id`", example = 12)),
    request_body = Replacement,
    responses(
        (status = 200, description = "The updated token.", body = OrgAccessTokenView),
        HolderErrors,
        BodyErrors,
        TokenErrors,
    ),
)]
async fn replace(
    State(app): State<App>,
    caller: BotWith<OrgAccessTokensUpdate>,
    _: NoQuery,
    path: PathParams,
    Json(request): Json<Replacement>,
) -> Result<Json<OrgAccessTokenView>, ApiError> {
    let settings = request.settings(app.clock().now())?;
    let policy = app.store().lifetimes(&caller.bot.org_id).await?;
    change(&app, caller, &path, policy, |_| Ok(settings.clone())).await
}

/// Change an organization access token
///
/// Changes only the given fields; an empty object changes nothing. Use it to rotate permissions, or
/// to disable a compromised token without deleting it.
#[utoipa::path(
    patch,
    path = "/api/v2/organization/tokens/{token_id}/",
    operation_id = "org-access-tokens-update",
    tag = tag::ORG_ACCESS_TOKENS,
    params(("token_id" = u64, Path, description = "The token's `id`", example = 12)),
    request_body = Merge,
    responses(
        (status = 200, description = "The updated token.", body = OrgAccessTokenView),
        HolderErrors,
        BodyErrors,
        TokenErrors,
    ),
)]
async fn merge(
    State(app): State<App>,
    caller: BotWith<OrgAccessTokensUpdate>,
    _: NoQuery,
    path: PathParams,
    Json(request): Json<Merge>,
) -> Result<Json<OrgAccessTokenView>, ApiError> {
    let now = app.clock().now();
    // The policy binds only who sets an expiry, so that it never delays disabling a token.
    let policy = match request.expires_at {
        Some(_) => app.store().lifetimes(&caller.bot.org_id).await?,
        None => Lifetimes::default(),
    };
    change(&app, caller, &path, policy, |token| request.onto(token, now)).await
}

/// Attempts of a change whose bot is changed meanwhile.
const MAX_ATTEMPTS: usize = 8;

async fn change(
    app: &App,
    mut caller: BotWith<OrgAccessTokensUpdate>,
    path: &PathParams,
    policy: Lifetimes,
    change: impl Fn(&OrgAccessToken) -> Result<Settings, ApiError>,
) -> Result<Json<OrgAccessTokenView>, ApiError> {
    let id = token_id(path)?;
    for _ in 0..MAX_ATTEMPTS {
        let (org, by) = (&caller.bot.org_id, caller.bot.authority());
        let change = |token: &OrgAccessToken| {
            let settings = change(token)?;
            if settings.expires_at != token.expires_at {
                policy.check(Limited::OrgAccessToken, token.created_at, settings.expires_at)?;
            }
            let is_allowed = !raises(token, &settings) || caller.bot.may_mint_until(settings.expires_at);
            if is_allowed { Ok(settings) } else { Err(OUTLIVES_JOB) }
        };
        return match app.store().change_org_access_token(org, by, id, &caller.caller, &change).await?? {
            Changed::Done(token) => Ok(Json((*token).into())),
            Changed::Rejected(reason) => Err(rejected(reason)),
            Changed::NotFound => Err(ApiError::TokenNotFound),
            Changed::CallerChanged => {
                caller.check_again(app).await?;
                continue;
            }
        };
    }
    Err(ApiError::Unavailable)
}

/// Whether a change gives a token more rights, or the same for longer.
fn raises(token: &OrgAccessToken, settings: &Settings) -> bool {
    let lives_longer =
        token.expires_at.is_some_and(|before| settings.expires_at.is_none_or(|expires_at| expires_at > before));
    let is_enabled = settings.is_active && !token.is_active;
    lives_longer || is_enabled || settings.access_config.exceeds(&token.access_config)
}
