//! `GET /v1/o/{org_id}/guard/org-user-tokens`: lists org user tokens, without the secrets.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::cursor::Pages;
use shared::domain::{StateFilter, UserIdentifier, UserIdentifierPrefix};
use shared::openapi::{HolderErrors, OrgInPath, QueryErrors, tag};
use shared::permissions::OrgUserTokensList;
use shared::store::org_user_tokens::Listing;
use shared::views::OrgUserTokenView;
use shared::{ApiError, App, BotWith, Json, Limit, Query, cursor};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Filters. Tokens must match all of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Only tokens whose `user_identifier` begins with this prefix.
    #[param(required = false, value_type = String, min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9._@+-]+$", example = "alice")]
    user_identifier_prefix: Option<UserIdentifierPrefix>,
    /// Only tokens with exactly this `user_identifier`.
    #[param(required = false, value_type = String, min_length = 4, max_length = 255, pattern = "^[A-Za-z0-9._@+-]+$", example = "alice-laptop")]
    user_identifier: Option<UserIdentifier>,
    /// Only tokens in this state.
    #[serde(default)]
    #[param(required = false, inline, default = "active")]
    status: StateFilter,
    /// Maximum entries per page.
    #[serde(default)]
    #[param(required = false, value_type = u32, minimum = 1, maximum = 100, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the previous page. Use it with the same filters.
    #[param(required = false, value_type = String)]
    cursor: Option<String>,
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrgUserTokenList)]
struct Page {
    /// The tokens, by `user_identifier`, then age.
    tokens: Vec<OrgUserTokenView>,
    /// The `cursor` of the next page; null on the last page.
    next_cursor: Option<String>,
}

/// List org user tokens
///
/// Ordered by `user_identifier`, then age. Strongly consistent: a new token is listed as soon as
/// the call that issued it returns.
#[utoipa::path(
    get,
    path = "/v1/o/{org_id}/guard/org-user-tokens",
    operation_id = "org-user-tokens-list",
    tag = tag::ORG_USER_TOKENS,
    params(
        OrgInPath,
        Filters,
    ),
    responses((status = 200, description = "A page of tokens.", body = Page), HolderErrors, QueryErrors),
)]
async fn list(
    State(app): State<App>,
    caller: BotWith<OrgUserTokensList>,
    Query(filters): Query<Filters>,
) -> Result<Json<Page>, ApiError> {
    let org = &caller.bot.org_id;
    // Everything that selects entries: a cursor is valid for this query only. The limit may change
    // between pages.
    let status = format!("{:?}", filters.status);
    let pages = Pages(&[
        "org-user-tokens-list",
        org.as_str(),
        &status,
        filters.user_identifier.as_ref().map_or("", UserIdentifier::as_str),
        filters.user_identifier_prefix.as_ref().map_or("", UserIdentifierPrefix::as_str),
    ]);
    let after = pages.after(filters.cursor.as_deref(), |place| Some(place.to_owned()))?;
    let listing = Listing {
        states: filters.status,
        user_identifier: filters.user_identifier.as_ref(),
        user_identifier_prefix: filters.user_identifier_prefix.as_ref(),
        bound_to: None,
        after: after.as_deref(),
        limit: filters.limit.get(),
        request_id: &caller.caller.request_id,
    };
    if !listing.has_valid_start() {
        return Err(cursor::foreign());
    }
    let page = app.store().list_org_user_tokens(org, &listing).await?;
    let now = app.clock().now();
    Ok(Json(Page {
        tokens: page.tokens.into_iter().map(|token| OrgUserTokenView::new(token, now)).collect(),
        next_cursor: pages.next(page.next.as_deref()),
    }))
}
