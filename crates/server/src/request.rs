//! The caller's body: held where it must be read, streamed where it need not be.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use magicapi_dialects::encoding::{self, Coding, DecodeError};
use magicapi_model::{Error, ErrorKind};

use crate::snapshot::Shared;

/// Bytes of bodies that all requests together may hold. Past it new request bodies are a 503 and answers are no longer
/// collected, which is not the end of the process.
const HELD_BYTES: usize = 2 << 30;

/// A first reservation of an announced length is no larger: whoever announces more has to send it.
pub(crate) const TRUSTED: u64 = 1 << 20;

/// A body that is held; its share of [`HELD_BYTES`] is given back with it.
pub(crate) struct Held {
    /// As received: what is sent on and sized.
    pub(crate) raw: Bytes,
    /// What it says: the same bytes unless a content coding was undone.
    pub(crate) plain: Bytes,
    /// The content coding, when there is one.
    pub(crate) coding: Option<Coding>,
    share: Share,
}

impl Held {
    /// Gives up the bytes, keeps the share of the budget.
    pub(crate) fn into_parts(self) -> (Bytes, Bytes, Share) {
        (self.raw, self.plain, self.share)
    }
}

/// A share of the budget for held bodies.
pub(crate) struct Share {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Share {
    pub(crate) fn none(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0 }
    }

    /// Takes more of the budget, unless it is used up.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Error> {
        let before = self.shared.counts.held_bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        if before.saturating_add(more) > HELD_BYTES {
            return Err(Error::gateway(
                ErrorKind::Overloaded,
                "the gateway holds as many request bytes as it may; try again shortly",
            ));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shared.counts.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a whole body, at most `limit` bytes, before and after its content coding; `pause` is the longest wait for more.
pub(crate) async fn hold(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    mut body: Incoming,
    limit: usize,
    pause: Duration,
) -> Result<Held, Error> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large(limit as u64, "body"));
    }
    let mut share = Share::none(shared.clone());
    let raw = read(&mut body, &mut share, limit, pause).await?;
    let (plain, coding) = match coding(headers)? {
        None | Some(Coding::Identity) => (raw.clone(), None),
        Some(coding) => {
            let plain = encoding::decode(coding, &raw, limit).map_err(|error| undecodable(error, limit))?;
            share.grow(plain.len())?;
            (plain.into(), Some(coding))
        }
    };
    Ok(Held { raw, plain, coding, share })
}

async fn read(body: &mut Incoming, share: &mut Share, limit: usize, pause: Duration) -> Result<Bytes, Error> {
    let announced = body.size_hint().exact().unwrap_or(0).min(TRUSTED);
    let mut whole = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    loop {
        let frame = next_frame(body);
        let frame = match tokio::time::timeout(pause, frame).await {
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(unreadable(&error)),
            Err(_) => {
                let message = format!("the body did not go on for {} seconds", pause.as_secs());
                return Err(Error::client(ErrorKind::ClientTimeout, message));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(too_large(limit as u64, "body"));
        }
        share.grow(data.len())?;
        whole.extend_from_slice(&data);
    }
}

async fn next_frame(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

fn unreadable(error: &hyper::Error) -> Error {
    if breaks_the_framing(error) {
        let message = "the body's transfer chunks are malformed: the connection carries something else than its head says";
        return Error::client(ErrorKind::InvalidRequest, message);
    }
    Error::client(ErrorKind::ClientClosed, format!("the request's body could not be read: {error}"))
}

/// Whether the client is there and sends what is no body, as against a client that has left.
fn breaks_the_framing(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| {
        matches!(cause.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData)
    })
}

fn too_large(limit: u64, key: &str) -> Error {
    Error::client(
        ErrorKind::BodyTooLarge,
        format!(
            "the body is larger than the {limit} bytes that this path takes; send less, or raise `server.limits.{key}`"
        ),
    )
}

fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Error> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
    let known = value.to_str().ok().and_then(Coding::parse);
    known.map(Some).ok_or_else(|| {
        Error::client(
            ErrorKind::UnsupportedMediaType,
            "the body's `content-encoding` is not one of gzip, deflate, br, zstd; send it without a coding",
        )
        .param("content-encoding")
    })
}

fn undecodable(error: DecodeError, limit: usize) -> Error {
    match error {
        DecodeError::TooLarge => Error::client(
            ErrorKind::BodyTooLarge,
            format!(
                "the body unpacks to more than the {limit} bytes that this path takes; send less, or raise \
                 `server.limits.body`"
            ),
        ),
        DecodeError::Corrupt | DecodeError::Truncated => Error::client(
            ErrorKind::InvalidRequest,
            format!("the body is not what its `content-encoding` says: {error}"),
        )
        .param("content-encoding"),
    }
}

/// What a streamed request body tells while it goes by.
pub(crate) trait Watch: Send {
    /// A piece, before it goes upstream.
    fn piece(&mut self, data: &Bytes);
}

/// A body that passes through, watched and bounded.
pub(crate) struct Passing<W> {
    body: Incoming,
    left: u64,
    limit: u64,
    watch: W,
}

impl<W> Passing<W> {
    /// Passes `body` on, at most `limit` bytes of it.
    pub(crate) fn new(body: Incoming, limit: u64, watch: W) -> Result<Self, Error> {
        if body.size_hint().exact().is_some_and(|bytes| bytes > limit) {
            return Err(too_large(limit, "upload"));
        }
        Ok(Self { body, left: limit, limit, watch })
    }
}

impl<W: Watch + Unpin> Body for Passing<W> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(unreadable(&error)))),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                return Poll::Ready(Some(Err(too_large(self.limit, "upload"))));
            };
            self.left = left;
            self.watch.piece(data);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
