//! What became of the records of one export, by position, and what outlives an export that is cut off.
//!
//! The pipeline may give up waiting at any moment and asks `cut_off` right afterwards: what has been settled by then
//! must not be sent again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use magicapi_plugin::{Delivery, ItemOutcome, RequestId, RequestMetrics};

/// What is known of records whose export was cut off, until the pipeline asks. Several exports may be under way at once,
/// so it is kept by record.
#[derive(Default)]
pub(crate) struct Untold(Mutex<HashMap<RequestId, ItemOutcome>>);

impl Untold {
    fn known(&self) -> MutexGuard<'_, HashMap<RequestId, ItemOutcome>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a batch whose export was cut off; what had no turn is to be sent again.
    pub(crate) fn tell(&self, batch: &[Arc<RequestMetrics>]) -> Vec<ItemOutcome> {
        let mut known = self.known();
        batch.iter().map(|record| known.remove(&record.id()).unwrap_or(ItemOutcome::Retry)).collect()
    }
}

/// The outcomes of one export. Dropped before its end, it leaves them behind.
pub(crate) struct Tally<'a> {
    outcomes: Vec<Option<ItemOutcome>>,
    is_settled_here: bool,
    left_to: Option<(&'a [Arc<RequestMetrics>], &'a Untold)>,
}

impl From<Vec<Option<ItemOutcome>>> for Tally<'_> {
    /// Nobody asks for what an export leaves behind.
    fn from(outcomes: Vec<Option<ItemOutcome>>) -> Self {
        Self { outcomes, is_settled_here: false, left_to: None }
    }
}

impl<'a> Tally<'a> {
    /// For a batch's records: `outcomes` has one for each of them, `None` as long as it is open.
    pub(crate) fn of(
        batch: &'a [Arc<RequestMetrics>],
        untold: &'a Untold,
        outcomes: Vec<Option<ItemOutcome>>,
    ) -> Self {
        Self { outcomes, is_settled_here: false, left_to: Some((batch, untold)) }
    }

    /// Whether the back end has settled something since this export began.
    pub(crate) fn is_settled_here(&self) -> bool {
        self.is_settled_here
    }

    /// Whether the pipeline asked for this export: what is too large it halves.
    pub(crate) fn is_of_records(&self) -> bool {
        self.left_to.is_some()
    }

    /// A part is about to be sent; until its answer comes, nobody knows.
    pub(crate) fn begin(&mut self, part: &[usize]) {
        self.note(part, Some(&ItemOutcome::Unknown));
    }

    /// The answer left a part open.
    pub(crate) fn put_off(&mut self, part: &[usize]) {
        self.note(part, None);
    }

    pub(crate) fn settle(&mut self, part: &[usize], outcome: &ItemOutcome) {
        self.is_settled_here = true;
        self.note(part, Some(outcome));
    }

    fn note(&mut self, part: &[usize], outcome: Option<&ItemOutcome>) {
        for index in part {
            if let Some(slot) = self.outcomes.get_mut(*index) {
                *slot = outcome.cloned();
            }
        }
    }

    /// The verdict on the batch. `failure` is what ended the export early, if it counts for the records that are open.
    pub(crate) fn end(mut self, failure: Option<Delivery>) -> Delivery {
        self.left_to = None;
        let outcomes = std::mem::take(&mut self.outcomes);
        let rejected = |outcome: &ItemOutcome| matches!(outcome, ItemOutcome::Rejected { .. });
        let after = match failure {
            Some(failure) if !self.is_settled_here && !outcomes.iter().flatten().any(rejected) => {
                return failure;
            }
            Some(Delivery::Retry { after }) => after,
            _ => None,
        };
        let again = |outcome: Option<ItemOutcome>| outcome.unwrap_or_else(|| ItemOutcome::again(after));
        let outcomes: Vec<_> = outcomes.into_iter().map(again).collect();
        let all = |one: &ItemOutcome| outcomes.iter().all(|outcome| outcome == one);
        if all(&ItemOutcome::Delivered) {
            Delivery::Delivered
        } else if all(&ItemOutcome::Unknown) {
            Delivery::Unknown
        } else {
            Delivery::Items(outcomes)
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        // After a panic nobody asks.
        let left_to = self.left_to.take().filter(|_| !std::thread::panicking());
        let Some((batch, untold)) = left_to else { return };
        let outcomes = std::mem::take(&mut self.outcomes).into_iter();
        let known = batch.iter().zip(outcomes).filter_map(|(record, outcome)| Some((record.id(), outcome?)));
        untold.known().extend(known);
    }
}
