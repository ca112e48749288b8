//! The simple form of an exporter lifted to the batch form: records go one by one, and what became of each outlives an
//! export that is cut off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use magicapi_model::RequestId;

use crate::{
    Delivery, ExportError, Health, ItemOutcome, RecordExporter, RequestMetrics, TelemetryConfig,
    TelemetryExporter,
};

/// After which it is said what was delivered, so that a batch that takes longer than `timeout` gets on.
const TURN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });

/// Records that are remembered between an export and the next, at most.
const REMEMBERED: usize = 100_000;

/// Lifts a [`RecordExporter`]: `EachRecord(x)`. Records go one by one, in order; the failed ones are retried by the
/// pipeline, as is what had no turn within 5 s. Of an export that is cut off it knows what was delivered, and which
/// record was under way: that one goes last when it comes again.
pub struct EachRecord<X> {
    exporter: X,
    left: Left,
    /// Why the first of those records failed that the last export left.
    error: Mutex<Option<String>>,
}

/// See the type of the same name.
#[expect(non_snake_case, reason = "it is spelled as a tuple struct, and leaves the struct free to change")]
pub fn EachRecord<X: RecordExporter>(exporter: X) -> EachRecord<X> {
    EachRecord { exporter, left: Left::default(), error: Mutex::default() }
}

/// What exports that came to no end have left: several may be under way at once, so it is kept by record.
#[derive(Default)]
struct Left(Mutex<HashMap<RequestId, State>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The back end has it, and the pipeline does not know.
    Delivered,
    /// It was under way, and the pipeline has not asked.
    UnderWay,
    /// It was under way once, and has had no turn since.
    Last,
}

impl Left {
    fn states(&self) -> MutexGuard<'_, HashMap<RequestId, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember(states: &mut HashMap<RequestId, State>, id: RequestId, state: State) {
    if states.len() >= REMEMBERED {
        // The order of records that never came again is the lesser loss.
        states.retain(|_, state| *state == State::Delivered);
    }
    if states.len() < REMEMBERED {
        states.insert(id, state);
    }
}

/// One record of a batch.
struct Entry<'a> {
    record: &'a Arc<RequestMetrics>,
    outcome: Option<ItemOutcome>,
    is_last: bool,
}

/// One export. Dropped before it is over, it leaves behind what it knows.
struct Course<'a> {
    entries: Vec<Entry<'a>>,
    under_way: Option<RequestId>,
    error: Option<String>,
    said: &'a Mutex<Option<String>>,
    is_over: bool,
    left: &'a Left,
}

impl<'a> Course<'a> {
    fn begin<X>(lifted: &'a EachRecord<X>, batch: &'a [Arc<RequestMetrics>]) -> Self {
        let EachRecord { left, error: said, .. } = lifted;
        let mut states = left.states();
        let entry = |record: &'a Arc<RequestMetrics>| {
            let state = states.remove(&record.id());
            let outcome = (state == Some(State::Delivered)).then_some(ItemOutcome::Delivered);
            Entry { record, is_last: state.is_some() && outcome.is_none(), outcome }
        };
        let entries = batch.iter().map(entry).collect();
        drop(states);
        Self { entries, under_way: None, error: None, said, is_over: false, left }
    }

    async fn run(&mut self, exporter: &impl RecordExporter) {
        let begun = Instant::now();
        // One that hangs must not keep the others waiting for ever.
        for last in [false, true] {
            let due = |entry: &&mut Entry<'_>| entry.outcome.is_none() && entry.is_last == last;
            for entry in self.entries.iter_mut().filter(due) {
                if begun.elapsed() >= TURN {
                    return;
                }
                self.under_way = Some(entry.record.id());
                entry.outcome = Some(match exporter.export(entry.record).await {
                    Ok(()) => ItemOutcome::Delivered,
                    Err(error) => {
                        self.error.get_or_insert_with(|| error.to_string());
                        ItemOutcome::Retry
                    }
                });
                self.under_way = None;
            }
        }
    }

    fn end(mut self) -> Delivery {
        self.is_over = true;
        let outcome = |entry: &Entry<'_>| entry.outcome.clone().unwrap_or(ItemOutcome::Retry);
        Delivery::Items(self.entries.iter().map(outcome).collect())
    }

    fn leave(&self) {
        let mut states = self.left.states();
        for Entry { record, outcome, is_last } in &self.entries {
            let state = match outcome {
                Some(ItemOutcome::Delivered) if !self.is_over => State::Delivered,
                None if self.under_way == Some(record.id()) => State::UnderWay,
                None if *is_last => State::Last,
                _ => continue,
            };
            remember(&mut states, record.id(), state);
        }
    }
}

/// The pipeline may give up at any moment, and then asks [`TelemetryExporter::cut_off`]; after a panic it asks nothing.
impl Drop for Course<'_> {
    fn drop(&mut self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = self.error.take();
        self.leave();
    }
}

#[async_trait]
impl<X: RecordExporter> TelemetryExporter for EachRecord<X> {
    fn name(&self) -> &str {
        self.exporter.name()
    }

    async fn init(&self, config: &TelemetryConfig) -> Result<(), ExportError> {
        self.exporter.init(config).await
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let mut course = Course::begin(self, batch);
        course.run(&self.exporter).await;
        course.end()
    }

    fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let mut states = self.left.states();
        let outcome = |record: &Arc<RequestMetrics>| match states.remove(&record.id()) {
            Some(State::Delivered) => ItemOutcome::Delivered,
            Some(was) => {
                remember(&mut states, record.id(), State::Last);
                if was == State::UnderWay { ItemOutcome::Unknown } else { ItemOutcome::Retry }
            }
            None => ItemOutcome::Retry,
        };
        Delivery::Items(batch.iter().map(outcome).collect())
    }

    /// A retry has no reason of its own: this is where the author's words are seen.
    async fn health(&self) -> Health {
        let health = self.exporter.health().await;
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        match (health, error.as_ref()) {
            (Health::Ok, Some(error)) => Health::Degraded(error.clone()),
            (health, _) => health,
        }
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        self.exporter.shutdown().await
    }
}

#[cfg(test)]
mod tests;
