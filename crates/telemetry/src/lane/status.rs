//! How one exporter is doing: what its worker notes, and what status shows of it with the counts of queue and spool.

use std::borrow::Cow;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use magicapi_plugin::Health;
use tokio::time::Instant;

use super::{ExporterState, Lane};
use crate::breaker::BreakerState;
use crate::redact::UNREAD;
use crate::spool::SpoolFacts;
use crate::tally::Counted;

/// One exporter at one moment. Every record that it was given is in exactly one of `queue_records`, `spool_records`,
/// `sent`, `rejected` and `dropped`.
#[derive(Clone, Debug)]
pub struct ExporterStatus {
    /// Its name.
    pub name: String,
    /// Its plug-in's name.
    pub kind: &'static str,
    /// What it is doing.
    pub state: ExporterState,
    /// Records that it was given; those that an earlier process left in the spool among them.
    pub received: u64,
    /// Records that wait or are on their way.
    pub queue_records: usize,
    /// The memory that they hold.
    pub queue_bytes: usize,
    /// How long the oldest record of queue and spool has waited.
    pub oldest_age: Option<Duration>,
    /// Records that wait on disk, or are on their way there or from there.
    pub spool_records: u64,
    /// Bytes of its files.
    pub spool_bytes: u64,
    /// Why files cannot be written just now.
    pub spool_error: Option<String>,
    /// Records that were written to the spool since the start.
    pub spooled: u64,
    /// It is full, and new requests are refused for its sake (`when_full: refuse`).
    pub refusing: bool,
    /// What its breaker is doing.
    pub breaker: BreakerState,
    /// Records that the back end has.
    pub sent: u64,
    /// Tries that were repeated, in records.
    pub retried: u64,
    /// Records given up before delivery.
    pub dropped: u64,
    /// Those by reason, as in the metric `exporter_dropped`; reasons that have not occurred are left out.
    pub dropped_by_reason: Vec<(&'static str, u64)>,
    /// Records that the back end will never take.
    pub rejected: u64,
    /// Such records that are kept on disk, and their bytes.
    pub dead_letters: u64,
    /// See `dead_letters`.
    pub dead_letter_bytes: u64,
    /// Records that `only` does not name; it was not given them.
    pub filtered: u64,
    /// Records that `sample` left out; it was not given them.
    pub sampled_out: u64,
    /// Records sent without an answer; they were sent again and may be there twice.
    pub ambiguous: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<SystemTime>,
    /// How its back end is: what the exporter itself says every few seconds, unless records wait. `None`: nobody knows
    /// yet, because its `init` has not succeeded.
    pub health: Option<Health>,
}

#[derive(Clone)]
pub(super) struct Condition {
    state: ExporterState,
    last_error: Option<String>,
    last_error_at: Option<SystemTime>,
    /// What the exporter itself said last.
    said: Option<Health>,
}

impl Condition {
    pub(super) fn new(state: ExporterState, said: Option<Health>) -> Self {
        Self { state, last_error: None, last_error_at: None, said }
    }

    fn fail(&mut self, error: &str) {
        (self.last_error, self.last_error_at) = (Some(error.to_owned()), Some(SystemTime::now()));
    }

    /// Records that wait tell more than what the exporter said some seconds ago.
    fn health(&self) -> Option<Health> {
        let why = || self.last_error.clone().unwrap_or_else(|| "records wait".into());
        match (self.state, &self.said) {
            (ExporterState::Refused, _) => Some(Health::Down(why())),
            (ExporterState::Retrying, None | Some(Health::Ok)) => Some(Health::Degraded(why())),
            (_, said) => said.clone(),
        }
    }
}

impl Lane {
    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and says so, once per change.
    pub(crate) fn enter(&self, state: ExporterState, reason: Option<&str>) {
        let reason = reason.map(|reason| self.redacted(reason));
        let mut condition = self.condition();
        if let Some(reason) = &reason {
            condition.fail(reason);
        }
        let before = std::mem::replace(&mut condition.state, state);
        drop(condition);
        if before == state {
            return;
        }
        let (exporter, reason) = (self.name.as_str(), reason.as_deref().unwrap_or_default());
        match state {
            ExporterState::Retrying | ExporterState::Refused => {
                tracing::warn!(exporter, state = state.as_str(), reason, "exporter: records wait");
            }
            _ => tracing::info!(exporter, state = state.as_str(), "exporter"),
        }
    }

    /// Notes what went wrong, without a change of state.
    pub(crate) fn note(&self, error: &str) {
        self.condition().fail(&self.redacted(error));
    }

    /// What an exporter or its back end says, for logs and pages.
    pub(crate) fn redacted<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.redactor.as_ref().map_or(Cow::Borrowed(UNREAD), |redactor| redactor.text(text))
    }

    /// Keeps what the exporter says of its back end.
    pub(crate) fn note_health(&self, health: Health) {
        let hide = |text: String| self.redacted(&text).into_owned();
        self.condition().said = Some(match health {
            Health::Ok => Health::Ok,
            Health::Degraded(why) => Health::Degraded(hide(why)),
            Health::Down(why) => Health::Down(hide(why)),
        });
    }

    pub(crate) fn state(&self) -> ExporterState {
        self.condition().state
    }

    pub(crate) fn status(&self) -> ExporterStatus {
        let condition = self.condition().clone();
        let health = condition.health();
        let Condition { state, last_error, last_error_at, .. } = condition;
        let depth = self.queue.depth();
        let spool = self.spool.as_ref().map_or_else(SpoolFacts::default, |spool| spool.facts());
        let Counted { received, sent, retried, rejected, ambiguous, spooled, filtered, sampled_out, dropped } =
            self.tally.counted();
        let queued = depth.oldest.map(|at| Instant::now().saturating_duration_since(at));
        ExporterStatus {
            name: self.name.clone(),
            kind: self.kind,
            state,
            received,
            queue_records: depth.records,
            queue_bytes: depth.bytes,
            oldest_age: queued.max(spool.oldest_age),
            spool_records: spool.records,
            spool_bytes: spool.bytes,
            spool_error: spool.error,
            spooled,
            refusing: self.is_full(),
            breaker: self.breaker.state(),
            sent,
            retried,
            dropped: dropped.iter().map(|(_, records)| records).sum(),
            dropped_by_reason: dropped,
            rejected,
            dead_letters: spool.dead_records,
            dead_letter_bytes: spool.dead_bytes,
            filtered,
            sampled_out,
            ambiguous,
            last_error,
            last_error_at,
            health,
        }
    }
}
