//! When a stream that says nothing must hear something: the cut, the attempt's deadlines, the grace after the last
//! choice's finish, the heartbeat.

use std::task::{Context, Poll};
use std::time::Duration;

use magicapi_model::Error;
use tokio::time::Instant;

use crate::phase::Cut;
use crate::timer::{Deadlines, Timer};

/// After the last choice's finish reason, how long a usage event or `[DONE]` may take.
const GRACE: Duration = Duration::from_secs(5);

/// What silence comes to.
pub(crate) enum Due {
    /// The process ends what is left.
    Cut,
    /// The answer was whole and nothing follows.
    End,
    /// The provider took too long.
    Failure(Error),
    /// The client hears that the connection lives.
    Heartbeat,
}

/// The clocks of one stream.
pub(crate) struct Pace {
    deadlines: Deadlines,
    timer: Timer,
    cut: Cut,
    sent: Instant,
    /// The last semantic byte, once there was one.
    progress: Option<Instant>,
}

impl Pace {
    /// Starts the clocks.
    pub(crate) fn new(deadlines: Deadlines, cut: Cut) -> Self {
        Self { deadlines, timer: Timer::default(), cut, sent: Instant::now(), progress: None }
    }

    /// Something was sent to the client.
    pub(crate) fn sent(&mut self) {
        self.sent = Instant::now();
    }

    /// The provider made progress.
    pub(crate) fn progressed(&mut self) {
        self.progress = Some(Instant::now());
    }

    /// Whether the silence has lasted too long; else the task is woken when it has. `finished`: the answer is whole.
    /// `heartbeat`: how often the client hears something, while it may.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        finished: bool,
        heartbeat: Option<Duration>,
    ) -> Poll<Due> {
        if self.cut.poll(cx) {
            return Poll::Ready(Due::Cut);
        }
        let (deadline, kind) = match self.progress {
            Some(progress) => self.deadlines.between(progress),
            None => self.deadlines.before_first(),
        };
        let grace = self.progress.filter(|_| finished).map(|progress| progress + GRACE);
        let beat = heartbeat.map(|heartbeat| self.sent + heartbeat);
        let next = [grace, beat].into_iter().flatten().fold(deadline, Instant::min);
        if !self.timer.poll(cx, next) {
            return Poll::Pending;
        }
        let now = Instant::now();
        Poll::Ready(match grace {
            Some(grace) if now >= grace => Due::End,
            _ if now >= deadline => Due::Failure(self.deadlines.error(kind)),
            _ => Due::Heartbeat,
        })
    }
}
