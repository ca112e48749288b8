//! The bodies: what a request carries and what an answer's reader holds.
//!
//! An answer's body owns its connection's lease: a clean end gives the connection back to the pool, a drop before that
//! closes the HTTP/1.1 connection or resets the HTTP/2 stream at once (invariant 4).

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use magicapi_model::Error;

use crate::fault;
use crate::h1::H1Lease;
use crate::streams::H2Body;

/// What a request carries.
pub enum RequestBody {
    /// The whole body; it can be sent again when a pooled connection turns out to be closed.
    Full(Bytes),
    /// A body that comes in parts, sent once.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = Error> + Send>>),
}

impl RequestBody {
    /// No body.
    pub const fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    /// The same body, and what tells whether it is still there to be sent: always gone for a body that is given whole.
    pub(crate) fn watched(self) -> (Self, Weak<()>) {
        let Self::Stream(body) = self else { return (self, Weak::new()) };
        let there = Arc::new(());
        let watch = Arc::downgrade(&there);
        (Self::Stream(Box::pin(Watched { body, _there: there })), watch)
    }
}

/// A body whose end others see: `_there` goes with it.
struct Watched {
    body: Pin<Box<dyn Body<Data = Bytes, Error = Error> + Send>>,
    _there: Arc<()>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }
}

impl fmt::Debug for RequestBody {
    /// Sizes alone: content is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// An answer's body. Read it to its end and the connection serves the next request; drop it before and the upstream is
/// closed at once.
pub struct ResponseBody(Kind);

enum Kind {
    H1 { body: Incoming, lease: Option<H1Lease> },
    H2(H2Body),
}

impl ResponseBody {
    pub(crate) fn h1(body: Incoming, lease: H1Lease) -> Self {
        let mut this = Self(Kind::H1 { body, lease: Some(lease) });
        this.settle();
        this
    }

    pub(crate) fn h2(body: H2Body) -> Self {
        Self(Kind::H2(body))
    }

    /// Gives an HTTP/1.1 connection back as soon as nothing more can come, since a reader that sees
    /// `is_end_stream` does not poll again.
    fn settle(&mut self) {
        if let Kind::H1 { body, lease } = &mut self.0
            && body.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::H1 { .. } => "ResponseBody(HTTP/1.1)",
            Kind::H2(_) => "ResponseBody(HTTP/2)",
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let (body, lease) = match &mut this.0 {
            Kind::H2(body) => return body.poll_frame(cx),
            Kind::H1 { body, lease } => (body, lease),
        };
        match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.settle();
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                if let Some(lease) = lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                let lease = lease.take();
                let place = lease.as_ref().map_or("the provider", |lease| lease.origin().place());
                Poll::Ready(Some(Err(fault::of_hyper(&error, place, "within its answer"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::H1 { body, .. } => body.is_end_stream(),
            Kind::H2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::H1 { body, .. } => body.size_hint(),
            Kind::H2(body) => body.size_hint(),
        }
    }
}
