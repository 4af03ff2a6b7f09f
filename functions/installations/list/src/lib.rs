//! `GET /v1/o/{org_id}/guard/installations`: reads the organization's installation log.

mod export;

use std::net::IpAddr;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LINK, VARY};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use shared::domain::{Ecosystem, UserIdentifier};
use shared::ids::{InstallationId, TokenId};
use shared::openapi::{GuardErrors, OrgInPath, QueryErrors, tag};
use shared::principal::InstallationsList;
use shared::store::installations::{Installation, Search};
use shared::{ApiError, App, BotWith, Json, Limit, Moment, Query, accept, cursor};
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
    /// Only files of this package: its whole name. A Python package is found by any of its spellings.
    #[param(required = false, value_type = String, min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "@example/left-pad")]
    package: Option<PackageName>,
    /// Only packages of this ecosystem.
    #[param(required = false, value_type = Ecosystem, inline)]
    ecosystem: Option<Ecosystem>,
    /// Only downloads with tokens of exactly this identifier.
    #[param(required = false, value_type = UserIdentifier)]
    user_identifier: Option<UserIdentifier>,
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

impl Filters {
    /// What decides which entries are read, as it is written in a query. Only limit and cursor may change between two
    /// pages.
    fn given(&self) -> [(&'static str, Option<String>); 5] {
        [
            ("package", self.package.as_ref().map(|package| package.0.clone())),
            ("ecosystem", self.ecosystem.map(|ecosystem| ecosystem.as_str().to_owned())),
            ("user_identifier", self.user_identifier.as_ref().map(|user| user.as_str().to_owned())),
            ("from", self.from.map(|from| from.to_string())),
            ("to", self.to.map(|to| to.to_string())),
        ]
    }
}

/// The name of a package: 1–255 visible ASCII characters. An empty one is most often a variable that was not set.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct PackageName(String);

impl TryFrom<String> for PackageName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if (1..=255).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err("must have 1 to 255 visible ASCII characters; leave it out to list all")
        }
    }
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstallationLog)]
struct Page {
    /// Newest first.
    installations: Vec<InstallationView>,
    /// What to send as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// A file, and who has downloaded it with what.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Installation)]
struct InstallationView {
    /// When.
    time: Moment,
    /// Whose package.
    #[schema(inline)]
    ecosystem: Ecosystem,
    /// Which package; a Python package by its normalized name.
    #[schema(example = "@example/left-pad")]
    package: String,
    /// Which version.
    #[schema(example = "1.3.0")]
    version: String,
    /// Which file.
    #[schema(example = "left-pad-1.3.0.tgz")]
    file: String,
    /// Who: the `user_identifier` of the token.
    #[schema(example = "alice-laptop")]
    user_identifier: String,
    /// With which token.
    token_id: TokenId,
    /// The client's name, as it says itself; null where it says none.
    #[schema(example = "npm")]
    client: Option<String>,
    /// The client's version, as it says itself.
    #[schema(example = "11.6.2")]
    client_version: Option<String>,
    /// The client's command, as it says itself.
    #[schema(example = "ci")]
    command: Option<String>,
    /// The run of the client, as it says itself.
    #[schema(example = "8c1f3e0d52a9b764")]
    session: Option<String>,
    /// The address the request came from.
    #[schema(value_type = Option<String>, example = "203.0.113.7")]
    source_ip: Option<IpAddr>,
}

impl From<Installation> for InstallationView {
    fn from(Installation { time, download, .. }: Installation) -> Self {
        Self {
            time,
            ecosystem: download.ecosystem,
            package: download.package,
            version: download.version,
            file: download.file,
            user_identifier: download.user_identifier,
            token_id: download.token_id,
            client: download.client,
            client_version: download.client_version,
            command: download.command,
            session: download.session,
            source_ip: download.source_ip,
        }
    }
}

/// Read the installation log
///
/// Newest first. Each file that was downloaded from the registries with a token of the organization has an entry: one for
/// each file, token and run of a client, or for a minute where the client does not name its run. Entries show within about
/// a second and are kept for 14 days.
///
/// With `Accept: text/csv` the answer is CSV with the same columns and a header line. The next page is then in the header
/// `Link: <…>; rel="next"`, relative to the URL that was asked; the last page has none. A value that a spreadsheet would
/// take for a formula has an apostrophe in front.
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
            headers(("vary" = String, description = "`Accept`: it chooses between JSON and CSV.")),
        ),
        GuardErrors,
        QueryErrors,
    ),
)]
async fn list(
    State(app): State<App>,
    caller: BotWith<InstallationsList>,
    headers: HeaderMap,
    Query(filters): Query<Filters>,
) -> Result<Response, ApiError> {
    let org = &caller.bot.org_id;
    let given = filters.given();
    let values = given.iter().map(|(_, value)| value.as_deref().unwrap_or_default());
    let query: Vec<&str> = ["installations-list", org.as_str()].into_iter().chain(values).collect();
    let after = filters.cursor.as_ref().map(|cursor| cursor::read(&query, cursor)).transpose()?;
    let after = after.map(|id| InstallationId::parse(&id).ok_or_else(cursor::foreign)).transpose()?;
    let search = Search {
        package: filters.package.as_ref().map(|package| package.0.as_str()),
        ecosystem: filters.ecosystem,
        user_identifier: filters.user_identifier.as_ref().map(UserIdentifier::as_str),
        from: filters.from,
        to: filters.to,
        after: after.as_ref(),
        limit: filters.limit.get(),
    };
    let page = app.installation_log()?.list(org, &search).await?;
    let installations = page.installations.into_iter().map(InstallationView::from).collect();
    let page = Page { installations, next_cursor: page.next.map(|id| cursor::write(&query, id.as_str())) };
    let wants_csv = accept::wanted(&headers, &["text/csv"]) > accept::wanted(&headers, &["application/json"]);
    let mut response = if wants_csv { csv(&page, &filters)? } else { Json(page).into_response() };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The page as CSV, and in a header where the next one is.
fn csv(page: &Page, filters: &Filters) -> Result<Response, ApiError> {
    let mut response = export::to_csv(&page.installations)?.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    if let Some(cursor) = &page.next_cursor {
        let given = filters.given().into_iter().filter_map(|(name, value)| Some((name, value?)));
        let paging = [("limit", filters.limit.get().to_string()), ("cursor", cursor.clone())];
        let next = serde_html_form::to_string(given.chain(paging).collect::<Vec<_>>());
        // Relative to the URL that was asked: only the caller knows by which name they reach us.
        let link = next.ok().and_then(|query| HeaderValue::from_str(&format!("<?{query}>; rel=\"next\"")).ok());
        headers.insert(LINK, link.ok_or(ApiError::Internal)?);
    }
    Ok(response)
}
