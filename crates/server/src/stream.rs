//! A provider's event stream on its way to the caller: whole events at once, usage read on the way, exactly one end
//! (invariants 1, 3, 4). `events.rs` reads, `pace.rs` keeps the time; here is what they come to.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use magicapi_dialects::openai_chat::error;
use magicapi_dialects::sse::HEARTBEAT;
use magicapi_kernel::OnClientGone;
use magicapi_model::{Error, ErrorKind, Retry};
use magicapi_upstream::ResponseBody;

use crate::events::{Events, Said};
use crate::exchange::{Ending, Exchange};
use crate::pace::{Due, Pace};
use crate::phase::Cut;
use crate::rescue;
use crate::timer::Deadlines;

/// How long the provider may take to close a stream that has ended, so that its connection can be used again.
const CLOSING: Duration = Duration::from_secs(1);

/// What a draining stream may still read.
const DRAINED_BYTES: u64 = 64 << 20;

/// Relays events.
pub(crate) struct StreamRelay(Option<Box<State>>);

struct State {
    exchange: Box<Exchange>,
    upstream: Option<ResponseBody>,
    events: Events,
    pace: Pace,
    outgoing: VecDeque<Bytes>,
    /// Whether an event went out: what only keeps the connection open is no first byte.
    spoke: bool,
    /// How it ends, once `outgoing` is empty.
    ending: Option<Ending>,
    read_bytes: u64,
    on_client_gone: OnClientGone,
}

impl StreamRelay {
    /// Relays `upstream`, whose events are read by `events`.
    pub(crate) fn new(
        exchange: Box<Exchange>,
        upstream: ResponseBody,
        events: Events,
        deadlines: Deadlines,
        on_client_gone: OnClientGone,
    ) -> Self {
        let pace = Pace::new(deadlines, Cut::new(&exchange.shared.phases));
        Self(Some(Box::new(State {
            exchange,
            upstream: Some(upstream),
            events,
            pace,
            outgoing: VecDeque::new(),
            spoke: false,
            ending: None,
            read_bytes: 0,
            on_client_gone,
        })))
    }

    /// The next bytes.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(state) = &mut self.0 else { return Poll::Ready(None) };
        state.exchange.head_taken();
        std::task::ready!(state.fill(cx));
        let Some(bytes) = state.outgoing.pop_front() else {
            let Some(state) = self.0.take() else { return Poll::Ready(None) };
            return Poll::Ready(state.end().map(Err));
        };
        state.pace.sent();
        state.exchange.handed_over(bytes.len(), state.spoke);
        if state.outgoing.is_empty()
            && state.ends_cleanly()
            && let Some(state) = self.0.take()
        {
            state.end();
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// Whether nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_none()
    }
}

impl Drop for StreamRelay {
    /// The client left. By default the upstream goes with it; a provider that bills the whole answer anyway is read on.
    fn drop(&mut self) {
        let Some(mut state) = self.0.take() else { return };
        state.exchange.client_left();
        let drains = state.on_client_gone == OnClientGone::Drain && state.ending.is_none();
        if drains && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(state.drain());
        } else {
            state.ending = Some(Ending::ClientClosed);
            state.end();
        }
    }
}

impl State {
    /// Reads until there is something to send or the end is known.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.outgoing.is_empty() && self.ending.is_none() {
            let Some(upstream) = &mut self.upstream else { break };
            match Pin::new(upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.take(&data, cx);
                    }
                }
                Poll::Ready(Some(Err(error))) => self.broken(error),
                Poll::Ready(None) => self.closed(),
                Poll::Pending => std::task::ready!(self.wait(cx)),
            }
        }
        Poll::Ready(())
    }

    /// Takes one chunk as the provider sent it.
    fn take(&mut self, chunk: &Bytes, cx: &mut Context<'_>) {
        self.read_bytes += chunk.len() as u64;
        let piece = self.events.take(chunk.clone());
        self.exchange.response_chunk(chunk.get(..piece.answer).unwrap_or_default());
        self.send(piece.bytes);
        self.spoke |= piece.said >= Said::Event;
        if piece.said >= Said::Word {
            self.pace.progressed();
        }
        if piece.said == Said::End {
            self.conclude();
            self.release(cx);
        }
    }

    fn send(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.outgoing.push_back(bytes);
        }
    }

    /// Adds a last event of ours.
    fn say(&mut self, event: Bytes) {
        let end = self.events.break_off();
        self.send(end);
        self.send(event);
        self.spoke = true;
    }

    /// The stream said that it is over: adds the terminator when the provider's is missing.
    fn conclude(&mut self) {
        if let Some(said) = &self.events.facts().error {
            let message = format!("the provider ended the stream with an error: {}", said.message);
            self.exchange.facts.provider_error_type = Some(ErrorKind::ProviderStreamError.as_str());
            self.ending =
                Some(Ending::Failed(Error::provider(ErrorKind::ProviderStreamError, Retry::Later, message)));
            return;
        }
        if self.events.lacks_done(self.exchange.operation) {
            self.say(Bytes::from_static(error::DONE));
        }
        self.ending = Some(Ending::Completed);
    }

    /// The provider closed the stream.
    fn closed(&mut self) {
        self.upstream = None;
        for bytes in self.events.finish() {
            self.send(bytes);
        }
        if self.events.may_close(self.exchange.operation) {
            self.conclude();
        } else {
            let message = "the provider closed the stream before its answer was whole";
            self.fail(Error::provider(ErrorKind::StreamTruncated, Retry::Later, message));
        }
    }

    /// The connection to the provider broke.
    fn broken(&mut self, error: Error) {
        self.upstream = None;
        if self.events.facts().is_complete() {
            self.conclude();
        } else {
            self.fail(rescue::broke_off(error));
        }
    }

    /// Ends the stream with an error frame in the caller's dialect.
    fn fail(&mut self, error: Error) {
        self.upstream = None;
        if self.events.takes_ours() {
            self.say(rescue::stream_event(&error));
        }
        self.ending = Some(Ending::Failed(error));
    }

    /// Nothing came: looks at the clocks. Ready when one of them did something.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let heartbeat = self.exchange.snapshot.config.server.heartbeat;
        let heartbeat = self.events.takes_heartbeat().then_some(heartbeat);
        match std::task::ready!(self.pace.poll(cx, self.events.is_finished(), heartbeat)) {
            Due::Cut => self.fail(crate::shutdown::cut_off()),
            Due::Failure(error) => self.fail(error),
            Due::Heartbeat => self.outgoing.push_back(Bytes::from_static(HEARTBEAT)),
            Due::End => {
                self.upstream = None;
                self.conclude();
            }
        }
        Poll::Ready(())
    }

    /// Lets go of a stream that has ended; its connection is kept when the provider closes the body in time.
    fn release(&mut self, cx: &mut Context<'_>) {
        let Some(mut upstream) = self.upstream.take() else { return };
        if upstream.is_end_stream() || matches!(Pin::new(&mut upstream).poll_frame(cx), Poll::Ready(None)) {
            return;
        }
        tokio::spawn(async move {
            let rest = async { while next_frame(&mut upstream).await.is_some_and(|frame| frame.is_ok()) {} };
            let _ = tokio::time::timeout(CLOSING, rest).await;
        });
    }

    /// Whether the end follows the last bytes without a word.
    fn ends_cleanly(&self) -> bool {
        match &self.ending {
            Some(Ending::Failed(_)) => self.events.takes_ours(),
            Some(_) => true,
            None => false,
        }
    }

    /// Ends the exchange. An error comes back when the connection must say that the answer is not whole.
    fn end(mut self: Box<Self>) -> Option<Error> {
        let ending = self.ending.take().unwrap_or(Ending::ClientClosed);
        self.exchange.learn(self.events.learned());
        let shown = match &ending {
            Ending::Failed(error) if !self.events.takes_ours() => Some(rescue::unfinished(error)),
            _ => None,
        };
        self.exchange.finish(ending);
        shown
    }

    async fn drain(mut self: Box<Self>) {
        while self.ending.is_none() && self.read_bytes < DRAINED_BYTES {
            std::future::poll_fn(|cx| self.fill(cx)).await;
            self.outgoing.clear();
        }
        self.ending = Some(Ending::ClientClosed);
        self.end();
    }
}

async fn next_frame(body: &mut ResponseBody) -> Option<Result<Frame<Bytes>, Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}
