use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{
    Delivery, Health, Http, HttpError, ItemOutcome, MetricRegistry, MetricsSnapshot, SettingsSpec,
    TelemetryConfig, TelemetryExporter, ValueKind,
};
use serde_json::{Value, json};

use super::config::Target;
use super::{DatadogPlugin, DatadogSettings, encode};
use crate::testing::{Script, batch, create, fresh, known};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn exporter(more: &Value, script: &Arc<Script>) -> Box<dyn TelemetryExporter> {
    let mut settings = json!({ "api_key": KEY });
    for (key, value) in more.as_object().expect("settings") {
        settings[key] = value.clone();
    }
    create(&DatadogPlugin, settings, script).expect("settings")
}

fn target(script: &Arc<Script>) -> Target {
    let settings: DatadogSettings =
        serde_json::from_value(json!({ "api_key": KEY, "tags": ["team:core"], "hostname": "gw-1" }))
            .expect("settings");
    settings.validate(&Http::new(script.clone())).unwrap_or_else(|e| panic!("{e}"))
}

/// What Datadog's reference demands of a request with logs; the logs.
fn logs(request: &Request<Bytes>) -> Vec<Value> {
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri().to_string(), "https://http-intake.logs.datadoghq.com/api/v2/logs");
    let body = head(request, "gzip");
    assert!(body.len() <= 5_000_000, "{}", body.len());
    let logs: Vec<Value> = serde_json::from_str(&body).expect("an array");
    assert!((1..=1000).contains(&logs.len()), "{}", logs.len());
    for log in &logs {
        assert!(log.to_string().len() <= 1_000_000);
        let text = |key: &str| log[key].as_str().unwrap_or_else(|| panic!("{key}"));
        assert!(!text("message").is_empty() && !text("service").is_empty() && text("ddsource") == "magicapi");
        assert!(["info", "warn", "error"].contains(&text("status")));
        for tag in text("ddtags").split(',') {
            assert!(tag.contains(':') && tag.len() <= 200 && !tag.contains(' '), "{tag}");
        }
        let age = SystemTime::UNIX_EPOCH + Duration::from_millis(log["timestamp"].as_u64().expect("ms"));
        assert!(SystemTime::now().duration_since(age).expect("past") < Duration::from_hours(18));
    }
    logs
}

/// Key, coding, length; the unpacked body.
fn head(request: &Request<Bytes>, coding: &str) -> String {
    let headers = request.headers();
    assert_eq!(
        (&headers["dd-api-key"], &headers["content-type"]),
        (&KEY.parse().expect("key"), &"application/json".parse().expect("type"))
    );
    assert!(headers["dd-api-key"].is_sensitive());
    assert_eq!(headers["content-encoding"], coding);
    assert_eq!(headers["content-length"], request.body().len().to_string().as_str());
    let mut text = String::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(&request.body()[..]).read_to_string(&mut text),
        _ => flate2::read::ZlibDecoder::new(&request.body()[..]).read_to_string(&mut text),
    }
    .expect("packed");
    text
}

#[test]
fn the_log() {
    let record = known();
    let now = record.facts().timestamp + Duration::from_hours(17);
    let log = encode::log(&record, &target(&Arc::default()), now).expect("a log");
    let log: Value = serde_json::from_slice(&log).expect("json");
    insta::assert_json_snapshot!(log);
}

#[tokio::test]
async fn records_arrive_whole_with_bodies_as_texts() {
    let script = Arc::new(Script::default());
    script.answer(202, "{}");
    let exporter = exporter(&json!({}), &script);
    let record = fresh("{\"a\":1,\"a\":2}", "{\"n\":1e400}", Some("[{\"x\":\"\\ud800\"}]"));
    assert_eq!(exporter.export(std::slice::from_ref(&record)).await, Delivery::Delivered);
    assert_eq!(exporter.health().await, Health::Ok);
    let [request] = script.seen().try_into().expect("one request");
    let [log] = logs(&request).try_into().expect("one log");
    assert_eq!(log["id"], record.id().to_string());
    assert_eq!(log["request"], "{\"a\":1,\"a\":2}");
    assert_eq!(log["response"], "{\"n\":1e400}");
    assert_eq!(log["streamed_data"], "[{\"x\":\"\\ud800\"}]");
    assert_eq!(log["metadata"]["truncated"], Value::Null);
    assert_eq!(log["resource"]["service.name"], "noveum_ai_gateway");
}

#[tokio::test]
async fn batches_are_split_before_they_are_sent() {
    let script = Arc::new(Script::default());
    (0..3).for_each(|_| {
        script.answer(202, "{}");
    });
    let exporter = exporter(&json!({}), &script);
    let many: Vec<_> = (0..2001).map(|n| fresh(&format!("{{\"n\":{n}}}"), "{}", None)).collect();
    assert_eq!(exporter.export(&many).await, Delivery::Delivered);
    let counts: Vec<_> = script.seen().iter().map(|request| logs(request).len()).collect();
    assert_eq!(counts, [1000, 1000, 1]);

    (0..2).for_each(|_| {
        script.answer(202, "{}");
    });
    let body = format!("\"{}\"", "x".repeat(400_000));
    let large: Vec<_> = (0..7).map(|_| fresh(&body, &body, None)).collect();
    assert_eq!(exporter.export(&large).await, Delivery::Delivered);
    let counts: Vec<_> = script.seen().iter().map(|request| logs(request).len()).collect();
    assert_eq!(counts, [6, 1]);
}

/// What Datadog has acknowledged is not sent again because the rest took too long.
#[tokio::test(start_paused = true)]
async fn an_export_that_is_cut_off_leaves_what_it_knows() {
    let script = Arc::new(Script::default());
    script.answer(202, "{}").hang();
    let exporter = exporter(&json!({}), &script);
    let many: Vec<_> = (0..2001).map(|n| fresh(&format!("{{\"n\":{n}}}"), "{}", None)).collect();
    assert!(tokio::time::timeout(Duration::from_secs(30), exporter.export(&many)).await.is_err());
    let [sent, unknown, open] = [ItemOutcome::Delivered, ItemOutcome::Unknown, ItemOutcome::Retry];
    let known = [vec![sent; 1000], vec![unknown; 1000], vec![open]].concat();
    assert_eq!(exporter.cut_off(&many), Delivery::Items(known));
}

/// What Datadog would cut at 1 MB is cut here, and says by how much.
#[tokio::test]
async fn a_log_that_is_too_large_loses_events_then_ends_of_bodies() {
    let text = |n: usize| format!("\"{}\"", "ä".repeat(n / 2 - 1));
    let quotes = format!("\"{}\"", "\\\"".repeat(300_000));
    for (request, response, events, expected) in [
        (text(10), text(400_000), Some(text(700_000)), [0, 0, 700_000]),
        (text(700_000), text(700_000), None, [250_000, 250_000, 0]),
        // Escapes take as much room again.
        (quotes, "{}".to_owned(), None, [150_002, 0, 0]),
    ] {
        let script = Arc::new(Script::default());
        script.answer(202, "{}");
        let record = fresh(&request, &response, events.as_deref());
        assert_eq!(exporter(&json!({}), &script).export(&[record]).await, Delivery::Delivered);
        let [request] = script.seen().try_into().expect("one request");
        let [log] = logs(&request).try_into().expect("one log");
        let cut = &log["metadata"]["truncated"];
        let cut = ["request", "response", "streamed_data"].map(|key| cut[key].as_i64().unwrap_or(0));
        for (cut, expected) in cut.into_iter().zip(expected) {
            assert!((cut - expected).abs() <= 2, "{cut} of {expected}");
        }
        let kept = i64::try_from(log["response"].as_str().expect("a text").len()).expect("a length");
        assert_eq!(
            Ok(kept + cut[1]),
            i64::try_from(response.len()),
            "what is left and what is not make the whole"
        );
    }
}

#[tokio::test]
async fn records_that_datadog_would_drop_are_rejected() {
    let script = Arc::new(Script::default());
    script.answer(202, "{}");
    let exporter = exporter(&json!({}), &script);
    let mut records = batch(1);
    records.push(fresh("{}", "{}", None));
    let Delivery::Items(outcomes) = exporter.export(&records).await else { panic!("items") };
    let ItemOutcome::Rejected { reason } = &outcomes[0] else { panic!("rejected: {outcomes:?}") };
    assert!(reason.contains("18 hours"), "{reason}");
    assert_eq!(outcomes[1], ItemOutcome::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    assert_eq!(logs(&request).len(), 1);
}

#[tokio::test]
async fn whole_answers_are_judged() {
    let refused = |part: &'static str| (part, true);
    for (status, expected, part) in [
        (202, Some(Delivery::Delivered), refused("")),
        (200, Some(Delivery::Delivered), refused("")),
        (400, Some(Delivery::Items(vec![ItemOutcome::Rejected { reason: "HTTP 400".into() }])), refused("")),
        (401, None, refused("DD_API_KEY")),
        (403, None, refused("DD_SITE")),
        (404, None, refused("logs_url")),
        (301, None, refused("site")),
        (408, Some(Delivery::Retry { after: None }), refused("")),
        (413, Some(Delivery::TooLarge), refused("")),
        (429, Some(Delivery::Retry { after: None }), refused("")),
        (500, Some(Delivery::Retry { after: None }), refused("")),
        (503, Some(Delivery::Retry { after: None }), refused("")),
    ] {
        let script = Arc::new(Script::default());
        script.answer(status, "{\"errors\":[\"canary\"]}");
        let answer = exporter(&json!({}), &script).export(&[fresh("{}", "{}", None)]).await;
        match (expected, answer) {
            (Some(expected), answer) => assert_eq!(answer, expected, "{status}"),
            (None, Delivery::Refused { reason }) => {
                assert!(reason.contains(part.0) && !reason.contains("canary"), "{reason}");
                assert!(!reason.contains(KEY));
            }
            (None, other) => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_servers_delay_and_silence() {
    let script = Arc::new(Script::default());
    let busy = Response::builder().status(429).header("retry-after", "7").body(Bytes::new()).expect("answer");
    script.then(Ok(busy)).then(Err(HttpError::Connect("refused".into())));
    script.then(Err(HttpError::NoAnswer("closed".into()))).answer(202, "{}");
    let exporter = exporter(&json!({}), &script);
    for (expected, healthy) in [
        (Delivery::Retry { after: Some(Duration::from_secs(7)) }, false),
        (Delivery::Retry { after: None }, false),
        (Delivery::Unknown, false),
        (Delivery::Delivered, true),
    ] {
        assert_eq!(exporter.export(&[fresh("{}", "{}", None)]).await, expected);
        assert_eq!(exporter.health().await == Health::Ok, healthy);
    }
}

#[tokio::test]
async fn init_asks_whether_the_key_is_valid() {
    for (status, ok, healthy) in
        [(200, true, true), (401, false, false), (403, false, false), (404, true, false), (503, true, false)]
    {
        let script = Arc::new(Script::default());
        script.answer(status, "{\"valid\":true}");
        let exporter = exporter(&json!({ "site": "datadoghq.eu" }), &script);
        let result = exporter.init(&TelemetryConfig::default()).await.map_err(|e| e.to_string());
        assert_eq!((result.is_ok(), exporter.health().await == Health::Ok), (ok, healthy), "{status}");
        if let Err(error) = result {
            assert!(
                error.contains("DD_API_KEY") && error.contains("DD_SITE") && !error.contains(KEY),
                "{error}"
            );
        }
        let [request] = script.seen().try_into().expect("one request");
        assert_eq!(request.uri().to_string(), "https://api.datadoghq.eu/api/v1/validate");
        assert_eq!(
            (request.method().as_str(), &request.headers()["dd-api-key"]),
            ("GET", &KEY.parse().expect("key"))
        );
    }
    let script = Arc::new(Script::default());
    script.then(Err(HttpError::Connect("no such name".into())));
    let error = exporter(&json!({}), &script).init(&TelemetryConfig::default()).await.expect_err("nobody");
    assert!(error.to_string().contains("api.datadoghq.com"));
}

/// What the gateway may count: a counter, a gauge, a histogram, at a known moment.
fn snapshot(registry: &Arc<MetricRegistry>) -> MetricsSnapshot {
    let meter = registry.meter("magicapi");
    meter.u64_counter("requests").with_labels(&["model", "user"]).build().add(3, &[("model", "gpt, 4o")]);
    meter.u64_gauge("queue.bytes").with_unit("By").build().record(64, &[]);
    let seconds = meter.f64_histogram("latency").with_unit("s").with_boundaries(vec![1.0, 2.0]).build();
    for value in [0.5, 1.5, 1.6, 9.0] {
        seconds.record(value, &[]);
    }
    let mut snapshot = registry.snapshot();
    // The exporter is as old as the registry, whenever the snapshot says it was taken.
    snapshot.taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    snapshot.started_at = snapshot.taken_at - Duration::from_secs(15);
    snapshot
}

#[tokio::test]
async fn metrics_are_what_was_added() {
    let script = Arc::new(Script::default());
    script.answer(202, "{\"errors\":[]}").answer(202, "{\"status\":\"ok\"}");
    let exporter = exporter(&json!({ "hostname": "gw-1", "tags": ["team:core"] }), &script);
    let registry = Arc::new(MetricRegistry::default());
    let mut names = TelemetryConfig::default();
    names.service_version = "1.0.0".into();
    names.deployment_environment = Some("production".into());
    names.service_instance_id = Some("i-1".into());
    let check = Arc::clone(&script);
    check.answer(200, "{}");
    // `init` takes the first answer, whatever it is.
    exporter.init(&names).await.expect("init");
    script.seen();
    assert_eq!(exporter.export_metrics(&snapshot(&registry)).await, Delivery::Delivered);
    let [series, points] = script.seen().try_into().expect("two requests");
    assert_eq!(series.uri().to_string(), "https://api.datadoghq.com/api/v2/series");
    assert_eq!(points.uri().to_string(), "https://api.datadoghq.com/api/v1/distribution_points");
    assert!(series.body().len() <= 512_000);
    let body = |request, coding| serde_json::from_str::<Value>(&head(request, coding)).expect("json");
    insta::assert_json_snapshot!(json!([body(&series, "gzip"), body(&points, "deflate")]));
}

#[tokio::test]
async fn metrics_that_were_not_taken_come_again() {
    let script = Arc::new(Script::default());
    script.answer(429, "").answer(202, "").answer(202, "").answer(403, "");
    let exporter = exporter(&json!({}), &script);
    let registry = Arc::new(MetricRegistry::default());
    let mut taken = snapshot(&registry);
    assert_eq!(exporter.export_metrics(&taken).await, Delivery::Retry { after: None });
    assert_eq!(script.seen().len(), 2);
    taken.taken_at += Duration::from_secs(15);
    // The distribution was taken, so what is asked again is the series alone.
    assert_eq!(exporter.export_metrics(&taken).await, Delivery::Delivered);
    let [again] = script.seen().try_into().expect("one request");
    let body: Value = serde_json::from_str(&head(&again, "gzip")).expect("json");
    let requests = body["series"].as_array().expect("series").iter().find(|one| one["type"] == 1);
    let requests = requests.expect("the counter");
    assert_eq!((&requests["points"][0]["value"], &requests["interval"]), (&json!(3.0), &json!(15)));
    taken.taken_at += Duration::from_secs(15);
    assert!(matches!(exporter.export_metrics(&taken).await, Delivery::Refused { .. }));
    assert!(matches!(exporter.health().await, Health::Down(_)));
}

#[tokio::test]
async fn metrics_can_be_off() {
    let script = Arc::new(Script::default());
    let exporter = exporter(&json!({ "metrics": false }), &script);
    let registry = Arc::new(MetricRegistry::default());
    assert_eq!(exporter.export_metrics(&snapshot(&registry)).await, Delivery::Delivered);
    assert!(script.seen().is_empty());
}

#[test]
fn settings_are_checked_without_a_connection() {
    let script = Arc::new(Script::default());
    for (settings, part) in [
        (json!({}), "api_key: missing; set it, or the variable DD_API_KEY"),
        (json!({ "api_key": " " }), "api_key: missing"),
        (json!({ "api_key": "canary\ncanary" }), "api_key: expected the 32 characters"),
        (
            json!({ "api_key": "k", "site": "https://datadoghq.eu" }),
            "site: \"https://datadoghq.eu\" is no site",
        ),
        (json!({ "api_key": "k", "site": "us1" }), "site: \"us1\" is no site"),
        (json!({ "api_key": "k", "site": "app.datadoghq.eu" }), "site: \"app.datadoghq.eu\" names a host"),
        (json!({ "api_key": "k", "logs_url": "x:1" }), "logs_url: begins with neither"),
        (json!({ "api_key": "k", "api_url": "http://u:canary@x" }), "api_url: holds a user"),
        (json!({ "api_key": "k", "tags": ["a:b,c:d"] }), "tags: \"a:b,c:d\" is no tag"),
        (json!({ "api_key": "k", "tags": ["1:b"] }), "tags: \"1:b\" is no tag"),
        (json!({ "api_key": "k", "tags": vec!["a:b"; 51] }), "tags: 51 tags"),
        (json!({ "api_key": "k", "sight": "x" }), "sight"),
    ] {
        let error = create(&DatadogPlugin, settings.clone(), &script).err().unwrap_or_default();
        assert!(error.contains(part) && !error.contains("canary"), "{settings}: {error}");
    }
    assert!(create(&DatadogPlugin, json!({ "api_key": "k", "site": "", "hostname": "" }), &script).is_ok());
}

#[test]
fn the_spec_names_the_variables() {
    let spec = SettingsSpec::of::<DatadogSettings>();
    let key = |name: &str| spec.keys().iter().find(|key| key.name == name).cloned().expect("a key");
    assert_eq!((key("api_key").kind, key("api_key").env.as_deref()), (ValueKind::Secret, Some("DD_API_KEY")));
    assert_eq!(
        (key("site").default, key("site").env.as_deref()),
        (Some(json!("datadoghq.com")), Some("DD_SITE"))
    );
}

/// What waits for longer would be refused in the end.
#[test]
fn records_wait_no_longer_than_the_back_end_takes_them() {
    let waits =
        magicapi_plugin::TelemetryPlugin::settings(&DatadogPlugin).default_max_age().expect("a default");
    assert!(waits < encode::WINDOW && waits > encode::WINDOW / 2);
}
