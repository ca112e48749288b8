//! One exporter as everybody sees it: the assembly threads push into it, its worker drains it, status reads it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use magicapi_plugin::{ContentDropped, ContentLevel, Health, Signals, TelemetryConfig, TelemetryExporter};
use tokio::time::Instant;

use crate::metrics::{DropReason, Event, GatewayMetrics};
use crate::queue::{BatchLimits, Item, Queue};
use crate::settings::{ExporterSetup, PipelineSettings};

/// What an exporter is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExporterState {
    /// Its `init` has not succeeded yet; records wait.
    Starting,
    /// It works.
    Running,
    /// The back end does not take records just now; they wait.
    Retrying,
    /// The back end refuses the credential or set-up; records wait.
    Refused,
    /// It delivers what is left.
    Draining,
    /// It is done.
    Stopped,
}

impl ExporterState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Running, Self::Retrying, Self::Refused, Self::Draining, Self::Stopped];

    /// The state's word, in status and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Refused => "refused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// One exporter at one moment. Every record that it was given is in exactly one of `queue_records`, `sent`, `rejected`
/// and `dropped`.
#[derive(Clone, Debug)]
pub struct ExporterStatus {
    /// Its name.
    pub name: String,
    /// Its plug-in's name.
    pub kind: &'static str,
    /// What it is doing.
    pub state: ExporterState,
    /// Records that it was given.
    pub received: u64,
    /// Records that wait or are on their way.
    pub queue_records: usize,
    /// The memory that they hold.
    pub queue_bytes: usize,
    /// How long the oldest of them has waited.
    pub oldest_age: Option<Duration>,
    /// Records that the back end has.
    pub sent: u64,
    /// Tries that were repeated, in records.
    pub retried: u64,
    /// Records given up before delivery.
    pub dropped: u64,
    /// Records that the back end will never take.
    pub rejected: u64,
    /// Records sent without an answer; they were sent again and may be there twice.
    pub ambiguous: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// How its back end is: what the exporter itself says every few seconds, unless records wait. `None`: nobody knows
    /// yet, because its `init` has not succeeded.
    pub health: Option<Health>,
}

/// One exporter's shared side.
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) signals: Signals,
    pub(crate) pipeline: PipelineSettings,
    pub(crate) exporter: Arc<dyn TelemetryExporter>,
    pub(crate) queue: Queue,
    pub(crate) config: Arc<TelemetryConfig>,
    pub(crate) created_at: Instant,
    metrics: Arc<GatewayMetrics>,
    counts: Counts,
    condition: Mutex<Condition>,
    successor: OnceLock<Arc<Lane>>,
}

#[derive(Default)]
struct Counts {
    received: AtomicU64,
    sent: AtomicU64,
    retried: AtomicU64,
    rejected: AtomicU64,
    ambiguous: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Clone)]
struct Condition {
    state: ExporterState,
    last_error: Option<String>,
    /// What the exporter itself said last.
    said: Option<Health>,
}

impl Condition {
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
    pub(crate) fn new(
        setup: ExporterSetup,
        config: &Arc<TelemetryConfig>,
        metrics: &Arc<GatewayMetrics>,
    ) -> Self {
        let pipeline = setup.pipeline;
        let limits = BatchLimits {
            records: pipeline.batch_records.max(1),
            bytes: pipeline.batch_bytes,
            age: pipeline.batch_age,
        };
        let (state, said) = if is_active(setup.signals) {
            (ExporterState::Starting, None)
        } else {
            (ExporterState::Running, Some(Health::Ok))
        };
        Self {
            name: setup.name,
            kind: setup.kind,
            signals: setup.signals,
            queue: Queue::new(limits, pipeline.buffer_memory),
            pipeline,
            exporter: setup.exporter.into(),
            config: config.clone(),
            metrics: metrics.clone(),
            counts: Counts::default(),
            condition: Mutex::new(Condition { state, last_error: None, said }),
            successor: OnceLock::new(),
            created_at: Instant::now(),
        }
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn takes(&self, signal: Signals) -> bool {
        self.signals.contains(signal)
    }

    /// Whether it needs a worker.
    pub(crate) fn is_active(&self) -> bool {
        is_active(self.signals)
    }

    /// The content level that it gets when this much is captured.
    pub(crate) fn content(&self, captured: ContentLevel) -> ContentLevel {
        self.pipeline.content.min(captured)
    }

    /// Puts a record into the queue. One that no queue of this size could hold loses its bodies, not itself.
    pub(crate) fn push(&self, mut item: Item) {
        if item.memory() > self.queue.capacity() {
            item = Item::new(Arc::new(item.record.without_content(ContentDropped::Memory)), item.share);
        }
        match (self.queue.push(item), self.successor.get()) {
            (Err(item), Some(successor)) => successor.push(item),
            (Err(_), None) => {
                self.counts.received.fetch_add(1, Ordering::Relaxed);
                self.count(Event::Dropped(DropReason::Shutdown), 1);
            }
            (Ok(dropped), _) => {
                self.counts.received.fetch_add(1, Ordering::Relaxed);
                self.count(Event::Dropped(DropReason::QueueFull), dropped.len());
            }
        }
    }

    /// Names the lane that takes over what this one no longer takes or has not delivered.
    pub(crate) fn hand_to(&self, successor: Arc<Self>) {
        // Set once: a lane is replaced once.
        let _already_set = self.successor.set(successor);
    }

    pub(crate) fn has_successor(&self) -> bool {
        self.successor.get().is_some()
    }

    /// Takes over what waits in a predecessor that has ended.
    pub(crate) fn take_over(&self, predecessor: &Self) {
        let (waiting, lost) = predecessor.queue.close();
        predecessor.count(Event::Dropped(DropReason::Shutdown), lost);
        let level = self.pipeline.content;
        for mut item in waiting {
            if level < predecessor.pipeline.content {
                item = Item::new(Arc::new(item.record.with_content(level)), item.share);
            }
            self.push(item);
        }
    }

    /// Drops what has waited longer than `retry.max_age`.
    pub(crate) fn expire(&self) {
        let old = self.queue.take_older_than(self.pipeline.retry_max_age);
        self.count(Event::Dropped(DropReason::Expired), old.len());
    }

    /// Counts records. What is counted as sent, rejected or dropped must have left the queue.
    pub(crate) fn count(&self, event: Event, records: usize) {
        if records == 0 {
            return;
        }
        let records = records as u64;
        let counter = match event {
            Event::Sent => Some(&self.counts.sent),
            Event::Retried => Some(&self.counts.retried),
            Event::Rejected => Some(&self.counts.rejected),
            Event::Ambiguous => Some(&self.counts.ambiguous),
            Event::Dropped(_) => Some(&self.counts.dropped),
            Event::Panicked => None,
        };
        if let Some(counter) = counter {
            counter.fetch_add(records, Ordering::Relaxed);
        }
        self.metrics.exporter_event(&self.name, event, records);
    }

    /// Ends the queue and counts what was in it as lost. Done once; again it finds nothing.
    pub(crate) fn lose_rest(&self) {
        let (waiting, away) = self.queue.close();
        let lost = waiting.len() + away;
        self.count(Event::Dropped(DropReason::Shutdown), lost);
        if lost > 0 {
            tracing::warn!(
                exporter = self.name.as_str(),
                records = lost,
                "exporter: records lost at the end"
            );
        }
    }

    /// Changes the state and says so, once per change.
    pub(crate) fn enter(&self, state: ExporterState, reason: Option<&str>) {
        let mut condition = self.condition();
        if let Some(reason) = reason {
            condition.last_error = Some(reason.to_owned());
        }
        let before = std::mem::replace(&mut condition.state, state);
        drop(condition);
        if before == state {
            return;
        }
        let (exporter, reason) = (self.name.as_str(), reason.unwrap_or_default());
        match state {
            ExporterState::Retrying | ExporterState::Refused => {
                tracing::warn!(exporter, state = state.as_str(), reason, "exporter: records wait");
            }
            _ => tracing::info!(exporter, state = state.as_str(), "exporter"),
        }
    }

    /// Notes what went wrong, without a change of state.
    pub(crate) fn note(&self, error: &str) {
        self.condition().last_error = Some(error.to_owned());
    }

    /// Keeps what the exporter says of its back end.
    pub(crate) fn note_health(&self, health: Health) {
        self.condition().said = Some(health);
    }

    pub(crate) fn state(&self) -> ExporterState {
        self.condition().state
    }

    pub(crate) fn status(&self) -> ExporterStatus {
        let condition = self.condition().clone();
        let health = condition.health();
        let Condition { state, last_error, .. } = condition;
        let depth = self.queue.depth();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExporterStatus {
            name: self.name.clone(),
            kind: self.kind,
            state,
            received: read(&self.counts.received),
            queue_records: depth.records,
            queue_bytes: depth.bytes,
            oldest_age: depth.oldest.map(|at| Instant::now().saturating_duration_since(at)),
            sent: read(&self.counts.sent),
            retried: read(&self.counts.retried),
            dropped: read(&self.counts.dropped),
            rejected: read(&self.counts.rejected),
            ambiguous: read(&self.counts.ambiguous),
            last_error,
            health,
        }
    }
}

/// A page that is fetched has nothing to begin, to send or to end.
fn is_active(signals: Signals) -> bool {
    signals.contains(Signals::RECORDS) || signals.contains(Signals::METRICS)
}
