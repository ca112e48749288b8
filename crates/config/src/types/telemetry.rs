//! Records, metrics and exporters.

use std::time::Duration;

use magicapi_plugin::{ContentLevel, Settings, TelemetryConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Pipeline, Reach, Redaction};

/// Records, metrics and exporters.
#[derive(Clone, PartialEq)]
pub struct Telemetry {
    /// Names of this gateway in every record. `service_instance_id` is `None` unless `OTEL_RESOURCE_ATTRIBUTES` has
    /// one: the gateway then makes one per process.
    pub config: TelemetryConfig,
    /// The journal of records; `None` unless they are durable.
    pub durable: Option<Durable>,
    /// Threads for assembly, redaction and encoding.
    pub threads: usize,
    /// Whether the data plane serves `/metrics` too: `telemetry.metrics_on_data_plane`; when the file is silent, whether
    /// `ENABLED_EXPORTERS` names `prometheus`.
    pub metrics_on_data_plane: bool,
    /// Pause between two metric snapshots.
    pub metrics_interval: Duration,
    /// What records may hold.
    pub capture: Capture,
    /// What is taken out of them.
    pub redaction: Redaction,
    /// The exporters, in the user's order; their names are unique. `request_log` is not among them.
    pub exporters: Vec<ExporterEntry>,
}

/// The journal of durable records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// When they reach the disk itself.
    pub fsync: Fsync,
    /// Size of its files in bytes.
    pub disk: u64,
}

/// When what was written reaches the disk itself. A kill of the process loses nothing in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// When the operating system likes.
    Never,
    /// Once per second.
    #[default]
    Interval,
    /// Before a record counts as accepted.
    Always,
}

/// What records may hold. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// How much of the bodies.
    pub bodies: ContentLevel,
    /// Of a request's body.
    pub max_request: usize,
    /// Of a response's body.
    pub max_response: usize,
    /// Of a stream's single events.
    pub max_chunks: usize,
    /// Of all records that are not sealed yet.
    pub memory: usize,
}

/// One configured exporter.
#[derive(Clone, PartialEq)]
pub struct ExporterEntry {
    /// The plug-in.
    pub kind: String,
    /// Its name in metrics, health and commands (default: the plug-in's).
    pub name: String,
    /// The plug-in's own settings, as far as they were given.
    pub settings: Settings,
    /// Of those that are shown as the file has them, what it has: `${NAME}` stays.
    pub as_written: Map<String, Value>,
    /// What the pipeline around it does.
    pub pipeline: Pipeline,
    /// How it reaches its back end.
    pub reach: Reach,
    /// Where the entry comes from.
    pub source: Source,
}

/// Where an exporter's entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody asked: `prometheus`.
    Default,
    /// `ENABLED_EXPORTERS` or `ENABLE_ELASTICSEARCH`; its settings come from the environment alone.
    Environment,
    /// `telemetry.exporters[index]`; its settings come from the file alone.
    File {
        /// The place in the list, from 0.
        index: usize,
    },
}
