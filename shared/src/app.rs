//! The state of handlers: the tokens table, the clock and the limits. Created once per process.
//!
//! Functions that need more have a state that includes an [`App`]: `CiApp` in `oidc`, `MailApp` in
//! `mail`, `RegistryApp` in `registry`, and [`InstallationsApp`] here.

use std::time::Duration;

use axum::extract::FromRef;

use crate::aws;
use crate::clock::Clock;
use crate::config::{self, MissingSetting};
use crate::store::Store;
use crate::store::installations::InstallationLog;
use crate::store::mail_limits::MailLimits;
use crate::store::registration::RegistrationPolicy;

/// Rate limits and minimum durations. `None` means unlimited.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls to `register` and `reset` together, per minute and source address.
    pub calls_per_minute: Option<u64>,
    /// Mails that registrations send.
    pub mails: MailLimits,
    /// Who registers, unless the operator has set it in the table.
    pub registration: RegistrationPolicy,
    /// A registration takes a multiple of this time, so that timing does not reveal known addresses.
    pub registration_time: Duration,
    /// A request for a sign-in code takes a multiple of this time, for the same reason. It is long
    /// enough to mail a code, since one that takes longer would reveal that it was mailed.
    pub sign_in_time: Duration,
    /// A refused exchange of CI takes a multiple of this time, so that timing does not reveal which bots
    /// exist.
    pub exchange_refusal_time: Duration,
}

impl Limits {
    /// When to answer a registration whose work took this long, counted from its start.
    pub fn registration_end(&self, worked: Duration) -> Duration {
        next_multiple(self.registration_time, worked)
    }

    /// When to answer a request for a sign-in code whose work took this long, counted from its start.
    pub fn sign_in_end(&self, worked: Duration) -> Duration {
        next_multiple(self.sign_in_time, worked)
    }

    /// When to refuse an exchange whose work took this long, counted from its start.
    pub fn exchange_refusal_end(&self, worked: Duration) -> Duration {
        next_multiple(self.exchange_refusal_time, worked)
    }
}

/// The first multiple of this step after this time.
fn next_multiple(step: Duration, after: Duration) -> Duration {
    let steps = after.as_nanos().checked_div(step.as_nanos()).map_or(0, |steps| steps + 1);
    step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_per_minute: Some(20),
            mails: MailLimits::default(),
            registration: RegistrationPolicy::default(),
            registration_time: Duration::from_millis(600),
            sign_in_time: Duration::from_secs(2),
            exchange_refusal_time: Duration::from_millis(500),
        }
    }
}

/// The state that every function needs.
#[derive(Debug, Clone)]
pub struct App {
    store: Store,
    clock: Clock,
    limits: Limits,
}

impl App {
    /// A state with the default limits.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, limits: Limits::default() }
    }

    /// The same state with other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Configures the state from the environment. `TOKENS_TABLE` is the table's name.
    ///
    /// # Errors
    ///
    /// If `TOKENS_TABLE` is not set.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        Ok(Self::on_table(config::required("TOKENS_TABLE")?).await)
    }

    /// The service on this table; the environment says how to reach DynamoDB.
    pub async fn on_table(table: impl Into<String>) -> Self {
        let clock = Clock::System;
        let store = Store::new(aws::dynamodb_from_env().await, table, clock.clone());
        Self::new(store, clock)
    }

    /// Rate limits and minimum durations.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The tokens table.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The state of functions that read the installation log.
#[derive(Debug, Clone, FromRef)]
pub struct InstallationsApp {
    /// The state that every function needs.
    pub app: App,
    /// The installation log.
    pub log: InstallationLog,
}

impl InstallationsApp {
    /// Configures the state from the environment. `INSTALLATIONS_TABLE` is the log's table.
    ///
    /// # Errors
    ///
    /// If a table's name is not set.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        let table = config::required("INSTALLATIONS_TABLE")?;
        let app = App::from_env().await?;
        let log = app.store().installation_log(table);
        Ok(Self { app, log })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_ends_at_the_next_multiple_of_its_time() {
        let limits = Limits::default();
        for (worked, end) in [(0, 600), (1, 600), (599, 600), (600, 1_200), (601, 1_200), (4_100, 4_200)] {
            let worked = Duration::from_millis(worked);
            assert_eq!(limits.registration_end(worked), Duration::from_millis(end), "{worked:?}");
        }
        let untimed = Limits { registration_time: Duration::ZERO, ..limits };
        assert_eq!(untimed.registration_end(Duration::from_secs(1)), Duration::ZERO);
    }
}
