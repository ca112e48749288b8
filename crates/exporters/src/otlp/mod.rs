//! Sends records as spans and log events, and the gateway's metrics, over OTLP: HTTP with protobuf, or gRPC.
//!
//! **When to use it**: for an OpenTelemetry Collector and everything else that speaks its protocol. Spans, events and
//! metrics are named as the semantic conventions for generative AI have it.
//!
//! **Guarantee**: at least once. OTLP has no key by which a back end would know a span again; a span's ids follow from
//! the record's, so a batch that is sent twice is the same spans twice. What a server takes in part it does not name;
//! that is counted, and not sent again, as the specification says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, ItemOutcome, MetricsSnapshot, Needs, RequestId,
    RequestMetrics, Settings, SettingsSpec, Signals, TelemetryConfig, TelemetryExporter, TelemetryPlugin,
    async_trait,
};

use self::client::Item;
pub use self::config::OtlpSettings;
use self::config::Signal;
use self::metrics::Reader;
use self::target::Target;

mod attributes;
mod client;
mod config;
mod envelope;
mod grpc;
mod messages;
mod metrics;
mod preset;
mod records;
mod target;
#[cfg(test)]
mod tests;

/// Records of which one signal is settled and another is not, at most; and those of which one is unclear.
const HALF_SENT: usize = 20_000;

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
            half_sent: Mutex::default(),
            unclear: Mutex::default(),
        }))
    }
}

struct OtlpExporter {
    target: Target,
    metrics: Mutex<Reader>,
    /// Of the gateway's metrics.
    resource: OnceLock<TelemetryConfig>,
    /// What became of records under one signal, until it is known under every other.
    half_sent: Mutex<BTreeMap<(RequestId, Signal), ItemOutcome>>,
    /// Records under way of which one signal's answer is missing, for an export that is cut off under the next.
    unclear: Mutex<BTreeSet<RequestId>>,
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
        let mut after = None;
        for signal in [Signal::Traces, Signal::Logs] {
            let Some(wire) = self.target.wires.get(&signal) else { continue };
            let items: Vec<Option<Item>> = batch
                .iter()
                .map(|record| {
                    let known = self.half_sent().contains_key(&(record.id(), signal));
                    (!known).then(|| records::encode(record, signal, &self.target))
                })
                .collect();
            match wire.export(batch, &items).await {
                Delivery::Delivered => self.remember(batch, signal, &items, |_| ItemOutcome::Delivered),
                Delivery::Items(outcomes) => {
                    after = after.max(outcomes.iter().filter_map(ItemOutcome::after).max());
                    self.remember(batch, signal, &items, |index| {
                        outcomes.get(index).cloned().unwrap_or(ItemOutcome::Retry)
                    });
                    self.note_unclear(batch, &outcomes);
                }
                failure => {
                    let unclear = self.take_unclear(batch);
                    if failure == Delivery::Unknown || unclear.is_empty() {
                        return failure;
                    }
                    // It comes again at the next try, which has less to say.
                    if let Delivery::Retry { after: asked } = failure {
                        after = after.max(asked);
                    }
                    return self.verdict(batch, &unclear, after);
                }
            }
        }
        self.verdict(batch, &self.take_unclear(batch), after)
    }

    /// Each signal knows what became of its part.
    fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let mut unclear = self.take_unclear(batch);
        for signal in [Signal::Traces, Signal::Logs] {
            let Some(wire) = self.target.wires.get(&signal) else { continue };
            for (record, outcome) in batch.iter().zip(wire.untold.tell(batch)) {
                if outcome == ItemOutcome::Unknown {
                    unclear.insert(record.id());
                } else if outcome.is_settled() {
                    self.half_sent().entry((record.id(), signal)).or_insert(outcome);
                }
            }
        }
        self.verdict(batch, &unclear, None)
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

    async fn health(&self) -> Health {
        let all = self.target.wires.values().map(|wire| wire.health.get());
        all.max_by_key(|health| match health {
            Health::Ok => 0,
            Health::Degraded(_) => 1,
            Health::Down(_) => 2,
        })
        .unwrap_or(Health::Ok)
    }
}

impl OtlpExporter {
    fn half_sent(&self) -> std::sync::MutexGuard<'_, BTreeMap<(RequestId, Signal), ItemOutcome>> {
        self.half_sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unclear(&self) -> std::sync::MutexGuard<'_, BTreeSet<RequestId>> {
        self.unclear.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_unclear(&self, batch: &[Arc<RequestMetrics>], outcomes: &[ItemOutcome]) {
        let missing = batch.iter().zip(outcomes).filter(|(_, outcome)| **outcome == ItemOutcome::Unknown);
        let mut unclear = self.unclear();
        unclear.extend(missing.map(|(record, _)| record.id()));
        while unclear.len() > HALF_SENT {
            unclear.pop_first();
        }
    }

    fn take_unclear(&self, batch: &[Arc<RequestMetrics>]) -> BTreeSet<RequestId> {
        let mut unclear = self.unclear();
        batch.iter().map(|record| record.id()).filter(|id| unclear.remove(id)).collect()
    }

    /// What became of a batch, once every signal had its turn or one was put off.
    fn verdict(
        &self,
        batch: &[Arc<RequestMetrics>],
        unclear: &BTreeSet<RequestId>,
        after: Option<Duration>,
    ) -> Delivery {
        let outcome = |record: &Arc<RequestMetrics>| match self.settle(record.id()) {
            ItemOutcome::Retry if unclear.contains(&record.id()) => ItemOutcome::Unknown,
            ItemOutcome::Retry => ItemOutcome::again(after),
            outcome => outcome,
        };
        let outcomes: Vec<_> = batch.iter().map(outcome).collect();
        if outcomes.iter().all(|outcome| *outcome == ItemOutcome::Delivered) {
            return Delivery::Delivered;
        }
        Delivery::Items(outcomes)
    }

    /// Keeps what is decided about the records that were sent under a signal.
    fn remember(
        &self,
        batch: &[Arc<RequestMetrics>],
        signal: Signal,
        items: &[Option<Item>],
        outcome: impl Fn(usize) -> ItemOutcome,
    ) {
        let mut known = self.half_sent();
        for (index, (record, _)) in
            batch.iter().zip(items).enumerate().filter(|(_, (_, item))| item.is_some())
        {
            let outcome = outcome(index);
            if outcome.is_settled() {
                known.insert((record.id(), signal), outcome);
            }
        }
        // The oldest ids are the smallest; to forget one costs no more than that its span is sent twice.
        while known.len() > HALF_SENT {
            known.pop_first();
        }
    }

    /// What became of a record under all signals; it is forgotten once that is known.
    fn settle(&self, id: RequestId) -> ItemOutcome {
        let mut known = self.half_sent();
        let signals: Vec<_> = [Signal::Traces, Signal::Logs]
            .into_iter()
            .filter(|signal| self.target.wires.contains_key(signal))
            .collect();
        if signals.iter().any(|signal| !known.contains_key(&(id, *signal))) {
            return ItemOutcome::Retry;
        }
        let outcomes: Vec<_> =
            signals.into_iter().filter_map(|signal| Some((signal, known.remove(&(id, signal))?))).collect();
        let rejected = outcomes.into_iter().find_map(|(signal, outcome)| match outcome {
            ItemOutcome::Rejected { reason } => Some(format!("{}: {reason}", signal.word())),
            _ => None,
        });
        rejected.map_or(ItemOutcome::Delivered, |reason| ItemOutcome::Rejected { reason })
    }
}
