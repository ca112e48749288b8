//! The open store: what the gateway holds, and what it hands to others.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use magicapi_kernel::Ledger;
use magicapi_plugin::TelemetryExporter;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::journal::{JournalStatus, LedgerJournal};
use crate::ledger::QueuedLedger;
use crate::limits::{Bounds, Limits};
use crate::queue::Shared;
use crate::schema::open_writer;
use crate::writer::Writer;
use crate::{LogRow, Reader, RequestLog, StoreError};

/// Rows that a follower may be behind before it is told that it lost some.
const FOLLOW: usize = 256;

/// What the store does when it is dropped without `close`.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Where the store is and what it keeps.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The database file. Its directory is made when it is not there.
    pub path: PathBuf,
    /// Records of the request log older than this are deleted. The ledger keeps everything.
    pub retention_age: Duration,
    /// What the request log may take of the file, in bytes, free pages included; the oldest records go first. The
    /// ledger's rows come on top, and the write-ahead log, 16 MiB and more after a large batch.
    pub retention_size: u64,
    /// The ledger's journal: a directory of its own. `None`: a kill costs the entries that are not written yet.
    pub journal: Option<PathBuf>,
}

/// The embedded store. Cheap to ask, from any thread; all writing is on a thread of its own.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    path: PathBuf,
    follow: broadcast::Sender<Arc<LogRow>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreStatus {
    /// The spend ledger.
    pub ledger: LedgerStatus,
    /// The request log.
    pub request_log: LogStatus,
    /// The ledger's journal; `None` when there is none.
    pub journal: Option<JournalStatus>,
    /// What the last write failed with; absent when it did not.
    pub last_error: Option<String>,
    /// The disk is full or broken.
    pub storage_failed: bool,
    /// The database and its write-ahead log on disk.
    pub file_bytes: u64,
}

/// Ledger entries, one per request. Entries taken in = `queued` + `written` + `repeated`, and `missing` beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LedgerStatus {
    /// Whether it takes entries of new requests.
    pub ready: bool,
    /// Waiting to be written.
    pub queued: u64,
    /// What those take in memory.
    pub queued_bytes: u64,
    /// Written since the start.
    pub written: u64,
    /// Were there already.
    pub repeated: u64,
    /// Lost: the queue was full, or could not be written before the end and stands in no journal.
    pub missing: u64,
}

/// Records of the request log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogStatus {
    /// Bytes waiting to be written.
    pub queued_bytes: u64,
    /// Written since the start.
    pub written: u64,
    /// Deleted by retention since the start.
    pub deleted: u64,
}

impl Store {
    /// Opens the file, making or migrating it, and starts the thread that writes. Takes no longer for a large file.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_with(options, Limits::default())
    }

    pub(crate) fn open_with(options: StoreOptions, limits: Limits) -> Result<Self, StoreError> {
        let StoreOptions { path, retention_age: age, retention_size: size, journal } = options;
        let conn = open_writer(&path, limits.busy)?;
        let wrap = |source| StoreError::sqlite(&path, source);
        if let Some(pages) = limits.max_pages {
            conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).map_err(wrap)?;
        }
        let (journal, left) = journal.map(|dir| LedgerJournal::open(&dir)).unzip();
        let shared = Arc::new(Shared::new(limits, Bounds { age, size }, journal));
        shared.push_left(left.unwrap_or_default());
        let follow = broadcast::Sender::new(FOLLOW);
        let writer = Writer::new(shared.clone(), conn, follow.clone()).map_err(wrap)?;
        let thread = Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(StoreError::Thread)?;
        let mut threads = vec![thread];
        if let Some(journal) = &shared.journal {
            threads.push(crate::journal::start(&shared, journal.clone()).map_err(StoreError::Thread)?);
        }
        Ok(Self { shared, path, follow, threads: Mutex::new(threads) })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The spend ledger. After `close` it counts what it is given as missing.
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(QueuedLedger(self.shared.clone()))
    }

    /// The exporter [`crate::REQUEST_LOG`], for the pipeline.
    pub fn request_log(&self) -> Box<dyn TelemetryExporter> {
        Box::new(RequestLog::new(self.shared.clone()))
    }

    /// A reader of its own connection; opening one takes well under a millisecond.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(&self.path)
    }

    /// New rows of the request log, once they are stored. Who is too slow is told how many it missed
    /// (`RecvError::Lagged`) and finds them with [`Reader::since`].
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogRow>> {
        self.follow.subscribe()
    }

    /// Whether new requests may count on their ledger rows; the same as the ledger's own answer.
    pub fn ready(&self) -> bool {
        self.shared.ready()
    }

    /// Counts, and what is wrong.
    pub fn status(&self) -> StoreStatus {
        let counts = &self.shared.counts;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.shared.waiting();
        StoreStatus {
            ledger: LedgerStatus {
                ready: self.shared.ready(),
                queued: waiting.entries,
                queued_bytes: waiting.bytes,
                written: count(&counts.written),
                repeated: count(&counts.repeated),
                missing: count(&counts.missing),
            },
            request_log: LogStatus {
                queued_bytes: waiting.log_bytes,
                written: count(&counts.log_written),
                deleted: count(&counts.log_deleted),
            },
            journal: self.shared.journal_status(),
            last_error: self.shared.trouble(),
            storage_failed: self.shared.storage_failed(),
            file_bytes: file_bytes(&self.path),
        }
    }

    /// Changes what the request log keeps; takes effect at once, in small steps.
    pub fn set_retention(&self, age: Duration, size: u64) {
        self.shared.set_bounds(Bounds { age, size });
    }

    /// Waits (blocking) until every ledger entry taken in so far is written.
    pub fn flush(&self, within: Duration) -> Result<(), StoreError> {
        self.shared.flush(within).map_err(|left| StoreError::NotFlushed { left })
    }

    /// Writes what waits, closes the file and ends the thread, within the time given (blocking). What cannot be
    /// written by then is counted as missing. Called again it does nothing.
    pub fn close(&self, within: Duration) -> Result<(), StoreError> {
        let closed = self.shared.close(within);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads.into_iter().filter(|_| self.shared.ended()) {
            // It has said that it ended; that it panicked before was counted.
            let _ = thread.join();
        }
        closed.map_err(|left| StoreError::NotFlushed { left })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.close(LAST_MOMENT) {
            tracing::error!(%error, "the store was dropped with entries in it");
        }
    }
}

fn file_bytes(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    [path, Path::new(&log)].into_iter().filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
}
