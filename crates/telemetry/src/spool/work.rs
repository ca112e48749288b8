//! What a person does to a spool: dead letters and set-aside files go back to be delivered, files are purged.
//!
//! Each file is dealt with under its lock and no longer, so that the spool thread and the worker go on in between.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use magicapi_plugin::RequestMetrics;
use magicapi_spool::{BatchInfo, Batches, SpoolError, list_batches, list_set_aside, set_aside_dir};

use super::dead::read_letter;
use super::shelves::{SpoolsError, before};
use super::{Spool, lock};
use crate::metrics::DropReason;

/// What became of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records that wait to be delivered again.
    pub records: u64,
    /// What was not put back, and why.
    pub kept: Vec<(String, String)>,
}

/// What to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purge {
    /// Dead letters alone; else also batches that wait and files that were set aside.
    pub dead_only: bool,
    /// Only files whose oldest record is older than this.
    pub older_than: Option<Duration>,
    /// Only say what would be removed.
    pub dry: bool,
}

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Files.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that stay because they are on their way to the back end.
    pub busy: u64,
}

impl Purged {
    pub(super) fn add(&mut self, info: &BatchInfo) {
        self.files += 1;
        self.records += info.records;
        self.bytes += info.bytes;
    }
}

/// A dead letter that was asked for.
struct Chosen {
    id: String,
    made: SystemTime,
    stored: Bytes,
    letter: Bytes,
}

impl Spool {
    /// Puts dead letters and files that were set aside back: all, or the one with this id.
    pub(super) fn replay(self: &Arc<Self>, id: Option<&str>) -> Result<Replayed, SpoolsError> {
        let mut replayed = Replayed::default();
        for info in list_batches(self.dead.dir())? {
            // The directory is let go between two files, so that new letters can be written.
            self.dead.with(|dead| self.replay_letters(dead, &info, id, &mut replayed)).transpose()?;
        }
        for info in list_set_aside(&self.dir)?.iter().filter(|info| id.is_none_or(|id| id == info.file)) {
            if self.is_too_old(info.oldest) {
                replayed.kept.push((info.file.clone(), self.too_old()));
                continue;
            }
            let back = self.opened_files(|files| Ok(files.bring_back(&info.file)));
            match back.ok_or_else(|| busy(self))?? {
                Ok(records) => self.restored(records, &mut replayed),
                Err(error) => replayed.kept.push((info.file.clone(), explain(&error))),
            }
        }
        if replayed.records > 0 {
            self.arrived.notify_one();
        }
        Ok(replayed)
    }

    fn replay_letters(
        &self,
        dead: &mut Batches,
        info: &BatchInfo,
        id: Option<&str>,
        replayed: &mut Replayed,
    ) -> Result<(), SpoolsError> {
        let letters = match dead.read(info.id) {
            Ok(letters) => letters,
            Err(error) => {
                if id.is_none() {
                    replayed.kept.push((info.file.clone(), error.to_string()));
                }
                return Ok(());
            }
        };
        let (mut chosen, mut rest) = (Vec::new(), Vec::new());
        for letter in letters {
            match choose(&letter, id) {
                Ok(Some(one)) if self.is_too_old(one.made) => {
                    replayed.kept.push((one.id, self.too_old()));
                    rest.push(one.letter);
                }
                Ok(Some(one)) => chosen.push(one),
                Ok(None) => rest.push(letter),
                Err(why) => {
                    replayed.kept.push((info.file.clone(), why));
                    rest.push(letter);
                }
            }
        }
        let Some(oldest) = chosen.iter().map(|one| one.made).min() else { return Ok(()) };
        let stored: Vec<Bytes> = chosen.iter().map(|one| one.stored.clone()).collect();
        let written = self.opened_files(|files| Ok(files.restore(&stored, oldest)));
        match written.ok_or_else(|| busy(self))?? {
            Ok(()) => self.restored(stored.len() as u64, replayed),
            Err(error) => {
                let why = explain(&error);
                replayed.kept.extend(chosen.into_iter().map(|one| (one.id, why.clone())));
                return Ok(());
            }
        }
        // From here on they are delivered; a letter that cannot be taken away is there twice, and better so than never.
        if rest.is_empty() {
            dead.remove(info.id)?;
        } else {
            dead.replace(info.id, &rest, info.oldest)?;
        }
        Ok(())
    }

    fn restored(&self, records: u64, replayed: &mut Replayed) {
        replayed.records += records;
        self.records.fetch_add(records, Ordering::Relaxed);
        // They are given to the exporter a second time; the first ended as rejected, or dropped.
        self.tally.receive(records);
    }

    fn is_too_old(&self, made: SystemTime) -> bool {
        made.elapsed().is_ok_and(|age| age > self.limits.age)
    }

    fn too_old(&self) -> String {
        format!(
            "older than {:?}, the exporter's `buffer.max_age` (or `retry.max_age`): it would be dropped at once; raise \
             it, if the back end takes records that old",
            self.limits.age
        )
    }

    /// Removes files, or only counts them.
    pub(super) fn purge(&self, purge: &Purge) -> Result<Purged, SpoolsError> {
        let before = before(purge.older_than);
        let goes = |info: &BatchInfo| match (purge.older_than, before) {
            (None, _) => true,
            (Some(_), Some(before)) => info.oldest < before,
            (Some(_), None) => false,
        };
        let mut purged = Purged::default();
        self.dead.with(|dead| purge_batches(dead, goes, purge.dry, &mut purged)).transpose()?;
        if purge.dead_only {
            return Ok(purged);
        }
        let mut waiting = Purged::default();
        let done = self.opened_files(|files| files.purge(goes, purge.dry, &mut waiting));
        if !purge.dry {
            self.drop_records(usize::try_from(waiting.records).unwrap_or_default(), DropReason::Purged);
        }
        match done {
            Some(done) => done?,
            None if self.dir.exists() => return Err(busy(self)),
            None => {}
        }
        for info in list_set_aside(&self.dir)?.iter().filter(|info| goes(info)) {
            let path = set_aside_dir(&self.dir).join(&info.file);
            if !purge.dry {
                fs::remove_file(&path)
                    .map_err(|error| SpoolsError::Io(format!("{}: {error}", path.display())))?;
            }
            purged.add(info);
        }
        purged.files += waiting.files;
        purged.records += waiting.records;
        purged.bytes += waiting.bytes;
        purged.busy += waiting.busy;
        Ok(purged)
    }
}

/// Removes the batches that go.
pub(super) fn purge_batches(
    batches: &mut Batches,
    goes: impl Fn(&BatchInfo) -> bool,
    dry: bool,
    purged: &mut Purged,
) -> Result<(), SpoolError> {
    let going: Vec<BatchInfo> = batches.list().filter(|info| goes(info)).cloned().collect();
    for info in going {
        if !dry {
            batches.remove(info.id)?;
        }
        purged.add(&info);
    }
    Ok(())
}

/// The letter, when it is asked for; why it cannot be used, when it can be told to be.
fn choose(letter: &Bytes, id: Option<&str>) -> Result<Option<Chosen>, String> {
    let read = read_letter(letter)
        .and_then(|(_, stored)| RequestMetrics::from_stored(&stored).ok().map(|record| (record, stored)));
    let Some((record, stored)) = read else {
        return if id.is_none() { Err("a letter in it cannot be read".to_owned()) } else { Ok(None) };
    };
    let found = record.id().to_string();
    let asked = id.is_none_or(|id| found == id || found.strip_prefix("msg_") == Some(id));
    let made = record.facts().timestamp;
    Ok(asked.then(|| Chosen { id: found, made, stored, letter: letter.clone() }))
}

fn explain(error: &SpoolError) -> String {
    match error {
        SpoolError::Full { .. } => {
            format!("{error}: raise `buffer.disk`, or wait until records are delivered")
        }
        _ => error.to_string(),
    }
}

fn busy(spool: &Spool) -> SpoolsError {
    let exporter = spool.tally.name();
    let error = lock(&spool.failure).as_ref().map(|(_, error)| error.clone());
    let why =
        error.unwrap_or_else(|| "its predecessor is still ending; try again in some seconds".to_owned());
    SpoolsError::Io(format!("the spool of `{exporter}` cannot be opened: {why}"))
}
