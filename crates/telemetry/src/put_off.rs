//! Records that the exporter itself put off, one by one: when their time is over they become dead letters, not drops, since
//! it is for a person to see why they were never taken. Known to this process alone; a later one puts them off anew.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use magicapi_plugin::RequestId;

use crate::queue::Item;

/// Records that are remembered; of more the oldest are forgotten, and are dropped in the end.
const REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(crate) struct PutOff(Mutex<BTreeSet<RequestId>>);

impl PutOff {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<RequestId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, items: &[Item]) {
        let mut ids = self.lock();
        ids.extend(items.iter().map(|item| item.record.id()));
        // Ids grow with time.
        while ids.len() > REMEMBERED {
            ids.pop_first();
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

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn contains(&self, item: &Item) -> bool {
        self.lock().contains(&item.record.id())
    }
}
