//! Delivers one batch: sends, judges the answer, sends again what may be sent again, until all of it is settled.
//!
//! The exporter never retries by itself; every decision about a [`Delivery`] stands here. Records keep their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use magicapi_plugin::{ContentDropped, Delivery, ItemOutcome};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::guard::{Guarded, guarded};
use crate::lane::{ExporterState, Lane};
use crate::metrics::{DropReason, Event};
use crate::queue::Item;
use crate::stop::StopSignal;

/// An export that takes longer has gone astray: its outcome is unknown.
const EXPORT_TIMEOUT: Duration = Duration::from_mins(2);
/// How often a back end that refuses us is asked again.
const PROBE: Duration = Duration::from_secs(30);
/// Panics over one batch before it is halved to find the record that causes them.
const MAX_PANICS: u32 = 3;
/// Rejections are logged at most this often.
const REJECTION_LOG: Duration = Duration::from_secs(10);

/// Delivers batches of one exporter, one after the other.
pub(crate) struct Deliverer {
    lane: Arc<Lane>,
    stop: StopSignal,
    backoff: Backoff,
    rejections: Rejections,
}

/// A part of a batch that is sent together.
struct Parcel {
    items: Vec<Item>,
    /// It is one record, and its bodies were taken away because it was too large.
    stripped: bool,
    panics: u32,
}

/// What to do with the parcel now.
enum Next {
    Done,
    Wait(Duration),
    Halve,
    GiveUp,
}

impl Deliverer {
    pub(crate) fn new(lane: Arc<Lane>, stop: StopSignal) -> Self {
        Self { lane, stop, backoff: Backoff::default(), rejections: Rejections::default() }
    }

    /// Delivers a batch. `false` when the time to end came first: what is left is back in the queue.
    pub(crate) async fn deliver(&mut self, batch: Vec<Item>) -> bool {
        let mut parcels = VecDeque::from([Parcel { items: batch, stripped: false, panics: 0 }]);
        while let Some(mut parcel) = parcels.pop_front() {
            self.expire(&mut parcel);
            if parcel.items.is_empty() {
                continue;
            }
            let answer = self.send(&parcel).await;
            let go_on = match self.judge(&mut parcel, answer) {
                Next::Done => true,
                Next::Halve => {
                    let second = parcel.items.split_off(parcel.items.len() / 2);
                    parcels.push_front(Parcel { items: second, stripped: false, panics: 0 });
                    parcels.push_front(Parcel { panics: 0, ..parcel });
                    true
                }
                Next::Wait(delay) => {
                    parcels.push_front(parcel);
                    self.stop.pause(delay).await
                }
                Next::GiveUp => {
                    parcels.push_front(parcel);
                    false
                }
            };
            if !go_on {
                self.lane.queue.put_back(parcels.into_iter().flat_map(|parcel| parcel.items).collect());
                return false;
            }
        }
        true
    }

    async fn send(&mut self, parcel: &Parcel) -> Guarded<Delivery> {
        let records: Vec<_> = parcel.items.iter().map(|item| item.record.clone()).collect();
        let exporter = self.lane.exporter.clone();
        guarded(async { exporter.export(&records).await }, EXPORT_TIMEOUT, &mut self.stop).await
    }

    fn judge(&mut self, parcel: &mut Parcel, answer: Guarded<Delivery>) -> Next {
        match answer {
            Guarded::Done(Delivery::Delivered) => {
                self.settle(std::mem::take(&mut parcel.items), Event::Sent);
                self.works();
                Next::Done
            }
            Guarded::Done(Delivery::Items(outcomes)) => self.judge_items(parcel, outcomes),
            Guarded::Done(Delivery::Retry { after }) => {
                self.again(parcel, after, "the back end cannot take records now")
            }
            Guarded::Done(Delivery::TooLarge) => self.too_large(parcel),
            Guarded::Done(Delivery::Refused { reason }) => {
                self.lane.enter(ExporterState::Refused, Some(&reason));
                // While draining there is no time to wait for an operator.
                if self.stop.order().is_some() { Next::GiveUp } else { Next::Wait(PROBE) }
            }
            Guarded::Done(Delivery::Unknown) => self.ambiguous(parcel, "sent, but no answer came"),
            Guarded::TimedOut => self.ambiguous(parcel, "the export did not end in time"),
            Guarded::Panicked(message) => self.panicked(parcel, &message),
            Guarded::TooLate => Next::GiveUp,
        }
    }

    fn judge_items(&mut self, parcel: &mut Parcel, outcomes: Vec<ItemOutcome>) -> Next {
        if outcomes.len() != parcel.items.len() {
            return self.ambiguous(parcel, "the exporter did not answer for every record");
        }
        let (mut sent, mut rejected, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (item, outcome) in std::mem::take(&mut parcel.items).into_iter().zip(outcomes) {
            match outcome {
                ItemOutcome::Delivered => sent.push(item),
                ItemOutcome::Retry => rest.push(item),
                ItemOutcome::Rejected { reason } => {
                    self.rejections.say(&self.lane, &reason);
                    rejected.push(item);
                }
            }
        }
        let progress = !sent.is_empty() || !rejected.is_empty();
        self.settle(sent, Event::Sent);
        self.settle(rejected, Event::Rejected);
        parcel.items = rest;
        if progress {
            self.works();
        }
        match (parcel.items.len(), progress) {
            (0, _) => Next::Done,
            (left, true) => {
                self.lane.count(Event::Retried, left);
                Next::Wait(self.backoff.next(None))
            }
            (_, false) => self.again(parcel, None, "the back end takes no record now"),
        }
    }

    fn again(&mut self, parcel: &Parcel, after: Option<Duration>, reason: &str) -> Next {
        self.lane.count(Event::Retried, parcel.items.len());
        self.lane.enter(ExporterState::Retrying, Some(reason));
        Next::Wait(self.backoff.next(after))
    }

    fn ambiguous(&mut self, parcel: &Parcel, reason: &str) -> Next {
        self.lane.count(Event::Ambiguous, parcel.items.len());
        self.again(parcel, None, reason)
    }

    fn too_large(&mut self, parcel: &mut Parcel) -> Next {
        match parcel.items.as_mut_slice() {
            [item] if !parcel.stripped => {
                item.record = Arc::new(item.record.without_content(ContentDropped::TooLarge));
                parcel.stripped = true;
                Next::Wait(Duration::ZERO)
            }
            [_] => self.reject(parcel, "too large even without bodies"),
            _ => Next::Halve,
        }
    }

    fn panicked(&mut self, parcel: &mut Parcel, message: &str) -> Next {
        self.lane.count(Event::Panicked, 1);
        parcel.panics += 1;
        match parcel.items.len() {
            1 if parcel.panics >= MAX_PANICS => self.reject(parcel, "the exporter panics over it"),
            2.. if parcel.panics >= MAX_PANICS => Next::Halve,
            _ => self.ambiguous(parcel, &format!("the exporter panicked: {message}")),
        }
    }

    fn reject(&mut self, parcel: &mut Parcel, reason: &str) -> Next {
        self.rejections.say(&self.lane, reason);
        self.settle(std::mem::take(&mut parcel.items), Event::Rejected);
        Next::Done
    }

    fn expire(&mut self, parcel: &mut Parcel) {
        let max_age = self.lane.pipeline.retry_max_age;
        let (old, young) =
            std::mem::take(&mut parcel.items).into_iter().partition(|item| item.is_older_than(max_age));
        parcel.items = young;
        self.settle(old, Event::Dropped(DropReason::Expired));
    }

    /// Records are done with: they leave the queue's account, and the budget's with the last exporter.
    fn settle(&self, items: Vec<Item>, event: Event) {
        let (records, bytes) = (items.len(), items.iter().map(Item::memory).sum());
        drop(items);
        // A queue that was closed meanwhile has counted them as lost.
        if self.lane.queue.settle(records, bytes) {
            self.lane.count(event, records);
        }
    }

    fn works(&mut self) {
        self.backoff.reset();
        let draining = self.stop.order().is_some();
        self.lane.enter(if draining { ExporterState::Draining } else { ExporterState::Running }, None);
    }
}

/// Says why records are rejected, now and then.
#[derive(Default)]
struct Rejections {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Rejections {
    fn say(&mut self, lane: &Lane, reason: &str) {
        let now = Instant::now();
        if self.said_at.is_some_and(|at| now.saturating_duration_since(at) < REJECTION_LOG) {
            self.unsaid += 1;
            return;
        }
        let exporter = lane.name.as_str();
        tracing::warn!(exporter, reason, more = self.unsaid, "exporter: record rejected");
        lane.note(reason);
        (self.said_at, self.unsaid) = (Some(now), 0);
    }
}

#[cfg(test)]
mod tests;
