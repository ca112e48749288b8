//! The breaker of one exporter: after failures in a row its back end is asked by single probes only.
//!
//! ```text
//! closed -- failures in a row,  or a refusal --> open -- its delay is over --> half open -- it works --> closed
//!                                                ^--------- it fails, longer delay ------+
//! ```
//!
//! Delays are jittered and grow; a back end's own delay is honoured. While the breaker is open, batches go to the spool
//! where there is one, and wait in memory otherwise.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::settings::PipelineSettings;

/// What the breaker is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// Batches go to the back end.
    #[default]
    Closed,
    /// None goes there.
    Open,
    /// One is there, to see whether it works again.
    HalfOpen,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The state's word, in status and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Whether a batch may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Pass,
    /// Not now; ask again then, or when [`Breaker::changed`] says so.
    Hold(Instant),
}

pub(crate) struct Breaker {
    /// Failures in a row that open it.
    limit: u32,
    /// How often a back end that refuses us is asked again.
    refused: Duration,
    inner: Mutex<Inner>,
    change: Notify,
}

struct Inner {
    state: BreakerState,
    failures: u32,
    backoff: Backoff,
    /// While open: when a probe is due. While half open: when the probe counts as gone.
    until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(pipeline: &PipelineSettings) -> Self {
        let inner = Inner {
            state: BreakerState::Closed,
            failures: 0,
            backoff: Backoff::new(pipeline.retry_first, pipeline.retry_longest),
            until: None,
        };
        let (limit, refused) = (pipeline.breaker_failures.max(1), pipeline.breaker_refused);
        Self { limit, refused, inner: Mutex::new(inner), change: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> BreakerState {
        self.lock().state
    }

    /// Asks to send. When a probe is due, whoever asks first is the probe; it must say how it went within `patience`.
    pub(crate) fn admit(&self, patience: Duration) -> Gate {
        let mut inner = self.lock();
        let now = Instant::now();
        match inner.state {
            BreakerState::Closed => Gate::Pass,
            BreakerState::Open | BreakerState::HalfOpen => match inner.until {
                Some(until) if now < until => Gate::Hold(until),
                _ => {
                    inner.state = BreakerState::HalfOpen;
                    inner.until = Some(now + patience);
                    Gate::Pass
                }
            },
        }
    }

    /// Until when nothing may be sent; `None` when something may.
    pub(crate) fn holds_until(&self) -> Option<Instant> {
        let inner = self.lock();
        let now = Instant::now();
        inner.until.filter(|until| inner.state != BreakerState::Closed && now < *until)
    }

    /// A try worked.
    pub(crate) fn worked(&self) {
        let mut inner = self.lock();
        (inner.state, inner.failures, inner.until) = (BreakerState::Closed, 0, None);
        inner.backoff.reset();
        drop(inner);
        self.change.notify_waiters();
    }

    /// A try failed: how long to wait before the next, not less than the back end asked for.
    pub(crate) fn failed(&self, asked: Option<Duration>) -> Duration {
        let mut inner = self.lock();
        inner.failures = inner.failures.saturating_add(1);
        // What was on its way when it opened says nothing new.
        let left = inner.until.filter(|_| inner.state == BreakerState::Open);
        let left =
            left.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        let delay = match (left, asked) {
            (Some(left), None) => left,
            (left, _) => inner.backoff.next(asked).max(left.unwrap_or_default()),
        };
        if inner.failures >= self.limit || inner.state != BreakerState::Closed {
            inner.open(delay);
        }
        drop(inner);
        self.change.notify_waiters();
        delay
    }

    /// The back end refuses us: open at once.
    pub(crate) fn refused(&self) -> Duration {
        self.lock().open(self.refused);
        self.change.notify_waiters();
        self.refused
    }

    /// A probe ended without saying anything of the back end: the next may be one at once.
    pub(crate) fn undecided(&self) {
        let mut inner = self.lock();
        if inner.state == BreakerState::HalfOpen {
            inner.until = None;
        }
        drop(inner);
        self.change.notify_waiters();
    }

    /// Returns at its next change.
    pub(crate) async fn changed(&self) {
        self.change.notified().await;
    }
}

impl Inner {
    fn open(&mut self, delay: Duration) {
        self.state = BreakerState::Open;
        self.until = Some(Instant::now() + delay);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Breaker, BreakerState, Gate};
    use crate::settings::PipelineSettings;

    const PATIENCE: Duration = Duration::from_secs(30);
    const FAILURES: u32 = 3;
    const REFUSED_PROBE: Duration = Duration::from_secs(7);

    fn breaker() -> Breaker {
        Breaker::new(&PipelineSettings {
            breaker_failures: FAILURES,
            breaker_refused: REFUSED_PROBE,
            ..PipelineSettings::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_probe_closes_it() {
        let breaker = breaker();
        for _ in 1..FAILURES {
            breaker.failed(None);
        }
        breaker.worked();
        for _ in 1..FAILURES {
            breaker.failed(None);
            assert_eq!((breaker.state(), breaker.admit(PATIENCE)), (BreakerState::Closed, Gate::Pass));
        }
        let asked = Duration::from_secs(20);
        let delay = breaker.failed(Some(asked));
        assert!(delay >= asked);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(PATIENCE), Gate::Hold(Instant::now() + delay));
        advance(delay).await;
        assert_eq!(breaker.admit(PATIENCE), Gate::Pass);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(matches!(breaker.admit(PATIENCE), Gate::Hold(_)), "one probe at a time");
        breaker.failed(None);
        assert_eq!(breaker.state(), BreakerState::Open, "one failure opens it again");
        advance(Duration::from_mins(2)).await;
        assert_eq!(breaker.admit(PATIENCE), Gate::Pass);
        breaker.worked();
        assert_eq!((breaker.state(), breaker.admit(PATIENCE)), (BreakerState::Closed, Gate::Pass));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_opens_it_at_once_and_a_lost_probe_does_not_hold_for_ever() {
        let breaker = breaker();
        assert_eq!(breaker.refused(), REFUSED_PROBE);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(
            breaker.failed(Some(Duration::from_secs(1))) >= REFUSED_PROBE,
            "what was under way asks for less"
        );
        advance(REFUSED_PROBE).await;
        assert_eq!(breaker.admit(PATIENCE), Gate::Pass);
        advance(PATIENCE).await;
        assert_eq!(breaker.admit(PATIENCE), Gate::Pass);
    }
}
