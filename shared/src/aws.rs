//! AWS clients: region, credentials, timeouts and root certificates.

use std::time::Duration;

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

use crate::config;

/// The root certificates of Amazon Trust Services, as published at `amazontrust.com/repository`.
/// Every AWS service's certificate chains to one of them. The first expires in 2037.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

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
    let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(50));
    Client::new(&from_env().timeout_config(timeouts).retry_config(retries).load().await)
}

/// A DynamoDB client for an emulator at this URL. The timeout is long, because emulator and client
/// share one machine.
pub fn dynamodb_at(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(LOCAL_REGION))
        .credentials_provider(Credentials::new(LOCAL_CREDENTIAL, LOCAL_CREDENTIAL, None, None, "emulator"))
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build());
    Client::from_conf(config.build())
}

/// AWS configuration from the environment.
///
/// In a function, region and credentials come from Lambda's variables alone, and only Amazon's
/// certificates are trusted, unless `SSL_CERT_FILE` names others. Other sources would slow down its
/// cold start.
pub(crate) fn from_env() -> ConfigLoader {
    let loader = aws_config::from_env();
    let is_function = config::optional("AWS_LAMBDA_RUNTIME_API").is_some();
    if !is_function {
        return loader;
    }
    let loader = loader
        .region(EnvironmentVariableRegionProvider::new())
        .credentials_provider(EnvironmentVariableCredentialsProvider::new());
    match amazons_http_client() {
        Some(http_client) if config::optional("SSL_CERT_FILE").is_none() => loader.http_client(http_client),
        _ => loader,
    }
}

/// The SDK's HTTP client, trusting only Amazon's root certificates.
fn amazons_http_client() -> Option<SharedHttpClient> {
    let roots = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    let tls = TlsContext::builder().with_trust_store(roots).build().ok()?;
    Some(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        builder = builder.tls_context(tls.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        builder.set_proxy_config(Some(ProxyConfig::from_env()));
        builder.build()
    }))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use sha2::{Digest, Sha256};

    use super::*;

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
        assert!(amazons_http_client().is_some());
    }
}
