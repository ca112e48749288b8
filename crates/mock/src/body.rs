//! The response body: carries out a plan at the script's pace and with its accidents (splitting,
//! coding, cuts, stalls, errors). Last stage of an answer; dropping it early counts as an abort.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::encode::Encoder;
use crate::ledger::Watch;
use crate::plan::Plan;
use crate::script::Script;

/// Time given to the transport to write out what precedes a cut.
const CUT_GRACE: Duration = Duration::from_millis(2);

/// A response body.
pub(crate) enum MockBody {
    /// One piece: the fast path.
    Whole(Option<Bytes>, Option<Watch>),
    /// A plan at a pace.
    Paced(Box<PacedBody>),
}

impl MockBody {
    /// A body that no request is followed for.
    pub(crate) fn unwatched(data: Bytes) -> Self {
        Self::Whole(Some(data), None)
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(data, watch) => {
                let frame = data.take().map(|d| Ok(Frame::data(d)));
                if let Some(watch) = watch {
                    watch.finish();
                }
                Poll::Ready(frame)
            }
            Self::Paced(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(data, _) => data.is_none(),
            Self::Paced(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data, _) => SizeHint::with_exact(data.as_ref().map_or(0, |d| d.len() as u64)),
            Self::Paced(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// What happens after a given number of events.
pub(crate) enum Accident {
    /// The connection is dropped.
    Cut,
    /// Nothing is ever sent again.
    Stall,
    /// These bytes are the last ones.
    Error(Bytes),
}

/// What a paced body is made from.
pub(crate) struct BodyParts {
    pub(crate) plan: Plan,
    /// Exact size for `content-length`; only without a coding.
    pub(crate) size: Option<u64>,
    pub(crate) encoder: Option<Encoder>,
    pub(crate) accident: Option<(u64, Accident)>,
    pub(crate) heartbeat: Option<Bytes>,
    /// Wait before the first item.
    pub(crate) ttft: Duration,
}

/// Where a paced body is.
enum Phase {
    Running,
    Stalled,
    Cutting,
    Ending,
    Done,
}

/// See [`MockBody::Paced`].
pub(crate) struct PacedBody {
    parts: BodyParts,
    at: usize,
    repeated: u64,
    events: u64,
    left: Option<u64>,
    /// Coded bytes on their way out.
    out: Bytes,
    write_bytes: usize,
    yielded: bool,
    budget: Option<u64>,
    gap: Duration,
    heartbeat_every: Duration,
    due: Option<Instant>,
    /// The wait before the current item is over.
    waited: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    phase: Phase,
    watch: Watch,
}

type PollFrame = Poll<Option<Result<Frame<Bytes>, io::Error>>>;

impl PacedBody {
    pub(crate) fn new(parts: BodyParts, script: &Script, watch: Watch) -> Self {
        Self {
            left: parts.size,
            parts,
            at: 0,
            repeated: 0,
            events: 0,
            out: Bytes::new(),
            write_bytes: script.write_bytes.unwrap_or(usize::MAX).max(1),
            yielded: true,
            budget: script.cut_after_bytes,
            gap: script.gap(),
            heartbeat_every: Duration::from_millis(script.heartbeat_ms.unwrap_or(0).max(1)),
            due: None,
            waited: false,
            sleep: None,
            phase: Phase::Running,
            watch,
        }
    }

    /// Everything is handed over; the coder's last bytes may outlive the last phase.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done) && self.out.is_empty()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> PollFrame {
        loop {
            if self.budget == Some(0) && !self.is_over() {
                self.out = Bytes::new();
                self.phase = Phase::Cutting;
            }
            if !self.out.is_empty() {
                return self.poll_out(cx);
            }
            match self.phase {
                Phase::Done => {
                    self.watch.finish();
                    return Poll::Ready(None);
                }
                Phase::Cutting => {
                    ready!(self.poll_cut(cx));
                }
                Phase::Stalled => ready!(self.poll_silence(cx, None)?),
                Phase::Running => ready!(self.poll_item(cx)?),
                Phase::Ending => {
                    if let Some(encoder) = self.parts.encoder.take() {
                        self.out = encoder.finish()?;
                    }
                    self.phase = Phase::Done;
                }
            }
        }
    }

    /// Gets the next item ready in `out`, after its wait.
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.parts.accident.as_ref().is_some_and(|(after, _)| self.events >= *after) {
            return Poll::Ready(self.strike());
        }
        let Some(item) = self.parts.plan.get(self.at) else {
            self.phase = Phase::Ending;
            return Poll::Ready(Ok(()));
        };
        let wait = match (self.events, item.paced) {
            (0, _) => self.parts.ttft,
            (_, true) => self.gap,
            (_, false) => Duration::ZERO,
        };
        if !self.waited && !wait.is_zero() {
            // From the time the previous item was due, so that a long stream keeps its rate.
            let due = *self.due.get_or_insert_with(Instant::now) + wait;
            ready!(self.poll_silence(cx, Some(due))?);
            if !self.waited {
                return Poll::Ready(Ok(()));
            }
            self.due = Some(due);
        }
        self.waited = false;
        let data = item_data(&self.parts.plan, self.at);
        self.events += 1;
        self.repeated += 1;
        if self.repeated >= self.parts.plan.get(self.at).map_or(0, |i| i.repeat) {
            self.repeated = 0;
            self.at += 1;
        }
        self.send(data)?;
        Poll::Ready(Ok(()))
    }

    fn strike(&mut self) -> io::Result<()> {
        match self.parts.accident.take() {
            Some((_, Accident::Cut)) => self.phase = Phase::Cutting,
            Some((_, Accident::Stall)) => self.phase = Phase::Stalled,
            Some((_, Accident::Error(last))) => {
                self.phase = Phase::Ending;
                self.send(last)?;
            }
            None => {}
        }
        Ok(())
    }

    fn send(&mut self, data: Bytes) -> io::Result<()> {
        self.out = match &mut self.parts.encoder {
            Some(encoder) => encoder.encode(&data)?,
            None => data,
        };
        Ok(())
    }

    /// Waits until `due` (or for ever), with heartbeats. Sets `waited` when the wait is over, or
    /// `out` when a heartbeat is due.
    fn poll_silence(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> Poll<io::Result<()>> {
        let sleep = if let Some(sleep) = &mut self.sleep {
            sleep
        } else {
            let beat = self.parts.heartbeat.as_ref().map(|_| Instant::now() + self.heartbeat_every);
            let Some(until) = due.into_iter().chain(beat).min() else { return Poll::Pending };
            self.sleep.insert(Box::pin(tokio::time::sleep_until(until)))
        };
        ready!(sleep.as_mut().poll(cx));
        self.sleep = None;
        match (due, &self.parts.heartbeat) {
            (Some(due), _) if Instant::now() >= due => self.waited = true,
            (_, Some(beat)) => {
                let beat = beat.clone();
                self.send(beat)?;
            }
            (_, None) => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the transport time to write what was handed over, then has the connection dropped.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(CUT_GRACE)));
        ready!(sleep.as_mut().poll(cx));
        if self.watch.connection().write_blocked.load(Ordering::Relaxed) {
            self.sleep = None;
            return Poll::Ready(());
        }
        self.watch.connection().kill();
        // The connection takes this body with it.
        self.phase = Phase::Stalled;
        self.parts.heartbeat = None;
        self.budget = None;
        self.sleep = None;
        Poll::Ready(())
    }

    /// Hands over the next write.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> PollFrame {
        if self.write_bytes != usize::MAX && !std::mem::replace(&mut self.yielded, true) {
            // A pause between two writes makes the transport flush the first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        let budget = self.budget.map_or(usize::MAX, |b| usize::try_from(b).unwrap_or(usize::MAX));
        let take = self.out.len().min(self.write_bytes).min(budget);
        let piece = self.out.split_to(take);
        self.budget = self.budget.map(|b| b - take as u64);
        self.left = self.left.map(|l| l.saturating_sub(take as u64));
        if self.left == Some(0) {
            self.phase = Phase::Done;
        }
        if self.is_over() {
            // The transport knows the end by `is_end_stream` or by the size, and asks no more.
            self.watch.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

fn item_data(plan: &Plan, at: usize) -> Bytes {
    plan.get(at).map(|item| item.data.clone()).unwrap_or_default()
}
