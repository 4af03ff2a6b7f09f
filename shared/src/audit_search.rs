//! The audit log in requests and answers: filters, pages, CSV.

use std::net::IpAddr;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::clock::Moment;
use crate::cursor::Pages;
use crate::domain::OrUnknown;
use crate::error::ApiError;
use crate::export;
use crate::extract::Limit;
use crate::ids::{AuditId, OrgId};
use crate::store::Store;
use crate::store::audit::{Entry, Outcome, Search, Subject};
use crate::store::keys::Log;

/// Filters. Entries must match all of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filters {
    /// Only entries with this actor, by id.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#, example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    pub actor: Option<FilterValue>,
    /// Only entries with this action, as `<resource>.<verb>`.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#, example = "org_user_token.issue")]
    pub action: Option<FilterValue>,
    /// Only entries with this target, by id.
    #[param(required = false, value_type = String, min_length = 1, max_length = 100, pattern = r#"^[!"$-~]+$"#)]
    pub target: Option<FilterValue>,
    /// Only entries at or after this time.
    #[param(required = false, value_type = String, format = DateTime)]
    pub from: Option<Moment>,
    /// Only entries before this time.
    #[param(required = false, value_type = String, format = DateTime)]
    pub to: Option<Moment>,
    /// Maximum entries per page.
    #[serde(default)]
    #[param(required = false, value_type = u32, minimum = 1, maximum = 100, default = 50)]
    pub limit: Limit,
    /// The `next_cursor` of the previous page. Use it with the same filters.
    #[param(required = false, value_type = String)]
    pub cursor: Option<String>,
}

impl Filters {
    /// The filters as query parameters. Only limit and cursor may change between pages.
    fn given(&self) -> [(&'static str, String); 5] {
        let text = |value: &Option<FilterValue>| value.as_ref().map(|value| value.0.clone()).unwrap_or_default();
        let moment = |value: Option<Moment>| value.map(|value| value.to_string()).unwrap_or_default();
        [
            ("actor", text(&self.actor)),
            ("action", text(&self.action)),
            ("target", text(&self.target)),
            ("from", moment(self.from)),
            ("to", moment(self.to)),
        ]
    }

    /// Reads the page of an organization's log that matches.
    ///
    /// # Errors
    ///
    /// 400 if the cursor is of another query; else as the store's.
    pub async fn read(&self, store: &Store, org: &OrgId) -> Result<Page, ApiError> {
        let given = self.given();
        let values = given.iter().map(|(_, value)| value.as_str());
        let query: Vec<&str> = ["audit-log-list", org.as_str()].into_iter().chain(values).collect();
        let pages = Pages(&query);
        let after = pages.after(self.cursor.as_deref(), AuditId::parse)?;
        let search = Search {
            actor: self.actor.as_ref().map(|value| value.0.as_str()),
            action: self.action.as_ref().map(|value| value.0.as_str()),
            target: self.target.as_ref().map(|value| value.0.as_str()),
            from: self.from,
            to: self.to,
            after: after.as_ref(),
            limit: self.limit.get(),
        };
        let page = store.audit_log(&Log::from(org), &search).await?;
        Ok(Page {
            entries: page.entries.into_iter().map(EntryView::from).collect(),
            next_cursor: pages.next(page.next.as_ref().map(AuditId::as_str)),
        })
    }

    /// The page as CSV, with a `Link` header to the next page.
    ///
    /// # Errors
    ///
    /// If it cannot be serialized.
    pub fn csv(&self, page: Page) -> Result<Response, ApiError> {
        let next = page.next_cursor.map(|cursor| {
            let given = self.given().into_iter().filter(|(_, value)| !value.is_empty());
            given.chain([("limit", self.limit.get().to_string()), ("cursor", cursor)]).collect()
        });
        export::csv(COLUMNS, page.entries.into_iter().map(EntryView::record), next)
    }
}

/// A filter value: 1–100 visible ASCII characters other than `#`. An empty one usually comes from
/// an unset variable.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct FilterValue(String);

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
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = AuditLog)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<EntryView>,
    /// The `cursor` of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

/// One action: who did what to which resource.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct EntryView {
    /// The entry's id. Ids sort by time.
    pub id: AuditId,
    /// When the action happened.
    pub at: Moment,
    /// Who performed the action.
    #[schema(inline)]
    pub actor: SubjectView,
    /// The action, as `<resource>.<verb>`.
    #[schema(example = "org_user_token.issue")]
    pub action: String,
    /// The resource acted on. For a refused creation, the organization.
    #[schema(inline)]
    pub target: SubjectView,
    /// `done`, or `refused` for lack of a role or scope or because of the plan.
    #[schema(value_type = String, example = "done")]
    pub outcome: OrUnknown<Outcome>,
    /// The IP address of the caller; null for the operator's command line.
    #[schema(value_type = Option<String>, example = "203.0.113.7")]
    pub source_ip: Option<IpAddr>,
    /// The `x-request-id` of the request.
    pub request_id: String,
    /// The CI job that acted as the bot, as its ID token names it. Present only if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "repo:acme/widgets:ref:refs/heads/main")]
    pub workload: Option<String>,
    /// What the target does not tell: what was set, why it was refused, or where a leaked token was
    /// found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How many actions the entry stands for. Present only if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A resource or principal.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubjectView {
    /// The kind of resource.
    #[schema(example = "bot")]
    pub kind: String,
    /// The management id.
    #[schema(example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    pub id: String,
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
            workload: entry.workload,
            detail: entry.detail,
            count: entry.count,
        }
    }
}

/// The columns of the CSV. They are named as the fields of the JSON.
const COLUMNS: [&str; 13] = [
    "id",
    "at",
    "actor_kind",
    "actor_id",
    "action",
    "target_kind",
    "target_id",
    "outcome",
    "source_ip",
    "request_id",
    "workload",
    "detail",
    "count",
];

impl EntryView {
    /// The entry as a record of the CSV. Null becomes an empty value.
    fn record(self) -> [String; 13] {
        [
            self.id.to_string(),
            self.at.to_string(),
            self.actor.kind,
            self.actor.id,
            self.action,
            self.target.kind,
            self.target.id,
            self.outcome.as_str().to_owned(),
            self.source_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            self.request_id,
            self.workload.unwrap_or_default(),
            self.detail.unwrap_or_default(),
            self.count.map(|count| count.to_string()).unwrap_or_default(),
        ]
    }
}
