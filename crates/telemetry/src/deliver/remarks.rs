//! What the log says of single records that a back end will never take, or puts off.

use std::time::Duration;

use tokio::time::Instant;

use crate::lane::Lane;

/// The same is logged at most this often.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Remarks {
    rejected: Remark,
    put_off: Remark,
}

/// Said now and then.
#[derive(Default)]
struct Remark {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Remarks {
    /// Why a record is rejected.
    pub(super) fn rejected(&mut self, lane: &Lane, reason: &str) {
        if let Some(more) = self.rejected.due() {
            let (exporter, reason) = (lane.name.as_str(), &*lane.redacted(reason));
            tracing::warn!(exporter, reason, more, "exporter: record rejected");
            lane.note(reason);
        }
    }

    /// Why some of a batch are sent again.
    pub(super) fn put_off(&mut self, lane: &Lane, records: usize, reason: &str) {
        if let Some(more) = self.put_off.due() {
            let (exporter, reason) = (lane.name.as_str(), &*lane.redacted(reason));
            tracing::warn!(exporter, records, reason, more, "exporter: some records are put off");
            lane.note(reason);
        }
    }
}

impl Remark {
    /// How many of them were not said since the last, if this one is to be.
    fn due(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.said_at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}
