//! Back ends that repeat what they were sent, over HTTP/1, TLS and gRPC, and one that is away.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Response};
use magicapi_testkit::postgres::Postgres;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::places::{canary, secret};

/// All that back ends were sent.
type Heard = Arc<Mutex<Vec<u8>>>;

/// Gives each connection to `serve`.
async fn listen<F: Future<Output = Option<()>> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free address");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    address
}

/// An address at which nobody listens.
fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free address");
    listener.local_addr().expect("an address")
}

/// Answers with this status and with the head that it was sent: as back end and as proxy.
async fn repeat<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S, status: u16, heard: Heard) -> Option<()> {
    let mut received = Vec::new();
    while !received.windows(4).any(|four| four == b"\r\n\r\n") {
        (socket.read_buf(&mut received).await.ok()? > 0).then_some(())?;
    }
    heard.lock().expect("heard").extend_from_slice(&received);
    let said = String::from_utf8_lossy(&received).into_owned();
    let error = json!({ "error": { "type": said, "reason": said }, "message": said }).to_string();
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n", error.len());
    let answer = format!("{head}content-type: application/json\r\n\r\n{error}");
    socket.write_all(answer.as_bytes()).await.ok()
}

/// Refuses each call over gRPC, with its headers as the reason.
async fn repeat_over_grpc(socket: TcpStream, heard: Heard) -> Option<()> {
    let mut connection = h2::server::handshake(socket).await.ok()?;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let said: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        heard.lock().expect("heard").extend_from_slice(said.join("\n").as_bytes());
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/grpc".parse().ok()?);
        headers.insert("grpc-status", "16".parse().ok()?);
        headers.insert("grpc-message", said.join("; ").parse().ok()?);
        let mut answer = Response::new(());
        *answer.headers_mut() = headers;
        let _sent = respond.send_response(answer, true);
    }
    Some(())
}

/// A certificate that is its own authority, of the server and of its client, and where it stands.
struct Certificate {
    files: TempDir,
    key: String,
    acceptor: TlsAcceptor,
}

impl Certificate {
    fn new() -> Self {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let CertifiedKey { cert, signing_key } = made;
        let files = TempDir::new().expect("a directory");
        fs::write(files.path().join("cert.pem"), cert.pem()).expect("a file");
        fs::write(files.path().join("key.pem"), signing_key.serialize_pem()).expect("a file");
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![cert.der().clone()], key.into())
            .expect("a certificate");
        Self { files, key: signing_key.serialize_pem(), acceptor: Arc::new(config).into() }
    }
}

/// All that a gateway may speak to.
pub(crate) struct BackEnds {
    /// Repeats what it was sent, with 400.
    pub(crate) bad_request: SocketAddr,
    /// The same with 403.
    pub(crate) forbidden: SocketAddr,
    /// The same with 407, as a proxy.
    pub(crate) proxy: SocketAddr,
    /// The same to clients with a certificate.
    pub(crate) locked: SocketAddr,
    /// The same over gRPC.
    pub(crate) grpc: SocketAddr,
    /// Nobody.
    pub(crate) dead: SocketAddr,
    /// User and database in the real server.
    pub(crate) writer: &'static str,
    /// A real server, where the environment names one.
    pub(crate) postgres: Option<Postgres>,
    certificate: Certificate,
    heard: Heard,
}

impl BackEnds {
    /// All of them; the real server's user and database have this name, and the password that stands in the table.
    pub(crate) async fn start(writer: &'static str) -> Self {
        let heard = Heard::default();
        let repeating = async |status| {
            let heard = heard.clone();
            listen(move |socket| repeat(socket, status, heard.clone())).await
        };
        let certificate = Certificate::new();
        let (acceptor, its) = (certificate.acceptor.clone(), heard.clone());
        let locked = listen(move |socket| {
            let (acceptor, heard) = (acceptor.clone(), its.clone());
            async move { repeat(acceptor.accept(socket).await.ok()?, 403, heard).await }
        });
        let its = heard.clone();
        let grpc = listen(move |socket| repeat_over_grpc(socket, its.clone()));
        let postgres = Postgres::named().inspect(|server| {
            server.database(writer);
            server.sql("postgres", &format!("DROP ROLE IF EXISTS {writer}"));
            let password = secret("postgres, url");
            server.sql("postgres", &format!("CREATE ROLE {writer} LOGIN PASSWORD '{password}'"));
            server.sql(writer, &format!("GRANT CREATE ON SCHEMA public TO {writer}"));
        });
        Self {
            bad_request: repeating(400).await,
            forbidden: repeating(403).await,
            proxy: repeating(407).await,
            locked: locked.await,
            grpc: grpc.await,
            dead: nowhere(),
            writer,
            postgres,
            certificate,
            heard,
        }
    }

    /// Holds that each of these secrets came to a back end, so that it was there to be repeated.
    pub(crate) fn heard(&self, places: &[&str]) {
        let mut heard = canary(self.private_key());
        heard.look("what back ends were sent", &*self.heard.lock().expect("heard"));
        let names = heard.names();
        let missing: Vec<_> = places.iter().filter(|place| !names.contains(*place)).collect();
        assert!(missing.is_empty(), "not sent: {missing:?}");
    }

    /// A file of the certificate: `cert.pem` or `key.pem`.
    pub(crate) fn file(&self, name: &str) -> String {
        self.certificate.files.path().join(name).display().to_string()
    }

    /// A part of the private key, as it stands in its file.
    pub(crate) fn private_key(&self) -> &str {
        self.certificate.key.lines().nth(2).expect("a line of the key")
    }

    /// The address of the database, for a writer with this password: the real one or none.
    pub(crate) fn database(&self, password: &str) -> String {
        let writer = self.writer;
        match &self.postgres {
            Some(server) => server.url_as(writer, password, writer),
            None => format!("postgres://{writer}:{password}@{}/{writer}", self.dead),
        }
    }

    /// Every record there; `None` without a real server.
    pub(crate) fn table(&self) -> Option<String> {
        let server = self.postgres.as_ref()?;
        Some(server.sql(self.writer, "SELECT log_data FROM ai_gateway_logs"))
    }
}
