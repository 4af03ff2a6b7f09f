//! `GET /v1/o/{org_id}/audit-log`: reads the organization's audit log.

use std::net::IpAddr;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::cursor::Pages;
use shared::domain::OrUnknown;
use shared::ids::AuditId;
use shared::openapi::{HolderErrors, OrgInPath, QueryErrors, tag};
use shared::permissions::AuditLogList;
use shared::store::audit::{Entry, Outcome, Search, Subject};
use shared::store::keys::Log;
use shared::{ApiError, App, Json, Limit, ManagerWith, Moment, Query};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Filters. Entries must match all of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Only entries with this actor, by id.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#, example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    actor: Option<FilterValue>,
    /// Only entries with this action, as `<resource>.<verb>`.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#, example = "org_user_token.issue")]
    action: Option<FilterValue>,
    /// Only entries with this target, by id.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#)]
    target: Option<FilterValue>,
    /// Only entries at or after this time.
    #[param(required = false, value_type = String, format = DateTime)]
    from: Option<Moment>,
    /// Only entries before this time.
    #[param(required = false, value_type = String, format = DateTime)]
    to: Option<Moment>,
    /// Maximum entries per page.
    #[serde(default)]
    #[param(required = false, value_type = u32, minimum = 1, maximum = 100, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the previous page. Use it with the same filters.
    #[param(required = false, value_type = String)]
    cursor: Option<String>,
}

/// A filter value: 1–100 visible ASCII characters other than `#`. An empty one usually comes from
/// an unset variable.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct FilterValue(String);

impl TryFrom<String> for FilterValue {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_value = (1..=100).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic() && c != b'#');
        if is_value {
            Ok(Self(text))
        } else {
            Err("must have 1 to 100 visible ASCII characters other than `#`; omit it to list everything")
        }
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditLog)]
struct Page {
    /// The entries, newest first.
    entries: Vec<EntryView>,
    /// The `cursor` of the next page; null on the last page.
    next_cursor: Option<String>,
}

/// One action: who did what to which resource.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct EntryView {
    /// The entry's id. Ids sort by time.
    id: AuditId,
    /// When the action happened.
    at: Moment,
    /// Who performed the action.
    #[schema(inline)]
    actor: SubjectView,
    /// The action, as `<resource>.<verb>`.
    #[schema(example = "org_user_token.issue")]
    action: String,
    /// The resource acted on. For a refused creation, the organization.
    #[schema(inline)]
    target: SubjectView,
    /// `done`, or `refused` for lack of a role or scope or because of the plan.
    #[schema(value_type = String, example = "done")]
    outcome: OrUnknown<Outcome>,
    /// The IP address of the caller; null for the operator's command line.
    #[schema(value_type = Option<String>, example = "203.0.113.7")]
    source_ip: Option<IpAddr>,
    /// The `x-request-id` of the request.
    request_id: String,
}

/// A resource or principal.
#[derive(Debug, Serialize, ToSchema)]
struct SubjectView {
    /// The kind of resource.
    #[schema(example = "bot")]
    kind: String,
    /// The management id.
    #[schema(example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    id: String,
}

impl From<Subject> for SubjectView {
    fn from(Subject { kind, id }: Subject) -> Self {
        Self { kind, id }
    }
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            actor: entry.actor.into(),
            action: entry.action,
            target: entry.target.into(),
            outcome: entry.outcome,
            source_ip: entry.source_ip,
            request_id: entry.request_id,
        }
    }
}

/// Read the audit log
///
/// Newest first. Every creation, change, revocation and reset writes an entry in the same
/// transaction. A creation that is refused for its role, scope or plan writes one too. Entries are
/// kept for 400 days.
#[utoipa::path(
    get,
    path = "/v1/o/{org_id}/audit-log",
    operation_id = "audit-log-list",
    tag = tag::AUDIT_LOG,
    params(OrgInPath, Filters),
    responses((status = 200, description = "A page of entries.", body = Page), HolderErrors, QueryErrors),
)]
async fn list(
    State(app): State<App>,
    manager: ManagerWith<AuditLogList>,
    Query(filters): Query<Filters>,
) -> Result<Json<Page>, ApiError> {
    let text = |value: &Option<FilterValue>| value.as_ref().map(|value| value.0.clone()).unwrap_or_default();
    let moment = |value: Option<Moment>| value.map(|value| value.to_string()).unwrap_or_default();
    let (actor, action, target) = (text(&filters.actor), text(&filters.action), text(&filters.target));
    let (from, to) = (moment(filters.from), moment(filters.to));
    // Everything that selects entries: a cursor is valid for this query only. The limit may change
    // between pages.
    let pages = Pages(&["audit-log-list", manager.org_id.as_str(), &actor, &action, &target, &from, &to]);
    let after = pages.after(filters.cursor.as_deref(), AuditId::parse)?;
    let search = Search {
        actor: filters.actor.as_ref().map(|value| value.0.as_str()),
        action: filters.action.as_ref().map(|value| value.0.as_str()),
        target: filters.target.as_ref().map(|value| value.0.as_str()),
        from: filters.from,
        to: filters.to,
        after: after.as_ref(),
        limit: filters.limit.get(),
    };
    let page = app.store().audit_log(&Log::from(&manager.org_id), &search).await?;
    Ok(Json(Page {
        entries: page.entries.into_iter().map(EntryView::from).collect(),
        next_cursor: pages.next(page.next.as_ref().map(AuditId::as_str)),
    }))
}
