//! HTTP/2: stream limits, sharing, GOAWAY, resets, pings, request bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use magicapi_model::{Error, ErrorKind, Retry};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Authority, OK, Server, answer_all, client, eventually, get, post, text};
use crate::{Client, ClientOptions, Http2Choice, RequestBody};

const SOON: Duration = Duration::from_secs(2);

pub(super) fn prior_knowledge() -> ClientOptions {
    ClientOptions { http2: Http2Choice::PriorKnowledge, ..ClientOptions::default() }
}

/// Serves HTTP/2 on one connection with a limit on streams.
pub(super) async fn serve<S, F, Fut>(io: S, limit: u32, answer: F)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(limit).max_pending_accept_reset_streams(10_000);
    let Ok(mut connection) = builder.handshake(io).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond));
    }
}

pub(super) fn say(mut respond: SendResponse<Bytes>, words: &'static str) -> std::future::Ready<()> {
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::from_static(words.as_bytes()), true);
    }
    std::future::ready(())
}

async fn ask(client: &Client, url: &str) -> Result<String, Error> {
    text(client.dispatch(post(url, "{}")).await?).await
}

#[tokio::test]
async fn no_stream_waits_for_another_streams_end() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&["h2", "http/1.1"]);
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let server = Server::start(move |io, _| {
        let (acceptor, most) = (acceptor.clone(), seen.clone());
        async move {
            let running = Arc::new(AtomicUsize::new(0));
            serve(acceptor.accept(io).await.expect("TLS"), 10, move |_, mut respond| {
                let (running, most) = (running.clone(), most.clone());
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let mut stream = respond.send_response(Response::new(()), false).expect("head");
                    stream.send_data(Bytes::from_static(b"first "), false).expect("data");
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    stream.send_data(Bytes::from_static(b"last"), true).expect("data");
                    running.fetch_sub(1, Ordering::SeqCst);
                }
            })
            .await;
        }
    })
    .await;
    let client = client(authority.options());
    let start = Instant::now();
    let streams = (0..200).map(|_| async {
        let mut body = client
            .dispatch(post(&format!("https://{}/", server.address), "{}"))
            .await
            .expect("answer")
            .into_body();
        let first = body.frame().await.expect("frame").expect("data").into_data().expect("data");
        let waited = start.elapsed();
        let rest = body.collect().await.expect("rest").to_bytes();
        assert_eq!((first.as_ref(), rest.as_ref()), (b"first ".as_slice(), b"last".as_slice()));
        waited
    });
    let slowest = futures_util::future::join_all(streams).await.into_iter().max().expect("streams");
    assert!(slowest < Duration::from_millis(1800), "a first byte waited {slowest:?}");
    assert!(most.load(Ordering::SeqCst) <= 10);
    assert!((20..=26).contains(&server.accepted()), "{} connections", server.accepted());
    assert_eq!(client.stats().streams_in_flight, 0);
    println!("200 streams, slowest first byte {slowest:?}, {} connections", server.accepted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_share_connections_up_to_fifty() {
    let server = Server::start(|io, _| {
        serve(io, 1000, |_, respond| async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            say(respond, "ok").await;
        })
    })
    .await;
    let client = client(prior_knowledge());
    let url = server.url("/");
    for round in 0..2 {
        let answers = futures_util::future::join_all((0..100).map(|_| ask(&client, &url))).await;
        assert!(answers.iter().all(|answer| matches!(answer.as_deref(), Ok("ok"))));
        assert!((2..=3).contains(&server.accepted()), "round {round}: {} connections", server.accepted());
    }
}

#[tokio::test]
async fn alpn_decides() {
    let authority = Authority::new();
    for (alpn, http2) in [(["h2"], true), (["http/1.1"], false)] {
        let acceptor = authority.acceptor(&alpn);
        let server = Server::start(move |io, _| {
            let acceptor = acceptor.clone();
            async move {
                let io = acceptor.accept(io).await.expect("TLS");
                if http2 {
                    serve(io, 100, |_, respond| say(respond, "ok")).await;
                } else {
                    answer_all(io, OK).await;
                }
            }
        })
        .await;
        let client = client(authority.options());
        let url = format!("https://{}/", server.address);
        let answers = futures_util::future::join_all((0..8).map(|_| ask(&client, &url))).await;
        assert!(answers.iter().all(|answer| matches!(answer.as_deref(), Ok("ok"))), "{answers:?}");
        let response = client.dispatch(get(&url)).await.expect("answer");
        assert_eq!(response.version() == http::Version::HTTP_2, http2);
        assert_eq!(server.accepted() == 1, http2, "{} connections", server.accepted());
    }
}

#[tokio::test]
async fn the_request_is_shaped_for_http2() {
    let (seen, mut saw) = mpsc::unbounded_channel();
    let server = Server::start(move |io, _| {
        let seen = seen.clone();
        serve(io, 100, move |request, respond| {
            let seen = seen.clone();
            async move {
                let (head, mut body) = request.into_parts();
                let mut whole = Vec::new();
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).expect("capacity");
                    whole.extend_from_slice(&data);
                }
                seen.send((head, whole)).expect("seen");
                say(respond, "ok").await;
            }
        })
    })
    .await;
    let client = client(prior_knowledge());
    let mut request = post(&server.url("/v1?a=b"), "{}");
    for name in ["host", "connection", "transfer-encoding"] {
        request.headers_mut().insert(name, "x".parse().expect("value"));
    }
    text(client.dispatch(request).await.expect("answer")).await.expect("body");
    let (head, body) = saw.recv().await.expect("request");
    assert_eq!(head.uri.to_string(), server.url("/v1?a=b"));
    assert_eq!((head.headers.len(), body.as_slice()), (1, b"{}".as_slice()), "{:?}", head.headers);
    assert_eq!(head.headers.get("content-length").expect("length"), "2");

    // A body over every window, in parts.
    let part = Bytes::from(vec![7; 300_000]);
    let frames = futures_util::stream::iter((0..10).map(move |_| Ok(http_body::Frame::data(part.clone()))));
    let body = RequestBody::Stream(Box::pin(http_body_util::StreamBody::new(frames)));
    let request = Request::post(server.url("/")).body(body).expect("request");
    text(client.dispatch(request).await.expect("answer")).await.expect("body");
    assert_eq!(saw.recv().await.expect("request").1.len(), 3_000_000);
    let big = RequestBody::Full(Bytes::from(vec![7; 3_000_000]));
    let request = Request::post(server.url("/")).body(big).expect("request");
    text(client.dispatch(request).await.expect("answer")).await.expect("body");
    assert_eq!(saw.recv().await.expect("request").1.len(), 3_000_000);

    let failing = futures_util::stream::iter([Err(Error::client(ErrorKind::BodyTooLarge, "over the limit"))]);
    let body = RequestBody::Stream(Box::pin(http_body_util::StreamBody::new(failing)));
    let request = Request::post(server.url("/")).body(body).expect("request");
    let error = client.dispatch(request).await.expect_err("refused");
    assert_eq!((error.kind, error.retry), (ErrorKind::BodyTooLarge, Retry::Never));
}

/// Streams slowly on its first connection, which goes away in the middle.
async fn going_away(io: TcpStream, number: usize) {
    let mut connection = h2::server::handshake(io).await.expect("handshake");
    let mut going = Box::pin(tokio::time::sleep(Duration::from_millis(100)));
    let mut waits = number == 0;
    loop {
        let accepted = poll_fn(|cx| {
            if waits && going.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(Err(()));
            }
            connection.poll_accept(cx).map(Ok)
        });
        match accepted.await {
            Ok(Some(Ok((_, mut respond)))) => {
                tokio::spawn(async move {
                    let mut stream = respond.send_response(Response::new(()), false).expect("head");
                    stream.send_data(Bytes::from_static(b"first "), false).expect("data");
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    stream.send_data(Bytes::from_static(b"last"), true).expect("data");
                });
            }
            Ok(_) => return,
            Err(()) => {
                waits = false;
                connection.graceful_shutdown();
            }
        }
    }
}

#[tokio::test]
async fn goaway_lets_running_streams_finish() {
    let server = Server::start(going_away).await;
    let client = client(prior_knowledge());
    let url = server.url("/");
    let running = futures_util::future::join_all((0..20).map(|_| ask(&client, &url)));
    let later = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        futures_util::future::join_all((0..20).map(|_| ask(&client, &url))).await
    };
    let (running, later) = futures_util::future::join(running, later).await;
    for answer in running.into_iter().chain(later) {
        assert_eq!(answer.expect("whole"), "first last");
    }
    assert_eq!(server.accepted(), 2);
    eventually(&client, SOON, |stats| stats.connections_open == 1).await;
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let server = Server::start(|io, number| {
        serve(io, 100, move |_, mut respond| async move {
            if number == 0 { respond.send_reset(Reason::REFUSED_STREAM) } else { say(respond, "ok").await }
        })
    })
    .await;
    let client = client(prior_knowledge());
    assert_eq!(ask(&client, &server.url("/")).await.expect("answer"), "ok");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn resets_and_broken_connections_are_errors() {
    for (reason, kind) in [
        (Reason::INTERNAL_ERROR, ErrorKind::ConnectionClosed),
        (Reason::PROTOCOL_ERROR, ErrorKind::ProtocolError),
    ] {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let server = Server::start(move |io, _| {
            let count = count.clone();
            serve(io, 100, move |_, mut respond| {
                count.fetch_add(1, Ordering::SeqCst);
                async move {
                    let mut stream = respond.send_response(Response::new(()), false).expect("head");
                    stream.send_data(Bytes::from_static(b"part"), false).expect("data");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    stream.send_reset(reason);
                }
            })
        })
        .await;
        let error = ask(&client(prior_knowledge()), &server.url("/")).await.expect_err("reset");
        assert_eq!((error.kind, error.retry), (kind, Retry::Later), "{error}");
        assert_eq!(seen.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_failure() {
    let server = Server::start(|io, _| async move {
        let once = serve(io, 100, |_, respond| say(respond, "ok"));
        let _ = tokio::time::timeout(Duration::from_millis(20), once).await;
    })
    .await;
    let client = client(prior_knowledge());
    for turn in 0..200_u64 {
        assert_eq!(ask(&client, &server.url("/")).await.expect("answer"), "ok");
        if turn % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(turn % 7 * 4)).await;
        }
    }
}

#[tokio::test]
async fn dropping_resets_the_stream_and_spares_the_others() {
    let (closed, mut closes) = mpsc::unbounded_channel();
    let server = Server::start(move |io, _| {
        let closed = closed.clone();
        serve(io, 100, move |request, mut respond| {
            let closed = closed.clone();
            async move {
                if request.uri().path() == "/head" {
                    let reason = poll_fn(|cx| respond.poll_reset(cx)).await.expect("reset");
                    closed.send(reason).expect("told");
                    return;
                }
                let mut stream = respond.send_response(Response::new(()), false).expect("head");
                stream.send_data(Bytes::from_static(b"first"), false).expect("data");
                let reason = poll_fn(|cx| stream.poll_reset(cx)).await.expect("reset");
                closed.send(reason).expect("told");
            }
        })
    })
    .await;
    let client = client(prior_knowledge());
    let mut other = client.dispatch(post(&server.url("/other"), "{}")).await.expect("answer").into_body();
    for phase in ["/head", "/midway", "/uploading"] {
        let url = server.url(phase);
        if phase == "/head" {
            let waiting = tokio::time::timeout(Duration::from_millis(30), client.dispatch(post(&url, "{}")));
            assert!(waiting.await.is_err());
        } else {
            // Larger than the server's window, which it never opens: the upload hangs.
            let size = if phase == "/midway" { 2 } else { 1_000_000 };
            let request = Request::post(&url).body(RequestBody::Full(vec![7; size].into())).expect("request");
            let mut body = client.dispatch(request).await.expect("answer").into_body();
            body.frame().await.expect("frame").expect("data");
        }
        let reason = tokio::time::timeout(Duration::from_millis(100), closes.recv()).await;
        assert_eq!(reason.expect(phase).expect("told"), Reason::CANCEL);
    }
    let stats = client.stats();
    assert_eq!((stats.connections_open, stats.streams_in_flight, server.accepted()), (1, 1, 1));
    other.frame().await.expect("frame").expect("data");
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_given_up() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let server = Server::start(move |io, _| {
        let count = count.clone();
        async move {
            let mut connection = h2::server::handshake(io).await.expect("handshake");
            let (_, respond) = connection.accept().await.expect("stream").expect("stream");
            count.fetch_add(1, Ordering::SeqCst);
            // Holds the connection and never reads it again.
            tokio::time::sleep(Duration::from_secs(30)).await;
            drop((connection, respond));
        }
    })
    .await;
    let start = Instant::now();
    let error = ask(&client(prior_knowledge()), &server.url("/")).await.expect_err("silence");
    assert_eq!((error.kind, error.retry), (ErrorKind::ConnectionClosed, Retry::Later), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(seen.load(Ordering::SeqCst), 1, "a timeout is never replayed");
}

#[tokio::test]
async fn unused_connections_are_closed() {
    let server = Server::start(|io, _| serve(io, 100, |_, respond| say(respond, "ok"))).await;
    let client = client(ClientOptions { pool_idle: Duration::from_millis(60), ..prior_knowledge() });
    assert_eq!(ask(&client, &server.url("/")).await.expect("answer"), "ok");
    assert_eq!(client.stats().idle, 1);
    eventually(&client, SOON, |stats| stats.connections_open == 0 && stats.idle == 0).await;
}

#[tokio::test]
async fn an_opener_that_leaves_strands_nobody() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&["h2"]);
    let server = Server::start(move |io, number| {
        let acceptor = acceptor.clone();
        async move {
            // The first handshake never ends; the second is prompt.
            if number == 0 {
                tokio::time::sleep(Duration::from_secs(30)).await;
                drop(io);
            } else {
                serve(acceptor.accept(io).await.expect("TLS"), 100, |_, respond| say(respond, "ok")).await;
            }
        }
    })
    .await;
    let client = client(authority.options());
    let url = format!("https://{}/", server.address);
    let opener = tokio::time::timeout(Duration::from_millis(50), ask(&client, &url));
    let waiter = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        ask(&client, &url).await
    };
    let (opener, waiter) = futures_util::future::join(opener, waiter).await;
    assert!(opener.is_err());
    assert_eq!(waiter.expect("answer"), "ok");
}
