//! The record's document: the one place that knows its keys and their order (design, section 2).
//!
//! Its bodies are never copied into it: the document is a row of pieces, what stands around the bodies among them.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use crate::facts::{CostSource, Facts, Truncated};
use crate::record::RequestMetrics;
use crate::{ContentDropped, TelemetryConfig};

/// The document's name.
const NAME: &str = "ai_gateway_request_log";

#[derive(serde::Serialize)]
struct Ids<'a> {
    id: String,
    thread_id: &'a Option<String>,
    org_id: &'a Option<String>,
    user_id: &'a Option<String>,
    project_id: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    experiment_id: &'a Option<String>,
    provider: &'a Option<String>,
    model: &'a Option<String>,
}

#[derive(serde::Serialize)]
struct Tokens {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
}

#[derive(serde::Serialize)]
struct Metadata<'a> {
    project_id: &'a Option<String>,
    project_name: &'a Option<String>,
    latency: u64,
    ttfb: Option<u64>,
    tokens: Tokens,
    cost: Option<f64>,
    status: &'static str,
    path: &'a str,
    method: &'a str,
    request_size: u64,
    response_size: u64,
    provider_latency: Option<u64>,
    status_code: u16,
    provider_status_code: u16,
    error_count: u8,
    error_type: Option<&'static str>,
    provider_error_count: u32,
    provider_error_type: Option<&'static str>,
    provider_request_id: &'a Option<String>,
    client_request_id: &'a Option<String>,
    outcome: &'static str,
    operation: &'static str,
    streamed: bool,
    requested_model: &'a Option<String>,
    finish_reasons: &'a [String],
    usage_final: bool,
    cost_source: Option<&'static str>,
    price_version: &'a Option<String>,
    service_tier: &'a Option<String>,
    attempts: u32,
    route: &'a Option<String>,
    key_name: &'a Option<String>,
    credential: Option<&'static str>,
    error_message: &'a Option<String>,
    trace_id: &'a Option<String>,
    params_dropped: &'a [String],
    edits: &'a [String],
    truncated: Option<&'a Truncated>,
    content_dropped: Option<ContentDropped>,
    redacted: Option<&'a BTreeMap<String, u64>>,
    sample_rate: f64,
}

/// What stands around a record's bodies, encoded.
#[derive(Debug)]
pub(crate) struct Frame {
    text: Vec<u8>,
    /// Where the bodies stand: what follows is `metadata`.
    bodies_at: usize,
}

impl Frame {
    pub(crate) fn new(record: &RequestMetrics) -> Self {
        let mut text = Vec::with_capacity(2048);
        text.extend_from_slice(b"{\"timestamp\":");
        write(&mut text, &timestamp(record.facts()));
        text.extend_from_slice(b",\"resource\":");
        write(&mut text, &Resource(record.resource()));
        text.extend_from_slice(b",\"name\":\"");
        text.extend_from_slice(NAME.as_bytes());
        text.extend_from_slice(b"\",\"attributes\":");
        write(&mut text, &ids(record.facts()));
        text.pop(); // the ids' closing brace: the rest of `attributes` follows
        text.extend_from_slice(b",\"request\":");
        let bodies_at = text.len();
        text.extend_from_slice(b",\"metadata\":");
        write(&mut text, &metadata(record.facts()));
        text.extend_from_slice(b"}}");
        Self { text, bodies_at }
    }

    /// The document of the record that it was made of, in order.
    pub(crate) fn pieces<'a>(&'a self, record: &'a RequestMetrics) -> impl Iterator<Item = &'a [u8]> + Clone {
        let (head, tail) = self.text.split_at(self.bodies_at);
        let request = record.request().map_or(&b"null"[..], |body| body);
        let [response, glue, events, end] = response(record);
        [head, request, b",\"response\":", response, glue, events, end, tail].into_iter()
    }
}

/// The response with the stream's events at its end.
fn response(record: &RequestMetrics) -> [&[u8]; 4] {
    let response = record.response().map_or(&b"null"[..], |body| body);
    match (record.streamed_data(), response.strip_suffix(b"}")) {
        (Some(events), Some(b"{")) => [b"{", b"\"streamed_data\":", events, b"}"],
        (Some(events), Some(open)) => [open, b",\"streamed_data\":", events, b"}"],
        _ => [response, b"", b"", b""],
    }
}

/// The document as a value.
pub(crate) fn value(record: &RequestMetrics) -> Value {
    let mut attributes = match to_value(&ids(record.facts())) {
        Value::Object(attributes) => attributes,
        _ => Map::new(),
    };
    attributes.insert("request".into(), body_value(record.request().map_or(b"null", |body| body)));
    attributes.insert("response".into(), body_value(&response(record).concat()));
    attributes.insert("metadata".into(), to_value(&metadata(record.facts())));
    json!({
        "timestamp": timestamp(record.facts()),
        "resource": to_value(&Resource(record.resource())),
        "name": NAME,
        "attributes": attributes,
    })
}

fn body_value(body: &[u8]) -> Value {
    serde_json::from_slice(body)
        .unwrap_or_else(|_| json!({ "text": String::from_utf8_lossy(body), "unrepresentable": true }))
}

fn to_value<T: Serialize>(part: &T) -> Value {
    serde_json::to_value(part).unwrap_or(Value::Null)
}

/// Writing plain structs into memory cannot fail; were it ever to, the key would read `null`, not break the line.
fn write<T: Serialize>(out: &mut Vec<u8>, part: &T) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, part).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn timestamp(facts: &Facts) -> String {
    jiff::Timestamp::try_from(facts.timestamp).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// Names of the gateway; an attribute of the operator's wins over one of ours.
struct Resource<'a>(&'a TelemetryConfig);

impl Serialize for Resource<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let config = self.0;
        let instance = config.service_instance_id.as_deref();
        let ours = [
            ("service.name", Some(config.service_name.as_str())),
            ("service.version", Some(&config.service_version)),
            ("deployment.environment", config.deployment_environment.as_deref()),
        ];
        let ours = ours.into_iter().chain(instance.map(|id| ("service.instance.id", Some(id))));
        let theirs = &config.resource_attributes;
        let mut map = serializer.serialize_map(None)?;
        for (name, text) in ours.filter(|(name, _)| !theirs.contains_key(*name)) {
            map.serialize_entry(name, &text)?;
        }
        for (name, text) in theirs {
            map.serialize_entry(name, text)?;
        }
        map.end()
    }
}

fn ids(facts: &Facts) -> Ids<'_> {
    Ids {
        id: facts.id.to_string(),
        thread_id: &facts.thread_id,
        org_id: &facts.org_id,
        user_id: &facts.user_id,
        project_id: &facts.project_id,
        experiment_id: &facts.experiment_id,
        provider: &facts.provider,
        model: &facts.model,
    }
}

fn metadata(facts: &Facts) -> Metadata<'_> {
    let usage = &facts.usage;
    Metadata {
        project_id: &facts.project_id,
        project_name: &facts.project_name,
        latency: facts.latency_ms,
        ttfb: facts.ttfb_ms,
        tokens: Tokens {
            input: usage.input_total(),
            output: usage.output_total(),
            total: usage.total(),
            cached: usage.cache_read,
            cache_write: [usage.cache_write, usage.cache_write_1h]
                .into_iter()
                .flatten()
                .reduce(u64::saturating_add),
            reasoning: usage.output_reasoning,
        },
        cost: facts.cost.map(magicapi_model::Money::usd),
        status: facts.outcome.status(),
        path: &facts.path,
        method: &facts.method,
        request_size: facts.request_size,
        response_size: facts.response_size,
        provider_latency: facts.provider_latency_ms,
        status_code: facts.status_code,
        provider_status_code: facts.provider_status_code,
        error_count: u8::from(facts.outcome.status() == "error"),
        error_type: facts.error_type,
        provider_error_count: facts.provider_error_count,
        provider_error_type: facts.provider_error_type,
        provider_request_id: &facts.provider_request_id,
        client_request_id: &facts.client_request_id,
        outcome: facts.outcome.as_str(),
        operation: facts.operation,
        streamed: facts.streamed,
        requested_model: &facts.requested_model,
        finish_reasons: &facts.finish_reasons,
        usage_final: facts.usage_final,
        cost_source: facts.cost_source.map(|source| match source {
            CostSource::Table => "table",
            CostSource::Provider => "provider",
        }),
        price_version: &facts.price_version,
        service_tier: &facts.service_tier,
        attempts: facts.attempts,
        route: &facts.route,
        key_name: &facts.key_name,
        credential: facts.credential,
        error_message: &facts.error_message,
        trace_id: &facts.trace_id,
        params_dropped: &facts.params_dropped,
        edits: &facts.edits,
        truncated: (!facts.truncated.is_empty()).then_some(&facts.truncated),
        content_dropped: facts.content_dropped,
        redacted: (!facts.redacted.is_empty()).then_some(&facts.redacted),
        sample_rate: facts.sample_rate,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use magicapi_model::RequestId;
    use serde_json::{Value, json};

    use crate::{ContentLevel, Facts, RequestMetrics, TelemetryConfig};

    fn record(response: &'static str, events: Option<&'static str>) -> RequestMetrics {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_741_190_600_123);
        let mut facts = Facts::new(RequestId::mint(), at);
        facts.usage.input = Some(48);
        facts.usage.output = Some(865);
        RequestMetrics::seal(
            facts,
            Arc::new(TelemetryConfig::default()),
            Some("{\"a\": 1E5}".into()),
            Some(response.into()),
            events.map(Into::into),
        )
    }

    #[test]
    fn both_forms_are_the_same_document() {
        let record = record("{\"id\":\"x\"}", Some("[{\"n\":1}]"));
        let line = record.otel_log_json();
        assert_eq!(serde_json::from_slice::<Value>(&line).expect("json"), record.to_otel_log());
        let text = String::from_utf8(line.to_vec()).expect("utf-8");
        assert!(text.starts_with("{\"timestamp\":\"2025-03-05T16:03:20.123Z\",\"resource\":"), "{text}");
        assert!(text.contains("\"request\":{\"a\": 1E5}"), "numbers keep their text: {text}");
        let log = record.to_otel_log();
        assert_eq!(log["attributes"]["response"], json!({"id": "x", "streamed_data": [{"n": 1}]}));
        assert_eq!(log["attributes"]["metadata"]["tokens"]["total"], 913);
        assert!(log["attributes"].get("experiment_id").is_none());
        assert_eq!(log["attributes"]["thread_id"], Value::Null);
    }

    #[test]
    fn the_pieces_are_the_line_and_bodies_are_not_copied() {
        for (response, events, joined) in [
            ("{}", Some("[1]"), "{\"streamed_data\":[1]}"),
            ("{\"id\":1}", Some("[]"), "{\"id\":1,\"streamed_data\":[]}"),
            ("{\"id\":1}", None, "{\"id\":1}"),
            ("\"text\"", Some("[1]"), "\"text\""),
        ] {
            let record = record(response, events);
            let pieces: Vec<&[u8]> = record.otel_log_pieces().collect();
            assert_eq!(pieces.concat(), record.otel_log_json());
            assert_eq!(record.otel_log_len(), record.otel_log_json().len());
            let line = String::from_utf8(pieces.concat()).expect("utf-8");
            assert!(line.contains(&format!(",\"response\":{joined},\"metadata\":{{")), "{line}");
            let request = record.request().expect("a body").as_ptr();
            assert!(pieces.iter().any(|piece| piece.as_ptr() == request), "the very bytes");
        }
    }

    #[test]
    fn an_attribute_of_the_operators_wins_over_ours() {
        let attributes = [("service.name", "theirs"), ("k8s.pod.name", "pod-1")];
        let resource = TelemetryConfig {
            service_instance_id: Some("i-1".into()),
            resource_attributes: attributes.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
            ..TelemetryConfig::default()
        };
        let facts = Facts::new(RequestId::mint(), SystemTime::UNIX_EPOCH);
        let record = RequestMetrics::seal(facts, Arc::new(resource), None, None, None);
        let version = env!("CARGO_PKG_VERSION");
        let expected = json!({"service.name": "theirs", "service.version": version, "deployment.environment": null,
            "service.instance.id": "i-1", "k8s.pod.name": "pod-1"});
        assert_eq!(record.to_otel_log()["resource"], expected);
        let line = String::from_utf8(record.otel_log_json().to_vec()).expect("utf-8");
        assert_eq!(line.matches("service.name").count(), 1, "{line}");
    }

    #[test]
    fn a_body_that_a_value_cannot_hold_is_its_text() {
        let record = record("{\"n\":1e400}", None);
        assert_eq!(
            record.to_otel_log()["attributes"]["response"],
            json!({"text": "{\"n\":1e400}", "unrepresentable": true})
        );
        assert!(String::from_utf8_lossy(&record.otel_log_json()).contains("{\"n\":1e400}"));
    }

    #[test]
    fn content_levels_take_away_bodies_and_say_so() {
        let full = record("{}", Some("[1]"));
        let no_chunks = full.with_content(ContentLevel::NoChunks).to_otel_log();
        assert_eq!(no_chunks["attributes"]["response"], json!({}));
        let metadata = full.with_content(ContentLevel::Metadata).to_otel_log();
        assert_eq!(metadata["attributes"]["request"], Value::Null);
        assert_eq!(metadata["attributes"]["metadata"]["content_dropped"], "config");
        assert_eq!(full.to_otel_log()["attributes"]["response"], json!({"streamed_data": [1]}));
    }
}
