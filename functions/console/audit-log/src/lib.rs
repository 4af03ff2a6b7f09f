//! `/console/o/{org_id}/audit-log`: the audit log of the organization, as a page and CSV.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::audit_search::{EntryView, FilterValue, Filters, Page};
use shared::console::messages::Messages;
use shared::console::page::link;
use shared::console::range::Days;
use shared::console::{Fields, Frame, MemberWith, Nav, html};
use shared::permissions::AuditLogList;
use shared::store::audit::Outcome;
use shared::{ApiError, App, ConsoleApp, Limit, Query};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/audit-log", get(list))
        .route("/console/o/{org_id}/audit-log.csv", get(csv))
}

/// The search as it was sent. An empty text is no filter.
#[derive(Default, Deserialize)]
struct Shown {
    #[serde(default)]
    actor: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    target: String,
    #[serde(flatten)]
    days: Days,
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

impl Shown {
    /// Without spaces around what was typed.
    fn trimmed(self) -> Self {
        let trimmed = |text: String| text.trim().to_owned();
        Self { actor: trimmed(self.actor), action: trimmed(self.action), target: trimmed(self.target), ..self }
    }

    fn is_filtered(&self) -> bool {
        let Self { actor, action, target, days, .. } = self;
        [actor, action, target, &days.from, &days.to].iter().any(|text| !text.is_empty())
    }

    /// The filters; `None` if there is an error, or if no entry can match them.
    fn filters(&self, m: &Messages, errors: &mut Fields) -> Option<Filters> {
        let (from, to) = self.days.parse(m, errors);
        errors.is_empty().then_some(())?;
        Some(Filters {
            actor: filter(&self.actor)?,
            action: filter(&self.action)?,
            target: filter(&self.target)?,
            from,
            to,
            limit: self.limit,
            cursor: self.cursor.clone(),
        })
    }

    /// The path with these filters, at the page of this cursor.
    fn link(&self, path: &str, cursor: &str) -> String {
        link(
            path,
            &[
                ("actor", &self.actor),
                ("action", &self.action),
                ("target", &self.target),
                ("from", &self.days.from),
                ("to", &self.days.to),
                ("cursor", cursor),
            ],
        )
    }
}

/// A filter: `Some(None)` if it is not used, `None` if nothing can match it.
fn filter(text: &str) -> Option<Option<FilterValue>> {
    if text.is_empty() { Some(None) } else { FilterValue::try_from(text.to_owned()).ok().map(Some) }
}

#[derive(Template)]
#[template(path = "console/audit_log.html")]
struct ListPage {
    page: Frame,
    base: String,
    entries: Vec<Row>,
    actor: String,
    action: String,
    target: String,
    from: String,
    to: String,
    from_error: String,
    to_error: String,
    filtered: bool,
    csv: String,
    first: String,
    next: String,
}

struct Row {
    at: String,
    actor: String,
    actor_kind: String,
    action: String,
    target: String,
    target_kind: String,
    outcome: String,
    outcome_label: String,
    source_ip: String,
    workload: String,
    detail: String,
    count: String,
}

impl Row {
    fn new(entry: EntryView, m: &Messages) -> Self {
        let label = match entry.outcome.known() {
            Some(Outcome::Done) => m.done_outcome,
            Some(Outcome::Refused) => m.refused,
            None => entry.outcome.as_str(),
        };
        Self {
            at: entry.at.to_string(),
            actor: entry.actor.id,
            actor_kind: entry.actor.kind,
            action: entry.action,
            target: entry.target.id,
            target_kind: entry.target.kind,
            outcome_label: label.to_owned(),
            outcome: entry.outcome.known().map_or("plain", Into::into).to_owned(),
            source_ip: entry.source_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            workload: entry.workload.unwrap_or_default(),
            detail: entry.detail.unwrap_or_default(),
            count: entry.count.map(|count| m.entry_count(count)).unwrap_or_default(),
        }
    }
}

async fn list(
    State(app): State<App>,
    caller: MemberWith<AuditLogList>,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    let (shown, m, mut errors) = (shown.trimmed(), caller.m(), Fields::default());
    let found = match shown.filters(m, &mut errors) {
        Some(filters) => filters.read(app.store(), &caller.org.id).await?,
        None => Page::default(),
    };
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let page = caller.frame(m.audit_log, Nav::AuditLog)?;
    let base = page.base();
    let path = format!("{base}/audit-log");
    let cursor = shown.cursor.as_deref().unwrap_or_default();
    html(
        status,
        &ListPage {
            entries: found.entries.into_iter().map(|entry| Row::new(entry, m)).collect(),
            filtered: shown.is_filtered(),
            csv: shown.link(&format!("{path}.csv"), cursor),
            first: if cursor.is_empty() { String::new() } else { shown.link(&path, "") },
            next: found.next_cursor.map(|cursor| shown.link(&path, &cursor)).unwrap_or_default(),
            actor: shown.actor,
            action: shown.action,
            target: shown.target,
            from: shown.days.from,
            to: shown.days.to,
            from_error: errors.of("from").to_owned(),
            to_error: errors.of("to").to_owned(),
            page,
            base,
        },
    )
}

/// The CSV that the API answers for the same filters.
async fn csv(
    State(app): State<App>,
    caller: MemberWith<AuditLogList>,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    let mut errors = Fields::default();
    match shown.trimmed().filters(caller.m(), &mut errors) {
        Some(filters) => filters.csv(filters.read(app.store(), &caller.org.id).await?),
        None if errors.is_empty() => Filters::default().csv(Page::default()),
        None => Err(ApiError::invalid("from", caller.m().day_invalid)),
    }
}
