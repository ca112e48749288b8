//! `otlp` through the binary, configured by the variables of the OpenTelemetry specification, against a scripted server
//! that reads protobuf with the project's own messages, and against a real collector where one runs.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "clippy sees no test here")]

mod scene;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use magicapi_testkit::GatewayOptions;
use magicapi_testkit::asked::Asked;
use magicapi_testkit::wire::{until, until_within};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use self::scene::{BINARY, Scene, stop};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    resource: Vec<KeyValue>,
    logs: Vec<LogRecord>,
    metrics: Vec<String>,
    put_off: usize,
    requests: usize,
}

/// Takes what it can decode; the first request with a span is put off.
async fn server() -> (SocketAddr, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free address");
    let address = listener.local_addr().expect("an address");
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, kept.clone()));
        }
    });
    (address, seen)
}

async fn serve(mut socket: TcpStream, seen: Arc<Mutex<Seen>>) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let asked = Asked::read(&mut socket, &mut received).await?;
        let status = take(&asked, &seen);
        let answer = format!("HTTP/1.1 {status} x\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}

fn take(asked: &Asked, seen: &Mutex<Seen>) -> u16 {
    let mut seen = seen.lock().expect("no panic");
    let body = &asked.body[..];
    let form =
        (asked.header("content-type"), asked.header("content-encoding"), asked.header("authorization"));
    if form != ("application/x-protobuf", "gzip", "Bearer canary") {
        return 400;
    }
    seen.requests += 1;
    match asked.path.as_str() {
        "/v1/traces" => {
            let Ok(request) = ExportTraceServiceRequest::decode(body) else { return 400 };
            let resources = request.resource_spans;
            if !resources.is_empty() && seen.put_off == 0 {
                seen.put_off += 1;
                return 503;
            }
            for resource in resources {
                seen.resource = resource.resource.expect("a resource").attributes;
                seen.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        "/v1/logs" => {
            let Ok(request) = ExportLogsServiceRequest::decode(body) else { return 400 };
            let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
            seen.logs.extend(scopes.flat_map(|scope| scope.log_records));
        }
        "/v1/metrics" => {
            let Ok(request) = ExportMetricsServiceRequest::decode(body) else { return 400 };
            let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
            seen.metrics.extend(scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name));
        }
        _ => return 404,
    }
    200
}

fn text(list: &[KeyValue], key: &str) -> String {
    let found = list.iter().find(|one| one.key == key).unwrap_or_else(|| panic!("{key} in {list:?}"));
    match found.value.clone().and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        other => panic!("{key}: {other:?}"),
    }
}

#[tokio::test]
async fn a_request_is_a_span_an_event_and_metrics() {
    let (address, seen) = server().await;
    let endpoint = format!("http://{address}");
    let variables = [
        ("ENABLED_EXPORTERS", "otlp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "9000"),
        // Far from the default: what comes before the end comes because of it.
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=core"),
    ];
    let scene = Scene::by_variables(&variables).await;
    // Put together here, so that no scanner takes this file for a leak.
    let secret = ["sk-proj", "aB3dE5fG7hJ9kL2mN4pQ6rS8tU1vW0xYz"].join("-");
    let state = format!("rojo=00f0,congo={secret}");
    let headers = [("traceparent", TRACE), ("tracestate", &*state), ("x-thread-id", "t-1")];
    let answer = scene.ask(&json!({ "text": "Bonjour" }), &headers).await;
    assert_eq!(answer.status, 200);
    assert_eq!(scene.received().header("tracestate"), None, "not to a provider without `trace`");
    let span = until("a span", async || seen.lock().expect("no panic").spans.first().cloned()).await;
    assert_eq!(span.trace_id[..2], [0x0a, 0xf7]);
    assert_eq!(span.parent_span_id[..2], [0xb7, 0xad]);
    assert_eq!(span.trace_state, "rojo=00f0,congo=[REDACTED:openai_key]");
    assert!(span.name.starts_with("chat "), "{}", span.name);
    let list = &span.attributes;
    assert_eq!(text(list, "gen_ai.provider.name"), "openai");
    assert_eq!(text(list, "gen_ai.conversation.id"), "t-1");
    assert_eq!(text(list, "server.address"), "127.0.0.1");
    assert!(text(list, "gen_ai.input.messages").contains("\"role\":\"user\""), "{list:?}");
    assert!(text(list, "gen_ai.output.messages").contains("Bonjour"), "{list:?}");
    let id = text(list, "gateway.id");
    let digits: String = id["msg_".len()..].split('-').collect();
    let hex = span.span_id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    assert_eq!(hex, digits[16..], "the span is the record's");
    let log = until("an event", async || seen.lock().expect("no panic").logs.first().cloned()).await;
    assert_eq!((&log.span_id, &log.trace_id), (&span.span_id, &span.trace_id));
    let metrics = async || (seen.lock().expect("no panic").metrics.len() > 1).then_some(());
    until_within(Duration::from_secs(10), "metrics in less than the 15 s of the default", metrics).await;
    stop(scene.gateway).await;
    let seen = seen.lock().expect("no panic");
    assert_eq!((seen.spans.len(), seen.logs.len(), seen.put_off), (1, 1, 1), "put off once, there once");
    assert_eq!(text(&seen.resource, "team"), "core");
    for name in [
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.client.inference.operation.input_tokens",
        "gateway_requests",
    ] {
        assert!(seen.metrics.iter().any(|metric| metric == name), "{name} in {:?}", seen.metrics);
    }
}

#[tokio::test]
async fn metadata_alone_says_nothing_that_was_said() {
    let (address, seen) = server().await;
    let exporter = json!({ "type": "otlp", "endpoint": format!("http://{address}"), "compression": "gzip",
        "headers": "authorization=Bearer%20canary", "content": "metadata", "messages": "both" });
    let scene = Scene::start(json!({ "telemetry": { "exporters": [exporter] } })).await;
    assert_eq!(scene.ask(&json!({ "text": "canary-answer" }), &[]).await.status, 200);
    let log = until("an event", async || seen.lock().expect("no panic").logs.first().cloned()).await;
    let span = seen.lock().expect("no panic").spans[0].clone();
    for text in [format!("{span:?}"), format!("{log:?}")] {
        assert!(!text.contains("canary-answer") && !text.contains("gen_ai.input.messages"), "{text}");
    }
}

/// A gRPC server: the first call with a span is put off, all others are taken.
async fn grpc_server() -> (SocketAddr, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free address");
    let address = listener.local_addr().expect("an address");
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve_grpc(socket, kept.clone()));
        }
    });
    (address, seen)
}

async fn serve_grpc(socket: TcpStream, seen: Arc<Mutex<Seen>>) -> Option<()> {
    let mut connection = h2::server::handshake(socket).await.ok()?;
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer_grpc(request, respond, seen.clone()));
    }
    Some(())
}

async fn answer_grpc(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
    seen: Arc<Mutex<Seen>>,
) -> Option<()> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.ok()?;
        body.extend_from_slice(&piece);
        stream.flow_control().release_capacity(piece.len()).ok()?;
    }
    let answer = || http::Response::builder().header("content-type", "application/grpc");
    let headers = &head.headers;
    let form = headers["content-type"] == "application/grpc" && headers["te"] == "trailers";
    let mut status = if form { 0 } else { 3 };
    if let Some(rest) = head.uri.path().strip_suffix("TraceService/Export") {
        assert_eq!(rest, "/opentelemetry.proto.collector.trace.v1.");
        let message = body.split_off(5);
        assert_eq!(body[0], 0, "not packed");
        let request = ExportTraceServiceRequest::decode(&message[..]).expect("a message");
        let mut seen = seen.lock().expect("no panic");
        if !request.resource_spans.is_empty() && seen.put_off == 0 {
            seen.put_off += 1;
            status = 14;
        } else {
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            seen.spans.extend(scopes.flat_map(|scope| scope.spans));
        }
    }
    if status != 0 {
        let trailers_only = answer().header("grpc-status", status).body(()).expect("an answer");
        respond.send_response(trailers_only, true).ok()?;
        return Some(());
    }
    let mut stream = respond.send_response(answer().body(()).expect("an answer"), false).ok()?;
    stream.send_data(bytes::Bytes::from_static(&[0; 5]), false).ok()?;
    let trailers = [(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))];
    stream.send_trailers(trailers.into_iter().collect()).ok()
}

#[tokio::test]
async fn grpc_goes_through_the_gateways_own_client() {
    let (address, seen) = grpc_server().await;
    let endpoint = address.to_string();
    let variables = [
        ("ENABLED_EXPORTERS", "otlp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let scene = Scene::by_variables(&variables).await;
    for _ in 0..3 {
        assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    }
    until("three spans", async || (seen.lock().expect("no panic").spans.len() >= 3).then_some(())).await;
    stop(scene.gateway).await;
    let seen = seen.lock().expect("no panic");
    assert_eq!((seen.spans.len(), seen.put_off), (3, 1));
}

#[test]
fn certificates_that_differ_between_signals_are_refused() {
    let check = |variables: &[(&str, &str)]| {
        let output = GatewayOptions::new(BINARY).envs(variables).arg("check").output();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let on = ("ENABLED_EXPORTERS", "otlp");
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/traces.pem");
    let (starts, said) = check(&[on, traces, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all.pem")]);
    assert!(!starts && said.contains("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: is not what"), "{said}");
    assert!(said.contains("an exporter has one client"), "{said}");
    let (_, said) = check(&[("ENABLED_EXPORTERS", ""), traces]);
    assert!(said.contains("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: set but not read: the exporter"), "{said}");
}

/// What the environment names. The product's own settings come from `config`; this is a test's.
#[allow(clippy::disallowed_methods)]
fn collector(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        println!("skipped: eval \"$(tests/servers/collector/start.sh)\" sets {name}");
    }
    value
}

#[tokio::test]
async fn a_real_collector_gets_all_of_it() {
    for (variable, protocol) in
        [("MAGICAPI_TEST_COLLECTOR_GRPC", "grpc"), ("MAGICAPI_TEST_COLLECTOR_HTTP", "http/protobuf")]
    {
        let (Some(url), Some(output)) = (collector(variable), collector("MAGICAPI_TEST_COLLECTOR_OUT"))
        else {
            return;
        };
        let variables = [
            ("ENABLED_EXPORTERS", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ];
        let scene = Scene::by_variables(&variables).await;
        let answer = scene.ask(&json!({}), &[]).await;
        assert_eq!(answer.status, 200);
        let id = answer.headers["x-request-id"].to_str().expect("an id").to_owned();
        stop(scene.gateway).await;
        // The span and the event name the record; the metrics come with the gateway's end.
        until(&format!("{id} twice"), async || {
            let text = std::fs::read_to_string(&output).unwrap_or_default();
            let of = |signal: &str| text.lines().any(|line| line.contains(signal) && line.contains(&id));
            (of("resourceSpans") && of("resourceLogs")).then_some(())
        })
        .await;
        let text = std::fs::read_to_string(&output).expect("the collector's output");
        assert!(text.contains("gen_ai.client.operation.duration"), "{protocol}");
    }
}
