//! What the settings of the exporter `otlp` mean, once they have been checked: one way to the server per signal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use magicapi_plugin::{ConfigError, Host, Secret};

use super::client::Wire;
use super::config::{Messages, OtlpSettings, Protocol, Signal, Temporality};
use super::thrown_away::ThrownAway;
use crate::endpoint::{Compression, check_url, check_whole_url};
use crate::health::LastHealth;
use crate::tally::Untold;

/// The smallest bound of an attribute, in bytes.
const LEAST_ATTRIBUTE: usize = 64;
/// What no client may exceed (OTLP specification, "message size").
const MOST_REQUEST: usize = 64 << 20;

/// What stands for one signal alone.
struct Own<'a> {
    endpoint: Option<&'a str>,
    headers: Option<&'a Secret>,
    protocol: Option<Protocol>,
    timeout_ms: Option<u64>,
    compression: Option<Compression>,
    insecure: Option<bool>,
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
                url: self.url(*signal, protocol, &own)?,
                headers: all,
                compression: own.compression.unwrap_or(self.compression),
                timeout: Duration::from_millis(own.timeout_ms.unwrap_or(self.request_timeout_ms)),
                request_bytes: self.request_bytes,
                rejected: rejected.clone(),
                health: LastHealth::default(),
                thrown_away: ThrownAway::default(),
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
                insecure: self.traces_insecure,
            },
            Signal::Metrics => Own {
                endpoint: self.metrics_endpoint.as_deref(),
                headers: self.metrics_headers.as_ref(),
                protocol: self.metrics_protocol,
                timeout_ms: self.metrics_request_timeout_ms,
                compression: self.metrics_compression,
                insecure: self.metrics_insecure,
            },
            Signal::Logs => Own {
                endpoint: self.logs_endpoint.as_deref(),
                headers: self.logs_headers.as_ref(),
                protocol: self.logs_protocol,
                timeout_ms: self.logs_request_timeout_ms,
                compression: self.logs_compression,
                insecure: self.logs_insecure,
            },
        }
    }

    /// A signal's own address is used as it is, the common one gets the signal's path (OTLP specification). gRPC adds
    /// the method's path to either.
    fn url(&self, signal: Signal, protocol: Protocol, own: &Own<'_>) -> Result<String, ConfigError> {
        let given = |url: &&str| !url.is_empty();
        let own_url = own.endpoint.map(str::trim).filter(given);
        let common = self.endpoint.as_deref().map(str::trim).filter(given);
        let of_own = |e: ConfigError| ConfigError::new(format!("{}_endpoint", signal.word()), e.message);
        let of_common = |e: ConfigError| ConfigError::new("endpoint", e.message);
        Ok(match (protocol, own_url, common) {
            (Protocol::HttpProtobuf, Some(own), _) => {
                check_whole_url(own).map_err(of_own)?;
                own.to_owned()
            }
            (Protocol::HttpProtobuf, None, common) => {
                let base = check_url(common.unwrap_or("http://localhost:4318")).map_err(of_common)?;
                format!("{base}/v1/{}", signal.word())
            }
            (Protocol::Grpc, own_url, common) => {
                let insecure = own.insecure.unwrap_or(self.insecure);
                let base = match (own_url, common) {
                    (Some(own), _) => check_url(&with_scheme(own, insecure)).map_err(of_own)?,
                    (None, common) => {
                        let common = common.unwrap_or("http://localhost:4317");
                        check_url(&with_scheme(common, insecure)).map_err(of_common)?
                    }
                };
                format!("{base}{}", super::grpc::path(signal))
            }
        })
    }
}

/// An address of gRPC, which may do without a scheme (OTLP specification, "Insecure").
fn with_scheme(url: &str, insecure: bool) -> Cow<'_, str> {
    match (url.contains("://"), insecure) {
        (true, _) => url.into(),
        (false, true) => format!("http://{url}").into(),
        (false, false) => format!("https://{url}").into(),
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
