//! The record's document: the one place that knows its keys and their order (design, section 2).

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::record::{CostSource, Facts, RequestMetrics};

/// The document's name.
const NAME: &str = "ai_gateway_request_log";

#[derive(Serialize)]
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

#[derive(Serialize)]
struct Tokens {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
}

#[derive(Serialize)]
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
    truncated: Option<Value>,
    content_dropped: Option<&'static str>,
    sample_rate: f64,
}

/// The document with its bodies spliced in as they are.
pub(crate) fn bytes(record: &RequestMetrics) -> Bytes {
    let body_len = |body: Option<&Bytes>| body.map_or(4, Bytes::len);
    let size =
        2048 + body_len(record.request()) + body_len(record.response()) + body_len(record.streamed_data());
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(b"{\"timestamp\":");
    write(&mut out, &timestamp(record.facts()));
    out.extend_from_slice(b",\"resource\":");
    write(&mut out, &resource(record));
    out.extend_from_slice(b",\"name\":\"");
    out.extend_from_slice(NAME.as_bytes());
    out.extend_from_slice(b"\",\"attributes\":");
    write(&mut out, &ids(record.facts()));
    out.pop(); // the ids' closing brace: the rest of `attributes` follows
    out.extend_from_slice(b",\"request\":");
    out.extend_from_slice(record.request().map_or(b"null", |body| body));
    out.extend_from_slice(b",\"response\":");
    splice_response(&mut out, record);
    out.extend_from_slice(b",\"metadata\":");
    write(&mut out, &metadata(record.facts()));
    out.extend_from_slice(b"}}");
    out.into()
}

fn splice_response(out: &mut Vec<u8>, record: &RequestMetrics) {
    let response = record.response().map_or(&b"null"[..], |body| body);
    match record.streamed_data() {
        Some(events) if response.ends_with(b"}") => {
            out.extend_from_slice(&response[..response.len() - 1]);
            if response.len() > 2 {
                out.push(b',');
            }
            out.extend_from_slice(b"\"streamed_data\":");
            out.extend_from_slice(events);
            out.push(b'}');
        }
        _ => out.extend_from_slice(response),
    }
}

/// The document as a value.
pub(crate) fn value(record: &RequestMetrics) -> Value {
    let mut attributes = match to_value(&ids(record.facts())) {
        Value::Object(attributes) => attributes,
        _ => Map::new(),
    };
    let mut response = Vec::new();
    splice_response(&mut response, record);
    attributes.insert("request".into(), body_value(record.request().map_or(b"null", |body| body)));
    attributes.insert("response".into(), body_value(&response));
    attributes.insert("metadata".into(), to_value(&metadata(record.facts())));
    json!({
        "timestamp": timestamp(record.facts()),
        "resource": resource(record),
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

fn resource(record: &RequestMetrics) -> Value {
    let config = record.resource();
    let mut resource = json!({
        "service.name": config.service_name,
        "service.version": config.service_version,
        "deployment.environment": config.deployment_environment,
    });
    if let (Some(id), Some(names)) = (&config.service_instance_id, resource.as_object_mut()) {
        names.insert("service.instance.id".into(), json!(id));
    }
    for (name, text) in &config.resource_attributes {
        resource[name] = json!(text);
    }
    resource
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
        truncated: (!facts.truncated.is_empty()).then(|| truncated(facts)),
        content_dropped: facts.content_dropped,
        sample_rate: facts.sample_rate,
    }
}

fn truncated(facts: &Facts) -> Value {
    let cut = &facts.truncated;
    let parts = [("request", cut.request), ("response", cut.response), ("streamed_data", cut.streamed_data)];
    parts
        .into_iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| (name.to_owned(), json!(bytes)))
        .collect()
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
