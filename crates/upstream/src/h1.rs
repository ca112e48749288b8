//! One HTTP/1.1 connection: hyper's codec in a task of its own, lent to one request at a time.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures_util::future::{Either, select};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use magicapi_model::ErrorKind;
use tokio::task::JoinHandle;

use crate::body::RequestBody;
use crate::fault::Fault;
use crate::origin::Origin;
use crate::transport::{Meter, Transport};

/// What one connection may read ahead of whoever reads the answer, and the largest head. hyper's own 400 KiB are two
/// thirds of a gigabyte once a thousand callers are slower than their provider.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// An open connection. Dropping it lets hyper close in order; [`H1Lease`] cuts it instead.
pub(crate) struct H1Conn {
    /// None once the task is known to have ended.
    sender: Option<SendRequest<RequestBody>>,
    task: JoinHandle<()>,
    meter: Arc<Meter>,
}

impl H1Conn {
    /// Starts the connection's task.
    pub(crate) async fn start(transport: Transport, place: &str) -> Result<Box<Self>, Fault> {
        let meter = transport.meter().clone();
        let (sender, connection) =
            http1::Builder::new().max_buf_size(READ_BYTES).handshake(TokioIo::new(transport)).await.map_err(
                |e| Fault::new(ErrorKind::ConnectFailed, format!("{place} closed before the request: {e}")),
            )?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/1.1 connection to a provider ended");
            }
        });
        Ok(Box::new(Self { sender: Some(sender), task, meter }))
    }

    /// Whether it can take a request now. Between an answer's last byte and the task's next turn it cannot.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.as_ref().is_some_and(SendRequest::is_ready)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.as_ref().is_none_or(SendRequest::is_closed)
    }

    /// Waits for the task to finish with the last exchange; false when the connection closed instead.
    pub(crate) async fn settled(&mut self) -> bool {
        match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        }
    }
}

/// The use of one connection for one exchange. Ended with [`H1Lease::give_back`]; dropped before that, the connection
/// is cut at once, whatever it was doing (invariant 4).
pub(crate) struct H1Lease {
    conn: Option<Box<H1Conn>>,
    origin: Arc<Origin>,
    read_before: u64,
    /// Alive while hyper has not done with a streamed request body.
    streaming: Weak<()>,
    /// Whether an exchange went over it before, so that the peer may have closed it meanwhile.
    pub(crate) reused: bool,
}

impl H1Lease {
    pub(crate) fn new(conn: Box<H1Conn>, origin: Arc<Origin>, reused: bool) -> Self {
        origin.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        let read_before = conn.meter.bytes_read();
        Self { conn: Some(conn), origin, read_before, streaming: Weak::new(), reused }
    }

    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Whether not one byte came since the lease began.
    pub(crate) fn is_silent(&self) -> bool {
        self.conn.as_ref().is_some_and(|conn| conn.meter.bytes_read() == self.read_before)
    }

    /// Sends the request and waits for the answer's head. The request comes back if it was never begun.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Option<TrySendError<Request<RequestBody>>>> {
        let (head, body) = request.into_parts();
        let (body, streaming) = body.watched();
        self.streaming = streaming;
        let request = Request::from_parts(head, body);
        let Some(H1Conn { sender, task, .. }) = self.conn.as_deref_mut() else { return Err(None) };
        let Some(sending) = sender else { return Err(None) };
        let answer = pin!(sending.try_send_request(request));
        let answered = match select(answer, task).await {
            Either::Left((answered, _)) => answered,
            // A request that is handed over in the very moment in which the task ends stays in hyper's channel, and
            // its answer would never come (hyperium/hyper#4122). The channel gives it back when the sender goes.
            Either::Right((_ended, answer)) => {
                *sender = None;
                answer.await
            }
        };
        answered.map_err(Some)
    }

    /// The answer was read to its clean end: the connection may serve the next request. Unless the answer came before the
    /// request was sent whole: a peer that does not read the rest would hold the caller's upload and the next request.
    pub(crate) fn give_back(mut self) {
        let streaming = self.streaming.strong_count() > 0;
        if let Some(conn) = self.conn.take_if(|conn| !streaming && !conn.meter.is_writing()) {
            self.origin.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.origin.keep(conn);
        }
    }
}

impl Drop for H1Lease {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.origin.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
            // hyper would close in order, which over TLS can wait for a peer that does not read.
            conn.task.abort();
        }
    }
}
