//! What a server threw away of requests that it took. Its next answer may be a good one, so that is told for a while.
//!
//! Its words may quote what it was sent: they stand in the exporter's state, where they are looked for, and not in the log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// How long it is told.
const TOLD: Duration = Duration::from_mins(5);
/// It is logged at most this often; the metric counts all of it.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct ThrownAway(Mutex<Option<Noted>>);

struct Noted {
    at: Instant,
    text: String,
    logged_at: Instant,
    unlogged: u64,
}

impl ThrownAway {
    /// So many items of a signal, with the server's own words.
    pub(super) fn note(&self, signal: &str, count: u64, words: String) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = noted.take().map(|noted| (noted.logged_at, noted.unlogged));
        let (logged_at, unlogged) = match before {
            Some((logged_at, unlogged)) if now.saturating_duration_since(logged_at) < PAUSE => {
                (logged_at, unlogged + count)
            }
            before => {
                let rejected = count + before.map_or(0, |(_, unlogged)| unlogged);
                warn!(signal, rejected, "otlp: the server does not keep all that it takes");
                (now, 0)
            }
        };
        let words = if words.is_empty() { "it does not say why".into() } else { words };
        let text = format!("{signal}: the server threw {count} away: {words}");
        *noted = Some(Noted { at: now, text, logged_at, unlogged });
    }

    /// What there is to tell.
    pub(super) fn told(&self) -> Option<String> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.as_ref().filter(|noted| noted.at.elapsed() < TOLD).map(|noted| noted.text.clone())
    }
}
