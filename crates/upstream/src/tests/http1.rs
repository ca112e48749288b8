//! HTTP/1.1: reuse, idle limits, stale connections, replay, closing by dropping, request shape.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use magicapi_model::{Error, ErrorKind, Retry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{OK, Server, answer_all, client, eventually, get, post, read_request, text, until_closed};
use crate::{ClientOptions, RequestBody};

const SOON: Duration = Duration::from_millis(500);

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let server = Server::start(move |mut io, _| async move {
        for number in 0.. {
            if read_request(&mut io).await.is_none() {
                return;
            }
            let answer: &[u8] = match number % 3 {
                0 => OK,
                1 => chunked,
                _ => b"HTTP/1.1 204 No Content\r\n\r\n",
            };
            io.write_all(answer).await.expect("written");
        }
    })
    .await;
    let client = client(ClientOptions::default());
    for number in 0..300 {
        let response = client.dispatch(post(&server.url("/v1?a=b"), "{}")).await.expect("answer");
        let expected = if number % 3 == 2 { "" } else { "ok" };
        assert_eq!(text(response).await.expect("body"), expected);
    }
    assert_eq!(server.accepted(), 1);
    let stats = client.stats();
    assert_eq!((stats.connections_open, stats.connections_opened_total), (1, 1));
    assert_eq!((stats.streams_in_flight, stats.idle), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrency_bounds_the_connections() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let client = client(ClientOptions::default());
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (client, url) = (client.clone(), server.url("/"));
            tokio::spawn(async move {
                for _ in 0..200 {
                    let response = client.dispatch(post(&url, "{}")).await.expect("answer");
                    assert_eq!(text(response).await.expect("body"), "ok");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("task");
    }
    assert!(server.accepted() <= 32, "{} connections for 16 callers", server.accepted());
}

#[tokio::test]
async fn the_request_is_shaped_for_the_wire() {
    let (seen, mut saw) = mpsc::unbounded_channel();
    let server = Server::start(move |mut io, _| {
        let seen = seen.clone();
        async move {
            while let Some((head, body)) = read_request(&mut io).await {
                seen.send((head, body)).expect("seen");
                io.write_all(OK).await.expect("written");
            }
        }
    })
    .await;
    let client = client(ClientOptions::default());
    let mut request = post(&server.url("/v1/x?a=%2F"), "{}");
    request.headers_mut().insert("host", "elsewhere".parse().expect("value"));
    *request.version_mut() = http::Version::HTTP_2;
    text(client.dispatch(request).await.expect("answer")).await.expect("body");
    let (head, body) = saw.recv().await.expect("request");
    assert!(head.starts_with("POST /v1/x?a=%2F HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", server.address)), "{head}");
    assert!(head.contains("content-length: 2\r\n") && body == b"{}", "{head}");

    let with_user = format!("http://us:er@{}", server.address);
    text(client.dispatch(get(&with_user)).await.expect("answer")).await.expect("body");
    let (head, _) = saw.recv().await.expect("request");
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Basic dXM6ZXI=\r\n") && !head.contains('@'), "{head}");
}

#[tokio::test]
async fn unused_connections_are_closed_and_counted() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let idle = ClientOptions {
        pool_idle: Duration::from_millis(60),
        max_idle_per_origin: 2,
        ..ClientOptions::default()
    };
    let client = client(idle);
    let url = server.url("/");
    let answers: Vec<_> =
        futures_util::future::join_all((0..5).map(|_| client.dispatch(post(&url, "{}")))).await;
    for answer in answers {
        text(answer.expect("answer")).await.expect("body");
    }
    eventually(&client, SOON, |stats| stats.connections_open == 2 && stats.idle == 2).await;
    eventually(&client, SOON, |stats| stats.connections_open == 0 && stats.idle == 0).await;
    // The sweeper stopped with the last connection; it must start again.
    text(client.dispatch(post(&url, "{}")).await.expect("answer")).await.expect("body");
    eventually(&client, SOON, |stats| stats.connections_open == 0).await;
    drop(client);
}

/// Serves one request, then does `then` with the second, on every connection.
async fn after_first(then: &'static [u8]) -> (Server, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let server = Server::start(move |mut io: TcpStream, _| {
        let count = count.clone();
        async move {
            if read_request(&mut io).await.is_none() {
                return;
            }
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let _ = io.write_all(if first { OK } else { then }).await;
            if first && read_request(&mut io).await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = io.write_all(then).await;
            }
        }
    })
    .await;
    (server, seen)
}

async fn second_request(server: &Server, body: RequestBody) -> Error {
    let client = client(ClientOptions::default());
    let first = client.dispatch(post(&server.url("/"), "{}")).await.expect("answer");
    assert_eq!(text(first).await.expect("body"), "ok");
    let second = Request::post(server.url("/")).body(body).expect("request");
    match client.dispatch(second).await {
        Ok(response) => text(response).await.expect_err("cut"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn nothing_is_replayed_after_a_byte_of_an_answer() {
    for partial in ["HTTP/1.1 2", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"]
    {
        let (server, seen) = after_first(partial.as_bytes()).await;
        let error = second_request(&server, Bytes::from_static(b"{}").into()).await;
        assert_eq!((error.kind, error.retry), (ErrorKind::ConnectionClosed, Retry::Later), "{error}");
        assert!(error.message.contains(&server.address.to_string()), "{error}");
        assert_eq!(seen.load(Ordering::SeqCst), 2, "{partial:?}");
    }
}

#[tokio::test]
async fn a_stale_connection_is_replayed_once() {
    let (server, seen) = after_first(b"").await;
    let error = second_request(&server, Bytes::from_static(b"{}").into()).await;
    assert_eq!(error.kind, ErrorKind::ConnectionClosed, "{error}");
    // The first, the second, and its one replay on a new connection.
    assert_eq!((seen.load(Ordering::SeqCst), server.accepted()), (3, 2));
}

/// A provider that thought for a while had the request: once more could be billed twice.
#[tokio::test]
async fn a_connection_that_is_closed_late_is_no_stale_one() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let server = Server::start(move |mut io, _| {
        let count = count.clone();
        async move {
            while read_request(&mut io).await.is_some() {
                if count.fetch_add(1, Ordering::SeqCst) > 0 {
                    return tokio::time::sleep(crate::client::STALE + SOON).await;
                }
                io.write_all(OK).await.expect("written");
            }
        }
    })
    .await;
    let error = second_request(&server, Bytes::from_static(b"{}").into()).await;
    assert_eq!((error.kind, error.retry), (ErrorKind::ConnectionClosed, Retry::Later), "{error}");
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_streamed_body_is_never_replayed() {
    let (server, seen) = after_first(b"").await;
    let body = http_body_util::Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {});
    let error = second_request(&server, RequestBody::Stream(Box::pin(body))).await;
    assert_eq!((error.kind, error.retry), (ErrorKind::ConnectionClosed, Retry::Later), "{error}");
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_new_connection_is_not_replayed() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let server = Server::start(move |mut io, _| {
        let count = count.clone();
        async move {
            read_request(&mut io).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let error = client(ClientOptions::default()).dispatch(post(&server.url("/"), "{}")).await;
    assert_eq!(error.expect_err("closed").kind, ErrorKind::ConnectionClosed);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn dropping_closes_the_upstream_in_every_phase() {
    let (closed, mut closes) = mpsc::unbounded_channel();
    let server = Server::start(move |mut io, _| {
        let closed = closed.clone();
        async move {
            let (head, _) = read_request(&mut io).await.expect("request");
            if head.starts_with("POST /midway") {
                let part = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
                io.write_all(part).await.expect("written");
            } else if head.starts_with("POST /first") {
                io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await.expect("written");
            }
            until_closed(&mut io).await;
            closed.send(std::time::Instant::now()).expect("told");
        }
    })
    .await;
    let client = client(ClientOptions::default());
    for phase in ["head", "first", "midway"] {
        let request = client.dispatch(post(&server.url(&format!("/{phase}")), "{}"));
        let given_up = if phase == "head" {
            assert!(tokio::time::timeout(Duration::from_millis(50), request).await.is_err());
            std::time::Instant::now()
        } else {
            let mut body = request.await.expect("answer").into_body();
            if phase == "midway" {
                body.frame().await.expect("frame").expect("data");
            }
            drop(body);
            std::time::Instant::now()
        };
        let seen = tokio::time::timeout(SOON, closes.recv()).await.expect("closed").expect("told");
        let took = seen.saturating_duration_since(given_up);
        assert!(took < Duration::from_millis(100), "{phase}: {took:?}");
    }
    eventually(&client, SOON, |stats| stats.connections_open == 0 && stats.streams_in_flight == 0).await;
}

/// A peer that answers before it has read the request, and does not read on: the rest is let go, and the connection is
/// not the next request's.
#[tokio::test]
async fn a_connection_that_still_sends_is_not_kept() {
    let server = Server::start(|mut io, _| async move {
        let _ = io.read_u8().await;
        let _ = io.write_all(OK).await;
        std::future::pending::<()>().await;
    })
    .await;
    let client = client(ClientOptions::default());
    let first = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"part")))]);
    let stopped = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    let stopped = RequestBody::Stream(Box::pin(http_body_util::StreamBody::new(stopped)));
    // More than the sockets hold.
    let large = RequestBody::Full(vec![b'a'; 32 << 20].into());
    for body in [large, stopped] {
        let request = Request::post(server.url("/")).body(body).expect("request");
        let answer = client.dispatch(request).await.expect("answer");
        assert_eq!(text(answer).await.expect("body"), "ok");
        eventually(&client, 10 * SOON, |stats| stats.connections_open == 0).await;
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn the_bodys_own_error_comes_back() {
    let server = Server::start(|io, _| answer_all(io, OK)).await;
    let frames = futures_util::stream::iter([
        Ok(http_body::Frame::data(Bytes::from_static(b"part"))),
        Err(Error::client(ErrorKind::BodyTooLarge, "over the limit").param("body")),
    ]);
    let body = RequestBody::Stream(Box::pin(http_body_util::StreamBody::new(frames)));
    let request = Request::post(server.url("/")).body(body).expect("request");
    let error = client(ClientOptions::default()).dispatch(request).await.expect_err("refused");
    assert_eq!((error.kind, error.retry), (ErrorKind::BodyTooLarge, Retry::Never));
    assert_eq!((error.message.as_str(), error.param.as_deref()), ("over the limit", Some("body")));
}
