//! What the user wrote below `telemetry`.

use magicapi_plugin::ContentLevel;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Redact;
use crate::types::Fsync;
use crate::units::{Size, Span};

/// Records, metrics and exporters.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// `service.name` in every record (default `noveum_ai_gateway`); `OTEL_SERVICE_NAME` wins over it.
    #[schemars(extend("x-restart" = true))]
    pub(crate) service_name: Option<String>,
    /// Whether a record survives a kill of the process from its request's admission on (default false); costs a write to
    /// `data_dir` per record, and the gateway does not start without one that it can write.
    #[schemars(extend("x-restart" = true))]
    pub(crate) durable: Option<bool>,
    /// The journal of `durable: true`.
    pub(crate) journal: Option<Journal>,
    /// Threads for assembly, redaction and encoding of records (default 1).
    #[schemars(extend("x-restart" = true), range(min = 1))]
    pub(crate) threads: Option<usize>,
    /// Whether the data plane serves `/metrics` too; default: whether `ENABLED_EXPORTERS` names `prometheus`.
    pub(crate) metrics_on_data_plane: Option<bool>,
    /// Metrics that are pushed.
    pub(crate) metrics: Metrics,
    /// What records may hold.
    pub(crate) capture: Capture,
    /// What is taken out of records before any exporter sees them. Secrets always are.
    pub(crate) redact: Redact,
    /// The exporters, each told by its `type`; default: `prometheus`. Not together with `ENABLED_EXPORTERS`. Their
    /// settings come from here alone, not from environment variables.
    pub(crate) exporters: Option<Vec<Map<String, Value>>>,
}

/// The journal of durable records.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Journal {
    /// When records reach the disk itself, for a loss of power (default `interval`); a kill loses none in any case.
    #[schemars(extend("x-restart" = true))]
    pub(crate) fsync: Option<Fsync>,
    /// Size of its files (default 1GiB, at least 1MiB); past it records go on without it, counted, and `degraded`.
    #[schemars(extend("x-restart" = true))]
    pub(crate) disk: Option<Size>,
}

/// Metrics that are pushed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    /// Pause between two snapshots (default 15s); `OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds, wins.
    #[schemars(extend("x-restart" = true))]
    pub(crate) interval: Option<Span>,
}

/// What records may hold.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Capture {
    /// How much of the bodies (default `full`).
    pub(crate) bodies: Option<ContentLevel>,
    /// Size of a request's body (default 16MiB); what is longer is cut, and marked.
    pub(crate) max_request: Option<Size>,
    /// Size of a response's body (default 16MiB); what is longer is cut, and marked.
    pub(crate) max_response: Option<Size>,
    /// Size of a stream's single events (default 16MiB); what is longer is cut, and marked.
    pub(crate) max_chunks: Option<Size>,
    /// Size of all records under way (default 256MiB); beyond it bodies are left out, and marked.
    pub(crate) memory: Option<Size>,
}
