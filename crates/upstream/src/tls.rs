//! TLS: which roots are trusted, which protocols are offered, the handshake's errors in words.

use std::sync::{Arc, OnceLock};

use magicapi_model::{Error, ErrorKind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fault::Fault;
use crate::options::{ClientOptions, Http2Choice, Identity};

/// The two ways in which the client speaks TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    /// To providers, with ALPN by choice.
    target: TlsConnector,
    /// To a proxy that is itself reached by TLS: CONNECT is HTTP/1.1 here.
    proxy: TlsConnector,
    /// Stands for the target's own name.
    server_name: Option<String>,
}

impl Tls {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Error> {
        let mut roots = system_roots().clone();
        for (index, pem) in options.extra_ca_pem.iter().enumerate() {
            add_ca(&mut roots, pem).map_err(|problem| {
                Error::gateway(ErrorKind::Internal, format!("CA file {}: {problem}", index + 1))
            })?;
        }
        let offer: &[&[u8]] = match options.http2 {
            Http2Choice::Auto => &[b"h2", b"http/1.1"],
            Http2Choice::Never => &[b"http/1.1"],
            Http2Choice::PriorKnowledge => &[b"h2"],
        };
        let target = config(roots.clone(), offer, options.identity.as_ref())?;
        // A proxy is not the one that the certificate is for.
        let proxy = config(roots, &[b"http/1.1"], None)?;
        let server_name = options.server_name.clone();
        Ok(Self { target: Arc::new(target).into(), proxy: Arc::new(proxy).into(), server_name })
    }

    /// The handshake with a provider; `place` is its `host:port` for messages.
    pub(crate) async fn to_target<S>(&self, host: &str, place: &str, io: S) -> Result<TlsStream<S>, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        handshake(&self.target, self.server_name.as_deref().unwrap_or(host), place, io).await
    }

    /// The handshake with a proxy.
    pub(crate) async fn to_proxy<S>(&self, host: &str, place: &str, io: S) -> Result<TlsStream<S>, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        handshake(&self.proxy, host, place, io).await
    }
}

async fn handshake<S>(tls: &TlsConnector, host: &str, place: &str, io: S) -> Result<TlsStream<S>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
        Fault::new(
            ErrorKind::TlsFailed,
            format!("{place}: the host is not a name or address that TLS can check"),
        )
    })?;
    tls.connect(name, io).await.map_err(|e| {
        let hint = match e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => {
                "if a corporate proxy or private CA signs it, set upstream.tls.ca_file"
            }
            Some(rustls::Error::InvalidMessage(_)) => "is the address http:// rather than https://?",
            _ => "the peer ended or refused the handshake",
        };
        Fault::new(ErrorKind::TlsFailed, format!("TLS with {place} failed: {e}; {hint}"))
    })
}

fn config(roots: RootCertStore, offer: &[&[u8]], identity: Option<&Identity>) -> Result<ClientConfig, Error> {
    // Given explicitly: other crates switch on a second provider, and then rustls's own choice panics.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |e: String| Error::gateway(ErrorKind::Internal, format!("TLS cannot be set up: {e}"));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(e.to_string()))?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = read_identity(identity).map_err(unusable)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| unusable(format!("the client certificate and its key: {e}")))?
        }
    };
    config.alpn_protocols = offer.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// The system's roots, read once per process: every exporter builds a client, and the file holds some 140 certificates.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        let (added, ignored) = roots.add_parsable_certificates(native.certs);
        if added == 0 {
            tracing::warn!(errors = ?native.errors, "no CA certificates on this system; the built-in ones are used");
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        } else if ignored > 0 {
            tracing::debug!(ignored, "CA certificates of the system that cannot be read are left out");
        }
        roots
    })
}

/// Whether a client can trust the certificates of this CA file; the error says what is wrong with them.
pub fn check_ca(pem: &[u8]) -> Result<(), String> {
    add_ca(&mut RootCertStore::empty(), pem)
}

/// Whether a client can show this certificate with this key; the error says what is wrong with them.
pub fn check_identity(identity: &Identity) -> Result<(), String> {
    config(RootCertStore::empty(), &[], Some(identity)).map(|_| ()).map_err(|error| error.message)
}

fn read_identity(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&identity.cert_pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the client certificate cannot be read: {e}"))?;
    if chain.is_empty() {
        return Err("the client certificate: no PEM block BEGIN CERTIFICATE".into());
    }
    let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)
        .map_err(|_| "the client certificate's key: expected a PEM block BEGIN PRIVATE KEY".to_owned())?;
    Ok((chain, key))
}

fn add_ca(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let bad = |what: String| format!("{what}; expected PEM blocks BEGIN CERTIFICATE");
    let mut found = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found += 1;
        let certificate = certificate.map_err(|e| bad(format!("certificate {found} cannot be read: {e}")))?;
        roots.add(certificate).map_err(|e| bad(format!("certificate {found} is not usable: {e}")))?;
    }
    if found == 0 {
        return Err(bad("holds no certificate".into()));
    }
    Ok(())
}
