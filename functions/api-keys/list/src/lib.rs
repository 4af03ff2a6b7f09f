//! `GET /v1/api-keys`: lists API keys, without the secrets.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::cursor::Pages;
use shared::domain::{Environment, OrUnknown, Plan, StateFilter};
use shared::ids::TokenId;
use shared::openapi::{HolderErrors, QueryErrors, tag};
use shared::permissions::ApiKeysList;
use shared::store::api_keys::Listing;
use shared::views::ApiKeyView;
use shared::{ApiError, App, Json, Limit, ManagerWith, Query};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Filters. Keys must match all of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Only keys in this state.
    #[serde(default)]
    #[param(required = false, inline, default = "active")]
    status: StateFilter,
    /// Only keys of this environment.
    #[param(required = false, inline)]
    environment: Option<Environment>,
    /// Maximum entries per page.
    #[serde(default)]
    #[param(required = false, value_type = u32, minimum = 1, maximum = 100, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the previous page. Use it with the same filters.
    #[param(required = false, value_type = String)]
    cursor: Option<String>,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKeyList)]
struct Page {
    /// The keys, newest first.
    api_keys: Vec<ApiKeyView>,
    /// The `cursor` of the next page; null on the last page.
    next_cursor: Option<String>,
    /// The plan and its limit.
    #[schema(inline)]
    plan: PlanView,
}

#[derive(Debug, Serialize, ToSchema)]
struct PlanView {
    /// The organization's plan.
    #[schema(inline, value_type = Plan)]
    name: OrUnknown<Plan>,
    /// The maximum number of active keys; null if unlimited.
    max_api_keys: Option<u64>,
    /// The number of active keys.
    active_api_keys: u64,
}

/// List API keys
///
/// Newest first. Strongly consistent: a new key is listed as soon as the call that created it
/// returns.
#[utoipa::path(
    get,
    path = "/v1/api-keys",
    operation_id = "api-keys-list",
    tag = tag::API_KEYS,
    params(Filters),
    responses((status = 200, description = "A page of keys.", body = Page), HolderErrors, QueryErrors),
)]
async fn list(
    State(app): State<App>,
    manager: ManagerWith<ApiKeysList>,
    Query(filters): Query<Filters>,
) -> Result<Json<Page>, ApiError> {
    let org = &manager.org_id;
    // Everything that selects entries: a cursor is valid for this query only. The limit may change
    // between pages.
    let (status, environment) = (format!("{:?}", filters.status), format!("{:?}", filters.environment));
    let pages = Pages(&["api-keys-list", org.as_str(), &status, &environment]);
    let after = pages.after(filters.cursor.as_deref(), TokenId::parse)?;
    let listing = Listing {
        states: filters.status,
        environment: filters.environment,
        after: after.as_ref(),
        limit: filters.limit.get(),
        request_id: &manager.caller.request_id,
    };
    // Counting first: it moves expired keys, so that the list and the count agree.
    let (plan, active) = app.store().api_key_plan(org).await?;
    let page = app.store().list_api_keys(org, &listing).await?;
    let now = app.clock().now();
    Ok(Json(Page {
        api_keys: page.keys.into_iter().map(|key| ApiKeyView::new(key, now)).collect(),
        next_cursor: pages.next(page.next.as_ref().map(TokenId::as_str)),
        plan: PlanView { max_api_keys: plan.max_api_keys(), name: plan, active_api_keys: active },
    }))
}
