//! What the pipeline is told: by the file and the environment (through `gateway`), once and again at a reload.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use magicapi_plugin::{ContentLevel, Needs, Signals, TelemetryConfig, TelemetryExporter};

pub use crate::journal::{DurableSettings, Fsync};
use crate::redact::Redactor;
pub use crate::selection::{Keep, Only, Sample};

/// Everything that holds for the whole pipeline.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// Names of the gateway, for every record's `resource`.
    pub config: TelemetryConfig,
    /// Assembly threads (`telemetry.threads`); at least one runs.
    pub threads: usize,
    /// What of the bodies is captured.
    pub capture: CaptureSettings,
    /// What takes secrets and personal data out of records. `None`: one with the default settings, for secrets.
    pub redactor: Option<Arc<Redactor>>,
    /// How often exporters with the signal `METRICS` get a snapshot (`telemetry.metrics.interval`).
    pub metrics_interval: Duration,
    /// Where records wait on disk (`DATA_DIR/spool`): one directory per exporter. `None`: nowhere.
    pub spool_dir: Option<PathBuf>,
    /// Where records stand from admission to their last exporter, so that a kill loses none. `None`: nowhere.
    pub durable: Option<DurableSettings>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            config: TelemetryConfig::default(),
            threads: 1,
            capture: CaptureSettings::default(),
            redactor: None,
            metrics_interval: Duration::from_secs(15),
            spool_dir: None,
            durable: None,
        }
    }
}

/// What of the bodies is captured, and in how much memory (`telemetry.capture`). Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureSettings {
    /// The most that any exporter can get.
    pub bodies: ContentLevel,
    /// The most of one request body.
    pub max_request: usize,
    /// The most of one response body; of a stream, of its joined form.
    pub max_response: usize,
    /// The most of one stream's events.
    pub max_chunks: usize,
    /// All records from tap to last exporter. An eighth of it is kept for records without bodies.
    pub memory: usize,
}

impl Default for CaptureSettings {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            bodies: ContentLevel::Full,
            max_request: 16 * MIB,
            max_response: 16 * MIB,
            max_chunks: 16 * MIB,
            memory: 256 * MIB,
        }
    }
}

/// What happens to records that have no room in an exporter's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// They go to the disk.
    #[default]
    Spool,
    /// The oldest are dropped and counted.
    DropOldest,
    /// They go to the disk; while that is full too, new requests are refused, and nothing is dropped.
    Refuse,
}

/// How much an exporter may send per second; `None` is as much as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Exports.
    pub requests: Option<u64>,
    /// Encoded bytes (estimated).
    pub bytes: Option<u64>,
}

/// The pipeline's own settings of one exporter.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineSettings {
    /// How much of the bodies it gets; never more than is captured.
    pub content: ContentLevel,
    /// Which records it gets.
    pub only: Only,
    /// How many of those.
    pub sample: Sample,
    /// Whether the gateway may run without it; see [`crate::Telemetry::unhealthy`].
    pub require_healthy: bool,
    /// How long one `init` may take, and all of them together when `require_healthy` is set.
    pub init_timeout: Duration,
    /// How long one export may take; what takes longer has an unknown outcome, and is sent again.
    pub timeout: Duration,
    /// Exports under way at once; with more than one, records may overtake each other.
    pub concurrency: usize,
    /// Its pace.
    pub rate_limit: RateLimit,
    /// Records per batch, at most.
    pub batch_records: usize,
    /// Encoded bytes per batch, at most (estimated); one record is a batch whatever its size.
    pub batch_bytes: usize,
    /// How long the first record of a batch waits for others.
    pub batch_age: Duration,
    /// Bytes of records that wait or are on their way.
    pub buffer_memory: usize,
    /// Bytes on disk; past them the oldest are dropped.
    pub buffer_disk: u64,
    /// Records that wait longer on disk are dropped.
    pub buffer_max_age: Duration,
    /// What happens past `buffer_memory`.
    pub when_full: WhenFull,
    /// Records that wait longer, in memory or on disk, are dropped (`retry.max_age`).
    pub retry_max_age: Duration,
    /// The wait before the second try, at most.
    pub retry_first: Duration,
    /// The wait between two tries, at most, however many there were; what the back end asks for may be longer.
    pub retry_longest: Duration,
    /// Failures in a row that open the breaker.
    pub breaker_failures: u32,
    /// How often a back end that refuses credential or set-up is asked again.
    pub breaker_refused: Duration,
    /// Bytes of dead letters on disk; past them the oldest go.
    pub dead_disk: u64,
    /// How long dead letters are kept.
    pub dead_max_age: Duration,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        const WEEK: Duration = Duration::from_hours(7 * 24);
        Self {
            content: ContentLevel::Full,
            only: Only::default(),
            sample: Sample::default(),
            require_healthy: false,
            init_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            concurrency: 1,
            rate_limit: RateLimit::default(),
            batch_records: 1000,
            batch_bytes: 4 << 20,
            batch_age: Duration::from_secs(1),
            buffer_memory: 64 << 20,
            buffer_disk: 2 << 30,
            buffer_max_age: WEEK,
            when_full: WhenFull::Spool,
            retry_max_age: WEEK,
            retry_first: Duration::from_millis(500),
            retry_longest: Duration::from_mins(1),
            breaker_failures: 5,
            breaker_refused: Duration::from_secs(30),
            dead_disk: 256 << 20,
            dead_max_age: Duration::from_hours(30 * 24),
        }
    }
}

/// One exporter, made by its plug-in, and how it is driven.
pub struct ExporterSetup {
    /// Its name: the key of status, metrics and reload.
    pub name: String,
    /// Its plug-in's name.
    pub kind: &'static str,
    /// The exporter.
    pub exporter: Box<dyn TelemetryExporter>,
    /// How it is driven.
    pub pipeline: PipelineSettings,
    /// What it takes.
    pub signals: Signals,
    /// What it needs of records.
    pub needs: Needs,
    /// Whether its `init` must wait until the exporter that it replaces has ended.
    pub exclusive: bool,
    /// Stands for all settings of this entry, the pipeline's among them: at a reload an exporter whose name and
    /// fingerprint are known runs on untouched, and this instance is not used.
    pub fingerprint: String,
}
