//! `GET /v1/api-keys`: lists API keys, without the keys.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::{Environment, Plan, StateFilter};
use shared::ids::TokenId;
use shared::openapi::{HolderErrors, QueryErrors, tag};
use shared::principal::ApiKeysList;
use shared::store::api_keys::Listing;
use shared::views::ApiKeyView;
use shared::{ApiError, App, Json, Limit, ManagerWith, Query, cursor};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which keys to list. Filters that are given together must all hold.
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
    /// At most so many in one answer.
    #[serde(default)]
    #[param(required = false, value_type = u32, minimum = 1, maximum = 100, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the answer before, for the same filters.
    #[param(required = false, value_type = String)]
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKeyList)]
struct Page {
    /// Newest first.
    api_keys: Vec<ApiKeyView>,
    /// What to send as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
    /// How many keys there may be.
    #[schema(inline)]
    plan: PlanView,
}

#[derive(Debug, Serialize, ToSchema)]
struct PlanView {
    /// What the organization pays for.
    #[schema(inline)]
    name: Plan,
    /// How many keys may be active at once; null where there is no limit.
    max_api_keys: Option<u64>,
    /// How many are.
    active_api_keys: u64,
}

/// List API keys
///
/// Newest first. A key is in the list as soon as the call that created it is answered.
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
    // Everything that decides what is listed: a cursor is good for just this query. Only the limit may change.
    let (status, environment) = (format!("{:?}", filters.status), format!("{:?}", filters.environment));
    let query = ["api-keys-list", org.as_str(), &status, &environment];
    let after = filters.cursor.map(|cursor| cursor::read(&query, &cursor)).transpose()?;
    let after = after.map(|id| TokenId::parse(&id).ok_or_else(cursor::foreign)).transpose()?;
    let listing = Listing {
        states: filters.status,
        environment: filters.environment,
        after: after.as_ref(),
        limit: filters.limit.get(),
    };
    // First what moves keys whose time is over, so that list and count agree.
    let (plan, active) = app.store().api_key_plan(org).await?;
    let page = app.store().list_api_keys(org, &listing).await?;
    let now = app.clock().now();
    Ok(Json(Page {
        api_keys: page.keys.into_iter().map(|key| ApiKeyView::new(key, now)).collect(),
        next_cursor: page.next.map(|id| cursor::write(&query, id.as_str())),
        plan: PlanView { name: plan, max_api_keys: plan.max_api_keys(), active_api_keys: active },
    }))
}
