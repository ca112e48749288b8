//! How exporters reach their back ends: `tls`, `proxy` and `auth` of an entry, through the binary.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use magicapi_testkit::GatewayOptions;
use magicapi_testkit::configuration::{configuration, lay_over};
use magicapi_testkit::wire::until;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::scene::{BINARY, Scene, refusal};

/// The name that the back end's certificate bears.
const NAME: &str = "telemetry.example";

type Heads = Arc<Mutex<Vec<String>>>;

/// A private CA with a server that shows one of its certificates and takes only clients that show another.
struct Fortress {
    address: SocketAddr,
    heads: Heads,
    files: TempDir,
}

impl Fortress {
    async fn start() -> Self {
        let files = TempDir::new().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = ca.self_signed(&key).expect("a certificate");
        fs::write(files.path().join("ca.pem"), certificate.pem()).expect("a file");
        let issuer = Issuer::new(ca, key);
        let leaf = |names: &[&str]| {
            let key = KeyPair::generate().expect("a key");
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let leaf = CertificateParams::new(names).expect("parameters");
            (leaf.signed_by(&key, &issuer).expect("a certificate"), key)
        };
        let (client, client_key) = leaf(&["gateway"]);
        fs::write(files.path().join("client.pem"), client.pem()).expect("a file");
        fs::write(files.path().join("client.key"), client_key.serialize_pem()).expect("a file");
        let (server, server_key) = leaf(&[NAME, "localhost"]);
        let acceptor = acceptor(certificate.der(), server.der().clone(), &server_key);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free address");
        let address = listener.local_addr().expect("an address");
        let heads = Heads::default();
        let kept = heads.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, heads) = (acceptor.clone(), kept.clone());
                tokio::spawn(async move {
                    if let Ok(socket) = acceptor.accept(socket).await {
                        answer(socket, &heads).await;
                    }
                });
            }
        });
        Self { address, heads, files }
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    fn tls(&self) -> Value {
        json!({ "ca_file": self.file("ca.pem"), "cert": self.file("client.pem"), "key": self.file("client.key"),
            "server_name": NAME })
    }

    fn url(&self) -> String {
        format!("https://{}/in", self.address)
    }
}

fn acceptor(ca: &CertificateDer<'static>, server: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![server], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("a certificate");
    Arc::new(config).into()
}

/// Takes every request of a connection and keeps its head.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S, heads: &Heads) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        if let Some(target) = head.strip_prefix("CONNECT ") {
            let target = target.split(' ').next()?.to_owned();
            heads.lock().expect("heads").push(head.clone());
            socket.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.ok()?;
            // What the name stands for is the proxy's business: it leads to loopback.
            let port = target.rsplit(':').next()?;
            let mut far = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.ok()?;
            tokio::io::copy_bidirectional(&mut socket, &mut far).await.ok()?;
            return None;
        }
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        socket.read_exact(&mut body).await.ok()?;
        heads.lock().expect("heads").push(head);
        socket.write_all(b"HTTP/1.1 202 x\r\ncontent-length: 0\r\n\r\n").await.ok()?;
    }
}

/// A server without TLS, as back end or as proxy.
async fn plain() -> (SocketAddr, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free address");
    let address = listener.local_addr().expect("an address");
    let heads = Heads::default();
    let kept = heads.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let heads = kept.clone();
            tokio::spawn(async move { answer(socket, &heads).await });
        }
    });
    (address, heads)
}

/// A webhook there, with changes.
fn webhook(url: &str, changes: Value) -> Value {
    let mut entry = json!({ "type": "webhook", "url": url, "batch": { "age": "20ms" } });
    lay_over(&mut entry, changes);
    json!({ "telemetry": { "exporters": [entry] } })
}

async fn head_of(heads: &Heads) -> String {
    until("a request at the back end", async || heads.lock().expect("heads").pop()).await
}

/// What is wrong with the back end, once something is.
async fn last_error(scene: &Scene) -> String {
    until("an error", async || {
        let list = scene.admin("/api/v1/exporters").await.json();
        let exporter = &list["data"][0];
        (exporter["health"] == "down").then(|| exporter["health_reason"].as_str().map(str::to_owned))?
    })
    .await
}

#[tokio::test]
async fn telemetry_exporters_tls_trusts_shows_and_names() {
    let fortress = Fortress::start().await;
    let scene = Scene::start(webhook(&fortress.url(), json!({ "tls": fortress.tls() }))).await;
    scene.ask(&json!({}), &[]).await;
    assert!(head_of(&fortress.heads).await.starts_with("POST /in HTTP/1.1"));
    // Without any one of them nothing gets in.
    for missing in ["ca_file", "server_name", "cert"] {
        let mut tls = fortress.tls();
        let tls_keys = tls.as_object_mut().expect("keys");
        tls_keys.remove(missing);
        if missing == "cert" {
            tls_keys.remove("key");
        }
        let scene = Scene::start(webhook(&fortress.url(), json!({ "tls": tls }))).await;
        scene.ask(&json!({}), &[]).await;
        let error = last_error(&scene).await;
        assert!(!error.is_empty(), "{missing}");
        assert!(fortress.heads.lock().expect("heads").is_empty(), "{missing}: {error}");
    }
}

/// The variables of OpenTelemetry's specification, where nothing but variables configures the exporter.
#[tokio::test]
async fn otlp_has_its_tls_from_the_variables_of_the_specification() {
    let fortress = Fortress::start().await;
    let url = format!("https://localhost:{}", fortress.address.port());
    let files = ["ca.pem", "client.pem", "client.key"].map(|name| fortress.file(name));
    let mut variables = vec![
        ("ENABLED_EXPORTERS", "otlp"),
        ("ADMIN_TOKEN", "t"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &files[0]),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &files[1]),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &files[2]),
    ];
    let _scene = Scene::by_variables(&variables).await;
    assert!(head_of(&fortress.heads).await.starts_with("POST /v1/"));
    variables.pop();
    let output = GatewayOptions::new(BINARY).envs(&variables).arg("check").output();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE") && text.contains("`key`, which is missing"),
        "{text}"
    );
}

#[tokio::test]
async fn a_certificate_that_changes_is_read_again() {
    let fortress = Fortress::start().await;
    let pem = fs::read(fortress.file("ca.pem")).expect("a file");
    let other = Fortress::start().await;
    fs::copy(other.file("ca.pem"), fortress.file("ca.pem")).expect("a file");
    let scene = Scene::start(webhook(&fortress.url(), json!({ "tls": fortress.tls() }))).await;
    scene.ask(&json!({}), &[]).await;
    last_error(&scene).await;
    fs::write(fortress.file("ca.pem"), pem).expect("a file");
    assert!(head_of(&fortress.heads).await.starts_with("POST /in"));
}

#[tokio::test]
async fn telemetry_exporters_proxy_leads_there_or_past_it() {
    let fortress = Fortress::start().await;
    let (proxy, asked) = plain().await;
    // A name that only the proxy knows; loopback would be reached directly.
    let url = format!("https://{NAME}:{}/in", fortress.address.port());
    let changes = json!({ "tls": fortress.tls(), "proxy": format!("http://user:canary@{proxy}") });
    let scene = Scene::start(webhook(&url, changes)).await;
    scene.ask(&json!({}), &[]).await;
    assert!(head_of(&fortress.heads).await.starts_with("POST /in"));
    let connect = head_of(&asked).await;
    assert!(connect.starts_with(&format!("CONNECT {NAME}:")), "{connect}");
    assert!(connect.to_ascii_lowercase().contains("proxy-authorization: basic "), "{connect}");
    assert!(!scene.log().join("\n").contains("canary"));
    // `none` goes past the proxy that holds for everybody, and finds no such name.
    let mut past = webhook(&url, json!({ "tls": fortress.tls(), "proxy": "none" }));
    lay_over(&mut past, json!({ "upstream": { "proxy": format!("http://{proxy}") } }));
    let scene = Scene::start(past).await;
    scene.ask(&json!({}), &[]).await;
    let error = last_error(&scene).await;
    assert!(error.contains(NAME), "{error}");
    assert!(asked.lock().expect("heads").is_empty());
}

#[tokio::test]
async fn telemetry_exporters_auth_is_on_every_request() {
    for (auth, expected) in [
        (
            json!({ "basic": { "username": "ada", "password": "canary" } }),
            "authorization: Basic YWRhOmNhbmFyeQ==",
        ),
        (json!({ "bearer": "canary" }), "authorization: Bearer canary"),
        (json!({ "header": { "name": "X-Scope", "value": "canary" } }), "x-scope: canary"),
    ] {
        let (address, heads) = plain().await;
        let scene = Scene::start(webhook(&format!("http://{address}/in"), json!({ "auth": auth }))).await;
        scene.ask(&json!({}), &[]).await;
        let head = head_of(&heads).await;
        assert!(head.contains(expected), "{head}");
        assert!(!scene.log().join("\n").contains("canary"));
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let files = TempDir::new().expect("a directory");
    let bad = files.path().join("bad.pem");
    fs::write(&bad, "nothing").expect("a file");
    let path = |path: &Path| path.display().to_string();
    let webhook = |changes| webhook("https://127.0.0.1:1/in", changes);
    let with = |kind: Value, changes: Value| {
        let mut entry = kind;
        lay_over(&mut entry, changes);
        json!({ "telemetry": { "exporters": [entry] } })
    };
    for (config, key, part) in [
        (webhook(json!({ "tls": { "cert": path(&bad) } })), "tls.cert", "`key`, which is missing"),
        (webhook(json!({ "tls": { "ca_file": path(&bad) } })), "tls.ca_file", "BEGIN CERTIFICATE"),
        (webhook(json!({ "tls": { "ca_file": "/nowhere.pem" } })), "tls.ca_file", "cannot be read"),
        (
            webhook(json!({ "tls": { "cert": path(&bad), "key": path(&bad) } })),
            "tls.cert",
            "BEGIN CERTIFICATE",
        ),
        (webhook(json!({ "proxy": "socks5://proxy" })), "proxy", "`socks5`"),
        (webhook(json!({ "auth": {} })), "auth", "exactly one of"),
        (
            webhook(json!({ "auth": { "bearer": "a", "header": { "name": "x", "value": "y" } } })),
            "auth",
            "exactly one of",
        ),
        (
            webhook(json!({ "auth": { "header": { "name": "a b", "value": "y" } } })),
            "auth.header.name",
            "`a b`",
        ),
        (webhook(json!({ "auth": { "bearer": "two\nlines" } })), "auth.bearer", "on one line"),
        (
            with(json!({ "type": "console" }), json!({ "tls": { "server_name": "x" } })),
            "tls",
            "`console` does not send over HTTP",
        ),
        (
            with(json!({ "type": "exec", "command": ["x"] }), json!({ "auth": { "bearer": "x" } })),
            "auth",
            "`exec` does not send over HTTP",
        ),
        (
            with(json!({ "type": "file", "path": "x" }), json!({ "proxy": "none" })),
            "proxy",
            "`file` does not send over HTTP",
        ),
        (
            with(
                json!({ "type": "elasticsearch", "api_key": "canary" }),
                json!({ "auth": { "bearer": "x" } }),
            ),
            "auth",
            "two credentials",
        ),
    ] {
        let said = refusal(&configuration("http://127.0.0.1:1", config.clone()), &[]);
        assert!(said.contains(&format!("telemetry.exporters[0].{key}")), "{config}: {said}");
        assert!(said.contains(part) && !said.contains("canary"), "{config}: {said}");
    }
}
