//! Whose turn it is among the files of a spool. The oldest goes first, as long as all is well; a file that is never taken must
//! not keep the others from being tried.
//!
//! While the back end takes nothing, each probe is another file, the oldest and the newest in turn: what has come lately may be
//! what it takes again. A file that fails although others were taken since it failed before is stubborn: such files come when no
//! other is left, one after the other, and not more often than once in a while. As long as there is one, its neighbours in age
//! may be like it, so most of the time the newest go first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use magicapi_spool::BatchId;

/// How often stubborn files are tried when there is nothing else.
const REST: Duration = Duration::from_secs(30);
/// Of so many turns one is the oldest's, while there are stubborn files.
const OLDEST: u32 = 8;

#[derive(Default)]
pub(super) struct Turns {
    failed: BTreeMap<BatchId, Failed>,
    /// Since all was well.
    count: u32,
    /// The stubborn file that was tried last, and when.
    tried: Option<(BatchId, Instant)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Failed {
    /// Nothing was taken since.
    Lately,
    /// Others were.
    Before,
    Stubborn,
}

impl Turns {
    /// One of these, which are sorted by age.
    pub(super) fn choose<There>(&mut self, there: &There, now: Instant) -> Option<BatchId>
    where
        There: DoubleEndedIterator<Item = BatchId> + Clone,
    {
        if self.failed.is_empty() {
            self.count = 0;
            return there.clone().next();
        }
        let stubborn = self.failed.values().any(|failed| *failed == Failed::Stubborn);
        self.count = self.count.wrapping_add(1);
        let newest = !self.count.is_multiple_of(if stubborn { OLDEST } else { 2 });
        let pick = |failed: &BTreeMap<BatchId, Failed>| {
            let mut fresh = there.clone().filter(|id| matches!(failed.get(id), None | Some(Failed::Before)));
            if newest { fresh.next_back() } else { fresh.next() }
        };
        let picked = pick(&self.failed).or_else(|| {
            // All have had their turn.
            self.failed.retain(|_, failed| *failed == Failed::Stubborn);
            pick(&self.failed)
        });
        if picked.is_some() {
            return picked;
        }
        let last = self.tried.map(|(last, at)| (last, now.saturating_duration_since(at)));
        if last.is_some_and(|(_, rested)| rested < REST) {
            return None;
        }
        let next = last.and_then(|(last, _)| there.clone().find(|id| *id > last));
        let picked = next.or_else(|| there.clone().next())?;
        self.tried = Some((picked, now));
        Some(picked)
    }

    /// A file was not taken.
    pub(super) fn failed(&mut self, id: BatchId) {
        let now = match self.failed.get(&id) {
            None | Some(Failed::Lately) => Failed::Lately,
            Some(Failed::Before | Failed::Stubborn) => Failed::Stubborn,
        };
        self.failed.insert(id, now);
    }

    /// The back end took something.
    pub(super) fn worked(&mut self) {
        for failed in self.failed.values_mut().filter(|failed| **failed == Failed::Lately) {
            *failed = Failed::Before;
        }
    }

    /// What is left of a file stands in another; whether that was `tried`, and not taken.
    pub(super) fn shrunk(&mut self, id: BatchId, new: BatchId, tried: bool) {
        if let Some(failed) = self.failed.remove(&id) {
            self.failed.insert(new, failed);
        }
        if tried {
            self.failed(new);
        }
    }

    /// A file is gone. Where the back end `took` something of it although it was stubborn, it has changed its mind, and all
    /// are tried again.
    pub(super) fn gone(&mut self, id: BatchId, took: bool) {
        if self.failed.remove(&id) == Some(Failed::Stubborn) && took {
            self.failed.clear();
        }
    }

    /// Forgets files that are gone.
    pub(super) fn keep(&mut self, there: impl Fn(BatchId) -> bool) {
        self.failed.retain(|id, _| there(*id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use magicapi_spool::{BatchId, Batches};
    use tempfile::TempDir;

    use super::{REST, Turns};

    /// Ids of as many files, the oldest first.
    fn files(count: usize) -> Vec<BatchId> {
        let dir = TempDir::new().expect("a directory");
        let mut batches = Batches::open(dir.path(), u64::MAX).expect("a directory");
        (0..count).map(|_| batches.put(&[b"x"], SystemTime::UNIX_EPOCH).expect("a file")).collect()
    }

    #[test]
    fn the_oldest_goes_first_as_long_as_all_is_well() {
        let (mut there, mut turns) = (files(4), Turns::default());
        while let Some(id) = turns.choose(&there.iter().copied(), Instant::now()) {
            assert_eq!(id, there.remove(0));
            turns.gone(id, true);
        }
    }

    #[test]
    fn every_probe_of_a_back_end_that_takes_nothing_is_another_file() {
        let (there, mut turns) = (files(4), Turns::default());
        let mut probe = || {
            let id = turns.choose(&there.iter().copied(), Instant::now()).expect("a file");
            turns.failed(id);
            there.iter().position(|one| *one == id).expect("one of them")
        };
        let probes: Vec<_> = (0..8).map(|_| probe()).collect();
        assert_eq!(probes[..4], [0, 3, 1, 2], "the oldest, the newest, the oldest of the rest, …");
        let mut again = probes[4..].to_vec();
        again.sort_unstable();
        assert_eq!(again, [0, 1, 2, 3], "{probes:?}");
    }

    /// Half of the files are never taken; whatever else there is, and whatever comes, is taken first.
    #[test]
    fn what_is_never_taken_does_not_keep_the_rest_away() {
        let all = files(40);
        let (bad, good) = all.split_at(20);
        let (mut there, mut coming) = ([bad, &good[..5]].concat(), good[5..].to_vec());
        let (mut turns, mut failures) = (Turns::default(), 0);
        while there.len() > bad.len() || !coming.is_empty() {
            let id = turns.choose(&there.iter().copied(), Instant::now()).expect("a file");
            if bad.contains(&id) {
                turns.failed(id);
                failures += 1;
                assert!(failures < 10, "each costs half a minute");
                // While the breaker is open, what is new comes here.
                there.extend(coming.drain(..coming.len().min(3)));
            } else {
                turns.worked();
                turns.gone(id, true);
                there.retain(|one| *one != id);
            }
        }
    }

    #[test]
    fn what_was_stubborn_is_tried_again_at_once_when_one_of_them_is_taken() {
        let (mut there, mut turns) = (files(3), Turns::default());
        all_stubborn(&mut turns, &there);
        let now = Instant::now();
        let id = turns.choose(&there.iter().copied(), now).expect("one of them, now and then");
        assert_eq!(turns.choose(&there.iter().copied(), now), None, "not at once again");
        turns.gone(id, true);
        there.retain(|one| *one != id);
        assert!(turns.choose(&there.iter().copied(), now).is_some());
    }

    /// What is taken again may be any of them.
    #[test]
    fn stubborn_files_are_tried_one_after_the_other() {
        let (there, mut turns) = (files(3), Turns::default());
        all_stubborn(&mut turns, &there);
        let begun = Instant::now();
        let mut tried = |round: u32| {
            let id = turns.choose(&there.iter().copied(), begun + round * REST).expect("one of them");
            turns.failed(id);
            there.iter().position(|one| *one == id)
        };
        assert_eq!([0, 1, 2, 3].map(&mut tried), [Some(0), Some(1), Some(2), Some(0)]);
    }

    fn all_stubborn(turns: &mut Turns, there: &[BatchId]) {
        for id in there {
            turns.failed(*id);
            turns.worked();
            turns.failed(*id);
        }
    }
}
