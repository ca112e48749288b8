//! Peers that close a kept connection at the worst moments: each time the caller must still get its answer, and each
//! request be answered once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http2::{prior_knowledge, say};
use super::{Authority, OK, Server, client, post, read_request, text, until_closed};
use crate::{Client, ClientOptions, RequestBody};

/// How a peer ends a connection that it kept after an answer.
#[derive(Clone, Copy, Debug)]
enum Close {
    /// With the answer.
    AtOnce,
    /// Some microseconds later, about when the next request comes.
    After(Duration),
    /// With the answer, after it said so.
    Announced,
    /// When the next request has begun to come, which resets the connection.
    Beginning,
    /// Within the next request.
    Within,
    /// With the next request read and no answer.
    Unanswered,
    /// Its own side alone; it goes on reading.
    Half,
    /// Not.
    Never,
}

impl Close {
    /// Each in turn; how long it waits is spread over what a request takes on loopback.
    fn turn(number: usize) -> Self {
        match number % 8 {
            0 => Self::AtOnce,
            1 => Self::After(Duration::from_micros(number as u64 * 7 % 400)),
            2 => Self::Announced,
            3 => Self::Beginning,
            4 => Self::Within,
            5 => Self::Unanswered,
            6 => Self::Half,
            _ => Self::Never,
        }
    }
}

/// Answers requests, and closes after each as its turn says.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, answered: &AtomicUsize) {
    while read_request(io).await.is_some() {
        let close = Close::turn(answered.fetch_add(1, Ordering::SeqCst));
        let closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        let answer = if matches!(close, Close::Announced) { closing } else { OK };
        let _ = io.write_all(answer).await;
        let _ = io.flush().await;
        match close {
            Close::AtOnce | Close::Announced => return,
            Close::After(time) => return tokio::time::sleep(time).await,
            Close::Beginning => {
                let _ = io.read_u8().await;
                return;
            }
            Close::Within => {
                let _ = io.read_exact(&mut [0; 100]).await;
                return;
            }
            Close::Unanswered => {
                read_request(io).await;
                return;
            }
            Close::Half => {
                let _ = io.shutdown().await;
                return until_closed(io).await;
            }
            Close::Never => {}
        }
    }
}

/// Ends a hung test, with what the client holds then.
async fn in_time<T>(client: &Client, step: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_mins(1), step).await;
    done.unwrap_or_else(|_| panic!("not within a minute: {:?}", client.stats()))
}

/// `tasks` callers send `each` requests of `size` bytes, one after another; all must be answered.
async fn callers(client: &Client, url: &str, tasks: usize, each: usize, size: usize) {
    let body = Bytes::from(vec![b'x'; size]);
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (client, url, body) = (client.clone(), url.to_owned(), body.clone());
            tokio::spawn(async move {
                for number in 0..each {
                    let request = Request::post(&url).body(RequestBody::Full(body.clone()));
                    let answer = in_time(&client, client.dispatch(request.expect("request"))).await;
                    let answer = answer.unwrap_or_else(|error| panic!("request {number}: {error}"));
                    assert_eq!(in_time(&client, text(answer)).await.expect("body"), "ok");
                    // Some find the connection idle, others at once after the answer.
                    if number % 3 == 0 {
                        tokio::time::sleep(Duration::from_micros(number as u64 * 13 % 500)).await;
                    }
                }
            })
        })
        .collect();
    for task in running {
        task.await.expect("task");
    }
}

async fn all_are_answered(secure: bool, each: usize, size: usize) {
    const CALLERS: usize = 4;
    let authority = Authority::new();
    let acceptor = secure.then(|| authority.acceptor(&["http/1.1"]));
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    let server = Server::start(move |mut tcp: TcpStream, _| {
        let (count, acceptor) = (count.clone(), acceptor.clone());
        async move {
            match acceptor {
                None => serve(&mut tcp, &count).await,
                // Dropped without close_notify, as many peers do.
                Some(acceptor) => serve(&mut acceptor.accept(tcp).await.expect("TLS"), &count).await,
            }
        }
    })
    .await;
    let scheme = if secure { "https" } else { "http" };
    let client = client(authority.options());
    callers(&client, &format!("{scheme}://{}/", server.address), CALLERS, each, size).await;
    assert_eq!(answered.load(Ordering::SeqCst), CALLERS * each, "each request was answered once");
    assert!(server.accepted() > each, "{} connections: hardly one was closed", server.accepted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_may_be_closed_at_any_moment() {
    all_are_answered(false, 2_000, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_within_a_large_request() {
    all_are_answered(false, 200, 1 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_under_tls() {
    all_are_answered(true, 500, 200).await;
}

/// Every kept connection is closed at the same moment, as when a balancer is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kept_connections_may_be_closed_at_once() {
    let (close, closing) = tokio::sync::watch::channel(0_u32);
    let server = Server::start(move |mut io, _| {
        let mut closing = closing.clone();
        closing.mark_unchanged();
        async move {
            let mut served = false;
            loop {
                tokio::select! {
                    // A connection is closed only once it has served.
                    _ = closing.changed(), if served => return,
                    read = read_request(&mut io) => {
                        if read.is_none() || io.write_all(OK).await.is_err() {
                            return;
                        }
                        served = true;
                    }
                }
            }
        }
    })
    .await;
    let client = client(ClientOptions::default());
    for round in 1..=200 {
        callers(&client, &server.url("/"), 16, 2, 200).await;
        close.send_replace(round);
        callers(&client, &server.url("/"), 16, 1, 200).await;
    }
    assert!(server.accepted() > 200, "{} connections", server.accepted());
}

/// Requests that come together find the one idle HTTP/2 connection, whose peer closes it without a word.
#[tokio::test]
async fn requests_together_survive_a_closed_http2_connection() {
    let server = Server::start(|io, number| async move {
        let mut connection = h2::server::handshake(io).await.expect("HTTP/2");
        for served in 0.. {
            let Some(Ok((_, respond))) = connection.accept().await else { return };
            if number == 0 && served > 0 {
                return;
            }
            say(respond, "ok").await;
        }
    })
    .await;
    let client = client(prior_knowledge());
    let ask = async |number: usize| {
        let answer = client.dispatch(post(&server.url("/"), "{}")).await;
        let answer = answer.unwrap_or_else(|error| panic!("request {number}: {error}"));
        assert_eq!(text(answer).await.expect("body"), "ok");
    };
    ask(0).await;
    futures_util::future::join_all((1..=20).map(ask)).await;
    assert_eq!(server.accepted(), 2, "all of them went to one new connection");
}
