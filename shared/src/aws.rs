//! AWS clients: region, credentials, timeouts, root certificates and connections.
//!
//! Lambda freezes a function between requests, and idle connections die meanwhile: reset, or
//! silently. No request may fail for it, however the frozen clock behaves: `Renewing`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::ConfigLoader;
use aws_config::environment::credentials::EnvironmentVariableCredentialsProvider;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;

use crate::config;

/// The root certificates of Amazon Trust Services, as published at `amazontrust.com/repository`.
/// Every AWS service's certificate chains to one of them. The first expires in 2037.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// How long a connection may be idle and still be used. Longer, and it may have died while the
/// function was frozen.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// An attempt that is given up earlier says nothing about connections: its caller has no more need of
/// it. Shorter than any timeout in this service.
const MIN_WAIT: Duration = Duration::from_millis(400);

/// Whether a client keeps connections between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connections {
    /// For [`IDLE_TIMEOUT`], for calls that the SDK may retry.
    Kept,
    /// Each call makes its own, since a retry could do harm.
    #[cfg_attr(not(any(feature = "mail", test)), expect(dead_code))]
    New,
}

/// The region for an emulator, which accepts any.
pub const LOCAL_REGION: &str = "us-east-1";
/// The access key and secret for an emulator, which accepts any.
pub const LOCAL_CREDENTIAL: &str = "local";

/// A DynamoDB client, configured by the environment. An attempt times out after 1.5 seconds and a
/// call with its retries after 6, so that a function answers within its own timeout of 10 seconds.
pub(crate) async fn dynamodb_from_env() -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_millis(1_500))
        .operation_timeout(Duration::from_secs(6))
        .build();
    Client::new(&from_env(Connections::Kept).timeout_config(timeouts).retry_config(retries()).load().await)
}

/// The retries of a call to DynamoDB: three.
fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(50))
}

/// A DynamoDB client for an emulator at this URL. The timeout is long, because emulator and client
/// share one machine.
pub fn dynamodb_at(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(LOCAL_REGION))
        .credentials_provider(Credentials::new(LOCAL_CREDENTIAL, LOCAL_CREDENTIAL, None, None, "emulator"))
        .retry_config(retries())
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build());
    Client::from_conf(config.build())
}

/// AWS configuration from the environment.
///
/// In a function, region and credentials come from Lambda's variables alone, and only Amazon's
/// certificates are trusted, unless `SSL_CERT_FILE` names others. Other sources would slow down its
/// cold start.
pub(crate) fn from_env(connections: Connections) -> ConfigLoader {
    let loader = aws_config::from_env();
    let is_function = config::optional("AWS_LAMBDA_RUNTIME_API").is_some();
    if !is_function {
        return loader;
    }
    let loader = loader
        .region(EnvironmentVariableRegionProvider::new())
        .credentials_provider(EnvironmentVariableCredentialsProvider::new());
    let roots = match config::optional("SSL_CERT_FILE") {
        None => TrustStore::empty().with_pem_certificate(AMAZON_ROOTS),
        Some(_) => TrustStore::default(),
    };
    match Renewing::new(roots, connections) {
        Some(http_client) => loader.http_client(http_client),
        None => loader,
    }
}

/// The SDK's HTTP client. After an attempt that failed or waited in vain it starts a new pool, so that
/// the next attempt never meets another connection that died with the first.
#[derive(Clone)]
struct Renewing {
    connect: Arc<dyn Fn() -> SharedHttpClient + Send + Sync>,
    current: Arc<Mutex<SharedHttpClient>>,
}

impl Renewing {
    /// A client that trusts these roots. `None` if they cannot be read.
    fn new(roots: TrustStore, connections: Connections) -> Option<Self> {
        let tls = TlsContext::builder().with_trust_store(roots).build().ok()?;
        let connect = move || {
            let tls = tls.clone();
            Builder::new().build_with_connector_fn(move |settings, components| {
                let builder = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
                let mut builder = match connections {
                    Connections::Kept => builder.pool_idle_timeout(IDLE_TIMEOUT),
                    Connections::New => builder.pool_max_idle_per_host(0),
                };
                builder = builder.tls_context(tls.clone());
                builder.set_connector_settings(settings.cloned());
                builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
                builder.set_proxy_config(Some(ProxyConfig::from_env()));
                builder.build()
            })
        };
        let current = Arc::new(Mutex::new(connect()));
        Some(Self { connect: Arc::new(connect), current })
    }

    fn current(&self) -> SharedHttpClient {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn renew(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (self.connect)();
    }
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").finish_non_exhaustive()
    }
}

impl HttpClient for Renewing {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let connector = self.current().http_connector(settings, components);
        SharedHttpConnector::new(Watched { connector, client: self.clone() })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.current().validate_base_client_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.current().connector_metadata()
    }
}

/// A connector that renews its client's pool after an attempt that failed or waited in vain.
#[derive(Debug)]
struct Watched {
    connector: SharedHttpConnector,
    client: Renewing,
}

impl HttpConnector for Watched {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let attempt = self.connector.call(request);
        let mut unanswered = Unanswered { client: Some(self.client.clone()), since: Instant::now() };
        HttpConnectorFuture::new(async move {
            let result = attempt.await;
            if let Some(client) = unanswered.client.take()
                && result.is_err()
            {
                client.renew();
            }
            result
        })
    }
}

/// Renews the pool when dropped, if the attempt has waited for a while. The SDK drops an attempt that
/// times out.
struct Unanswered {
    client: Option<Renewing>,
    since: Instant,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(client) = &self.client
            && self.since.elapsed() >= MIN_WAIT
        {
            client.renew();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use sha2::{Digest, Sha256};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::Clock;
    use crate::store::Store;

    /// The SHA-256 fingerprint of each certificate, as AWS publishes them.
    const FINGERPRINTS: [&str; 5] = [
        "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
        "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
        "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
        "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
        "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
    ];

    #[test]
    fn pinned_roots_match_the_published_fingerprints() {
        let text = std::str::from_utf8(AMAZON_ROOTS).unwrap();
        let certificates = text.split("-----BEGIN CERTIFICATE-----").skip(1).map(|rest| {
            let body: String = rest.split("-----END").next().unwrap().split_whitespace().collect();
            let hash = Sha256::digest(BASE64.decode(body).unwrap());
            hex::encode(hash)
        });
        assert_eq!(certificates.collect::<Vec<_>>(), FINGERPRINTS);
    }

    #[test]
    fn http_client_accepts_the_pinned_roots() {
        assert!(Renewing::new(TrustStore::empty().with_pem_certificate(AMAZON_ROOTS), Connections::Kept).is_some());
    }

    /// A DynamoDB that falls silent on all connections that were open when told to.
    struct Silent {
        address: SocketAddr,
        oldest_alive: Arc<AtomicUsize>,
        accepted: Arc<AtomicUsize>,
        unheard: Arc<AtomicUsize>,
    }

    impl Silent {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let [oldest_alive, accepted, unheard] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
            let server = Self {
                address,
                oldest_alive: oldest_alive.clone(),
                accepted: accepted.clone(),
                unheard: unheard.clone(),
            };
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let number = accepted.fetch_add(1, Ordering::SeqCst);
                    let (oldest_alive, unheard) = (oldest_alive.clone(), unheard.clone());
                    tokio::spawn(async move {
                        let mut request = [0; 65_536];
                        while stream.read(&mut request).await.unwrap_or(0) > 0 {
                            if number < oldest_alive.load(Ordering::SeqCst) {
                                unheard.fetch_add(1, Ordering::SeqCst);
                                continue;
                            }
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                            stream.write_all(answer).await.unwrap();
                        }
                    });
                }
            });
            server
        }

        fn fall_silent(&self) {
            self.oldest_alive.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
        }

        fn client(&self, connections: Connections) -> Client {
            let roots = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
            let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(3)).build();
            let config = dynamodb_at(&format!("http://{}", self.address)).config().to_builder();
            let config = config.timeout_config(timeouts).http_client(Renewing::new(roots, connections).unwrap());
            Client::from_conf(config.build())
        }
    }

    #[tokio::test]
    async fn first_retry_after_a_freeze_leaves_all_dead_connections_behind() {
        let server = Silent::start().await;
        let client = server.client(Connections::Kept);
        let list = || client.list_tables().send();
        futures::future::try_join3(list(), list(), list()).await.unwrap();
        list().await.unwrap();
        assert_eq!(server.accepted.load(Ordering::SeqCst), 3, "connections are reused");
        server.fall_silent();
        for _ in 0..3 {
            list().await.unwrap();
        }
        assert_eq!(server.unheard.load(Ordering::SeqCst), 1, "attempts on dead connections");
        assert_eq!(server.accepted.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn attempt_that_is_given_up_at_once_costs_no_connection_but_its_own() {
        let server = Silent::start().await;
        let client = server.client(Connections::Kept);
        let list = || client.list_tables().send();
        futures::future::try_join3(list(), list(), list()).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(10), list()).await.is_err(), "answered too early");
        futures::future::try_join(list(), list()).await.unwrap();
        assert_eq!(server.accepted.load(Ordering::SeqCst), 3, "connections are reused");
    }

    #[tokio::test]
    async fn attempt_that_waited_in_vain_leaves_all_dead_connections_behind() {
        let server = Silent::start().await;
        let client = server.client(Connections::Kept);
        let list = || client.list_tables().send();
        futures::future::try_join3(list(), list(), list()).await.unwrap();
        server.fall_silent();
        // Before the client's own timeout.
        assert!(tokio::time::timeout(Duration::from_millis(2_500), list()).await.is_err(), "answered");
        list().await.unwrap();
        assert_eq!(server.unheard.load(Ordering::SeqCst), 1, "attempts on dead connections");
    }

    #[tokio::test]
    async fn connection_opened_in_init_serves_the_first_request() {
        let server = Silent::start().await;
        let client = server.client(Connections::Kept);
        Store::new(client.clone(), "tokens", Clock::System).connect().await;
        assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
        client.list_tables().send().await.unwrap();
        assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn connection_that_died_before_the_first_request_is_left_behind() {
        let server = Silent::start().await;
        let client = server.client(Connections::Kept);
        Store::new(client.clone(), "tokens", Clock::System).connect().await;
        server.fall_silent();
        client.list_tables().send().await.unwrap();
        assert_eq!(server.unheard.load(Ordering::SeqCst), 1, "attempts on dead connections");
        assert_eq!(server.accepted.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn init_ends_without_a_connection_and_the_first_request_makes_its_own() {
        let server = Silent::start().await;
        server.oldest_alive.store(usize::MAX, Ordering::SeqCst);
        let client = server.client(Connections::Kept);
        let started = Instant::now();
        Store::new(client.clone(), "tokens", Clock::System).connect().await;
        assert!(started.elapsed() < Duration::from_secs(10), "init took {:?}", started.elapsed());
        assert!(server.unheard.load(Ordering::SeqCst) > 0);
        server.fall_silent();
        client.list_tables().send().await.unwrap();
    }

    #[tokio::test]
    async fn new_connections_are_never_idle() {
        let server = Silent::start().await;
        let client = server.client(Connections::New);
        for _ in 0..3 {
            client.list_tables().send().await.unwrap();
            server.fall_silent();
        }
        assert_eq!((server.accepted.load(Ordering::SeqCst), server.unheard.load(Ordering::SeqCst)), (3, 0));
    }
}
