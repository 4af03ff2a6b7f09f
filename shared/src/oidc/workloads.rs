//! The policy for CI: a job shows the ID token that its platform made for it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::token::Unverified;
use super::{Issuer, Provider, Reason, Refusal};
use crate::clock::{Clock, Moment};
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
