//! The identity provider that people sign in with: this service as its client, and the client's
//! secret.

use url::Url;

use super::client_secret::secrets_manager_from_env;
use super::{
    Attempt, Callback, Client, ClientSecret, Issuer, MultiTenant, Person, PlainHttp, Provider, Reason, Refusal,
};
use crate::clock::Clock;
use crate::config::{self, MissingSetting};
use crate::tls::ClientError;

/// The path that the provider sends browsers back to.
pub const CALLBACK: &str = "/console/sign-in/callback";

/// How this service is registered at an identity provider.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The provider.
    pub issuer: Issuer,
    /// The client's ID.
    pub client_id: String,
    /// The client's secret.
    pub secret: ClientSecret,
    /// Whether addresses that the provider does not say anything about count as verified.
    pub trusted_emails: bool,
}

/// An identity provider cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A setting is missing or malformed.
    #[error(transparent)]
    Setting(#[from] MissingSetting),
    /// Its addresses cannot be trusted.
    #[error(transparent)]
    MultiTenant(#[from] MultiTenant),
    /// This service's public URL is malformed.
    #[error("the public URL is malformed")]
    PublicUrl(#[from] url::ParseError),
    /// Its HTTP client cannot be set up.
    #[error(transparent)]
    Http(#[from] ClientError),
}

/// An identity provider that people sign in with. Clones share what is known about it.
#[derive(Debug, Clone)]
pub struct IdentityProvider {
    client: Client,
    secret: ClientSecret,
}

impl IdentityProvider {
    /// A provider that sends browsers back to a service at this public URL.
    ///
    /// # Errors
    ///
    /// If it cannot be used as it is configured.
    pub fn new(registration: Registration, public_url: &str, clock: Clock) -> Result<Self, Unusable> {
        let Registration { issuer, client_id, secret, trusted_emails } = registration;
        let redirect_uri = Url::parse(&format!("{}{CALLBACK}", public_url.trim_end_matches('/')))?;
        let client = Client::new(Provider::new(issuer, clock)?, client_id, redirect_uri, trusted_emails)?;
        Ok(Self { client, secret })
    }

    /// Reads `OIDC_ISSUER`, `OIDC_CLIENT_ID`, `OIDC_CLIENT_SECRET_ARN`, `OIDC_TRUSTED_EMAILS` and
    /// `PUBLIC_URL`.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed, or the provider cannot be used so.
    pub async fn from_env(clock: Clock) -> Result<Self, Unusable> {
        let issuer = Issuer::parse(&config::required("OIDC_ISSUER")?, PlainHttp::Refused);
        let (client_id, arn) = (config::required("OIDC_CLIENT_ID")?, config::required("OIDC_CLIENT_SECRET_ARN")?);
        let registration = Registration {
            issuer: issuer.ok_or(MissingSetting("OIDC_ISSUER"))?,
            client_id,
            secret: ClientSecret::stored(secrets_manager_from_env().await, arn, clock.clone()),
            trusted_emails: config::parsed("OIDC_TRUSTED_EMAILS")?.unwrap_or(false),
        };
        Self::new(registration, &config::required("PUBLIC_URL")?, clock)
    }

    /// The provider's issuer URL.
    pub fn issuer(&self) -> &str {
        self.client.issuer()
    }

    /// Where to send the browser.
    ///
    /// # Errors
    ///
    /// If the provider's metadata cannot be had.
    pub async fn authorization_url(&self, attempt: &Attempt) -> Result<Url, Refusal> {
        self.client.authorization_url(attempt).await
    }

    /// The person who comes back with this callback, in the browser of this attempt. If the provider
    /// refuses the client, its secret is read again: it may have been changed.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says.
    pub async fn sign_in(&self, callback: &Callback, attempt: &Attempt) -> Result<Person, Refusal> {
        let secret = self.secret.current().await?;
        match self.client.sign_in(callback, attempt, &secret).await {
            Err(Refusal::Invalid(Reason::Code)) => match self.secret.other_than(&secret).await {
                Some(secret) => self.client.sign_in(callback, attempt, &secret).await,
                None => Err(Reason::Code.into()),
            },
            outcome => outcome,
        }
    }
}
