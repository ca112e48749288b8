//! Sends records to New Relic as logs, through its Log API.
//!
//! **When to use it**: to search requests in New Relic's Logs and to chart them with NRQL. Metrics and traces go there
//! over OTLP.
//!
//! **Guarantee**: at least once up to the API's 202. New Relic has no key by which it would know a log again, so a
//! batch whose answer was lost may be there twice; the attribute `id` tells. It checks payloads only after it has said
//! 202; what it would cut or drop then (long texts, logs older than 48 hours) is cut here and says so, or is rejected.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, RequestMetrics, Settings, SettingsSpec,
    TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};

pub use self::config::NewRelicSettings;
pub(crate) use self::config::account;
use crate::requests::Intake;

mod client;
mod config;
mod encode;
#[cfg(test)]
mod tests;

/// The plug-in `newrelic`.
pub struct NewRelicPlugin;

magicapi_plugin::register!(NewRelicPlugin);

impl TelemetryPlugin for NewRelicPlugin {
    fn name(&self) -> &'static str {
        "newrelic"
    }

    fn settings(&self) -> SettingsSpec {
        // An hour less than New Relic's window, for what is on its way.
        SettingsSpec::of::<NewRelicSettings>().max_age(Duration::from_hours(47))
    }

    fn create_exporter(
        &self,
        settings: Settings,
        host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let intake = settings.read::<NewRelicSettings>()?.validate(host.http())?;
        Ok(Box::new(NewRelicExporter { intake }))
    }
}

struct NewRelicExporter {
    intake: Intake,
}

#[async_trait]
impl TelemetryExporter for NewRelicExporter {
    fn name(&self) -> &'static str {
        "newrelic"
    }

    /// There is nothing to ask: an ingest key opens nothing but the intake, and that is asked by sending.
    async fn init(&self, _: &TelemetryConfig) -> Result<(), ExportError> {
        let said = "New Relic has no call that checks a license key; nothing sent yet";
        self.intake.health.set(Health::Degraded(said.into()));
        Ok(())
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let now = SystemTime::now();
        let entries = batch.iter().map(|record| encode::log(record, now)).collect();
        self.intake.export(batch, entries).await
    }

    fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        self.intake.cut_off(batch)
    }

    async fn health(&self) -> Health {
        self.intake.health.get()
    }
}
