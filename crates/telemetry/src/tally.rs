//! What happened to one exporter's records, counted: in its status and in the gateway's metrics alike.
//!
//! Lane, worker and spool count here, so that a record's end is counted wherever it comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::{DropReason, Event, GatewayMetrics};

/// One exporter's counters.
pub(crate) struct Tally {
    name: String,
    metrics: Arc<GatewayMetrics>,
    received: AtomicU64,
    sent: AtomicU64,
    retried: AtomicU64,
    rejected: AtomicU64,
    ambiguous: AtomicU64,
    spooled: AtomicU64,
    filtered: AtomicU64,
    sampled_out: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

/// The counters at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) retried: u64,
    pub(crate) rejected: u64,
    pub(crate) ambiguous: u64,
    pub(crate) spooled: u64,
    pub(crate) filtered: u64,
    pub(crate) sampled_out: u64,
    /// Reasons that have occurred.
    pub(crate) dropped: Vec<(&'static str, u64)>,
}

impl Tally {
    pub(crate) fn new(name: &str, metrics: &Arc<GatewayMetrics>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            metrics: metrics.clone(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            ambiguous: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
            sampled_out: AtomicU64::new(0),
            dropped: Default::default(),
        })
    }

    /// The exporter's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Records that the exporter is given.
    pub(crate) fn receive(&self, records: u64) {
        self.received.fetch_add(records, Ordering::Relaxed);
    }

    /// Counts records. What is counted as sent, rejected or dropped must have left queue and spool.
    pub(crate) fn count(&self, event: Event, records: usize) {
        if records == 0 {
            return;
        }
        let records = records as u64;
        let counter = match event {
            Event::Sent => Some(&self.sent),
            Event::Retried => Some(&self.retried),
            Event::Rejected => Some(&self.rejected),
            Event::Ambiguous => Some(&self.ambiguous),
            Event::Spooled => Some(&self.spooled),
            Event::Filtered => Some(&self.filtered),
            Event::SampledOut => Some(&self.sampled_out),
            Event::Dropped(reason) => self.dropped.get(reason as usize),
            Event::Panicked | Event::DeadLettered => None,
        };
        if let Some(counter) = counter {
            counter.fetch_add(records, Ordering::Relaxed);
        }
        self.metrics.exporter_event(&self.name, event, records);
    }

    pub(crate) fn counted(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let reasons = DropReason::ALL.iter().zip(&self.dropped);
        Counted {
            received: read(&self.received),
            sent: read(&self.sent),
            retried: read(&self.retried),
            rejected: read(&self.rejected),
            ambiguous: read(&self.ambiguous),
            spooled: read(&self.spooled),
            filtered: read(&self.filtered),
            sampled_out: read(&self.sampled_out),
            dropped: reasons
                .map(|(reason, counter)| (reason.as_str(), read(counter)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}
