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
use crate::request_log::LogBatch;

/// The bounds and times of the store; tests use smaller ones.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Ledger entries that may wait.
    pub(crate) entries: usize,
    /// Bytes that waiting ledger entries may take.
    pub(crate) bytes: usize,
    /// Bytes that waiting log batches may take; a batch alone may be larger.
    pub(crate) log_bytes: usize,
    /// Ledger entries in one transaction.
    pub(crate) batch: usize,
    /// How long the first entry waits for others.
    pub(crate) window: Duration,
    /// How long SQLite waits for another program's lock.
    pub(crate) busy: Duration,
    /// How often retention looks when nothing else makes it.
    pub(crate) tidy: Duration,
    /// The size at which the file is full; `None` leaves that to the disk.
    pub(crate) max_pages: Option<i64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 65_536,
            bytes: 64 << 20,
            log_bytes: 32 << 20,
            batch: 1024,
            window: Duration::from_millis(50),
            busy: Duration::from_secs(2),
            tidy: Duration::from_secs(10),
            max_pages: None,
        }
    }
}

/// How long the request log keeps what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) age: Duration,
    pub(crate) size: u64,
}

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
