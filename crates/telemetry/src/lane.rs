//! One exporter as everybody sees it: the assembly threads push into it, its worker drains it, status reads it.

mod state;
mod status;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use magicapi_plugin::{
    ContentDropped, ContentLevel, Health, Needs, RequestMetrics, Signals, TelemetryConfig, TelemetryExporter,
};
use tokio::time::Instant;

pub use self::state::ExporterState;
use self::status::Condition;
pub use self::status::ExporterStatus;
use crate::breaker::Breaker;
use crate::conversation;
use crate::core::Core;
use crate::gate::Valve;
use crate::metrics::{DropReason, Event};
use crate::named::Named;
use crate::put_off::PutOff;
use crate::queue::{BatchLimits, Item, Queue};
use crate::redact::Redactor;
use crate::settings::{ExporterSetup, PipelineSettings, WhenFull};
use crate::spool::Spool;
use crate::tally::Tally;
use crate::trial::{self, TrialStep, Trials};

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
    pub(crate) put_off: Arc<PutOff>,
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
        let put_off = Arc::new(PutOff::new(pipeline.retry_max_age.max(pipeline.buffer_max_age)));
        let spool = spooler.map(|spooler| spooler.spool(&tally, &pipeline, valve.clone(), put_off.clone()));
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
            put_off,
            spool,
            valve,
            trials: Trials::default(),
            redactor,
            tally,
            condition: Mutex::new(Condition::new(state, said)),
            successor: OnceLock::new(),
            created_at: Instant::now(),
        }
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
            let stripped = item.record.without_content(ContentDropped::Memory);
            item = item.reformed(stripped);
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
            Some(spool) => {
                let room = (!last).then(|| self.queue.capacity().saturating_sub(self.queue.bytes()));
                spool.offer(items, room).err().unwrap_or_default()
            }
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
        self.put_off.inherit(&predecessor.put_off);
        // What overflowed is the oldest.
        for item in unwritten.into_iter().chain(away).chain(waiting) {
            self.adopt(item, predecessor);
        }
    }

    /// Takes a record that was meant for a predecessor, with as much of it as this one may have.
    fn adopt(&self, mut item: Item, predecessor: &Self) {
        if self.needs_conversation() && item.record.conversation().is_none() {
            let record = self.complete(item.record.with_content(ContentLevel::Full));
            item = item.reformed(record);
        }
        if self.pipeline.content < predecessor.pipeline.content {
            let record = item.record.with_content(self.pipeline.content);
            item = item.reformed(record);
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
}

/// A page that is fetched has nothing to begin, to send or to end.
fn is_active(signals: Signals) -> bool {
    signals.contains(Signals::RECORDS) || signals.contains(Signals::METRICS)
}
