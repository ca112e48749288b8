//! Sends records as spans and log events, and the gateway's metrics, over OTLP: HTTP with protobuf, or gRPC.
//!
//! **When to use it**: for an OpenTelemetry Collector and everything else that speaks its protocol. Spans, events and
//! metrics are named as the semantic conventions for generative AI have it.
//!
//! **Guarantee**: at least once. OTLP has no key by which a back end would know a span again; a span's ids follow from
//! the record's, so a batch that is sent twice is the same spans twice. What a server takes in part it does not name;
//! that is counted, and not sent again, as the specification says.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, ItemOutcome, MetricsSnapshot, Needs, RequestMetrics,
    Settings, SettingsSpec, Signals, TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};

use self::client::{Item, Wire};
pub use self::config::OtlpSettings;
use self::config::Signal;
use self::half_sent::HalfSent;
use self::metrics::Reader;
use self::target::Target;
use crate::health::worst_of;

mod attributes;
mod client;
mod config;
mod envelope;
mod grpc;
mod half_sent;
mod messages;
mod metrics;
mod preset;
mod records;
mod target;
#[cfg(test)]
mod tests;
mod thrown_away;

/// The plug-in `otlp`.
pub struct OtlpPlugin;

magicapi_plugin::register!(OtlpPlugin);

impl TelemetryPlugin for OtlpPlugin {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<OtlpSettings>()
            .signals(Signals::RECORDS | Signals::METRICS)
            .needs(Needs::CONVERSATION)
            .tls_variables(config::TLS)
    }

    fn create_exporter(
        &self,
        settings: Settings,
        host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let target = preset::fill(settings)?.read::<OtlpSettings>()?.validate(&host)?;
        let metrics = Mutex::new(Reader::new(target.temporality, SystemTime::now()));
        Ok(Box::new(OtlpExporter {
            target,
            metrics,
            resource: OnceLock::new(),
            half_sent: HalfSent::default(),
        }))
    }
}

struct OtlpExporter {
    target: Target,
    metrics: Mutex<Reader>,
    /// Of the gateway's metrics.
    resource: OnceLock<TelemetryConfig>,
    half_sent: HalfSent,
}

#[async_trait]
impl TelemetryExporter for OtlpExporter {
    fn name(&self) -> &'static str {
        "otlp"
    }

    /// Asks with empty requests, which a server answers as it answers others.
    async fn init(&self, config: &TelemetryConfig) -> Result<(), ExportError> {
        self.resource.get_or_init(|| config.clone());
        for wire in self.target.wires.values() {
            wire.probe().await?;
        }
        Ok(())
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let mut known = self.half_sent.begin(batch);
        let mut after = None;
        for (signal, wire) in self.of_records() {
            let encode = |(index, record): (usize, &Arc<RequestMetrics>)| {
                (!known.is_settled(index, signal)).then(|| records::encode(record, signal, &self.target))
            };
            let items: Vec<Option<Item>> = batch.iter().enumerate().map(encode).collect();
            let sent = |index: usize| items.get(index).is_some_and(Option::is_some);
            match wire.export(batch, &items).await {
                Delivery::Delivered => {
                    for index in (0..batch.len()).filter(|index| sent(*index)) {
                        known.note(index, signal, ItemOutcome::Delivered);
                    }
                }
                Delivery::Items(outcomes) => {
                    after = after.max(outcomes.iter().filter_map(ItemOutcome::after).max());
                    for (index, outcome) in outcomes.into_iter().enumerate().filter(|(index, _)| sent(*index))
                    {
                        known.note(index, signal, outcome);
                    }
                }
                // It comes again at the next try, which has less to say.
                failure if failure != Delivery::Unknown && known.has_unclear() => {
                    if let Delivery::Retry { after: asked } = failure {
                        after = after.max(asked);
                    }
                    break;
                }
                failure => return known.end_with(failure),
            }
        }
        known.end(&self.signals(), after)
    }

    /// Each signal knows what became of its part.
    fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let mut known = self.half_sent.left_by(batch);
        for (signal, wire) in self.of_records() {
            for (index, outcome) in wire.untold.tell(batch).into_iter().enumerate() {
                if !known.is_settled(index, signal) {
                    known.note(index, signal, outcome);
                }
            }
        }
        known.end(&self.signals(), None)
    }

    async fn export_metrics(&self, snapshot: &MetricsSnapshot) -> Delivery {
        let Some(wire) = self.target.wires.get(&Signal::Metrics) else { return Delivery::Delivered };
        let (names, read) = {
            let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
            (self.resource.get().cloned().unwrap_or_default(), metrics.read(snapshot))
        };
        let items: Vec<_> = read.encoded().into_iter().map(Some).collect();
        if items.is_empty() {
            return Delivery::Delivered;
        }
        let delivery = wire.deliver(&items, &vec![&names; items.len()]).await;
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner).settle(read, &delivery);
        delivery
    }

    /// The worst of the signals; what a server threw away is told when there is nothing worse.
    async fn health(&self) -> Health {
        let all = self.target.wires.values().map(|wire| wire.health.get());
        match worst_of(all) {
            Health::Ok => {
                let told = self.target.wires.values().find_map(|wire| wire.thrown_away.told());
                told.map_or(Health::Ok, Health::Degraded)
            }
            other => other,
        }
    }
}

impl OtlpExporter {
    /// The signals that records are sent under, in order, and their ways.
    fn of_records(&self) -> impl Iterator<Item = (Signal, &Wire)> {
        let ways = &self.target.wires;
        [Signal::Traces, Signal::Logs].into_iter().filter_map(|signal| Some((signal, ways.get(&signal)?)))
    }

    fn signals(&self) -> Vec<Signal> {
        self.of_records().map(|(signal, _)| signal).collect()
    }
}
