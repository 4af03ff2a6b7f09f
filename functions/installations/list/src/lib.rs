//! `GET /v1/o/{org_id}/guard/installations`: reads the organization's installation log.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::VARY;
use http::{HeaderMap, HeaderValue};
use shared::export::wants_csv;
use shared::installation_search::{Filters, Page};
use shared::openapi::{GuardErrors, OrgInPath, QueryErrors, tag};
use shared::permissions::InstallationsList;
use shared::{ApiError, BotWith, InstallationsApp, Json, Query};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<InstallationsApp> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Read the installation log
///
/// Newest first. Lists the files downloaded from the registries with tokens of the organization:
/// one entry per file, token and client session, or per minute if the client reports no session.
/// Entries appear within about a second and are kept for 14 days.
///
/// With `Accept: text/csv` the response is CSV with the same columns and a header line. The next
/// page is then in the header `Link: <…>; rel="next"`, relative to the request URL; the last page
/// has no such header. Values that a spreadsheet would run as a formula are prefixed with an
/// apostrophe.
#[utoipa::path(
    get,
    path = "/v1/o/{org_id}/guard/installations",
    operation_id = "installations-list",
    tag = tag::INSTALLATIONS,
    params(OrgInPath, Filters),
    responses(
        (
            status = 200,
            description = "A page of entries.",
            content((Page = "application/json"), (String = "text/csv")),
            headers(("vary" = String, description = "`Accept`, which selects JSON or CSV.")),
        ),
        GuardErrors,
        QueryErrors,
    ),
)]
async fn list(
    State(InstallationsApp { log, .. }): State<InstallationsApp>,
    caller: BotWith<InstallationsList>,
    headers: HeaderMap,
    Query(filters): Query<Filters>,
) -> Result<Response, ApiError> {
    let page = filters.read(&log, &caller.bot.org_id).await?;
    let mut response = if wants_csv(&headers) { filters.csv(page)? } else { Json(page).into_response() };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}
