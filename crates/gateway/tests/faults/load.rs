//! How much is sent at which bounds.

use std::time::Duration;

use magicapi_testkit::configuration::lay_over;
use serde_json::{Value, json};

/// How long one export may take. A slow back end takes longer than that of any exporter.
const TIMEOUT: &str = "2s";

#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// The one exporter that meets the fault; `None` for all at once.
    pub(crate) only: Option<&'static str>,
    pub(crate) requests: u32,
    /// From one request to the next.
    pub(crate) pace: Duration,
    /// Bytes of what a caller says.
    pub(crate) prompt: usize,
    /// One of so many is poison.
    pub(crate) poison: u32,
    /// Records, bytes and age of a batch.
    pub(crate) batch: (u32, &'static str, &'static str),
    /// Bytes of records that one exporter may hold in memory, of which an outage of all requests is many times more.
    pub(crate) memory: u64,
    /// Bytes that all records together may hold, of which all requests' are more.
    pub(crate) capture: u64,
    /// After how many requests the bounds are looked at.
    pub(crate) look_every: u32,
    /// How long an exporter may take for everything, once its back end is mended: ten times what a refused one is left alone.
    pub(crate) patience: Duration,
}

/// 50 requests a second, for every exporter.
pub(crate) const EVERY_RUN: Load = Load {
    only: None,
    requests: 150,
    pace: Duration::from_millis(20),
    prompt: 8_000,
    poison: 10,
    batch: (20, "64KiB", "50ms"),
    memory: 192 << 10,
    capture: 4 << 20,
    look_every: 10,
    patience: Duration::from_mins(5),
};

/// 2,000 requests a second, for one exporter, with batches of the default size.
pub(crate) const HEAVY: Load = Load {
    requests: 20_000,
    pace: Duration::from_micros(500),
    prompt: 1_000,
    poison: 100,
    batch: (1_000, "4MiB", "200ms"),
    memory: 8 << 20,
    capture: 32 << 20,
    look_every: 500,
    patience: Duration::from_mins(5),
    ..EVERY_RUN
};

impl Load {
    pub(crate) fn includes(&self, exporter: &str) -> bool {
        self.only.is_none_or(|only| only == exporter)
    }

    /// An exporter's entry of the configuration.
    pub(crate) fn entry(&self, kind: &str, name: &str, settings: Value) -> Value {
        let (records, bytes, age) = self.batch;
        let mut entry = json!({ "type": kind, "name": name, "timeout": TIMEOUT,
            "batch": { "records": records, "bytes": bytes, "age": age }, "buffer": { "memory": self.memory } });
        lay_over(&mut entry, settings);
        entry
    }
}
