//! Sends records to Datadog as logs, and the gateway's metrics as its series and distributions.
//!
//! **When to use it**: to search requests in Datadog's Log Explorer and to chart and alert on the gateway beside
//! everything else that is watched there.
//!
//! **Guarantee**: at least once. Datadog has no key by which it would know a log again, so a batch whose answer was
//! lost may be there twice; the record's id (`@id`) tells. What Datadog would cut or drop in silence (a log over 1 MB,
//! one older than 18 hours) is cut here and says so, or is rejected.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, MetricsSnapshot, RequestMetrics, Settings,
    SettingsSpec, Signals, TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};

pub use self::config::DatadogSettings;
use self::config::Target;
use crate::deltas::{Added, Deltas};
use crate::health::worst_of;

mod client;
mod config;
mod encode;
mod metrics;
#[cfg(test)]
mod tests;

/// The plug-in `datadog`.
pub struct DatadogPlugin;

magicapi_plugin::register!(DatadogPlugin);

impl TelemetryPlugin for DatadogPlugin {
    fn name(&self) -> &'static str {
        "datadog"
    }

    fn settings(&self) -> SettingsSpec {
        // An hour less than Datadog's window, for what is on its way.
        let spec = SettingsSpec::of::<DatadogSettings>().max_age(Duration::from_hours(17));
        spec.signals(Signals::RECORDS | Signals::METRICS)
    }

    fn create_exporter(
        &self,
        settings: Settings,
        host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let target = settings.read::<DatadogSettings>()?.validate(host.http())?;
        let deltas = Mutex::new(Deltas::new(SystemTime::now()));
        Ok(Box::new(DatadogExporter { target, deltas, tags: OnceLock::new() }))
    }
}

struct DatadogExporter {
    target: Target,
    deltas: Mutex<Deltas>,
    /// The tags of every metric, once `init` knows the gateway's names.
    tags: OnceLock<Vec<String>>,
}

impl DatadogExporter {
    fn deltas(&self) -> std::sync::MutexGuard<'_, Deltas> {
        self.deltas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TelemetryExporter for DatadogExporter {
    fn name(&self) -> &'static str {
        "datadog"
    }

    async fn init(&self, config: &TelemetryConfig) -> Result<(), ExportError> {
        self.tags.get_or_init(|| metrics::tags(config, &self.target.tags));
        let checked = client::check_key(&self.target).await;
        let state = checked.as_ref().map_or_else(|e| Health::Down(e.to_string()), Clone::clone);
        self.target.logs.health.set(state);
        checked.map(|_| ())
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let now = SystemTime::now();
        let entries = batch.iter().map(|record| encode::log(record, &self.target, now)).collect();
        self.target.logs.export(batch, entries).await
    }

    fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        self.target.logs.cut_off(batch)
    }

    async fn export_metrics(&self, snapshot: &MetricsSnapshot) -> Delivery {
        if !self.target.metrics {
            return Delivery::Delivered;
        }
        let tags = self.tags.get().map_or(&[][..], Vec::as_slice);
        let changes = self.deltas().since(snapshot);
        let (distributions, series): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| matches!(change.added, Added::Values(_)));
        let mut worst = Delivery::Delivered;
        for (intake, changes) in [(&self.target.series, series), (&self.target.distributions, distributions)]
        {
            let encode = |change| metrics::encode(change, &self.target, tags, snapshot.taken_at);
            let entries = changes.iter().map(|change| Ok(encode(change))).collect();
            let receipts = changes.into_iter().map(|change| change.receipt).collect();
            let delivery = intake.deliver(entries).await;
            self.deltas().settle(receipts, &delivery, snapshot.taken_at);
            if delivery != Delivery::Delivered {
                worst = delivery;
            }
        }
        worst
    }

    async fn health(&self) -> Health {
        let logs = self.target.logs.health.get();
        let metrics = [&self.target.series, &self.target.distributions].map(|intake| intake.health.get());
        let all = std::iter::once(logs).chain(metrics.into_iter().filter(|_| self.target.metrics));
        worst_of(all)
    }
}
