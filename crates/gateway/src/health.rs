//! What the gateway tells the admin plane of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use magicapi_admin::{DataPlaneFacts, HealthFacts, HealthSource, LedgerFacts, StoreFacts};
use magicapi_config::{Config, OnFull};
use magicapi_kernel::RequestLogReader;
use magicapi_plugin::MetricRegistry;
use magicapi_server::{Phase, Shared};
use magicapi_store::Store;

use crate::reload::Reloader;

/// The facts' sources.
pub(crate) struct Health {
    shared: Arc<Shared>,
    store: Option<Arc<Store>>,
    reloader: Arc<Reloader>,
    degraded: Vec<String>,
    started_at: SystemTime,
}

impl Health {
    /// `degraded`: what was already wrong at the start.
    pub(crate) fn new(
        shared: Arc<Shared>,
        store: Option<Arc<Store>>,
        reloader: Arc<Reloader>,
        degraded: Vec<String>,
    ) -> Self {
        Self { shared, store, reloader, degraded, started_at: SystemTime::now() }
    }

    fn ledger(&self, config: &Config) -> Option<LedgerFacts> {
        let status = self.store.as_ref()?.status().ledger;
        Some(LedgerFacts {
            ready: status.ready,
            queued: status.queued,
            queued_bytes: status.queued_bytes,
            written: status.written,
            missing: status.missing,
            on_full: match config.ledger.on_full {
                OnFull::Refuse => "refuse",
                OnFull::Count => "count",
            },
        })
    }
}

impl HealthSource for Health {
    fn snapshot(&self) -> HealthFacts {
        let counts = &self.shared.counts;
        let snapshot = self.shared.snapshot();
        HealthFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at,
            config_hash: self.reloader.hash(),
            phase: match self.shared.phase() {
                Phase::Serving => "serving",
                Phase::Draining => "draining",
                Phase::Cutting => "cutting",
            }
            .into(),
            data_plane: DataPlaneFacts {
                in_flight: counts.in_flight.load(Ordering::Relaxed),
                connections: counts.connections.load(Ordering::Relaxed),
                connections_refused: counts.connections_refused.load(Ordering::Relaxed),
                held_bytes: counts.held_bytes.load(Ordering::Relaxed) as u64,
            },
            store: self.store.as_deref().map(store_facts),
            ledger: self.ledger(&snapshot.config),
            journals: crate::journals::facts(&self.shared, self.store.as_deref()),
            providers: snapshot
                .slots()
                .iter()
                .filter(|slot| slot.configured)
                .map(|slot| slot.name.clone())
                .collect(),
            degraded: self.degraded.clone(),
        }
    }
}

fn store_facts(store: &Store) -> StoreFacts {
    let status = store.status();
    StoreFacts {
        file_bytes: status.file_bytes,
        storage_failed: status.storage_failed,
        last_error: status.last_error,
        log_queued_bytes: status.request_log.queued_bytes,
        log_written: status.request_log.written,
        log_deleted: status.request_log.deleted,
    }
}

/// The request log as the admin plane reads it.
pub(crate) fn log_reader(store: &Arc<Store>) -> Arc<dyn RequestLogReader> {
    store.clone()
}

/// What the admin plane's `Host` may be besides loopback literals.
pub(crate) fn admin_hosts(config: &Config) -> Vec<String> {
    let addresses = config.admin.listen.addresses.iter().map(|address| address.ip().to_string());
    addresses.chain(config.admin.hosts.iter().cloned()).collect()
}

/// Shows the data plane's counts among the metrics: each bound has one (invariant 9).
pub(crate) fn observe(registry: &Arc<MetricRegistry>, shared: &Arc<Shared>) {
    let meter = registry.meter("gateway");
    let connections = meter.u64_gauge("connections").with_description("Open connections").build();
    let refused = meter
        .u64_counter("connections_refused")
        .with_description("Connections turned away: over the limit, or out of file descriptors")
        .build();
    let held = meter
        .u64_gauge("held_bytes")
        .with_unit("By")
        .with_description("Bodies of requests and answers that are held in memory")
        .build();
    // Weak: the registry is part of what `shared` holds.
    let (shared, counted) = (Arc::downgrade(shared), AtomicU64::new(0));
    registry.observe(move || {
        let Some(shared) = shared.upgrade() else { return };
        let now = shared.counts.connections_refused.load(Ordering::Relaxed);
        refused.add(now.saturating_sub(counted.swap(now, Ordering::Relaxed)), &[]);
        connections.record(shared.counts.connections.load(Ordering::Relaxed), &[]);
        held.record(shared.counts.held_bytes.load(Ordering::Relaxed) as u64, &[]);
    });
}

#[cfg(test)]
mod tests;
