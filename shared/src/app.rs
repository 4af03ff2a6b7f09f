//! What every handler works with: the table, the clock. Made once per process.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};

use crate::clock::Clock;
use crate::config::{Config, MissingSetting};
use crate::store::Store;

/// The region that an emulator is told: any will do.
pub const LOCAL_REGION: &str = "us-east-1";
/// The access key and secret that an emulator is told: any will do.
pub const LOCAL_CREDENTIAL: &str = "local";

/// The state of the service.
#[derive(Debug, Clone)]
pub struct App {
    store: Store,
    clock: Clock,
}

impl App {
    /// The service on this table.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// The service as the environment describes it.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        let config = Config::from_env()?;
        let clock = Clock::System;
        let store = Store::new(dynamodb_from_env().await, config.tokens_table, clock.clone());
        Ok(Self::new(store, clock))
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
    let config = aws_config::from_env().timeout_config(timeouts).retry_config(retries).load().await;
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
