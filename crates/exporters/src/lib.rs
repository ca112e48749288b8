//! Telemetry exporters (L2), one folder each.
//!
//! An exporter encodes a batch and judges the answer; batching, retry, queues, TLS and self-metrics are the
//! pipeline's. Folders look alike: `mod.rs` (what it is, when to use it, what it guarantees, the plug-in), `config.rs`
//! (settings and their validation), `encode.rs` (records to bytes), `client.rs` (bytes to a judged answer), `tests.rs`.
//!
//! Plug-ins register themselves, so a binary must name this crate: `use magicapi_exporters as _;`.

mod archive;
pub mod console;
pub mod datadog;
mod deltas;
mod discretion;
mod document;
pub mod elasticsearch;
mod endpoint;
pub mod exec;
pub mod file;
mod health;
mod lines;
pub mod newrelic;
pub mod otlp;
pub mod postgres;
mod private_file;
mod process;
pub mod prometheus;
mod requests;
mod rotation;
mod tally;
pub mod webhook;

pub use self::endpoint::Compression;

/// The exporters of this crate, sorted. A program compares it at start with what has registered itself: a folder that
/// the linker left out, or a name that two plug-ins claim, must not pass in silence.
pub const NAMES: &[&str] = &[
    "console",
    "datadog",
    "elasticsearch",
    "exec",
    "file",
    "newrelic",
    "otlp",
    "postgres",
    "prometheus",
    "webhook",
];

#[cfg(test)]
mod testing;
