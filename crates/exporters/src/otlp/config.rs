//! Settings of the exporter `otlp`. The variables are those of the OpenTelemetry specification (OTLP exporter
//! configuration); what stands for one signal overrides what stands for all.

use magicapi_plugin::{Secret, TlsVariables};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preset::Preset;
use crate::endpoint::Compression;

/// Variables of the pipeline's key `tls`, and those of one signal alone.
pub(super) const TLS: TlsVariables = TlsVariables::new(
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
)
.with_parts(&[
    TlsVariables::new(
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    ),
    TlsVariables::new(
        "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
    ),
    TlsVariables::new(
        "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY",
    ),
]);

/// How requests are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// HTTP with protobuf bodies.
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// What the figures of metrics count from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Temporality {
    /// The gateway's start.
    #[default]
    Cumulative,
    /// The last delivery.
    Delta,
    /// The same as `delta`.
    LowMemory,
}

/// Where messages are sent, as far as `content` lets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Messages {
    /// With spans; with events when there are no spans.
    #[default]
    Auto,
    /// With spans.
    Span,
    /// With events.
    Event,
    /// With both.
    Both,
    /// Nowhere.
    None,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// A span per request.
    Traces,
    /// The gateway's metrics.
    Metrics,
    /// An event per request.
    Logs,
}

impl Signal {
    /// Its word, in settings and paths.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Settings of the exporter `otlp`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// Address of the server, to which `/v1/traces` and its like are added; unset: port 4318 here, 4317 with gRPC.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_ENDPOINT"))]
    pub endpoint: Option<String>,
    /// Whole address for traces.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))]
    pub traces_endpoint: Option<String>,
    /// Whole address for metrics.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"))]
    pub metrics_endpoint: Option<String>,
    /// Whole address for logs.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"))]
    pub logs_endpoint: Option<String>,
    /// How requests are made: `http/protobuf` or `grpc`.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_PROTOCOL"))]
    pub protocol: Protocol,
    /// The same for traces alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"))]
    pub traces_protocol: Option<Protocol>,
    /// The same for metrics alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"))]
    pub metrics_protocol: Option<Protocol>,
    /// The same for logs alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"))]
    pub logs_protocol: Option<Protocol>,
    /// Headers as the variable has them, `name=value,name=value`, percent-encoded where need be; a secret.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_HEADERS"))]
    pub headers: Option<Secret>,
    /// Further headers for traces.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"))]
    pub traces_headers: Option<Secret>,
    /// Further headers for metrics.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_METRICS_HEADERS"))]
    pub metrics_headers: Option<Secret>,
    /// Further headers for logs.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_LOGS_HEADERS"))]
    pub logs_headers: Option<Secret>,
    /// How long one request may take, in milliseconds.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_TIMEOUT"))]
    pub request_timeout_ms: u64,
    /// The same for traces alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"))]
    pub traces_request_timeout_ms: Option<u64>,
    /// The same for metrics alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"))]
    pub metrics_request_timeout_ms: Option<u64>,
    /// The same for logs alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"))]
    pub logs_request_timeout_ms: Option<u64>,
    /// How bodies are packed.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_COMPRESSION"))]
    pub compression: Compression,
    /// The same for traces alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"))]
    pub traces_compression: Option<Compression>,
    /// The same for metrics alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION"))]
    pub metrics_compression: Option<Compression>,
    /// The same for logs alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION"))]
    pub logs_compression: Option<Compression>,
    /// Whether gRPC goes without TLS to an address that begins with neither `http://` nor `https://`.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_INSECURE"))]
    pub insecure: bool,
    /// The same for traces alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_TRACES_INSECURE"))]
    pub traces_insecure: Option<bool>,
    /// The same for metrics alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_METRICS_INSECURE"))]
    pub metrics_insecure: Option<bool>,
    /// The same for logs alone.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_LOGS_INSECURE"))]
    pub logs_insecure: Option<bool>,
    /// What is sent.
    pub signals: Vec<Signal>,
    /// What the figures of metrics count from: `cumulative`, `delta` or `lowmemory`.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"))]
    pub temporality: Temporality,
    /// Where messages are sent: `span`, `event`, `both`, `none`; `auto` is with spans, or with events without spans.
    pub messages: Messages,
    /// The longest text of one attribute, in bytes; messages are made shorter until they fit.
    #[schemars(extend("env" = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"))]
    pub attribute_bytes: usize,
    /// The largest request before packing, in bytes. Many servers take 4 MiB.
    pub request_bytes: usize,
    /// A back end whose address, credential and limits are known: `newrelic`. Other settings win over what it brings.
    pub preset: Option<Preset>,
    /// New Relic's license key, with `preset: newrelic`.
    pub license_key: Option<Secret>,
    /// New Relic's data center, with `preset: newrelic`: `us`, `eu` or `fedramp`. Unset: what the key's first letters say.
    pub region: Option<String>,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            traces_endpoint: None,
            metrics_endpoint: None,
            logs_endpoint: None,
            protocol: Protocol::HttpProtobuf,
            traces_protocol: None,
            metrics_protocol: None,
            logs_protocol: None,
            headers: None,
            traces_headers: None,
            metrics_headers: None,
            logs_headers: None,
            request_timeout_ms: 10_000,
            traces_request_timeout_ms: None,
            metrics_request_timeout_ms: None,
            logs_request_timeout_ms: None,
            compression: Compression::None,
            traces_compression: None,
            metrics_compression: None,
            logs_compression: None,
            insecure: false,
            traces_insecure: None,
            metrics_insecure: None,
            logs_insecure: None,
            signals: vec![Signal::Traces, Signal::Metrics, Signal::Logs],
            temporality: Temporality::Cumulative,
            messages: Messages::Auto,
            attribute_bytes: 256 << 10,
            request_bytes: 3 << 20,
            preset: None,
            license_key: None,
            region: None,
        }
    }
}
