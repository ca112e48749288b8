//! The answer's body as the listener sees it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use magicapi_model::Error;

use crate::relay::Relay;
use crate::stream::StreamRelay;

/// The body of any answer of the data plane.
pub(crate) enum AnswerBody {
    /// Made here.
    Made(Option<Bytes>),
    /// A provider's body, as read.
    Relay(Relay),
    /// A provider's events.
    Stream(StreamRelay),
}

impl AnswerBody {
    /// A body made here.
    pub(crate) fn made(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Made((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Made(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relay(relay) => relay.poll(cx),
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Made(bytes) => bytes.is_none(),
            Self::Relay(relay) => relay.is_over(),
            Self::Stream(stream) => stream.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Made(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Relay(relay) => relay.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
