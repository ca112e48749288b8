//! Every exporter of this crate passes the suite that every exporter should pass: one line each.

// clippy's leave for tests does not reach what tests call.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_compliance::{Suite, check};
use magicapi_exporters::console::ConsolePlugin;
use magicapi_exporters::datadog::DatadogPlugin;
use magicapi_exporters::elasticsearch::ElasticsearchPlugin;
use magicapi_exporters::exec::ExecPlugin;
use magicapi_exporters::file::FilePlugin;
use magicapi_exporters::newrelic::NewRelicPlugin;
use magicapi_exporters::otlp::OtlpPlugin;
use magicapi_exporters::postgres::PostgresPlugin;
use magicapi_exporters::prometheus::PrometheusPlugin;
use magicapi_exporters::webhook::WebhookPlugin;
use serde_json::{Value, json};

/// Tells the process that runs the case on `console` from the one that starts it.
const INNER: &str = "MAGICAPI_TEST_INNER";

/// Its output would drown that of the tests, so it runs in a process of its own.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test that starts itself")]
fn console_complies() {
    if std::env::var(INNER).is_ok() {
        return check(&ConsolePlugin, json!({}));
    }
    let this = std::env::current_exe().expect("this program");
    let mut again = Command::new(this);
    again.args(["--exact", "console_complies"]).env(INNER, "1").stdout(Stdio::null());
    assert!(again.status().expect("a process").success());
}

#[test]
fn datadog_complies() {
    let back_end = "http://{address}";
    check(
        &DatadogPlugin,
        json!({"api_key": "0123456789abcdef0123456789abcdef", "logs_url": back_end, "api_url": back_end}),
    );
}

#[test]
fn elasticsearch_complies() {
    let key = "VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw";
    let suite = Suite::of(
        &ElasticsearchPlugin,
        &json!({"url": "http://{address}", "api_key": key, "compression": "none"}),
    );
    suite.answering(bulk).check();
}

/// What a cluster says to records that are all new.
fn bulk(request: &Request<Bytes>) -> Response<Bytes> {
    let lines = request.body().split(|byte| *byte == b'\n').count();
    let items: Vec<Value> = (0..lines / 2).map(|_| json!({"create": {"status": 201}})).collect();
    Response::new(json!({"errors": false, "items": items}).to_string().into())
}

#[test]
fn exec_complies() {
    let plugin = r#"
import json, sys
print('{"ready": true}', flush=True)
for line in sys.stdin:
    if line != "\n":
        print(json.dumps({"id": json.loads(line)["attributes"]["id"], "ok": True}), flush=True)
"#;
    check(
        &ExecPlugin,
        json!({"command": ["python3", "-c", plugin], "env": {"TOKEN": "canary-of-a-variable"}}),
    );
}

#[test]
fn file_complies() {
    check(&FilePlugin, json!({"path": "{directory}/records.jsonl"}));
}

#[test]
fn newrelic_complies() {
    let key = "0123456789abcdef0123456789abcdefFFFFNRAL";
    check(&NewRelicPlugin, json!({"license_key": key, "url": "http://{address}"}));
}

/// The specification forbids to send again after 408 and 500: https://opentelemetry.io/docs/specs/otlp/#failures-1.
#[test]
fn otlp_complies() {
    let settings = json!({"endpoint": "http://{address}", "headers": "x-token=canary-of-a-header", "compression": "none"});
    Suite::of(&OtlpPlugin, &settings).final_statuses(&[408, 500]).check();
}

/// No database stands at the address: this shows what it makes of one that says no word of its protocol.
#[test]
fn postgres_complies() {
    let url = "postgres://gateway:canary-of-a-password@{address}/records?sslmode=disable";
    check(&PostgresPlugin, json!({"url": url}));
}

#[test]
fn prometheus_complies() {
    check(&PrometheusPlugin, json!({}));
}

#[test]
fn webhook_complies() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let headers = json!({"x-token": "canary-of-a-header"});
    check(
        &WebhookPlugin,
        json!({"url": "http://{address}/hook/canary-of-a-path", "secret": secret, "headers": headers}),
    );
}

/// A new exporter has to be added here.
#[test]
fn every_exporter_is_checked() {
    let source = include_str!("compliance.rs");
    let checked: BTreeSet<&str> =
        source.lines().filter_map(|line| line.strip_prefix("fn ")?.strip_suffix("_complies() {")).collect();
    assert_eq!(checked.into_iter().collect::<Vec<_>>(), magicapi_exporters::NAMES);
}
