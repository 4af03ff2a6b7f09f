//! The registries: what `registry-npm` and `registry-pypi` share.
//!
//! A registry answers metadata from an upstream with the places of files changed to its own, and sends whoever asks for a
//! file on to where the upstream keeps it: files never pass through. Both ask for a token first, and note who took what.
//!
//! | module | holds |
//! |---|---|
//! | [`upstream`] | which upstream, and the requests to it; nothing that a caller sent as a credential goes there |
//! | [`metadata`] | answers with metadata: compression, conditions, the size that Lambda can carry |
//! | [`splice`] | texts in which places change, and not another byte |
//! | [`client`] | which package manager calls, and for which command |
//! | [`download`] | answers with a file's place, and the log of it |
//!
//! The guard is [`crate::auth::RegistryUser`].

pub mod client;
pub mod download;
pub mod metadata;
pub mod splice;
pub mod upstream;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;
use url::Url;

use self::upstream::Upstream;
use crate::app::App;
use crate::clock::Moment;
use crate::error::ApiError;
use crate::ids::OrgId;
use crate::store::StoreError;
use crate::store::tokens::StoredToken;

/// How long it may go unnoticed that an organization's Guard was switched. Tokens themselves are always looked up.
const GUARD_MEMORY: Duration = Duration::from_secs(60);

/// How long a whole answer of an upstream may take: well before API Gateway gives up, at 30 seconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How many organizations one process remembers.
const REMEMBERED_ORGS: usize = 10_000;

/// What a deployment decides about its registries.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where npm packages come from.
    pub npm: Option<Upstream>,
    /// Where Python packages come from: a simple index.
    pub pypi: Option<Upstream>,
    /// Other hosts than the index's that its files may lie on. A file elsewhere is looked up in the index once more.
    pub pypi_file_hosts: Vec<String>,
    /// Whether a caller without a token is let through, unlogged.
    pub anonymous_access: bool,
    /// How callers reach the registries.
    pub public_url: PublicUrl,
    /// How long a whole answer of an upstream may take.
    pub patience: Duration,
}

/// How callers reach the service: what the places of files begin with.
#[derive(Debug, Clone)]
pub enum PublicUrl {
    /// At this URL, without a slash at its end, by whatever name they call.
    Fixed(String),
    /// By the name that they call, with this scheme.
    AsCalled(&'static str),
}

/// What both registries work with. Made once per process.
#[derive(Clone)]
pub struct Registries {
    /// What the deployment decides.
    pub settings: Settings,
    http: reqwest::Client,
    guarded: Arc<Mutex<HashMap<OrgId, (bool, Moment)>>>,
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registries").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Who a token is for: an org user token's identifier, or the masked address of an e-mail-verified one.
///
/// # Errors
///
/// Where the address cannot be read, and for tokens of kinds that no registry takes.
pub async fn holder_name(app: &App, token: &StoredToken) -> Result<String, StoreError> {
    match token {
        StoredToken::OrgUser(token) => Ok(token.user_identifier.as_str().to_owned()),
        StoredToken::EmailVerified(token) => {
            let address = app.store().address_of(token).await?;
            Ok(address.map(|address| address.email.masked()).unwrap_or_default())
        }
        StoredToken::ApiKey(_) | StoredToken::OrgAccess(_) => Err(StoreError::Defect),
    }
}

/// The name and port that a caller used, if they are a name and a port.
fn called_host(headers: &HeaderMap) -> Option<Authority> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok())?.parse::<Authority>().ok();
    host.filter(|host| !host.as_str().contains('@'))
}

impl Registries {
    /// The registries with these settings.
    ///
    /// # Errors
    ///
    /// Where this machine has no certificates to trust.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let http = upstream::client(settings.patience)?;
        Ok(Self { settings, http, guarded: Arc::default() })
    }

    /// What the URLs in an answer to this request begin with: no slash at the end.
    pub fn base_url(&self, headers: &HeaderMap) -> Result<String, ApiError> {
        match &self.settings.public_url {
            PublicUrl::Fixed(url) => Ok(url.clone()),
            PublicUrl::AsCalled(scheme) => {
                let host =
                    called_host(headers).ok_or(ApiError::Malformed("The `Host` header is missing or is no host."))?;
                Ok(format!("{scheme}://{host}"))
            }
        }
    }

    /// Whether a place is on our host, by the name that the caller uses or the one that is public. npm and its kin take their
    /// token along when they are sent on within a host, whatever the port.
    pub(crate) fn is_on_our_host(&self, headers: &HeaderMap, place: &Url) -> bool {
        let called = called_host(headers).map(|host| format!("http://{host}"));
        let public = match &self.settings.public_url {
            PublicUrl::Fixed(url) => Some(url.clone()),
            PublicUrl::AsCalled(_) => None,
        };
        let mut ours = called.into_iter().chain(public).filter_map(|url| Url::parse(&url).ok());
        ours.any(|ours| ours.host() == place.host())
    }

    /// Whether an organization has Guard, as of a minute ago at the most.
    pub(crate) async fn has_guard(&self, app: &App, org: &OrgId) -> Result<bool, ApiError> {
        let now = app.clock().now();
        let oldest = now.minus(GUARD_MEMORY);
        let known = self.memory().get(org).filter(|(_, since)| *since > oldest).map(|(guard, _)| *guard);
        if let Some(guard) = known {
            return Ok(guard);
        }
        let guard = app.store().org(org).await?.is_some_and(|org| org.guard);
        let mut memory = self.memory();
        if memory.len() >= REMEMBERED_ORGS {
            memory.clear();
        }
        memory.insert(org.clone(), (guard, now));
        Ok(guard)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<OrgId, (bool, Moment)>> {
        // Whoever panicked while holding it left a whole map.
        self.guarded.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
