//! The store's thread: the one place that writes.
//!
//! It takes what waits, writes the ledger first, then one batch of the log, then does one step of retention, and
//! starts over. Ledger entries stay in its hands until they are committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use magicapi_kernel::LogRow;
use magicapi_plugin::{Delivery, ItemOutcome};
use rusqlite::Connection;
use tokio::sync::broadcast;

use crate::error::Trouble;
use crate::journal::Queued;
use crate::ledger;
use crate::limits::Bounds;
use crate::queue::{Plan, Shared};
use crate::request_log::{self, LogBatch, LogEntry, Stored};
use crate::retention::{AFTER_TROUBLE, Retention, Step};
use crate::row;
use crate::schema;

/// The first pause after a failed write; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The state of the store's thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    conn: Connection,
    held: VecDeque<Queued>,
    pause: Option<(Instant, Duration)>,
    retention: Retention,
    tidy_at: Instant,
    follow: broadcast::Sender<Arc<LogRow>>,
}

/// However the thread ends, nobody waits for it in vain.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        conn: Connection,
        follow: broadcast::Sender<Arc<LogRow>>,
    ) -> rusqlite::Result<Self> {
        let retention = Retention::load(&conn)?;
        Ok(Self {
            shared,
            conn,
            held: VecDeque::new(),
            pause: None,
            retention,
            // Not at once: the start belongs to the traffic.
            tidy_at: Instant::now() + FIRST_PAUSE,
            follow,
        })
    }

    /// Runs until the store is closed.
    pub(crate) fn run(self) {
        let end = End(self.shared.clone());
        self.work();
        drop(end);
    }

    /// Takes the writer, so that the file is closed, and its write-ahead log carried over, before the end is told.
    fn work(mut self) {
        loop {
            let plan = Plan { held: self.held.len(), pause: self.pause, tidy_at: self.tidy_at };
            let turn = self.shared.next(&plan);
            self.held.extend(turn.ledger);
            if turn.write_ledger {
                self.write_ledger();
            }
            if let Some(batch) = turn.log {
                self.write_log(batch);
                if self.retention.over(turn.bounds) {
                    self.tidy_at = self.tidy_at.min(Instant::now());
                }
            }
            if turn.end {
                return;
            }
            if turn.tidy || self.tidy_at <= Instant::now() {
                self.tidy(turn.bounds);
            }
        }
    }

    fn write_ledger(&mut self) {
        let mut result = ledger::insert(&mut self.conn, &self.held);
        if result.as_ref().is_err_and(|error| Trouble::of(error) == Trouble::Full) && self.give_way() {
            result = ledger::insert(&mut self.conn, &self.held);
        }
        match result {
            Ok(new) => {
                self.shared.settle(std::mem::take(&mut self.held), new, 0);
                self.recovered();
            }
            Err(error) if Trouble::of(&error) == Trouble::Row => self.write_one_by_one(),
            Err(error) => self.failed(&error),
        }
    }

    /// One entry that cannot be written must not stop those behind it.
    fn write_one_by_one(&mut self) {
        while let Some(entry) = self.held.pop_front() {
            let one = VecDeque::from([entry]);
            match ledger::insert(&mut self.conn, &one) {
                Ok(new) => self.shared.settle(one, new, 0),
                Err(error) if Trouble::of(&error) == Trouble::Row => {
                    tracing::error!(%error, "a ledger entry cannot be stored; it is counted as missing");
                    self.shared.settle(one, 0, 1);
                }
                Err(error) => {
                    self.held.extend(one);
                    self.held.rotate_right(1);
                    self.failed(&error);
                    return;
                }
            }
        }
        self.recovered();
    }

    fn give_way(&mut self) -> bool {
        match self.retention.give_way(&mut self.conn) {
            Ok(deleted) => {
                self.shared.counts.log_deleted.fetch_add(deleted, Ordering::Relaxed);
                deleted > 0
            }
            Err(_) => false,
        }
    }

    fn write_log(&mut self, batch: LogBatch) {
        let delivery = match request_log::insert(&mut self.conn, &batch.entries) {
            Ok(stored) => {
                self.logged(stored);
                self.recovered_log();
                Delivery::Delivered
            }
            Err(error) if Trouble::of(&error) == Trouble::Row => self.log_one_by_one(&batch.entries),
            Err(error) => {
                self.trouble(&error);
                Delivery::Retry { after: Some(Duration::from_secs(1)) }
            }
        };
        // Nobody waits any more: the exporter was stopped. The rows are in the file all the same.
        let _ = batch.done.send(delivery);
    }

    fn log_one_by_one(&mut self, entries: &[LogEntry]) -> Delivery {
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries.chunks(1) {
            outcomes.push(match request_log::insert(&mut self.conn, entry) {
                Ok(stored) => {
                    self.logged(stored);
                    ItemOutcome::Delivered
                }
                Err(error) if Trouble::of(&error) == Trouble::Row => {
                    ItemOutcome::Rejected { reason: error.to_string() }
                }
                Err(error) => {
                    self.trouble(&error);
                    ItemOutcome::Retry
                }
            });
        }
        Delivery::Items(outcomes)
    }

    fn logged(&mut self, stored: Stored) {
        self.retention.grew(stored.bytes);
        self.shared.counts.log_written.fetch_add(stored.rows, Ordering::Relaxed);
        if self.follow.receiver_count() == 0 {
            return;
        }
        // As a list would show them: who follows is told what stands in the file.
        let told = row::each(&self.conn, stored.seqs, |row| {
            // The last follower may have left meanwhile.
            let _ = self.follow.send(Arc::new(row));
        });
        if let Err(error) = told {
            tracing::warn!(%error, "those who follow the request log miss rows; `logs search` finds them");
        }
    }

    fn tidy(&mut self, bounds: Bounds) {
        let now = Instant::now();
        if self.shared.trouble().is_some() && self.held.is_empty() && !self.works_again() {
            self.tidy_at = now + self.after_trouble();
            return;
        }
        self.tidy_at = match self.retention.step(&mut self.conn, bounds) {
            Ok(Step::Done) => now + self.shared.limits.tidy,
            Ok(Step::Shrunk) => now,
            Ok(Step::Deleted(rows)) => {
                self.shared.counts.log_deleted.fetch_add(rows, Ordering::Relaxed);
                now
            }
            Err(error) => {
                self.trouble(&error);
                now + self.after_trouble()
            }
        };
    }

    /// While it refuses requests nothing may come that could be written, so it has to find out by itself.
    fn works_again(&mut self) -> bool {
        match schema::probe(&self.conn) {
            Ok(()) => {
                self.recovered();
                true
            }
            Err(error) => {
                self.trouble(&error);
                false
            }
        }
    }

    fn after_trouble(&self) -> Duration {
        AFTER_TROUBLE.min(self.shared.limits.tidy)
    }

    fn failed(&mut self, error: &rusqlite::Error) {
        let last = self.pause.map_or(FIRST_PAUSE / 2, |(_, pause)| pause);
        self.pause = Some((Instant::now(), (last * 2).min(LAST_PAUSE)));
        self.trouble(error);
    }

    /// Said once per change, not per try.
    fn trouble(&mut self, error: &rusqlite::Error) {
        self.tidy_at = self.tidy_at.min(Instant::now() + self.after_trouble());
        let storage = matches!(Trouble::of(error), Trouble::Full | Trouble::Storage);
        if self.shared.note(Some(error.to_string()), storage || self.shared.storage_failed()) {
            tracing::warn!(%error, "the store cannot write; ledger entries wait");
        }
    }

    fn recovered(&mut self) {
        self.pause = None;
        if self.shared.note(None, false) {
            tracing::info!("the store writes again");
        }
    }

    /// A batch of the log that went through says nothing about ledger entries that still wait.
    fn recovered_log(&mut self) {
        if self.held.is_empty() {
            self.recovered();
        }
    }
}
