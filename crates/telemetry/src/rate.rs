//! Pace of one exporter: requests and bytes per second, as token buckets that hold one second's worth.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::settings::RateLimit;

/// A delay is never longer than this, whatever one batch owes.
const LONGEST: Duration = Duration::from_mins(1);

/// See the module. Shared by everything that sends.
pub(crate) struct Pace {
    buckets: Mutex<[Bucket; 2]>,
}

/// May be in debt: who took too much makes the next wait.
struct Bucket {
    per_second: Option<f64>,
    level: f64,
    at: Instant,
}

impl Pace {
    pub(crate) fn new(limit: RateLimit) -> Self {
        let now = Instant::now();
        let bucket = |per_second: Option<u64>| {
            let per_second = per_second.map(|rate| rate.max(1) as f64);
            Bucket { per_second, level: per_second.unwrap_or_default(), at: now }
        };
        Self { buckets: Mutex::new([bucket(limit.requests), bucket(limit.bytes)]) }
    }

    /// Takes one request of that many bytes, and says how long to wait before it is sent.
    pub(crate) fn take(&self, bytes: usize) -> Duration {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let [requests, volume] = &mut *buckets;
        requests.take(1.0, now).max(volume.take(bytes as f64, now)).min(LONGEST)
    }
}

impl Bucket {
    fn take(&mut self, amount: f64, now: Instant) -> Duration {
        let Some(per_second) = self.per_second else { return Duration::ZERO };
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        self.level = (self.level + gained).min(per_second) - amount;
        self.at = now;
        Duration::try_from_secs_f64(-self.level / per_second).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::Pace;
    use crate::settings::RateLimit;

    #[tokio::test(start_paused = true)]
    async fn requests_and_bytes_each_bound_the_pace() {
        for (limit, bytes) in [
            (RateLimit { requests: Some(10), bytes: None }, 1),
            (RateLimit { requests: None, bytes: Some(1000) }, 100),
        ] {
            let pace = Pace::new(limit);
            let begun = Instant::now();
            for _ in 0..50 {
                sleep(pace.take(bytes)).await;
            }
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(3900) && took < Duration::from_secs(6), "{took:?}");
        }
        let free = Pace::new(RateLimit::default());
        assert_eq!(free.take(usize::MAX), Duration::ZERO);
    }
}
