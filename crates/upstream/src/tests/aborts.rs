//! Ten thousand aborted exchanges: connections, streams and places return to where they were.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;

use super::http2::{prior_knowledge, serve};
use super::{Server, client, eventually, post, read_request, text, until_closed};
use crate::{Client, ClientOptions};

/// Aborts in turn before the head, before the first byte, midway; every fourth is read to its end.
async fn abort(client: &Client, url: &str, turn: usize) {
    let slow = format!("{url}slow");
    match turn % 4 {
        0 => {
            let request = client.dispatch(post(&slow, "{}"));
            let _ = tokio::time::timeout(Duration::from_micros(turn as u64 % 3000), request).await;
        }
        1 => drop(client.dispatch(post(&slow, "{}")).await.expect("answer")),
        2 => {
            let mut body = client.dispatch(post(&slow, "{}")).await.expect("answer").into_body();
            body.frame().await.expect("frame").expect("data");
        }
        _ => {
            let response = client.dispatch(post(&format!("{url}whole"), "{}")).await.expect("answer");
            assert_eq!(text(response).await.expect("body"), "ok");
        }
    }
}

async fn abort_many(client: &Client, url: &str, callers: usize) {
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (client, url) = (client.clone(), url.to_owned());
            tokio::spawn(async move {
                for turn in 0..10_000 / callers {
                    abort(&client, &url, caller + turn * 3).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("task");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_over_http1() {
    let server = Server::start(|mut io, _| async move {
        while let Some((head, _)) = read_request(&mut io).await {
            let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
            if io.write_all(start).await.is_err() {
                return;
            }
            if head.starts_with("POST /slow") {
                until_closed(&mut io).await;
                return;
            }
            if io.write_all(b"0\r\n\r\n").await.is_err() {
                return;
            }
        }
    })
    .await;
    let client = client(ClientOptions::default());
    abort_many(&client, &server.url("/"), 40).await;
    eventually(&client, Duration::from_secs(5), |stats| {
        stats.streams_in_flight == 0 && stats.connections_open == stats.idle && stats.idle <= 40
    })
    .await;
    println!("HTTP/1.1 after 10,000 aborts: {:?}", client.stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_over_http2() {
    let server = Server::start(|io, _| {
        serve(io, 100, |request, mut respond| async move {
            let whole = request.uri().path() == "/whole";
            let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
            let _ = stream.send_data(Bytes::from_static(b"ok"), whole);
            if !whole {
                let _ = futures_util::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            }
        })
    })
    .await;
    let client = client(prior_knowledge());
    abort_many(&client, &server.url("/"), 40).await;
    eventually(&client, Duration::from_secs(5), |stats| {
        stats.streams_in_flight == 0 && stats.connections_open == stats.idle && stats.idle <= 2
    })
    .await;
    println!("HTTP/2 after 10,000 aborts: {:?}", client.stats());
}
