//! The body of an answer as a connection gets it. hyper drops what it has not yet written when a body fails, the head
//! among it: so a failure waits until all that came before it has been written.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use magicapi_model::Error;
use tokio::time::Instant;

use crate::answer::AnswerBody;
use crate::timer::Timer;

/// How long a failure waits for a client that does not read.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits over HTTP/2, where other streams' bytes are written too and nothing tells which were.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a connection has written all that it had.
pub(crate) type Flushes = Arc<AtomicU64>;

/// An answer's body whose failure is the last that the client learns.
pub(crate) struct Delivery {
    body: AnswerBody,
    /// None over HTTP/2.
    flushes: Option<Flushes>,
    failure: Option<Failure>,
}

struct Failure {
    error: Error,
    /// The flushes before it.
    flushes: u64,
    deadline: Instant,
    timer: Timer,
}

impl Delivery {
    /// Over HTTP/1.1, on a connection that counts its flushes.
    pub(crate) fn http1(body: AnswerBody, flushes: Flushes) -> Self {
        Self { body, flushes: Some(flushes), failure: None }
    }

    /// Over HTTP/2.
    pub(crate) fn http2(body: AnswerBody) -> Self {
        Self { body, flushes: None, failure: None }
    }

    fn flushed(&self) -> u64 {
        self.flushes.as_ref().map_or(0, |flushes| flushes.load(Ordering::Relaxed))
    }

    fn fail(&mut self, error: Error) {
        let patience = if self.flushes.is_some() { PATIENCE } else { PAUSE };
        let deadline = Instant::now() + patience;
        self.failure = Some(Failure { error, flushes: self.flushed(), deadline, timer: Timer::default() });
    }
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if this.failure.is_none() {
            match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Err(error)) => this.fail(error),
                frame => return Poll::Ready(frame),
            }
        }
        let flushed = this.flushed();
        // hyper flushes whenever a body has nothing for it, and asks again when it has flushed.
        let due =
            |failure: &mut Failure| failure.flushes != flushed || failure.timer.poll(cx, failure.deadline);
        match this.failure.take_if(due) {
            Some(failure) => Poll::Ready(Some(Err(failure.error))),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
