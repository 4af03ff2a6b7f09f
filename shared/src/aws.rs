//! How AWS is reached: region, credentials and certificates.

use aws_config::ConfigLoader;
use aws_config::environment::credentials::EnvironmentVariableCredentialsProvider;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_sdk_dynamodb::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};

use crate::config;

/// The certificates of Amazon Trust Services, to which those of every AWS service lead; AWS publishes them at
/// `amazontrust.com/repository`. The first of them ends in 2037.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// What the environment says of AWS.
///
/// A function is told region and credentials by Lambda, and is started again and again: it looks for neither elsewhere.
/// And it trusts Amazon's certificates alone, unless it is told others: reading all those that its machine trusts takes
/// longer than all else of its start.
pub(crate) fn from_env() -> ConfigLoader {
    let loader = aws_config::from_env();
    if !config::is_function() {
        return loader;
    }
    let loader = loader
        .region(EnvironmentVariableRegionProvider::new())
        .credentials_provider(EnvironmentVariableCredentialsProvider::new());
    match amazons_http_client() {
        Some(http_client) if !config::names_certificates() => loader.http_client(http_client),
        _ => loader,
    }
}

/// The SDK's own HTTP client, but for what it trusts.
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

    /// As AWS publishes them.
    const FINGERPRINTS: [&str; 5] = [
        "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
        "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
        "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
        "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
        "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
    ];

    #[test]
    fn the_roots_are_amazons() {
        let text = std::str::from_utf8(AMAZON_ROOTS).unwrap();
        let certificates = text.split("-----BEGIN CERTIFICATE-----").skip(1).map(|rest| {
            let body: String = rest.split("-----END").next().unwrap().split_whitespace().collect();
            let hash = Sha256::digest(BASE64.decode(body).unwrap());
            hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        });
        assert_eq!(certificates.collect::<Vec<_>>(), FINGERPRINTS);
    }

    #[tokio::test]
    async fn a_client_can_be_made_of_them() {
        // Making it reads the certificates, and panics where it cannot.
        let loader = aws_config::from_env().region("us-east-1").http_client(amazons_http_client().unwrap());
        let _ = aws_sdk_dynamodb::Client::new(&loader.load().await);
    }
}
