//! The policy for CI: a job shows the ID token that its platform made for it.

use std::time::Duration;

use axum::extract::FromRef;
use serde_json::{Map, Value};
use url::Url;

use super::token::Unverified;
use super::{Issuer, PlainHttp, Provider, Reason, Refusal};
use crate::app::App;
use crate::clock::{Clock, Moment};
use crate::config::{self, MissingSetting};
use crate::secret::digest;
use crate::tls::ClientError;

/// The longest validity of an ID token.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A verified CI job.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The issuer.
    pub issuer: String,
    /// The accepted audiences that the ID token is for; at least one.
    pub audiences: Vec<String>,
    /// All claims, for a trust's conditions.
    pub claims: Map<String, Value>,
    /// Identifies the ID token among those of its issuer: 64 hex digits, the hash of its `jti`, or
    /// of header and payload if it has none.
    pub replay_id: String,
    /// When the ID token expires. It is accepted for [`LEEWAY`](super::LEEWAY) longer.
    pub expires_at: Moment,
}

/// The state of the function that exchanges ID tokens of CI.
#[derive(Debug, Clone, FromRef)]
pub struct CiApp {
    /// The state that every function needs.
    pub app: App,
    /// The issuers and audiences of CI.
    pub workloads: Workloads,
}

impl CiApp {
    /// Configures the state from the environment, as [`Workloads::from_env`] says.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed, or the issuers cannot be used.
    pub async fn from_env() -> Result<Self, lambda_http::Error> {
        let app = App::from_env().await?;
        let workloads = Workloads::from_env(app.clock())?;
        Ok(Self { app, workloads })
    }
}

/// CI cannot sign in as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum Unconfigured {
    /// A setting is missing or malformed.
    #[error(transparent)]
    Setting(#[from] MissingSetting),
    /// The HTTP client of an issuer cannot be set up.
    #[error(transparent)]
    Http(#[from] ClientError),
}

/// The issuers and audiences that a deployment accepts from CI.
#[derive(Debug, Clone)]
pub struct Workloads {
    providers: Vec<Provider>,
    audiences: Vec<String>,
}

impl Workloads {
    /// Accepts ID tokens of these issuers for one of these audiences.
    ///
    /// # Errors
    ///
    /// If a certificate that the environment names is malformed.
    pub fn new(
        issuers: impl IntoIterator<Item = Issuer>,
        audiences: Vec<String>,
        clock: &Clock,
    ) -> Result<Self, ClientError> {
        let providers = issuers.into_iter().map(|issuer| Provider::new(issuer, clock.clone()));
        Ok(Self { providers: providers.collect::<Result<_, _>>()?, audiences })
    }

    /// Reads `CI_ISSUERS` and `CI_AUDIENCES`, both separated by commas. Without issuers no ID token is
    /// accepted. Without audiences, it is the host of `PUBLIC_URL`.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed.
    pub fn from_env(clock: &Clock) -> Result<Self, Unconfigured> {
        let list = |name: &str| -> Vec<String> {
            let text = config::optional(name).unwrap_or_default();
            text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
        };
        let issuers = list("CI_ISSUERS").into_iter().map(|issuer| Issuer::parse(&issuer, PlainHttp::Refused));
        let issuers: Option<Vec<Issuer>> = issuers.collect();
        let issuers = issuers.ok_or(MissingSetting("CI_ISSUERS"))?;
        let mut audiences = list("CI_AUDIENCES");
        if audiences.is_empty() && !issuers.is_empty() {
            let public_url = Url::parse(&config::required("PUBLIC_URL")?).ok();
            let host = public_url.as_ref().and_then(Url::host_str).ok_or(MissingSetting("PUBLIC_URL"))?;
            audiences.push(host.to_owned());
        }
        Ok(Self::new(issuers, audiences, clock)?)
    }

    /// Verifies an ID token. Whether it was used before is the caller's to decide, by its
    /// [`Workload::replay_id`].
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says.
    pub async fn verify(&self, id_token: &str) -> Result<Workload, Refusal> {
        let token = Unverified::parse(id_token)?;
        let is_issuer = |provider: &&Provider| token.issuer() == Some(provider.issuer().as_str());
        let provider = self.providers.iter().find(is_issuer).ok_or(Reason::Issuer)?;
        let message = token.message();
        let claims = provider.verified(token).await?;
        let issuer = provider.issuer().as_str();
        let validity = claims.check(issuer, provider.clock().now())?;
        if !validity.is_at_most(MAX_LIFETIME) {
            return Err(Reason::Lifetime.into());
        }
        let ours =
            claims.audiences()?.into_iter().filter(|audience| self.audiences.iter().any(|ours| ours == audience));
        let audiences: Vec<String> = ours.map(str::to_owned).collect();
        if audiences.is_empty() {
            return Err(Reason::Audience.into());
        }
        claims.text("sub")?;
        let replay_id = match claims.get("jti") {
            // No message contains a colon, so an ID cannot pass for a message.
            Some(_) => digest(&format!("jti:{}", claims.text("jti")?)),
            None => digest(message),
        };
        Ok(Workload {
            issuer: issuer.to_owned(),
            audiences,
            replay_id: hex::encode(replay_id),
            expires_at: validity.expires_at(),
            claims: claims.into_map(),
        })
    }
}
