//! TLS of the mock: a certificate chain and key in PEM, HTTP/2 and HTTP/1.1 by ALPN.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Certificate and key of a mock that speaks TLS.
#[derive(Debug, Clone)]
pub struct MockTls {
    /// Certificate chain, PEM, own certificate first.
    pub cert_pem: Vec<u8>,
    /// Private key, PEM.
    pub key_pem: Vec<u8>,
}

impl MockTls {
    pub(crate) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let chain = CertificateDer::pem_slice_iter(&self.cert_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|err| invalid(&err))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem).map_err(|err| invalid(&err))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|err| invalid(&err))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|err| invalid(&err))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn invalid(err: &dyn std::error::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("mock TLS: {err}"))
}
