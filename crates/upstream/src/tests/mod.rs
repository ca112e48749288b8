//! Tests over real sockets on loopback: scripted servers written byte by byte for HTTP/1.1, the `h2` crate's server
//! for HTTP/2.

mod aborts;
mod admitted;
mod closing;
mod errors;
mod exporters;
mod http1;
mod http2;
mod proxies;
mod stub;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use magicapi_model::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Client, ClientOptions, ClientStats, RequestBody, ResponseBody};

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that runs `serve` for each connection.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) accepted: Arc<AtomicUsize>,
}

impl Server {
    pub(super) async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let address = listener.local_addr().expect("address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("nodelay");
                tokio::spawn(serve(stream, count.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self { address, accepted }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Reads one HTTP/1.1 request with its content-length body; `None` at the connection's end.
pub(super) async fn read_request<S: AsyncRead + Unpin>(io: &mut S) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("ASCII");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().expect("length")];
    io.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

/// Answers every request of a connection.
pub(super) async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(mut io: S, answer: &[u8]) {
    while read_request(&mut io).await.is_some() {
        if io.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Reads until the peer closes; how it closed does not matter.
pub(super) async fn until_closed<S: AsyncRead + Unpin>(io: &mut S) {
    let mut buffer = [0; 4096];
    while matches!(io.read(&mut buffer).await, Ok(read) if read > 0) {}
}

pub(super) fn client(options: ClientOptions) -> Client {
    Client::new(options).expect("client")
}

pub(super) fn get(url: &str) -> Request<RequestBody> {
    Request::get(url).body(RequestBody::empty()).expect("request")
}

pub(super) fn post(url: &str, body: &'static str) -> Request<RequestBody> {
    Request::post(url).body(RequestBody::Full(Bytes::from_static(body.as_bytes()))).expect("request")
}

pub(super) async fn text(response: Response<ResponseBody>) -> Result<String, Error> {
    let whole = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(whole.to_vec()).expect("UTF-8"))
}

/// Waits until the client's state is as asked; names the state when it does not come.
pub(super) async fn eventually(client: &Client, within: Duration, is: impl Fn(&ClientStats) -> bool) {
    let start = Instant::now();
    while !is(&client.stats()) {
        assert!(start.elapsed() < within, "after {within:?}: {:?}", client.stats());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A CA and what a server with a certificate of it needs.
pub(super) struct Authority {
    pub(super) pem: Vec<u8>,
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: Vec<u8>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let ca_key = rcgen::KeyPair::generate().expect("key");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&ca_key).expect("CA").pem().into_bytes();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().expect("key");
        let names = ["localhost", "127.0.0.1", "api.example.invalid"].map(str::to_owned);
        let leaf = rcgen::CertificateParams::new(names).expect("parameters");
        let certificate = leaf.signed_by(&key, &issuer).expect("certificate").der().clone();
        Self { pem, certificate, key: key.serialize_der(), issuer }
    }

    /// A client's certificate of this CA.
    pub(super) fn identity(&self) -> crate::Identity {
        let key = rcgen::KeyPair::generate().expect("key");
        let leaf = rcgen::CertificateParams::new(["gateway".to_owned()]).expect("parameters");
        let cert_pem = leaf.signed_by(&key, &self.issuer).expect("certificate").pem().into_bytes();
        crate::Identity { cert_pem, key_pem: key.serialize_pem().into_bytes() }
    }

    /// A server that asks nobody who they are.
    pub(super) fn acceptor(&self, alpn: &[&str]) -> tokio_rustls::TlsAcceptor {
        self.accepting(alpn, None)
    }

    /// A server that takes only clients with a certificate of this CA.
    pub(super) fn strict_acceptor(&self) -> tokio_rustls::TlsAcceptor {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&self.pem).expect("CA")).expect("CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        self.accepting(&["http/1.1"], Some(verifier.build().expect("a verifier")))
    }

    fn accepting(
        &self,
        alpn: &[&str],
        verifier: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>,
    ) -> tokio_rustls::TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(self.key.clone()).into();
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(vec![self.certificate.clone()], key).expect("certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }

    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions { extra_ca_pem: vec![self.pem.clone()], ..ClientOptions::default() }
    }
}
