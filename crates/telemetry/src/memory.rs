//! The budget of `capture.memory`: what all records hold from tap to last exporter (invariant 9).
//!
//! A tap grows its [`Reservation`] before it copies; the reservation travels with the record and is given back when the
//! last exporter drops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::journal::Kept;

/// The share of the budget that bodies may not use, as a divisor: it keeps records themselves from being dropped while
/// others hold large bodies.
const RESERVE: usize = 8;

/// Bytes in use and their limit.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// A lower limit than what is in use lets nothing in until enough was given back.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize, ceiling: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= ceiling;
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// One record's part of the budget; given back when dropped, and its place in the journal with it.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
    kept: Option<Kept>,
}

impl Reservation {
    pub(crate) fn empty(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), bytes: 0, kept: None }
    }

    /// Bytes that are in use whether or not there is room, so that others feel it: what comes back from the disk,
    /// bounded by the batches under way.
    pub(crate) fn forced(budget: &Arc<Budget>, bytes: usize) -> Self {
        budget.used.fetch_add(bytes, Ordering::Relaxed);
        Self { budget: budget.clone(), bytes, kept: None }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds the record's place in the journal, for as long as this lives.
    pub(crate) fn keep(&mut self, kept: Kept) {
        self.kept = Some(kept);
    }

    /// The record's place in the journal; `None` unless records are durable.
    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// The record is given up undelivered because the process ends: a journal leaves it to the next one.
    pub(crate) fn give_up(&self) {
        if let Some(kept) = &self.kept {
            kept.give_up();
        }
    }

    /// Room for bodies; `false` when there is none, and then nothing changes.
    pub(crate) fn grow_for_content(&mut self, bytes: usize) -> bool {
        let limit = self.budget.limit();
        self.grow(bytes, limit - limit / RESERVE)
    }

    /// Room for the record itself.
    pub(crate) fn grow_for_record(&mut self, bytes: usize) -> bool {
        let limit = self.budget.limit();
        self.grow(bytes, limit)
    }

    fn grow(&mut self, bytes: usize, ceiling: usize) -> bool {
        let fits = self.budget.take(bytes, ceiling);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.used.fetch_sub(surplus, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Budget, Reservation};

    #[test]
    fn bodies_leave_room_for_records() {
        let budget = Budget::new(800);
        let mut share = Reservation::empty(&budget);
        assert!(share.grow_for_content(700) && !share.grow_for_content(1));
        assert!(share.grow_for_record(100) && !share.grow_for_record(1));
        share.shrink_to(50);
        assert_eq!(budget.used(), 50);
        drop(share);
        assert_eq!(budget.used(), 0);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_given_back(steps in prop::collection::vec((0usize..4, 0usize..300, any::<bool>()), 0..60)) {
            let budget = Budget::new(1000);
            let mut shares: Vec<_> = (0..4).map(|_| Reservation::empty(&budget)).collect();
            for (index, bytes, up) in steps {
                if up { shares[index].grow_for_content(bytes); } else { shares[index].shrink_to(bytes); }
                prop_assert!(budget.used() <= 1000);
                prop_assert_eq!(budget.used(), shares.iter().map(Reservation::bytes).sum::<usize>());
            }
            drop(shares);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
