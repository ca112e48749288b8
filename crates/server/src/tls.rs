//! TLS of the data plane's listener; certificates are reread without a restart.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use magicapi_config::TlsFiles;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Accepts TLS with the certificate of now.
#[derive(Clone)]
pub struct TlsAcceptor {
    files: Arc<TlsFiles>,
    config: Arc<ArcSwap<ServerConfig>>,
}

impl TlsAcceptor {
    /// Reads certificate and key; the error names the file.
    pub fn new(files: &TlsFiles) -> io::Result<Self> {
        let config = read(files)?;
        Ok(Self { files: Arc::new(files.clone()), config: Arc::new(ArcSwap::new(config)) })
    }

    /// Reads the files again. On an error the old certificate stays.
    pub fn reread(&self) -> io::Result<()> {
        self.config.store(read(&self.files)?);
        Ok(())
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        tokio_rustls::TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }
}

fn read(files: &TlsFiles) -> io::Result<Arc<ServerConfig>> {
    let named = |path: &Path, what: &str, error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}: {error}", path.display()))
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|error| named(&files.cert, "no certificate chain in PEM form", &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| named(&files.key, "no private key in PEM form", &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|error| named(&files.cert, "certificate and key cannot be used together", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
