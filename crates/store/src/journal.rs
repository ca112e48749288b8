//! The ledger's journal (invariant 7): rows stand in a file before they are in the store, so that neither a kill nor a
//! store that is locked or away costs one.
//!
//! ```text
//! Ledger::record -> queue -> journal thread: append, a batch in one write -> store thread: one transaction -> settled
//! next start: what was not settled is inserted; a row that is there already stays as it is
//! ```
//!
//! Nobody waits for it. Where it cannot be written rows go to the store all the same, counted and said.

pub(crate) mod row;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use magicapi_kernel::LedgerEntry;
use magicapi_spool::{Fsync, Journal, JournalSettings, OldSegment, Ticket};
use serde::Serialize;

use crate::queue::Shared;

/// Bounds: as many rows as the queue holds fit, written out.
const SETTINGS: JournalSettings = JournalSettings {
    segment_bytes: 4 << 20,
    max_bytes: 256 << 20,
    fsync: Fsync::Interval(Duration::from_secs(1)),
};
/// How long the first row waits for others.
const GATHER: Duration = Duration::from_millis(20);

/// The ledger's journal at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JournalStatus {
    /// Bytes of its files.
    pub bytes: u64,
    /// Their bound.
    pub limit: u64,
    /// Entries that are not in the store yet.
    pub entries: u64,
    /// How long ago the oldest of them came.
    pub oldest_age: Option<Duration>,
    /// Entries that went on without it since the start.
    pub unwritten: u64,
    /// Entries of an earlier process.
    pub recovered: u64,
    /// Why it cannot be written just now.
    pub error: Option<String>,
}

/// The journal that is written.
#[derive(Default)]
pub(crate) struct LedgerJournal {
    /// `None` when it could not be opened, and after the end.
    journal: Mutex<Option<Journal>>,
    old_bytes: Arc<AtomicU64>,
    unwritten: AtomicU64,
    recovered: AtomicU64,
    error: Mutex<Option<String>>,
    /// Bytes that could not be written last.
    failed: AtomicU64,
}

/// One entry on its way to the store.
pub(crate) struct Queued {
    pub(crate) entry: LedgerEntry,
    pub(crate) since: SystemTime,
    place: Option<Arc<Pin>>,
    settled: bool,
}

/// Holds the files that entries stand in until all of them are settled.
struct Pin {
    holds: Option<Holds>,
    /// One of them was given up: all come back at the next start.
    spared: AtomicBool,
}

enum Holds {
    Ticket(Ticket),
    /// An earlier process's, and the count of their bytes.
    Old(Vec<OldFile>, Arc<AtomicU64>),
}

struct OldFile {
    segment: OldSegment,
    corrupt: bool,
}

impl std::fmt::Debug for LedgerJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerJournal").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entry.fmt(f)
    }
}

impl Queued {
    /// An entry that no journal holds.
    pub(crate) fn new(entry: LedgerEntry) -> Self {
        Self { entry, since: SystemTime::now(), place: None, settled: false }
    }

    fn kept(entry: LedgerEntry, pin: Arc<Pin>) -> Self {
        let mut queued = Self::new(entry);
        queued.place = Some(pin);
        queued
    }

    /// Whether it would come back after a kill.
    pub(crate) fn is_kept(&self) -> bool {
        self.place.is_some()
    }

    /// It has reached its place, or will never.
    pub(crate) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(pin) = self.place.as_ref().filter(|_| !self.settled) {
            pin.spared.store(true, Ordering::Relaxed);
        }
    }
}

impl Pin {
    fn new(holds: Holds) -> Arc<Self> {
        Arc::new(Self { holds: Some(holds), spared: AtomicBool::new(false) })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let spared = *self.spared.get_mut();
        match self.holds.take() {
            // Dropped as it is, a ticket keeps its segment.
            Some(Holds::Ticket(ticket)) if !spared => ticket.settle(),
            Some(Holds::Old(files, bytes)) if !spared => {
                bytes.store(0, Ordering::Relaxed);
                files.into_iter().for_each(OldFile::let_go);
            }
            _ => {}
        }
    }
}

impl OldFile {
    fn let_go(self) {
        let file = self.segment.path().display().to_string();
        let gone = if self.corrupt { self.segment.set_aside() } else { self.segment.delete() };
        if let Err(error) = gone {
            tracing::warn!(file, %error, "ledger journal: a file that is done with cannot be removed; its rows come again");
        }
    }
}

impl LedgerJournal {
    /// Opens the directory and gives what an earlier process left. A journal that cannot be opened is said, and the
    /// ledger goes on without it.
    pub(crate) fn open(dir: &Path) -> (Self, Vec<Queued>) {
        let this = Self::default();
        match Journal::open(dir, SETTINGS) {
            Ok((journal, old)) => {
                *lock(&this.journal) = Some(journal);
                let left = this.read(old);
                (this, left)
            }
            Err(error) => {
                this.tell(Some(error.to_string()));
                (this, Vec::new())
            }
        }
    }

    fn read(&self, old: Vec<OldSegment>) -> Vec<Queued> {
        let (mut entries, mut files, mut bytes) = (Vec::new(), Vec::new(), 0);
        for segment in old {
            let (stored, failure) = segment.read();
            let file = segment.path().display().to_string();
            match &failure {
                Some(error) if !error.is_about_content() || error.is_newer() => {
                    tracing::error!(file, %error, "ledger journal: a file cannot be read and is left alone");
                    continue;
                }
                Some(error) if !error.is_cut_short() => tracing::error!(
                    file, %error, rows = stored.len(),
                    "ledger journal: a file is damaged; what stands before the fault is read, and the file goes to \
                     `corrupt` afterwards"
                ),
                _ => {}
            }
            for one in &stored {
                match row::read(one) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => tracing::error!(file, %error, "ledger journal: a row cannot be read"),
                }
            }
            let corrupt = failure.is_some_and(|error| !error.is_cut_short());
            bytes += std::fs::metadata(segment.path()).map_or(0, |found| found.len());
            files.push(OldFile { segment, corrupt });
        }
        if !entries.is_empty() {
            tracing::info!(
                rows = entries.len(),
                "ledger journal: rows of an earlier process go to the store"
            );
        }
        self.recovered.store(entries.len() as u64, Ordering::Relaxed);
        self.old_bytes.store(bytes, Ordering::Relaxed);
        // With no rows, it is let go at once.
        let pin = Pin::new(Holds::Old(files, self.old_bytes.clone()));
        entries.into_iter().map(|entry| Queued::kept(entry, pin.clone())).collect()
    }

    /// Appends entries in one write. Each then stands there, or is counted as unwritten.
    fn append(&self, entries: &mut [Queued]) {
        let journal = lock(&self.journal).clone();
        let stored: Vec<_> = entries.iter().map(|queued| row::write(&queued.entry)).collect();
        match journal.map(|journal| journal.append(&stored)) {
            Some(Ok(ticket)) => {
                let pin = Pin::new(Holds::Ticket(ticket));
                for queued in entries {
                    queued.place = Some(pin.clone());
                }
                self.tell(None);
            }
            failed => {
                self.unwritten.fetch_add(entries.len() as u64, Ordering::Relaxed);
                if let Some(Err(error)) = failed {
                    let bytes = stored.iter().map(|row| row.len() as u64).sum();
                    self.failed.store(bytes, Ordering::Relaxed);
                    self.tell(Some(error.to_string()));
                }
            }
        }
    }

    /// For the timer: rows that came last are not forgotten, and a journal that failed and has nothing to write learns
    /// whether it could again.
    fn sync(&self) {
        let Some(journal) = lock(&self.journal).clone() else { return };
        if let Err(error) = journal.sync_if_due() {
            self.tell(Some(error.to_string()));
        } else if lock(&self.error).is_some() && journal.probe(self.failed.load(Ordering::Relaxed)).is_ok() {
            self.tell(None);
        }
    }

    /// Notes whether it can be written, and says so once per change.
    fn tell(&self, now: Option<String>) {
        let mut error = lock(&self.error);
        let changed = error.is_some() != now.is_some();
        error.clone_from(&now);
        drop(error);
        match now {
            Some(error) if changed => tracing::error!(
                error,
                "ledger journal: rows cannot be written there; they go to the store alone, and a kill would lose those \
                 that wait"
            ),
            None if changed => tracing::info!("ledger journal: rows can be written there again"),
            _ => {}
        }
    }

    /// `entries` and `oldest`: what waits for the store.
    pub(crate) fn status(&self, entries: u64, oldest: Option<SystemTime>) -> JournalStatus {
        let written = lock(&self.journal).as_ref().map_or(0, Journal::bytes);
        JournalStatus {
            bytes: written + self.old_bytes.load(Ordering::Relaxed),
            limit: SETTINGS.max_bytes,
            entries,
            oldest_age: oldest.map(|since| since.elapsed().unwrap_or_default()),
            unwritten: self.unwritten.load(Ordering::Relaxed),
            recovered: self.recovered.load(Ordering::Relaxed),
            error: lock(&self.error).clone(),
        }
    }
}

/// Moves entries from the request path's queue to the store's, through the journal, until the store ends.
pub(crate) fn start(shared: &Arc<Shared>, journal: Arc<LedgerJournal>) -> std::io::Result<JoinHandle<()>> {
    let shared = shared.clone();
    std::thread::Builder::new().name("ledger-journal".into()).spawn(move || {
        while let Some(mut entries) = shared.next_fresh(GATHER) {
            if entries.is_empty() {
                journal.sync();
                continue;
            }
            journal.append(&mut entries);
            shared.push_kept(entries);
        }
        // With it goes the file that was written last, once its rows are settled.
        drop(lock(&journal.journal).take());
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
