//! Dead letters: records that the back end will never take, kept with the reason, for a person to look at.
//!
//! A dead letter is one line of JSON, `{"reason": …}`, a line break, and the record as
//! [`RequestMetrics::to_stored`] writes it. Bounded in bytes and age; the oldest go first.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use magicapi_plugin::RequestMetrics;
use magicapi_spool::{Batches, SpoolError};

use super::lock;
use crate::memory::Reservation;
use crate::metrics::Event;
use crate::tally::Tally;

/// Below the exporter's own directory.
pub(super) const DIRECTORY: &str = "dead";
/// Those that wait to be written, in bytes; more are not kept.
const MEMORY: usize = 8 << 20;

pub(super) struct DeadLetters {
    dir: PathBuf,
    tally: Arc<Tally>,
    /// All of the exporter's, in bytes.
    disk: u64,
    /// How long they are kept.
    max_age: Duration,
    waiting: Mutex<Waiting>,
    batches: Mutex<Option<Batches>>,
    records: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    letters: Vec<Letter>,
    bytes: usize,
    writing: bool,
    /// Letters for which there was no room, not yet said.
    lost: u64,
    /// That they cannot be written has been said.
    said: bool,
}

/// Whether a letter has its place.
#[derive(PartialEq, Eq)]
pub(super) enum Place {
    Has,
    /// And they fill up: they should be written now.
    HasHardly,
    None,
}

struct Letter {
    record: Arc<RequestMetrics>,
    /// Of the budget, until it is written.
    _share: Option<Arc<Reservation>>,
    reason: String,
}

impl DeadLetters {
    pub(super) fn new(dir: PathBuf, tally: Arc<Tally>, disk: u64, max_age: Duration) -> Self {
        let (waiting, batches) = (Mutex::default(), Mutex::default());
        let (records, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { dir, tally, disk, max_age, waiting, batches, records, bytes }
    }

    /// Takes a letter, if there is room. The one that finds none is only counted, and that is said when the next are written.
    pub(super) fn add(&self, record: Arc<RequestMetrics>, share: Arc<Reservation>, reason: &str) -> Place {
        let mut waiting = lock(&self.waiting);
        let bytes = record.memory();
        if waiting.bytes + bytes > MEMORY && !waiting.letters.is_empty() {
            waiting.lost += 1;
            return Place::None;
        }
        waiting.bytes += bytes;
        waiting.letters.push(Letter { record, _share: Some(share), reason: reason.to_owned() });
        if waiting.bytes > MEMORY / 2 { Place::HasHardly } else { Place::Has }
    }

    /// Writes letters, for the spool's thread.
    pub(super) fn add_at_once(&self, records: Vec<RequestMetrics>, reason: &str) {
        let letter = |record| Letter { record: Arc::new(record), _share: None, reason: reason.to_owned() };
        lock(&self.waiting).letters.extend(records.into_iter().map(letter));
        self.write();
    }

    /// Looks at what an earlier process left.
    pub(super) fn open_existing(&self) {
        if self.dir.exists() {
            self.act(|_| Ok(()));
        }
    }

    /// Writes what waits.
    pub(super) fn write(&self) {
        let mut waiting = lock(&self.waiting);
        let letters = std::mem::take(&mut waiting.letters);
        waiting.bytes = 0;
        waiting.writing = !letters.is_empty();
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        if lost > 0 {
            let exporter = self.tally.name();
            tracing::warn!(
                exporter,
                records = lost,
                "spool: rejected faster than dead letters can be written; not kept"
            );
        }
        if letters.is_empty() {
            return;
        }
        let stored: Vec<_> = letters.iter().map(Letter::to_stored).collect();
        let mut kept = 0;
        self.act(|batches| put(batches, &stored, SystemTime::now(), &mut kept));
        self.tally.count(Event::DeadLettered, kept);
        lock(&self.waiting).writing = false;
    }

    /// Writing has failed inside: nothing is under way any more.
    pub(super) fn give_up(&self) {
        lock(&self.waiting).writing = false;
    }

    pub(super) fn is_writing(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.writing || !waiting.letters.is_empty()
    }

    pub(super) fn expire(&self) {
        let is_open = lock(&self.batches).is_some();
        if is_open {
            self.act(|batches| batches.expire(self.max_age).map(|_| ()));
        }
    }

    /// Records and bytes on disk.
    pub(super) fn depth(&self) -> (u64, u64) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Where they are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Works on the files; `None` when there are none.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Batches) -> T) -> Option<T> {
        let mut done = None;
        if self.dir.exists() {
            self.act(|batches| {
                done = Some(work(batches));
                Ok(())
            });
        }
        done
    }

    fn act(&self, act: impl FnOnce(&mut Batches) -> Result<(), SpoolError>) {
        let mut open = lock(&self.batches);
        let opened = match open.take() {
            Some(batches) => Ok(batches),
            None => Batches::open(&self.dir, self.disk),
        };
        let done = opened.and_then(|mut batches| {
            let done = act(&mut batches);
            self.records.store(batches.records(), Ordering::Relaxed);
            self.bytes.store(batches.bytes(), Ordering::Relaxed);
            *open = Some(batches);
            done
        });
        drop(open);
        let mut waiting = lock(&self.waiting);
        let said = std::mem::replace(&mut waiting.said, done.is_err());
        drop(waiting);
        if let Err(error) = &done
            && !said
        {
            tracing::error!(exporter = self.tally.name(), %error, "spool: dead letters cannot be written");
        }
    }
}

/// What stands before a record.
#[derive(serde::Deserialize)]
struct Line {
    reason: String,
}

impl Letter {
    fn to_stored(&self) -> Vec<u8> {
        let mut stored = serde_json::json!({ "reason": self.reason }).to_string().into_bytes();
        stored.push(b'\n');
        stored.extend_from_slice(&self.record.to_stored());
        stored
    }
}

/// A letter's reason and its stored record; `None` when it is no letter.
pub(super) fn read_letter(letter: &Bytes) -> Option<(String, Bytes)> {
    let end = letter.iter().position(|byte| *byte == b'\n')?;
    let line: Line = serde_json::from_slice(letter.get(..end)?).ok()?;
    Some((line.reason, letter.slice(end + 1..)))
}

/// Writes letters, and counts them; where there is no room, the oldest go. Those that are over the bound together go into
/// several files, one that is so alone is lost.
fn put(
    batches: &mut Batches,
    stored: &[Vec<u8>],
    since: SystemTime,
    kept: &mut usize,
) -> Result<(), SpoolError> {
    loop {
        match batches.put(stored, since) {
            Err(SpoolError::Full { needed, limit, .. }) if needed <= limit => {
                let Some(oldest) = batches.oldest().map(|info| info.id) else { return Ok(()) };
                batches.remove(oldest)?;
            }
            Err(SpoolError::Full { .. }) if stored.len() > 1 => {
                let (first, second) = stored.split_at(stored.len() / 2);
                let first = put(batches, first, since, kept);
                return put(batches, second, since, kept).and(first);
            }
            Err(error) => return Err(error),
            Ok(_) => {
                *kept += stored.len();
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use magicapi_spool::{Batches, SpoolError};
    use tempfile::TempDir;

    use super::put;

    /// As many bytes, which do not compress (xorshift64).
    fn letter(seed: u64, length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ seed;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[7]
        };
        (0..length).map(|_| byte()).collect()
    }

    #[test]
    fn letters_over_the_bound_together_cost_the_oldest_and_what_is_over_it_alone() {
        let dir = TempDir::new().expect("a directory");
        let mut batches = Batches::open(dir.path(), 2500).expect("a directory");
        let mut kept = 0;
        let letters: Vec<_> = (1..5).map(|seed| letter(seed, 1000)).collect();
        put(&mut batches, &letters, SystemTime::now(), &mut kept).expect("a place");
        assert_eq!((kept, batches.records()), (4, 2));
        let letters = [letter(5, 900), letter(6, 5000), letter(7, 900)];
        let full = put(&mut batches, &letters, SystemTime::now(), &mut kept).expect_err("one is too large");
        assert!(matches!(full, SpoolError::Full { .. }), "{full}");
        assert_eq!((kept, batches.records()), (6, 2));
        assert!(batches.bytes() <= 2500);
    }
}
