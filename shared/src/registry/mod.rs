//! The registries: what `registry-npm` and `registry-pypi` share.
//!
//! A registry authenticates the caller, passes on metadata from the upstream registry with file
//! URLs rewritten to its own, redirects downloads to the upstream's files and records them. Files
//! never pass through.
//!
//! | module | holds |
//! |---|---|
//! | [`upstream`] | upstream URLs and requests to them; a caller's credential is never forwarded |
//! | [`metadata`] | metadata responses: compression, entity tags, Lambda's size limit |
//! | `metadata::kept` | metadata that is kept in memory while the upstream says that it is current |
//! | `reason` | why an upstream refuses, cleaned for people to read |
//! | [`splice`] | replacement of strings in JSON without changing any other byte |
//! | [`client`] | detection of the package manager and its command |
//! | [`download`] | redirects to files, and their records in the installation log |
//!
//! [`RegistryUser`] is the guard, [`Call`] a request that it let in. [`RegistryHolder`] is the guard
//! of `registry-npm-logout`.

mod call;
pub mod client;
pub mod download;
mod guard;
pub mod metadata;
mod reason;
pub mod splice;
pub mod upstream;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::FromRef;
use http::HeaderMap;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use url::Url;

pub use self::call::Call;
pub use self::guard::{RegistryHolder, RegistryUser, credential_in};
use self::metadata::kept::Keeping;
use self::upstream::Upstream;
use crate::app::{App, InstallationsApp};
use crate::clock::Moment;
use crate::config::{self, MissingSetting};
use crate::domain::Ecosystem;
use crate::error::ApiError;
use crate::hosts::{AtOwnHost, RegistryHosts};
use crate::ids::OrgId;
use crate::secret::Token;
use crate::store::StoreError;
use crate::store::installations::InstallationLog;
use crate::store::tokens::StoredToken;
use crate::tls::{self, ClientError};

/// How long an organization's subscription is cached. Tokens are never cached.
const SUBSCRIPTION_TTL: Duration = Duration::from_secs(60);

/// The timeout of a whole upstream response, well below API Gateway's 30 seconds.
pub const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(20);

/// The maximum number of cached subscriptions per process.
const MAX_CACHED_SUBSCRIPTIONS: usize = 10_000;

/// The registry settings of a deployment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The upstream npm registry.
    pub npm: Option<Upstream>,
    /// The upstream simple index of Python packages.
    pub pypi: Option<Upstream>,
    /// The hosts of the index's files, besides its own. The URL of a file on any other host is
    /// looked up in the index at each download.
    pub pypi_file_hosts: Vec<String>,
    /// Whether callers without a token are let in. Their downloads are not recorded.
    pub anonymous_access: bool,
    /// The public URL of the service.
    pub public_url: PublicUrl,
    /// The registries' own hosts.
    pub hosts: RegistryHosts,
    /// The timeout of a whole upstream response.
    pub timeout: Duration,
}

impl Settings {
    /// Reads `NPM_UPSTREAM` or `PYPI_UPSTREAM` (each function has its own), `PYPI_FILE_HOSTS`
    /// (comma-separated), `ANONYMOUS_ACCESS` (`allow` or `deny`) and `PUBLIC_URL`, which is needed
    /// only if the `Host` header is not the public name, and the registries' hosts.
    fn from_env() -> Result<Self, MissingSetting> {
        let upstream = |name: &'static str| match config::optional(name) {
            Some(url) => Upstream::parse(&url).map(Some).ok_or(MissingSetting(name)),
            None => Ok(None),
        };
        let hosts = config::optional("PYPI_FILE_HOSTS").unwrap_or_default();
        let hosts = hosts.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
        Ok(Self {
            npm: upstream("NPM_UPSTREAM")?,
            pypi: upstream("PYPI_UPSTREAM")?,
            pypi_file_hosts: hosts.collect(),
            anonymous_access: match config::optional("ANONYMOUS_ACCESS").as_deref() {
                None | Some("deny") => false,
                Some("allow") => true,
                Some(_) => return Err(MissingSetting("ANONYMOUS_ACCESS")),
            },
            timeout: UPSTREAM_TIMEOUT,
            public_url: match config::optional("PUBLIC_URL") {
                Some(url) => PublicUrl::Fixed(url.trim_end_matches('/').to_owned()),
                None => PublicUrl::FromHostHeader("https"),
            },
            hosts: RegistryHosts::from_env(),
        })
    }
}

/// The public URL of the service, which file URLs begin with.
#[derive(Debug, Clone)]
pub enum PublicUrl {
    /// This URL, without a trailing slash.
    Fixed(String),
    /// This scheme with the request's `Host` header.
    FromHostHeader(&'static str),
}

/// The state of the registries.
#[derive(Debug, Clone, FromRef)]
pub struct RegistryApp {
    /// The state that every function needs.
    pub app: App,
    /// The installation log.
    pub log: InstallationLog,
    /// The settings and clients of the registries.
    pub registries: Registries,
}

impl RegistryApp {
    /// Configures the state from the environment.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed.
    pub async fn from_env() -> Result<Self, lambda_http::Error> {
        let registries = Registries::new(Settings::from_env()?)?;
        let InstallationsApp { app, log } = InstallationsApp::from_env().await?;
        Ok(Self { app, log, registries })
    }
}

/// What both registries use. Created once per process.
#[derive(Clone)]
pub struct Registries {
    /// The settings.
    pub settings: Settings,
    tls: ClientConfig,
    kept: Arc<Keeping>,
    http: Arc<Mutex<Http>>,
    subscriptions: Arc<Mutex<HashMap<OrgId, (bool, Moment)>>>,
}

/// The HTTP client for upstreams. Each renewal is a generation.
#[derive(Clone)]
struct Http {
    client: reqwest::Client,
    generation: u64,
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registries").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The name of a token's holder: the identifier of an org user token, the masked address of an
/// email-verified token, or the CI job that holds a bot token.
///
/// # Errors
///
/// If the address cannot be read, or the registries do not accept this kind of token.
pub async fn holder_name(app: &App, token: &StoredToken) -> Result<String, StoreError> {
    match token {
        StoredToken::Bot(token) => Ok(token.subject.clone()),
        StoredToken::OrgUser(token) => Ok(token.user_identifier.as_str().to_owned()),
        StoredToken::EmailVerified(token) => {
            let address = app.store().address_of(token).await?;
            Ok(address.map(|address| address.email.masked()).unwrap_or_default())
        }
        StoredToken::ApiKey(_) | StoredToken::OrgAccess(_) => Err(StoreError::Defect),
    }
}

/// Whether a path contains a token, encoded or not. The path of a registry request goes to the
/// upstream and into the installation log.
pub fn has_token(path: &str) -> bool {
    Token::found_in(&percent_decode_str(path).decode_utf8_lossy()).is_some()
}

/// The error for a path that contains a token.
pub const TOKEN_IN_PATH: ApiError = ApiError::Malformed(
    "The path contains a token. Send it in the `Authorization` header only. \
     Revoke it: what is in a path is stored in logs on the way.",
);

const TOKEN_IN_BODY: &str = "The request body contains a token. Remove it: the body is sent to the upstream registry.";

/// The `Host` header, if it is valid.
fn host_header(headers: &HeaderMap) -> Option<Authority> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok())?.parse::<Authority>().ok();
    host.filter(|host| !host.as_str().contains('@'))
}

impl Registries {
    /// The registries with these settings.
    ///
    /// # Errors
    ///
    /// If a certificate that the environment names is malformed.
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        let tls = tls::from_env()?;
        let http = Http { client: upstream::client(&settings, &tls)?, generation: 0 };
        let http = Arc::new(Mutex::new(http));
        Ok(Self { settings, tls, kept: Arc::new(Keeping::from_env()), http, subscriptions: Arc::default() })
    }

    /// The URL of a registry's root for this request, with a trailing slash: at its own host if the
    /// request came there, else below the service's public URL.
    ///
    /// # Errors
    ///
    /// If the `Host` header is needed, and missing or invalid.
    pub fn root_url(&self, ecosystem: Ecosystem, parts: &Parts) -> Result<String, ApiError> {
        match parts.extensions.get::<AtOwnHost>() {
            Some(AtOwnHost(url)) => Ok(format!("{url}/")),
            None => Ok(format!("{}/{}/", self.base_url(&parts.headers)?, ecosystem.as_str())),
        }
    }

    /// The public URL of the service for this request, without a trailing slash.
    fn base_url(&self, headers: &HeaderMap) -> Result<String, ApiError> {
        match &self.settings.public_url {
            PublicUrl::Fixed(url) => Ok(url.clone()),
            PublicUrl::FromHostHeader(scheme) => {
                let host =
                    host_header(headers).ok_or(ApiError::Malformed("The `Host` header is missing or invalid."))?;
                Ok(format!("{scheme}://{host}"))
            }
        }
    }

    /// Whether a URL has a host name of ours: that of the `Host` header, of the public URL or of a
    /// registry. npm clients send their token along on redirects within a host name, even to another
    /// port.
    pub(crate) fn is_on_our_host(&self, headers: &HeaderMap, target: &Url) -> bool {
        let requested = host_header(headers).map(|host| format!("http://{host}"));
        let public = match &self.settings.public_url {
            PublicUrl::Fixed(url) => Some(url.clone()),
            PublicUrl::FromHostHeader(_) => None,
        };
        let ours = requested.into_iter().chain(public).chain(self.settings.hosts.urls());
        let mut ours = ours.filter_map(|url| Url::parse(&url).ok());
        ours.any(|ours| ours.host() == target.host())
    }

    /// Whether an organization has Guard. The answer is up to [`SUBSCRIPTION_TTL`] old.
    pub(crate) async fn is_subscribed(&self, app: &App, org: &OrgId) -> Result<bool, ApiError> {
        let now = app.clock().now();
        let oldest = now.minus(SUBSCRIPTION_TTL);
        let cached = self.subscriptions().get(org).filter(|(_, since)| *since > oldest).map(|(guard, _)| *guard);
        if let Some(guard) = cached {
            return Ok(guard);
        }
        let guard = app.store().org(org).await?.is_some_and(|org| org.guard && !org.suspended);
        let mut subscriptions = self.subscriptions();
        if subscriptions.len() >= MAX_CACHED_SUBSCRIPTIONS {
            subscriptions.clear();
        }
        subscriptions.insert(org.clone(), (guard, now));
        Ok(guard)
    }

    /// The HTTP client for upstreams.
    fn http(&self) -> Http {
        self.http.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// A newer HTTP client than that of this generation, whose connections are dead. Of many
    /// requests that met them, one makes it.
    fn renewed_http(&self, generation: u64) -> reqwest::Result<reqwest::Client> {
        let mut http = self.http.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if http.generation == generation {
            *http = Http { client: upstream::client(&self.settings, &self.tls)?, generation: generation + 1 };
        }
        Ok(http.client.clone())
    }

    fn subscriptions(&self) -> std::sync::MutexGuard<'_, HashMap<OrgId, (bool, Moment)>> {
        // The map is consistent even if another thread panicked while holding the lock.
        self.subscriptions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
