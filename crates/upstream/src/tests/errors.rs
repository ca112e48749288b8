//! Every way in which a connection can fail, by kind, and what the message says.

use std::time::{Duration, Instant};

use magicapi_model::{Error, ErrorKind, Origin, Retry};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::{Authority, OK, Server, answer_all, client, get, read_request, text, until_closed};
use crate::{Client, ClientOptions, Http2Choice};

async fn failure(client: &Client, url: &str) -> Error {
    client.dispatch(get(url)).await.expect_err("a failure")
}

fn assert_safe(error: &Error, kind: ErrorKind, place: &str) {
    assert_eq!((error.kind, error.retry, error.origin), (kind, Retry::Safe, Origin::Provider), "{error}");
    assert!(error.message.contains(place), "{error}");
    assert!(!error.message.contains("secret"), "{error}");
}

#[tokio::test]
async fn refused() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("listener").local_addr().expect("address");
    let client = client(ClientOptions::default());
    let error = failure(&client, &format!("http://u:secret@{free}/p?key=secret")).await;
    assert_safe(&error, ErrorKind::ConnectFailed, &free.to_string());
    assert!(error.message.contains("nothing listens"), "{error}");
}

#[tokio::test]
async fn no_such_name() {
    let client = client(ClientOptions { connect_timeout: Duration::from_mins(1), ..Default::default() });
    // A label of over 63 bytes: refused before any name server is asked.
    let name = format!("{}.invalid:81", "a".repeat(64));
    let error = failure(&client, &format!("http://{name}/?key=secret")).await;
    assert_safe(&error, ErrorKind::DnsFailed, &name);
}

#[tokio::test]
async fn a_certificate_of_nobody() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&["http/1.1"]);
    let server = Server::start(move |io, _| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(io) = acceptor.accept(io).await {
                answer_all(io, OK).await;
            }
        }
    })
    .await;
    let url = format!("https://{}/", server.address);
    let error = failure(&client(ClientOptions::default()), &url).await;
    assert_safe(&error, ErrorKind::TlsFailed, &server.address.to_string());
    assert!(error.message.contains("upstream.tls.ca_file"), "{error}");

    let trusting = client(authority.options());
    assert_eq!(text(trusting.dispatch(get(&url)).await.expect("answer")).await.expect("body"), "ok");
    let by_name = format!("https://localhost:{}/", server.address.port());
    assert_eq!(text(trusting.dispatch(get(&by_name)).await.expect("answer")).await.expect("body"), "ok");
}

#[tokio::test]
async fn plaintext_where_tls_is_expected() {
    let server = Server::start(|mut io, _| async move {
        let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        until_closed(&mut io).await;
    })
    .await;
    let error = failure(&client(ClientOptions::default()), &format!("https://{}/", server.address)).await;
    assert_safe(&error, ErrorKind::TlsFailed, &server.address.to_string());
    assert!(error.message.contains("http://"), "{error}");
}

#[tokio::test]
async fn a_handshake_that_never_ends() {
    let server = Server::start(|mut io, _| async move { until_closed(&mut io).await }).await;
    for http2 in [Http2Choice::Auto, Http2Choice::Never] {
        let options =
            ClientOptions { connect_timeout: Duration::from_millis(150), http2, ..Default::default() };
        let client = client(options);
        let start = Instant::now();
        let url = format!("https://{}/", server.address);
        // Several at once: with HTTP/2 possible they wait for one connection, and no longer than it.
        let errors = futures_util::future::join_all((0..5).map(|_| failure(&client, &url))).await;
        assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
        for error in errors {
            assert_safe(&error, ErrorKind::ConnectTimeout, &server.address.to_string());
            assert!(error.message.contains("150ms") && error.message.contains("in TLS with"), "{error}");
        }
        assert_eq!(client.stats().connections_open, 0);
    }
}

#[tokio::test]
async fn localhost_is_tried_on_both_families() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    // Nothing listens on [::1] at this port, whichever family the hosts file names first.
    let url = format!("http://localhost:{}/", server.address.port());
    let start = Instant::now();
    let response = client(ClientOptions::default()).dispatch(get(&url)).await.expect("answer");
    assert_eq!(text(response).await.expect("body"), "ok");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn answers_that_are_not_http() {
    for (answer, kind) in [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".as_slice(), ErrorKind::ProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", ErrorKind::ProtocolError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", ErrorKind::ProtocolError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", ErrorKind::ConnectionClosed),
        (b"", ErrorKind::ConnectionClosed),
    ] {
        let server = Server::start(move |mut io, _| async move {
            read_request(&mut io).await;
            let _ = io.write_all(answer).await;
        })
        .await;
        let error = match client(ClientOptions::default()).dispatch(get(&server.url("/"))).await {
            Ok(response) => text(response).await.expect_err("broken"),
            Err(error) => error,
        };
        assert_eq!((error.kind, error.retry), (kind, Retry::Later), "{error}");
        assert!(error.message.contains(&server.address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_told_its_bound() {
    for head in ["x-a: b\r\n".repeat(101), format!("x-a: {}\r\n", "b".repeat(256 << 10))] {
        let server = Server::start(move |mut io, _| {
            let answer = format!("HTTP/1.1 200 OK\r\n{head}content-length: 0\r\n\r\n");
            async move {
                read_request(&mut io).await;
                let _ = io.write_all(answer.as_bytes()).await;
                until_closed(&mut io).await;
            }
        })
        .await;
        let error = failure(&client(ClientOptions::default()), &server.url("/")).await;
        assert_eq!((error.kind, error.retry), (ErrorKind::ProtocolError, Retry::Later), "{error}");
        assert!(error.message.contains("more than 100 headers or more than 64 KiB"), "{error}");
    }
}

#[test]
fn ca_files_that_cannot_be_read_are_named() {
    let good = Authority::new().pem;
    for (bad, word) in [
        (b"".as_slice(), "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not usable"),
    ] {
        let options =
            ClientOptions { extra_ca_pem: vec![good.clone(), bad.to_vec()], ..ClientOptions::default() };
        let error = Client::new(options).err().expect("refused").to_string();
        assert!(error.contains("CA file 2") && error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn addresses_that_are_none() {
    let client = client(ClientOptions::default());
    for url in ["/relative", "ftp://x/", "http://:80/"] {
        let Ok(uri) = url.parse::<http::Uri>() else { continue };
        let mut request = get("http://x/");
        *request.uri_mut() = uri;
        let error = client.dispatch(request).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Internal, "{error}");
    }
}
