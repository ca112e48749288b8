//! Through proxies: absolute form for `http://`, CONNECT for `https://`. The targets have names that only the proxy
//! could resolve, so nothing but the proxy is contacted.

use magicapi_model::ErrorKind;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Authority, OK, Server, answer_all, client, get, read_request, text};
use crate::{ClientOptions, ProxySettings};

#[tokio::test]
async fn absolute_form() {
    let (seen, mut saw) = mpsc::unbounded_channel();
    let proxy = Server::start(move |mut io, _| {
        let seen = seen.clone();
        async move {
            while let Some((head, _)) = read_request(&mut io).await {
                seen.send(head).expect("seen");
                io.write_all(OK).await.expect("written");
            }
        }
    })
    .await;
    let settings = ProxySettings {
        http: Some(format!("http://us:er@{}", proxy.address).parse().expect("uri")),
        no_proxy: vec!["invalid.direct".into()],
        ..ProxySettings::default()
    };
    let client = client(ClientOptions { proxy: settings, ..ClientOptions::default() });
    for _ in 0..2 {
        let response = client.dispatch(get("http://api.example.invalid/v1?a=b")).await.expect("answer");
        assert_eq!(text(response).await.expect("body"), "ok");
        let head = saw.recv().await.expect("request");
        assert!(head.starts_with("GET http://api.example.invalid/v1?a=b HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: api.example.invalid\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: Basic dXM6ZXI=\r\n"), "{head}");
    }
    assert_eq!(proxy.accepted(), 1);
    // A label of over 63 bytes: refused before any name server is asked.
    let direct = format!("http://{}.invalid.direct/", "a".repeat(64));
    let error = client.dispatch(get(&direct)).await.expect_err("no such name");
    assert_eq!(error.kind, ErrorKind::DnsFailed, "{error}");
}

/// Answers CONNECT with `answer`; a 200 is followed by a tunnel to `inner`.
async fn connect_proxy(
    answer: &'static str,
    inner: std::net::SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
) -> (Server, mpsc::UnboundedReceiver<String>) {
    let (seen, saw) = mpsc::unbounded_channel();
    let proxy = Server::start(move |io, _| {
        let (seen, tls) = (seen.clone(), tls.clone());
        async move {
            match tls {
                Some(tls) => tunnel(tls.accept(io).await.expect("TLS"), answer, inner, seen).await,
                None => tunnel(io, answer, inner, seen).await,
            }
        }
    })
    .await;
    (proxy, saw)
}

async fn tunnel<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut io: S,
    answer: &str,
    inner: std::net::SocketAddr,
    seen: mpsc::UnboundedSender<String>,
) {
    let Some((head, _)) = read_request(&mut io).await else { return };
    seen.send(head).expect("seen");
    let head = format!("HTTP/1.1 {answer}\r\nproxy-agent: test\r\n\r\n");
    io.write_all(head.as_bytes()).await.expect("written");
    if answer.starts_with("200") {
        let mut target = TcpStream::connect(inner).await.expect("target");
        let _ = copy_bidirectional(&mut io, &mut target).await;
    }
}

#[tokio::test]
async fn tunnels_over_tcp_and_tls() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&["http/1.1"]);
    let target = Server::start(move |io, _| {
        let acceptor = acceptor.clone();
        async move { answer_all(acceptor.accept(io).await.expect("TLS"), OK).await }
    })
    .await;
    for scheme in ["http", "https"] {
        let tls = (scheme == "https").then(|| authority.acceptor(&["http/1.1"]));
        let (proxy, mut saw) = connect_proxy("200 Connection established", target.address, tls).await;
        let uri = format!("{scheme}://us:er@{}", proxy.address).parse().expect("uri");
        let settings = ProxySettings { https: Some(uri), ..ProxySettings::default() };
        let client = client(ClientOptions { proxy: settings, ..authority.options() });
        for _ in 0..2 {
            let response = client.dispatch(get("https://api.example.invalid/")).await.expect("answer");
            assert_eq!(text(response).await.expect("body"), "ok");
        }
        assert_eq!(client.stats().connections_opened_total, 1);
        let head = saw.recv().await.expect("CONNECT");
        assert!(head.starts_with("CONNECT api.example.invalid:443 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: Basic dXM6ZXI=\r\n"), "{head}");
    }
}

#[tokio::test]
async fn refusals_name_the_proxy_and_never_its_password() {
    for (answer, word) in [("407 Proxy Authentication Required", "407"), ("403 Forbidden", "403")] {
        let nowhere = "127.0.0.1:1".parse().expect("address");
        let (proxy, _saw) = connect_proxy(answer, nowhere, None).await;
        let uri = format!("http://us:secret@{}", proxy.address).parse().expect("uri");
        let settings = ProxySettings { https: Some(uri), ..ProxySettings::default() };
        let client = client(ClientOptions { proxy: settings, ..ClientOptions::default() });
        let error =
            client.dispatch(get("https://api.example.invalid/?key=secret")).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::ConnectFailed, "{error}");
        assert!(
            error.message.contains(&proxy.address.to_string()) && error.message.contains(word),
            "{error}"
        );
        assert!(!error.message.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn loopback_is_reached_directly() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let dead: Option<http::Uri> = Some("http://127.0.0.1:1".parse().expect("uri"));
    let settings = ProxySettings { http: dead.clone(), https: dead, ..ProxySettings::default() };
    let client = client(ClientOptions { proxy: settings, ..ClientOptions::default() });
    let response = client.dispatch(get(&server.url("/"))).await.expect("answer");
    assert_eq!(text(response).await.expect("body"), "ok");
}
