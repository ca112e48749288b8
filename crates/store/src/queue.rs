//! The way to the store's thread: one queue, a lane for the ledger and one for the request log, each bounded.
//!
//! The lanes have bounds of their own, so that telemetry can never take the ledger's room. What the thread has taken
//! but not yet committed still counts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use magicapi_kernel::LedgerEntry;

use crate::journal::{JournalStatus, LedgerJournal, Queued};
use crate::ledger::weight;
use crate::limits::{Bounds, Limits};
use crate::request_log::LogBatch;

mod turn;

pub(crate) use self::turn::Plan;

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) written: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) missing: AtomicU64,
    pub(crate) log_written: AtomicU64,
    pub(crate) log_deleted: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    /// What no journal holds yet. Unused without one.
    fresh: VecDeque<LedgerEntry>,
    /// The journal's thread holds some.
    writing: bool,
    ledger: VecDeque<Queued>,
    /// When the oldest entry that is not settled came.
    since: Option<SystemTime>,
    /// Of the entries taken in, those that a journal holds.
    kept: u64,
    /// Waiting and taken.
    entries: usize,
    bytes: usize,
    oldest: Option<Instant>,
    log: VecDeque<LogBatch>,
    log_bytes: usize,
    /// Entries taken in, and entries that are written or given up.
    accepted: u64,
    settled: u64,
    flushes: usize,
    bounds: Bounds,
    bounds_changed: bool,
    /// Set by `close`: until when the rest may still be written.
    closing: Option<Instant>,
    ended: bool,
    trouble: Option<String>,
}

/// What the store's thread and everybody else share.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    progress: Condvar,
    ready: AtomicBool,
    storage_failed: AtomicBool,
    /// Wakes the journal's thread.
    fresh: Condvar,
    /// The ledger's journal, when there is one.
    pub(crate) journal: Option<Arc<LedgerJournal>>,
    pub(crate) counts: Counts,
    pub(crate) limits: Limits,
}

/// What waits to be written.
pub(crate) struct Waiting {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) log_bytes: u64,
}

/// A batch that did not fit, or came after the end.
pub(crate) struct Refused;

impl Shared {
    pub(crate) fn new(limits: Limits, bounds: Bounds, journal: Option<LedgerJournal>) -> Self {
        Self {
            queue: Mutex::new(Queue {
                fresh: VecDeque::new(),
                writing: false,
                ledger: VecDeque::new(),
                since: None,
                kept: 0,
                entries: 0,
                bytes: 0,
                oldest: None,
                log: VecDeque::new(),
                log_bytes: 0,
                accepted: 0,
                settled: 0,
                flushes: 0,
                bounds,
                bounds_changed: false,
                closing: None,
                ended: false,
                trouble: None,
            }),
            wake: Condvar::new(),
            progress: Condvar::new(),
            ready: AtomicBool::new(true),
            storage_failed: AtomicBool::new(false),
            fresh: Condvar::new(),
            journal: journal.map(Arc::new),
            counts: Counts::default(),
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether new requests may count on their rows being written.
    pub(crate) fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn storage_failed(&self) -> bool {
        self.storage_failed.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Full for new requests at three quarters: the rest is for the rows of those that already run.
    fn judge(&self, queue: &Queue) {
        let room = queue.entries < self.limits.entries / 4 * 3 && queue.bytes < self.limits.bytes / 4 * 3;
        self.ready.store(room && !self.storage_failed() && !queue.ended, Ordering::Relaxed);
    }

    /// Takes an entry, or counts it as missing. Holds the lock for a push.
    pub(crate) fn push_ledger(&self, entry: LedgerEntry) {
        let bytes = weight(&entry);
        let mut queue = self.lock();
        let full = queue.entries >= self.limits.entries || queue.bytes + bytes > self.limits.bytes;
        if full || queue.ended {
            self.counts.missing.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.entries += 1;
        queue.bytes += bytes;
        queue.accepted += 1;
        queue.since.get_or_insert_with(SystemTime::now);
        if self.journal.is_some() {
            queue.fresh.push_back(entry);
            let waiting = queue.fresh.len();
            self.judge(&queue);
            drop(queue);
            // It gathers for a moment, so one wake-up is enough for all.
            if waiting == 1 {
                self.fresh.notify_one();
            }
            return;
        }
        queue.ledger.push_back(Queued::new(entry));
        self.judge(&queue);
        self.rouse(queue, 1);
    }

    /// Tells the store's thread of so many new entries: it sleeps until a batch is old enough or large enough, and one
    /// wake-up for each is all it needs.
    fn rouse(&self, mut queue: MutexGuard<'_, Queue>, new: usize) {
        let (waiting, batch) = (queue.ledger.len(), self.limits.batch);
        let first = waiting == new;
        if first {
            queue.oldest = Some(Instant::now());
        }
        drop(queue);
        if first || (waiting >= batch && waiting - new < batch) {
            self.wake.notify_one();
        }
    }

    /// What no journal holds yet, after the first has waited for others; nothing now and then, so that a sync is not
    /// forgotten; `None` once nothing comes any more. Called by the journal's thread alone.
    pub(crate) fn next_fresh(&self, gather: Duration) -> Option<Vec<Queued>> {
        let ending = |queue: &Queue| queue.closing.is_some() || queue.ended;
        let mut queue = self.lock();
        if queue.fresh.is_empty() && !ending(&queue) {
            let idle = |queue: &mut Queue| queue.fresh.is_empty() && !ending(queue);
            let waited = self.fresh.wait_timeout_while(queue, Duration::from_secs(1), idle);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if !queue.fresh.is_empty() && !ending(&queue) {
            drop(queue);
            std::thread::sleep(gather);
            queue = self.lock();
        }
        if queue.fresh.is_empty() && ending(&queue) {
            return None;
        }
        queue.writing = !queue.fresh.is_empty();
        Some(queue.fresh.drain(..).map(Queued::new).collect())
    }

    /// Takes what came through the journal.
    pub(crate) fn push_kept(&self, entries: Vec<Queued>) {
        let new = entries.len();
        let mut queue = self.lock();
        queue.writing = false;
        queue.kept += entries.iter().filter(|queued| queued.is_kept()).count() as u64;
        // After the end nobody takes them: they come back at the next start, or were counted.
        if !queue.ended {
            queue.ledger.extend(entries);
        }
        self.rouse(queue, new);
    }

    /// Takes what an earlier process left, whatever the bounds.
    pub(crate) fn push_left(&self, entries: Vec<Queued>) {
        let mut queue = self.lock();
        queue.entries += entries.len();
        queue.bytes += entries.iter().map(|queued| weight(&queued.entry)).sum::<usize>();
        queue.accepted += entries.len() as u64;
        self.judge(&queue);
        drop(queue);
        self.push_kept(entries);
    }

    /// Takes a batch of the request log.
    pub(crate) fn push_log(&self, batch: LogBatch) -> Result<(), Refused> {
        let mut queue = self.lock();
        let fits = queue.log.is_empty() || queue.log_bytes + batch.bytes <= self.limits.log_bytes;
        if queue.ended || queue.closing.is_some() || !fits {
            return Err(Refused);
        }
        queue.log_bytes += batch.bytes;
        queue.log.push_back(batch);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        let mut queue = self.lock();
        queue.bounds = bounds;
        queue.bounds_changed = true;
        drop(queue);
        self.wake.notify_one();
    }

    /// Waits until everything taken in so far is written; how much was not, when time is up.
    pub(crate) fn flush(&self, within: Duration) -> Result<(), u64> {
        let until = Instant::now().checked_add(within);
        let mut queue = self.lock();
        let target = queue.accepted;
        queue.flushes += 1;
        self.wake.notify_one();
        while queue.settled < target {
            let left =
                until.map_or(Duration::from_mins(1), |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            queue = self.progress.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.flushes -= 1;
        match target.saturating_sub(queue.settled) {
            0 => Ok(()),
            left => Err(left),
        }
    }

    /// Tells the thread to write what is left and end; waits for it. How much was lost, when time was too short.
    pub(crate) fn close(&self, within: Duration) -> Result<(), u64> {
        // Longer than anybody waits, and no overflow.
        let until = Instant::now() + within.min(Duration::from_hours(24));
        let mut queue = self.lock();
        let before = self.counts.missing.load(Ordering::Relaxed);
        queue.closing.get_or_insert(until);
        self.wake.notify_one();
        self.fresh.notify_one();
        while !queue.ended {
            // The thread gives up at the same moment and says so; the extra second is for a write that hangs.
            let left = (until + Duration::from_secs(1)).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(queue.accepted - queue.settled);
            }
            queue = self.progress.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match self.counts.missing.load(Ordering::Relaxed) - before {
            0 => Ok(()),
            lost => Err(lost),
        }
    }

    /// What the last write failed with; `None` when it did not.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// How the ledger's journal is; `None` when there is none.
    pub(crate) fn journal_status(&self) -> Option<JournalStatus> {
        let journal = self.journal.as_ref()?;
        let (entries, since) = {
            let queue = self.lock();
            (queue.entries as u64, queue.since)
        };
        Some(journal.status(entries, since))
    }

    /// What waits now.
    pub(crate) fn waiting(&self) -> Waiting {
        let queue = self.lock();
        Waiting {
            entries: queue.entries as u64,
            bytes: queue.bytes as u64,
            log_bytes: queue.log_bytes as u64,
        }
    }
}
