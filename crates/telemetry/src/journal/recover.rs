//! What an earlier process left in the journal: read at the start, offered to the exporters beside traffic.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use magicapi_plugin::{Facts, RequestId, RequestMetrics};
use magicapi_spool::{OldSegment, SpoolError, Ticket};

use super::entry::{self, Entry};
use super::kept::{Held, Kept, OldFile, OldFiles, Pin};
use super::{RecordJournal, lock};
use crate::assemble::{self, Taker};
use crate::core::Core;
use crate::memory::Reservation;
use crate::metrics::DropReason;

/// Within which the books of a request that ended are surely closed.
const BOOKED: Duration = Duration::from_secs(5);
/// How often a full queue is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How long all others wait for a full queue whose overflow is dropped.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

/// What waits to be offered again.
pub(crate) struct Recovery {
    journal: Arc<RecordJournal>,
    files: Vec<OldSegment>,
    pin: Arc<Pin>,
    done: HashSet<RequestId>,
    /// Requests that were under way: the records that they become.
    killed: Vec<RequestMetrics>,
    /// What ended last.
    last: Vec<Facts>,
    /// Exporters whose queues stayed full, and whose overflow is dropped: waited for no more until they have room.
    given_up: BTreeSet<String>,
    complete: bool,
}

/// What the files say, before any record is read.
#[derive(Default)]
struct Found {
    /// Of requests that nothing said to have ended, as far as the files were read.
    opens: HashMap<RequestId, Bytes>,
    recorded: HashSet<RequestId>,
    done: HashSet<RequestId>,
}

impl Recovery {
    /// Reads who stands in the files. A file that cannot be read costs what stands behind the fault, said and counted;
    /// one of a later release is left where it is. `hold` keeps what is written from now on.
    pub(super) fn read(journal: &Arc<RecordJournal>, old: Vec<OldSegment>, hold: Ticket) -> Self {
        let (mut found, mut files, mut bytes) = (Found::default(), Vec::new(), 0);
        for segment in old {
            let (entries, failure) = segment.read();
            let file = segment.path().display().to_string();
            if let Some(error) =
                failure.as_ref().filter(|error| !error.is_about_content() || error.is_newer())
            {
                tracing::error!(file, %error, "journal: a file cannot be read and is left alone");
                continue;
            }
            let corrupt = failure.as_ref().is_some_and(|error| !error.is_cut_short());
            tell(&file, failure.as_ref(), entries.len());
            for one in &entries {
                found.add(&file, one);
            }
            bytes += std::fs::metadata(segment.path()).map_or(0, |found| found.len());
            files.push(OldFile { segment, corrupt });
        }
        journal.old_bytes.store(bytes, Ordering::Relaxed);
        let readable: Vec<_> = files.iter().map(|file| file.segment.clone()).collect();
        let last = last_ended(&readable);
        let killed = found.killed();
        journal.killed.store(killed.len() as u64, Ordering::Relaxed);
        journal.recovering.store(!readable.is_empty(), Ordering::Relaxed);
        let pin = Pin::old(OldFiles { files, bytes: journal.old_bytes.clone(), hold });
        Self {
            journal: journal.clone(),
            complete: readable.is_empty(),
            files: readable,
            pin,
            done: found.done,
            killed,
            last,
            given_up: BTreeSet::new(),
        }
    }

    /// The requests that were under way when the process was killed, and those that ended in its last seconds.
    pub(crate) fn unbooked(&self) -> Vec<Facts> {
        let killed = self.killed.iter().map(|record| record.facts().clone());
        killed.chain(self.last.iter().cloned()).collect()
    }

    /// How many records there are.
    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        let read = |file: &OldSegment| file.read().0;
        let entries = self.files.iter().flat_map(read);
        let ids: HashSet<_> = entries
            .filter_map(|one| match entry::read(&one) {
                Some(Entry::Record(id, _)) if !self.done.contains(&id) => Some(id),
                _ => None,
            })
            .collect();
        ids.len()
    }

    /// Offers everything to the exporters that want it, at their pace. Ends early, and leaves the rest, when the process
    /// ends.
    pub(crate) fn run(mut self, core: &Core) {
        let mut seen = std::mem::take(&mut self.done);
        for file in std::mem::take(&mut self.files) {
            for one in file.read().0 {
                let Some(Entry::Record(id, stored)) = entry::read(&one) else { continue };
                if !seen.insert(id) {
                    continue;
                }
                match RequestMetrics::from_stored(&stored) {
                    Ok(record) => {
                        if !self.offer(core, record, one.len()) {
                            return;
                        }
                        self.journal.recovered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        core.metrics.record_dropped(DropReason::Corrupt);
                        tracing::error!(%id, %error, "journal: a record cannot be read");
                    }
                }
            }
        }
        for record in std::mem::take(&mut self.killed) {
            core.observe(record.facts(), None);
            let length = record.to_stored().len();
            if !self.offer(core, record, length) {
                return;
            }
        }
        self.complete = true;
        let (recovered, killed) = (&self.journal.recovered, &self.journal.killed);
        let (records, killed) = (recovered.load(Ordering::Relaxed), killed.load(Ordering::Relaxed));
        if records + killed > 0 {
            tracing::info!(
                records,
                killed,
                "journal: what an earlier process left is offered to the exporters"
            );
        }
    }

    /// `length`: of its entry. `false` when the process ends.
    fn offer(&mut self, core: &Core, record: RequestMetrics, length: usize) -> bool {
        let held = Held::old(record.id(), self.pin.clone(), length);
        let kept = Kept::new(self.journal.clone(), held);
        lock(&self.journal.live).insert(record.id(), kept.held().clone());
        let plan = core.plan();
        let takers = assemble::takers(&plan, record.facts());
        if !self.wait_for(&takers) {
            kept.give_up();
            return false;
        }
        let mut share = Reservation::forced(core.budget(), record.memory());
        share.keep(kept);
        if !takers.is_empty() {
            let config = Arc::new(record.resource().clone());
            assemble::Sealed::again(takers, record, share, &config).hand_out();
        }
        true
    }

    /// Waits for the queues: one that overflows sheds records, to the disk or for good; there is no hurry. But one that
    /// stays full must not keep them from the others. `false` when the process ends.
    fn wait_for(&mut self, takers: &[Taker<'_>]) -> bool {
        let mut waited = Duration::ZERO;
        loop {
            let (pressed, free): (Vec<_>, Vec<_>) = takers.iter().partition(|taker| taker.is_pressed());
            if pressed.is_empty() {
                return true;
            }
            for taker in free {
                self.given_up.remove(taker.name());
            }
            if self.journal.is_closing() {
                return false;
            }
            std::thread::sleep(LOOK);
            waited += LOOK;
            let shedding = pressed.iter().filter(|taker| !taker.spools()).map(|taker| taker.name());
            if shedding.clone().all(|name| self.given_up.contains(name)) {
                return true;
            }
            if waited >= PATIENCE {
                self.given_up.extend(shedding.map(str::to_owned));
                return true;
            }
        }
    }
}

impl Drop for Recovery {
    fn drop(&mut self) {
        self.journal.recovering.store(false, Ordering::Relaxed);
        if !self.complete {
            self.pin.spare();
        }
    }
}

impl Found {
    fn add(&mut self, file: &str, one: &Bytes) {
        match entry::read(one) {
            // It may have been written behind what ended it.
            Some(Entry::Open(id, _)) if self.recorded.contains(&id) || self.done.contains(&id) => {}
            // A slice would hold the whole file.
            Some(Entry::Open(id, stored)) => drop(self.opens.insert(id, Bytes::copy_from_slice(&stored))),
            Some(Entry::Record(id, _)) => {
                self.opens.remove(&id);
                self.recorded.insert(id);
            }
            Some(Entry::Done(ids)) => {
                for id in ids {
                    self.opens.remove(&id);
                    self.done.insert(id);
                }
            }
            None => tracing::error!(file, "journal: an entry of an unknown kind is left out"),
        }
    }

    fn killed(&mut self) -> Vec<RequestMetrics> {
        let left = std::mem::take(&mut self.opens).into_iter();
        let read = |(id, stored)| match RequestMetrics::from_stored(&stored) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::error!(%id, %error, "journal: an open entry cannot be read");
                None
            }
        };
        let mut killed: Vec<_> = left.filter_map(read).collect();
        killed.sort_by_key(|record: &RequestMetrics| (record.facts().timestamp, record.id()));
        killed
    }
}

/// Facts of the records that ended within [`BOOKED`] of the last one. They stand in the last two files.
fn last_ended(files: &[OldSegment]) -> Vec<Facts> {
    let ended = |facts: &Facts| facts.timestamp + Duration::from_millis(facts.latency_ms);
    let entries = files.iter().rev().take(2).flat_map(|file| file.read().0);
    let mut facts: Vec<_> = entries
        .filter_map(|one| match entry::read(&one)? {
            Entry::Record(_, stored) => Some(RequestMetrics::from_stored(&stored).ok()?.facts().clone()),
            _ => None,
        })
        .collect();
    let last = facts.iter().map(ended).max();
    facts.retain(|facts| last.is_some_and(|last| ended(facts) + BOOKED >= last));
    facts
}

/// The end of a file that was written when the process was killed may be half an entry; anything else is a fault.
fn tell(file: &str, failure: Option<&SpoolError>, entries: usize) {
    match failure {
        None => {}
        Some(error) if error.is_cut_short() => {
            tracing::info!(file, entries, %error, "journal: the last entry was being written when the process ended");
        }
        Some(error) => tracing::error!(
            file, entries, %error,
            "journal: a file is damaged; what stands before the fault is read, and the file goes to `corrupt` afterwards"
        ),
    }
}

#[cfg(test)]
mod tests;
