//! One exporter as everybody sees it: the assembly threads push into it, its worker drains it, status reads it.

mod state;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use magicapi_plugin::{
    ContentDropped, ContentLevel, Health, Needs, RequestMetrics, Signals, TelemetryConfig, TelemetryExporter,
};
use tokio::time::Instant;

pub use self::state::ExporterState;
use crate::breaker::{Breaker, BreakerState};
use crate::conversation;
use crate::core::Core;
use crate::gate::Valve;
use crate::metrics::{DropReason, Event};
use crate::named::Named;
use crate::put_off::PutOff;
use crate::queue::{BatchLimits, Item, Queue};
use crate::redact::{Redactor, UNREAD};
use crate::settings::{ExporterSetup, PipelineSettings, WhenFull};
use crate::spool::{Spool, SpoolFacts};
use crate::tally::{Counted, Tally};
use crate::trial::{self, TrialStep, Trials};

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

/// One exporter's shared side.
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) signals: Signals,
    pub(crate) needs: Needs,
    pub(crate) exclusive: bool,
    pub(crate) pipeline: PipelineSettings,
    pub(crate) exporter: Arc<dyn TelemetryExporter>,
    pub(crate) queue: Queue,
    pub(crate) config: Arc<TelemetryConfig>,
    pub(crate) created_at: Instant,
    pub(crate) breaker: Breaker,
    pub(crate) put_off: PutOff,
    /// `None` without a data directory.
    pub(crate) spool: Option<Arc<Spool>>,
    /// With `when_full: refuse`.
    valve: Option<Arc<Valve>>,
    /// Tests that wait for its thread.
    pub(crate) trials: Trials,
    /// Back ends and exporters may repeat what they were sent; the one in force when it was made.
    redactor: Option<Arc<Redactor>>,
    tally: Arc<Tally>,
    condition: Mutex<Condition>,
    successor: OnceLock<Arc<Lane>>,
}

#[derive(Clone)]
struct Condition {
    state: ExporterState,
    last_error: Option<String>,
    last_error_at: Option<SystemTime>,
    /// What the exporter itself said last.
    said: Option<Health>,
}

impl Condition {
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
    pub(crate) fn new(setup: ExporterSetup, redactor: Option<Arc<Redactor>>, core: &Core) -> Self {
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
        let tally = Tally::new(&setup.name, &core.metrics);
        let keeps = setup.signals.contains(Signals::RECORDS);
        let valve =
            (keeps && pipeline.when_full == WhenFull::Refuse).then(|| Valve::new(&core.gate, &setup.name));
        let spooler = core.spooler.as_ref().filter(|_| keeps);
        let spool = spooler.map(|spooler| spooler.spool(&tally, &pipeline, valve.clone()));
        let has_disk = spool.as_ref().is_some_and(|spool| spool.keeps());
        let queue = Queue::new(limits, pipeline.buffer_memory);
        Self {
            exporter: Arc::new(Named::new(setup.exporter, &setup.name)),
            name: setup.name,
            kind: setup.kind,
            signals: setup.signals,
            needs: setup.needs,
            exclusive: setup.exclusive,
            // Without a disk the queue is all there is.
            queue: if valve.is_some() && !has_disk { queue.keeping_all() } else { queue },
            breaker: Breaker::new(&pipeline),
            pipeline,
            config: core.config.clone(),
            put_off: PutOff::default(),
            spool,
            valve,
            trials: Trials::default(),
            redactor,
            tally,
            condition: Mutex::new(Condition { state, last_error: None, last_error_at: None, said }),
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

    /// Whether it needs what was said in a record.
    pub(crate) fn needs_conversation(&self) -> bool {
        self.needs.contains(Needs::CONVERSATION) && self.pipeline.content > ContentLevel::Metadata
    }

    /// A record that comes from elsewhere than assembly, with what this exporter needs of it.
    pub(crate) fn complete(&self, record: RequestMetrics) -> RequestMetrics {
        if self.needs_conversation() { conversation::complete(record) } else { record }
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
        // A request that reached no provider was not taken; nor is its record, while there is no room. One that was killed
        // had been taken.
        let facts = item.record.facts();
        let is_killed = facts.error_type == Some(crate::journal::KILLED);
        if self.is_full() && facts.attempts == 0 && !is_killed {
            self.tally.receive(1);
            return self.count(Event::Dropped(DropReason::QueueFull), 1);
        }
        if item.memory() > self.queue.capacity() {
            item = Item::new(Arc::new(item.record.without_content(ContentDropped::Memory)), item.share);
        }
        match (self.queue.push(item), self.successor.get()) {
            (Err(item), Some(successor)) => successor.adopt(item, self),
            (Err(item), None) => {
                self.tally.receive(1);
                self.keep(vec![item], true, DropReason::Shutdown);
            }
            (Ok(overflow), _) => {
                self.tally.receive(1);
                self.keep(overflow, false, DropReason::QueueFull);
            }
        }
        self.regate();
    }

    /// Whether it is full, and new requests are refused for its sake.
    fn is_full(&self) -> bool {
        self.valve.as_ref().is_some_and(|valve| valve.is_shut())
    }

    /// It is replaced or removed: what it still holds keeps no request out.
    pub(crate) fn retire(&self) {
        if let Some(valve) = &self.valve {
            valve.retire();
        }
    }

    /// Shuts or opens the valve of an exporter that has memory alone.
    fn regate(&self) {
        if let Some(valve) = &self.valve
            && !self.spool.as_ref().is_some_and(|spool| spool.keeps())
        {
            valve.hold(true, self.queue.bytes(), self.queue.capacity());
        }
    }

    /// Hands records to the spool; where there is none they are dropped for this reason. Gives how many that were.
    fn keep(&self, items: Vec<Item>, last: bool, reason: DropReason) -> usize {
        let spool = self.spool.as_ref().filter(|spool| spool.keeps());
        let lost = match spool {
            Some(spool) => spool.offer(items, last).err().unwrap_or_default(),
            None => items,
        };
        if reason == DropReason::Shutdown {
            for item in &lost {
                item.share.give_up();
            }
        }
        let lost = lost.len();
        self.count(Event::Dropped(reason), lost);
        lost
    }

    /// Moves records that left the queue to the spool.
    pub(crate) fn divert(&self, items: Vec<Item>) {
        // A queue that was closed meanwhile has saved them.
        if self.queue.settle(&items) {
            self.keep(items, false, DropReason::Shutdown);
        }
    }

    /// Keeps a rejected record where a person can look at it.
    pub(crate) fn bury(&self, item: &Item, reason: &str) {
        if let Some(spool) = &self.spool {
            spool.bury(item.record.clone(), item.share.clone(), &self.redacted(reason));
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

    /// Takes over what waits in a predecessor that has ended, and what it still has on its way if it hangs.
    pub(crate) fn take_over(&self, predecessor: &Self) {
        let (waiting, away) = predecessor.queue.close();
        predecessor.count(Event::Ambiguous, away.len());
        let unwritten = predecessor.spool.as_ref().map(|spool| spool.hand_over()).unwrap_or_default();
        for item in away.into_iter().chain(waiting).chain(unwritten) {
            self.adopt(item, predecessor);
        }
    }

    /// Takes a record that was meant for a predecessor, with as much of it as this one may have.
    fn adopt(&self, mut item: Item, predecessor: &Self) {
        if self.needs_conversation() && item.record.conversation().is_none() {
            let record = item.record.with_content(ContentLevel::Full);
            item = Item::new(Arc::new(self.complete(record)), item.share);
        }
        if self.pipeline.content < predecessor.pipeline.content {
            item = Item::new(Arc::new(item.record.with_content(self.pipeline.content)), item.share);
        }
        self.push(item);
    }

    /// Drops what has waited longer than `retry.max_age`.
    pub(crate) fn expire(&self) {
        let old = self.queue.take_older_than(self.pipeline.retry_max_age);
        self.count(Event::Dropped(DropReason::Expired), old.len());
    }

    /// Counts records. What is counted as sent, rejected or dropped must have left queue and spool.
    pub(crate) fn count(&self, event: Event, records: usize) {
        self.tally.count(event, records);
        self.regate();
    }

    /// Ends the queue: what was in it, and what a worker that hangs still has, goes to the spool, or is counted as lost.
    /// Done once; again it finds nothing.
    pub(crate) fn save_rest(&self) {
        let (waiting, away) = self.queue.close();
        if let Some(spool) = self.spool.as_ref().filter(|spool| spool.keeps()) {
            spool.open();
            // They may have arrived.
            self.count(Event::Ambiguous, away.len());
        }
        let rest: Vec<_> = away.into_iter().chain(waiting).collect();
        let lost = self.keep(rest, true, DropReason::Shutdown);
        self.regate();
        if lost > 0 {
            tracing::warn!(
                exporter = self.name.as_str(),
                records = lost,
                "exporter: records lost at the end"
            );
        }
    }

    /// Tests the exporter on its own thread.
    pub(crate) async fn try_out(&self, record: Arc<RequestMetrics>) -> Vec<TrialStep> {
        let starting = self.state() == ExporterState::Starting;
        let until_begun = if starting { self.pipeline.init_timeout } else { Duration::ZERO };
        let mut steps = self.trials.ask(record, until_begun, self.pipeline.timeout + trial::BESIDE).await;
        for says in steps.iter_mut().filter_map(|step| step.says.as_mut()) {
            *says = self.redacted(says).into_owned();
        }
        steps
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

/// A page that is fetched has nothing to begin, to send or to end.
fn is_active(signals: Signals) -> bool {
    signals.contains(Signals::RECORDS) || signals.contains(Signals::METRICS)
}
