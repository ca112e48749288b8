//! What became of records under one signal, until it is known under every other: what a server has under one is not sent
//! there again because another puts it off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use magicapi_plugin::{Delivery, ItemOutcome, RequestId, RequestMetrics};

use super::config::Signal;

/// Records that are remembered between two tries, at most.
const MOST: usize = 20_000;

/// What became of a record, once for each signal that it was sent under: it is settled, or nobody knows.
type Outcomes = Vec<(Signal, ItemOutcome)>;

pub(super) struct HalfSent {
    kept: Mutex<Kept>,
    most: usize,
}

impl Default for HalfSent {
    fn default() -> Self {
        Self { kept: Mutex::default(), most: MOST }
    }
}

#[derive(Default)]
struct Kept {
    records: BTreeMap<RequestId, Outcomes>,
    /// Records that had to be forgotten, and will be sent twice under a signal if they come again. Not yet counted.
    forgotten: usize,
}

/// What is known of a batch while it is sent. Dropped before its end, it leaves that behind for the question that follows.
pub(super) struct Known<'a> {
    batch: &'a [Arc<RequestMetrics>],
    outcomes: Vec<Outcomes>,
    kept: &'a HalfSent,
    has_ended: bool,
}

impl HalfSent {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch that is about to be sent.
    pub(super) fn begin<'a>(&'a self, batch: &'a [Arc<RequestMetrics>]) -> Known<'a> {
        let mut known = self.left_by(batch);
        // An earlier try has told who was unclear then.
        known.outcomes.iter_mut().for_each(|of| of.retain(|(_, outcome)| outcome.is_settled()));
        known
    }

    /// A batch whose export was cut off just now.
    pub(super) fn left_by<'a>(&'a self, batch: &'a [Arc<RequestMetrics>]) -> Known<'a> {
        let mut kept = self.lock();
        let of = |record: &Arc<RequestMetrics>| kept.records.remove(&record.id()).unwrap_or_default();
        let outcomes = batch.iter().map(of).collect();
        Known { batch, outcomes, kept: self, has_ended: false }
    }
}

impl Known<'_> {
    /// Whether nothing is left to do for the record there under this signal.
    pub(super) fn is_settled(&self, index: usize, signal: Signal) -> bool {
        let settled = |(under, outcome): &(Signal, ItemOutcome)| *under == signal && outcome.is_settled();
        self.outcomes.get(index).is_some_and(|of| of.iter().any(settled))
    }

    /// What came of the record there; that it is to be sent again says nothing new.
    pub(super) fn note(&mut self, index: usize, signal: Signal, outcome: ItemOutcome) {
        let says = outcome.is_settled() || outcome == ItemOutcome::Unknown;
        if let Some(of) = self.outcomes.get_mut(index).filter(|_| says) {
            of.retain(|(under, _)| *under != signal);
            of.push((signal, outcome));
        }
    }

    /// Whether nobody knows of a record whether it is there.
    pub(super) fn has_unclear(&self) -> bool {
        self.outcomes.iter().any(|of| of.iter().any(|(_, outcome)| *outcome == ItemOutcome::Unknown))
    }

    /// The verdict on the batch, once every one of the `signals` had its turn or one was put off.
    pub(super) fn end(mut self, signals: &[Signal], after: Option<Duration>) -> Delivery {
        let mut outcomes: Vec<_> =
            self.outcomes.iter().map(|of| joined(of, signals, ItemOutcome::again(after))).collect();
        self.keep(&outcomes);
        self.own_up(&mut outcomes);
        if outcomes.iter().all(|outcome| *outcome == ItemOutcome::Delivered) {
            return Delivery::Delivered;
        }
        Delivery::Items(outcomes)
    }

    /// The same when one answer counts for all records; what is settled is remembered.
    pub(super) fn end_with(mut self, failure: Delivery) -> Delivery {
        let again = match failure {
            Delivery::Retry { after } => ItemOutcome::again(after),
            _ => ItemOutcome::Retry,
        };
        let mut outcomes = vec![again; self.outcomes.len()];
        self.keep(&outcomes);
        if !matches!(failure, Delivery::Retry { .. }) {
            return failure;
        }
        // One answer for all has no room to say what was forgotten.
        if self.own_up(&mut outcomes) { Delivery::Items(outcomes) } else { failure }
    }

    /// Remembers what is settled of records that come again; where there is no room the oldest are forgotten.
    fn keep(&mut self, outcomes: &[ItemOutcome]) {
        self.has_ended = true;
        let mut kept = self.kept.lock();
        for ((record, of), outcome) in self.batch.iter().zip(&mut self.outcomes).zip(outcomes) {
            of.retain(|(_, outcome)| outcome.is_settled());
            if !outcome.is_settled() && !of.is_empty() {
                kept.records.insert(record.id(), std::mem::take(of));
            }
        }
        while kept.records.len() > self.kept.most {
            kept.records.pop_first();
            kept.forgotten += 1;
        }
    }

    /// For each record that was forgotten one that comes again is unclear, so that the second sending is counted. Whether
    /// there were any.
    fn own_up(&self, outcomes: &mut [ItemOutcome]) -> bool {
        let mut kept = self.kept.lock();
        let before = kept.forgotten;
        let open = |outcome: &&mut ItemOutcome| !outcome.is_settled() && **outcome != ItemOutcome::Unknown;
        for outcome in outcomes.iter_mut().filter(open).take(kept.forgotten) {
            *outcome = ItemOutcome::Unknown;
            kept.forgotten -= 1;
        }
        before > kept.forgotten
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let left = self.batch.iter().map(|record| record.id()).zip(std::mem::take(&mut self.outcomes));
            self.kept.lock().records.extend(left.filter(|(_, of)| !of.is_empty()));
        }
    }
}

/// What became of a record under all signals.
fn joined(of: &Outcomes, signals: &[Signal], open: ItemOutcome) -> ItemOutcome {
    if of.iter().any(|(_, outcome)| *outcome == ItemOutcome::Unknown) {
        return ItemOutcome::Unknown;
    }
    if signals.iter().any(|signal| !of.iter().any(|(under, _)| under == signal)) {
        return open;
    }
    let rejected = of.iter().find_map(|(signal, outcome)| match outcome {
        ItemOutcome::Rejected { reason } => Some(format!("{}: {reason}", signal.word())),
        _ => None,
    });
    rejected.map_or(ItemOutcome::Delivered, |reason| ItemOutcome::Rejected { reason })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use magicapi_plugin::{Delivery, ItemOutcome};

    use super::{HalfSent, Signal};
    use crate::testing::batch;

    const BOTH: [Signal; 2] = [Signal::Traces, Signal::Logs];

    fn of(most: usize) -> HalfSent {
        HalfSent { kept: Mutex::default(), most }
    }

    #[test]
    fn a_batch_in_hand_is_not_forgotten() {
        let (half_sent, batch) = (of(2), batch(5));
        let mut known = half_sent.begin(&batch);
        for signal in BOTH {
            (0..5).for_each(|index| known.note(index, signal, ItemOutcome::Delivered));
        }
        assert_eq!(known.end(&BOTH, None), Delivery::Delivered);
        assert!(half_sent.lock().records.is_empty());
    }

    #[test]
    fn what_must_be_forgotten_is_counted() {
        let (half_sent, batch) = (of(2), batch(5));
        let mut known = half_sent.begin(&batch);
        (0..5).for_each(|index| known.note(index, Signal::Traces, ItemOutcome::Delivered));
        let Delivery::Items(outcomes) = known.end(&BOTH, None) else { panic!("items") };
        let unclear = outcomes.iter().filter(|outcome| **outcome == ItemOutcome::Unknown).count();
        assert_eq!((outcomes.len(), unclear), (5, 3));
        let known = half_sent.begin(&batch);
        let sent_again = (0..5).filter(|index| !known.is_settled(*index, Signal::Traces)).count();
        assert_eq!(sent_again, 3);
        // One answer for all leaves no room to say so; the next that has it does.
        let failure = Delivery::Refused { reason: "key".into() };
        let mut known = known;
        (0..5).for_each(|index| known.note(index, Signal::Traces, ItemOutcome::Delivered));
        assert_eq!(known.end_with(failure.clone()), failure);
        let open = half_sent.begin(&batch[..4]).end_with(Delivery::Retry { after: None });
        let Delivery::Items(outcomes) = open else { panic!("items") };
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == ItemOutcome::Unknown).count(), 3);
        let again = Delivery::Retry { after: None };
        assert_eq!(half_sent.begin(&batch[..2]).end_with(again.clone()), again, "said once");
    }
}
