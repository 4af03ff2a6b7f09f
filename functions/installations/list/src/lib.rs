//! `GET /v1/o/{org_id}/guard/installations`: reads the organization's installation log.

mod export;

use std::net::IpAddr;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LINK, VARY};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use shared::cursor::Pages;
use shared::domain::{Ecosystem, UserIdentifier};
use shared::ids::{InstallationId, TokenId};
use shared::openapi::{GuardErrors, OrgInPath, QueryErrors, tag};
use shared::permissions::InstallationsList;
use shared::store::installations::{Installation, Search};
use shared::{ApiError, BotWith, InstallationsApp, Json, Limit, Moment, Query, accept};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<InstallationsApp> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Filters. Entries must match all of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Only files of this package, by full name. Python packages match in any spelling.
    #[param(required = false, value_type = String, min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "@example/left-pad")]
    package: Option<PackageName>,
    /// Only packages of this ecosystem.
    #[param(required = false, value_type = Ecosystem, inline)]
    ecosystem: Option<Ecosystem>,
    /// Only downloads with tokens of exactly this `user_identifier`.
    #[param(required = false, value_type = UserIdentifier)]
    user_identifier: Option<UserIdentifier>,
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

impl Filters {
    /// The filters as query parameters. Only limit and cursor may change between pages.
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

/// A package name: 1–255 visible ASCII characters. An empty one usually comes from an unset
/// variable.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct PackageName(String);

impl TryFrom<String> for PackageName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if (1..=255).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err("must have 1 to 255 visible ASCII characters; omit it to list everything")
        }
    }
}

/// A page of the installation log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstallationLog)]
struct Page {
    /// The entries, newest first.
    installations: Vec<InstallationView>,
    /// The `cursor` of the next page; null on the last page.
    next_cursor: Option<String>,
}

/// A download of a package file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Installation)]
struct InstallationView {
    /// When the file was downloaded.
    time: Moment,
    /// The package's ecosystem.
    #[schema(inline)]
    ecosystem: Ecosystem,
    /// The package name; normalized for Python packages.
    #[schema(example = "@example/left-pad")]
    package: String,
    /// The package version.
    #[schema(example = "1.3.0")]
    version: String,
    /// The file name.
    #[schema(example = "left-pad-1.3.0.tgz")]
    file: String,
    /// The `user_identifier` of the token.
    #[schema(example = "alice-laptop")]
    user_identifier: String,
    /// The management id of the token.
    token_id: TokenId,
    /// The client's name, as it reports itself; null if it reports none.
    #[schema(example = "npm")]
    client: Option<String>,
    /// The client's version, as it reports itself.
    #[schema(example = "11.6.2")]
    client_version: Option<String>,
    /// The client's command, as it reports itself.
    #[schema(example = "ci")]
    command: Option<String>,
    /// The client's session id, as it reports itself.
    #[schema(example = "8c1f3e0d52a9b764")]
    session: Option<String>,
    /// The IP address of the client.
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
    let org = &caller.bot.org_id;
    let given = filters.given();
    let values = given.iter().map(|(_, value)| value.as_deref().unwrap_or_default());
    let query: Vec<&str> = ["installations-list", org.as_str()].into_iter().chain(values).collect();
    let pages = Pages(&query);
    let after = pages.after(filters.cursor.as_deref(), InstallationId::parse)?;
    let search = Search {
        package: filters.package.as_ref().map(|package| package.0.as_str()),
        ecosystem: filters.ecosystem,
        user_identifier: filters.user_identifier.as_ref().map(UserIdentifier::as_str),
        from: filters.from,
        to: filters.to,
        after: after.as_ref(),
        limit: filters.limit.get(),
    };
    let page = log.list(org, &search).await?;
    let installations = page.installations.into_iter().map(InstallationView::from).collect();
    let page = Page { installations, next_cursor: pages.next(page.next.as_ref().map(InstallationId::as_str)) };
    let wants_csv =
        accept::media_weight(&headers, &["text/csv"]) > accept::media_weight(&headers, &["application/json"]);
    let mut response = if wants_csv { csv(&page, &filters)? } else { Json(page).into_response() };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The page as CSV, with a `Link` header to the next page.
fn csv(page: &Page, filters: &Filters) -> Result<Response, ApiError> {
    let mut response = export::to_csv(&page.installations)?.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    if let Some(cursor) = &page.next_cursor {
        let given = filters.given().into_iter().filter_map(|(name, value)| Some((name, value?)));
        let paging = [("limit", filters.limit.get().to_string()), ("cursor", cursor.clone())];
        let next = serde_html_form::to_string(given.chain(paging).collect::<Vec<_>>());
        // Relative to the request URL: only the caller knows the host name it used.
        let link = next.ok().and_then(|query| HeaderValue::from_str(&format!("<?{query}>; rel=\"next\"")).ok());
        headers.insert(LINK, link.ok_or(ApiError::Internal)?);
    }
    Ok(response)
}
