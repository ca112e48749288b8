//! The exporters' face: whole answers, its limits, its three errors.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use magicapi_plugin::{Http, HttpError};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::{OK, Server, answer_all, client, read_request, until_closed};
use crate::ClientOptions;
use crate::exporter::Exporter;

fn request(url: &str) -> Request<Bytes> {
    Request::post(url).body(Bytes::from_static(b"{}")).expect("request")
}

#[tokio::test]
async fn whole_answers() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let http = client(ClientOptions::default()).http();
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
    let http = client(ClientOptions::default()).http();
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
