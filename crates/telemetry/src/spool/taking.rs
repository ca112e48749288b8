//! The worker's side of a spool: batches are taken, and settled or given back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use magicapi_plugin::RequestMetrics;
use magicapi_spool::BatchId;
use tokio::time::Instant;

use super::{Origin, Spool, lock};
use crate::memory::{Budget, Reservation};
use crate::metrics::{DropReason, Event};
use crate::queue::Item;

impl Spool {
    /// The oldest batch that is not on its way: from the files, or, when those cannot be written, from the hand-over.
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
            self.drop_records(unreadable, DropReason::Corrupt);
            if !items.is_empty() {
                return Some((Origin::File(id), items));
            }
            self.finish(id);
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

    fn read_next(&self) -> Option<(BatchId, Vec<Bytes>)> {
        loop {
            let (info, read) = lock(&self.files).lend()?;
            match read {
                Ok(stored) => return Some((info.id, stored)),
                // No file descriptor, no memory, a disk that is away: that passes, and the file is as it was.
                Err(error) if !error.is_about_content() => {
                    lock(&self.files).unread(info.id);
                    self.tell(Some((DropReason::DiskError, error.to_string())));
                    return None;
                }
                Err(error) => {
                    // A file that cannot be read must not keep those behind it from being delivered.
                    let error = error.to_string();
                    lock(&self.files).set_aside(info.id);
                    self.drop_records(usize::try_from(info.records).unwrap_or_default(), DropReason::Corrupt);
                    self.measure();
                    tracing::error!(
                        exporter = self.tally.name(),
                        error,
                        records = info.records,
                        "spool: a file cannot be read and is set aside in `corrupt`"
                    );
                }
            }
        }
    }

    /// Records of a batch are done with, whatever became of them.
    pub(crate) fn settle(&self, records: usize) {
        self.records.fetch_sub(records as u64, Ordering::Relaxed);
    }

    /// All of a file's records are settled.
    pub(crate) fn finish(&self, id: BatchId) {
        if let Err(error) = lock(&self.files).finish(id) {
            self.tell(Some((DropReason::DiskError, error.to_string())));
        }
        self.measure();
    }

    /// A batch comes back undelivered, or what is left of it. `whole` when nothing of it was settled.
    pub(crate) fn give_back(self: &Arc<Self>, origin: Origin, rest: Vec<Item>, whole: bool) {
        match origin {
            Origin::Handover => {
                self.settle(rest.len());
                let count = rest.len();
                if self.offer(rest, true).is_err() {
                    self.tally.count(Event::Dropped(DropReason::DiskError), count);
                }
            }
            Origin::File(id) => {
                let mut files = lock(&self.files);
                // What is settled must not come back. Where the rest cannot be written, it comes back all the same:
                // twice is better than never.
                let again = if whole { 0 } else { files.replace(id, &rest) };
                files.release(id);
                drop(files);
                self.came_back.store(true, Ordering::Release);
                self.records.fetch_add(again, Ordering::Relaxed);
                self.tally.receive(again);
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
