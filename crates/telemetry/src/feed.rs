//! Where a worker's next batch comes from: the queue and the spool in turn, so that what is new and what has waited both
//! arrive.
//!
//! While the breaker is open, batches of the queue are taken only to be moved to the spool; when a probe is due, it is
//! whichever file's turn it is.

use std::sync::Arc;

use tokio::time::Instant;

use crate::deliver::{Batch, Deliverer};
use crate::lane::{ExporterState, Lane};
use crate::memory::Budget;
use crate::stop::StopSignal;

/// One of a worker's slots: one export at a time.
pub(crate) struct Feed {
    lane: Arc<Lane>,
    budget: Arc<Budget>,
    stop: StopSignal,
    /// The last batch was fresh, so it is the spool's turn.
    spool_next: bool,
}

impl Feed {
    pub(crate) fn new(lane: Arc<Lane>, budget: Arc<Budget>, stop: StopSignal) -> Self {
        Self { lane, budget, stop, spool_next: true }
    }

    /// Delivers until the order to end, then what the queue holds until the deadline. What is on disk stays there.
    pub(crate) async fn run(mut self, mut deliverer: Deliverer) {
        let mut stop = self.stop.clone();
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.ordered() => break,
                batch = self.next() => batch,
            };
            if !deliverer.deliver(batch).await {
                return;
            }
        }
        self.lane.enter(ExporterState::Draining, None);
        loop {
            let items = self.lane.queue.take();
            let batch = if items.is_empty() {
                // What no disk takes has this way out alone.
                let unwritten = self.lane.spool.as_ref().and_then(|spool| spool.take_unwritten());
                unwritten.map(|(origin, items)| Batch { origin: Some(origin), items })
            } else {
                Some(Batch { origin: None, items })
            };
            let Some(batch) = batch else { return };
            if !deliverer.deliver(batch).await {
                return;
            }
        }
    }

    async fn next(&mut self) -> Batch {
        loop {
            let held = self.lane.breaker.holds_until();
            if held.is_none()
                && let Some(batch) = self.ready()
            {
                return batch;
            }
            let lane = &self.lane;
            let arrived = async {
                match &lane.spool {
                    Some(spool) if held.is_none() => spool.arrived().await,
                    _ => std::future::pending().await,
                }
            };
            let probe_due = async {
                match held {
                    Some(until) => tokio::time::sleep_until(until.max(Instant::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                items = lane.queue.next() => {
                    self.spool_next = true;
                    return Batch { origin: None, items };
                }
                () = arrived => {}
                () = probe_due => {}
                () = lane.breaker.changed() => {}
            }
        }
    }

    /// A batch that is there now, of spool and queue in turn.
    fn ready(&mut self) -> Option<Batch> {
        if !self.spool_next {
            let items = self.lane.queue.take_ready();
            if !items.is_empty() {
                self.spool_next = true;
                return Some(Batch { origin: None, items });
            }
        }
        let (origin, items) =
            self.lane.spool.as_ref()?.take(&self.budget, &|record| self.lane.complete(record))?;
        self.spool_next = false;
        Some(Batch { origin: Some(origin), items })
    }
}

#[cfg(test)]
mod tests;
