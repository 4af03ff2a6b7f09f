//! `GET /v1/o/{org_id}/audit-log`: reads the organization's audit log.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::VARY;
use http::{HeaderMap, HeaderValue};
use shared::audit_search::{Filters, Page};
use shared::export::wants_csv;
use shared::openapi::{HolderErrors, OrgInPath, QueryErrors, tag};
use shared::permissions::AuditLogList;
use shared::{ApiError, App, Json, ManagerWith, Query};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Read the audit log
///
/// Newest first. Every creation, change, revocation and reset writes an entry in the same
/// transaction. A creation that is refused for its role, scope or plan writes one too. Entries are
/// kept for 400 days.
///
/// With `Accept: text/csv` the response is CSV with a header line: `id`, `at`, `actor_kind`,
/// `actor_id`, `action`, `target_kind`, `target_id`, `outcome`, `source_ip`, `request_id`. The next
/// page is then in the header `Link: <…>; rel="next"`, relative to the request URL; the last page
/// has no such header. Values that a spreadsheet would run as a formula are prefixed with an
/// apostrophe.
#[utoipa::path(
    get,
    path = "/v1/o/{org_id}/audit-log",
    operation_id = "audit-log-list",
    tag = tag::AUDIT_LOG,
    params(OrgInPath, Filters),
    responses(
        (
            status = 200,
            description = "A page of entries.",
            content((Page = "application/json"), (String = "text/csv")),
            headers(("vary" = String, description = "`Accept`, which selects JSON or CSV.")),
        ),
        HolderErrors,
        QueryErrors,
    ),
)]
async fn list(
    State(app): State<App>,
    manager: ManagerWith<AuditLogList>,
    headers: HeaderMap,
    Query(filters): Query<Filters>,
) -> Result<Response, ApiError> {
    let page = filters.read(app.store(), &manager.org_id).await?;
    let mut response = if wants_csv(&headers) { filters.csv(page)? } else { Json(page).into_response() };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}
