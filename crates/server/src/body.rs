//! The caller's body as it comes: no larger than its path takes, no slower than it may be; the connection learns whether
//! its end was read.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use magicapi_config::Limits;
use magicapi_model::{Error, ErrorKind};
use tokio::time::Instant;

use crate::timer::Timer;

/// Whether the body of a connection's last request has bytes to come that nobody read.
pub(crate) type Unread = Arc<AtomicBool>;

/// A body that nobody has asked for yet: a caller who waits for leave to send has not been given it.
pub(crate) struct OfferedBody {
    incoming: Incoming,
    unread: Unread,
}

impl OfferedBody {
    /// The body of a request; `unread` is kept up to date until its end.
    pub(crate) fn new(incoming: Incoming, unread: &Unread) -> Self {
        unread.store(!incoming.is_end_stream(), Ordering::Relaxed);
        Self { incoming, unread: unread.clone() }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// Takes it as a body that will be held in memory.
    pub(crate) fn into_held(self, limits: &Limits) -> Result<CallerBody, Error> {
        self.accept(Bound { bytes: limits.body as u64, key: "body" }, limits)
    }

    /// Takes it as a body that passes through.
    pub(crate) fn into_passing(self, limits: &Limits) -> Result<CallerBody, Error> {
        self.accept(Bound { bytes: limits.upload, key: "upload" }, limits)
    }

    fn accept(self, bound: Bound, limits: &Limits) -> Result<CallerBody, Error> {
        if self.incoming.size_hint().exact().is_some_and(|bytes| bytes > bound.bytes) {
            return Err(bound.exceeded());
        }
        let pace = Pace::new(limits.header_read, limits.body_rate);
        Ok(CallerBody { incoming: self.incoming, unread: self.unread, bound, received: 0, pace })
    }
}

/// A body that is being read.
pub(crate) struct CallerBody {
    incoming: Incoming,
    unread: Unread,
    bound: Bound,
    received: u64,
    pace: Pace,
}

impl CallerBody {
    /// The next piece; `None` at the end. `received` is all that came so far, taken or too much.
    pub(crate) async fn piece(&mut self, received: &mut u64) -> Option<Result<Bytes, Error>> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await;
            *received = self.received;
            match frame?.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            return this.pace.poll(cx).map(|error| Some(Err(error)));
        };
        let frame = match frame {
            None => {
                this.unread.store(false, Ordering::Relaxed);
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(unreadable(&error)))),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            this.received += data.len() as u64;
            this.pace.went_on(this.received);
        }
        if this.received > this.bound.bytes {
            return Poll::Ready(Some(Err(this.bound.exceeded())));
        }
        if this.incoming.is_end_stream() {
            this.unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The most bytes that a body may have.
#[derive(Clone, Copy)]
struct Bound {
    bytes: u64,
    /// Below `server.limits`.
    key: &'static str,
}

impl Bound {
    fn exceeded(self) -> Error {
        let Self { bytes, key } = self;
        let message = format!(
            "the body is larger than the {bytes} bytes that this path takes; send less, or raise `server.limits.{key}`"
        );
        Error::client(ErrorKind::BodyTooLarge, message)
    }
}

/// How slowly a body may come. Time counts only while the gateway waits for more: a provider that takes its time over
/// an upload is not the caller's fault.
struct Pace {
    /// Longest wait for one piece; also what the whole may take beyond its rate.
    pause: Duration,
    /// Bytes a second; 0 = as slow as it likes.
    rate: u64,
    received: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Timer,
}

impl Pace {
    fn new(pause: Duration, rate: u64) -> Self {
        Self {
            pause,
            rate,
            received: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            timer: Timer::default(),
        }
    }

    fn went_on(&mut self, received: u64) {
        self.received = received;
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }

    /// The error of a body that is too slow; else the task is woken when it is.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let left = self.left();
        if !self.timer.poll(cx, since + left.min(self.pause)) {
            return Poll::Pending;
        }
        Poll::Ready(if left < self.pause { self.too_slow() } else { self.stopped() })
    }

    /// What the whole may still be waited for.
    fn left(&self) -> Duration {
        let Some(earned) = self.received.saturating_mul(1000).checked_div(self.rate) else {
            return Duration::MAX;
        };
        (self.pause + Duration::from_millis(earned)).saturating_sub(self.waited)
    }

    fn stopped(&self) -> Error {
        let message =
            format!("the body did not go on for {:?}, which is `server.limits.header_read`", self.pause);
        Error::client(ErrorKind::ClientTimeout, message)
    }

    fn too_slow(&self) -> Error {
        let message = format!(
            "the body came slower than {} bytes a second, which is `server.limits.body_rate`; send it faster, or lower that",
            self.rate
        );
        Error::client(ErrorKind::ClientTimeout, message)
    }
}

fn unreadable(error: &hyper::Error) -> Error {
    if breaks_the_framing(error) {
        let message =
            "the body's transfer chunks are malformed; send them as RFC 9112 says, or a `content-length`";
        return Error::client(ErrorKind::InvalidRequest, message);
    }
    Error::client(ErrorKind::ClientClosed, format!("the request's body could not be read: {error}"))
}

/// Whether the client is there and sends what is no body, as against a client that has left.
fn breaks_the_framing(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause
        .is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::Pace;

    async fn advance(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    fn said(pace: &mut Pace) -> Option<String> {
        match pace.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(error) => Some(error.message),
            Poll::Pending => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_and_a_drip_are_too_slow_and_a_slow_line_is_not() {
        let pause = Duration::from_secs(30);
        let mut pace = Pace::new(pause, 1024);
        assert_eq!(said(&mut pace), None);
        advance(29).await;
        assert_eq!(said(&mut pace), None);
        pace.went_on(1);
        assert_eq!(said(&mut pace), None);
        advance(2).await;
        assert!(said(&mut pace).expect("a drip").contains("body_rate"));

        let mut pace = Pace::new(pause, 1024);
        for piece in 1..=600 {
            assert_eq!(said(&mut pace), None, "{piece}");
            advance(1).await;
            pace.went_on(piece * 1024);
        }
        assert_eq!(said(&mut pace), None);
        advance(31).await;
        assert!(said(&mut pace).expect("a pause").contains("header_read"));
    }

    /// While nobody asks for more, as with an upload that the provider is slow to take, no time counts.
    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts_and_a_rate_of_zero_is_none() {
        let pause = Duration::from_secs(30);
        let mut pace = Pace::new(pause, 1024);
        pace.went_on(1);
        advance(3600).await;
        assert_eq!(said(&mut pace), None);
        let mut any = Pace::new(pause, 0);
        for piece in 1..=100 {
            assert_eq!(said(&mut any), None, "{piece}");
            advance(29).await;
            any.went_on(piece);
        }
    }
}
