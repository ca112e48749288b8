//! One connection: TLS, HTTP/1.1 or HTTP/2, requests until either side ends it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use magicapi_model::{Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::answer::AnswerBody;
use crate::body::{OfferedBody, Unread};
use crate::delivery::{Delivery, Flushes};
use crate::farewell;
use crate::opening::Opening;
use crate::snapshot::Shared;
use crate::stack;
use crate::tls::TlsAcceptor;

/// Streams that one HTTP/2 connection may open at a time.
const MAX_STREAMS: u32 = 256;

/// HTTP/2 windows: a large request body must not wait for round trips.
const WINDOW: u32 = 1 << 20;

/// Pause between two looks at the requests that outlive their connections.
const LOOK: Duration = Duration::from_millis(5);

/// Idle HTTP/2 peers are pinged, so that dead ones are noticed.
const PING: Duration = Duration::from_secs(30);

/// Everything that connections share.
pub(crate) struct Serving {
    pub(crate) shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    tasks: Mutex<JoinSet<()>>,
    finish: watch::Sender<bool>,
    open: watch::Sender<usize>,
}

impl Serving {
    pub(crate) fn new(shared: Arc<Shared>, tls: Option<TlsAcceptor>) -> Self {
        Self {
            shared,
            tls,
            tasks: Mutex::default(),
            finish: watch::Sender::new(false),
            open: watch::Sender::new(0),
        }
    }

    /// Serves a connection on a task of its own.
    pub(crate) fn spawn(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let guard = Open::new(self.clone());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let serving = guard.0.clone();
            serving.connection(stream, peer).await;
            drop(guard);
        });
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Without it every small write waits for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.serve(stream).await };
        let patience = self.shared.snapshot().config.server.limits.header_read;
        match tokio::time::timeout(patience, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let shared = self.shared.clone();
        let unread = Unread::default();
        let flushes = Flushes::default();
        let (of_last, of_all) = (unread.clone(), flushes.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let http1 = (request.version() < Version::HTTP_2).then(|| (of_last.clone(), of_all.clone()));
            let answer = stack::handle(&shared, request.map(|body| OfferedBody::new(body, &of_last)));
            async move {
                let answer = answer.await;
                Ok::<_, Infallible>(match http1 {
                    Some((unread, flushes)) => over_http1(answer, &unread, flushes),
                    None => answer.map(Delivery::http2),
                })
            }
        });
        let builder = self.builder();
        let patience = self.shared.snapshot().config.server.limits.header_read;
        let (doorway, farewell) = farewell::split(stream, flushes);
        let ended = {
            let stream = TokioIo::new(Opening::new(doorway, patience));
            let mut connection = pin!(builder.serve_connection(stream, service));
            let mut finish = self.finish.subscribe();
            let told = tokio::select! {
                ended = connection.as_mut() => Err(ended),
                _ = finish.wait_for(|finish| *finish) => Ok(()),
            };
            if let Err(ended) = told {
                ended
            } else {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = &ended {
            tracing::debug!(%error, "connection ended");
        }
        let error = ended.as_ref().err().and_then(|error| error.downcast_ref());
        farewell.say(error, unread.load(Ordering::Relaxed)).await;
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let limits = self.shared.snapshot().config.server.limits;
        // hyper wants at least this much for a head.
        let head = limits.header_bytes.max(8 << 10);
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read)
            // No `pipeline_flush`: while a part of the next request waits it holds back answers, errors among them.
            .max_buf_size(head);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .keep_alive_interval(PING);
        builder
    }

    /// Connections finish their requests and end.
    pub(crate) fn finish_connections(&self) {
        self.finish.send_replace(true);
    }

    /// Waits until no connection is open and no request is under way: those whose client has left outlive their
    /// connection, and all of them write their rows at their end.
    pub(crate) async fn all_ended(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
        while self.shared.counts.in_flight.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends what is left.
    pub(crate) fn abort_connections(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

/// An answer as HTTP/1.1 carries it: one that comes before its request's end is the connection's last (RFC 9112, 9.6).
fn over_http1(mut answer: Response<AnswerBody>, unread: &Unread, flushes: Flushes) -> Response<Delivery> {
    if unread.load(Ordering::Relaxed) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer.map(|body| Delivery::http1(body, flushes))
}

/// Counts an open connection.
struct Open(Arc<Serving>);

impl Open {
    fn new(serving: Arc<Serving>) -> Self {
        serving.shared.counts.connections.fetch_add(1, Ordering::Relaxed);
        serving.open.send_modify(|open| *open += 1);
        Self(serving)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.shared.counts.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// Tells a connection that there is no room. Its request is waited for: some clients drop an answer that
/// comes before they asked. Takes at most twice `patience`.
pub(crate) async fn turn_away(mut stream: TcpStream, patience: Duration) {
    let answer = farewell::answer(&Error::gateway(
        ErrorKind::Overloaded,
        "the gateway has as many connections as it may; try again shortly",
    ));
    let _ = tokio::time::timeout(patience, request_head(&mut stream)).await;
    let _ = tokio::time::timeout(patience, farewell::close(&mut stream, &answer, true)).await;
}

/// Reads until the head of a request has come; its content does not matter.
async fn request_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut piece = [0u8; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < (8 << 10) {
        match stream.read(&mut piece).await {
            Ok(read) if read > 0 => head.extend_from_slice(&piece[..read]),
            _ => return,
        }
    }
}
