//! The files of one spool, and which of them are on their way to the back end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use magicapi_spool::{BatchId, BatchInfo, Batches, SpoolError};

use super::turns::Turns;
use super::work::{Purged, purge_batches};
use crate::queue::Item;

/// How often a directory that cannot be used is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What a file held that was too old.
pub(super) struct Expired {
    pub(super) records: u64,
    pub(super) stored: Vec<Bytes>,
}

#[derive(Default)]
pub(super) struct Files {
    batches: Option<Batches>,
    /// Whether this process may open the directory: its predecessor has ended.
    allowed: bool,
    tried_at: Option<Instant>,
    /// On their way, or not to be read again.
    lent: BTreeSet<BatchId>,
    turns: Turns,
    /// Some of their records cannot be read, and are counted.
    spoilt: BTreeSet<BatchId>,
    /// Files that could not be read just now, and why; when the last of them was tried.
    unread: BTreeMap<BatchId, String>,
    unread_at: Option<Instant>,
}

/// Records of a batch that could not be written anew, and so come again.
#[derive(Default)]
pub(super) struct Again {
    /// They are settled.
    pub(super) settled: u64,
    /// They stand in two files.
    pub(super) doubled: u64,
}

impl Files {
    /// Allows the directory to be opened; `false` when that was so before.
    pub(super) fn allow(&mut self) -> bool {
        !std::mem::replace(&mut self.allowed, true)
    }

    /// The open directory, and how many records it was found to hold when it was opened just now. `None` while it may
    /// not be opened, and for a while after it could not.
    pub(super) fn open(&mut self, dir: &Path, limit: u64) -> Option<Result<u64, SpoolError>> {
        if self.batches.is_some() {
            return Some(Ok(0));
        }
        if !self.allowed || !self.may_try() {
            return None;
        }
        self.tried_at = Some(Instant::now());
        Some(Batches::open(dir, limit).map(|batches| {
            let found = batches.records();
            self.batches = Some(batches);
            found
        }))
    }

    /// Whether the directory is open.
    pub(super) fn is_open(&self) -> bool {
        self.batches.is_some()
    }

    /// Whether the last failure is long enough ago.
    pub(super) fn may_try(&self) -> bool {
        self.tried_at.is_none_or(|at| at.elapsed() >= RETRY)
    }

    /// However short ago the last failure was.
    pub(super) fn try_at_once(&mut self) {
        self.tried_at = None;
    }

    /// Whether a small file can be written just now.
    pub(super) fn probe(&mut self) -> Result<bool, SpoolError> {
        self.tried_at = Some(Instant::now());
        let Some(batches) = &self.batches else { return Ok(false) };
        batches.probe()?;
        self.tried_at = None;
        Ok(true)
    }

    /// Writes a batch, and says whether it is there: it is not when the bound has no room for it alone. Where the bound has
    /// no room, older ones go for it, if they may; `displaced` counts their records.
    pub(super) fn put(
        &mut self,
        items: &[Item],
        displaces: bool,
        displaced: &mut u64,
    ) -> Result<bool, SpoolError> {
        let oldest = items.iter().map(|item| item.record.facts().timestamp).min();
        let stored: Vec<_> = items.iter().map(|item| item.record.to_stored()).collect();
        loop {
            let Some(batches) = self.batches.as_mut() else { return Ok(false) };
            match batches.put(&stored, oldest.unwrap_or_else(SystemTime::now)) {
                Ok(_) => {
                    self.tried_at = None;
                    return Ok(true);
                }
                Err(SpoolError::Full { needed, limit, .. }) if displaces => {
                    let oldest = batches.list().find(|info| !self.lent.contains(&info.id));
                    match oldest.map(|info| info.id).filter(|_| needed <= limit) {
                        Some(oldest) => {
                            *displaced += batches.remove(oldest)?;
                            self.forget(oldest);
                        }
                        None => return Ok(false),
                    }
                }
                Err(error) => {
                    self.tried_at = Some(Instant::now());
                    return Err(error);
                }
            }
        }
    }

    /// The batch whose turn it is, of those that are not on their way; from now on it is. `None` also for a while after
    /// one could not be read.
    pub(super) fn lend(&mut self) -> Option<(BatchInfo, Result<Vec<Bytes>, SpoolError>)> {
        if self.unread_at.is_some_and(|at| at.elapsed() < RETRY) {
            return None;
        }
        let batches = self.batches.as_ref()?;
        let there = batches.list().map(|info| info.id).filter(|id| !self.lent.contains(id));
        let id = self.turns.choose(&there, Instant::now())?;
        let info = batches.get(id)?.clone();
        let read = batches.read(id);
        self.lent.insert(id);
        self.unread.remove(&id);
        self.unread_at = None;
        Some((info, read))
    }

    /// A file could not be read, and that says nothing of what is in it: the others have their turn first.
    pub(super) fn unread(&mut self, id: BatchId, error: String) {
        self.lent.remove(&id);
        self.turns.failed(id);
        self.unread.insert(id, error);
        self.unread_at = Some(Instant::now());
    }

    pub(super) fn spoilt(&mut self, id: BatchId) {
        self.spoilt.insert(id);
    }

    pub(super) fn is_spoilt(&self, id: BatchId) -> bool {
        self.spoilt.contains(&id)
    }

    fn forget(&mut self, id: BatchId) {
        self.lent.remove(&id);
        self.unread.remove(&id);
        self.spoilt.remove(&id);
        self.turns.gone(id, false);
    }

    /// The back end took something.
    pub(super) fn worked(&mut self) {
        self.turns.worked();
    }

    /// Moves a file out of the way; one that cannot be moved is not read again by this process.
    pub(super) fn set_aside(&mut self, id: BatchId) {
        if let Some(batches) = self.batches.as_mut()
            && batches.set_aside(id).is_ok()
        {
            self.forget(id);
        }
    }

    /// Removes a batch that is settled; whether the back end `took` something of it. One that cannot be removed is not read
    /// again by this process.
    pub(super) fn finish(&mut self, id: BatchId, took: bool) -> Result<(), SpoolError> {
        if let Some(batches) = self.batches.as_mut() {
            self.turns.gone(id, took);
            batches.remove(id)?;
            self.forget(id);
        }
        Ok(())
    }

    /// Writes what is left of a batch in its place; what stands there again, for want of room or of a disk that can be
    /// written.
    pub(super) fn replace(&mut self, id: BatchId, rest: &[Item], tried: bool) -> Again {
        let Some(batches) = self.batches.as_mut() else { return Again::default() };
        let Some(info) = batches.get(id).cloned() else { return Again::default() };
        let oldest = rest.iter().map(|item| item.record.facts().timestamp).min().unwrap_or(info.oldest);
        let stored: Vec<_> = rest.iter().map(|item| item.record.to_stored()).collect();
        let before = batches.records();
        match batches.replace(id, &stored, oldest) {
            Ok(new) => {
                self.spoilt.remove(&id);
                self.turns.shrunk(id, new, tried);
                Again::default()
            }
            // Of two files that neither can be removed both are delivered.
            Err(_) => Again {
                settled: info.records.saturating_sub(rest.len() as u64),
                doubled: batches.records().saturating_sub(before),
            },
        }
    }

    /// A batch is no longer on its way; whether it was `tried`, and not taken.
    pub(super) fn release(&mut self, id: BatchId, tried: bool) {
        self.lent.remove(&id);
        if tried && self.batches.as_ref().is_some_and(|batches| batches.get(id).is_some()) {
            self.turns.failed(id);
        }
    }

    /// Writes records that come back, as they were stored. Nothing goes for them.
    pub(super) fn restore(&mut self, stored: &[Bytes], oldest: SystemTime) -> Result<(), SpoolError> {
        self.batches.as_mut().map_or(Ok(()), |batches| batches.put(stored, oldest).map(|_| ()))
    }

    /// Brings a file back that was set aside; gives how many records it holds.
    pub(super) fn bring_back(&mut self, file: &str) -> Result<u64, SpoolError> {
        self.batches.as_mut().map_or(Ok(0), |batches| batches.bring_back(file))
    }

    /// Removes the batches that go, but for what is on its way.
    pub(super) fn purge(
        &mut self,
        goes: impl Fn(&BatchInfo) -> bool,
        dry: bool,
        purged: &mut Purged,
    ) -> Result<(), SpoolError> {
        let Some(batches) = self.batches.as_mut() else { return Ok(()) };
        let lent = batches.list().filter(|info| goes(info) && self.lent.contains(&info.id)).count();
        purged.busy += lent as u64;
        let done = purge_batches(batches, |info| goes(info) && !self.lent.contains(&info.id), dry, purged);
        let there = |id| batches.get(id).is_some();
        self.turns.keep(there);
        self.unread.retain(|id, _| there(*id));
        self.spoilt.retain(|id| there(*id));
        done
    }

    /// Removes the oldest file that is older than that and not on its way; how many records it held, and them if asked for.
    pub(super) fn expire_one(&mut self, age: Duration, read: bool) -> Result<Option<Expired>, SpoolError> {
        let (Some(batches), Some(before)) = (self.batches.as_mut(), SystemTime::now().checked_sub(age))
        else {
            return Ok(None);
        };
        let mut old = batches.list().take_while(|info| info.oldest < before).map(|info| info.id);
        let Some(id) = old.find(|id| !self.lent.contains(id)) else { return Ok(None) };
        drop(old);
        let stored = if read { batches.read(id).unwrap_or_default() } else { Vec::new() };
        let records = batches.remove(id)?;
        self.forget(id);
        Ok(Some(Expired { records, stored }))
    }

    /// Bytes on disk, when the oldest record there was made, and why a file cannot be read just now.
    pub(super) fn depth(&self) -> (u64, Option<SystemTime>, Option<String>) {
        let Some(batches) = &self.batches else { return (0, None, None) };
        let unread = self.unread.values().next().cloned();
        (batches.bytes(), batches.oldest().map(|info| info.oldest), unread)
    }

    /// Lets the directory go. Removals become durable, as far as they can.
    pub(super) fn close(&mut self) {
        if let Some(batches) = self.batches.take()
            && let Err(error) = batches.sync()
        {
            tracing::warn!(%error, "spool: delivered batches may come back after a loss of power");
        }
        self.allowed = false;
    }
}
