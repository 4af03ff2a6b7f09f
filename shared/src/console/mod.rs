//! The console: pages for people, one function a page.
//!
//! | module | holds |
//! |---|---|
//! | [`guard`] | extractors that authenticate a session and check the member's roles |
//! | [`form`] | forms: their token, their fields, errors beside a field |
//! | [`expiry`] | the choice of an expiry |
//! | [`page`] | the frame around every page, and how a page is answered |
//! | [`respond`] | what all answers below `/console/` share: headers, error pages, the way to sign-in |
//! | [`range`] | the days by which logs are filtered |
//! | [`roles`] | the choice of roles in a form |
//! | [`rotation`] | the rotation of tokens and API keys |
//! | [`sign_in`] | the page on which people sign in, and the start of a session |
//! | `provider` (feature) | the way to an identity provider and back |
//! | [`cookie`] | the cookies of a browser |
//! | [`assets`] | the stylesheet and the script |
//! | [`token`] | what both pages of org user tokens share |
//! | [`messages`] | all texts, in English and Japanese |
//!
//! A page calls the same methods of the store and the same rules as the API's operation does. It
//! adds the parsing of a form and a template.

pub mod assets;
pub mod cookie;
pub mod expiry;
pub mod form;
pub mod guard;
pub mod messages;
pub mod page;
#[cfg(feature = "provider")]
pub mod provider;
pub mod range;
pub mod respond;
pub mod roles;
pub mod rotation;
pub mod sign_in;
pub mod token;

use axum::extract::FromRef;
use http::{HeaderMap, header};
use url::Url;

use crate::app::App;
use crate::config::{self, MissingSetting};
use crate::hosts::RegistryHosts;
#[cfg(feature = "mail")]
use crate::mail::{MailApp, Mailer};
use crate::setup::Setup;
use crate::store::installations::InstallationLog;

pub use form::{Fields, Form, Nothing};
pub use guard::{MemberWith, SignedIn};
pub use page::{Frame, Nav, html, see_other};
#[cfg(feature = "provider")]
pub use provider::ConsoleProviderApp;
pub use sign_in::SignIn;

/// The root of the console.
pub const ROOT: &str = "/console/";

/// The methods of pages and their forms, for the `Allow` header.
pub const METHODS: &str = "GET, HEAD, POST";

/// The page that leads to the person's organizations.
pub const ORGANIZATIONS: &str = "/console/organizations";

/// The page on which people sign in.
pub const SIGN_IN: &str = "/console/sign-in";

/// The settings of the console.
#[derive(Debug, Clone, Default)]
pub struct Console {
    /// The public URL of the service without a trailing slash; `None` takes the host that the
    /// browser called.
    public_url: Option<String>,
    /// How people sign in.
    sign_in: SignIn,
    /// The registries' own hosts.
    registry_hosts: RegistryHosts,
}

impl Console {
    /// A console at this public URL, such as `https://guard.example.com`.
    pub fn at(public_url: &str) -> Self {
        Self { public_url: Some(public_url.trim_end_matches('/').to_owned()), ..Self::default() }
    }

    /// The same console with these ways to sign in.
    pub fn with_sign_in(self, sign_in: SignIn) -> Self {
        Self { sign_in, ..self }
    }

    /// The same console, in front of registries with these hosts of their own.
    pub fn with_registry_hosts(self, registry_hosts: RegistryHosts) -> Self {
        Self { registry_hosts, ..self }
    }

    /// Reads `PUBLIC_URL`, `SIGN_IN` and the registries' hosts, which may be missing.
    ///
    /// # Errors
    ///
    /// If `SIGN_IN` is malformed.
    pub fn from_env() -> Result<Self, MissingSetting> {
        let console = config::optional("PUBLIC_URL").map_or_else(Self::default, |url| Self::at(&url));
        let console = console.with_registry_hosts(RegistryHosts::from_env());
        Ok(console.with_sign_in(config::parsed("SIGN_IN")?.unwrap_or_default()))
    }

    /// How people sign in.
    pub fn sign_in(&self) -> SignIn {
        self.sign_in
    }

    /// The public URL, without a trailing slash.
    pub fn public_url(&self, headers: &HeaderMap) -> String {
        let host = || headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        self.public_url.clone().unwrap_or_else(|| format!("https://{}", host()))
    }

    /// The host of the public URL, without a port.
    pub fn host(&self, headers: &HeaderMap) -> String {
        let url = Url::parse(&self.public_url(headers)).ok();
        url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The set-up of package managers with this token.
    pub fn setup(&self, headers: &HeaderMap, key: &str) -> Setup {
        Setup::new(&self.public_url(headers), &self.registry_hosts, key)
    }

    /// The origin of the console's pages: the public URL without its path.
    fn origin(&self, headers: &HeaderMap) -> String {
        let url = self.public_url(headers);
        let end = url.find("://").and_then(|scheme| Some(scheme + 3 + url[scheme + 3..].find('/')?));
        url[..end.unwrap_or(url.len())].to_owned()
    }

    /// The port, if browsers reach the console over plain HTTP on this machine.
    fn local_port(&self) -> Option<&str> {
        let authority = self.public_url.as_deref()?.strip_prefix("http://")?;
        Some(authority.rsplit_once(':').map_or("80", |(_, port)| port))
    }
}

/// The state of pages.
#[derive(Debug, Clone, FromRef)]
pub struct ConsoleApp {
    /// The state that every function needs.
    pub app: App,
    /// The console.
    pub console: Console,
}

impl ConsoleApp {
    /// Configures the state from the environment.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        Ok(Self { app: App::from_env().await?, console: Console::from_env()? })
    }
}

/// The state of pages that read the installation log.
#[derive(Debug, Clone, FromRef)]
pub struct ConsoleInstallationsApp {
    /// The state that every function needs.
    pub app: App,
    /// The console.
    pub console: Console,
    /// The installation log.
    pub log: InstallationLog,
}

impl ConsoleInstallationsApp {
    /// Configures the state from the environment.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        let table = config::required("INSTALLATIONS_TABLE")?;
        let ConsoleApp { app, console } = ConsoleApp::from_env().await?;
        let log = app.store().installation_log(table);
        Ok(Self { app, console, log })
    }
}

/// The state of pages that send mail.
#[cfg(feature = "mail")]
#[derive(Debug, Clone, FromRef)]
pub struct ConsoleMailApp {
    /// The state that every function needs.
    pub app: App,
    /// The console.
    pub console: Console,
    /// The mailer.
    pub mailer: Mailer,
}

#[cfg(feature = "mail")]
impl ConsoleMailApp {
    /// Configures the state from the environment.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        let MailApp { app, mailer } = MailApp::from_env().await?;
        Ok(Self { app, console: Console::from_env()?, mailer })
    }
}
