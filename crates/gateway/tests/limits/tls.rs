//! TLS on the data plane: both protocols, certificates that change, and peers that never shake hands.

use std::fs;
use std::sync::Arc;

use magicapi_testkit::Gateway;
use magicapi_testkit::configuration::configuration;
use magicapi_testkit::http::Raw;
use magicapi_testkit::wire::until;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::scene::{Scene, mock, options};

/// An authority of one's own.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate with its key, as PEM files hold them.
struct Leaf {
    certificate: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a certificate").der().clone();
        Self { issuer: rcgen::Issuer::new(parameters, key), certificate }
    }

    fn leaf(&self) -> Leaf {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let parameters = rcgen::CertificateParams::new(names).expect("parameters");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf { certificate: certificate.der().clone(), pem: certificate.pem(), key: key.serialize_pem() }
    }

    /// Connects as a client that trusts this authority alone and offers these protocols.
    async fn connect(&self, gateway: &Gateway, alpn: &[&str]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let socket = TcpStream::connect(gateway.socket()).await.expect("a listener");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake")
    }
}

fn peer(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

/// A gateway that speaks TLS with the leaf's files, `server.pem` and `server.key` below its directory.
async fn with_tls(leaf: &Leaf, changes: Value) -> Scene {
    let mock = mock().await;
    let mut config = configuration(&mock.base_url(), changes);
    config["server"]["tls"] = json!({ "cert": "server.pem", "key": "server.key" });
    let options = options(&config, &[]);
    let (_, directory) = options.command();
    fs::write(directory.path().join("server.pem"), &leaf.pem).expect("a file");
    fs::write(directory.path().join("server.key"), &leaf.key).expect("a file");
    Scene { mock, gateway: Gateway::start(options.data_dir(&directory)).await }
}

async fn health(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("a peer");
    let mut seen = Vec::new();
    while !seen.ends_with(b"}") {
        assert!(stream.read_buf(&mut seen).await.expect("an answer") > 0);
    }
    String::from_utf8(seen).expect("text")
}

#[tokio::test]
async fn tls_speaks_http1_and_http2() {
    let authority = Authority::new();
    let scene = with_tls(&authority.leaf(), json!({})).await;
    assert!(scene.gateway.address.starts_with("https://"));
    for alpn in [&["http/1.1"][..], &[]] {
        let mut stream = authority.connect(&scene.gateway, alpn).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), alpn.first().map(|name| name.as_bytes()));
        assert!(health(&mut stream).await.starts_with("HTTP/1.1 200 "));
    }
    let stream = authority.connect(&scene.gateway, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/health").body(()).expect("a request");
    let (answer, _) = sender.send_request(request, true).expect("a stream");
    assert_eq!(answer.await.expect("an answer").status(), 200);
}

/// A renewed certificate is served to new connections; those that are there keep theirs; a broken one changes nothing.
#[tokio::test]
async fn certificates_are_reread_when_they_change() {
    let authority = Authority::new();
    let (first, second) = (authority.leaf(), authority.leaf());
    let scene = with_tls(&first, json!({})).await;
    let mut old = authority.connect(&scene.gateway, &[]).await;
    assert_eq!(peer(&old), first.certificate);
    assert!(health(&mut old).await.contains("healthy"));

    fs::write(scene.gateway.path("server.pem"), "-----BEGIN NONSENSE-----\n").expect("a file");
    scene.gateway.wait_for_log(|line| line.to_string().contains("server.pem")).await;
    assert_eq!(peer(&authority.connect(&scene.gateway, &[]).await), first.certificate);

    fs::write(scene.gateway.path("server.key"), &second.key).expect("a file");
    fs::write(scene.gateway.path("server.pem"), &second.pem).expect("a file");
    until("the new certificate", async || {
        (peer(&authority.connect(&scene.gateway, &[]).await) == second.certificate).then_some(())
    })
    .await;
    assert!(health(&mut old).await.contains("healthy"), "the old connection goes on");
}

#[tokio::test]
async fn a_peer_that_never_shakes_hands_is_closed() {
    let limits = json!({ "server": { "limits": { "header_read": "500ms" } } });
    let scene = with_tls(&Authority::new().leaf(), limits).await;
    let mut silent = Raw::connect(&scene.gateway.address.replace("https", "http")).await;
    assert!(silent.read_to_end().await.expect("a proper end").is_empty());
    let mut plain = Raw::connect(&scene.gateway.address.replace("https", "http")).await;
    plain.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a peer");
    let answer = plain.read_to_end().await.unwrap_or_default();
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"), "{answer:?}");
}
