//! The queue as the store's thread sees it: what is due, what it takes, what it has done with it.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Queue, Shared};
use crate::journal::Queued;
use crate::ledger::weight;
use crate::limits::Bounds;
use crate::request_log::LogBatch;

/// What the thread itself waits for.
pub(crate) struct Plan {
    /// Entries that it holds from a failed try.
    pub(crate) held: usize,
    /// When that try was, and how long to pause after it.
    pub(crate) pause: Option<(Instant, Duration)>,
    /// When retention is due.
    pub(crate) tidy_at: Instant,
}

/// What there is to do.
pub(crate) struct Turn {
    pub(crate) ledger: VecDeque<Queued>,
    pub(crate) write_ledger: bool,
    pub(crate) log: Option<LogBatch>,
    pub(crate) bounds: Bounds,
    pub(crate) tidy: bool,
    pub(crate) end: bool,
}

impl Shared {
    /// Waits for work. Called by the store's thread alone.
    pub(crate) fn next(&self, plan: &Plan) -> Turn {
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            let ledger_at = self.ledger_at(&queue, plan, now);
            let write_ledger = ledger_at.is_some_and(|at| at <= now);
            let tidy = plan.tidy_at <= now || queue.bounds_changed;
            let coming = queue.writing || !queue.fresh.is_empty();
            let idle = plan.held == 0 && queue.ledger.is_empty() && queue.log.is_empty() && !coming;
            let end = queue.closing.is_some_and(|until| idle || until <= now);
            if write_ledger || tidy || end || !queue.log.is_empty() {
                let turn = Turn {
                    ledger: VecDeque::new(),
                    write_ledger,
                    log: None,
                    bounds: queue.bounds,
                    tidy,
                    end,
                };
                return self.take(&mut queue, plan, turn);
            }
            let until = ledger_at.into_iter().chain([plan.tidy_at]).chain(queue.closing).min();
            let pause = until.map_or(self.limits.tidy, |until| until.saturating_duration_since(now));
            queue = self.wake.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// When the ledger's next transaction is due.
    fn ledger_at(&self, queue: &Queue, plan: &Plan, now: Instant) -> Option<Instant> {
        if plan.held == 0 && queue.ledger.is_empty() {
            return None;
        }
        let hurry = queue.closing.is_some() || queue.flushes > 0;
        if let Some((tried, pause)) = plan.pause {
            return Some(tried + if hurry { pause.min(Duration::from_millis(100)) } else { pause });
        }
        let large = hurry || plan.held > 0 || queue.ledger.len() >= self.limits.batch;
        Some(if large { now } else { queue.oldest.map_or(now, |oldest| oldest + self.limits.window) })
    }

    fn take(&self, queue: &mut Queue, plan: &Plan, mut turn: Turn) -> Turn {
        queue.bounds_changed = false;
        if turn.write_ledger {
            let room = self.limits.batch.saturating_sub(plan.held);
            let count = queue.ledger.len().min(room);
            turn.ledger = queue.ledger.drain(..count).collect();
            queue.oldest = (!queue.ledger.is_empty()).then(Instant::now);
        }
        turn.log = queue.log.pop_front();
        if let Some(batch) = &turn.log {
            queue.log_bytes -= batch.bytes;
        }
        turn
    }

    /// Entries are out of the thread's hands: `new` written, the rest there already or `missing`.
    pub(crate) fn settle(&self, entries: VecDeque<Queued>, new: u64, missing: u64) {
        let count = entries.len() as u64;
        self.counts.written.fetch_add(new, Ordering::Relaxed);
        self.counts.missing.fetch_add(missing, Ordering::Relaxed);
        self.counts.repeated.fetch_add(count.saturating_sub(new + missing), Ordering::Relaxed);
        let bytes: usize = entries.iter().map(|queued| weight(&queued.entry)).sum();
        let kept = entries.iter().filter(|queued| queued.is_kept()).count() as u64;
        let mut queue = self.lock();
        queue.entries -= entries.len().min(queue.entries);
        queue.bytes -= bytes.min(queue.bytes);
        queue.settled += count;
        queue.kept -= kept.min(queue.kept);
        queue.since = queue.ledger.front().map(|queued| queued.since);
        self.judge(&queue);
        drop(queue);
        // May remove files.
        entries.into_iter().for_each(Queued::settle);
        self.progress.notify_all();
    }

    /// Notes how the last write went; `true` when that is a change.
    pub(crate) fn note(&self, trouble: Option<String>, storage_failed: bool) -> bool {
        let mut queue = self.lock();
        let changed = queue.trouble.is_some() != trouble.is_some() || self.storage_failed() != storage_failed;
        queue.trouble = trouble;
        self.storage_failed.store(storage_failed, Ordering::Relaxed);
        self.judge(&queue);
        changed
    }

    /// The thread is gone: what still waits is counted, and batches are handed back by dropping them.
    pub(crate) fn end(&self) {
        let mut queue = self.lock();
        // What a journal holds comes back at the next start.
        let left = (queue.accepted - queue.settled).saturating_sub(queue.kept);
        self.counts.missing.fetch_add(left, Ordering::Relaxed);
        if queue.kept > 0 {
            tracing::info!(rows = queue.kept, "ledger: rows that are not in the store stand in its journal");
        }
        queue.ended = true;
        queue.settled = queue.accepted;
        queue.ledger.clear();
        queue.fresh.clear();
        queue.kept = 0;
        queue.since = None;
        queue.entries = 0;
        queue.bytes = 0;
        queue.log.clear();
        queue.log_bytes = 0;
        self.judge(&queue);
        drop(queue);
        self.progress.notify_all();
    }
}
