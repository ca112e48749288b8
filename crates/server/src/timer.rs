//! One timer for an answer's body, moved lazily: progress only notes an instant, the sleep is reset when it fires.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use magicapi_config::Timeouts;
use magicapi_model::{Error, ErrorKind, Retry};
use tokio::time::{Instant, Sleep};

/// Wakes the task at a deadline that mostly moves away.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether `deadline` has passed; else the task is woken when it does.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) if Instant::now() >= deadline => return true,
                Poll::Ready(()) => sleep.as_mut().reset(deadline),
            }
        }
    }
}

/// The deadlines of one attempt (design, `timeouts`). `attempt` and `total` end at the first semantic byte.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    timeouts: Timeouts,
    first_token: Instant,
    attempt: Option<Instant>,
    total: Option<Instant>,
}

/// A deadline and the error that it brings.
pub(crate) type Deadline = (Instant, ErrorKind);

impl Deadlines {
    /// Deadlines of an attempt that begins now, of a request that began `age` ago.
    pub(crate) fn new(timeouts: Timeouts, age: Duration) -> Self {
        let now = Instant::now();
        Self {
            timeouts,
            first_token: now + timeouts.first_token,
            attempt: timeouts.attempt.map(|limit| now + limit),
            total: timeouts.total.map(|limit| now + limit.saturating_sub(age)),
        }
    }

    /// The request was still on its way at `moment`: until then nothing was to be expected of the provider.
    pub(crate) fn still_sent_at(&mut self, moment: Instant) {
        self.first_token = self.first_token.max(moment + self.timeouts.first_token);
    }

    /// The next deadline before the first semantic byte.
    pub(crate) fn before_first(&self) -> Deadline {
        let candidates = [
            Some((self.first_token, ErrorKind::FirstTokenTimeout)),
            self.attempt.map(|at| (at, ErrorKind::AttemptTimeout)),
            self.total.map(|at| (at, ErrorKind::TotalTimeout)),
        ];
        let first = (self.first_token, ErrorKind::FirstTokenTimeout);
        candidates.into_iter().flatten().min_by_key(|(at, _)| *at).unwrap_or(first)
    }

    /// The next deadline of a buffered body: no two pieces may be further apart than `idle`, and `attempt` and `total`
    /// hold to its end.
    pub(crate) fn of_body(&self, last_progress: Instant) -> Deadline {
        let idle = (last_progress + self.timeouts.idle, ErrorKind::IdleTimeout);
        let candidates = [
            Some(idle),
            self.attempt.map(|at| (at, ErrorKind::AttemptTimeout)),
            self.total.map(|at| (at, ErrorKind::TotalTimeout)),
        ];
        candidates.into_iter().flatten().min_by_key(|(at, _)| *at).unwrap_or(idle)
    }

    /// The next deadline once a stream has begun to say something.
    pub(crate) fn between(&self, last_progress: Instant) -> Deadline {
        (last_progress + self.timeouts.idle, ErrorKind::IdleTimeout)
    }

    /// The error of a deadline that has passed.
    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        let (name, limit) = match kind {
            ErrorKind::AttemptTimeout => ("attempt", self.timeouts.attempt),
            ErrorKind::TotalTimeout => ("total", self.timeouts.total),
            ErrorKind::IdleTimeout => ("idle", Some(self.timeouts.idle)),
            _ => ("first_token", Some(self.timeouts.first_token)),
        };
        let limit = limit.unwrap_or_default();
        Error::provider(
            kind,
            Retry::Later,
            format!("the provider said nothing for {limit:?}: `timeouts.{name}` ended the request"),
        )
    }
}
