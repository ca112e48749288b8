//! Settings of the exporter `otlp`, and what they mean once they have been checked.
//!
//! The variables are those of the OpenTelemetry specification (OTLP exporter configuration); what stands for one signal
//! overrides what stands for all.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use magicapi_plugin::{ConfigError, Host, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::Wire;
use crate::endpoint::{Compression, check_url};
use crate::health::LastHealth;

/// The smallest bound of an attribute, in bytes.
const LEAST_ATTRIBUTE: usize = 64;
/// What no client may exceed (OTLP specification, "message size").
const MOST_REQUEST: usize = 64 << 20;

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
    /// How bodies are packed.
    #[schemars(extend("env" = "OTEL_EXPORTER_OTLP_COMPRESSION"))]
    pub compression: Compression,
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
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            traces_endpoint: None,
            metrics_endpoint: None,
            logs_endpoint: None,
            protocol: Protocol::HttpProtobuf,
            headers: None,
            traces_headers: None,
            metrics_headers: None,
            logs_headers: None,
            request_timeout_ms: 10_000,
            compression: Compression::None,
            signals: vec![Signal::Traces, Signal::Metrics, Signal::Logs],
            temporality: Temporality::Cumulative,
            messages: Messages::Auto,
            attribute_bytes: 256 << 10,
            request_bytes: 3 << 20,
        }
    }
}

/// Checked settings.
pub(super) struct Target {
    /// One way per signal that is sent.
    pub(super) wires: BTreeMap<Signal, Wire>,
    pub(super) temporality: Temporality,
    pub(super) messages: Messages,
    /// Of one attribute's text.
    pub(super) attribute_bytes: usize,
}

impl Target {
    /// Whether messages go with this signal.
    pub(super) fn has_messages(&self, signal: Signal) -> bool {
        let spans = self.wires.contains_key(&Signal::Traces);
        match (self.messages, signal) {
            (Messages::Both, _)
            | (Messages::Span | Messages::Auto, Signal::Traces)
            | (Messages::Event, Signal::Logs) => true,
            (Messages::Auto, Signal::Logs) => !spans,
            _ => false,
        }
    }
}

impl OtlpSettings {
    /// Checks everything that can be checked without a connection.
    pub(super) fn validate(self, host: &Host) -> Result<Target, ConfigError> {
        let wrong = |key: &str, what: &str| Err(ConfigError::new(key, what));
        if self.signals.is_empty() {
            return wrong("signals", "empty; name traces, metrics or logs");
        }
        if self.request_timeout_ms == 0 {
            return wrong("request_timeout_ms", "is 0; expected milliseconds, at least 1");
        }
        if self.attribute_bytes < LEAST_ATTRIBUTE {
            return wrong("attribute_bytes", "expected at least 64");
        }
        if !(1024..=MOST_REQUEST).contains(&self.request_bytes) {
            return wrong("request_bytes", "expected 1024 to 67108864 (64 MiB)");
        }
        let common = headers("headers", self.headers.as_ref())?;
        let rejected =
            host.meter().u64_counter("rejected_items").with_unit("{item}").with_labels(&["signal"]);
        let rejected = rejected
            .with_description("Items that the server took and threw away, without naming them")
            .build();
        let mut wires = BTreeMap::new();
        for signal in &self.signals {
            let (key, own, own_headers) = match signal {
                Signal::Traces => ("traces", &self.traces_endpoint, &self.traces_headers),
                Signal::Metrics => ("metrics", &self.metrics_endpoint, &self.metrics_headers),
                Signal::Logs => ("logs", &self.logs_endpoint, &self.logs_headers),
            };
            let mut all = common.clone();
            all.extend(headers(&format!("{key}_headers"), own_headers.as_ref())?);
            let wire = Wire {
                http: host.http().clone(),
                signal: *signal,
                protocol: self.protocol,
                url: self.url(*signal, own.as_deref())?,
                headers: all,
                compression: self.compression,
                timeout: Duration::from_millis(self.request_timeout_ms),
                request_bytes: self.request_bytes,
                rejected: rejected.clone(),
                health: LastHealth::default(),
            };
            wires.insert(*signal, wire);
        }
        let Self { temporality, messages, attribute_bytes, .. } = self;
        Ok(Target { wires, temporality, messages, attribute_bytes })
    }

    /// A signal's own address is used as it is, the common one gets the signal's path (OTLP specification). gRPC adds
    /// the method's path to either.
    fn url(&self, signal: Signal, own: Option<&str>) -> Result<String, ConfigError> {
        let given = |url: &&str| !url.trim().is_empty();
        let check =
            |key: &str, url: &str| check_url(url.trim()).map_err(|e| ConfigError::new(key, e.message));
        let own =
            own.filter(given).map(|url| check(&format!("{}_endpoint", signal.word()), url)).transpose()?;
        let common = self.endpoint.as_deref().filter(given).map(|url| check("endpoint", url)).transpose()?;
        Ok(match (self.protocol, own, common) {
            (Protocol::HttpProtobuf, Some(own), _) => own,
            (Protocol::HttpProtobuf, None, common) => {
                let common = common.unwrap_or_else(|| "http://localhost:4318".into());
                format!("{common}/v1/{}", signal.word())
            }
            (Protocol::Grpc, own, common) => {
                let base = own.or(common).unwrap_or_else(|| "http://localhost:4317".into());
                format!("{base}{}", super::grpc::path(signal))
            }
        })
    }
}

/// `name=value,name=value`, percent-encoded as in W3C Baggage. Nothing of it is quoted in errors.
fn headers(key: &str, text: Option<&Secret>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    let items = text.map(Secret::expose).unwrap_or_default().split(',').map(str::trim);
    for (index, item) in items.filter(|item| !item.is_empty()).enumerate() {
        let wrong = || {
            let what = format!("item {} is no header; expected name=value,name=value", index + 1);
            ConfigError::new(key, what)
        };
        let (name, value) = item.split_once('=').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let value = super::grpc::percent_decode(value.trim()).ok_or_else(wrong)?;
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}
