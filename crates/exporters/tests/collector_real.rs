//! The exporters `otlp` and `datadog` against a real OpenTelemetry Collector: what its receivers understood, over HTTP and
//! gRPC, and by Datadog's intakes.
//!
//! Start it with `eval "$(tests/servers/collector/start.sh)"`; without it these tests say that they are skipped.

// clippy's leave for tests does not reach what tests call.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_exporters::datadog::DatadogPlugin;
use magicapi_exporters::otlp::OtlpPlugin;
use magicapi_plugin::{
    Conversation, Delivery, Host, Http, HttpError, HttpTransport, Message, MetricRegistry, Outcome, Part,
    RequestId, RequestMetrics, Settings, TelemetryConfig, TelemetryPlugin, Trailers, async_trait,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use self::support::{PlainTransport, host, record};

#[allow(dead_code, reason = "not all of it is needed")]
mod support;

/// What the environment names. The product's own settings come from `config`; this is a test's.
#[allow(clippy::disallowed_methods)]
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        println!("skipped: eval \"$(tests/servers/collector/start.sh)\" sets {name}");
    }
    value
}

/// HTTP/2 without TLS, one connection per request, trailers kept: in place of the gateway's client.
struct Http2;

#[async_trait]
impl HttpTransport for Http2 {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let authority = request.uri().authority().expect("an absolute address").to_string();
        let socket = TcpStream::connect(authority).await.map_err(|e| HttpError::Connect(e.to_string()))?;
        let (mut client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
        let running = tokio::spawn(connection);
        let (head, body) = request.into_parts();
        let (answer, mut stream) =
            client.send_request(Request::from_parts(head, ()), false).expect("a stream");
        stream.send_data(body, true).expect("a body");
        let (head, mut body) = answer.await.expect("an answer").into_parts();
        let mut read = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.expect("a piece");
            read.extend_from_slice(&piece);
            body.flow_control().release_capacity(piece.len()).expect("room");
        }
        let trailers = body.trailers().await.expect("trailers");
        running.abort();
        let mut response = Response::from_parts(head, Bytes::from(read));
        if let Some(trailers) = trailers {
            response.extensions_mut().insert(Trailers(trailers));
        }
        Ok(response)
    }
}

/// Every item of a signal that the collector wrote with the mark among them or in their resource.
async fn until(output: &str, at: [&str; 3], mark: &str) -> Vec<Value> {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        let text = std::fs::read_to_string(output).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let found: Vec<Value> = lines
            .flat_map(|line| list(&line, at[0]))
            .filter(|resource| resource.to_string().contains(mark))
            .flat_map(|resource| list(&resource, at[1]))
            .flat_map(|scope| list(&scope, at[2]))
            .collect();
        if !found.is_empty() {
            return found;
        }
        assert!(Instant::now() < end, "nothing marked {mark} in {output}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn attribute<'a>(item: &'a Value, key: &str) -> &'a Value {
    let list = item["attributes"].as_array().expect("attributes");
    &list.iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("{key} in {item}"))["value"]
}

async fn everything_arrives(transport: Arc<dyn HttpTransport>, settings: Value, output: String) {
    let registry = Arc::new(MetricRegistry::default());
    let host = Host::new(Http::new(transport), registry.meter("otlp"), None);
    let exporter = OtlpPlugin.create_exporter(Settings::from(settings), host).expect("settings");
    let plain = record("{}", "{}", None);
    let mark = plain.id().to_string();
    let mut names = TelemetryConfig::default();
    names.service_instance_id = Some(mark.clone());
    let mut facts = plain.facts().clone();
    facts.operation = "chat";
    facts.trace_id = Some("0af7651916cd43dd8448eb211c80319c".into());
    facts.parent_span_id = Some("b7ad6b7169203331".into());
    facts.trace_state = Some("rojo=00f0,congo=t61".into());
    (facts.outcome, facts.error_type) = (Outcome::TimedOut, Some("idle_timeout"));
    let mut said = Conversation::default();
    said.input = vec![Message::new("user", vec![Part::Text("Grüße".into())])];
    let record = RequestMetrics::seal(facts, Arc::new(names.clone()), None, None, None);
    let record = Arc::new(record.with_conversation(Some(Arc::new(said))));
    exporter.init(&names).await.expect("init");
    assert_eq!(exporter.export(&[record]).await, Delivery::Delivered);
    let seconds = registry.meter("").f64_histogram("took").with_boundaries(vec![1.0, 2.0]).build();
    seconds.record(1.5, &[]);
    registry.meter("").u64_counter("requests").build().add(3, &[]);
    assert_eq!(exporter.export_metrics(&registry.snapshot()).await, Delivery::Delivered);

    let spans = until(&output, ["resourceSpans", "scopeSpans", "spans"], &mark).await;
    let [span] = spans.as_slice() else { panic!("one span: {spans:?}") };
    assert_eq!((&span["name"], &span["kind"]), (&json!("chat gpt-test"), &json!(3)));
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((&span["parentSpanId"], &span["status"]["code"]), (&json!("b7ad6b7169203331"), &json!(2)));
    assert_eq!(span["traceState"], "rojo=00f0,congo=t61");
    let digits: String = mark["msg_".len()..].split('-').collect();
    assert_eq!(span["spanId"], digits[16..]);
    assert_eq!(attribute(span, "gen_ai.usage.input_tokens")["intValue"], "48");
    let messages = attribute(span, "gen_ai.input.messages")["stringValue"].as_str().expect("a text");
    assert_eq!(messages, r#"[{"role":"user","parts":[{"type":"text","content":"Grüße"}]}]"#);

    let logs = until(&output, ["resourceLogs", "scopeLogs", "logRecords"], &mark).await;
    let [log, exception] = logs.as_slice() else { panic!("two events: {logs:?}") };
    assert_eq!(log["eventName"], "gen_ai.client.inference.operation.details");
    assert_eq!((&log["spanId"], &log["severityText"]), (&span["spanId"], &json!("ERROR")));
    assert_eq!(exception["eventName"], "gen_ai.client.operation.exception");
    assert_eq!(attribute(exception, "exception.type")["stringValue"], "idle_timeout");

    let metrics = until(&output, ["resourceMetrics", "scopeMetrics", "metrics"], &mark).await;
    let one = |name: &str| metrics.iter().find(|metric| metric["name"] == name).expect("a metric");
    let count = &one("requests")["sum"];
    assert_eq!((&count["isMonotonic"], &count["aggregationTemporality"]), (&json!(true), &json!(2)));
    assert_eq!(count["dataPoints"][0]["asInt"], "3");
    let took = &one("took")["histogram"]["dataPoints"][0];
    assert_eq!((&took["bucketCounts"], &took["explicitBounds"]), (&json!(["0", "1", "0"]), &json!([1, 2])));
}

#[tokio::test]
async fn over_http() {
    let (Some(url), Some(output)) =
        (variable("MAGICAPI_TEST_COLLECTOR_HTTP"), variable("MAGICAPI_TEST_COLLECTOR_OUT"))
    else {
        return;
    };
    let settings = json!({ "endpoint": url, "compression": "gzip" });
    everything_arrives(Arc::new(PlainTransport), settings, output).await;
}

#[tokio::test]
async fn over_grpc() {
    let (Some(url), Some(output)) =
        (variable("MAGICAPI_TEST_COLLECTOR_GRPC"), variable("MAGICAPI_TEST_COLLECTOR_OUT"))
    else {
        return;
    };
    let settings = json!({ "endpoint": url, "protocol": "grpc", "compression": "gzip" });
    everything_arrives(Arc::new(Http2), settings, output).await;
}

fn made_at(time: SystemTime) -> Arc<RequestMetrics> {
    let mut facts = record("{}", "{}", None).facts().clone();
    (facts.id, facts.timestamp) = (RequestId::mint(), time);
    Arc::new(RequestMetrics::seal(facts, Arc::new(TelemetryConfig::default()), Some("{}".into()), None, None))
}

#[tokio::test]
async fn datadogs_logs_and_series_are_parsed() {
    let (Some(url), Some(output)) =
        (variable("MAGICAPI_TEST_COLLECTOR_DATADOG"), variable("MAGICAPI_TEST_COLLECTOR_OUT"))
    else {
        return;
    };
    let mark = RequestId::mint().to_string();
    let settings = json!({ "api_key": "0123456789abcdef0123456789abcdef", "hostname": "gw-1",
        "tags": [format!("run:{mark}")], "logs_url": url, "api_url": url });
    let exporter = DatadogPlugin.create_exporter(Settings::from(settings), host()).expect("settings");
    exporter.init(&TelemetryConfig::default()).await.expect("init");
    // Datadog takes nothing that is older than 18 hours.
    let now = SystemTime::now();
    let records: Vec<_> = (0..3).map(|_| made_at(now)).collect();
    assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    let logs = until(&output, ["resourceLogs", "scopeLogs", "logRecords"], &mark).await;
    assert_eq!(logs.len(), 3, "{logs:?}");
    for log in &logs {
        let text = |key: &str| attribute(log, key)["stringValue"].as_str().expect(key).to_owned();
        assert!(log["body"]["stringValue"].as_str().expect("a message").contains("openai/gpt-test"), "{log}");
        assert_eq!((text("status"), text("hostname")), ("info".to_owned(), "gw-1".to_owned()));
        assert_eq!(
            (text("service"), text("ddsource")),
            ("noveum_ai_gateway".to_owned(), "magicapi".to_owned())
        );
        let since = now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
        assert_eq!(attribute(log, "timestamp")["intValue"], since.to_string());
        let tags = text("ddtags");
        assert!(tags.split(',').any(|tag| tag == "model:gpt-test"), "{tags}");
    }
    let registry = Arc::new(MetricRegistry::default());
    registry.meter("").u64_gauge("open").build().record(5, &[]);
    assert_eq!(exporter.export_metrics(&registry.snapshot()).await, Delivery::Delivered);
    let metrics = until(&output, ["resourceMetrics", "scopeMetrics", "metrics"], &mark).await;
    let open = metrics.iter().find(|metric| metric["name"] == "open").expect("the gauge");
    assert_eq!(open["gauge"]["dataPoints"][0]["asDouble"], 5, "{open}");
}
