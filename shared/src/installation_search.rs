//! The installation log in requests and answers: filters, pages, CSV.

use std::net::IpAddr;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::clock::Moment;
use crate::cursor::Pages;
use crate::domain::{Ecosystem, UserIdentifier};
use crate::error::ApiError;
use crate::export;
use crate::extract::Limit;
use crate::ids::{InstallationId, OrgId, TokenId};
use crate::store::installations::{Installation, InstallationLog, Search};

/// Filters. Entries must match all of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filters {
    /// Only files of this package, by full name. Python packages match in any spelling.
    #[param(required = false, value_type = String, min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "@example/left-pad")]
    pub package: Option<PackageName>,
    /// Only packages of this ecosystem.
    #[param(required = false, value_type = Ecosystem, inline)]
    pub ecosystem: Option<Ecosystem>,
    /// Only downloads with tokens of exactly this `user_identifier`.
    #[param(required = false, value_type = UserIdentifier)]
    pub user_identifier: Option<UserIdentifier>,
    /// Only downloads with this token: in the console.
    #[serde(skip)]
    pub token_id: Option<TokenId>,
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
    fn given(&self) -> Vec<(&'static str, String)> {
        [
            ("package", self.package.as_ref().map(|package| package.0.clone())),
            ("ecosystem", self.ecosystem.map(|ecosystem| ecosystem.as_str().to_owned())),
            ("user_identifier", self.user_identifier.as_ref().map(|user| user.as_str().to_owned())),
            ("token_id", self.token_id.as_ref().map(ToString::to_string)),
            ("from", self.from.map(|from| from.to_string())),
            ("to", self.to.map(|to| to.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// Reads the page of an organization's log that matches.
    ///
    /// # Errors
    ///
    /// 400 if the cursor is of another query; else as the store's.
    pub async fn read(&self, log: &InstallationLog, org: &OrgId) -> Result<Page, ApiError> {
        let given = self.given();
        let filters = given.iter().flat_map(|(name, value)| [*name, value.as_str()]);
        let query: Vec<&str> = ["installations-list", org.as_str()].into_iter().chain(filters).collect();
        let pages = Pages(&query);
        let after = pages.after(self.cursor.as_deref(), InstallationId::parse)?;
        let search = Search {
            package: self.package.as_ref().map(|package| package.0.as_str()),
            ecosystem: self.ecosystem,
            user_identifier: self.user_identifier.as_ref().map(UserIdentifier::as_str),
            token_id: self.token_id.as_ref(),
            from: self.from,
            to: self.to,
            after: after.as_ref(),
            limit: self.limit.get(),
        };
        let page = log.list(org, &search).await?;
        Ok(Page {
            installations: page.installations.into_iter().map(InstallationView::from).collect(),
            next_cursor: pages.next(page.next.as_ref().map(InstallationId::as_str)),
        })
    }

    /// The page as CSV, with a `Link` header to the next page.
    ///
    /// # Errors
    ///
    /// If it cannot be serialized.
    pub fn csv(&self, page: Page) -> Result<Response, ApiError> {
        let next = page.next_cursor.map(|cursor| {
            let paging = [("limit", self.limit.get().to_string()), ("cursor", cursor)];
            self.given().into_iter().chain(paging).collect()
        });
        export::csv(COLUMNS, page.installations.into_iter().map(InstallationView::record), next)
    }
}

/// A package name: 1–255 visible ASCII characters. An empty one usually comes from an unset
/// variable.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct PackageName(String);

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
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = InstallationLog)]
pub struct Page {
    /// The entries, newest first.
    pub installations: Vec<InstallationView>,
    /// The `cursor` of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

/// A download of a package file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Installation)]
pub struct InstallationView {
    /// When the file was downloaded.
    pub time: Moment,
    /// The package's ecosystem.
    #[schema(inline)]
    pub ecosystem: Ecosystem,
    /// The package name; normalized for Python packages.
    #[schema(example = "@example/left-pad")]
    pub package: String,
    /// The package version.
    #[schema(example = "1.3.0")]
    pub version: String,
    /// The file name.
    #[schema(example = "left-pad-1.3.0.tgz")]
    pub file: String,
    /// The `user_identifier` of the token; null for a bot token.
    #[schema(example = "alice-laptop")]
    pub user_identifier: Option<String>,
    /// The management id of the token.
    pub token_id: TokenId,
    /// The client's name, as it reports itself; null if it reports none.
    #[schema(example = "npm")]
    pub client: Option<String>,
    /// The client's version, as it reports itself.
    #[schema(example = "11.6.2")]
    pub client_version: Option<String>,
    /// The client's command, as it reports itself.
    #[schema(example = "ci")]
    pub command: Option<String>,
    /// The client's session id, as it reports itself.
    #[schema(example = "8c1f3e0d52a9b764")]
    pub session: Option<String>,
    /// The IP address of the client.
    #[schema(value_type = Option<String>, example = "203.0.113.7")]
    pub source_ip: Option<IpAddr>,
    /// The CI job that holds a bot token, as its ID token names it; null for other tokens.
    #[schema(example = "repo:acme/widgets:ref:refs/heads/main")]
    pub subject: Option<String>,
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
            subject: download.subject,
        }
    }
}

/// The columns of the CSV. They match the fields of the JSON.
const COLUMNS: [&str; 13] = [
    "time",
    "ecosystem",
    "package",
    "version",
    "file",
    "user_identifier",
    "token_id",
    "client",
    "client_version",
    "command",
    "session",
    "source_ip",
    "subject",
];

impl InstallationView {
    /// The entry as a record of the CSV. Null becomes an empty value.
    fn record(self) -> [String; 13] {
        [
            self.time.to_string(),
            self.ecosystem.as_str().to_owned(),
            self.package,
            self.version,
            self.file,
            self.user_identifier.unwrap_or_default(),
            self.token_id.to_string(),
            self.client.unwrap_or_default(),
            self.client_version.unwrap_or_default(),
            self.command.unwrap_or_default(),
            self.session.unwrap_or_default(),
            self.source_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            self.subject.unwrap_or_default(),
        ]
    }
}
