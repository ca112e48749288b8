//! One directory of sealed batches: an exporter's records that wait for its back end.
//!
//! A file's name says when its oldest record was made, its number and how many records it holds, so that opening a
//! directory reads no file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::SpoolError;
use crate::files::{CORRUPT, UNFINISHED, make_private_dir, sync_dir, write_whole};
use crate::format::{HEAD, Kind, check_length, head, pack, unpack};

/// Ends a batch's file name.
const ENDING: &str = "batch";
/// A file that shows that files can be written.
const PROBE: &str = "probe";

/// One batch of a directory. Ids sort by the age of the batches, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// When its oldest record was made, in milliseconds since 1970.
    oldest_ms: u64,
    number: u64,
}

/// What is known of a batch without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Its id.
    pub id: BatchId,
    /// Its file's name.
    pub file: String,
    /// Records in it.
    pub records: u64,
    /// Its file's length.
    pub bytes: u64,
    /// When its oldest record was made.
    pub oldest: SystemTime,
}

/// A directory of batches, bounded in bytes.
#[derive(Debug)]
pub struct Batches {
    dir: PathBuf,
    limit: u64,
    index: BTreeMap<BatchId, BatchInfo>,
    bytes: u64,
    records: u64,
    next_number: u64,
}

impl Batches {
    /// Opens a directory, making it when it is not there. Files that an earlier process left unfinished are removed.
    pub fn open(dir: &Path, limit: u64) -> Result<Self, SpoolError> {
        make_private_dir(dir).map_err(SpoolError::at(dir))?;
        let mut batches =
            Self { dir: dir.to_owned(), limit, index: BTreeMap::new(), bytes: 0, records: 0, next_number: 0 };
        for entry in fs::read_dir(dir).map_err(SpoolError::at(dir))? {
            let entry = entry.map_err(SpoolError::at(dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(UNFINISHED) {
                fs::remove_file(entry.path()).map_err(SpoolError::at(&entry.path()))?;
            } else if let Some((id, records)) = parse(&name) {
                let bytes = entry.metadata().map_err(SpoolError::at(&entry.path()))?.len();
                batches.add(BatchInfo { id, file: name, records, bytes, oldest: id.oldest() });
            }
        }
        Ok(batches)
    }

    /// Writes a batch; when this returns it is on disk. `oldest` is when its oldest record was made.
    pub fn put<B: AsRef<[u8]>>(&mut self, records: &[B], oldest: SystemTime) -> Result<BatchId, SpoolError> {
        self.write(records, oldest, self.limit)
    }

    /// Writes a batch in place of one that holds more, and removes that. The bound does not count: what is there gets less.
    pub fn replace<B: AsRef<[u8]>>(
        &mut self,
        id: BatchId,
        records: &[B],
        oldest: SystemTime,
    ) -> Result<BatchId, SpoolError> {
        let new = self.write(records, oldest, u64::MAX)?;
        if let Err(error) = self.remove(id) {
            // Both would be delivered. If this fails as well, they are.
            let _gone = self.remove(new);
            return Err(error);
        }
        Ok(new)
    }

    /// Writes a small file and removes it: whether the disk takes something just now.
    pub fn probe(&self) -> Result<(), SpoolError> {
        let path = self.dir.join(PROBE);
        write_whole(&self.dir, PROBE, &[&[0; 4096]]).map_err(SpoolError::at(&path))?;
        fs::remove_file(&path).map_err(SpoolError::at(&path))
    }

    fn write<B: AsRef<[u8]>>(
        &mut self,
        records: &[B],
        oldest: SystemTime,
        limit: u64,
    ) -> Result<BatchId, SpoolError> {
        let packed = pack(records).map_err(SpoolError::at(&self.dir))?;
        let bytes = (HEAD + packed.len()) as u64;
        if self.bytes.saturating_add(bytes) > limit {
            return Err(SpoolError::Full { needed: bytes, used: self.bytes, limit });
        }
        let id = BatchId { oldest_ms: millis(oldest), number: self.next_number };
        let file = file_name(id, records.len() as u64);
        write_whole(&self.dir, &file, &[&head(Kind::Batch), &packed])
            .map_err(SpoolError::at(&self.dir.join(&file)))?;
        let records = records.len() as u64;
        self.add(BatchInfo { id, file, records, bytes, oldest: id.oldest() });
        Ok(id)
    }

    /// Every batch, the oldest first.
    pub fn list(&self) -> impl DoubleEndedIterator<Item = &BatchInfo> + Clone {
        self.index.values()
    }

    /// One of them.
    pub fn get(&self, id: BatchId) -> Option<&BatchInfo> {
        self.index.get(&id)
    }

    /// The batch with the oldest record.
    pub fn oldest(&self) -> Option<&BatchInfo> {
        self.index.values().next()
    }

    /// A batch's records, in order. A batch that is not in the list is empty.
    pub fn read(&self, id: BatchId) -> Result<Vec<Bytes>, SpoolError> {
        let Some(info) = self.index.get(&id) else { return Ok(Vec::new()) };
        read_batch(&self.dir.join(&info.file))
    }

    /// Removes a batch and says how many records it held.
    pub fn remove(&mut self, id: BatchId) -> Result<u64, SpoolError> {
        let Some(info) = self.index.get(&id) else { return Ok(0) };
        let path = self.dir.join(&info.file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SpoolError::at(&path)(error)),
            _ => Ok(self.forget(id)),
        }
    }

    /// Moves a batch that cannot be read out of the way, into `corrupt/`, and says how many records it held.
    pub fn set_aside(&mut self, id: BatchId) -> Result<u64, SpoolError> {
        let Some(info) = self.index.get(&id) else { return Ok(0) };
        let (path, aside) = (self.dir.join(&info.file), self.dir.join(CORRUPT));
        make_private_dir(&aside).map_err(SpoolError::at(&aside))?;
        fs::rename(&path, aside.join(&info.file)).map_err(SpoolError::at(&path))?;
        Ok(self.forget(id))
    }

    /// Removes the batches whose oldest record is older than `age`, and says how many records they held.
    pub fn expire(&mut self, age: Duration) -> Result<u64, SpoolError> {
        let Some(before) = SystemTime::now().checked_sub(age) else { return Ok(0) };
        let expired: Vec<_> =
            self.list().take_while(|info| info.oldest < before).map(|info| info.id).collect();
        let mut records = 0;
        for id in expired {
            records += self.remove(id)?;
        }
        Ok(records)
    }

    /// Brings a file back that was set aside and can be read, as it is; gives how many records it holds.
    pub fn bring_back(&mut self, file: &str) -> Result<u64, SpoolError> {
        let aside = self.dir.join(CORRUPT).join(file);
        let Some((mut id, _)) = parse(file) else {
            return Err(SpoolError::Corrupt { path: aside, what: "not the name of a batch" });
        };
        let records = read_batch(&aside)?.len() as u64;
        let bytes = fs::metadata(&aside).map_err(SpoolError::at(&aside))?.len();
        if self.bytes.saturating_add(bytes) > self.limit {
            return Err(SpoolError::Full { needed: bytes, used: self.bytes, limit: self.limit });
        }
        id.number = self.next_number;
        let name = file_name(id, records);
        fs::rename(&aside, self.dir.join(&name)).map_err(SpoolError::at(&aside))?;
        self.add(BatchInfo { id, file: name, records, bytes, oldest: id.oldest() });
        self.sync()?;
        Ok(records)
    }

    /// Changes the bound. What is there stays.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Makes removals durable, so that a batch that was delivered does not come back after a power loss.
    pub fn sync(&self) -> Result<(), SpoolError> {
        sync_dir(&self.dir).map_err(SpoolError::at(&self.dir))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records on disk.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn add(&mut self, mut info: BatchInfo) {
        // Two files of one number: one was thought not to have been written.
        if self.index.contains_key(&info.id) {
            info.id.number = self.next_number;
        }
        self.next_number = self.next_number.max(info.id.number + 1);
        self.bytes += info.bytes;
        self.records += info.records;
        self.index.insert(info.id, info);
    }

    fn forget(&mut self, id: BatchId) -> u64 {
        self.index.remove(&id).map_or(0, |info| {
            self.bytes -= info.bytes;
            self.records -= info.records;
            info.records
        })
    }
}

impl BatchId {
    fn oldest(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.oldest_ms)
    }
}

/// The batches of a directory, the oldest first, without opening it: for whoever looks at one that another owns. A
/// directory that is not there has none.
pub fn list_batches(dir: &Path) -> Result<Vec<BatchInfo>, SpoolError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(SpoolError::at(dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(SpoolError::at(dir))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        // Its owner may remove a file while we look.
        if let (Some((id, records)), Ok(meta)) = (parse(&file), entry.metadata()) {
            found.push(BatchInfo { id, file, records, bytes: meta.len(), oldest: id.oldest() });
        }
    }
    found.sort_by_key(|info| info.id);
    Ok(found)
}

/// The files of a directory that were set aside because they could not be read, the oldest first.
pub fn list_set_aside(dir: &Path) -> Result<Vec<BatchInfo>, SpoolError> {
    list_batches(&set_aside_dir(dir))
}

/// Where the files of a directory go that cannot be read.
pub fn set_aside_dir(dir: &Path) -> PathBuf {
    dir.join(CORRUPT)
}

/// The records of one file.
pub fn read_batch(path: &Path) -> Result<Vec<Bytes>, SpoolError> {
    unpack(path, &fs::read(path).map_err(SpoolError::at(path))?.into())
}

/// Whether a file is what its head says, as far as head and length tell: its checksum is not computed.
pub fn check_batch(path: &Path) -> Result<(), SpoolError> {
    let mut file = fs::File::open(path).map_err(SpoolError::at(path))?;
    let length = file.metadata().map_err(SpoolError::at(path))?.len();
    let mut begin = Vec::new();
    file.by_ref().take(64).read_to_end(&mut begin).map_err(SpoolError::at(path))?;
    check_length(path, &begin.into(), length)
}

fn file_name(id: BatchId, records: u64) -> String {
    format!("{:013}-{:08}-{records}.{ENDING}", id.oldest_ms, id.number)
}

fn millis(at: SystemTime) -> u64 {
    // Thirteen digits in the name reach to the year 2286.
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis().min(9_999_999_999_999) as u64)
}

/// Reads a batch's file name; `None` for any other file.
fn parse(name: &str) -> Option<(BatchId, u64)> {
    let (stem, ending) = name.rsplit_once('.')?;
    let mut numbers = stem.split('-').map(str::parse::<u64>);
    let (oldest_ms, number, records) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    (ending == ENDING && numbers.next().is_none()).then_some((BatchId { oldest_ms, number }, records))
}
