//! A provider's event stream on its way to the caller: whole events at once, usage read on the way, exactly one end
//! (invariants 1, 3, 4).

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame};
use magicapi_dialects::encoding::Coding;
use magicapi_dialects::openai_chat::{Operation, StreamReader, error};
use magicapi_dialects::sse::{Event, Framer, HEARTBEAT, Relayed, Verdict};
use magicapi_kernel::OnClientGone;
use magicapi_model::{Error, ErrorKind, Retry};
use magicapi_upstream::ResponseBody;
use tokio::time::Instant;

use crate::exchange::{Ending, Exchange, Learned};
use crate::rescue;
use crate::shutdown::Cut;
use crate::timer::{Deadlines, Timer};
use crate::unpack::Unpacker;

/// A larger event is handed on as read.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// After the last choice's finish reason, how long a usage event or `[DONE]` may take.
const GRACE: Duration = Duration::from_secs(5);

/// How long the provider may take to close a stream that has ended, so that its connection can be used again.
const CLOSING: Duration = Duration::from_secs(1);

/// What a draining stream may still read.
const DRAINED_BYTES: u64 = 64 << 20;

/// Relays events.
pub(crate) struct StreamRelay(Option<Box<State>>);

struct State {
    exchange: Box<Exchange>,
    upstream: Option<ResponseBody>,
    framer: Framer,
    reader: StreamReader,
    /// Undoes a content coding that nobody asked for, beside the relay.
    unpacker: Unpacker,
    compressed: bool,
    /// The stream of a path that is passed through: its grammar is not ours to judge, so nothing is left out or added.
    foreign: bool,
    outgoing: VecDeque<Bytes>,
    /// How it ends, once `outgoing` is empty.
    ending: Option<Ending>,
    began: bool,
    /// Whether an event went out: what only keeps the connection open is no first byte.
    spoke: bool,
    /// Whether the listener asked for the body, and so has taken the head.
    asked: bool,
    read_bytes: u64,
    last_sent: Instant,
    last_progress: Instant,
    deadlines: Deadlines,
    timer: Timer,
    cut: Cut,
    on_client_gone: OnClientGone,
}

impl StreamRelay {
    /// Relays `upstream`. `asked_usage`: the usage event is ours to hide.
    pub(crate) fn new(
        exchange: Box<Exchange>,
        upstream: ResponseBody,
        headers: &HeaderMap,
        asked_usage: bool,
        deadlines: Deadlines,
        on_client_gone: OnClientGone,
    ) -> Self {
        let coding = headers
            .get(header::CONTENT_ENCODING)
            .map(|value| value.to_str().ok().and_then(Coding::parse))
            .filter(|coding| *coding != Some(Coding::Identity));
        let foreign = matches!(exchange.operation, Operation::Other | Operation::Files | Operation::Batches);
        let now = Instant::now();
        let cut = Cut::new(&exchange.shared);
        Self(Some(Box::new(State {
            exchange,
            upstream: Some(upstream),
            framer: Framer::new(MAX_EVENT_BYTES),
            reader: StreamReader::new(asked_usage),
            compressed: coding.is_some(),
            foreign,
            unpacker: Unpacker::new(coding.flatten()),
            outgoing: VecDeque::new(),
            ending: None,
            began: false,
            spoke: false,
            asked: false,
            read_bytes: 0,
            last_sent: now,
            last_progress: now,
            deadlines,
            timer: Timer::default(),
            cut,
            on_client_gone,
        })))
    }

    /// The next bytes.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(state) = &mut self.0 else { return Poll::Ready(None) };
        state.asked = true;
        std::task::ready!(state.fill(cx));
        let Some(bytes) = state.outgoing.pop_front() else {
            let Some(state) = self.0.take() else { return Poll::Ready(None) };
            return Poll::Ready(state.end().map(Err));
        };
        state.last_sent = Instant::now();
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
        state.exchange.dropped(state.asked);
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
                        self.take(data, cx);
                    }
                }
                Poll::Ready(Some(Err(error))) => self.broken(error),
                Poll::Ready(None) => self.closed(),
                Poll::Pending => {
                    if self.wait(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
        Poll::Ready(())
    }

    /// Takes one chunk as the provider sent it.
    fn take(&mut self, chunk: Bytes, cx: &mut Context<'_>) {
        if chunk.is_empty() {
            return;
        }
        self.read_bytes += chunk.len() as u64;
        let reader = &mut self.reader;
        let foreign = self.foreign;
        let (mut semantic, mut terminal, mut late) = (false, false, 0);
        let mut spoke = false;
        let mut judge = |event: &Event<'_>| {
            let facts = reader.read(event);
            spoke |= event.has_data;
            late += if terminal { event.raw.len() } else { 0 };
            semantic |= facts.semantic || foreign;
            terminal |= facts.terminal && !foreign;
            if foreign { Verdict::Forward } else { facts.verdict }
        };
        let mut relayed = Relayed::default();
        if self.compressed {
            let framer = &mut self.framer;
            let take = |plain| relayed.oversize |= framer.relay(plain, &mut judge).oversize;
            self.unpacker.feed(&chunk, take);
            spoke |= !self.unpacker.reads();
        } else {
            relayed = self.framer.relay(chunk.clone(), judge);
        }
        // What follows the end is no part of the answer, and whether it came in the same read is chance.
        late = if terminal && !self.compressed { late + self.framer.buffered() } else { 0 };
        let kept = chunk.len().saturating_sub(late);
        self.exchange.response_chunk(chunk.get(..kept).unwrap_or_default());
        let mut bytes = if self.compressed { chunk } else { relayed.bytes };
        if terminal && !self.compressed && bytes.ends_with(b"\r\n\r") {
            // The last LF is still on its way, and nobody will wait for it.
            bytes = [&bytes, b"\n".as_slice()].concat().into();
        }
        if !bytes.is_empty() {
            self.outgoing.push_back(bytes);
        }
        self.spoke |= spoke || relayed.oversize;
        if semantic {
            self.began = true;
            self.last_progress = Instant::now();
        }
        if terminal && !self.compressed {
            self.conclude();
            self.release(cx);
        }
    }

    /// The stream said that it is over: adds the terminator when the provider's is missing.
    fn conclude(&mut self) {
        let facts = self.reader.facts();
        if let Some(said) = &facts.error {
            let message = format!("the provider ended the stream with an error: {}", said.message);
            self.exchange.facts.provider_error_type = Some(ErrorKind::ProviderStreamError.as_str());
            self.ending =
                Some(Ending::Failed(Error::provider(ErrorKind::ProviderStreamError, Retry::Later, message)));
            return;
        }
        if self.exchange.operation.ends_with_done() && !facts.saw_done && !self.compressed {
            self.say(Bytes::from_static(error::DONE));
        }
        self.ending = Some(Ending::Completed);
    }

    /// The provider closed the stream.
    fn closed(&mut self) {
        self.upstream = None;
        let reader = &mut self.reader;
        let foreign = self.foreign;
        let rest = self.framer.finish(|event| {
            let verdict = reader.read(event).verdict;
            if foreign { Verdict::Forward } else { verdict }
        });
        if !self.compressed {
            let end = Bytes::from_static(rest.missing_end);
            self.outgoing.extend([rest.bytes, end].into_iter().filter(|bytes| !bytes.is_empty()));
        }
        let facts = self.reader.facts();
        // What could not be read cannot be found wanting: the transfer was whole.
        let unreadable = self.compressed && !self.unpacker.reads();
        let may_end = unreadable || !must_terminate(self.exchange.operation);
        if facts.error.is_some() || facts.is_complete() || may_end {
            self.conclude();
        } else {
            let message = "the provider closed the stream before its answer was whole";
            self.fail(Error::provider(ErrorKind::StreamTruncated, Retry::Later, message));
        }
    }

    /// The connection to the provider broke.
    fn broken(&mut self, error: Error) {
        self.upstream = None;
        if self.reader.facts().is_complete() {
            return self.conclude();
        }
        let message = format!("the provider's stream broke off: {}", error.message);
        self.fail(Error::provider(ErrorKind::StreamTruncated, Retry::Later, message).source(error));
    }

    /// Ends the stream with an error frame in the caller's dialect.
    fn fail(&mut self, error: Error) {
        self.upstream = None;
        if self.takes_events_of_ours() {
            self.say(rescue::stream_event(&error));
        }
        self.ending = Some(Ending::Failed(error));
    }

    /// Adds a last event of ours. One over the limit that was on its way is ended first, lest ours become part of it.
    fn say(&mut self, event: Bytes) {
        let rest = self.framer.finish(|_| Verdict::Drop);
        let end = Bytes::from_static(rest.missing_end);
        self.outgoing.extend([end, event].into_iter().filter(|bytes| !bytes.is_empty()));
        self.spoke = true;
    }

    /// Whether a heartbeat or an error frame may stand in the stream: not in compressed bytes, nor in a grammar that is
    /// not ours. Such a stream can only be cut.
    const fn takes_events_of_ours(&self) -> bool {
        !self.compressed && !self.foreign
    }

    /// Nothing came: looks at the timers. Ready when one of them did something.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.poll(cx) {
            self.fail(Error::gateway(ErrorKind::ShuttingDown, "the gateway is shutting down; ask again"));
            return Poll::Ready(());
        }
        let heartbeat = self.exchange.snapshot.config.server.heartbeat;
        let (deadline, kind) = if self.began {
            self.deadlines.between(self.last_progress)
        } else {
            self.deadlines.before_first()
        };
        let graced = (!self.foreign && self.reader.facts().saw_finish).then(|| self.last_progress + GRACE);
        let quiet = self.takes_events_of_ours() && self.framer.between_events();
        let beat = quiet.then(|| self.last_sent + heartbeat);
        let next = [Some(deadline), graced, beat].into_iter().flatten().min().unwrap_or(deadline);
        if !self.timer.poll(cx, next) {
            return Poll::Pending;
        }
        let now = Instant::now();
        if graced.is_some_and(|at| now >= at) {
            self.upstream = None;
            self.conclude();
        } else if now >= deadline {
            let error = self.deadlines.error(kind);
            self.fail(error);
        } else if beat.is_some_and(|at| now >= at) {
            self.outgoing.push_back(Bytes::from_static(HEARTBEAT));
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
            Some(Ending::Failed(_)) => self.takes_events_of_ours(),
            Some(_) => true,
            None => false,
        }
    }

    /// Ends the exchange. An error comes back when the connection must say that the answer is not whole.
    fn end(mut self: Box<Self>) -> Option<Error> {
        let ending = self.ending.take().unwrap_or(Ending::ClientClosed);
        let facts = self.reader.facts();
        self.exchange.learn(Learned {
            usage: facts.usage,
            complete: facts.is_complete(),
            service_tier: facts.service_tier.clone(),
            finish_reasons: facts
                .finish_reasons
                .iter()
                .filter_map(|choice| choice.finish_reason.clone())
                .collect(),
        });
        let shown = match &ending {
            Ending::Failed(error) if !self.takes_events_of_ours() => {
                Some(Error::provider(error.kind, error.retry, error.message.clone()))
            }
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

/// Whether an end without a terminator is an error here. Other streams have no terminator that we know of.
const fn must_terminate(operation: Operation) -> bool {
    matches!(operation, Operation::Chat | Operation::Completions | Operation::Responses)
}

async fn next_frame(body: &mut ResponseBody) -> Option<Result<Frame<Bytes>, Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}
