//! The instruments behind [`super::GatewayMetrics`]: every name, unit and label set of the gateway's own metrics.

use magicapi_kernel::Meter;
use magicapi_plugin::{Counter, Gauge, Histogram};

/// Label names.
type Labels = &'static [&'static str];

const EXPORTER: Labels = &["exporter"];
const WHO: Labels = &["provider", "model", "operation"];

fn counter(meter: &Meter, name: &str, unit: &str, labels: Labels, description: &str) -> Counter<u64> {
    meter.u64_counter(name).with_unit(unit).with_labels(labels).with_description(description).build()
}

fn gauge(meter: &Meter, name: &str, unit: &str, labels: Labels, description: &str) -> Gauge<u64> {
    meter.u64_gauge(name).with_unit(unit).with_labels(labels).with_description(description).build()
}

fn seconds(meter: &Meter, name: &str, description: &str) -> Histogram<f64> {
    meter.f64_histogram(name).with_unit("s").with_labels(WHO).with_description(description).build()
}

/// What is counted per request.
pub(super) struct Requests {
    pub(super) finished: Counter<u64>,
    pub(super) errors: Counter<u64>,
    pub(super) duration: Histogram<f64>,
    pub(super) first_byte: Histogram<f64>,
    pub(super) provider_latency: Histogram<f64>,
    pub(super) tokens: Counter<u64>,
    pub(super) cost: Counter<u64>,
    pub(super) in_flight: Gauge<u64>,
}

impl Requests {
    pub(super) fn new(meter: &Meter) -> Self {
        const FINISHED: Labels = &["provider", "model", "operation", "outcome", "status_class"];
        const ERRORS: Labels = &["provider", "operation", "error_type"];
        const TOKENS: Labels = &["provider", "model", "bucket"];
        const COST: Labels = &["provider", "model"];
        let request = "{request}";
        Self {
            finished: counter(meter, "requests", request, FINISHED, "Finished requests"),
            errors: counter(meter, "request_errors", request, ERRORS, "Requests that failed, by error type"),
            duration: seconds(
                meter,
                "request_duration_seconds",
                "From the request's head read to the last byte handed over",
            ),
            first_byte: seconds(
                meter,
                "time_to_first_byte_seconds",
                "From the request's head read to the first body byte handed over",
            ),
            provider_latency: seconds(
                meter,
                "provider_latency_seconds",
                "From the request sent to the provider's response head, last attempt",
            ),
            tokens: counter(meter, "tokens", "{token}", TOKENS, "Tokens used, in disjoint buckets"),
            cost: counter(meter, "cost_nanodollars", "{nUSD}", COST, "Cost in billionths of a US dollar"),
            in_flight: gauge(meter, "requests_in_flight", request, &[], "Requests under way"),
        }
    }
}

/// What is counted per record, before any exporter.
pub(super) struct Records {
    pub(super) dropped: Counter<u64>,
    pub(super) without_bodies: Counter<u64>,
    pub(super) redacted: Counter<u64>,
    pub(super) memory_used: Gauge<u64>,
    pub(super) memory_limit: Gauge<u64>,
}

impl Records {
    pub(super) fn new(meter: &Meter) -> Self {
        const REASON: Labels = &["reason"];
        const FOUND: Labels = &["class", "name"];
        let record = "{record}";
        Self {
            dropped: counter(meter, "records_dropped", record, REASON, "Records that reached no exporter"),
            without_bodies: counter(
                meter,
                "records_without_bodies",
                record,
                REASON,
                "Records that lost bodies",
            ),
            redacted: counter(meter, "redactions", "{finding}", FOUND, "Findings taken out of records"),
            memory_used: gauge(meter, "capture_memory_used_bytes", "By", &[], "Memory that records hold"),
            memory_limit: gauge(
                meter,
                "capture_memory_limit_bytes",
                "By",
                &[],
                "Memory that records may hold",
            ),
        }
    }
}

/// What is counted per exporter.
pub(super) struct Exporters {
    pub(super) sent: Counter<u64>,
    pub(super) retried: Counter<u64>,
    pub(super) rejected: Counter<u64>,
    pub(super) ambiguous: Counter<u64>,
    pub(super) dropped: Counter<u64>,
    pub(super) panics: Counter<u64>,
    pub(super) queue_records: Gauge<u64>,
    pub(super) queue_bytes: Gauge<u64>,
    pub(super) oldest_age: Gauge<u64>,
    pub(super) state: Gauge<u64>,
    pub(super) spooled: Counter<u64>,
    pub(super) dead_lettered: Counter<u64>,
    pub(super) filtered: Counter<u64>,
    pub(super) sampled_out: Counter<u64>,
    pub(super) spool_records: Gauge<u64>,
    pub(super) spool_bytes: Gauge<u64>,
    pub(super) dead_letter_bytes: Gauge<u64>,
    pub(super) breaker: Gauge<u64>,
    pub(super) last_error: Gauge<u64>,
    pub(super) refusing: Gauge<u64>,
}

impl Exporters {
    pub(super) fn new(meter: &Meter) -> Self {
        const DROPPED: Labels = &["exporter", "reason"];
        const STATE: Labels = &["exporter", "state"];
        let records = |name: &str, labels, text: &str| counter(meter, name, "{record}", labels, text);
        let now = |name: &str, unit: &str, text: &str| gauge(meter, name, unit, EXPORTER, text);
        Self {
            sent: records("exporter_sent", EXPORTER, "Records that the back end has"),
            retried: records("exporter_retried", EXPORTER, "Records sent again, once per try"),
            rejected: records("exporter_rejected", EXPORTER, "Records that the back end will never take"),
            ambiguous: records(
                "exporter_ambiguous",
                EXPORTER,
                "Records sent without an answer, once per try",
            ),
            dropped: records("exporter_dropped", DROPPED, "Records given up before delivery"),
            panics: counter(meter, "exporter_panics", "{panic}", EXPORTER, "Panics inside the exporter"),
            queue_records: now("exporter_queue_records", "{record}", "Records that wait or are on their way"),
            queue_bytes: now("exporter_queue_bytes", "By", "Memory of those records"),
            oldest_age: now("exporter_oldest_age_seconds", "s", "How long the oldest of them has waited"),
            state: gauge(meter, "exporter_state", "", STATE, "1 for the state that the exporter is in"),
            spooled: records("exporter_spooled", EXPORTER, "Records written to the spool"),
            dead_lettered: records(
                "exporter_dead_lettered",
                EXPORTER,
                "Rejected records kept in spool/<name>/dead",
            ),
            filtered: records("exporter_filtered", EXPORTER, "Records that `only` does not name"),
            sampled_out: records("exporter_sampled_out", EXPORTER, "Records that `sample` leaves out"),
            spool_records: now("exporter_spool_records", "{record}", "Records that wait in the spool"),
            spool_bytes: now("exporter_spool_bytes", "By", "Their size on disk"),
            dead_letter_bytes: now("exporter_dead_letter_bytes", "By", "Size of dead letters on disk"),
            breaker: gauge(meter, "exporter_breaker", "", STATE, "1 for the state that the breaker is in"),
            refusing: now(
                "exporter_refusing",
                "",
                "1 while new requests are refused because it is full (`when_full: refuse`)",
            ),
            last_error: now(
                "exporter_last_error_timestamp_seconds",
                "s",
                "When the last error was, in seconds since 1970; 0 when there was none",
            ),
        }
    }
}
