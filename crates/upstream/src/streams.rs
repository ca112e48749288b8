//! One exchange on an HTTP/2 stream: the request's head and body out, the answer's head and body in.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use magicapi_model::Error;

use crate::body::RequestBody;
use crate::fault;
use crate::h2::H2Lease;

/// Why an exchange failed.
pub(crate) enum Failure {
    /// Never begun: the request is whole.
    Unsent(Box<Request<RequestBody>>),
    /// h2's reason, after the request was handed over.
    H2(h2::Error),
    /// The request body's own error.
    Body(Error),
}

impl Failure {
    /// Whether the peer says that it did not look at the request.
    pub(crate) fn is_refused(&self) -> bool {
        match self {
            Self::Unsent(_) => true,
            Self::H2(e) => {
                e.is_remote()
                    && (e.is_go_away() || e.is_reset() && e.reason() == Some(Reason::REFUSED_STREAM))
            }
            Self::Body(_) => false,
        }
    }

    /// Whether the connection broke below HTTP/2.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Self::H2(e) if e.is_io())
    }
}

/// Sends the request and waits for the answer's head. Dropping the future resets the stream.
pub(crate) async fn exchange(
    lease: H2Lease,
    mut request: Request<RequestBody>,
) -> Result<Response<H2Body>, (Failure, H2Lease)> {
    let mut sender = lease.sender();
    if poll_fn(|cx| sender.poll_ready(cx)).await.is_err() {
        return Err((Failure::Unsent(Box::new(request)), lease));
    }
    set_length(&mut request);
    let (head, body) = request.into_parts();
    let ends = body.is_end_stream();
    let (mut answer, mut stream) = match sender.send_request(Request::from_parts(head, ()), ends) {
        Ok(pair) => pair,
        Err(e) => return Err((Failure::H2(e), lease)),
    };
    let mut pump = match body {
        _ if ends => None,
        // Given whole, h2 sends it as the windows open; the bytes are shared, not copied.
        RequestBody::Full(bytes) => {
            // It fails when the peer has ended the stream already: why is told by the answer's side.
            let _ = stream.send_data(bytes, true);
            None
        }
        body @ RequestBody::Stream(_) => Some(Box::new(Pump { body, stream, held: Bytes::new() })),
    };
    let answered = poll_fn(|cx| {
        if let Some(running) = &mut pump
            && let Poll::Ready(sent) = running.poll(cx)
        {
            pump = None;
            if let Err(error) = sent {
                return Poll::Ready(Err(Failure::Body(error)));
            }
        }
        Pin::new(&mut answer).poll(cx).map_err(Failure::H2)
    });
    match answered.await {
        Ok(response) => {
            Ok(response.map(|recv| H2Body { recv, pump, lease: Some(lease), in_trailers: false }))
        }
        Err(failure) => Err((failure, lease)),
    }
}

fn set_length(request: &mut Request<RequestBody>) {
    let Some(length) = request.body().size_hint().exact() else { return };
    let customary = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
    if (length > 0 || customary) && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Feeds a streamed request body to its stream, as the windows open.
struct Pump {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// Read from the body, not yet sent.
    held: Bytes,
}

impl Pump {
    /// Ready when the body has ended, was cut by the peer, or failed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if !self.held.is_empty() {
                self.stream.reserve_capacity(self.held.len());
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(room)) => {
                        let part = self.held.split_to(room.min(self.held.len()));
                        let last = self.held.is_empty() && self.body.is_end_stream();
                        // What ended the stream is told by the answer's side.
                        if self.stream.send_data(part, last).is_err() || last {
                            return Poll::Ready(Ok(()));
                        }
                        continue;
                    }
                    Some(Err(_)) | None => return Poll::Ready(Ok(())),
                }
            }
            if let Poll::Ready(Ok(_) | Err(_)) = self.stream.poll_reset(cx) {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.held = data,
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            let _ = self.stream.send_trailers(trailers);
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Some(Err(error)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

/// The answer's body on its stream. Dropped before its end, the stream is reset: both halves go with it.
pub(crate) struct H2Body {
    recv: RecvStream,
    pump: Option<Box<Pump>>,
    /// Given up at the end, so that the place is free before the body is dropped.
    lease: Option<H2Lease>,
    in_trailers: bool,
}

impl H2Body {
    fn ends(&mut self) {
        self.lease = None;
    }

    fn fails(&mut self, error: &h2::Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(lease) = self.lease.take() else { return Poll::Ready(None) };
        // RFC 9113, 8.1: an answer that was whole before the request was.
        if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Err(fault::of_h2(error, lease.origin().place(), "within its answer"))))
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        if let Some(pump) = &mut self.pump
            && let Poll::Ready(sent) = pump.poll(cx)
        {
            self.pump = None;
            if let Err(error) = sent {
                self.ends();
                return Poll::Ready(Some(Err(error)));
            }
        }
        if !self.in_trailers {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Cannot fail: no more is released than was received.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    if self.recv.is_end_stream() && self.pump.is_none() {
                        self.ends();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return self.fails(&error),
                None => self.in_trailers = true,
            }
        }
        match ready!(self.recv.poll_trailers(cx)) {
            Ok(trailers) => {
                self.ends();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => self.fails(&error),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.lease.is_none() || self.recv.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.recv.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
