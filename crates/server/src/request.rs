//! The caller's body where it must be read: held, within a budget, its content coding undone. Where it need not be, it
//! passes through.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use magicapi_dialects::encoding::{self, Coding, DecodeError};
use magicapi_model::{Error, ErrorKind};
use magicapi_upstream::RequestBody;

use crate::body::CallerBody;
use crate::exchange::UploadWatch;
use crate::snapshot::Shared;

/// Bytes of bodies that all requests together may hold. Past it new request bodies are a 503 and answers are no longer
/// collected, which is not the end of the process.
const HELD_BYTES: usize = 2 << 30;

/// A first reservation of an announced length is no larger: whoever announces more has to send it.
pub(crate) const TRUSTED: u64 = 1 << 20;

/// A share of the budget for held bodies; given back when dropped.
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

    /// Makes it this large, unless the budget is used up.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Error> {
        if let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) {
            return self.grow(more);
        }
        self.shared.counts.held_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shared.counts.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a whole body as it was sent. `received` holds what came so far, also of a body whose end never comes.
pub(crate) async fn hold(
    mut body: CallerBody,
    share: &mut Share,
    received: &mut u64,
) -> Result<Bytes, Error> {
    let announced = body.size_hint().exact().unwrap_or(0).min(TRUSTED);
    let mut whole = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(piece) = body.piece(received).await {
        let piece = piece?;
        share.grow(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// What a held body says: the same bytes unless a content coding was undone; and whether one was.
pub(crate) fn plain(
    headers: &HeaderMap,
    raw: &Bytes,
    share: &mut Share,
    limit: usize,
) -> Result<(Bytes, bool), Error> {
    match coding(headers)? {
        None | Some(Coding::Identity) => Ok((raw.clone(), false)),
        Some(coding) => {
            let plain = encoding::decode(coding, raw, limit).map_err(|error| undecodable(error, limit))?;
            share.grow(plain.len())?;
            Ok((plain.into(), true))
        }
    }
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

/// A body that passes through, watched.
pub(crate) struct Passing {
    /// What was read before the request was sent, as it is to be sent.
    beginning: VecDeque<Bytes>,
    rest: CallerBody,
    watch: UploadWatch,
}

impl Passing {
    /// Passes on `beginning`, which has been watched, and then `rest`.
    pub(crate) fn new(beginning: Vec<Bytes>, rest: CallerBody, watch: UploadWatch) -> Self {
        Self { beginning: beginning.into_iter().filter(|piece| !piece.is_empty()).collect(), rest, watch }
    }
}

impl From<Passing> for RequestBody {
    fn from(passing: Passing) -> Self {
        Self::Stream(Box::pin(passing))
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(piece) = self.beginning.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.watch.piece(data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.beginning.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.size_hint().exact();
        let beginning: usize = self.beginning.iter().map(Bytes::len).sum();
        rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(beginning as u64 + rest))
    }
}
