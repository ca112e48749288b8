//! What the user wrote below `telemetry`.

use magicapi_plugin::ContentLevel;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::WhenFull;
use crate::units::{Size, Span};

/// Records, metrics and exporters.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// `service.name` in every record (default `noveum_ai_gateway`); `OTEL_SERVICE_NAME` wins over it.
    #[schemars(extend("x-restart" = true))]
    pub(crate) service_name: Option<String>,
    /// Threads for assembly, redaction and encoding of records (default 1).
    #[schemars(extend("x-restart" = true), range(min = 1))]
    pub(crate) threads: Option<usize>,
    /// Whether the data plane serves `/metrics` too; default: whether `ENABLED_EXPORTERS` names `prometheus`.
    pub(crate) metrics_on_data_plane: Option<bool>,
    /// Metrics that are pushed.
    pub(crate) metrics: Metrics,
    /// What records may hold.
    pub(crate) capture: Capture,
    /// The exporters, each told by its `type`; default: `prometheus`. Not together with `ENABLED_EXPORTERS`. Their
    /// settings come from here alone, not from environment variables.
    pub(crate) exporters: Option<Vec<Map<String, Value>>>,
}

/// Metrics that are pushed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    /// Pause between two snapshots (default 15s).
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

/// What the pipeline around an exporter does: the keys that every exporter has.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pipeline {
    /// Its name in metrics, health and commands (default: its type); needed when two have the same type.
    pub(crate) name: Option<String>,
    /// How much of the bodies it gets: less, never more, than `telemetry.capture.bodies`, which is the default.
    pub(crate) content: Option<ContentLevel>,
    /// Whether the gateway stops when the back end cannot be reached within `init_timeout` (default false).
    pub(crate) require_healthy: Option<bool>,
    /// See `require_healthy` (default 30s).
    pub(crate) init_timeout: Option<Span>,
    /// A batch is sent when any of these is reached.
    pub(crate) batch: Batch,
    /// Records that wait.
    pub(crate) buffer: Buffer,
    /// How long a batch is tried.
    pub(crate) retry: Retry,
}

/// A batch is sent when any of these is reached.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Batch {
    /// Number of records (default 1000).
    #[schemars(range(min = 1))]
    pub(crate) records: Option<usize>,
    /// Size of the records (default 4MiB).
    pub(crate) bytes: Option<Size>,
    /// Age of the oldest record (default 1s).
    pub(crate) age: Option<Span>,
}

/// Records that wait.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Buffer {
    /// Size in memory (default 64MiB).
    pub(crate) memory: Option<Size>,
    /// What happens when it is full (default `drop_oldest`).
    pub(crate) when_full: Option<WhenFull>,
}

/// How long a batch is tried.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retry {
    /// A batch older than this is dropped and counted (default 1h).
    pub(crate) max_age: Option<Span>,
}
