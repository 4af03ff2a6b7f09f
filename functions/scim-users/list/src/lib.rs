//! `GET /scim/v2/Users`: lists provisioned people, or finds one by name.

use axum::extract::State;
use shared::ids::OrgId;
use shared::openapi::{ScimErrors, ScimQueryErrors, tag};
use shared::permissions::ScimUsersList;
use shared::scim::{ScimAnswer, ScimListParameters, ScimListView, ScimQuery};
use shared::store::{Store, StoreError};
use shared::{ApiError, App, BotWith};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// List SCIM users
///
/// Returns the users that were created with SCIM, oldest first, or the one with this `userName`.
/// Other parameters are ignored.
#[utoipa::path(
    get,
    path = "/scim/v2/Users",
    operation_id = "scim-users-list",
    tag = tag::SCIM,
    params(ScimListParameters),
    responses(
        (status = 200, description = "A page of users.", body = ScimListView, content_type = "application/scim+json"),
        ScimErrors,
        ScimQueryErrors,
    ),
)]
async fn list(
    State(app): State<App>,
    caller: BotWith<ScimUsersList>,
    query: ScimQuery,
) -> Result<ScimAnswer<ScimListView>, ApiError> {
    Ok(ScimAnswer(found(app.store(), &caller.bot.org_id, query).await?))
}

async fn found(store: &Store, org: &OrgId, query: ScimQuery) -> Result<ScimListView, StoreError> {
    let ScimQuery { name, skipped, limit } = query;
    let Some(name) = name else {
        let page = store.scim_users(org, skipped, limit).await?;
        return Ok(ScimListView::new(page.users, skipped, page.total));
    };
    let user = match name {
        Some(name) => store.scim_user_named(org, &name).await?,
        None => None,
    };
    let total = usize::from(user.is_some());
    Ok(ScimListView::new(user.into_iter().skip(skipped).take(limit).collect(), skipped, total))
}
