//! An append-only journal in segments: what must survive a kill before it has reached its place.
//!
//! An entry is safe from a kill of the process when [`Journal::append`] has returned, and from a loss of power as
//! [`Fsync`] says. Its [`Ticket`] is settled once the entry has reached its place; a segment's file goes when all its
//! entries and all earlier segments are settled, so that a later entry may speak of an earlier one. A ticket dropped
//! without being settled keeps its segment for the next process, which finds it in [`Journal::open`].

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::SpoolError;
use crate::files::{CORRUPT, create_private, make_private_dir, sync_dir};
use crate::format::{Kind, after_head, head, put_entry, take_entry};

/// Ends a segment's file name.
const ENDING: &str = "journal";

/// The most that [`Journal::probe`] writes, in bytes.
const PROBE: u64 = 1 << 20;

/// When entries reach the disk itself; a kill of the process alone loses none in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// When the operating system likes.
    Never,
    /// At the first append, or call of [`Journal::sync_if_due`], this long after the last time.
    Interval(Duration),
    /// Before every append returns.
    Always,
}

/// Bounds of a journal.
#[derive(Clone, Copy, Debug)]
pub struct JournalSettings {
    /// A segment that has reached this length is followed by another.
    pub segment_bytes: u64,
    /// All segments together, earlier processes' not counted.
    pub max_bytes: u64,
    /// When entries reach the disk.
    pub fsync: Fsync,
}

/// A journal that is written. Clones are the same journal.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    settings: JournalSettings,
    /// Bytes in segments that have not gone.
    bytes: Arc<AtomicU64>,
    writer: Mutex<Writer>,
}

struct Writer {
    open: Option<Open>,
    /// The segment that was begun last.
    last: Weak<Segment>,
    next_number: u64,
    synced_at: Instant,
    scratch: BytesMut,
}

/// The segment that is appended to.
struct Open {
    segment: Arc<Segment>,
    path: PathBuf,
    file: File,
    length: u64,
    unsynced: bool,
    /// It ends in a part of an entry: nothing may follow.
    torn: bool,
}

/// A segment's file; it goes with the last ticket. It keeps its follower alive, so that segments go in their order.
struct Segment {
    /// `None` for what only stands before others ([`Journal::hold`]).
    path: Option<PathBuf>,
    length: AtomicU64,
    total: Arc<AtomicU64>,
    keep: AtomicBool,
    follower: OnceLock<Arc<Segment>>,
}

/// Stands for the entries of one append.
#[must_use = "an entry that is not settled comes back at the next start"]
pub struct Ticket {
    segment: Arc<Segment>,
    settled: bool,
}

/// A segment that an earlier process left.
#[derive(Clone, Debug)]
pub struct OldSegment {
    path: PathBuf,
}

impl Journal {
    /// Opens a directory, making it when it is not there, and gives the segments that an earlier process left, in their
    /// order. They are the caller's to read and delete.
    pub fn open(dir: &Path, settings: JournalSettings) -> Result<(Self, Vec<OldSegment>), SpoolError> {
        make_private_dir(dir).map_err(SpoolError::at(dir))?;
        let mut numbered = Vec::new();
        for entry in fs::read_dir(dir).map_err(SpoolError::at(dir))? {
            let path = entry.map_err(SpoolError::at(dir))?.path();
            if let Some(number) = number(&path) {
                numbered.push((number, OldSegment { path }));
            }
        }
        numbered.sort_by_key(|(number, _)| *number);
        let next_number = numbered.last().map_or(0, |(number, _)| number + 1);
        let writer = Writer {
            open: None,
            last: Weak::new(),
            next_number,
            synced_at: Instant::now(),
            scratch: BytesMut::new(),
        };
        let shared =
            Shared { dir: dir.to_owned(), settings, bytes: Arc::default(), writer: Mutex::new(writer) };
        Ok((Self(Arc::new(shared)), numbered.into_iter().map(|(_, segment)| segment).collect()))
    }

    /// Appends entries in one write. After an error none of them counts.
    pub fn append<B: AsRef<[u8]>>(&self, entries: &[B]) -> Result<Ticket, SpoolError> {
        let Shared { dir, settings, bytes, writer } = &*self.0;
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.scratch.clear();
        for entry in entries {
            put_entry(&mut writer.scratch, entry.as_ref()).map_err(SpoolError::at(dir))?;
        }
        let needed = writer.scratch.len() as u64;
        let used = bytes.load(Ordering::Relaxed);
        if used.saturating_add(needed) > settings.max_bytes {
            return Err(SpoolError::Full { needed, used, limit: settings.max_bytes });
        }
        let mut open = match writer.open.take() {
            Some(open) if open.length < settings.segment_bytes => open,
            full => {
                let next = writer.begin_segment(dir, bytes)?;
                full.map_or(Ok(()), |full| full.end(settings.fsync))?;
                next
            }
        };
        let segment = open.segment.clone();
        let written = open.write(&writer.scratch);
        if !open.torn {
            writer.open = Some(open);
        }
        written?;
        writer.sync(settings.fsync)?;
        Ok(Ticket { segment, settled: false })
    }

    /// Keeps the segments of all that is appended from here on, as the ticket of an entry before them would. Writes nothing.
    pub fn hold(&self) -> Ticket {
        let mut writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = match &writer.open {
            Some(open) => open.segment.clone(),
            None => writer.follow(Segment::new(None, &self.0.bytes)),
        };
        Ticket { segment, settled: false }
    }

    /// Whether an append of so many bytes would find room now, up to a MiB: after a failed one, for a timer, so that a
    /// journal without work learns that the disk takes something again. What it writes for that goes at once.
    pub fn probe(&self, needed: u64) -> Result<(), SpoolError> {
        let Shared { dir, settings, .. } = &*self.0;
        let used = self.bytes();
        if used.saturating_add(needed) > settings.max_bytes {
            return Err(SpoolError::Full { needed, used, limit: settings.max_bytes });
        }
        let path = dir.join("probe");
        let length = usize::try_from(needed.min(PROBE)).unwrap_or_default().max(1);
        // One that a killed process left is in the way.
        let _none = fs::remove_file(&path);
        let written = create_private(&path).and_then(|mut file| file.write_all(&vec![0; length]));
        let removed = written.and_then(|()| fs::remove_file(&path));
        removed.map_err(|error| {
            let _gone = fs::remove_file(&path);
            SpoolError::at(&path)(error)
        })
    }

    /// Syncs when [`Fsync::Interval`] says so; for a timer, so that the last entries before a silence are not forgotten.
    pub fn sync_if_due(&self) -> Result<(), SpoolError> {
        let mut writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match self.0.settings.fsync {
            Fsync::Interval(_) => writer.sync(self.0.settings.fsync),
            Fsync::Never | Fsync::Always => Ok(()),
        }
    }

    /// Bytes in segments that have not gone.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl Writer {
    fn begin_segment(&mut self, dir: &Path, total: &Arc<AtomicU64>) -> Result<Open, SpoolError> {
        let path = dir.join(format!("{:010}.{ENDING}", self.next_number));
        self.next_number += 1;
        let file = create_private(&path).map_err(SpoolError::at(&path))?;
        let segment = Segment::new(Some(path.clone()), total);
        let mut open = Open { segment, path, file, length: 0, unsynced: false, torn: false };
        open.write(&head(Kind::Journal))?;
        sync_dir(dir).map_err(SpoolError::at(dir))?;
        self.follow(open.segment.clone());
        Ok(open)
    }

    /// Puts a segment behind the last one.
    fn follow(&mut self, segment: Arc<Segment>) -> Arc<Segment> {
        if let Some(last) = self.last.upgrade() {
            // Set once: a segment is followed once.
            let _first = last.follower.set(segment.clone());
        }
        self.last = Arc::downgrade(&segment);
        segment
    }

    fn sync(&mut self, fsync: Fsync) -> Result<(), SpoolError> {
        let due = match fsync {
            Fsync::Never => false,
            Fsync::Interval(interval) => self.synced_at.elapsed() >= interval,
            Fsync::Always => true,
        };
        let Some(open) = self.open.as_mut().filter(|open| due && open.unsynced) else { return Ok(()) };
        open.file.sync_data().map_err(SpoolError::at(&open.path))?;
        open.unsynced = false;
        self.synced_at = Instant::now();
        Ok(())
    }
}

impl Open {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        if let Err(error) = self.file.write_all(bytes) {
            self.torn = self.take_back().is_err();
            return Err(SpoolError::at(&self.path)(error));
        }
        let written = bytes.len() as u64;
        self.length += written;
        self.segment.length.fetch_add(written, Ordering::Relaxed);
        self.segment.total.fetch_add(written, Ordering::Relaxed);
        self.unsynced = true;
        Ok(())
    }

    /// A disk that fills up takes a part of a write: without this that part holds its last blocks, uncounted.
    fn take_back(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(drop)
    }

    /// It is written no more.
    fn end(self, fsync: Fsync) -> Result<(), SpoolError> {
        if self.unsynced && fsync != Fsync::Never {
            self.file.sync_data().map_err(SpoolError::at(&self.path))?;
        }
        Ok(())
    }
}

impl Segment {
    fn new(path: Option<PathBuf>, total: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            path,
            length: AtomicU64::new(0),
            total: total.clone(),
            keep: AtomicBool::new(false),
            follower: OnceLock::new(),
        })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.total.fetch_sub(*self.length.get_mut(), Ordering::Relaxed);
        if *self.keep.get_mut() {
            // What follows may speak of what is kept here.
            if let Some(follower) = self.follower.get() {
                follower.keep.store(true, Ordering::Relaxed);
            }
        } else if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(
                file = %path.display(), %error,
                "journal: a segment that is done with cannot be removed; its entries come back at the next start"
            );
        }
    }
}

impl Ticket {
    /// The entries have reached their place.
    pub fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.segment.keep.store(true, Ordering::Relaxed);
        }
    }
}

impl OldSegment {
    /// Its entries, in order. A process that was killed may leave half an entry at the end: what was appended whole is
    /// all there, and the error says what follows it.
    pub fn read(&self) -> (Vec<Bytes>, Option<SpoolError>) {
        let mut entries = Vec::new();
        let read = fs::read(&self.path).map_err(SpoolError::at(&self.path));
        let rest = read.and_then(|file| after_head(&self.path, &file.into(), Kind::Journal));
        let failure = match rest {
            Err(error) => Some(error),
            Ok(mut rest) => loop {
                match take_entry(&self.path, &mut rest) {
                    Ok(Some(entry)) => entries.push(entry),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            },
        };
        (entries, failure)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it into `corrupt/` beside it: its readable entries have reached their place, the rest is for a person.
    pub fn set_aside(self) -> Result<(), SpoolError> {
        let (dir, name) = (self.path.parent(), self.path.file_name());
        let (Some(dir), Some(name)) = (dir, name) else { return Ok(()) };
        let aside = dir.join(CORRUPT);
        make_private_dir(&aside).map_err(SpoolError::at(&aside))?;
        fs::rename(&self.path, aside.join(name)).map_err(SpoolError::at(&self.path))
    }

    /// Removes it: its entries have reached their place.
    pub fn delete(self) -> Result<(), SpoolError> {
        fs::remove_file(&self.path).map_err(SpoolError::at(&self.path))
    }
}

/// A segment's number, from its file name; `None` for any other file.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let (number, ending) = name.rsplit_once('.')?;
    if ending == ENDING { number.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
