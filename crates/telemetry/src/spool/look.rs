//! A spool's directory as it is read, by whoever owns it or not: totals, reasons, records, files that cannot be read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use magicapi_plugin::RequestMetrics;
use magicapi_spool::{
    BatchInfo, SpoolError, check_batch, list_batches, list_set_aside, read_batch, set_aside_dir,
};

use super::dead::{self, read_letter};
use super::shelves::SpoolsError;

/// Dead letters are read for their reasons up to so many bytes of files, the newest first.
const REASONS_READ: u64 = 32 << 20;
/// Reasons that are told apart; the rest count as one.
const REASONS: usize = 8;
/// A reason is cut here.
const REASON_CHARS: usize = 200;

/// What the files of one kind hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileTotals {
    /// How many there are.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest record was made.
    pub oldest: Option<SystemTime>,
}

/// One exporter's directory.
#[derive(Clone, Debug)]
pub struct SpoolSummary {
    /// The exporter's name; the directory's where no exporter is configured.
    pub exporter: String,
    /// No exporter of this name is configured: nothing delivers what is here.
    pub orphaned: bool,
    /// Batches that wait.
    pub waiting: FileTotals,
    /// Dead letters.
    pub dead: FileTotals,
    /// Why records are dead letters, and how many for each reason.
    pub reasons: Vec<(String, u64)>,
    /// Files that cannot be read; set aside, or found just now.
    pub unreadable: Vec<UnreadableFile>,
    /// Why the directory itself cannot be read.
    pub error: Option<String>,
}

/// A file that cannot be read.
#[derive(Clone, Debug)]
pub struct UnreadableFile {
    /// Its name below the exporter's directory.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Records that its name speaks of.
    pub records: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A record on disk.
#[derive(Debug)]
pub struct SpooledRecord {
    /// The file's name below the exporter's directory.
    pub file: String,
    /// Why it is a dead letter; `None` for one that waits.
    pub reason: Option<String>,
    /// The record.
    pub record: RequestMetrics,
}

/// One exporter's records on disk.
#[derive(Debug, Default)]
pub struct SpoolContents {
    /// The oldest file first.
    pub records: Vec<SpooledRecord>,
    /// Files that could not be read on the way.
    pub unreadable: Vec<UnreadableFile>,
    /// There are more records than were asked for.
    pub more: bool,
}

impl SpoolSummary {
    pub(super) fn is_empty(&self) -> bool {
        let files = self.waiting.files + self.dead.files;
        files == 0 && self.unreadable.is_empty() && self.error.is_none()
    }
}

/// Looks at one directory; name and owner are the caller's to say.
pub(super) fn summary(path: &Path) -> SpoolSummary {
    let mut summary = SpoolSummary {
        exporter: String::new(),
        orphaned: false,
        waiting: FileTotals::default(),
        dead: FileTotals::default(),
        reasons: Vec::new(),
        unreadable: Vec::new(),
        error: None,
    };
    let looked = (|| {
        let (waiting, dead) = (list_batches(path)?, list_batches(&path.join(dead::DIRECTORY))?);
        (summary.waiting, summary.dead) = (totals(&waiting), totals(&dead));
        for (below, all) in [("", &waiting), (dead::DIRECTORY, &dead)] {
            let bad = all.iter().filter_map(|info| {
                let file = below_of(below, &info.file);
                let error = check_batch(&path.join(&file)).err().filter(SpoolError::is_about_content)?;
                Some(UnreadableFile {
                    file,
                    bytes: info.bytes,
                    records: info.records,
                    reason: error.to_string(),
                })
            });
            summary.unreadable.extend(bad);
        }
        summary.reasons = reasons(&path.join(dead::DIRECTORY), &dead);
        summary.unreadable.extend(list_set_aside(path)?.iter().map(|info| set_aside_file(path, info)));
        Ok::<_, SpoolError>(())
    })();
    summary.error = looked.err().map(|error| error.to_string());
    summary
}

fn totals(files: &[BatchInfo]) -> FileTotals {
    FileTotals {
        files: files.len() as u64,
        records: files.iter().map(|info| info.records).sum(),
        bytes: files.iter().map(|info| info.bytes).sum(),
        oldest: files.iter().map(|info| info.oldest).min(),
    }
}

/// Why records are dead letters, the most frequent first.
fn reasons(dir: &Path, files: &[BatchInfo]) -> Vec<(String, u64)> {
    let (mut counted, mut left) = (BTreeMap::<String, u64>::new(), REASONS_READ);
    for info in files.iter().rev() {
        let Some(rest) = left.checked_sub(info.bytes) else { break };
        left = rest;
        for letter in read_batch(&dir.join(&info.file)).unwrap_or_default() {
            let reason =
                read_letter(&letter).map_or_else(|| "not readable".to_owned(), |(reason, _)| cut(&reason));
            let known = counted.len() < REASONS || counted.contains_key(&reason);
            *counted.entry(if known { reason } else { "other reasons".to_owned() }).or_default() += 1;
        }
    }
    let mut counted: Vec<_> = counted.into_iter().collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted
}

fn cut(reason: &str) -> String {
    reason.chars().take(REASON_CHARS).collect()
}

fn below_of(below: &str, file: &str) -> String {
    if below.is_empty() { file.to_owned() } else { format!("{below}/{file}") }
}

pub(super) fn set_aside_file(path: &Path, info: &BatchInfo) -> UnreadableFile {
    let aside = set_aside_dir(path);
    let reason = match read_batch(&aside.join(&info.file)) {
        Ok(_) => "set aside, but can be read now: `spool replay` brings it back".to_owned(),
        Err(error) => error.to_string(),
    };
    let below = aside.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    UnreadableFile { file: below_of(&below, &info.file), bytes: info.bytes, records: info.records, reason }
}

impl SpoolContents {
    /// Adds the records of the files below, until there are so many.
    pub(super) fn add(&mut self, path: &Path, below: &str, limit: usize) -> Result<(), SpoolsError> {
        for info in list_batches(&path.join(below))? {
            if self.records.len() >= limit {
                self.more = true;
                return Ok(());
            }
            let file = below_of(below, &info.file);
            let unreadable = |reason: String| UnreadableFile {
                file: file.clone(),
                bytes: info.bytes,
                records: info.records,
                reason,
            };
            match read_batch(&path.join(&file)) {
                Ok(stored) => {
                    for bytes in stored {
                        let letter = if below.is_empty() {
                            Some((None, bytes))
                        } else {
                            read_letter(&bytes).map(|(reason, record)| (Some(reason), record))
                        };
                        let read =
                            letter.map(|(reason, bytes)| (reason, RequestMetrics::from_stored(&bytes)));
                        match read {
                            _ if self.records.len() >= limit => self.more = true,
                            Some((reason, Ok(record))) => {
                                self.records.push(SpooledRecord { file: file.clone(), reason, record });
                            }
                            Some((_, Err(error))) => self.unreadable.push(unreadable(error.to_string())),
                            None => self.unreadable.push(unreadable("not a dead letter".to_owned())),
                        }
                    }
                }
                Err(error) if error.is_about_content() => self.unreadable.push(unreadable(error.to_string())),
                // Delivered meanwhile.
                Err(SpoolError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
