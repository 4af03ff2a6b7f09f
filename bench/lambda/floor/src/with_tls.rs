//! The same with a TLS connection, opened in init as every function does: floor-with-tls HOST:PORT CERTIFICATES

use std::net::TcpStream;
use std::sync::Arc;

use lambda_http::{Error, Request, Response, service_fn};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (address, trusted) = arguments.next().zip(arguments.next()).ok_or("an address and certificates are needed")?;
    let _connection = connect(&address, &trusted)?;
    lambda_http::run(service_fn(async |_: Request| Ok::<_, Error>(Response::new(String::new())))).await
}

/// A TLS connection with the handshake done, trusting the certificates of this file.
fn connect(address: &str, trusted: &str) -> Result<(ClientConnection, TcpStream), Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&std::fs::read(trusted)?) {
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
