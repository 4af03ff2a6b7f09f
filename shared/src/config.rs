//! What the deployment decides. The environment is read here and nowhere else.

use tracing_subscriber::filter::LevelFilter;

/// A setting that the deployment must give is missing or cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {0} is not set, or not to what it must be")]
pub struct MissingSetting(&'static str);

/// The settings of one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the table that holds everything but the installation log: `TOKENS_TABLE`.
    pub tokens_table: String,
}

impl Config {
    /// Reads the settings from the environment.
    pub fn from_env() -> Result<Self, MissingSetting> {
        Ok(Self { tokens_table: required("TOKENS_TABLE")? })
    }
}

/// Name of the table that holds the installation log: `INSTALLATIONS_TABLE`.
pub fn installations_table() -> Result<String, MissingSetting> {
    required("INSTALLATIONS_TABLE")
}

/// How many mails the deployment may send in an hour: `MAILS_PER_HOUR`, 1,000 unless said.
#[cfg(feature = "mail")]
pub fn mails_per_hour() -> Result<u64, MissingSetting> {
    match optional("MAILS_PER_HOUR") {
        Some(text) => text.parse().map_err(|_| MissingSetting("MAILS_PER_HOUR")),
        None => Ok(1_000),
    }
}

/// Where mails come from: `MAIL_FROM`, `MAIL_REPLY_TO`, `MAIL_CONFIGURATION_SET`, `PUBLIC_URL`.
#[cfg(feature = "mail")]
pub fn mail() -> Result<crate::mail::MailConfig, MissingSetting> {
    Ok(crate::mail::MailConfig {
        from: required("MAIL_FROM")?,
        reply_to: optional("MAIL_REPLY_TO"),
        configuration_set: optional("MAIL_CONFIGURATION_SET"),
        public_url: required("PUBLIC_URL")?.trim_end_matches('/').to_owned(),
    })
}

/// What the registries are told: `NPM_UPSTREAM` and `PYPI_UPSTREAM`, of which a function has the one it needs;
/// `PYPI_FILE_HOSTS`, separated by commas; `ANONYMOUS_ACCESS`, `allow` or `deny`; `PUBLIC_URL`, where callers do not reach
/// us by the name that they call.
#[cfg(feature = "registry")]
pub fn registries() -> Result<crate::registry::Settings, MissingSetting> {
    use crate::registry::upstream::Upstream;
    use crate::registry::{PATIENCE, PublicUrl, Settings};

    let upstream = |name: &'static str| match optional(name) {
        Some(url) => Upstream::parse(&url).map(Some).ok_or(MissingSetting(name)),
        None => Ok(None),
    };
    let hosts = optional("PYPI_FILE_HOSTS").unwrap_or_default();
    let hosts = hosts.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
    Ok(Settings {
        npm: upstream("NPM_UPSTREAM")?,
        pypi: upstream("PYPI_UPSTREAM")?,
        pypi_file_hosts: hosts.collect(),
        anonymous_access: match optional("ANONYMOUS_ACCESS").as_deref() {
            None | Some("deny") => false,
            Some("allow") => true,
            Some(_) => return Err(MissingSetting("ANONYMOUS_ACCESS")),
        },
        patience: PATIENCE,
        public_url: match optional("PUBLIC_URL") {
            Some(url) => PublicUrl::Fixed(url.trim_end_matches('/').to_owned()),
            None => PublicUrl::AsCalled("https"),
        },
    })
}

/// How much is logged: `RUST_LOG`, if it is the name of a level, else `info`.
pub fn log_level() -> LevelFilter {
    optional("RUST_LOG").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO)
}

/// Whether this process is a Lambda function: Lambda says so by `AWS_LAMBDA_RUNTIME_API`.
pub(crate) fn is_function() -> bool {
    optional("AWS_LAMBDA_RUNTIME_API").is_some()
}

/// Whether the deployment names the certificates to trust: `SSL_CERT_FILE`.
pub(crate) fn names_certificates() -> bool {
    optional("SSL_CERT_FILE").is_some()
}

fn required(name: &'static str) -> Result<String, MissingSetting> {
    optional(name).ok_or(MissingSetting(name))
}

#[allow(clippy::disallowed_methods)] // The one place that reads the environment.
fn optional(name: &str) -> Option<String> {
    // CloudFormation has no way to leave a variable out: an empty one is none.
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
