//! What becomes of the records of a parcel after an answer: they are settled, sent again, split, or kept for a person.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use magicapi_plugin::{ContentDropped, Delivery, ItemOutcome};

use super::decision::Next;
use super::remarks::Remarks;
use super::{Deliverer, Parcel};
use crate::guard::Guarded;
use crate::lane::ExporterState;
use crate::metrics::{DropReason, Event};
use crate::put_off::PutOff;
use crate::queue::Item;
use crate::spool::Origin;

/// Panics over one batch before it is halved to find the record that causes them.
const MAX_PANICS: u32 = 3;
/// Why what was sent is sent again.
const UNANSWERED: &str = "sent, but no answer came";
const NONE_TAKEN: &str = "the back end takes no record now";
const CUT_OFF: &str = "the export did not end in time";

impl Deliverer {
    /// What is to be done after this answer.
    pub(super) fn judge(&mut self, parcel: &mut Parcel, answer: Guarded<Delivery>) -> Next {
        match answer {
            Guarded::Done(Delivery::Delivered) => {
                self.settle(parcel.origin, std::mem::take(&mut parcel.items), Event::Sent);
                self.works();
                Next::Done
            }
            Guarded::Done(Delivery::Items(outcomes)) => self.judge_items(parcel, outcomes, NONE_TAKEN),
            Guarded::Done(Delivery::Retry { after }) => {
                self.again(parcel, after, "the back end cannot take records now")
            }
            Guarded::Done(Delivery::TooLarge) => self.too_large(parcel),
            Guarded::Done(Delivery::Refused { reason }) => {
                self.lane.enter(ExporterState::Refused, Some(&reason));
                let delay = self.lane.breaker.refused();
                // While draining there is no time to wait for an operator.
                if self.stop.order().is_some() { Next::GiveUp } else { Next::Wait(delay) }
            }
            // `Unknown`, which is the safe reading of anything else too.
            Guarded::Done(_) => self.ambiguous(parcel, UNANSWERED),
            Guarded::TimedOut => self.cut_off(parcel),
            Guarded::Panicked(message) => self.panicked(parcel, &message),
            Guarded::TooLate => {
                // What is left was under way, and is kept for a later try.
                let next = self.cut_off(parcel);
                self.lane.breaker.undecided();
                if matches!(next, Next::Done) { next } else { Next::GiveUp }
            }
        }
    }

    /// The export took too long; the exporter may know of some records what became of them.
    fn cut_off(&mut self, parcel: &mut Parcel) -> Next {
        let records: Vec<_> = parcel.items.iter().map(|item| item.record.clone()).collect();
        let known = catch_unwind(AssertUnwindSafe(|| self.lane.exporter.cut_off(&records)));
        match known {
            Ok(Delivery::Items(outcomes)) => {
                self.lane.note(CUT_OFF);
                self.judge_items(parcel, outcomes, CUT_OFF)
            }
            _ => self.ambiguous(parcel, CUT_OFF),
        }
    }

    /// `otherwise`: why none was taken, unless answers are missing.
    fn judge_items(&mut self, parcel: &mut Parcel, outcomes: Vec<ItemOutcome>, otherwise: &str) -> Next {
        if outcomes.len() != parcel.items.len() {
            return self.ambiguous(parcel, "the exporter did not answer for every record");
        }
        let (mut sent, mut rejected, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        let mut put_off = Vec::new();
        let after = outcomes.iter().filter_map(ItemOutcome::after).max();
        let unanswered = outcomes.iter().filter(|outcome| **outcome == ItemOutcome::Unknown).count();
        for (item, outcome) in std::mem::take(&mut parcel.items).into_iter().zip(outcomes) {
            match outcome {
                ItemOutcome::Delivered => sent.push(item),
                ItemOutcome::Retry | ItemOutcome::RetryAfter(_) => {
                    put_off.push(item.clone());
                    rest.push(item);
                }
                ItemOutcome::Rejected { reason } => {
                    self.remarks().rejected(&self.lane, &reason);
                    self.lane.bury(&item, &reason);
                    rejected.push(item);
                }
                _ => rest.push(item),
            }
        }
        self.lane.put_off.add(&put_off);
        let (progress, said) = (!sent.is_empty() || !rejected.is_empty(), !rejected.is_empty());
        self.settle(parcel.origin, sent, Event::Sent);
        self.settle(parcel.origin, rejected, Event::Rejected);
        parcel.items = rest;
        self.lane.count(Event::Ambiguous, unanswered);
        if progress {
            self.works();
        }
        match (parcel.items.len(), progress) {
            (0, _) => Next::Done,
            (left, true) => {
                self.lane.count(Event::Retried, left);
                // Of a batch with rejected records the exporter speaks of those.
                if let Some(cause) = self.cause.take().filter(|_| !said) {
                    self.remarks().put_off(&self.lane, left, &cause);
                }
                self.hold(after);
                Next::Wait(self.backoff.next(after))
            }
            (_, false) if unanswered > 0 && otherwise == NONE_TAKEN => self.again(parcel, after, UNANSWERED),
            (_, false) => self.again(parcel, after, otherwise),
        }
    }

    fn again(&mut self, parcel: &Parcel, after: Option<Duration>, reason: &str) -> Next {
        self.lane.count(Event::Retried, parcel.items.len());
        self.hold(after);
        let said = self.cause.take().map(|cause| format!("{reason}: {cause}"));
        self.lane.enter(ExporterState::Retrying, Some(said.as_deref().unwrap_or(reason)));
        Next::Wait(self.lane.breaker.failed(after))
    }

    fn hold(&self, after: Option<Duration>) {
        if let Some(after) = after {
            self.pace.hold(after);
        }
    }

    fn ambiguous(&mut self, parcel: &Parcel, reason: &str) -> Next {
        self.lane.count(Event::Ambiguous, parcel.items.len());
        self.again(parcel, None, reason)
    }

    fn too_large(&mut self, parcel: &mut Parcel) -> Next {
        self.lane.breaker.undecided();
        match parcel.items.as_mut_slice() {
            [item] if !parcel.stripped => {
                item.reform(item.record.without_content(ContentDropped::TooLarge));
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
        // The exporter's fault over these records, not its back end's: it opens no breaker.
        self.lane.breaker.undecided();
        let records = parcel.items.len();
        if records == 1 && parcel.panics >= MAX_PANICS {
            return self.reject(parcel, "the exporter panics over it");
        }
        self.lane.count(Event::Ambiguous, records);
        match records {
            2.. if parcel.panics >= MAX_PANICS => Next::Halve,
            _ => {
                self.lane.count(Event::Retried, records);
                let reason = format!("the exporter panicked: {message}");
                self.lane.enter(ExporterState::Retrying, Some(&reason));
                Next::Wait(self.backoff.next(None))
            }
        }
    }

    fn reject(&mut self, parcel: &mut Parcel, reason: &str) -> Next {
        self.bury(parcel.origin, std::mem::take(&mut parcel.items), reason);
        Next::Done
    }

    /// Records are rejected, and kept for a person.
    fn bury(&mut self, origin: Option<Origin>, items: Vec<Item>, reason: &str) {
        self.remarks().rejected(&self.lane, reason);
        for item in &items {
            self.lane.bury(item, reason);
        }
        self.settle(origin, items, Event::Rejected);
    }

    fn remarks(&self) -> MutexGuard<'_, Remarks> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expire(&mut self, parcel: &mut Parcel) {
        let on_disk = self.lane.spool.as_ref().filter(|_| parcel.origin.is_some());
        let max_age = on_disk.map_or(self.lane.pipeline.retry_max_age, |spool| spool.max_age());
        let (old, young): (Vec<_>, _) =
            std::mem::take(&mut parcel.items).into_iter().partition(|item| item.is_older_than(max_age));
        parcel.items = young;
        let (put_off, old): (Vec<_>, _) = old.into_iter().partition(|item| self.lane.put_off.contains(item));
        if !put_off.is_empty() {
            self.bury(parcel.origin, put_off, &PutOff::reason(max_age));
        }
        self.settle(parcel.origin, old, Event::Dropped(DropReason::Expired));
    }

    /// Records are done with: they leave the account of queue or spool, and the budget's with the last exporter.
    pub(super) fn settle(&mut self, origin: Option<Origin>, items: Vec<Item>, event: Event) {
        self.lane.put_off.remove(&items);
        let records = items.len();
        self.took += if matches!(event, Event::Sent) { records } else { 0 };
        if let (Some(_), Some(spool)) = (origin, &self.lane.spool) {
            drop(items);
            spool.settle(records);
            self.lane.count(event, records);
            return;
        }
        // A queue that was closed meanwhile has saved them, or counted them as lost.
        let is_ours = self.lane.queue.settle(&items);
        drop(items);
        if is_ours {
            self.lane.count(event, records);
        }
    }

    fn works(&mut self) {
        self.backoff.reset();
        self.lane.breaker.worked();
        if let Some(spool) = &self.lane.spool {
            spool.worked();
        }
        let draining = self.stop.order().is_some();
        self.lane.enter(if draining { ExporterState::Draining } else { ExporterState::Running }, None);
    }
}
