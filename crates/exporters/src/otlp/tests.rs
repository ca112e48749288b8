use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use magicapi_plugin::{
    Conversation, Delivery, HttpError, ItemOutcome, Message, MetricRegistry, Outcome, Part, RequestMetrics,
    SettingsSpec, Source, TelemetryConfig, TelemetryExporter, Tool, Trailers, ValueKind,
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};

mod cut_off;
mod events;
mod grpc;
mod metrics;
mod settings;

use super::{OtlpPlugin, OtlpSettings};
use crate::testing::{Log, Script, batch, create, known};

fn exporter(script: &Arc<Script>, settings: Value) -> Box<dyn TelemetryExporter> {
    create(&OtlpPlugin, settings, script).expect("settings")
}

/// Of traces alone.
fn traces(script: &Arc<Script>) -> Box<dyn TelemetryExporter> {
    exporter(script, json!({ "signals": ["traces"] }))
}

fn spans(request: &Request<Bytes>) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(&request.body()[..]).expect("a request");
    request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
}

fn value(list: &[KeyValue], key: &str) -> Option<Any> {
    let found: Vec<_> = list.iter().filter(|attribute| attribute.key == key).collect();
    assert!(found.len() < 2, "{key} is there twice");
    found.first()?.value.clone()?.value
}

fn text(list: &[KeyValue], key: &str) -> String {
    match value(list, key) {
        Some(Any::StringValue(text)) => text,
        other => panic!("{key}: {other:?}"),
    }
}

/// A conversation with every kind of part.
fn conversation() -> Conversation {
    let mut said = Conversation::default();
    let call = Part::ToolCall {
        id: Some("c1".into()),
        name: "weather".into(),
        arguments: "{\"in\":\"Paris\"}".into(),
    };
    let image = Part::Media {
        modality: "image",
        mime_type: Some("image/png".into()),
        source: Source::Inline { bytes: 26 },
        transcript: None,
    };
    let uri = Part::Media {
        modality: "image",
        mime_type: None,
        source: Source::Uri("https://x/i.png".into()),
        transcript: None,
    };
    said.instructions = vec![Part::Text("Be brief.".into())];
    said.input = vec![
        Message::new("user", vec![Part::Text("Weather?".into()), image, uri]),
        Message::new("assistant", vec![call]),
        Message::new("tool", vec![Part::ToolResult { id: Some("c1".into()), result: "57°F".into() }]),
    ];
    let mut answer = Message::new("assistant", vec![Part::Reasoning("hm".into()), Part::Text("Wet.".into())]);
    answer.finish_reason = Some("tool_calls".into());
    said.output = vec![answer];
    let mut tool = Tool::default();
    (tool.kind, tool.name) = ("function".into(), "weather".into());
    tool.parameters = Some("{\"type\":\"object\"}".into());
    said.tools = vec![tool];
    said.parameters.temperature = Some(0.5);
    said.parameters.choices = Some(1);
    said.response_id = Some("chatcmpl-1".into());
    said
}

fn record(change: impl FnOnce(&mut magicapi_plugin::Facts)) -> Arc<RequestMetrics> {
    let known = known();
    let mut facts = known.facts().clone();
    facts.operation = "chat";
    facts.server = Some(("api.openai.com".into(), 443));
    facts.usage.cache_read = Some(2);
    change(&mut facts);
    let resource = Arc::new(known.resource().clone());
    let sealed =
        RequestMetrics::seal(facts, resource, known.request().cloned(), known.response().cloned(), None);
    Arc::new(sealed.with_conversation(Some(Arc::new(conversation()))))
}

fn is_of_this_gateway(request: &Request<Bytes>) {
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    assert_eq!(request.headers()["content-length"], request.body().len().to_string().as_str());
    let whole = ExportTraceServiceRequest::decode(&request.body()[..]).expect("a request");
    let resource = whole.resource_spans[0].resource.clone().expect("a resource").attributes;
    assert_eq!(text(&resource, "service.name"), "noveum_ai_gateway");
    assert_eq!(text(&resource, "deployment.environment.name"), "production");
    assert_eq!(text(&resource, "k8s.pod.name"), "pod-1");
    let scope = whole.resource_spans[0].scope_spans[0].scope.clone().expect("a scope");
    assert_eq!(scope.name, "magicapi-ai-gateway");
}

#[tokio::test]
async fn a_span_is_named_as_the_conventions_say() {
    let script = Arc::new(Script::default());
    script.answer(200, "");
    let record = record(|facts| {
        facts.parent_span_id = Some("b7ad6b7169203331".into());
        facts.trace_state = Some("rojo=00f0,congo=t61".into());
    });
    assert_eq!(traces(&script).export(std::slice::from_ref(&record)).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    assert_eq!(
        (request.method().as_str(), request.uri().to_string().as_str()),
        ("POST", "http://localhost:4318/v1/traces")
    );
    is_of_this_gateway(&request);
    let [span] = spans(&request).try_into().expect("one span");
    assert_eq!((span.name.as_str(), span.kind), ("chat gpt, 4o", 3));
    assert_eq!(
        span.trace_id,
        [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36]
    );
    assert_eq!((span.span_id.as_slice(), span.parent_span_id[0]), (&record.id().span_id()[..], 0xb7));
    assert_eq!(span.trace_state, "rojo=00f0,congo=t61");
    assert_eq!((span.end_time_unix_nano - span.start_time_unix_nano, span.flags), (6_250_000_000, 0x301));
    assert!(span.status.is_none(), "unset is success");
    let list = &span.attributes;
    for (key, expected) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt, 4o"),
        ("gen_ai.response.id", "chatcmpl-1"),
        ("server.address", "api.openai.com"),
        ("gateway.id", "msg_01956700-0000-7000-8000-000000000001"),
    ] {
        assert_eq!(text(list, key), expected, "{key}");
    }
    assert_eq!(
        value(list, "gen_ai.usage.input_tokens"),
        Some(Any::IntValue(50)),
        "cached tokens are among them"
    );
    assert_eq!(value(list, "gen_ai.usage.cache_read.input_tokens"), Some(Any::IntValue(2)));
    assert_eq!(value(list, "gen_ai.request.temperature"), Some(Any::DoubleValue(0.5)));
    assert_eq!(value(list, "server.port"), Some(Any::IntValue(443)));
    for absent in
        ["error.type", "gen_ai.request.choice.count", "gen_ai.request.stream", "gateway.messages_cut"]
    {
        assert_eq!(value(list, absent), None, "{absent}");
    }
    let messages: Value = serde_json::from_str(&text(list, "gen_ai.input.messages")).expect("json");
    insta::assert_json_snapshot!(json!({
        "input": messages,
        "output": serde_json::from_str::<Value>(&text(list, "gen_ai.output.messages")).expect("json"),
        "instructions": serde_json::from_str::<Value>(&text(list, "gen_ai.system_instructions")).expect("json"),
        "tools": serde_json::from_str::<Value>(&text(list, "gen_ai.tool.definitions")).expect("json"),
    }));
}

#[tokio::test]
async fn a_failure_has_status_and_error_type_and_a_trace_of_its_own() {
    let script = Arc::new(Script::default());
    script.answer(200, "").answer(200, "");
    let exporter = traces(&script);
    let record = record(|facts| {
        (facts.trace_id, facts.parent_span_id) = (None, Some("b7ad6b7169203331".into()));
        facts.trace_state = Some("rojo=00f0".into());
        (facts.outcome, facts.error_type) = (Outcome::TimedOut, Some("idle_timeout"));
        facts.error_message = Some("no word for 30 s".into());
        (facts.streamed, facts.ttfb_ms) = (true, Some(120));
    });
    for _ in 0..2 {
        assert_eq!(exporter.export(std::slice::from_ref(&record)).await, Delivery::Delivered);
    }
    let seen = script.seen();
    assert_eq!(seen[0].body(), seen[1].body(), "a second time it is the same span");
    let [span] = spans(&seen[0]).try_into().expect("one span");
    assert_eq!(span.trace_id, record.id().trace_id());
    assert!(span.parent_span_id.is_empty() && span.trace_state.is_empty(), "they belong to a trace");
    let status = span.status.expect("a status");
    assert_eq!((status.code, status.message.as_str()), (2, "no word for 30 s"));
    assert_eq!(text(&span.attributes, "error.type"), "idle_timeout");
    let first = value(&span.attributes, "gen_ai.response.time_to_first_chunk");
    assert_eq!(first, Some(Any::DoubleValue(0.12)));
}

#[tokio::test]
async fn an_event_is_structured_and_tells_its_span() {
    let script = Arc::new(Script::default());
    script.answer(200, "").answer(200, "");
    let settings = json!({ "signals": ["logs"], "compression": "gzip", "headers": "x-tenant=t%2C1,authorization=Bearer%20s" });
    let record = record(|_| {});
    assert_eq!(exporter(&script, settings).export(std::slice::from_ref(&record)).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    assert_eq!(request.uri().path(), "/v1/logs");
    assert_eq!(
        (&request.headers()["x-tenant"], &request.headers()["authorization"]),
        (&"t,1".parse().unwrap(), &"Bearer s".parse().unwrap())
    );
    assert!(request.headers()["authorization"].is_sensitive());
    assert_eq!(request.headers()["content-encoding"], "gzip");
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&request.body()[..]).read_to_end(&mut body).expect("gzip");
    let request = ExportLogsServiceRequest::decode(&body[..]).expect("a request");
    let log = request.resource_logs[0].scope_logs[0].log_records[0].clone();
    assert_eq!(log.event_name, "gen_ai.client.inference.operation.details");
    assert_eq!((log.severity_number, log.severity_text.as_str()), (9, "INFO"));
    assert_eq!((log.span_id, log.trace_id.len()), (record.id().span_id().to_vec(), 16));
    let Some(Any::ArrayValue(messages)) = value(&log.attributes, "gen_ai.input.messages") else {
        panic!("a list")
    };
    let Some(Any::KvlistValue(first)) = messages.values[0].value.clone() else { panic!("a message") };
    assert_eq!(text(&first.values, "role"), "user");
}

#[tokio::test]
async fn messages_go_where_they_are_wanted() {
    for (signals, messages, expected) in [
        (json!(["traces", "logs"]), "auto", [true, false]),
        (json!(["traces", "logs"]), "span", [true, false]),
        (json!(["traces", "logs"]), "event", [false, true]),
        (json!(["traces", "logs"]), "both", [true, true]),
        (json!(["traces", "logs"]), "none", [false, false]),
    ] {
        let script = Arc::new(Script::default());
        script.answer(200, "").answer(200, "");
        let exporter = exporter(&script, json!({ "signals": signals, "messages": messages }));
        assert_eq!(exporter.export(&[record(|_| {})]).await, Delivery::Delivered);
        let holds = |request: &Request<Bytes>| {
            request.body().windows(21).any(|part| part == b"gen_ai.input.messages")
        };
        let seen: Vec<bool> = script.seen().iter().map(holds).collect();
        assert_eq!(seen, expected, "{messages}");
    }
}

#[tokio::test]
async fn long_messages_are_cut_and_say_so() {
    let script = Arc::new(Script::default());
    script.answer(200, "").answer(200, "");
    let exporter = exporter(&script, json!({ "signals": ["traces"], "attribute_bytes": 4095 }));
    let mut said = conversation();
    said.input = vec![Message::new("user", vec![Part::Text("ä".repeat(100_000))])];
    let long = |said: Conversation| {
        let record = record(|_| {});
        Arc::new(
            record.with_content(magicapi_plugin::ContentLevel::Full).with_conversation(Some(Arc::new(said))),
        )
    };
    let mut many = conversation();
    many.input = (0..500).map(|n| Message::new("user", vec![Part::Text(format!("message {n}"))])).collect();
    for said in [said, many] {
        assert_eq!(exporter.export(&[long(said)]).await, Delivery::Delivered);
    }
    let seen = script.seen();
    let [one, many] = [&seen[0], &seen[1]].map(|request| spans(request).remove(0).attributes);
    for list in [&one, &many] {
        assert_eq!(value(list, "gateway.messages_cut"), Some(Any::BoolValue(true)));
        assert!(text(list, "gen_ai.input.messages").len() <= 4095);
    }
    assert!(text(&one, "gen_ai.input.messages").contains(&"ä".repeat(300)), "as much as fits");
    let many: Value = serde_json::from_str(&text(&many, "gen_ai.input.messages")).expect("json");
    let last = &many.as_array().expect("a list").last().expect("one")["parts"][0]["content"];
    assert_eq!(last, "message 499", "the newest stay");
}

#[tokio::test]
async fn whole_answers_over_http_are_judged() {
    for (status, expected, part) in [
        (200, Some(Delivery::Delivered), ""),
        (202, Some(Delivery::Delivered), ""),
        (400, Some(Delivery::Items(vec![ItemOutcome::Rejected { reason: "traces: HTTP 400".into() }])), ""),
        (500, Some(Delivery::Items(vec![ItemOutcome::Rejected { reason: "traces: HTTP 500".into() }])), ""),
        (401, None, "OTEL_EXPORTER_OTLP_HEADERS"),
        (403, None, "OTEL_EXPORTER_OTLP_HEADERS"),
        (404, None, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (307, None, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (415, None, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        (413, Some(Delivery::TooLarge), ""),
        (429, Some(Delivery::Retry { after: None }), ""),
        (502, Some(Delivery::Retry { after: None }), ""),
        (503, Some(Delivery::Retry { after: None }), ""),
        (504, Some(Delivery::Unknown), ""),
    ] {
        let script = Arc::new(Script::default());
        script.answer(status, if status >= 300 { "canary" } else { "" });
        match (expected, traces(&script).export(&[record(|_| {})]).await) {
            (Some(expected), answer) => assert_eq!(answer, expected, "{status}"),
            (None, Delivery::Refused { reason }) => {
                assert!(reason.contains(part) && !reason.contains("canary"), "{reason}");
            }
            (None, other) => panic!("{status}: {other:?}"),
        }
    }
    let script = Arc::new(Script::default());
    let page = Response::builder().status(200).header("content-type", "text/html; charset=utf-8");
    script.then(Ok(page.body("<html>Welcome</html>".into()).expect("answer")));
    let Delivery::Refused { reason } = traces(&script).export(&batch(2)).await else { panic!("refused") };
    assert!(reason.contains("a web page") && reason.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{reason}");
    for (header, least, most) in [("7", 7, 7), ("soon", 0, 0)] {
        let script = Arc::new(Script::default());
        let answer =
            Response::builder().status(503).header("retry-after", header).body(Bytes::new()).expect("answer");
        script.then(Ok(answer));
        let Delivery::Retry { after } = traces(&script).export(&[record(|_| {})]).await else {
            panic!("a retry")
        };
        let seconds = after.map_or(0, |after| after.as_secs());
        assert!((least..=most).contains(&seconds), "{header}: {seconds}");
    }
    let script = Arc::new(Script::default());
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(10));
    script.then(Ok(Response::builder()
        .status(429)
        .header("retry-after", date)
        .body(Bytes::new())
        .expect("answer")));
    let Delivery::Retry { after: Some(after) } = traces(&script).export(&[record(|_| {})]).await else {
        panic!("a date")
    };
    assert!(after > Duration::from_mins(9) && after <= Duration::from_mins(10), "{after:?}");
}

fn partial(rejected: i64, message: &str) -> Vec<u8> {
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: message.into() };
    ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
}

/// A server does not name what it threw away: counted, never sent again.
#[tokio::test(start_paused = true)]
async fn partial_success_is_not_sent_again() {
    let script = Arc::new(Script::default());
    let registry = Arc::new(MetricRegistry::default());
    let host =
        magicapi_plugin::Host::new(magicapi_plugin::Http::new(script.clone()), registry.meter("otlp"), None);
    let settings = magicapi_plugin::Settings::from(json!({ "signals": ["traces"] }));
    let exporter =
        magicapi_plugin::TelemetryPlugin::create_exporter(&OtlpPlugin, settings, host).expect("settings");
    script.answer(200, partial(0, "")).answer(200, partial(0, "use gzip")).answer(200, partial(2, "too old"));
    script.answer(200, "").answer(200, partial(4, "quota"));
    for _ in 0..2 {
        assert_eq!(exporter.export(&batch(4)).await, Delivery::Delivered);
        assert_eq!(exporter.health().await, magicapi_plugin::Health::Ok, "nothing was thrown away");
    }
    // It is told although the next request is taken whole, for a while.
    for _ in 0..2 {
        assert_eq!(exporter.export(&batch(4)).await, Delivery::Delivered);
        let said = exporter.health().await;
        let has = |part| said.reason().is_some_and(|reason| reason.contains(part));
        assert!(has("threw 2 away") && has("too old"), "{said:?}");
    }
    let Delivery::Items(outcomes) = exporter.export(&batch(4)).await else { panic!("items") };
    let reason = "traces: the server keeps none of the request".to_owned();
    assert!(outcomes.iter().all(|one| *one == ItemOutcome::Rejected { reason: reason.clone() }));
    assert_eq!(script.seen().len(), 5, "no part of it is sent again");
    tokio::time::advance(Duration::from_mins(6)).await;
    assert_eq!(exporter.health().await, magicapi_plugin::Health::Ok);
    let counted = registry
        .snapshot()
        .metrics
        .into_iter()
        .find(|metric| metric.name == "otlp_rejected_items")
        .expect("counted");
    assert_eq!(counted.points[0].value, magicapi_plugin::PointValue::Number(6.0));
}

/// A server may quote what it was sent, and the log is read by more people than the state, which is redacted.
#[tokio::test]
async fn what_a_server_says_stands_in_the_state_and_not_in_the_log() {
    let (script, log) = (Arc::new(Script::default()), Log::default());
    for _ in 0..3 {
        script.answer(200, partial(1, "cannot keep canary"));
    }
    let kept = tracing::subscriber::set_default(log.clone());
    let exporter = traces(&script);
    for _ in 0..3 {
        assert_eq!(exporter.export(&batch(2)).await, Delivery::Delivered);
    }
    drop(kept);
    assert!(exporter.health().await.reason().is_some_and(|reason| reason.contains("cannot keep canary")));
    let said = log.text();
    assert!(said.contains("rejected=1") && !said.contains("canary"), "{said}");
    assert_eq!(said.matches("does not keep all").count(), 1, "not for each request: {said}");
}

#[tokio::test]
async fn a_poison_record_is_found_and_requests_keep_within_their_size() {
    let script = Arc::new(Script::default());
    // 4 records: all refused, the first half, its first, its second is the one, the second half.
    for status in [400, 400, 200, 400, 200] {
        script.answer(status, "");
    }
    let Delivery::Items(outcomes) = traces(&script).export(&batch(4)).await else { panic!("items") };
    let rejected: Vec<bool> = outcomes.iter().map(|one| *one != ItemOutcome::Delivered).collect();
    assert_eq!(rejected, [false, true, false, false]);
    let script = Arc::new(Script::default());
    (0..20).for_each(|_| {
        script.answer(200, "");
    });
    let small = exporter(&script, json!({ "signals": ["traces"], "request_bytes": 2048 }));
    assert_eq!(small.export(&batch(9)).await, Delivery::Delivered);
    let seen = script.seen();
    assert!(seen.len() > 1 && seen.iter().all(|request| request.body().len() <= 2048), "{}", seen.len());
    assert_eq!(seen.iter().flat_map(spans).count(), 9);
}

/// What one signal has is not sent again because another put it off.
#[tokio::test]
async fn signals_are_settled_one_by_one() {
    let script = Arc::new(Script::default());
    let exporter = exporter(&script, json!({ "signals": ["traces", "logs"] }));
    let records = batch(3);
    script.answer(200, "").answer(503, "").answer(200, "");
    assert_eq!(exporter.export(&records).await, Delivery::Retry { after: None });
    assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    let paths = |requests: Vec<Request<Bytes>>| {
        requests.iter().map(|r| r.uri().path().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths(script.seen()), ["/v1/traces", "/v1/logs", "/v1/logs"]);
    // Rejected as spans, taken as events: not taken.
    script.answer(400, "").answer(200, "");
    let outcome = exporter.export(&records[..1]).await;
    assert_eq!(outcome, Delivery::Items(vec![ItemOutcome::Rejected { reason: "traces: HTTP 400".into() }]));
    assert_eq!(paths(script.seen()), ["/v1/traces", "/v1/logs"]);
    script.then(Err(HttpError::NoAnswer("closed".into()))).then(Err(HttpError::Connect("refused".into())));
    assert_eq!(exporter.export(&records).await, Delivery::Unknown);
    assert_eq!(exporter.export(&records).await, Delivery::Retry { after: None });
}

/// Of a batch in several requests only what was sent without an answer is unclear, under whichever signal.
#[tokio::test]
async fn a_missing_answer_is_that_of_the_records_in_its_request() {
    let script = Arc::new(Script::default());
    let none = || Err(HttpError::NoAnswer("closed".into()));
    let exporter = exporter(&script, json!({ "signals": ["traces", "logs"], "request_bytes": 1024 }));
    // So long that each has a request of its own.
    let long = |record: &Arc<RequestMetrics>| {
        let mut facts = record.facts().clone();
        facts.thread_id = Some("x".repeat(700));
        Arc::new(RequestMetrics::seal(facts, Arc::new(record.resource().clone()), None, None, None))
    };
    let records: Vec<_> = batch(3).iter().map(long).collect();
    let (unknown, retry) = (ItemOutcome::Unknown, ItemOutcome::Retry);
    script.answer(200, "").then(none()).answer(200, "").then(none());
    let outcome = exporter.export(&records).await;
    // As spans: the first is there, the second unclear, the third not sent. As events: the second is unclear.
    assert_eq!(script.seen().len(), 4);
    assert_eq!(outcome, Delivery::Items(vec![ItemOutcome::Delivered, unknown.clone(), retry.clone()]));
    script.then(none()).answer(503, "");
    assert_eq!(exporter.export(&records[1..]).await, Delivery::Items(vec![unknown, retry]));
    (0..4).for_each(|_| {
        script.answer(200, "");
    });
    assert_eq!(exporter.export(&records[1..]).await, Delivery::Delivered);
}

#[tokio::test]
async fn init_asks_with_empty_requests() {
    let script = Arc::new(Script::default());
    let exporter = exporter(
        &script,
        json!({ "endpoint": "https://otel.example/base/", "traces_endpoint": "https://elsewhere/t/?dataset=a", "metrics_headers": "k=v", "logs_endpoint": "" }),
    );
    script.answer(200, "").answer(200, "").answer(200, "");
    exporter.init(&TelemetryConfig::default()).await.expect("init");
    let seen = script.seen();
    let urls: Vec<_> = seen.iter().map(|request| request.uri().to_string()).collect();
    assert_eq!(
        urls,
        [
            "https://elsewhere/t/?dataset=a",
            "https://otel.example/base/v1/metrics",
            "https://otel.example/base/v1/logs"
        ]
    );
    let keyed: Vec<bool> = seen.iter().map(|request| request.headers().contains_key("k")).collect();
    assert_eq!(keyed, [false, true, false]);
    let own = json!({ "headers": "k=common,all=1", "traces_headers": "k=t", "logs_headers": "k=l",
        "metrics_endpoint": "https://m.example/m", "logs_endpoint": "https://l.example/l" });
    let each = self::exporter(&script, own);
    script.answer(200, "").answer(200, "").answer(200, "");
    each.init(&TelemetryConfig::default()).await.expect("init");
    let asked = script.seen().into_iter().map(|request| {
        assert_eq!(request.headers()["all"], "1");
        (request.uri().to_string(), request.headers()["k"].to_str().expect("text").to_owned())
    });
    let expected = [
        ("http://localhost:4318/v1/traces", "t"),
        ("https://m.example/m", "common"),
        ("https://l.example/l", "l"),
    ];
    assert_eq!(asked.collect::<Vec<_>>(), expected.map(|(url, k)| (url.to_owned(), k.to_owned())));
    assert!(seen.iter().all(|request| request.body().is_empty()));
    script.answer(401, "");
    let error = exporter.init(&TelemetryConfig::default()).await.expect_err("refused").to_string();
    assert!(error.contains("https://elsewhere/t/: HTTP 401"), "{error}");
    script.then(Err(HttpError::Connect("no name".into())));
    let error = exporter.init(&TelemetryConfig::default()).await.expect_err("dead").to_string();
    assert!(error.contains("no name"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_its_time() {
    struct Silent;
    #[magicapi_plugin::async_trait]
    impl magicapi_plugin::HttpTransport for Silent {
        async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            std::future::pending().await
        }
    }
    let host = magicapi_plugin::Host::new(
        magicapi_plugin::Http::new(Arc::new(Silent)),
        Arc::new(MetricRegistry::default()).meter("otlp"),
        None,
    );
    let settings = magicapi_plugin::Settings::from(json!({ "request_timeout_ms": 700 }));
    let exporter =
        magicapi_plugin::TelemetryPlugin::create_exporter(&OtlpPlugin, settings, host).expect("settings");
    let begun = tokio::time::Instant::now();
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Unknown);
    assert_eq!(begun.elapsed().as_millis(), 700);
}

#[test]
fn settings_are_checked_without_a_connection() {
    let script = Arc::new(Script::default());
    for (settings, part) in [
        (json!({ "endpoint": "collector:4317" }), "endpoint: begins with neither"),
        (json!({ "logs_endpoint": "ftp://x" }), "logs_endpoint: begins with neither"),
        (json!({ "headers": "canary" }), "headers: item 1 is no header; expected name=value"),
        (json!({ "traces_headers": "a=b,c=%zz" }), "traces_headers: item 2"),
        (json!({ "protocol": "http/json" }), "http/json"),
        (json!({ "signals": [] }), "signals: empty"),
        (json!({ "signals": ["profiles"] }), "profiles"),
        (json!({ "request_timeout_ms": 0 }), "request_timeout_ms: is 0"),
        (json!({ "attribute_bytes": 3 }), "attribute_bytes"),
        (json!({ "request_bytes": 1 << 30 }), "request_bytes"),
        (json!({ "temporality": "sometimes" }), "sometimes"),
    ] {
        let error = create(&OtlpPlugin, settings.clone(), &script).err().unwrap_or_default();
        assert!(error.contains(part) && !error.contains("canary"), "{settings}: {error}");
    }
    let spec = SettingsSpec::of::<OtlpSettings>();
    let key = |name: &str| spec.keys().iter().find(|key| key.name == name).cloned().expect("a key");
    assert_eq!(key("headers").kind, ValueKind::Secret);
    assert_eq!(key("headers").env.as_deref(), Some("OTEL_EXPORTER_OTLP_HEADERS"));
    assert_eq!(key("protocol").kind, ValueKind::OneOf(vec!["http/protobuf".into(), "grpc".into()]));
    assert_eq!(key("request_timeout_ms").env.as_deref(), Some("OTEL_EXPORTER_OTLP_TIMEOUT"));
}
