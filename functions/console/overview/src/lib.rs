//! `/console/organizations`, `/console/o/{org_id}`: the person's organizations, and what happened in
//! one.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use shared::console::messages::Messages;
use shared::console::{Console, Frame, MemberWith, Nav, ORGANIZATIONS, SignedIn, html, see_other};
use shared::domain::OrUnknown;
use shared::ids::OrgId;
use shared::permissions::{ConsoleOverview, Operation, Role};
use shared::store::StoreError;
use shared::store::audit::{Entry, Search};
use shared::store::installations::InstallationLog;
use shared::store::keys::Log;
use shared::store::usage::Day;
use shared::{ApiError, App, ConsoleInstallationsApp};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleInstallationsApp> {
    OpenApiRouter::new()
        .route("/", get(to_organizations))
        .route("/console", get(to_organizations))
        .route("/console/", get(to_organizations))
        .route(ORGANIZATIONS, get(organizations))
        .route("/console/o/{org_id}", get(overview))
}

async fn to_organizations() -> Response {
    see_other(ORGANIZATIONS)
}

#[derive(Template)]
#[template(path = "console/organizations.html")]
struct OrganizationsPage {
    page: Frame,
    organizations: Vec<Organization>,
    invitations: Vec<Organization>,
}

struct Organization {
    href: String,
    name: String,
    roles: Vec<String>,
}

async fn organizations(State(app): State<App>, me: SignedIn) -> Result<Response, ApiError> {
    let (memberships, invited) =
        futures::try_join!(me.memberships(&app), async { Ok(app.store().invitations_of(&me.session.email).await?) })?;
    // A member who was invited again keeps the roles.
    let is_member = |org: &OrgId| memberships.iter().any(|member| member.org_id == *org);
    let invited: Vec<_> = invited.into_iter().filter(|invitation| !is_member(&invitation.org_id)).collect();
    if let ([member], []) = (memberships.as_slice(), invited.as_slice()) {
        return Ok(see_other(&format!("/console/o/{}", member.org_id)));
    }
    let ids = memberships.iter().map(|member| &member.org_id);
    let ids = ids.chain(invited.iter().map(|invitation| &invitation.org_id)).cloned();
    let orgs = app.store().orgs_with(ids).await?;
    let m = Messages::of(me.language);
    let listed = |org: &OrgId, path: &str, roles: &[OrUnknown<Role>]| {
        let found = orgs.iter().find(|found| found.id == *org)?;
        Some(Organization {
            href: format!("{path}/{org}"),
            name: found.name.clone(),
            roles: roles.iter().map(|role| m.role_label(role)).collect(),
        })
    };
    let organizations =
        memberships.iter().filter_map(|member| listed(&member.org_id, "/console/o", member.roles.as_slice()));
    let invitations = invited
        .iter()
        .filter_map(|found| listed(&found.org_id, "/console/account/invitations", found.roles.as_slice()));
    let page = OrganizationsPage {
        page: me.frame(m.organizations)?,
        organizations: organizations.collect(),
        invitations: invitations.collect(),
    };
    html(StatusCode::OK, &page)
}

/// Entries of the audit log that are shown.
const ENTRIES: usize = 5;

/// Active tokens that are counted. Of more, only that there are more is shown.
const MOST_COUNTED: usize = 100;

#[derive(Template)]
#[template(path = "console/overview.html")]
struct OverviewPage {
    page: Frame,
    base: String,
    guard: bool,
    sees_installations: bool,
    chart: Option<Chart>,
    active: String,
    entries: Vec<EntryRow>,
    may_issue: bool,
    curl: String,
}

struct EntryRow {
    at: String,
    actor: String,
    action: String,
    target: String,
}

impl EntryRow {
    fn new(entry: Entry) -> Self {
        Self { at: entry.at.to_string(), actor: entry.actor.id, action: entry.action, target: entry.target.id }
    }
}

async fn overview(
    State(app): State<App>,
    State(console): State<Console>,
    State(log): State<InstallationLog>,
    caller: MemberWith<ConsoleOverview>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (store, org, guard) = (app.store(), &caller.org.id, caller.org.guard);
    let sees_installations = caller.may(Operation::InstallationsList);
    let days = async { if guard && sees_installations { log.by_day(org).await } else { Ok(Vec::new()) } };
    let sees_tokens = caller.may(Operation::OrgUserTokensList);
    let active =
        async { if sees_tokens { store.count_active_org_user_tokens(&caller.org).await.map(Some) } else { Ok(None) } };
    let sees_entries = caller.may(Operation::AuditLogList);
    let entries = async {
        if !sees_entries {
            return Ok::<_, StoreError>(Vec::new());
        }
        let search = Search { limit: ENTRIES, ..Search::default() };
        Ok(store.audit_log(&Log::from(org), &search).await?.entries)
    };
    let (days, active, entries) = futures::try_join!(days, active, entries)?;
    let page = caller.frame(caller.m().overview, Nav::Overview)?;
    let overview = OverviewPage {
        base: page.base(),
        guard,
        sees_installations,
        chart: Chart::new(days),
        active: match active {
            Some(count) if count > MOST_COUNTED => format!("{MOST_COUNTED}+"),
            Some(count) => count.to_string(),
            None => String::new(),
        },
        entries: entries.into_iter().map(EntryRow::new).collect(),
        may_issue: caller.may(Operation::OrgUserTokensIssue),
        curl: curl(&console.public_url(&headers), org),
        page,
    };
    html(StatusCode::OK, &overview)
}

/// How a script issues a token.
fn curl(public_url: &str, org: &OrgId) -> String {
    format!(
        "curl -sS {public_url}/v1/o/{org}/guard/org-user-tokens \\\n  \
         -H \"Authorization: Bearer $BOT_API_KEY:$BOT_ID\" \\\n  \
         --json '{{\"user_identifier\": \"alice@example.com\"}}'"
    )
}

/// Downloads per day as stacked bars, in a plot of 140 × 100 units.
struct Chart {
    bars: Vec<Bar>,
    days: Vec<DayRow>,
    max: u64,
    half: u64,
    npm: u64,
    pypi: u64,
}

/// A day's bar: tenths of units as text.
struct Bar {
    x: usize,
    npm_y: String,
    npm_height: String,
    pypi_y: String,
    pypi_height: String,
}

struct DayRow {
    day: String,
    short: String,
    npm: u64,
    pypi: u64,
    total: u64,
}

impl Chart {
    /// `None` if nothing was installed.
    fn new(days: Vec<Day>) -> Option<Self> {
        let total = |day: &Day| day.npm.saturating_add(day.pypi);
        let most = days.iter().map(total).max().filter(|most| *most > 0)?;
        let max = scale(most);
        let bar = |(place, day): (usize, &Day)| {
            let tenths = |count: u64| u64::try_from(u128::from(count) * 1000 / u128::from(max)).unwrap_or(1000);
            let (npm, pypi) = (tenths(day.npm), tenths(day.pypi));
            let text = |tenths: u64| format!("{}.{}", tenths / 10, tenths % 10);
            Bar {
                x: place * 10 + 2,
                npm_y: text(1000 - npm),
                npm_height: text(npm),
                pypi_y: text(1000_u64.saturating_sub(npm + pypi)),
                pypi_height: text(pypi),
            }
        };
        Some(Self {
            bars: days.iter().enumerate().map(bar).collect(),
            max,
            half: max / 2,
            npm: days.iter().map(|day| day.npm).sum(),
            pypi: days.iter().map(|day| day.pypi).sum(),
            days: days.into_iter().map(DayRow::new).collect(),
        })
    }
}

impl DayRow {
    fn new(Day { date, npm, pypi }: Day) -> Self {
        let short = date.rsplit('-').next().unwrap_or_default().to_owned();
        Self { day: date, short, npm, pypi, total: npm.saturating_add(pypi) }
    }
}

/// The top of a scale that shows this count: 2, 4, 10, 20, 40, 100 and so on.
fn scale(count: u64) -> u64 {
    let mut unit: u64 = 1;
    loop {
        if let Some(step) = [2, 4, 10].into_iter().find(|step| unit.saturating_mul(*step) >= count) {
            return unit.saturating_mul(step);
        }
        unit = unit.saturating_mul(10);
    }
}
