//! What is on its way to the disk: in memory, bounded, and taken by whoever writes or, when nobody can, by the worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Spool, lock};
use crate::metrics::DropReason;
use crate::queue::Item;
use crate::settings::PipelineSettings;

/// The share of `buffer.memory` that the hand-over may use beside it, as a divisor, and the least of it: room for what
/// comes while the disk syncs.
const SHARE: (usize, usize) = (4, 4 << 20);

/// How many times its bound the hand-over may hold, where nothing is dropped from it, before the disk counts as full.
const BEHIND: usize = 4;

/// Records on their way to the disk.
#[derive(Default)]
pub(super) struct Handover {
    pub(super) waiting: VecDeque<Item>,
    pub(super) bytes: usize,
    /// Records that the thread is writing.
    pub(super) writing: usize,
    /// The last records are there, and it has not been tried yet to write them.
    pub(super) untried: bool,
    pub(super) closed: bool,
}

impl Handover {
    /// What it may hold, in bytes.
    pub(super) fn memory(pipeline: &PipelineSettings) -> usize {
        (pipeline.buffer_memory / SHARE.0).max(SHARE.1)
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.waiting.pop_front()?;
        self.bytes -= item.memory();
        Some(item)
    }
}

impl Spool {
    /// Hands records over to the disk. Past the hand-over's bound the oldest are dropped and counted; the queue lends it the
    /// `room` that it has itself, since a batch that moves here is no more than it was there, and takes it back with nothing
    /// to hand over. Without a bound these are the last. Gives them back when the spool is closed.
    pub(crate) fn offer(self: &Arc<Self>, items: Vec<Item>, room: Option<usize>) -> Result<(), Vec<Item>> {
        let mut handover = lock(&self.handover);
        if handover.closed {
            return if items.is_empty() { Ok(()) } else { Err(items) };
        }
        let bound = room.map_or(usize::MAX, |room| self.limits.memory.saturating_add(room));
        if items.is_empty() && handover.bytes <= bound {
            return Ok(());
        }
        self.records.fetch_add(items.len() as u64, Ordering::Relaxed);
        for item in items {
            handover.bytes += item.memory();
            handover.waiting.push_back(item);
        }
        handover.untried |= room.is_none();
        let mut dropped = Vec::new();
        while self.valve.is_none() && handover.bytes > bound && handover.waiting.len() > 1 {
            dropped.extend(handover.pop());
        }
        let presses = handover.bytes > self.limits.memory / 2;
        drop(handover);
        self.regate();
        self.call();
        if presses {
            self.thread.press();
        }
        if !dropped.is_empty() {
            let reason = lock(&self.failure).as_ref().map_or(DropReason::QueueFull, |(reason, _)| *reason);
            self.drop_records(dropped.len(), reason);
        }
        Ok(())
    }

    /// Whether there is something left for another turn.
    pub(super) fn has_more(&self) -> bool {
        let waits = !lock(&self.handover).waiting.is_empty();
        waits && lock(&self.failure).is_none() && lock(&self.files).is_open()
    }

    /// The next file's worth of records that wait to be written; for the thread itself, which then is `writing`.
    pub(super) fn take_handover(&self, writing: bool) -> Vec<Item> {
        let mut handover = lock(&self.handover);
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(front) = handover.waiting.front() {
            bytes += front.encoded();
            let full = items.len() >= self.limits.batch_records || bytes > self.limits.batch_bytes;
            if full && !items.is_empty() {
                break;
            }
            items.extend(handover.pop());
        }
        if writing {
            handover.writing = items.len();
        }
        drop(handover);
        self.regate();
        items
    }

    /// Whether something is still on its way to the disk.
    pub(crate) fn is_writing(&self) -> bool {
        let handover = lock(&self.handover);
        let (writes, untried) = (handover.writing > 0, handover.untried);
        let waits = !handover.waiting.is_empty();
        drop(handover);
        writes || (waits && (untried || lock(&self.failure).is_none())) || self.dead.is_writing()
    }

    /// Takes no more, lets the directory go, and gives what could not be written yet to whoever comes after.
    pub(crate) fn hand_over(&self) -> Vec<Item> {
        let waiting = self.end();
        self.records.fetch_sub(waiting.len() as u64, Ordering::Relaxed);
        lock(&self.files).close();
        self.regate();
        waiting
    }

    fn end(&self) -> Vec<Item> {
        let mut handover = lock(&self.handover);
        handover.closed = true;
        handover.bytes = 0;
        std::mem::take(&mut handover.waiting).into()
    }

    /// Takes no more and lets the directory go. What could not be written is lost, and counted.
    pub(crate) fn close(&self) {
        let given_up = self.end();
        let lost = given_up.len();
        for item in given_up {
            item.share.give_up();
        }
        let reason = lock(&self.failure).as_ref().map_or(DropReason::Shutdown, |(reason, _)| *reason);
        self.drop_records(lost, reason);
        if lost > 0 {
            let (exporter, reason) = (self.tally.name(), reason.as_str());
            tracing::warn!(exporter, records = lost, reason, "exporter: records lost at the end");
        }
        lock(&self.files).close();
        self.regate();
    }

    /// Shuts or opens the valve. The disk counts as full when files cannot be written, and when it falls so far behind
    /// that several times the bound of the hand-over waits for it.
    pub(super) fn regate(&self) {
        let Some(valve) = &self.valve else { return };
        let failing = lock(&self.failure).is_some();
        let bytes = lock(&self.handover).bytes;
        valve.hold(failing || bytes > BEHIND * self.limits.memory, bytes, self.limits.memory);
    }
}
