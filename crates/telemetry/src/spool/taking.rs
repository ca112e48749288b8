//! The worker's side of a spool: batches are taken, and settled or given back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use magicapi_plugin::RequestMetrics;
use magicapi_spool::{BatchId, SpoolError};
use tokio::time::Instant;

use super::files::Again;
use super::{Fate, Origin, Spool, lock};
use crate::memory::{Budget, Reservation};
use crate::metrics::{DropReason, Event};
use crate::queue::Item;

impl Spool {
    /// The batch whose turn it is: from the files, or, when those cannot be written, from the hand-over.
    /// A file has of a record what cannot be made again; `complete` adds the rest.
    pub(crate) fn take(
        &self,
        budget: &Arc<Budget>,
        complete: &dyn Fn(RequestMetrics) -> RequestMetrics,
    ) -> Option<(Origin, Vec<Item>)> {
        while let Some((id, stored)) = self.read_next() {
            let mut items = Vec::with_capacity(stored.len());
            let mut unreadable = 0;
            for bytes in &stored {
                match RequestMetrics::from_stored(bytes) {
                    Ok(record) => items.push(restored(complete(record), budget)),
                    Err(error) => {
                        unreadable += 1;
                        tracing::warn!(exporter = self.tally.name(), %error, "spool: a record cannot be read");
                    }
                }
            }
            if unreadable > 0 {
                lock(&self.files).spoilt(id);
                self.drop_records(unreadable, DropReason::Corrupt);
            }
            if !items.is_empty() {
                return Some((Origin::File(id), items));
            }
            self.finish(id, false);
        }
        self.take_unwritten()
    }

    /// The oldest records that cannot be written just now.
    pub(crate) fn take_unwritten(&self) -> Option<(Origin, Vec<Item>)> {
        if lock(&self.failure).is_none() {
            return None;
        }
        let items = self.take_handover(false);
        (!items.is_empty()).then_some((Origin::Handover, items))
    }

    /// Whether a file will never be read: its directory is there, and it is not, or it is damaged.
    fn is_for_good(&self, error: &SpoolError) -> bool {
        error.is_about_content() || (error.is_missing() && self.dir.exists())
    }

    fn read_next(&self) -> Option<(BatchId, Vec<Bytes>)> {
        loop {
            let (info, read) = lock(&self.files).lend()?;
            match read {
                Ok(stored) => return Some((info.id, stored)),
                // No file descriptor, no memory, no right to read it: that may pass, and the file is as it was.
                Err(error) if !self.is_for_good(&error) => {
                    lock(&self.files).unread(info.id, error.to_string());
                    self.measure();
                    return None;
                }
                Err(error) => {
                    // A file that cannot be read must not keep those behind it from being delivered.
                    let gone = error.is_missing();
                    let error = error.to_string();
                    let mut files = lock(&self.files);
                    if gone {
                        // An error here changes nothing.
                        let _gone = files.finish(info.id, false);
                    } else {
                        files.set_aside(info.id);
                    }
                    drop(files);
                    self.drop_records(usize::try_from(info.records).unwrap_or_default(), DropReason::Corrupt);
                    self.measure();
                    tracing::error!(
                        exporter = self.tally.name(),
                        error,
                        records = info.records,
                        "spool: a file is gone, or cannot be read and is set aside in `corrupt`"
                    );
                }
            }
        }
    }

    /// Records of a batch are done with, whatever became of them.
    pub(crate) fn settle(&self, records: usize) {
        self.records.fetch_sub(records as u64, Ordering::Relaxed);
    }

    /// All of a file's records are settled; whether the back end `took` some.
    pub(crate) fn finish(&self, id: BatchId, took: bool) {
        if let Err(error) = lock(&self.files).finish(id, took) {
            self.tell(Some((DropReason::DiskError, error.to_string())));
        }
        self.measure();
    }

    /// A batch comes back undelivered, or what is left of it.
    pub(crate) fn give_back(self: &Arc<Self>, origin: Origin, rest: Vec<Item>, fate: Fate) {
        match origin {
            Origin::Handover => {
                self.settle(rest.len());
                let count = rest.len();
                if self.offer(rest, None).is_err() {
                    self.tally.count(Event::Dropped(DropReason::DiskError), count);
                }
            }
            Origin::File(id) => {
                let mut files = lock(&self.files);
                // What is settled must not come back. Where the rest cannot be written, it comes back all the same:
                // twice is better than never.
                let as_it_was = fate.whole && !files.is_spoilt(id);
                let Again { settled, doubled } =
                    if as_it_was { Again::default() } else { files.replace(id, &rest, fate.tried) };
                files.release(id, fate.tried);
                drop(files);
                self.came_back.fetch_or(fate.tried, Ordering::Release);
                self.records.fetch_add(settled + doubled, Ordering::Relaxed);
                self.tally.receive(settled + doubled);
                // The back end has, or will have, these twice; the others it rejected, or nobody could read them.
                let twice = settled.min(fate.sent as u64) + doubled;
                self.tally.count(Event::Ambiguous, usize::try_from(twice).unwrap_or(usize::MAX));
                self.measure();
            }
        }
    }
}

/// A record as it came back from the disk. It has waited since it was made.
fn restored(record: RequestMetrics, budget: &Arc<Budget>) -> Item {
    let age = record.facts().timestamp.elapsed().unwrap_or_default();
    let share = Arc::new(Reservation::forced(budget, record.memory()));
    let mut item = Item::new(Arc::new(record), share);
    item.queued_at = Instant::now().checked_sub(age).unwrap_or(item.queued_at);
    item
}
