//! Records that the exporter itself put off, one by one: when their time is over they become dead letters, not drops, since
//! it is for a person to see why they were never taken. Known to this process alone; a later one puts them off anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use magicapi_plugin::RequestId;

use crate::queue::Item;

/// Records that are remembered; the newest of more are put off again before their time is over, or are dropped in the end.
const REMEMBERED: usize = 10_000;
/// How long after their time all of them are gone, whatever became of them.
const GONE: Duration = Duration::from_mins(10);

/// When each of them was made.
type Records = BTreeMap<RequestId, SystemTime>;

pub(crate) struct PutOff {
    records: Mutex<Records>,
    max_age: Duration,
}

impl PutOff {
    /// Of records that are kept for so long at most.
    pub(crate) fn new(max_age: Duration) -> Self {
        Self { records: Mutex::default(), max_age }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, items: &[Item]) {
        self.extend(items.iter().map(|item| (item.record.id(), item.record.facts().timestamp)));
    }

    /// Takes over what another remembers.
    pub(crate) fn inherit(&self, other: &Self) {
        let records = std::mem::take(&mut *other.lock());
        self.extend(records);
    }

    fn extend(&self, new: impl IntoIterator<Item = (RequestId, SystemTime)>) {
        let mut records = self.lock();
        records.extend(new);
        if records.len() > REMEMBERED {
            // What had no room, or was purged, never said so.
            let over = self.max_age + GONE;
            records.retain(|_, made| made.elapsed().unwrap_or_default() < over);
        }
        // Ids grow with time.
        while records.len() > REMEMBERED {
            records.pop_last();
        }
    }

    /// Forgets records that are done with.
    pub(crate) fn remove(&self, items: &[Item]) {
        let mut records = self.lock();
        if !records.is_empty() {
            for item in items {
                records.remove(&item.record.id());
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn contains(&self, item: &Item) -> bool {
        self.lock().contains_key(&item.record.id())
    }

    /// The same for a record whose time is over; forgets it.
    pub(crate) fn take(&self, id: RequestId) -> bool {
        self.lock().remove(&id).is_some()
    }

    /// What stands beside a dead letter of this sort.
    pub(crate) fn reason(max_age: Duration) -> String {
        format!("the exporter put it off until it was older than {max_age:?}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use magicapi_plugin::RequestId;

    use super::{PutOff, REMEMBERED};

    #[test]
    fn of_too_many_those_are_forgotten_that_are_gone_and_then_the_newest() {
        let put_off = PutOff::new(Duration::from_hours(1));
        let now = SystemTime::now();
        let gone = (0..REMEMBERED / 2).map(|_| (RequestId::mint(), now - Duration::from_hours(2)));
        put_off.extend(gone.collect::<Vec<_>>());
        let records: Vec<_> = (0..REMEMBERED + 5).map(|_| (RequestId::mint(), now)).collect();
        put_off.extend(records.clone());
        let remembered: Vec<_> = records.iter().map(|(id, _)| put_off.take(*id)).collect();
        assert!(remembered[..REMEMBERED].iter().all(|one| *one));
        assert!(remembered[REMEMBERED..].iter().all(|one| !one) && put_off.is_empty());
    }
}
