//! `GET /v1/o/{org_id}/audit-log`: reads the organization's audit log.

use std::net::IpAddr;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::ids::AuditId;
use shared::openapi::{HolderErrors, OrgInPath, QueryErrors, tag};
use shared::principal::AuditLogList;
use shared::store::audit::{Entry, Log, Outcome, Search, Subject};
use shared::{ApiError, App, Json, Limit, ManagerWith, Moment, Query, cursor};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which entries to read. Filters that are given together must all hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Only what this actor did: its id.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#, example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    actor: Option<FilterValue>,
    /// Only this action: `<resource>.<verb>`.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#, example = "org_user_token.issue")]
    action: Option<FilterValue>,
    /// Only what was done to this target: its id.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#)]
    target: Option<FilterValue>,
    /// Only entries of this moment or later.
    #[param(required = false, value_type = String, format = DateTime)]
    from: Option<Moment>,
    /// Only entries before this moment.
    #[param(required = false, value_type = String, format = DateTime)]
    to: Option<Moment>,
    /// At most so many in one answer.
    #[serde(default)]
    #[param(required = false, value_type = u32, minimum = 1, maximum = 100, default = 50)]
    limit: Limit,
    /// The `next_cursor` of the answer before, for the same filters.
    #[param(required = false, value_type = String)]
    cursor: Option<String>,
}

/// A value to search for: 1–100 visible ASCII characters, without `#`. An empty one is most often a variable that was not set.
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
            Err("must have 1 to 100 visible ASCII characters but `#`; leave it out to list all")
        }
    }
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditLog)]
struct Page {
    /// Newest first.
    entries: Vec<EntryView>,
    /// What to send as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Who did what to which thing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct EntryView {
    /// Its id, which sorts by time.
    id: AuditId,
    /// When.
    at: Moment,
    /// Who.
    #[schema(inline)]
    actor: SubjectView,
    /// What: `<resource>.<verb>`.
    #[schema(example = "org_user_token.issue")]
    action: String,
    /// To what. A refused creation has the organization for its target.
    #[schema(inline)]
    target: SubjectView,
    /// Whether it was done, or refused for role or plan.
    #[schema(value_type = String, example = "done")]
    outcome: Outcome,
    /// The address the request came from; null for the operator's command.
    #[schema(value_type = Option<String>, example = "203.0.113.7")]
    source_ip: Option<IpAddr>,
    /// The request's `x-request-id`.
    request_id: String,
}

/// A thing and its id.
#[derive(Debug, Serialize, ToSchema)]
struct SubjectView {
    /// Which kind of thing.
    #[schema(example = "bot")]
    kind: String,
    /// Its management id.
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
/// Newest first. Every creation, change, revocation and reset leaves an entry, in the same transaction; so does a
/// creation that is refused for role, scope or plan. Entries are kept for 400 days.
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
    // Everything that decides what is listed: a cursor is good for just this query. Only the limit may change.
    let query = ["audit-log-list", manager.org_id.as_str(), &actor, &action, &target, &from, &to];
    let after = filters.cursor.map(|cursor| cursor::read(&query, &cursor)).transpose()?;
    let after = after.map(|id| AuditId::parse(&id).ok_or_else(cursor::foreign)).transpose()?;
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
        next_cursor: page.next.map(|id| cursor::write(&query, id.as_str())),
    }))
}
