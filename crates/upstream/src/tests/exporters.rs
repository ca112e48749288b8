//! The exporters' face: whole answers, its limits, its three errors.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use magicapi_plugin::{Http, HttpError, Trailers};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Authority, OK, Server, answer_all, client, read_request, until_closed};
use crate::exporter::Exporter;
use crate::{ClientOptions, ExporterOptions, Identity, check_identity, exporter_http};

fn request(url: &str) -> Request<Bytes> {
    Request::post(url).body(Bytes::from_static(b"{}")).expect("request")
}

fn options(client: ClientOptions) -> ExporterOptions {
    ExporterOptions { client, header: None, timeout: Duration::from_mins(1) }
}

fn http(client: ClientOptions) -> Http {
    exporter_http(options(client)).expect("a client")
}

#[tokio::test]
async fn whole_answers() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let http = http(ClientOptions::default());
    for _ in 0..3 {
        let response = http.send(request(&server.url("/_bulk"))).await.expect("answer");
        assert_eq!((response.status().as_u16(), response.body().as_ref()), (200, b"ok".as_slice()));
    }
    assert_eq!(server.accepted(), 1);
}

/// The back end may have taken it: whoever sends it again has to count that.
#[tokio::test]
async fn a_request_that_a_reused_connection_swallowed_is_not_sent_again_unasked() {
    let server = Server::start(|mut io, _| async move {
        read_request(&mut io).await;
        io.write_all(OK).await.expect("an answer");
        read_request(&mut io).await;
    })
    .await;
    let http = http(ClientOptions::default());
    http.send(request(&server.url("/"))).await.expect("answer");
    let error = http.send(request(&server.url("/"))).await.expect_err("no answer");
    assert!(matches!(error, HttpError::NoAnswer(_)), "{error}");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn limits_and_errors() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let silent = Server::start(|mut io, _| async move {
        read_request(&mut io).await;
        until_closed(&mut io).await;
    })
    .await;
    let client = client(ClientOptions::default());
    let http = Http::new(Arc::new(Exporter::bounded(client.clone(), Duration::from_millis(100), 1)));
    let error = http.send(request(&server.url("/"))).await.expect_err("too large");
    assert!(matches!(error, HttpError::TooLarge(_)), "{error}");
    let error = http.send(request(&silent.url("/"))).await.expect_err("no answer");
    assert!(matches!(error, HttpError::NoAnswer(_)), "{error}");
    let free = TcpListener::bind("127.0.0.1:0").await.expect("listener").local_addr().expect("address");
    let error = http.send(request(&format!("http://{free}/"))).await.expect_err("refused");
    assert!(matches!(error, HttpError::Connect(_)), "{error}");
    super::eventually(&client, Duration::from_secs(1), |stats| {
        // The one whose answer was too large had been read whole.
        stats.connections_open == stats.idle && stats.streams_in_flight == 0
    })
    .await;
}

/// As a gRPC server does: a message, then its status in trailers.
async fn grpc<S: AsyncRead + AsyncWrite + Unpin>(io: S) {
    super::http2::serve(io, 10, |request, mut respond| {
        let te = request.headers().get("te").cloned();
        let mut stream = respond.send_response(Response::new(()), false).expect("head");
        stream.send_data(Bytes::from_static(b"message"), false).expect("data");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("seen-te", te.unwrap_or(HeaderValue::from_static("none")));
        stream.send_trailers(trailers).expect("trailers");
        std::future::ready(())
    })
    .await;
}

#[tokio::test]
async fn requests_of_version_2_go_over_http_2_and_give_trailers() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&["h2"]);
    let secure = Server::start(move |io, _| {
        let acceptor = acceptor.clone();
        async move { grpc(acceptor.accept(io).await.expect("TLS")).await }
    })
    .await;
    let plain = Server::start(|io, _| grpc(io)).await;
    let http = http(authority.options());
    for url in [plain.url("/x"), format!("https://{}/x", secure.address)] {
        let mut asked = request(&url);
        *asked.version_mut() = http::Version::HTTP_2;
        asked.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let answer = http.send(asked).await.expect("an answer");
        assert_eq!(answer.body().as_ref(), b"message");
        let Trailers(trailers) = answer.extensions().get().expect("trailers");
        assert_eq!(
            (&trailers["grpc-status"], &trailers["seen-te"]),
            (&"0".parse().unwrap(), &"trailers".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn requests_of_version_2_fail_where_only_http_1_is_spoken() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&["http/1.1"]);
    let secure = Server::start(move |io, _| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(io) = acceptor.accept(io).await {
                answer_all(io, OK).await;
            }
        }
    })
    .await;
    let plain = Server::start(|io, _| answer_all(io, OK)).await;
    let http = http(authority.options());
    for url in [plain.url("/x"), format!("https://{}/x", secure.address)] {
        let mut asked = request(&url);
        *asked.version_mut() = http::Version::HTTP_2;
        let error = http.send(asked).await.expect_err("no HTTP/2 there");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}

#[tokio::test]
async fn a_header_of_every_request_gives_way_to_the_exporters_own() {
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut io, _| {
        let heads = heads.clone();
        async move {
            while let Some((head, _)) = read_request(&mut io).await {
                heads.send(head).expect("a listener");
                io.write_all(OK).await.expect("an answer");
            }
        }
    })
    .await;
    let header = (http::header::AUTHORIZATION, HeaderValue::from_static("Bearer ours"));
    let options = ExporterOptions { header: Some(header), ..options(ClientOptions::default()) };
    let http = exporter_http(options).expect("a client");
    http.send(request(&server.url("/"))).await.expect("answer");
    let mut own = request(&server.url("/"));
    own.headers_mut().insert("authorization", HeaderValue::from_static("Bearer own"));
    http.send(own).await.expect("answer");
    assert!(seen.recv().await.expect("a head").contains("authorization: Bearer ours"));
    let second = seen.recv().await.expect("a head");
    assert!(second.contains("authorization: Bearer own") && !second.contains("ours"), "{second}");
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_shown_the_certificate() {
    let authority = Authority::new();
    let acceptor = authority.strict_acceptor();
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
    let known = ClientOptions { identity: Some(authority.identity()), ..authority.options() };
    assert_eq!(http(known).send(request(&url)).await.expect("answer").status(), 200);
    for stranger in [None, Some(Authority::new().identity())] {
        let options = ClientOptions { identity: stranger, ..authority.options() };
        http(options).send(request(&url)).await.expect_err("not let in");
    }
}

#[tokio::test]
async fn a_server_name_stands_for_the_address() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&["http/1.1"]);
    let (names, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |io, _| {
        let (acceptor, names) = (acceptor.clone(), names.clone());
        async move {
            if let Ok(io) = acceptor.accept(io).await {
                names.send(io.get_ref().1.server_name().map(str::to_owned)).expect("a listener");
                answer_all(io, OK).await;
            }
        }
    })
    .await;
    let url = format!("https://{}/", server.address);
    let named = |name: &str| ClientOptions { server_name: Some(name.into()), ..authority.options() };
    http(named("api.example.invalid")).send(request(&url)).await.expect("answer");
    assert_eq!(seen.recv().await.expect("a handshake").as_deref(), Some("api.example.invalid"));
    let error = http(named("other.invalid")).send(request(&url)).await.expect_err("another's certificate");
    assert!(matches!(error, HttpError::Connect(_)), "{error}");
}

#[test]
fn a_bad_identity_is_named() {
    let good = Authority::new().identity();
    assert_eq!(check_identity(&good), Ok(()));
    let other = Authority::new().identity();
    for (identity, part) in [
        (Identity { cert_pem: b"x".to_vec(), ..good.clone() }, "BEGIN CERTIFICATE"),
        (Identity { key_pem: b"x".to_vec(), ..good.clone() }, "BEGIN PRIVATE KEY"),
        (Identity { key_pem: other.key_pem, ..good }, "certificate and its key"),
    ] {
        let problem = check_identity(&identity).expect_err("unusable");
        assert!(problem.contains(part), "{problem}");
    }
}
