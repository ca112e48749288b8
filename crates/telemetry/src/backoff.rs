//! How long to wait before the next try: exponential with full jitter, so that many gateways do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The most that a back end's own delay is honoured.
pub(crate) const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// Counts tries since the last success.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The delay grows from below `first`, twice as long each time, to below `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next delay; not shorter than what the back end asked for, up to a cap.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let jittered = ceiling.mul_f64(random_fraction());
        asked.map_or(jittered, |asked| asked.min(LONGEST_ASKED).max(jittered))
    }
}

/// 0 to 1. The standard library's hasher keys are random, which is enough to spread tries.
fn random_fraction() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Duration};

    #[test]
    fn delays_grow_to_a_minute_and_asked_ones_are_honoured() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_mins(1));
        for failures in 0..40 {
            let ceiling =
                Duration::from_millis(500).saturating_mul(1 << failures.min(16)).min(Duration::from_mins(1));
            assert!(backoff.next(None) <= ceiling);
        }
        let asked = backoff.next(Some(Duration::from_mins(2)));
        assert_eq!(asked, Duration::from_mins(2));
        assert_eq!(backoff.next(Some(Duration::from_hours(9))), Duration::from_mins(5));
    }
}
