//! Records that the exporter itself put off, one by one: when their time is over they become dead letters, not drops, since
//! it is for a person to see why they were never taken. Known to this process alone; a later one puts them off anew.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use magicapi_plugin::RequestId;

use crate::queue::Item;

/// Records that are remembered; the newest of more are put off again before their time is over, or are dropped in the end.
const REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(crate) struct PutOff(Mutex<BTreeSet<RequestId>>);

impl PutOff {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<RequestId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, items: &[Item]) {
        self.extend(items.iter().map(|item| item.record.id()));
    }

    /// Takes over what another remembers.
    pub(crate) fn inherit(&self, other: &Self) {
        let ids = std::mem::take(&mut *other.lock());
        self.extend(ids);
    }

    fn extend(&self, new: impl IntoIterator<Item = RequestId>) {
        let mut ids = self.lock();
        ids.extend(new);
        // Ids grow with time.
        while ids.len() > REMEMBERED {
            ids.pop_last();
        }
    }

    /// Forgets records that are done with.
    pub(crate) fn remove(&self, items: &[Item]) {
        let mut ids = self.lock();
        if !ids.is_empty() {
            for item in items {
                ids.remove(&item.record.id());
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn contains(&self, item: &Item) -> bool {
        self.lock().contains(&item.record.id())
    }

    /// The same for a record whose time is over; forgets it.
    pub(crate) fn take(&self, id: RequestId) -> bool {
        self.lock().remove(&id)
    }

    /// What stands beside a dead letter of this sort.
    pub(crate) fn reason(max_age: Duration) -> String {
        format!("the exporter put it off until it was older than {max_age:?}")
    }
}
