//! `telemetry.durable`: records that survive a kill, from admission to their last exporter.
//!
//! ```text
//! request path   Tap::open --+-> journal thread: open entry, batched    DATA_DIR/journal/telemetry
//! assembly       sealed -----+-> append, then the exporters' queues
//! exporters      last one done +-> journal thread: done entry; segments go
//! next start     open without record -> `gateway_killed`; record without done entry -> offered again
//! ```
//!
//! The request path hands an open entry over and never waits. A record is accepted when its append has returned; only then
//! do exporters get it. Where the journal has no room or no disk, traffic and delivery go on without it, counted and said.

mod entry;
mod kept;
mod recover;
mod thread;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use magicapi_plugin::{Facts, RequestId, RequestMetrics, Secret, TelemetryConfig};
pub use magicapi_spool::Fsync;
use magicapi_spool::{Journal, JournalSettings, SpoolError, Ticket};

pub(crate) use self::entry::KILLED;
pub(crate) use self::kept::Kept;
use self::kept::{Held, Pin};
pub(crate) use self::recover::Recovery;
use self::thread::Inbox;

/// A segment that has reached this length is followed by another.
const SEGMENT: u64 = 8 << 20;
/// The part of the bound that records leave free, as a divisor: open and done entries still fit.
const RESERVE: u64 = 16;

/// Takes secrets out of facts before they are written.
pub(crate) type Clean = Box<dyn Fn(&mut Facts, Option<&Secret>) + Send>;

/// The journal of records (`telemetry.durable`).
#[derive(Clone, Debug)]
pub struct DurableSettings {
    /// Its directory; it belongs to this process.
    pub dir: PathBuf,
    /// The most that its files take, in bytes.
    pub disk: u64,
    /// When entries reach the disk itself: for a loss of power. A kill loses none in any case.
    pub fsync: Fsync,
}

/// The journal at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// Bytes of its files.
    pub bytes: u64,
    /// Their bound.
    pub limit: u64,
    /// Requests and records in it that are not done with.
    pub records: u64,
    /// How long ago the oldest of them began.
    pub oldest_age: Option<Duration>,
    /// Requests and records that went on without it since the start, for want of room or of a disk.
    pub unwritten: u64,
    /// Records of an earlier process that were offered again.
    pub recovered: u64,
    /// Requests of an earlier process that were under way when it was killed.
    pub killed: u64,
    /// Why it cannot be written just now.
    pub error: Option<String>,
}

/// The journal that is written.
pub(crate) struct RecordJournal {
    /// `None` once it is closed.
    journal: Mutex<Option<Journal>>,
    limit: u64,
    /// Bytes of files that an earlier process left.
    old_bytes: Arc<AtomicU64>,
    inbox: Inbox,
    live: Mutex<HashMap<RequestId, Arc<Held>>>,
    appends: AtomicU64,
    unwritten: AtomicU64,
    recovered: AtomicU64,
    killed: AtomicU64,
    failure: Mutex<Option<Failure>>,
    /// An earlier process's files are being read: they stay, and so does all that was written since.
    recovering: AtomicBool,
    /// The process ends: what is given up from here on comes back at the next start.
    closing: AtomicBool,
}

/// Why entries cannot be written.
#[derive(Clone)]
struct Failure {
    said: String,
    /// When there is no room: how far the files may go for what does not fit to fit. What is smaller, or of a kind that may
    /// go further, may still be written; that mends nothing.
    fits_at: Option<u64>,
    /// Bytes that could not be written.
    needed: u64,
}

impl Failure {
    fn of(error: &SpoolError, needed: u64) -> Self {
        let fits_at = match error {
            SpoolError::Full { needed, limit, .. } => Some(limit.saturating_sub(*needed)),
            _ => None,
        };
        Self { said: error.to_string(), fits_at, needed }
    }
}

/// What entries take in a file.
fn length(entries: &[Vec<u8>]) -> u64 {
    entries.iter().map(|entry| entry.len() as u64 + 8).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RecordJournal {
    /// Opens the directory, starts the thread, and reads what an earlier process left.
    pub(crate) fn start(
        settings: &DurableSettings,
        config: Arc<TelemetryConfig>,
        clean: Clean,
    ) -> Result<(Arc<Self>, Recovery), SpoolError> {
        let bounds = JournalSettings {
            segment_bytes: SEGMENT.min(settings.disk / RESERVE),
            max_bytes: settings.disk,
            fsync: settings.fsync,
        };
        let (journal, old) = Journal::open(&settings.dir, bounds)?;
        let hold = journal.hold();
        let this = Arc::new(Self {
            journal: Mutex::new(Some(journal)),
            limit: settings.disk,
            old_bytes: Arc::default(),
            inbox: Inbox::default(),
            live: Mutex::default(),
            appends: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            recovered: AtomicU64::new(0),
            killed: AtomicU64::new(0),
            failure: Mutex::default(),
            recovering: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let recovery = Recovery::read(&this, old, hold);
        thread::start(&this, config, clean)
            .map_err(|source| SpoolError::Io { path: settings.dir.clone(), source })?;
        Ok((this, recovery))
    }

    /// A request is admitted: it will have an open entry soon. Never waits.
    pub(crate) fn open(self: &Arc<Self>, facts: &Facts, caller_key: Option<&Secret>) -> Kept {
        let kept = self.keep(facts.id);
        if !self.inbox.open(kept.held().clone(), facts, caller_key) {
            self.missed(1);
        }
        kept
    }

    /// What a record without an open entry holds of the journal: its request was refused.
    pub(crate) fn keep(self: &Arc<Self>, id: RequestId) -> Kept {
        Kept::new(self.clone(), Held::new(id))
    }

    /// Appends sealed records, in one write. When this returns they are accepted, or counted as unwritten.
    pub(crate) fn append(&self, batch: &[(&Kept, &RequestMetrics)]) {
        if batch.is_empty() {
            return;
        }
        let entries: Vec<_> =
            batch.iter().map(|(kept, record)| entry::record(kept.held().id, record)).collect();
        let room = self.limit - self.limit / RESERVE;
        match self.write(&entries, room) {
            Some(pin) => {
                let mut live = lock(&self.live);
                for ((kept, _), entry) in batch.iter().zip(&entries) {
                    kept.held().recorded(pin.clone(), entry.len(), self.next());
                    live.insert(kept.held().id, kept.held().clone());
                }
            }
            None => self.missed(batch.len() as u64),
        }
    }

    /// Appends entries as far as the files stay within `room`; the pin holds their segment.
    fn write(&self, entries: &[Vec<u8>], room: u64) -> Option<Arc<Pin>> {
        let written = self.try_write(entries, room)?;
        match &written {
            Ok(_) => self.tell_that_it_works(true),
            Err(error) => self.tell(Some(Failure::of(error, length(entries)))),
        }
        written.ok().map(Pin::new)
    }

    fn try_write(&self, entries: &[Vec<u8>], room: u64) -> Option<Result<Ticket, SpoolError>> {
        let journal = lock(&self.journal).clone()?;
        let needed = length(entries);
        let used = self.used(&journal);
        if used + needed > room {
            return Some(Err(SpoolError::Full { needed, used, limit: room }));
        }
        Some(journal.append(entries))
    }

    fn used(&self, journal: &Journal) -> u64 {
        journal.bytes() + self.old_bytes.load(Ordering::Relaxed)
    }

    /// Ends the failure: want of room when there is room again, any other when something was `written`, or could be.
    fn tell_that_it_works(&self, written: bool) {
        let Some(failure) = lock(&self.failure).clone() else { return };
        let Some(journal) = lock(&self.journal).clone() else { return };
        let works = match failure.fits_at {
            Some(fits_at) => self.used(&journal) <= fits_at,
            None => written || journal.probe(failure.needed).is_ok(),
        };
        if works {
            self.tell(None);
        }
    }

    fn next(&self) -> u64 {
        self.appends.fetch_add(1, Ordering::Relaxed)
    }

    fn missed(&self, count: u64) {
        self.unwritten.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes whether it can be written, and says so once per change.
    fn tell(&self, now: Option<Failure>) {
        let mut failure = lock(&self.failure);
        let changed = failure.is_some() != now.is_some();
        failure.clone_from(&now);
        drop(failure);
        match now {
            Some(failure) if changed => tracing::error!(
                error = failure.said,
                "journal: entries cannot be written; requests and records go on without it, and a kill would lose them"
            ),
            None if changed => tracing::info!("journal: entries can be written again"),
            _ => {}
        }
    }

    pub(crate) fn status(&self) -> JournalStatus {
        let live = lock(&self.live);
        let (records, oldest) = (live.len() as u64, live.values().map(|held| held.since).min());
        drop(live);
        let written = lock(&self.journal).as_ref().map_or(0, Journal::bytes);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JournalStatus {
            bytes: written + count(&self.old_bytes),
            limit: self.limit,
            records,
            oldest_age: oldest.map(|since| since.elapsed().unwrap_or_default()),
            unwritten: count(&self.unwritten),
            recovered: count(&self.recovered),
            killed: count(&self.killed),
            error: lock(&self.failure).as_ref().map(|failure| failure.said.clone()),
        }
    }

    /// The process ends: from here on what is given up undelivered is kept for the next one.
    pub(crate) fn begin_to_close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Writes what waits and lets the files go, within about a second.
    pub(crate) fn close(&self) {
        self.inbox.end();
        self.inbox.wait_for_end(Duration::from_secs(1));
        // With the last handle goes the segment that was written last.
        drop(lock(&self.journal).take());
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
