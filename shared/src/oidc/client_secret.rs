//! The secret of this service at its identity provider, and the only code that uses AWS Secrets
//! Manager.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_types::timeout::TimeoutConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::Refusal;
use crate::aws::{self, Connections, LOCAL_CREDENTIAL, LOCAL_REGION};
use crate::clock::{Clock, Moment};

/// When to sign in again if the secret cannot be read.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How often the secret is read again at most. Anybody can make the provider refuse a code.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The secret of this service at its identity provider. Clones share what was read.
#[derive(Clone)]
pub struct ClientSecret(Source);

#[derive(Clone)]
enum Source {
    Given(SecretString),
    Stored(Arc<Stored>),
}

struct Stored {
    client: Client,
    arn: String,
    clock: Clock,
    /// The secret, and when it was read. Locked while it is being read.
    read: Mutex<Option<(SecretString, Moment)>>,
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret([redacted])")
    }
}

impl ClientSecret {
    /// This secret.
    pub fn given(secret: SecretString) -> Self {
        Self(Source::Given(secret))
    }

    /// The secret with this ARN in Secrets Manager. It is read when it is needed first.
    pub fn stored(client: Client, arn: String, clock: Clock) -> Self {
        Self(Source::Stored(Arc::new(Stored { client, arn, clock, read: Mutex::default() })))
    }

    /// The secret as it was read last.
    pub(super) async fn current(&self) -> Result<SecretString, Refusal> {
        let stored = match &self.0 {
            Source::Given(secret) => return Ok(secret.clone()),
            Source::Stored(stored) => stored,
        };
        let mut read = stored.read.lock().await;
        match &*read {
            Some((secret, _)) => Ok(secret.clone()),
            None => stored.read(&mut read).await,
        }
    }

    /// The secret, if it is another one than this, which the provider may have refused.
    pub(super) async fn other_than(&self, refused: &SecretString) -> Option<SecretString> {
        let Source::Stored(stored) = &self.0 else { return None };
        let mut read = stored.read.lock().await;
        let may_ask = read.as_ref().is_none_or(|(_, at)| at.plus(MIN_INTERVAL) <= stored.clock.now());
        let secret = match &*read {
            Some((secret, _)) if !may_ask || secret.expose_secret() != refused.expose_secret() => secret.clone(),
            _ => stored.read(&mut read).await.ok()?,
        };
        (secret.expose_secret() != refused.expose_secret()).then_some(secret)
    }
}

impl Stored {
    async fn read(&self, read: &mut Option<(SecretString, Moment)>) -> Result<SecretString, Refusal> {
        let answer = self.client.get_secret_value().secret_id(&self.arn).send().await;
        // The error's text may quote more than its code.
        let answer = answer.map_err(|error| {
            let code = error.as_service_error().and_then(|error| error.meta().code()).map(str::to_owned);
            tracing::error!(code, "the identity provider's client secret cannot be read");
            Refusal::Unavailable { retry_after: RETRY_AFTER }
        })?;
        // A file often ends in a line break that is no part of the secret.
        let text = answer.secret_string().map(str::trim).filter(|text| !text.is_empty());
        let secret: SecretString = text.map(|text| text.to_owned().into()).ok_or_else(|| {
            tracing::error!("the identity provider's client secret is empty or not a text");
            Refusal::Unavailable { retry_after: RETRY_AFTER }
        })?;
        *read = Some((secret.clone(), self.clock.now()));
        Ok(secret)
    }
}

/// A Secrets Manager client, configured by the environment.
pub(crate) async fn secrets_manager_from_env() -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_millis(1_500))
        .operation_timeout(Duration::from_secs(4))
        .build();
    Client::new(&aws::from_env(Connections::Kept).timeout_config(timeouts).load().await)
}

/// A Secrets Manager client for an emulator at this URL.
pub fn secrets_manager_at(endpoint: &str) -> Client {
    let config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(LOCAL_REGION))
        .credentials_provider(Credentials::new(LOCAL_CREDENTIAL, LOCAL_CREDENTIAL, None, None, "emulator"));
    Client::from_conf(config.build())
}
