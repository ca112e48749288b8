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
use super::preset::Preset;
use crate::endpoint::{Compression, check_url, check_whole_url};
use crate::health::LastHealth;
use crate::tally::Untold;

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

/// What stands for one signal alone.
struct Own<'a> {
    endpoint: Option<&'a str>,
    headers: Option<&'a Secret>,
    protocol: Option<Protocol>,
    timeout_ms: Option<u64>,
    compression: Option<Compression>,
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
        let timeouts = [
            ("request_timeout_ms", Some(self.request_timeout_ms)),
            ("traces_request_timeout_ms", self.traces_request_timeout_ms),
            ("metrics_request_timeout_ms", self.metrics_request_timeout_ms),
            ("logs_request_timeout_ms", self.logs_request_timeout_ms),
        ];
        if let Some((key, _)) = timeouts.into_iter().find(|(_, timeout)| *timeout == Some(0)) {
            return wrong(key, "is 0; expected milliseconds, at least 1");
        }
        if self.attribute_bytes < LEAST_ATTRIBUTE {
            return wrong("attribute_bytes", "expected at least 64");
        }
        if !(1024..=MOST_REQUEST).contains(&self.request_bytes) {
            return wrong("request_bytes", "expected 1024 to 67108864 (64 MiB)");
        }
        let mut common = self.credential()?;
        common.extend(headers("headers", self.headers.as_ref())?);
        let rejected =
            host.meter().u64_counter("rejected_items").with_unit("{item}").with_labels(&["signal"]);
        let rejected = rejected
            .with_description("Items that the server took and threw away, without naming them")
            .build();
        let mut wires = BTreeMap::new();
        for signal in &self.signals {
            let own = self.own(*signal);
            let protocol = own.protocol.unwrap_or(self.protocol);
            let mut all = common.clone();
            all.extend(headers(&format!("{}_headers", signal.word()), own.headers)?);
            let wire = Wire {
                http: host.http().clone(),
                signal: *signal,
                protocol,
                url: self.url(*signal, protocol, own.endpoint)?,
                headers: all,
                compression: own.compression.unwrap_or(self.compression),
                timeout: Duration::from_millis(own.timeout_ms.unwrap_or(self.request_timeout_ms)),
                request_bytes: self.request_bytes,
                rejected: rejected.clone(),
                health: LastHealth::default(),
                untold: Untold::default(),
            };
            wires.insert(*signal, wire);
        }
        let Self { temporality, messages, attribute_bytes, .. } = self;
        Ok(Target { wires, temporality, messages, attribute_bytes })
    }

    fn own(&self, signal: Signal) -> Own<'_> {
        match signal {
            Signal::Traces => Own {
                endpoint: self.traces_endpoint.as_deref(),
                headers: self.traces_headers.as_ref(),
                protocol: self.traces_protocol,
                timeout_ms: self.traces_request_timeout_ms,
                compression: self.traces_compression,
            },
            Signal::Metrics => Own {
                endpoint: self.metrics_endpoint.as_deref(),
                headers: self.metrics_headers.as_ref(),
                protocol: self.metrics_protocol,
                timeout_ms: self.metrics_request_timeout_ms,
                compression: self.metrics_compression,
            },
            Signal::Logs => Own {
                endpoint: self.logs_endpoint.as_deref(),
                headers: self.logs_headers.as_ref(),
                protocol: self.logs_protocol,
                timeout_ms: self.logs_request_timeout_ms,
                compression: self.logs_compression,
            },
        }
    }

    /// A signal's own address is used as it is, the common one gets the signal's path (OTLP specification). gRPC adds
    /// the method's path to either.
    fn url(&self, signal: Signal, protocol: Protocol, own: Option<&str>) -> Result<String, ConfigError> {
        let given = |url: &&str| !url.trim().is_empty();
        let check =
            |key: &str, url: &str| check_url(url.trim()).map_err(|e| ConfigError::new(key, e.message));
        let whole = |url: &str| check_whole_url(url.trim()).map(|()| url.trim().to_owned());
        let own = match protocol {
            Protocol::HttpProtobuf => own.filter(given).map(whole),
            Protocol::Grpc => own.filter(given).map(|url| check_url(url.trim())),
        };
        let own = own
            .transpose()
            .map_err(|e| ConfigError::new(format!("{}_endpoint", signal.word()), e.message))?;
        let common = self.endpoint.as_deref().filter(given).map(|url| check("endpoint", url)).transpose()?;
        Ok(match (protocol, own, common) {
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
