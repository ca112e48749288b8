//! One exporter's records on disk: what its queue has no room for, what waits for a back end that is away, what is left
//! at the end.
//!
//! ```text
//! queue overflows ---+                                                        +-> worker, by `turns`
//! breaker is open ---+-> hand-over (memory, bounded) -> spool thread -> files-+
//! end of the worker -+                                                        +-> the next process
//! ```
//!
//! Only the spool thread writes overflow, so that neither assembly nor an exporter that blocks its thread waits for the
//! disk. The worker reads, and removes a file once all its records are settled. Delivery is at least once: a process
//! that is killed between the two sends a batch again.

mod dead;
mod files;
mod handover;
mod look;
mod name;
mod shelves;
mod taking;
mod thread;
mod turns;
mod work;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use magicapi_plugin::RequestMetrics;
use magicapi_spool::{BatchId, SpoolError};
use tokio::sync::Notify;

use self::dead::{DeadLetters, Place};
use self::files::{Expired, Files};
use self::handover::Handover;
pub use self::look::{FileTotals, SpoolContents, SpoolSummary, SpooledRecord, UnreadableFile};
pub use self::shelves::{Spools, SpoolsError};
pub(crate) use self::thread::Spooler;
pub use self::work::{Purge, Purged, Replayed};
use crate::gate::Valve;
use crate::memory::Reservation;
use crate::metrics::{DropReason, Event};
use crate::put_off::PutOff;
use crate::settings::{PipelineSettings, WhenFull};
use crate::tally::Tally;

/// Bounds of one exporter's spool.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Whether records are written; what is there is delivered in any case.
    keeps: bool,
    /// Of the files, in bytes.
    disk: u64,
    /// How long a record may wait there.
    age: Duration,
    /// Of the hand-over, in bytes.
    memory: usize,
    /// Of one file.
    batch_records: usize,
    batch_bytes: usize,
}

/// See the module.
pub(crate) struct Spool {
    dir: PathBuf,
    limits: Limits,
    /// With `when_full: refuse`: nothing is dropped for want of room, and who is shut out is not asked.
    valve: Option<Arc<Valve>>,
    tally: Arc<Tally>,
    handover: Mutex<Handover>,
    files: Mutex<Files>,
    dead: DeadLetters,
    /// Records in hand-over and files that are not settled.
    records: AtomicU64,
    /// Of the files.
    bytes: AtomicU64,
    /// When the oldest record on disk was made; milliseconds since 1970, 0 when there is none.
    oldest_ms: AtomicU64,
    /// Why files cannot be written just now.
    failure: Mutex<Option<(DropReason, String)>>,
    /// Why one of them cannot be read just now.
    unread: Mutex<Option<String>>,
    /// Records that become dead letters when their time is over.
    put_off: Arc<PutOff>,
    /// A file came back since the back end took something.
    came_back: AtomicBool,
    /// A file has come.
    arrived: Notify,
    thread: Arc<thread::Signal>,
    /// Whether the thread knows that there is something to do.
    called: AtomicBool,
}

/// Where a spooled batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, which goes once it is settled.
    File(BatchId),
    /// The hand-over, while files cannot be written.
    Handover,
}

/// What became of a batch that comes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    /// Nothing of it was settled.
    pub(crate) whole: bool,
    /// It was sent.
    pub(crate) tried: bool,
    /// The back end has so many of it.
    pub(crate) sent: usize,
}

/// What status shows of a spool.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpoolFacts {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest_age: Option<Duration>,
    pub(crate) error: Option<String>,
    pub(crate) dead_bytes: u64,
    pub(crate) dead_records: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    fn new(
        root: &Path,
        tally: &Arc<Tally>,
        pipeline: &PipelineSettings,
        thread: Arc<thread::Signal>,
    ) -> Self {
        Self::at(root.join(name::directory(tally.name())), tally, pipeline, thread)
    }

    /// The same in this directory.
    fn at(
        dir: PathBuf,
        tally: &Arc<Tally>,
        pipeline: &PipelineSettings,
        thread: Arc<thread::Signal>,
    ) -> Self {
        let limits = Limits {
            keeps: pipeline.when_full != WhenFull::DropOldest && pipeline.buffer_disk > 0,
            disk: pipeline.buffer_disk,
            age: pipeline.buffer_max_age.min(pipeline.retry_max_age),
            memory: Handover::memory(pipeline),
            batch_records: pipeline.batch_records.max(1),
            batch_bytes: pipeline.batch_bytes,
        };
        Self {
            dead: DeadLetters::new(
                dir.join(dead::DIRECTORY),
                tally.clone(),
                pipeline.dead_disk,
                pipeline.dead_max_age,
            ),
            dir,
            limits,
            valve: None,
            tally: tally.clone(),
            handover: Mutex::default(),
            files: Mutex::default(),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            oldest_ms: AtomicU64::new(0),
            failure: Mutex::default(),
            unread: Mutex::default(),
            put_off: Arc::new(PutOff::new(pipeline.buffer_max_age)),
            came_back: AtomicBool::new(false),
            arrived: Notify::new(),
            thread,
            called: AtomicBool::new(false),
        }
    }

    /// Opens the directory, once: not before a predecessor of the same name has ended. What is there counts as received.
    pub(crate) fn open(&self) {
        let is_closed = lock(&self.handover).closed;
        if !is_closed && lock(&self.files).allow() {
            self.opened_files(|_| Ok(()));
            self.dead.open_existing();
        }
    }

    /// Whether records that have no room in memory are kept here.
    pub(crate) fn keeps(&self) -> bool {
        self.limits.keeps
    }

    /// The back end took something.
    pub(crate) fn worked(&self) {
        if self.came_back.swap(false, Ordering::AcqRel) {
            lock(&self.files).worked();
        }
    }

    /// Whether they can be just now.
    pub(crate) fn works(&self) -> bool {
        self.keeps() && lock(&self.failure).is_none()
    }

    /// How long a record may wait.
    pub(crate) fn max_age(&self) -> Duration {
        self.limits.age
    }

    /// Keeps a rejected record with its reason.
    pub(crate) fn bury(self: &Arc<Self>, record: Arc<RequestMetrics>, share: Arc<Reservation>, reason: &str) {
        let place = self.dead.add(record, share, reason);
        if place != Place::None {
            self.call();
        }
        if place == Place::HasHardly {
            self.thread.press();
        }
    }

    fn call(self: &Arc<Self>) {
        if !self.called.swap(true, Ordering::AcqRel) {
            self.thread.call(self.clone());
        }
    }

    fn drop_records(&self, records: usize, reason: DropReason) {
        self.records.fetch_sub(records as u64, Ordering::Relaxed);
        self.tally.count(Event::Dropped(reason), records);
    }

    /// Returns once a file may have come.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Removes what has waited too long; what the exporter put off becomes a dead letter.
    pub(crate) fn expire(&self) {
        loop {
            // Letters are written without the files, which others wait for.
            let gone = lock(&self.files).expire_one(self.limits.age, !self.put_off.is_empty());
            match gone {
                Ok(Some(Expired { records, stored })) => {
                    let buried = self.bury_put_off(&stored);
                    let dropped = usize::try_from(records).unwrap_or_default().saturating_sub(buried);
                    self.drop_records(dropped, DropReason::Expired);
                    self.settle(buried);
                    self.tally.count(Event::Rejected, buried);
                }
                Ok(None) => break,
                Err(error) => {
                    self.tell(Some((DropReason::DiskError, error.to_string())));
                    break;
                }
            }
        }
        self.dead.expire();
        self.probe();
        self.measure();
        // What has to rest may have rested, what could not be read may be read again.
        if self.bytes.load(Ordering::Relaxed) > 0 {
            self.arrived.notify_one();
        }
    }

    /// Keeps those of a file's records that the exporter put off, and says how many they are.
    fn bury_put_off(&self, stored: &[Bytes]) -> usize {
        let records = stored.iter().filter_map(|one| RequestMetrics::from_stored(one).ok());
        let put_off: Vec<_> = records.filter(|record| self.put_off.take(record.id())).collect();
        let buried = put_off.len();
        if buried > 0 {
            self.dead.add_at_once(put_off, &PutOff::reason(self.limits.age));
        }
        buried
    }

    /// Looks whether files can be written again, when nothing waits that would show it.
    fn probe(&self) {
        let fails = lock(&self.failure).is_some();
        if !fails || !lock(&self.handover).waiting.is_empty() || !lock(&self.files).may_try() {
            return;
        }
        if let Some(Ok(true)) = self.opened_files(Files::probe) {
            self.tell(None);
        }
    }

    pub(crate) fn facts(&self) -> SpoolFacts {
        let oldest = self.oldest_ms.load(Ordering::Relaxed);
        let made = SystemTime::UNIX_EPOCH + Duration::from_millis(oldest);
        let (dead_records, dead_bytes) = self.dead.depth();
        let error = lock(&self.failure).as_ref().map(|(_, error)| error.clone());
        SpoolFacts {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            oldest_age: (oldest > 0).then(|| made.elapsed().unwrap_or_default()),
            error: error.or_else(|| lock(&self.unread).clone()),
            dead_records,
            dead_bytes,
        }
    }

    /// Brings what status shows up to date with the files.
    fn measure(&self) {
        let (bytes, oldest, unread) = lock(&self.files).depth();
        self.bytes.store(bytes, Ordering::Relaxed);
        let since = oldest.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let millis = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.oldest_ms.store(millis, Ordering::Relaxed);
        let before = std::mem::replace(&mut *lock(&self.unread), unread.clone());
        let exporter = self.tally.name();
        match (before, unread) {
            (None, Some(error)) => tracing::error!(
                exporter,
                error,
                "spool: a file cannot be read just now; it is tried again now and then, others go on"
            ),
            (Some(_), None) => tracing::info!(exporter, "spool: all files can be read again"),
            _ => {}
        }
    }

    /// Notes whether files can be written, and says so once per change.
    fn tell(&self, now: Option<(DropReason, String)>) {
        let mut failure = lock(&self.failure);
        let changed = failure.as_ref().map(|(reason, _)| *reason) != now.as_ref().map(|(reason, _)| *reason);
        failure.clone_from(&now);
        drop(failure);
        self.regate();
        let exporter = self.tally.name();
        match now {
            Some((reason, error)) if changed => tracing::error!(
                exporter,
                error,
                reason = reason.as_str(),
                "spool: files cannot be written; records wait in memory, and are dropped past its bound"
            ),
            None if changed => tracing::info!(exporter, "spool: files are written again"),
            _ => {}
        }
    }
}

/// Why a file could not be written, as drops are counted.
fn reason_of(error: &SpoolError) -> DropReason {
    match error {
        SpoolError::Full { .. } => DropReason::DiskFull,
        SpoolError::Io { source, .. }
            if matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ) =>
        {
            DropReason::DiskFull
        }
        _ => DropReason::DiskError,
    }
}

#[cfg(test)]
mod tests;
