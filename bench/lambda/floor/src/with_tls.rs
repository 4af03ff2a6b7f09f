//! The same with a TLS connection to DynamoDB, opened in init as every function does.

use std::net::TcpStream;
use std::sync::Arc;

use lambda_http::{Error, Request, Response, service_fn};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let _connection = connect(std::env::var("AWS_ENDPOINT_URL_DYNAMODB")?.trim_start_matches("https://"))?;
    lambda_http::run(service_fn(async |_: Request| Ok::<_, Error>(Response::new(String::new())))).await
}

/// A TLS connection to this host and port with the handshake done, trusting the certificates of `SSL_CERT_FILE`.
fn connect(address: &str) -> Result<(ClientConnection, TcpStream), Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&std::fs::read(std::env::var("SSL_CERT_FILE")?)?) {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
    let mut session = ClientConnection::new(Arc::new(config), host.try_into()?)?;
    let mut stream = TcpStream::connect(address)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok((session, stream))
}
