//! `/console/o/{org_id}/installations`: the installation log of the organization, as a page and CSV.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::console::messages::Messages;
use shared::console::page::link;
use shared::console::range::Days;
use shared::console::{Console, Fields, Frame, MemberWith, Nav, html};
use shared::domain::{Ecosystem, UserIdentifier};
use shared::ids::{OrgId, TokenId};
use shared::installation_search::{Filters, InstallationView, PackageName, Page};
use shared::permissions::{InstallationsList, Operation};
use shared::store::installations::InstallationLog;
use shared::{ApiError, ConsoleInstallationsApp, Limit, Query};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleInstallationsApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/installations", get(list))
        .route("/console/o/{org_id}/installations.csv", get(csv))
}

/// The search as it was sent. An empty text is no filter.
#[derive(Default, Deserialize)]
struct Shown {
    #[serde(default)]
    package: String,
    #[serde(default)]
    ecosystem: String,
    #[serde(default)]
    user_identifier: String,
    /// One of the identifier's tokens.
    #[serde(default)]
    token_id: String,
    #[serde(flatten)]
    days: Days,
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

impl Shown {
    /// Without spaces around what was typed, and without a token that no identifier comes with.
    fn trimmed(self) -> Self {
        let trimmed = |text: String| text.trim().to_owned();
        let user_identifier = trimmed(self.user_identifier);
        Self {
            package: trimmed(self.package),
            token_id: if user_identifier.is_empty() { String::new() } else { self.token_id },
            user_identifier,
            ..self
        }
    }

    fn is_filtered(&self) -> bool {
        let Self { package, ecosystem, user_identifier, days, .. } = self;
        [package, ecosystem, user_identifier, &days.from, &days.to].iter().any(|text| !text.is_empty())
    }

    /// The filters; `None` if there is an error, or if no entry can match them.
    fn filters(&self, m: &Messages, errors: &mut Fields) -> Option<Filters> {
        let (from, to) = self.days.parse(m, errors);
        errors.is_empty().then_some(())?;
        Some(Filters {
            package: filter(&self.package, |text| PackageName::try_from(text).ok())?,
            ecosystem: filter(&self.ecosystem, |text| Ecosystem::ALL.iter().find(|one| one.as_str() == text).copied())?,
            user_identifier: filter(&self.user_identifier, |text| UserIdentifier::try_from(text).ok())?,
            token_id: filter(&self.token_id, |text| TokenId::parse(&text))?,
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
                ("package", &self.package),
                ("ecosystem", &self.ecosystem),
                ("user_identifier", &self.user_identifier),
                ("token_id", &self.token_id),
                ("from", &self.days.from),
                ("to", &self.days.to),
                ("cursor", cursor),
            ],
        )
    }
}

/// A filter: `Some(None)` if it is not used, `None` if nothing can match it.
fn filter<T>(text: &str, parse: impl FnOnce(String) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { parse(text.to_owned()).map(Some) }
}

#[derive(Template)]
#[template(path = "console/installations.html")]
struct ListPage {
    page: Frame,
    base: String,
    installations: Vec<Row>,
    package: String,
    ecosystem: String,
    identifier: String,
    token_id: String,
    from: String,
    to: String,
    from_error: String,
    to_error: String,
    filtered: bool,
    refusal: &'static str,
    csv: String,
    curl: String,
    first: String,
    next: String,
}

struct Row {
    time: String,
    ecosystem: &'static str,
    package: String,
    version: String,
    file: String,
    identifier: String,
    token_href: String,
    client: String,
    command: String,
    source_ip: String,
}

impl Row {
    /// `bots` is the page of bots, or an empty text for members who may not open it.
    fn new(entry: InstallationView, base: &str, bots: &str, m: &Messages) -> Self {
        let client = [entry.client, entry.client_version].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let (identifier, token_href) = match (entry.user_identifier, entry.subject) {
            (Some(user), _) => {
                let tokens = link(&format!("{base}/tokens"), &[("state", "all"), ("prefix", &user)]);
                (user, tokens)
            }
            (None, job) => (job.unwrap_or_default(), bots.to_owned()),
        };
        Self {
            time: entry.time.to_string(),
            ecosystem: match entry.ecosystem {
                Ecosystem::Npm => m.npm,
                Ecosystem::Pypi => m.pypi,
            },
            package: entry.package,
            version: entry.version,
            file: entry.file,
            token_href,
            identifier,
            client,
            command: entry.command.unwrap_or_default(),
            source_ip: entry.source_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        }
    }
}

async fn list(
    State(console): State<Console>,
    State(log): State<InstallationLog>,
    caller: MemberWith<InstallationsList>,
    headers: HeaderMap,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    let (shown, m, mut errors) = (shown.trimmed(), caller.m(), Fields::default());
    let is_refused = caller.refusal().is_some();
    let found = match shown.filters(m, &mut errors) {
        Some(filters) if !is_refused => filters.read(&log, &caller.org.id).await?,
        _ => Page::default(),
    };
    let status = match (is_refused, errors.is_empty()) {
        (true, _) => StatusCode::FORBIDDEN,
        (false, false) => StatusCode::BAD_REQUEST,
        (false, true) => StatusCode::OK,
    };
    let page = caller.frame(m.installations, Nav::Installations)?;
    let base = page.base();
    let path = format!("{base}/installations");
    let bots = if caller.may(Operation::ConsoleBots) { format!("{base}/bots") } else { String::new() };
    let cursor = shown.cursor.as_deref().unwrap_or_default();
    html(
        status,
        &ListPage {
            installations: found.installations.into_iter().map(|entry| Row::new(entry, &base, &bots, m)).collect(),
            filtered: shown.is_filtered(),
            refusal: if is_refused { m.installations_need_guard } else { "" },
            csv: shown.link(&format!("{path}.csv"), cursor),
            curl: curl(&console.public_url(&headers), &caller.org.id),
            first: if cursor.is_empty() { String::new() } else { shown.link(&path, "") },
            next: found.next_cursor.map(|cursor| shown.link(&path, &cursor)).unwrap_or_default(),
            package: shown.package,
            ecosystem: shown.ecosystem,
            identifier: shown.user_identifier,
            token_id: shown.token_id,
            from: shown.days.from,
            to: shown.days.to,
            from_error: errors.of("from").to_owned(),
            to_error: errors.of("to").to_owned(),
            page,
            base,
        },
    )
}

/// How a script reads the log.
fn curl(public_url: &str, org: &OrgId) -> String {
    format!(
        "curl -sS {public_url}/v1/o/{org}/guard/installations \\\n  \
         -H \"Authorization: Bearer $BOT_API_KEY:$BOT_ID\""
    )
}

/// The CSV that the API answers for the same filters.
async fn csv(
    State(log): State<InstallationLog>,
    caller: MemberWith<InstallationsList>,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    if let Some(refusal) = caller.refusal() {
        return Err(refusal);
    }
    let mut errors = Fields::default();
    match shown.trimmed().filters(caller.m(), &mut errors) {
        Some(filters) => filters.csv(filters.read(&log, &caller.org.id).await?),
        None if errors.is_empty() => Filters::default().csv(Page::default()),
        None => Err(ApiError::invalid("from", caller.m().day_invalid)),
    }
}
