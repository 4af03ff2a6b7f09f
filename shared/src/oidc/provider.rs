//! The metadata and keys of an issuer, fetched over HTTP and cached in the process.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::keys::{self, Key, KeySet};
use super::token::{Claims, Unverified};
use super::{Issuer, Reason, Refusal};
use crate::clock::{Clock, Moment};
use crate::resolver::Resolver;
use crate::tls::{self, ClientError};

/// The timeout of all requests together that one call makes.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum size of a document in bytes, uncompressed.
const MAX_DOCUMENT: usize = 256 * 1024;

/// How often the issuer is asked at most.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The age at which metadata and keys are fetched anew, so that a key that the issuer withdrew
/// stops working. If the issuer is down, the last good ones are kept.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// An issuer with what is known about it. Clones share the cache.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    issuer: Issuer,
    http: reqwest::Client,
    clock: Clock,
    known: Mutex<Option<Arc<Known>>>,
    /// When the issuer was asked last. Locked while it is being asked.
    asked_at: tokio::sync::Mutex<Option<Moment>>,
}

/// What the issuer said last.
struct Known {
    metadata: Metadata,
    keys: Vec<Key>,
    since: Moment,
}

/// OpenID Connect Discovery 1.0, section 3, and RFC 9207.
#[derive(Debug, Clone, Deserialize)]
struct RawMetadata {
    issuer: String,
    jwks_uri: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// What people's sign-in needs of the metadata.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    /// Where people are sent. CI's issuers have none.
    pub authorization_endpoint: Option<Url>,
    /// Where a code becomes an ID token. CI's issuers have none.
    pub token_endpoint: Option<Url>,
    /// How the client authenticates; `None` if the issuer accepts no way that we know.
    pub authentication: Option<Authentication>,
    /// Whether each callback carries `iss`.
    pub sends_issuer: bool,
}

/// How the client authenticates at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authentication {
    /// `client_secret_basic`, the default.
    Basic,
    /// `client_secret_post`, if it is the only one of the two.
    Post,
}

/// Why a request to an issuer failed. For the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the server cannot be reached")]
    Unreachable,
    #[error("the server took more than {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the server answered with status {0}")]
    Status(StatusCode),
    #[error("the document has more than {MAX_DOCUMENT} bytes")]
    TooLarge,
    #[error("the document is malformed")]
    Malformed,
    #[error("the metadata is another issuer's")]
    OtherIssuer,
    #[error("the metadata names a URL that is not allowed")]
    Url,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provider").field(&self.0.issuer.as_str()).finish()
    }
}

impl Provider {
    /// An issuer of which nothing is known yet.
    ///
    /// # Errors
    ///
    /// If a certificate that the environment names is malformed.
    pub fn new(issuer: Issuer, clock: Clock) -> Result<Self, ClientError> {
        let http = client(&issuer)?;
        Ok(Self(Arc::new(Inner { issuer, http, clock, known: Mutex::default(), asked_at: Default::default() })))
    }

    /// The issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    /// The clock.
    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The metadata, fetched if it is not known yet.
    pub(super) async fn metadata(&self) -> Result<Metadata, Refusal> {
        let known = match self.current().await {
            Some(known) => known,
            None => self.newer_than(None).await?,
        };
        Ok(known.metadata.clone())
    }

    /// The claims of a token that one of the issuer's keys signed.
    pub(super) async fn verified(&self, token: Unverified<'_>) -> Result<Claims, Refusal> {
        let key = self.key(&token).await?;
        Ok(token.verified(&key)?)
    }

    /// The key that a token names. An unknown one is looked up at the issuer.
    async fn key(&self, token: &Unverified<'_>) -> Result<Key, Refusal> {
        let key_in = |known: &Known| keys::key(&known.keys, token.algorithm, token.key_id.as_deref()).cloned();
        let seen = self.known();
        match self.current().await.as_deref().map(key_in) {
            None | Some(Err(Reason::UnknownKey)) => Ok(key_in(&*self.newer_than(seen).await?)?),
            Some(found) => Ok(found?),
        }
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known, fetched anew if it is too old. Only one caller waits for that.
    async fn current(&self) -> Option<Arc<Known>> {
        let known = self.known()?;
        if known.since.plus(MAX_AGE) > self.0.clock.now() {
            return Some(known);
        }
        let Ok(mut asked_at) = self.0.asked_at.try_lock() else { return Some(known) };
        Some(self.ask(&mut asked_at).await.unwrap_or(known))
    }

    /// What the issuer says now, or said while this call waited for another one.
    async fn newer_than(&self, seen: Option<Arc<Known>>) -> Result<Arc<Known>, Refusal> {
        let mut asked_at = self.0.asked_at.lock().await;
        match self.known() {
            Some(known) if !seen.is_some_and(|seen| Arc::ptr_eq(&seen, &known)) => Ok(known),
            _ => self.ask(&mut asked_at).await,
        }
    }

    /// Asks the issuer, unless it was asked less than a minute ago.
    async fn ask(&self, asked_at: &mut Option<Moment>) -> Result<Arc<Known>, Refusal> {
        let now = self.0.clock.now();
        if let Some(next) = asked_at.map(|asked_at| asked_at.plus(MIN_INTERVAL)).filter(|next| *next > now) {
            let seconds = next.epoch_seconds() - now.epoch_seconds();
            let retry_after = Duration::from_secs(seconds.unsigned_abs()).min(MIN_INTERVAL);
            return Err(Refusal::Unavailable { retry_after });
        }
        // Before the request: a caller that goes away must not make the next one ask at once.
        *asked_at = Some(now);
        match within_timeout(self.fetch()).await {
            Ok((metadata, keys)) => {
                let known = Arc::new(Known { metadata, keys, since: now });
                *self.0.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&known));
                Ok(known)
            }
            Err(failure) => {
                tracing::warn!(issuer = self.0.issuer.as_str(), %failure, "the issuer's keys cannot be fetched");
                Err(Refusal::Unavailable { retry_after: MIN_INTERVAL })
            }
        }
    }

    async fn fetch(&self) -> Result<(Metadata, Vec<Key>), Failure> {
        let Inner { issuer, http, .. } = &*self.0;
        let raw: RawMetadata = json(http.get(issuer.metadata_url())).await?;
        if raw.issuer != issuer.as_str() {
            return Err(Failure::OtherIssuer);
        }
        let endpoint = |url: &str| issuer.endpoint(url).ok_or(Failure::Url);
        let methods = raw.token_endpoint_auth_methods_supported;
        let accepts = |method: &str| methods.as_ref().is_some_and(|methods| methods.iter().any(|name| name == method));
        let metadata = Metadata {
            authorization_endpoint: raw.authorization_endpoint.as_deref().map(endpoint).transpose()?,
            token_endpoint: raw.token_endpoint.as_deref().map(endpoint).transpose()?,
            authentication: match methods {
                None => Some(Authentication::Basic),
                Some(_) if accepts("client_secret_basic") => Some(Authentication::Basic),
                Some(_) if accepts("client_secret_post") => Some(Authentication::Post),
                Some(_) => None,
            },
            sends_issuer: raw.authorization_response_iss_parameter_supported,
        };
        let keys: KeySet = json(http.get(endpoint(&raw.jwks_uri)?)).await?;
        Ok((metadata, keys.usable()))
    }

    /// Sends a form to one of the issuer's endpoints and parses the answer.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        url: Url,
        authorization: Option<String>,
        form: String,
    ) -> Result<T, Failure> {
        let mut request = self.0.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        within_timeout(json(request)).await
    }
}

/// The HTTP client for documents of this issuer, or at this URL.
pub(crate) fn client(issuer: &Issuer) -> Result<reqwest::Client, ClientError> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::from_env()?)
        .user_agent(concat!("guard-tokens/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Resolver::new(&[issuer.url().clone()])))
        .redirect(Policy::none())
        .referer(false)
        // Requests are rare, and an idle connection may have died while the function was frozen.
        .pool_max_idle_per_host(0);
    Ok(if issuer.is_local() { builder.no_proxy() } else { builder.https_only(true) }.build()?)
}

pub(crate) async fn within_timeout<T>(request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(TIMEOUT, request).await.unwrap_or(Err(Failure::Timeout))
}

/// The JSON document that answers a request.
pub(crate) async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Failure> {
    let request = request.header("accept", "application/json");
    let mut response = request.send().await.map_err(|_| Failure::Unreachable)?;
    if response.status() != StatusCode::OK {
        return Err(Failure::Status(response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Failure::Unreachable)? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|_| Failure::Malformed)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::super::PlainHttp;
    use super::*;

    /// Whether the client of an issuer connects to this machine when it is given this host.
    async fn connects(issuer: &str, host: &str) -> bool {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let issuer = Issuer::parse(issuer, PlainHttp::Refused).unwrap();
        let provider = Provider::new(issuer, Clock::System).unwrap();
        let request = provider.0.http.get(format!("https://{host}:{port}/")).send();
        tokio::select! {
            _ = request => false,
            _ = listener.accept() => true,
        }
    }

    #[tokio::test]
    async fn name_that_resolves_to_this_machine_is_not_connected_to_unless_it_is_the_issuers() {
        assert!(!connects("https://id.example.com", "localhost").await);
        assert!(!connects("https://id.example.com", "localhost.").await);
        assert!(connects("https://localhost", "localhost").await);
    }

    #[tokio::test]
    async fn plain_http_is_not_sent_to_an_https_issuer() {
        let issuer = Issuer::parse("https://localhost", PlainHttp::Refused).unwrap();
        let provider = Provider::new(issuer, Clock::System).unwrap();
        let error = provider.0.http.get("http://localhost:1/").send().await.unwrap_err();
        assert!(error.is_builder(), "{error:?}");
    }
}
