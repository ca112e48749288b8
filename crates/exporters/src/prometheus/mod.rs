//! Serves the gateway's metrics as the page that Prometheus scrapes.
//!
//! **When to use it**: wherever Prometheus, VictoriaMetrics or an agent that speaks their format collects metrics.
//! It takes no records: figures are counted once per request, before any filter or sample.
//!
//! **Guarantee**: the page is what was counted at that moment since the process began. Nothing is queued, so nothing
//! can be lost or doubled. Two metrics whose names would be the same here are not both shown: the second is left out
//! and named in the log, since one doubled name makes a scraper refuse the whole page.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use magicapi_plugin::{
    ConfigError, Delivery, Host, MetricsSnapshot, RequestMetrics, ScrapePage, Settings, SettingsSpec,
    Signals, TelemetryExporter, TelemetryPlugin, async_trait,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tracing::warn;

use self::accept::Format;

mod accept;
mod encode;
mod names;
mod protobuf;
#[cfg(test)]
mod tests;

/// The plug-in `prometheus`.
pub struct PrometheusPlugin;

magicapi_plugin::register!(PrometheusPlugin);

/// Settings of the exporter `prometheus`: it has none. Where the page is served is the gateway's setting.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusSettings {}

impl TelemetryPlugin for PrometheusPlugin {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<PrometheusSettings>().without_http().signals(Signals::SCRAPE)
    }

    fn create_exporter(
        &self,
        settings: Settings,
        _: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let PrometheusSettings {} = settings.read()?;
        Ok(Box::new(PrometheusExporter::default()))
    }
}

#[derive(Default)]
struct PrometheusExporter {
    /// Metrics that the log has been told are left out: once each, not once per scrape.
    reported: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl TelemetryExporter for PrometheusExporter {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    async fn export(&self, _: &[Arc<RequestMetrics>]) -> Delivery {
        Delivery::Delivered
    }

    fn scrape(&self, snapshot: &MetricsSnapshot, accept: &str) -> Option<ScrapePage> {
        let format = accept::negotiate(accept);
        let (families, left_out) = names::families(snapshot, format);
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        for name in left_out {
            if reported.insert(name.clone()) {
                warn!("prometheus: metric {name} is left out: its name or a label's is taken by another");
            }
        }
        drop(reported);
        let content_type = match format {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::Protobuf => {
                return Some(ScrapePage::new(protobuf::CONTENT_TYPE, protobuf::page(&families)));
            }
        };
        encode::page(families, format).map(|body| ScrapePage::new(content_type, body))
    }
}
