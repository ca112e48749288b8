//! Pace of one exporter: requests and bytes per second, as token buckets that hold one second's worth, and no request
//! before the delay is over that the back end asked for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::LONGEST_ASKED;
use crate::settings::RateLimit;

/// See the module. Shared by everything that sends.
pub(crate) struct Pace {
    state: Mutex<State>,
}

struct State {
    requests: Bucket,
    bytes: Bucket,
    /// The end of the back end's own delay.
    not_before: Option<Instant>,
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
        let (requests, bytes) = (bucket(limit.requests), bucket(limit.bytes));
        Self { state: Mutex::new(State { requests, bytes, not_before: None }) }
    }

    /// Takes one request of that many bytes, and says how long to wait before it is sent.
    pub(crate) fn take(&self, bytes: usize) -> Duration {
        let mut state = self.lock();
        let now = Instant::now();
        state.requests.take(1.0, now).max(state.bytes.take(bytes as f64, now))
    }

    /// What is left of the back end's own delay.
    pub(crate) fn held(&self) -> Duration {
        let until = self.lock().not_before;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// The back end asked for this delay: it holds for every batch, not for the one alone that was answered so.
    pub(crate) fn hold(&self, asked: Duration) {
        let until = Instant::now() + asked.min(LONGEST_ASKED);
        let mut state = self.lock();
        state.not_before = state.not_before.max(Some(until));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        let slow = Pace::new(RateLimit { requests: None, bytes: Some(1000) });
        assert_eq!(slow.take(601_000), Duration::from_mins(10), "a batch pays all that it owes");
        let free = Pace::new(RateLimit::default());
        assert_eq!(free.take(usize::MAX), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_back_ends_delay_holds_for_all_and_is_capped() {
        let pace = Pace::new(RateLimit::default());
        pace.hold(Duration::from_secs(90));
        pace.hold(Duration::from_secs(7));
        sleep(Duration::from_secs(30)).await;
        assert_eq!((pace.held(), pace.take(1)), (Duration::from_mins(1), Duration::ZERO));
        sleep(Duration::from_mins(1)).await;
        assert_eq!(pace.held(), Duration::ZERO);
        pace.hold(Duration::from_hours(9));
        assert_eq!(pace.held(), Duration::from_mins(5));
    }
}
