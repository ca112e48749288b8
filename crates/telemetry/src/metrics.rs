//! The gateway's own metrics: observed once per sealed record, before any selection, and once per batch.
//!
//! Label values come from closed sets: outcomes, error types and operations are words of ours; a provider counts once it
//! was really asked, a model once a provider answered for it with a 2xx.

mod gen_ai;
mod inference;
mod instruments;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use magicapi_kernel::Meter;
use magicapi_plugin::{ContentDropped, Facts, Usage};

use self::gen_ai::GenAi;
use self::instruments::{Exporters, Records, Requests};
use crate::breaker::BreakerState;
use crate::lane::{ExporterState, ExporterStatus};
use crate::redact::Found;

/// Names that one label may take before the rest is `other`.
const MAX_NAMES: usize = 200;

/// Picodollars in the unit that is counted.
const PICO_PER_NANO: i128 = 1000;

/// Why a record, or an exporter's copy of it, is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The budget is used up, by records without bodies.
    Memory,
    /// The exporter's queue was full.
    QueueFull,
    /// Older than `retry.max_age`, or on disk for longer than `buffer.max_age`.
    Expired,
    /// The gateway ended, or the exporter was taken away, before it was delivered.
    Shutdown,
    /// Assembling it failed twice.
    Panic,
    /// The spool's bound, or the disk's.
    DiskFull,
    /// The spool's directory could not be written.
    DiskError,
    /// What the spool had of it could not be read.
    Corrupt,
    /// A person removed it from the spool.
    Purged,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub(crate) const ALL: [Self; 9] = [
        Self::Memory,
        Self::QueueFull,
        Self::Expired,
        Self::Shutdown,
        Self::Panic,
        Self::DiskFull,
        Self::DiskError,
        Self::Corrupt,
        Self::Purged,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::Shutdown => "shutdown",
            Self::Panic => "panic",
            Self::DiskFull => "disk_full",
            Self::DiskError => "disk_error",
            Self::Corrupt => "corrupt",
            Self::Purged => "purged",
        }
    }
}

/// The gateway's metrics. One instance per process.
pub struct GatewayMetrics {
    requests: Requests,
    records: Records,
    exporters: Exporters,
    gen_ai: GenAi,
    in_flight: AtomicU64,
    models: Names,
    providers: Names,
}

/// What happened to records of one exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Sent,
    Retried,
    Rejected,
    Ambiguous,
    Panicked,
    /// Written to the spool.
    Spooled,
    /// Written to the dead letters, beside being rejected.
    DeadLettered,
    /// Not wanted by `only`.
    Filtered,
    /// Left out by `sample`.
    SampledOut,
    Dropped(DropReason),
}

impl GatewayMetrics {
    /// Registers the metrics; their names begin with the meter's prefix (`gateway`), those of the semantic conventions
    /// with none.
    pub fn new(meter: &Meter, plain: &Meter) -> Self {
        Self {
            requests: Requests::new(meter),
            records: Records::new(meter),
            exporters: Exporters::new(meter),
            gen_ai: GenAi::new(plain),
            in_flight: AtomicU64::new(0),
            models: Names::default(),
            providers: Names::default(),
        }
    }

    /// Sets how many requests are under way. Cheap: shown at the next snapshot.
    pub fn requests_in_flight(&self, count: u64) {
        self.in_flight.store(count, Ordering::Relaxed);
    }

    /// Counts one finished request. `is_clean` is asked about a name before it becomes a label.
    pub(crate) fn observe(&self, facts: &Facts, is_clean: impl Fn(&str) -> bool) {
        let provider = self.providers.label(facts.provider.as_deref(), facts.attempts > 0, &is_clean);
        let answered = (200..300).contains(&facts.provider_status_code);
        let model = self.models.label(facts.model.as_deref(), answered, &is_clean);
        let who = [("provider", provider), ("model", model), ("operation", facts.operation)];
        let [by_provider, by_model, by_operation] = who;
        let outcome = ("outcome", facts.outcome.as_str());
        let class = ("status_class", status_class(facts.status_code));
        self.requests.finished.add(1, &[by_provider, by_model, by_operation, outcome, class]);
        if let Some(error_type) = facts.error_type {
            self.requests.errors.add(1, &[by_provider, by_operation, ("error_type", error_type)]);
        }
        self.requests.duration.record(seconds(facts.latency_ms), &who);
        if let Some(ttfb) = facts.ttfb_ms {
            self.requests.first_byte.record(seconds(ttfb), &who);
        }
        if let Some(latency) = facts.provider_latency_ms {
            self.requests.provider_latency.record(seconds(latency), &who);
        }
        for (bucket, tokens) in buckets(&facts.usage) {
            if let Some(tokens) = tokens.filter(|tokens| *tokens > 0) {
                self.requests.tokens.add(tokens, &[by_provider, by_model, ("bucket", bucket)]);
            }
        }
        if let Some(cost) = facts.cost {
            let nano = u64::try_from(cost.pico_usd() / PICO_PER_NANO).unwrap_or_default();
            self.requests.cost.add(nano, &[by_provider, by_model]);
        }
        self.gen_ai.observe(facts, provider, model);
    }

    pub(crate) fn record_dropped(&self, reason: DropReason) {
        self.records.dropped.add(1, &[("reason", reason.as_str())]);
    }

    pub(crate) fn content_dropped(&self, reason: ContentDropped) {
        self.records.without_bodies.add(1, &[("reason", reason.as_str())]);
    }

    /// Counts what redaction took out of a record.
    pub(crate) fn redacted(&self, found: &[Found]) {
        for one in found {
            self.records.redacted.add(one.count, &[("class", one.class.as_str()), ("name", &one.name)]);
        }
    }

    pub(crate) fn exporter_event(&self, exporter: &str, event: Event, records: u64) {
        let it = &self.exporters;
        let name = ("exporter", exporter);
        match event {
            Event::Sent => it.sent.add(records, &[name]),
            Event::Retried => it.retried.add(records, &[name]),
            Event::Rejected => it.rejected.add(records, &[name]),
            Event::Ambiguous => it.ambiguous.add(records, &[name]),
            Event::Panicked => it.panics.add(records, &[name]),
            Event::Spooled => it.spooled.add(records, &[name]),
            Event::DeadLettered => it.dead_lettered.add(records, &[name]),
            Event::Filtered => it.filtered.add(records, &[name]),
            Event::SampledOut => it.sampled_out.add(records, &[name]),
            Event::Dropped(reason) => it.dropped.add(records, &[name, ("reason", reason.as_str())]),
        }
    }

    /// Brings the gauges up to date: they show a moment, so they are set when one is asked for.
    pub(crate) fn refresh(&self, used: usize, limit: usize, exporters: &[ExporterStatus]) {
        self.requests.in_flight.record(self.in_flight.load(Ordering::Relaxed), &[]);
        self.records.memory_used.record(used as u64, &[]);
        self.records.memory_limit.record(limit as u64, &[]);
        for status in exporters {
            let name = ("exporter", status.name.as_str());
            self.exporters.queue_records.record(status.queue_records as u64, &[name]);
            self.exporters.queue_bytes.record(status.queue_bytes as u64, &[name]);
            let age = status.oldest_age.map_or(0, |age| age.as_secs());
            self.exporters.oldest_age.record(age, &[name]);
            self.exporters.spool_records.record(status.spool_records, &[name]);
            self.exporters.spool_bytes.record(status.spool_bytes, &[name]);
            self.exporters.dead_letter_bytes.record(status.dead_letter_bytes, &[name]);
            let failed = status.last_error_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            self.exporters.refusing.record(u64::from(status.refusing), &[name]);
            self.exporters.last_error.record(failed.map_or(0, |since| since.as_secs()), &[name]);
            self.show_state(&status.name, Some((status.state, status.breaker)));
        }
    }

    /// Zeroes the gauges of an exporter that is gone.
    pub(crate) fn forget(&self, exporter: &str) {
        let name = ("exporter", exporter);
        let it = &self.exporters;
        let gauges = [
            &it.queue_records,
            &it.queue_bytes,
            &it.oldest_age,
            &it.spool_records,
            &it.spool_bytes,
            &it.dead_letter_bytes,
            &it.last_error,
            &it.refusing,
        ];
        for gauge in gauges {
            gauge.record(0, &[name]);
        }
        self.show_state(exporter, None);
    }

    /// Marks the states of exporter and breaker with 1; none when it is gone.
    fn show_state(&self, exporter: &str, states: Option<(ExporterState, BreakerState)>) {
        for one in ExporterState::ALL {
            let labels = [("exporter", exporter), ("state", one.as_str())];
            self.exporters.state.record(u64::from(states.is_some_and(|(state, _)| state == one)), &labels);
        }
        for one in BreakerState::ALL {
            let labels = [("exporter", exporter), ("state", one.as_str())];
            let is_it = states.is_some_and(|(_, breaker)| breaker == one);
            self.exporters.breaker.record(u64::from(is_it), &labels);
        }
    }
}

/// The values that one label may take.
#[derive(Default)]
struct Names(RwLock<HashSet<String>>);

impl Names {
    /// The name itself when it is known or `real`; `other` otherwise, when there are too many, and when it holds
    /// something that no record would show.
    fn label<'a>(&self, name: Option<&'a str>, real: bool, is_clean: &impl Fn(&str) -> bool) -> &'a str {
        let Some(name) = name else { return "none" };
        if self.0.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return name;
        }
        if !real || !is_clean(name) {
            return "other";
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_NAMES {
            return "other";
        }
        known.insert(name.to_owned());
        name
    }
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn status_class(status: u16) -> &'static str {
    match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

fn buckets(usage: &Usage) -> [(&'static str, Option<u64>); 10] {
    [
        ("input", usage.input),
        ("cache_read", usage.cache_read),
        ("cache_write", usage.cache_write),
        ("cache_write_1h", usage.cache_write_1h),
        ("input_audio", usage.input_audio),
        ("input_image", usage.input_image),
        ("output", usage.output),
        ("output_reasoning", usage.output_reasoning),
        ("output_audio", usage.output_audio),
        ("output_image", usage.output_image),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use magicapi_plugin::{MetricRegistry, Money, Outcome, PointValue};

    use super::GatewayMetrics;
    use crate::scripted::facts;

    /// `label=value` of every series, and its value.
    fn series(registry: &MetricRegistry, name: &str) -> Vec<(String, PointValue)> {
        let snapshot = registry.snapshot();
        let metric = snapshot.metrics.iter().find(|metric| metric.name == name).expect("a metric");
        let labels = |labels: &[(&str, String)]| {
            labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        metric.points.iter().map(|point| (labels(&point.labels), point.value.clone())).collect()
    }

    #[test]
    fn a_request_counts_once_in_every_metric() {
        let registry = Arc::new(MetricRegistry::default());
        let metrics = GatewayMetrics::new(&registry.meter("gateway"), &registry.meter(""));
        let mut facts = facts();
        facts.usage.input = Some(38);
        facts.usage.output = Some(0);
        facts.cost = Some(Money::from_pico_usd(1_900_500));
        facts.error_type = Some("idle_timeout");
        facts.outcome = Outcome::TimedOut;
        facts.ttfb_ms = Some(120);
        metrics.observe(&facts, |_| true);
        let one = |name: &str| series(&registry, name).remove(0);
        let who = "provider=groq model=llama-3.1-8b-instant";
        let counted = |labels: &str, number: f64| (labels.to_owned(), PointValue::Number(number));
        assert_eq!(
            one("gateway_requests"),
            counted(&format!("{who} operation=chat outcome=timed_out status_class=2xx"), 1.0)
        );
        let error = "provider=groq operation=chat error_type=idle_timeout";
        assert_eq!(one("gateway_request_errors"), counted(error, 1.0));
        assert_eq!(series(&registry, "gateway_tokens"), [counted(&format!("{who} bucket=input"), 38.0)]);
        assert_eq!(one("gateway_cost_nanodollars"), counted(who, 1900.0));
        assert_eq!(series(&registry, "gateway_time_to_first_byte_seconds").len(), 1);
        assert_eq!(series(&registry, "gateway_provider_latency_seconds").len(), 0, "unknown is not 0");
        let who =
            "gen_ai.operation.name=chat gen_ai.provider.name=groq gen_ai.request.model=llama-3.1-8b-instant";
        let (labels, value) = one("gen_ai.client.operation.duration");
        assert_eq!(labels, format!("{who} error.type=idle_timeout"));
        let PointValue::Histogram(value) = value else { panic!("a histogram") };
        assert_eq!(
            (value.bounds.len(), value.bounds.first(), value.bounds.last()),
            (14, Some(&0.01), Some(&81.92))
        );
        let tokens = series(&registry, "gen_ai.client.token.usage");
        let kinds: Vec<_> =
            tokens.iter().filter_map(|(labels, _)| labels.rsplit_once('=')).map(|(_, kind)| kind).collect();
        assert_eq!(kinds, ["input", "output"], "0 tokens are known");
        let (labels, value) = one("gen_ai.client.inference.usage.input_tokens");
        assert_eq!(
            (labels, value),
            (format!("{who} gen_ai.token.modality=unknown"), PointValue::Number(38.0))
        );
        assert_eq!(series(&registry, "gen_ai.client.inference.usage.cache_read.input_tokens").len(), 0);
        assert_eq!(one("gen_ai.client.inference.duration").0, format!("{who} error.type=idle_timeout"));
        for (name, sum) in [("input_tokens", 38.0), ("output_tokens", 0.0)] {
            let (labels, value) = one(&format!("gen_ai.client.inference.operation.{name}"));
            assert_eq!(labels, format!("{who} error.type=idle_timeout"), "not by modality");
            let PointValue::Histogram(value) = value else { panic!("a histogram") };
            let (count, last) = (value.counts.iter().sum::<u64>(), value.bounds.last().copied());
            assert_eq!((count, value.sum, last), (1, sum, Some(67_108_864.0)), "{name}");
        }
        assert_eq!(
            series(&registry, "gen_ai.client.operation.time_to_first_chunk").len(),
            0,
            "it was no stream"
        );
    }

    #[test]
    fn callers_cannot_mint_series() {
        let registry = Arc::new(MetricRegistry::default());
        let metrics = GatewayMetrics::new(&registry.meter("gateway"), &registry.meter(""));
        for number in 0..500 {
            let mut facts = facts();
            facts.model = Some(format!("typo-{number}"));
            facts.provider_status_code = 404;
            metrics.observe(&facts, |_| true);
            facts.model = Some(format!("answered-{number}"));
            facts.provider_status_code = 200;
            metrics.observe(&facts, |_| true);
            facts.provider = Some(format!("nowhere-{number}"));
            facts.attempts = 0;
            metrics.observe(&facts, |_| true);
        }
        assert!(series(&registry, "gateway_requests").len() <= 2 * 201);
    }
}
