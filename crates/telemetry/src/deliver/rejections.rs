//! What the log says of records that a back end will never take.

use std::time::Duration;

use tokio::time::Instant;

use crate::lane::Lane;

/// Rejections are logged at most this often.
const REJECTION_LOG: Duration = Duration::from_secs(10);

/// Says why records are rejected, now and then.
#[derive(Default)]
pub(super) struct Rejections {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Rejections {
    pub(super) fn say(&mut self, lane: &Lane, reason: &str) {
        let now = Instant::now();
        if self.said_at.is_some_and(|at| now.saturating_duration_since(at) < REJECTION_LOG) {
            self.unsaid += 1;
            return;
        }
        let (exporter, reason) = (lane.name.as_str(), &*lane.redacted(reason));
        tracing::warn!(exporter, reason, more = self.unsaid, "exporter: record rejected");
        lane.note(reason);
        (self.said_at, self.unsaid) = (Some(now), 0);
    }
}
