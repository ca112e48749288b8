//! A provider's body that is no event stream: handed on as read, read for its usage at its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use magicapi_dialects::encoding::{self, Coding};
use magicapi_dialects::openai_chat::{error, response};
use magicapi_kernel::OnClientGone;
use magicapi_model::{Error, ErrorKind, Retry};
use magicapi_upstream::ResponseBody;
use tokio::time::Instant;

use crate::exchange::{Ending, Exchange, Learned};
use crate::request::{Share, TRUSTED};
use crate::rescue;
use crate::timer::{Deadlines, Timer};

/// Hands a body on.
pub(crate) struct Relay(Option<Box<State>>);

struct State {
    exchange: Box<Exchange>,
    upstream: ResponseBody,
    status: StatusCode,
    coding: Option<Coding>,
    /// The body so far, while it is short enough to be read whole.
    collected: Option<Vec<u8>>,
    /// What `collected` takes of the budget for held bodies.
    share: Share,
    limit: usize,
    announced: Option<u64>,
    received: u64,
    deadlines: Deadlines,
    timer: Timer,
    last_progress: Instant,
    on_client_gone: OnClientGone,
}

impl Relay {
    /// Relays `upstream`, whose head was `status` and `headers`. A body that may be JSON is collected beside, up to the
    /// limit for held bodies.
    pub(crate) fn new(
        exchange: Box<Exchange>,
        upstream: ResponseBody,
        status: StatusCode,
        headers: &HeaderMap,
        deadlines: Deadlines,
        on_client_gone: OnClientGone,
    ) -> Self {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        // An answer to HEAD, a 204 and a 304 announce a body that does not come.
        let bodiless = exchange.facts.method == "HEAD" || matches!(status.as_u16(), 204 | 304);
        let announced = length.filter(|_| !bodiless);
        let coding = headers.get(header::CONTENT_ENCODING).and_then(|v| Coding::parse(v.to_str().ok()?));
        let limit = exchange.snapshot.config.server.limits.body;
        let collected = may_be_json(headers).then(|| {
            let room = announced.unwrap_or(0).min(limit as u64).min(TRUSTED);
            Vec::with_capacity(usize::try_from(room).unwrap_or(0))
        });
        let share = Share::none(exchange.shared.clone());
        let mut relay = Self(Some(Box::new(State {
            exchange,
            upstream,
            status,
            coding,
            collected,
            share,
            limit,
            announced,
            received: 0,
            deadlines,
            timer: Timer::default(),
            last_progress: Instant::now(),
            on_client_gone,
        })));
        // An answer without a body is given with its head: the listener does not ask for one.
        if relay.0.as_ref().is_some_and(|state| state.is_whole()) {
            relay.end(Ending::Completed);
        }
        relay
    }

    /// The next piece.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(state) = &mut self.0 else { return Poll::Ready(None) };
        state.exchange.head_taken();
        match state.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(data))) => {
                state.exchange.handed_over(data.len(), true);
                if state.is_whole() {
                    self.end(Ending::Completed);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(None) => {
                self.end(Ending::Completed);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let shown = rescue::unfinished(&error);
                self.end(Ending::Failed(error));
                Poll::Ready(Some(Err(shown)))
            }
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_none()
    }

    /// What is left, when the provider announced it.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.0.as_ref().map(|state| state.announced.map(|all| all.saturating_sub(state.received))) {
            None => SizeHint::with_exact(0),
            Some(Some(left)) => SizeHint::with_exact(left),
            Some(None) => SizeHint::default(),
        }
    }

    fn end(&mut self, ending: Ending) {
        if let Some(state) = self.0.take() {
            let whole = matches!(ending, Ending::Completed);
            state.end(ending, whole);
        }
    }
}

impl Drop for Relay {
    /// The client left. By default the upstream goes with it; a provider that bills the whole answer anyway is read on.
    fn drop(&mut self) {
        let Some(mut state) = self.0.take() else { return };
        state.exchange.client_left();
        if state.on_client_gone == OnClientGone::Drain && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(state.drain());
        } else {
            state.end(Ending::ClientClosed, false);
        }
    }
}

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            match Pin::new(&mut self.upstream).poll_frame(cx) {
                Poll::Ready(None) if self.announced.is_some_and(|all| self.received < all) => {
                    let message = "the provider closed the connection before its answer was whole";
                    return Poll::Ready(Some(Err(Error::provider(
                        ErrorKind::StreamTruncated,
                        Retry::Later,
                        message,
                    ))));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(rescue::broke_off(error)))),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if data.is_empty() {
                        continue;
                    }
                    self.take(&data);
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Pending => {
                    let (deadline, kind) = self.deadlines.of_body(self.last_progress);
                    if self.timer.poll(cx, deadline) {
                        return Poll::Ready(Some(Err(self.deadlines.error(kind))));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn take(&mut self, data: &Bytes) {
        self.received += data.len() as u64;
        self.last_progress = Instant::now();
        match &mut self.collected {
            Some(collected)
                if collected.len() + data.len() <= self.limit && self.share.grow(data.len()).is_ok() =>
            {
                collected.extend_from_slice(data);
            }
            Some(_) => {
                // Too long to be held, by itself or with all others: from here on the tap gets pieces, and the usage stays unknown.
                let collected = self.collected.take().unwrap_or_default();
                self.exchange.response_chunk(&collected);
                self.exchange.response_chunk(data);
            }
            None => self.exchange.response_chunk(data),
        }
    }

    /// Whether the last byte that was announced has come: the listener may not ask again.
    fn is_whole(&self) -> bool {
        self.announced == Some(self.received) || self.upstream.is_end_stream()
    }

    /// `whole`: the provider's answer was read to its end, whoever was still there to take it.
    fn end(mut self: Box<Self>, ending: Ending, whole: bool) {
        let mut said = None;
        if let Some(collected) = self.collected.take() {
            let body = Bytes::from(collected);
            said = self.read(&body, whole);
            self.exchange.response_whole(body);
        }
        let ending = match ending {
            Ending::Completed if !self.status.is_success() => Ending::Failed(self.refused(said)),
            Ending::Completed => match said {
                Some(error) => Ending::Failed(Error::provider(
                    ErrorKind::ProviderStreamError,
                    Retry::Later,
                    format!(
                        "the provider answered {} with an error: {}",
                        self.status.as_u16(),
                        error.message
                    ),
                )),
                None => Ending::Completed,
            },
            other => other,
        };
        self.exchange.finish(ending);
    }

    /// Reads usage and the like; returns the error that the body carries.
    fn read(&mut self, body: &Bytes, whole: bool) -> Option<error::ProviderError> {
        let plain = match self.coding {
            None | Some(Coding::Identity) => body.clone(),
            Some(coding) => encoding::decode(coding, body, self.limit).ok()?.into(),
        };
        if !self.status.is_success() {
            return error::read(&plain);
        }
        let facts = response::read(&plain, self.exchange.operation);
        self.exchange.learn(Learned {
            usage: facts.usage,
            complete: whole,
            service_tier: facts.service_tier,
            finish_reasons: facts.finish_reasons,
        });
        facts.error
    }

    fn refused(&self, said: Option<error::ProviderError>) -> Error {
        let status = self.status.as_u16();
        let message = match said {
            Some(error) => format!("the provider answered {status}: {}", error.message),
            None => format!("the provider answered {status}"),
        };
        Error::provider(ErrorKind::ProviderStatus, Retry::Later, message)
    }

    async fn drain(mut self: Box<Self>) {
        let shared = self.exchange.shared.clone();
        let whole = tokio::select! {
            whole = self.read_on() => whole,
            () = shared.phases.cutting() => false,
        };
        self.end(Ending::ClientClosed, whole);
    }

    /// Reads on for nobody, up to the limit; tells whether it came to the end.
    async fn read_on(&mut self) -> bool {
        loop {
            match std::future::poll_fn(|cx| self.poll(cx)).await {
                None => return true,
                Some(Ok(_)) if self.received <= self.limit as u64 => {}
                Some(_) => return false,
            }
        }
    }
}

/// Whether a body is worth collecting: JSON by its type, or of no stated type.
fn may_be_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().contains("json")))
}
