//! One exporter's queue: bounded in bytes, oldest first out, oldest first dropped, but for a batch that the back end did not
//! take, which may go behind the others.
//!
//! The assembly threads push, the exporter's worker takes batches; records on their way count until they are settled.
//! What drops for want of room leaves here, for the spool or for good. Records on their way stay known here, so that what
//! a worker that hangs holds can still be saved.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use magicapi_plugin::RequestMetrics;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::memory::Reservation;

/// One record in one queue.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) record: Arc<RequestMetrics>,
    /// The record's part of the budget: given back with the last item.
    pub(crate) share: Arc<Reservation>,
    pub(crate) queued_at: Instant,
    /// What it counts in the queue, from first to last.
    memory: usize,
    /// Its number in the queue, once it is there.
    place: u64,
}

impl Item {
    pub(crate) fn new(record: Arc<RequestMetrics>, share: Arc<Reservation>) -> Self {
        let memory = record.memory();
        Self { record, share, queued_at: Instant::now(), memory, place: 0 }
    }

    /// The same with another form of its record, before a queue counts it.
    pub(crate) fn reformed(mut self, record: RequestMetrics) -> Self {
        self.reform(record);
        self.memory = self.record.memory();
        self
    }

    /// Takes another form of its record; the queue counts it as before.
    pub(crate) fn reform(&mut self, record: RequestMetrics) {
        self.record = Arc::new(record);
        if let Some(kept) = self.share.kept() {
            kept.add_form(&self.record);
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Whether it has waited longer than that.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        self.queued_at.elapsed() > age
    }

    /// What its document will measure, about: `memory` counts bodies twice, for the encoding.
    pub(crate) fn encoded(&self) -> usize {
        self.memory / 2 + 1024
    }
}

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) age: Duration,
}

/// What a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) oldest: Option<Instant>,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    limits: BatchLimits,
    capacity: usize,
    /// Nothing leaves for want of room; whoever fills it is held off.
    keeps_all: bool,
    /// A batch became possible, or full.
    wake: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Item>,
    /// Of `waiting`: memory, and encoded length.
    bytes: usize,
    encoded: usize,
    /// Records on their way by their places, and the memory that they hold.
    away: BTreeMap<u64, Item>,
    away_bytes: usize,
    next_place: u64,
    closed: bool,
}

impl State {
    fn pop(&mut self) -> Option<Item> {
        let item = self.waiting.pop_front()?;
        self.subtract(&item);
        Some(item)
    }

    fn subtract(&mut self, item: &Item) {
        self.bytes -= item.memory();
        self.encoded -= item.encoded();
    }

    fn add(&mut self, item: &Item) {
        self.bytes += item.memory();
        self.encoded += item.encoded();
    }

    /// Forgets records that were on their way; `false` when they had been given up before.
    fn settle(&mut self, items: &[Item]) -> bool {
        if self.closed {
            return false;
        }
        for item in items {
            if let Some(away) = self.away.remove(&item.place) {
                self.away_bytes -= away.memory();
            }
        }
        true
    }
}

impl Queue {
    pub(crate) fn new(limits: BatchLimits, capacity: usize) -> Self {
        Self { state: Mutex::default(), limits, capacity, keeps_all: false, wake: Notify::new() }
    }

    /// The same, but nothing leaves it for want of room.
    pub(crate) fn keeping_all(self) -> Self {
        Self { keeps_all: true, ..self }
    }

    /// The memory that records hold here, those on their way included.
    pub(crate) fn bytes(&self) -> usize {
        let state = self.lock();
        state.bytes + state.away_bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that records may hold here.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Puts a record at the end and gives how many had to go for it; the record itself comes back when the queue is
    /// closed.
    pub(crate) fn push(&self, mut item: Item) -> Result<Vec<Item>, Item> {
        let mut state = self.lock();
        if state.closed {
            return Err(item);
        }
        let first = state.waiting.is_empty();
        let was_full = self.is_full(&state);
        item.place = state.next_place;
        state.next_place += 1;
        state.add(&item);
        state.waiting.push_back(item);
        let mut dropped = Vec::new();
        let is_over = |state: &State| {
            // One alone has its place, whatever it measures.
            let alone = state.waiting.len() == 1 && state.away.is_empty();
            !alone && state.bytes + state.away_bytes > self.capacity
        };
        while !self.keeps_all && is_over(&state) {
            let Some(item) = state.pop() else { break };
            dropped.push(item);
        }
        let full = self.is_full(&state);
        drop(state);
        if first || (full && !was_full) {
            self.wake.notify_one();
        }
        Ok(dropped)
    }

    fn is_full(&self, state: &State) -> bool {
        state.waiting.len() >= self.limits.records || state.encoded >= self.limits.bytes
    }

    /// The next batch, once it is full or its first record has waited long enough.
    pub(crate) async fn next(&self) -> Vec<Item> {
        loop {
            let ready_at = {
                let mut state = self.lock();
                match state.waiting.front() {
                    None => None,
                    Some(front) => {
                        let ready_at = front.queued_at + self.limits.age;
                        if self.is_full(&state) || ready_at <= Instant::now() {
                            return self.take_from(&mut state);
                        }
                        Some(ready_at)
                    }
                }
            };
            match ready_at {
                None => self.wake.notified().await,
                Some(ready_at) => {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(ready_at) => {}
                    }
                }
            }
        }
    }

    /// The next batch, when it is full or has waited long enough.
    pub(crate) fn take_ready(&self) -> Vec<Item> {
        let mut state = self.lock();
        let front = state.waiting.front().map(|item| item.queued_at + self.limits.age);
        let ready = self.is_full(&state) || front.is_some_and(|at| at <= Instant::now());
        if ready { self.take_from(&mut state) } else { Vec::new() }
    }

    /// The next batch of what is there now.
    pub(crate) fn take(&self) -> Vec<Item> {
        self.take_from(&mut self.lock())
    }

    fn take_from(&self, state: &mut State) -> Vec<Item> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(front) = state.waiting.front() {
            bytes += front.encoded();
            if !batch.is_empty() && (batch.len() >= self.limits.records || bytes > self.limits.bytes) {
                break;
            }
            let Some(item) = state.pop() else { break };
            state.away_bytes += item.memory();
            state.away.insert(item.place, item.clone());
            batch.push(item);
        }
        if !state.waiting.is_empty() {
            // Another of the worker's slots may be waiting.
            self.wake.notify_one();
        }
        batch
    }

    /// Records of a batch are done with, whatever became of them; `false` when the queue was closed before, and they
    /// were saved or counted as lost.
    pub(crate) fn settle(&self, items: &[Item]) -> bool {
        self.lock().settle(items)
    }

    /// Puts what remains of a batch back to the front, in order.
    pub(crate) fn put_back(&self, items: Vec<Item>) {
        let mut state = self.lock();
        if !state.settle(&items) {
            return;
        }
        for item in items.into_iter().rev() {
            state.add(&item);
            state.waiting.push_front(item);
        }
    }

    /// Puts what remains of a batch behind all others; gives it back where there are none.
    pub(crate) fn put_last(&self, items: Vec<Item>) -> Result<(), Vec<Item>> {
        let mut state = self.lock();
        if state.waiting.is_empty() || !state.settle(&items) {
            return Err(items);
        }
        for item in items {
            state.add(&item);
            state.waiting.push_back(item);
        }
        Ok(())
    }

    /// Takes out what has waited longer than that.
    pub(crate) fn take_older_than(&self, age: Duration) -> Vec<Item> {
        let mut state = self.lock();
        let (old, young): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.waiting).into_iter().partition(|item| item.is_older_than(age));
        state.waiting = young.into();
        for item in &old {
            state.subtract(item);
        }
        old
    }

    /// What it holds, records on their way included.
    pub(crate) fn depth(&self) -> Depth {
        let state = self.lock();
        let away = state.away.values().map(|item| item.queued_at);
        Depth {
            records: state.waiting.len() + state.away.len(),
            bytes: state.bytes + state.away_bytes,
            oldest: away.chain(state.waiting.iter().map(|item| item.queued_at)).min(),
        }
    }

    /// Takes no more. Gives what waited, and what was on its way.
    pub(crate) fn close(&self) -> (Vec<Item>, Vec<Item>) {
        let mut state = self.lock();
        let held = std::mem::replace(&mut *state, State { closed: true, ..State::default() });
        (held.waiting.into(), held.away.into_values().collect())
    }
}

#[cfg(test)]
mod tests;
