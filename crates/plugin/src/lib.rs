//! The telemetry plug-in SDK (L1): everything that an exporter needs, and nothing of the gateway.
//!
//! A plug-in is one folder: a settings struct, a [`TelemetryPlugin`] that makes an exporter from it, and a
//! [`TelemetryExporter`] that encodes a batch of [`RequestMetrics`] and judges the answer. Batching, retry, queues,
//! TLS, proxies and self-metrics are the pipeline's.

mod config;
mod conversation;
mod delivery;
mod each_record;
mod encode;
mod exponential;
mod exporter;
mod facts;
mod gen_ai;
mod host;
mod http;
mod metrics;
mod record;
mod registry;
mod settings;
mod sight;
mod stored;
mod units;

pub use self::config::TelemetryConfig;
pub use self::conversation::{Conversation, Message, Parameters, Part, Source, Tool};
pub use self::delivery::{ConfigError, Delivery, ExportError, Health, ItemOutcome};
pub use self::each_record::EachRecord;
pub use self::exponential::Exponential;
pub use self::exporter::{
    RecordExporter, RecordExporter as MetricsExporter, ScrapePage, TelemetryExporter, TelemetryPlugin,
};
pub use self::facts::{CostSource, Facts, Truncated, Word};
pub use self::gen_ai::gen_ai_provider;
pub use self::host::Host;
pub use self::http::{Http, HttpError, HttpTransport, Trailers, retry_after};
pub use self::metrics::{
    Counter, Gauge, Histogram, HistogramValue, Meter, MetricData, MetricKind, MetricRegistry,
    MetricsSnapshot, Point, PointValue,
};
pub use self::record::{ContentDropped, ContentLevel, RequestMetrics};
pub use self::registry::{Registration, plugins};
pub use self::settings::{
    Needs, RESERVED_KEYS, Settings, SettingsKey, SettingsSpec, Signals, TlsVariables, ValueKind,
};
pub use self::sight::Sight;
pub use self::stored::StoredError;
pub use self::units::{Size, Span};

pub use async_trait::async_trait;
#[doc(hidden)]
pub use inventory;
pub use magicapi_model::{Money, Outcome, RequestId, Secret, Usage};
pub use schemars::{self, JsonSchema};
