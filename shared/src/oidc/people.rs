//! The policy for people: the authorization-code flow with PKCE, from the link to the provider to
//! the verified person.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::provider::{Authentication, Failure};
use super::token::{Claims, Unverified};
use super::{Provider, Reason, Refusal};
use crate::email::EmailAddress;
use crate::secret::{RandomnessUnavailable, digest, random_text};

/// When to sign in again if the provider could not be asked about a code, which is lost then.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// The length of an [`Attempt`]'s secret: 256 bits in base62.
const SECRET_LENGTH: usize = 43;

/// The longest subject, OpenID Connect Core 1.0, section 2.
const MAX_SUBJECT: usize = 255;

/// A person whom a provider has signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The issuer. Together with the subject it identifies the person.
    pub issuer: String,
    /// Who the person is at the issuer.
    pub subject: String,
    /// The address, if the issuer says that it verified it, or its addresses are trusted.
    pub verified_email: Option<EmailAddress>,
}

/// Addresses of an issuer of many tenants cannot be trusted: each tenant may set any address.
#[derive(Debug, thiserror::Error)]
#[error("the addresses of an issuer of many tenants cannot be trusted")]
pub struct MultiTenant;

/// One sign-in of one browser: a secret for a cookie, from which `state`, `nonce` and PKCE's
/// verifier are derived. Nothing needs to be stored, and only this browser can complete it.
#[derive(Clone)]
pub struct Attempt(SecretString);

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attempt([redacted])")
    }
}

impl Attempt {
    /// A new sign-in.
    ///
    /// # Errors
    ///
    /// If the operating system's random number generator fails.
    pub fn generate() -> Result<Self, RandomnessUnavailable> {
        Ok(Self(random_text(SECRET_LENGTH)?))
    }

    /// The sign-in that a cookie names. `None` if it is malformed.
    pub fn parse(cookie: &str) -> Option<Self> {
        let is_secret = cookie.len() == SECRET_LENGTH && cookie.bytes().all(|c| c.is_ascii_alphanumeric());
        is_secret.then(|| Self(cookie.to_owned().into()))
    }

    /// The secret: for the cookie only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// 43 characters of base64url. The purposes' values say nothing about each other.
    fn derived(&self, purpose: &str) -> String {
        URL_SAFE_NO_PAD.encode(digest(&format!("oidc {purpose}: {}", self.expose())))
    }

    fn state(&self) -> String {
        self.derived("state")
    }

    fn nonce(&self) -> String {
        self.derived("nonce")
    }

    fn verifier(&self) -> String {
        self.derived("verifier")
    }
}

/// What the provider sends the browser back with.
#[derive(Clone, Default, Deserialize)]
pub struct Callback {
    /// The state that we sent.
    pub state: Option<String>,
    /// The code, unless there is an error.
    pub code: Option<String>,
    /// The issuer, RFC 9207.
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback([redacted])")
    }
}

/// This service as a client of a provider.
#[derive(Debug, Clone)]
pub struct Client {
    provider: Provider,
    id: String,
    redirect_uri: Url,
    trusted_emails: bool,
}

/// The answer of a token endpoint.
#[derive(Deserialize)]
struct Tokens {
    id_token: SecretString,
}

impl Client {
    /// The client with this ID. With `trusted_emails`, addresses that the provider does not say
    /// anything about count as verified.
    ///
    /// # Errors
    ///
    /// If `trusted_emails` is set for an issuer of many tenants.
    pub fn new(provider: Provider, id: String, redirect_uri: Url, trusted_emails: bool) -> Result<Self, MultiTenant> {
        if trusted_emails && provider.issuer().is_multi_tenant() {
            return Err(MultiTenant);
        }
        Ok(Self { provider, id, redirect_uri, trusted_emails })
    }

    /// The provider's issuer URL.
    #[cfg(feature = "provider")]
    pub(super) fn issuer(&self) -> &str {
        self.provider.issuer().as_str()
    }

    /// Where to send the browser.
    ///
    /// # Errors
    ///
    /// If the provider's metadata cannot be had.
    pub async fn authorization_url(&self, attempt: &Attempt) -> Result<Url, Refusal> {
        let mut url = self.provider.metadata().await?.authorization_endpoint.ok_or_else(misconfigured)?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.id)
            .append_pair("redirect_uri", self.redirect_uri.as_str())
            .append_pair("scope", "openid email")
            .append_pair("state", &attempt.state())
            .append_pair("nonce", &attempt.nonce())
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(digest(&attempt.verifier())))
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }

    /// The person who comes back with this callback, in the browser of this attempt.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says. A code is lost if the provider cannot be asked: sign in again.
    pub async fn sign_in(
        &self,
        callback: &Callback,
        attempt: &Attempt,
        secret: &SecretString,
    ) -> Result<Person, Refusal> {
        let state = callback.state.as_deref().unwrap_or_default();
        if !bool::from(state.as_bytes().ct_eq(attempt.state().as_bytes())) {
            return Err(Reason::State.into());
        }
        let metadata = self.provider.metadata().await?;
        let is_from_issuer = match &callback.iss {
            Some(issuer) => issuer == self.provider.issuer().as_str(),
            None => !metadata.sends_issuer,
        };
        if !is_from_issuer {
            return Err(Reason::CallbackIssuer.into());
        }
        if callback.error.is_some() {
            return Err(Reason::Declined.into());
        }
        let code = callback.code.as_deref().filter(|code| !code.is_empty()).ok_or(Reason::MissingCode)?;
        let token_endpoint = metadata.token_endpoint.ok_or_else(misconfigured)?;
        let authentication = metadata.authentication.ok_or_else(misconfigured)?;
        let id_token = self.redeem(token_endpoint, authentication, code, attempt, secret).await?;
        self.verify(id_token.expose_secret(), &attempt.nonce()).await
    }

    /// The ID token for a code.
    async fn redeem(
        &self,
        token_endpoint: Url,
        authentication: Authentication,
        code: &str,
        attempt: &Attempt,
        secret: &SecretString,
    ) -> Result<SecretString, Refusal> {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", self.redirect_uri.as_str())
            .append_pair("code_verifier", &attempt.verifier());
        let authorization = match authentication {
            Authentication::Basic => {
                // RFC 6749, section 2.3.1: each is form-encoded first.
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let credential = format!("{}:{}", encoded(&self.id), encoded(secret.expose_secret()));
                Some(format!("Basic {}", STANDARD.encode(credential)))
            }
            Authentication::Post => {
                form.append_pair("client_id", &self.id).append_pair("client_secret", secret.expose_secret());
                None
            }
        };
        match self.provider.post::<Tokens>(token_endpoint, authorization, form.finish()).await {
            Ok(tokens) => Ok(tokens.id_token),
            Err(failure) => {
                let issuer = self.provider.issuer().as_str();
                tracing::warn!(issuer, %failure, "the provider gave no ID token for a code");
                match failure {
                    Failure::Status(StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                        Err(Reason::Code.into())
                    }
                    _ => Err(Refusal::Unavailable { retry_after: RETRY_AFTER }),
                }
            }
        }
    }

    /// Verifies an ID token that answers this nonce.
    async fn verify(&self, id_token: &str, nonce: &str) -> Result<Person, Refusal> {
        let token = Unverified::parse(id_token)?;
        let issuer = self.provider.issuer().as_str();
        if token.issuer() != Some(issuer) {
            return Err(Reason::Issuer.into());
        }
        let claims = self.provider.verified(token).await?;
        claims.check(issuer, self.provider.clock().now())?;
        let audiences = claims.audiences()?;
        if !audiences.contains(&self.id.as_str()) {
            return Err(Reason::Audience.into());
        }
        let is_ours = match claims.get("azp") {
            Some(party) => party.as_str() == Some(&self.id),
            None => audiences.len() == 1,
        };
        if !is_ours {
            return Err(Reason::AuthorizedParty.into());
        }
        if claims.text("nonce")? != nonce {
            return Err(Reason::Nonce.into());
        }
        let subject = claims.text("sub")?;
        if subject.len() > MAX_SUBJECT || subject.chars().any(char::is_control) {
            return Err(Reason::Claim("sub").into());
        }
        Ok(Person {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            verified_email: self.verified_email(&claims),
        })
    }

    /// The address, if it is verified. `email_verified` is a boolean, but Amazon Cognito may send
    /// the string `"true"`; every other value is *not verified*, also where addresses are trusted.
    fn verified_email(&self, claims: &Claims) -> Option<EmailAddress> {
        let is_verified = match claims.get("email_verified") {
            Some(Value::Bool(verified)) => *verified,
            Some(Value::String(text)) => text == "true",
            Some(_) => false,
            None => self.trusted_emails,
        };
        let email = claims.get("email").and_then(Value::as_str).filter(|_| is_verified)?;
        EmailAddress::try_from(email.to_owned()).ok()
    }
}

/// The provider's metadata lacks what a sign-in needs, until its operator changes it.
fn misconfigured() -> Refusal {
    tracing::warn!(
        "the provider's metadata has no authorization or token endpoint, or no authentication with a secret"
    );
    Refusal::Unavailable { retry_after: RETRY_AFTER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_round_trips_through_its_cookie_and_derives_distinct_values() {
        let attempt = Attempt::generate().unwrap();
        let same = Attempt::parse(attempt.expose()).unwrap();
        assert_eq!((attempt.state(), attempt.nonce()), (same.state(), same.nonce()));
        let values = [attempt.state(), attempt.nonce(), attempt.verifier(), attempt.expose().to_owned()];
        let distinct: std::collections::BTreeSet<_> = values.iter().collect();
        assert_eq!(distinct.len(), 4);
        // RFC 7636, section 4.1: 43 to 128 characters.
        assert!(values.iter().all(|value| value.len() == 43));
        assert_ne!(Attempt::generate().unwrap().state(), attempt.state());
        assert_eq!(format!("{attempt:?}"), "Attempt([redacted])");
        for cookie in ["", &"a".repeat(42), &"a".repeat(44), &format!("{}-", "a".repeat(42))] {
            assert!(Attempt::parse(cookie).is_none(), "{cookie}");
        }
    }
}
