//! `console`, `file` and `prometheus` through the binary, and the ways to switch exporters on and off.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "clippy sees no test here")]

mod scene;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use magicapi_mock::{MockOptions, MockServer};
use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::configuration::RECORDS;
use magicapi_testkit::http::{get, post_json};
use magicapi_testkit::records::{lines_with, parse};
use magicapi_testkit::wire::{Wire, request_head, until};
use magicapi_testkit::{DEADLINE, Gateway, GatewayOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{BINARY, Scene};

/// A gateway of the environment alone; with a list of exporters, or without the variable.
async fn from_environment(list: Option<&str>) -> (MockServer, Gateway) {
    let mock = MockServer::start(MockOptions::default()).await.expect("the mock");
    // A shell in front, so that standard output is a file.
    let mut options = GatewayOptions::new("sh")
        .arg("-c")
        .arg("exec \"$0\" \"$@\" > stdout")
        .arg(BINARY)
        .env("HOST", "127.0.0.1")
        .env("OPENAI_API_KEY", "sk-test")
        .env("OPENAI_BASE_URL", mock.base_url());
    if let Some(list) = list {
        options = options.env("ENABLED_EXPORTERS", list);
    }
    (mock, Gateway::start(options).await)
}

async fn ask(gateway: &Gateway, case: &str) {
    let body = chat("gpt-4o-mini", &json!({}));
    assert_eq!(post_json(&gateway.url(CHAT), &[("x-thread-id", case)], &body).await.status, 200);
}

async fn admin(gateway: &Gateway, path: &str) -> magicapi_testkit::Response {
    let token = format!("Bearer {}", gateway.admin_token());
    get(&gateway.admin_url(path), &[("authorization", &token)]).await
}

async fn names(gateway: &Gateway) -> Vec<Value> {
    let list = admin(gateway, "/api/v1/exporters").await.json()["data"].take();
    list.as_array().expect("exporters").iter().map(|exporter| exporter["name"].clone()).collect()
}

#[tokio::test]
async fn the_list_means_what_it_names() {
    // Unset: `prometheus`, on the admin plane alone. The embedded log is on whatever the list says.
    let (_mock, gateway) = from_environment(None).await;
    assert_eq!(names(&gateway).await, ["prometheus", "request_log"]);
    assert_eq!(get(&gateway.url("/metrics"), &[]).await.status, 404);
    assert_eq!(admin(&gateway, "/metrics").await.status, 200);

    for empty in ["", " ", ","] {
        let (_mock, gateway) = from_environment(Some(empty)).await;
        assert_eq!(names(&gateway).await, ["request_log"], "{empty:?}");
        assert_eq!(admin(&gateway, "/metrics").await.status, 404, "{empty:?}");
        ask(&gateway, "silent").await;
    }

    // Named: also where the original published it.
    let (_mock, gateway) = from_environment(Some("prometheus , console")).await;
    assert_eq!(names(&gateway).await, ["prometheus", "console", "request_log"]);
    let open = get(&gateway.url("/metrics"), &[]).await;
    assert_eq!((open.status, open.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
}

#[tokio::test]
async fn console_writes_records_to_stdout_and_nothing_else() {
    let (_mock, mut gateway) = from_environment(Some("console")).await;
    ask(&gateway, "first").await;
    ask(&gateway, "second").await;
    gateway.signal("TERM");
    assert_eq!(gateway.wait(DEADLINE).await.code(), Some(0));
    let written = std::fs::read_to_string(gateway.path("stdout")).expect("stdout");
    let threads: Vec<_> = written.lines().map(|line| parse(line)["attributes"]["thread_id"].take()).collect();
    assert_eq!(threads, ["first", "second"], "flushed at the end, one line each");
    assert!(written.ends_with('\n'));
    assert!(!gateway.log().join("\n").contains("hello there"), "the log has no content");
}

#[test]
fn what_cannot_be_used_stops_the_start() {
    let refused = |options: GatewayOptions| {
        let (mut command, _kept) = options.command();
        let output = command.output().expect("the binary");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    };
    let list = |names: &str| refused(GatewayOptions::new(BINARY).env("ENABLED_EXPORTERS", names));
    let unknown = list("prometheus,elastiksearch");
    assert!(unknown.contains("`elastiksearch`") && unknown.contains("elasticsearch"), "{unknown}");
    assert!(list("console,console").contains("twice"));
    assert!(list("request_log").contains("by itself"));
    let pathless = list("file");
    assert!(pathless.contains("`file`: `path`: missing"), "{pathless}");
    let both = GatewayOptions::new(BINARY)
        .env("ENABLED_EXPORTERS", "console")
        .config("telemetry:\n  exporters: [ { type: console } ]\n");
    let both = refused(both);
    assert!(both.contains("ENABLED_EXPORTERS") && both.contains("telemetry.exporters"), "{both}");
    let url = GatewayOptions::new(BINARY)
        .env("ENABLED_EXPORTERS", "elasticsearch")
        .env("ELASTICSEARCH_URL", "localhost:9200");
    let url = refused(url);
    assert!(url.contains("ELASTICSEARCH_URL") && url.contains("http://"), "{url}");
}

/// Rotation by somebody else: a file that was moved away is begun anew, a truncated one goes on at its beginning.
#[tokio::test]
async fn file_survives_rotation_and_is_private() {
    let scene = Scene::start(json!({})).await;
    let (path, moved) = (scene.gateway.path(RECORDS), scene.gateway.path("records.1"));
    let body = chat("gpt-4o-mini", &json!({}));
    scene.chat("before", &json!({}), &body).await;
    scene.line("before").await;
    assert_eq!(path.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
    std::fs::rename(&path, &moved).expect("moved");
    scene.chat("after", &json!({}), &body).await;
    scene.line("after").await;
    assert_eq!(lines_with(&moved, "thread_id", 1).await.len(), 1, "nothing more goes to the old one");
    std::fs::File::options().write(true).open(&path).expect("the file").set_len(0).expect("truncated");
    scene.chat("again", &json!({}), &body).await;
    let line = scene.line("again").await;
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), line, "no hole in front");
}

#[tokio::test]
async fn the_page_has_the_requests_and_is_well_formed() {
    let metrics = json!({ "telemetry": { "metrics_on_data_plane": true,
        "exporters": [{ "type": "prometheus" }, { "type": "file", "path": RECORDS }] } });
    let scene = Scene::start_in(&Arc::new(TempDir::new().expect("a directory")), metrics, |o| o).await;
    let before = scene.admin("/metrics").await.text();
    let body = chat("gpt-4o-mini", &json!({}));
    scene.chat("ok", &json!({}), &body).await;
    scene.chat("stream", &json!({}), &chat("gpt-4o-mini", &json!({ "stream": true }))).await;
    scene.chat("fails", &json!({ "error": { "status": 429 } }), &body).await;
    let unknown = json!({ "error": { "status": 404 } });
    scene.chat("nobody", &unknown, &chat("a-model-nobody-knows", &json!({}))).await;
    let page = until("all requests on the page", async || {
        let page = scene.admin("/metrics").await.text();
        (total(&page, "gateway_requests_total") == 4).then_some(page)
    })
    .await;
    assert_eq!(total(&before, "gateway_requests_total"), 0);
    assert!(!page.contains("a-model-nobody-knows"), "a caller's word makes no series");
    // The same page where the operator opened it, without a token.
    let open = get(&scene.gateway.url("/metrics"), &[]).await;
    assert_eq!((open.status, total(&open.text(), "gateway_requests_total")), (200, 4));
    let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
    let modern = get(&scene.gateway.url("/metrics"), &accept).await;
    assert!(modern.header("content-type").starts_with("application/openmetrics-text"));
    assert!(modern.text().ends_with("# EOF\n"));
    lint(&open.text());
}

/// The sum of a counter's series.
fn total(page: &str, name: &str) -> u64 {
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let value = |line: &str| {
        line.rsplit(' ').next().and_then(|value| value.trim_end_matches(".0").parse::<u64>().ok())
    };
    page.lines().filter(of).filter_map(value).sum()
}

/// Each bound of the data plane has a figure (invariant 9).
#[tokio::test]
async fn connections_and_held_bodies_are_on_the_page() {
    let limits = json!({ "server": { "limits": { "connections": 2 } },
        "telemetry": { "exporters": [{ "type": "prometheus" }] } });
    let scene = Scene::start(limits).await;
    let mut holding = Wire::connect(scene.gateway.socket()).await;
    let head =
        request_head("POST", CHAT, &[("content-length", "5000"), ("content-type", "application/json")]);
    holding.send(&[head, vec![b' '; 4000]].concat()).await;
    let page = async || scene.admin("/metrics").await.text();
    until("the held body", async || (total(&page().await, "gateway_held_bytes") >= 4000).then_some(())).await;
    let _second = Wire::connect(scene.gateway.socket()).await;
    until("both", async || (total(&page().await, "gateway_connections") == 2).then_some(())).await;
    assert_eq!(get(&scene.gateway.url("/health"), &[]).await.status, 503);
    assert_eq!(total(&page().await, "gateway_connections_refused_total"), 1);
    drop(holding);
    until("room", async || (total(&page().await, "gateway_held_bytes") == 0).then_some(())).await;
}

/// `promtool check metrics`, where it is installed.
fn lint(page: &str) {
    let linter = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut linter) = linter else {
        println!("skipped: promtool is not installed");
        return;
    };
    linter.stdin.take().expect("stdin").write_all(page.as_bytes()).expect("written");
    let output = linter.wait_with_output().expect("promtool");
    assert!(output.status.success(), "{}\n{page}", String::from_utf8_lossy(&output.stderr));
}
