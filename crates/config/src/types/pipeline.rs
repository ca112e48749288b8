//! What the pipeline around one exporter does.

use std::time::Duration;

use magicapi_model::{Money, Outcome};
use magicapi_plugin::ContentLevel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the pipeline around one exporter does.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// How much of the bodies it gets: never more than `capture.bodies`, which is the default.
    pub content: ContentLevel,
    /// Which records it gets.
    pub only: Only,
    /// How many of those.
    pub sample: Sample,
    /// Whether the gateway stops when `init` has not succeeded within `init_timeout`.
    pub require_healthy: bool,
    /// See `require_healthy`.
    pub init_timeout: Duration,
    /// How long one export may take.
    pub timeout: Duration,
    /// Exports under way at once.
    pub concurrency: usize,
    /// The most that is sent per second.
    pub rate_limit: RateLimit,
    /// When a batch is sent.
    pub batch: Batch,
    /// What waits.
    pub buffer: Buffer,
    /// How long a batch is tried.
    pub retry: Retry,
    /// When a back end counts as away.
    pub breaker: Breaker,
    /// What is kept of records that the back end never takes.
    pub dead_letters: DeadLetters,
}

/// A filter: every key that is given must hold; an empty list is not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// `success`, `error`.
    pub status: Vec<String>,
    /// How it ended.
    pub outcome: Vec<Outcome>,
    /// Providers.
    pub provider: Vec<String>,
    /// Models; `*` stands for any text.
    pub model: Vec<String>,
    /// Operations.
    pub operation: Vec<String>,
    /// Names of virtual keys.
    pub key: Vec<String>,
    /// Cost at least this.
    pub min_cost: Option<Money>,
    /// Latency at least this.
    pub min_latency: Option<Duration>,
    /// The caller's status code at least this.
    pub min_status_code: Option<u16>,
}

/// How many records an exporter gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The share that is kept, 0 to 1.
    pub rate: f64,
    /// Whether requests that did not succeed are kept whatever the rate.
    pub keep_errors: bool,
    /// Requests that took longer are kept whatever the rate.
    pub keep_slower_than: Option<Duration>,
    /// Requests that cost more are kept whatever the rate.
    pub keep_cost_over: Option<Money>,
}

/// The most that is sent per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Exports.
    pub requests: Option<u64>,
    /// Bytes, encoded.
    pub bytes: Option<u64>,
}

/// A batch is sent when any of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Records.
    pub records: usize,
    /// Bytes, encoded.
    pub bytes: usize,
    /// Age of the oldest record.
    pub age: Duration,
}

/// Records that wait for one exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Bytes in memory.
    pub memory: usize,
    /// Bytes on disk.
    pub disk: u64,
    /// How long a record may wait on disk.
    pub max_age: Duration,
    /// What happens to records that have no room in memory.
    pub when_full: WhenFull,
}

/// What happens to records that have no room in an exporter's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// They go to the disk.
    #[default]
    Spool,
    /// The oldest records are dropped and counted.
    DropOldest,
    /// They go to the disk; while that is full too, new requests are answered 503, and nothing is dropped.
    Refuse,
}

/// How long a batch is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The longest wait before the second try.
    pub first: Duration,
    /// The longest wait between two tries.
    pub longest: Duration,
    /// A record that has waited longer is dropped, or a dead letter when the exporter put it off.
    pub max_age: Duration,
}

/// When a back end counts as away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row.
    pub failures: u32,
    /// How often one that refuses credential or set-up is asked again.
    pub refused: Duration,
}

/// Records that the back end never takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// Bytes on disk.
    pub disk: u64,
    /// How long they are kept.
    pub max_age: Duration,
}
