//! The exporter `datadog` against a server that parses Datadog's series with code that is not ours. (VictoriaLogs takes
//! Datadog's logs only with texts for attributes, which would lose every figure; Datadog itself takes numbers.)
//!
//! Start it with `eval "$(tests/servers/victoria/start.sh)"`; without them these tests say that they are skipped.

// clippy's leave for tests does not reach what tests call.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Method, Request};
use magicapi_exporters::datadog::DatadogPlugin;
use magicapi_plugin::{
    Delivery, HttpTransport, MetricRegistry, RequestId, Settings, TelemetryConfig, TelemetryExporter,
    TelemetryPlugin,
};
use serde_json::{Value, json};

use self::support::{PlainTransport, host};

#[allow(dead_code, reason = "only the client is needed")]
mod support;

/// The server that the environment names. The product's own settings come from `config`; this is a test's.
#[allow(clippy::disallowed_methods)]
fn server() -> Option<String> {
    let server = std::env::var("MAGICAPI_TEST_VICTORIAMETRICS").ok();
    if server.is_none() {
        println!("skipped: eval \"$(tests/servers/victoria/start.sh)\" sets MAGICAPI_TEST_VICTORIAMETRICS");
    }
    server
}

/// An exporter to it, marked with a tag of this run's own.
fn exporter(mark: &str) -> Option<(Box<dyn TelemetryExporter>, String)> {
    let metrics = server()?;
    let settings = json!({
        "api_key": "any", "hostname": "gw-1", "tags": [format!("run:{mark}")], "api_url": format!("{metrics}/datadog"),
    });
    let exporter = DatadogPlugin.create_exporter(Settings::from(settings), host()).expect("settings");
    Some((exporter, metrics))
}

fn mark() -> String {
    RequestId::mint().to_string().to_lowercase()
}

async fn ask(url: String, form: &'static str) -> Vec<Value> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("content-length", form.len())
        .body(Bytes::from_static(form.as_bytes()))
        .expect("a request");
    let answer = PlainTransport.send(request).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    let text = std::str::from_utf8(answer.body()).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
}

/// Asks until so many lines are there.
async fn until(count: usize, url: &str) -> Vec<Value> {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        let found = ask(url.to_owned(), "").await;
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < end, "{} of {count} from {url}", found.len());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test]
async fn counts_and_gauges_are_parsed() {
    let mark = mark();
    let Some((exporter, metrics)) = exporter(&mark) else { return };
    exporter.init(&TelemetryConfig::default()).await.expect("init");
    let registry = Arc::new(MetricRegistry::default());
    let meter = registry.meter("magicapi");
    let requests = meter.u64_counter("requests").with_labels(&["model"]).build();
    meter.u64_gauge("open").build().record(5, &[]);
    let mut at = SystemTime::now() - Duration::from_mins(5);
    for added in [3, 0, 4] {
        requests.add(added, &[("model", "gpt-test")]);
        let mut snapshot = registry.snapshot();
        snapshot.taken_at = at;
        assert_eq!(exporter.export_metrics(&snapshot).await, Delivery::Delivered);
        at += Duration::from_secs(15);
    }
    let export =
        |name: &str| format!("{metrics}/api/v1/export?match[]={{__name__=~%22{name}%22,run=%22{mark}%22}}");
    ask(format!("{metrics}/internal/force_flush"), "").await;
    let [counted] = until(1, &export("magicapi[_.]requests")).await.try_into().expect("one series");
    assert_eq!(counted["values"], json!([3, 4]), "{counted}");
    let labels = &counted["metric"];
    assert_eq!((&labels["model"], &labels["service"]), (&json!("gpt-test"), &json!("noveum_ai_gateway")));
    assert_eq!(labels["host"], "gw-1", "{labels}");
    let [open] = until(1, &export("magicapi[_.]open")).await.try_into().expect("one series");
    assert_eq!(open["values"], json!([5, 5, 5]), "{open}");
}
