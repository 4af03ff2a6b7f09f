//! TLS to upstream registries and OpenID issuers: which certificates are trusted.
//!
//! Mozilla's roots are compiled in, ready to use: nothing is read or parsed for them when a function
//! starts. AWS has roots of its own, in `aws`.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config;

/// PEM certificates that are trusted besides Mozilla's.
const OWN: &str = "CA_CERTIFICATES";

/// A file of PEM certificates that are trusted instead of Mozilla's, as for AWS.
const FILE: &str = "SSL_CERT_FILE";

/// Why there is no HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A setting does not hold certificates.
    #[error("{0} does not hold PEM certificates of certificate authorities")]
    Certificates(&'static str),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The client cannot be set up.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

/// TLS as the environment configures it, with the implementation that the AWS SDK brings along.
pub(crate) fn from_env() -> Result<ClientConfig, ClientError> {
    let file = config::optional(FILE).map(|path| std::fs::read(path).map_err(|_| ClientError::Certificates(FILE)));
    trusting(config::optional(OWN).as_deref(), file.transpose()?.as_deref())
}

/// TLS that trusts these PEM certificates and, unless there is a file, Mozilla's.
fn trusting(own: Option<&str>, file: Option<&[u8]>) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    match file {
        // Systems' bundles hold some that cannot be read.
        Some(file) => {
            let (added, _) = roots.add_parsable_certificates(in_pem(file, FILE)?);
            if added == 0 {
                return Err(ClientError::Certificates(FILE));
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    for certificate in own.map(|own| in_pem(own.as_bytes(), OWN)).transpose()?.unwrap_or_default() {
        roots.add(certificate).map_err(|_| ClientError::Certificates(OWN))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// The certificates in a PEM text, of which there must be one.
fn in_pem(text: &[u8], setting: &'static str) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    certificates.ok().filter(|found| !found.is_empty()).ok_or(ClientError::Certificates(setting))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = include_str!("amazon-roots.pem");

    #[test]
    fn own_certificates_are_added_and_a_file_replaces() {
        assert!(trusting(None, None).is_ok());
        assert!(trusting(Some(PEM), None).is_ok());
        assert!(trusting(None, Some(PEM.as_bytes())).is_ok());
        assert!(trusting(Some(PEM), Some(PEM.as_bytes())).is_ok());
        let broken = PEM.replace("MII", "MIJ");
        for text in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", broken.as_str()] {
            for refused in [trusting(Some(text), None), trusting(None, Some(text.as_bytes()))] {
                assert!(matches!(refused, Err(ClientError::Certificates(_))), "{text}");
            }
        }
    }
}
