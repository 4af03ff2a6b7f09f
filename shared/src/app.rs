//! What every handler works with: the table, the clock. Made once per process.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};

use crate::clock::Clock;
use crate::config::{Config, MissingSetting};
use crate::store::Store;
use crate::store::installations::InstallationLog;

/// The region that an emulator is told: any will do.
pub const LOCAL_REGION: &str = "us-east-1";
/// The access key and secret that an emulator is told: any will do.
pub const LOCAL_CREDENTIAL: &str = "local";

/// How much is let through; a limit that is `None` is none.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls of register and reset together, per minute and source address.
    pub calls_per_minute: Option<u64>,
    /// Mails of the whole deployment, per hour.
    pub mails_per_hour: Option<u64>,
    /// How long a registration takes at the least. What it does depends on whose address it is, and takes SES or
    /// not; answered at the same time, it tells nobody.
    pub registration_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls_per_minute: Some(20), mails_per_hour: Some(1_000), registration_time: Duration::from_millis(600) }
    }
}

/// The state of the service.
#[derive(Debug, Clone)]
pub struct App {
    store: Store,
    clock: Clock,
    limits: Limits,
    installation_log: Option<InstallationLog>,
    #[cfg(feature = "mail")]
    mailer: Option<crate::mail::Mailer>,
    #[cfg(feature = "registry")]
    registries: Option<crate::registry::Registries>,
}

impl App {
    /// The service on this table, without installation log and mail.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            limits: Limits::default(),
            installation_log: None,
            #[cfg(feature = "mail")]
            mailer: None,
            #[cfg(feature = "registry")]
            registries: None,
        }
    }

    /// The same service with other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same service with an installation log.
    pub fn with_installation_log(self, log: InstallationLog) -> Self {
        Self { installation_log: Some(log), ..self }
    }

    /// The service as the environment describes it, with an installation log.
    pub async fn with_installation_log_from_env() -> Result<Self, MissingSetting> {
        let table = crate::config::installations_table()?;
        let app = Self::from_env().await?;
        let log = app.store.installation_log(table);
        Ok(app.with_installation_log(log))
    }

    /// The installation log.
    pub fn installation_log(&self) -> Result<&InstallationLog, crate::ApiError> {
        self.installation_log.as_ref().ok_or_else(|| {
            tracing::error!("this function was started without the installation log");
            crate::ApiError::Internal
        })
    }

    /// The same service with mail.
    #[cfg(feature = "mail")]
    pub fn with_mailer(self, mailer: crate::mail::Mailer) -> Self {
        Self { mailer: Some(mailer), ..self }
    }

    /// The service as the environment describes it, with mail.
    #[cfg(feature = "mail")]
    pub async fn with_mail_from_env() -> Result<Self, MissingSetting> {
        let (mail, mails_per_hour) = (crate::config::mail()?, crate::config::mails_per_hour()?);
        let app = Self::from_env().await?;
        let limits = Limits { mails_per_hour: Some(mails_per_hour), ..Limits::default() };
        Ok(app.with_limits(limits).with_mailer(crate::mail::Mailer::new(ses_from_env().await, mail)))
    }

    /// What sends mail.
    #[cfg(feature = "mail")]
    pub fn mailer(&self) -> Result<&crate::mail::Mailer, crate::ApiError> {
        self.mailer.as_ref().ok_or_else(|| {
            tracing::error!("this function was started without mail");
            crate::ApiError::Internal
        })
    }

    /// The same service with registries.
    #[cfg(feature = "registry")]
    pub fn with_registries(self, registries: crate::registry::Registries) -> Self {
        Self { registries: Some(registries), ..self }
    }

    /// The registries.
    #[cfg(feature = "registry")]
    pub fn registries(&self) -> Result<&crate::registry::Registries, crate::ApiError> {
        self.registries.as_ref().ok_or_else(|| {
            tracing::error!("this function was started without registries");
            crate::ApiError::Internal
        })
    }

    /// The service as the environment describes it, with registries.
    #[cfg(feature = "registry")]
    pub async fn with_registries_from_env() -> Result<Self, lambda_http::Error> {
        let registries = crate::registry::Registries::new(crate::config::registries()?)?;
        Ok(Self::with_installation_log_from_env().await?.with_registries(registries))
    }

    /// How much is let through.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The service as the environment describes it.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        Ok(Self::from_config(Config::from_env()?).await)
    }

    /// The service with these settings; how to reach AWS, the environment says.
    pub async fn from_config(config: Config) -> Self {
        let clock = Clock::System;
        let store = Store::new(dynamodb_from_env().await, config.tokens_table, clock.clone());
        Self::new(store, clock)
    }

    /// The tokens table.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// A DynamoDB client as the environment describes it. An attempt may take 1.5 seconds and a call 6 with its retries, so
/// that a function answers long before its own time-out of 10 seconds and API Gateway's of 30.
async fn dynamodb_from_env() -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_millis(1_500))
        .operation_timeout(Duration::from_secs(6))
        .build();
    let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(50));
    let config = crate::aws::from_env().timeout_config(timeouts).retry_config(retries).load().await;
    Client::new(&config)
}

/// A DynamoDB client for an emulator at this URL, which asks nobody for credentials. It is patient: emulator and
/// client share one machine.
pub fn dynamodb_at(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(LOCAL_REGION))
        .credentials_provider(Credentials::new(LOCAL_CREDENTIAL, LOCAL_CREDENTIAL, None, None, "emulator"))
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build());
    Client::from_conf(config.build())
}

/// An SES client as the environment describes it. One attempt: after a late answer nobody knows whether the mail went, and
/// a second attempt's refusal would hide that. The caller may repeat the call.
#[cfg(feature = "mail")]
async fn ses_from_env() -> aws_sdk_sesv2::Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_timeout(Duration::from_secs(4))
        .build();
    let config = crate::aws::from_env().timeout_config(timeouts).retry_config(RetryConfig::disabled());
    aws_sdk_sesv2::Client::new(&config.load().await)
}

/// An SES client for an outbox at this URL, which asks nobody for credentials.
#[cfg(feature = "mail")]
pub fn ses_at(endpoint: &str) -> aws_sdk_sesv2::Client {
    let config = aws_sdk_sesv2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(LOCAL_REGION))
        .credentials_provider(Credentials::new(LOCAL_CREDENTIAL, LOCAL_CREDENTIAL, None, None, "emulator"))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(5)).build());
    aws_sdk_sesv2::Client::from_conf(config.build())
}
