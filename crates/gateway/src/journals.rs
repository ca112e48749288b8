//! The journals of records and of the ledger, as health and metrics show them (invariant 9: each bound has a metric).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use magicapi_admin::JournalFacts;
use magicapi_plugin::{Counter, Gauge, Meter, MetricRegistry};
use magicapi_server::Shared;
use magicapi_store::Store;

/// Every journal that there is.
pub(crate) fn facts(shared: &Shared, store: Option<&Store>) -> Vec<JournalFacts> {
    let millis = |age: std::time::Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let records = shared.telemetry.journal().map(|status| JournalFacts {
        name: "telemetry",
        bytes: status.bytes,
        limit: status.limit,
        entries: status.records,
        oldest_age_ms: status.oldest_age.map(millis),
        unwritten: status.unwritten,
        recovered: status.recovered,
        killed: status.killed,
        error: status.error,
    });
    let rows = store.and_then(|store| store.status().journal).map(|status| JournalFacts {
        name: "ledger",
        bytes: status.bytes,
        limit: status.limit,
        entries: status.entries,
        oldest_age_ms: status.oldest_age.map(millis),
        unwritten: status.unwritten,
        recovered: status.recovered,
        killed: 0,
        error: status.error,
    });
    records.into_iter().chain(rows).collect()
}

/// Shows them among the metrics.
pub(crate) fn observe(registry: &Arc<MetricRegistry>, shared: &Arc<Shared>, store: Option<&Arc<Store>>) {
    let meters = Meters::new(&registry.meter("gateway"));
    // Weak: the registry is part of what `shared` holds.
    let (shared, store) = (Arc::downgrade(shared), store.map(Arc::downgrade));
    registry.observe(move || {
        let Some(shared) = shared.upgrade() else { return };
        let store = store.as_ref().and_then(Weak::upgrade);
        for journal in facts(&shared, store.as_deref()) {
            meters.show(&journal);
        }
    });
}

struct Meters {
    bytes: Gauge<u64>,
    limit: Gauge<u64>,
    entries: Gauge<u64>,
    oldest: Gauge<u64>,
    failing: Gauge<u64>,
    /// Counters and what they have counted: of records, of the ledger.
    unwritten: (Counter<u64>, [AtomicU64; 2]),
    recovered: (Counter<u64>, [AtomicU64; 2]),
}

impl Meters {
    fn new(meter: &Meter) -> Self {
        let gauge = |name: &str, unit: &str, text: &str| {
            meter.u64_gauge(name).with_unit(unit).with_labels(&["journal"]).with_description(text).build()
        };
        let counter = |name: &str, text: &str| {
            let counter = meter
                .u64_counter(name)
                .with_unit("{entry}")
                .with_labels(&["journal"])
                .with_description(text)
                .build();
            (counter, [AtomicU64::new(0), AtomicU64::new(0)])
        };
        Self {
            bytes: gauge("journal_bytes", "By", "Size of the journal's files"),
            limit: gauge("journal_limit_bytes", "By", "What they may take"),
            entries: gauge("journal_entries", "{entry}", "Entries that are not done with"),
            oldest: gauge("journal_oldest_age_seconds", "s", "How old the oldest of them is"),
            failing: gauge("journal_failing", "", "1 while it cannot be written"),
            unwritten: counter("journal_unwritten", "Entries that went on without it"),
            recovered: counter("journal_recovered", "Entries of an earlier process that were taken up again"),
        }
    }

    fn show(&self, journal: &JournalFacts) {
        let label = [("journal", journal.name)];
        self.bytes.record(journal.bytes, &label);
        self.limit.record(journal.limit, &label);
        self.entries.record(journal.entries, &label);
        self.oldest.record(journal.oldest_age_ms.unwrap_or(0) / 1000, &label);
        self.failing.record(u64::from(journal.error.is_some()), &label);
        let place = usize::from(journal.name == "ledger");
        for ((counter, counted), now) in
            [(&self.unwritten, journal.unwritten), (&self.recovered, journal.recovered + journal.killed)]
        {
            if let Some(counted) = counted.get(place) {
                counter.add(now.saturating_sub(counted.swap(now, Ordering::Relaxed)), &label);
            }
        }
    }
}
