//! Each key of `telemetry`: flipped, and the difference seen in records, metrics, threads or batches.
//!
//! `telemetry.metrics.interval` has no exporter yet that would show it; the telemetry crate's own test does.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::fs;

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::{RECORDS, configuration, records_file};
use magicapi_testkit::http::get;
use magicapi_testkit::wire::until;
use magicapi_testkit::{DEADLINE, Gateway, read_records};
use serde_json::{Value, json};

use crate::scene::{Scene, mock, options};

fn telemetry(changes: Value) -> Value {
    Value::Object([("telemetry".to_owned(), changes)].into_iter().collect())
}

/// A file exporter with changes, alone.
fn file_alone(changes: &Value) -> Value {
    telemetry(json!({ "exporters": [records_file(changes)] }))
}

/// An exporter whose back end refuses connections.
fn unreachable(changes: &Value) -> Value {
    let mut entry = json!({ "type": "elasticsearch", "url": "http://127.0.0.1:1" });
    for (name, value) in changes.as_object().expect("an object") {
        entry[name] = value.clone();
    }
    entry
}

/// What the admin plane says of an exporter.
async fn status(scene: &Scene, name: &str) -> Value {
    let details = scene.admin("/health/details").await.json();
    let exporters = details["exporters"].as_array().expect("exporters");
    exporters
        .iter()
        .find(|one| one["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {exporters:?}"))
        .clone()
}

#[tokio::test]
async fn telemetry_service_name_stands_in_each_record() {
    let scene = Scene::start(telemetry(json!({ "service_name": "another" }))).await;
    scene.ask(&json!({}), &[]).await;
    assert_eq!(scene.records(1).await[0]["resource"]["service.name"], "another");
}

#[tokio::test]
async fn telemetry_threads_are_so_many() {
    for threads in [1, 3] {
        let scene = Scene::start(telemetry(json!({ "threads": threads }))).await;
        let tasks = fs::read_dir(format!("/proc/{}/task", scene.gateway.pid)).expect("/proc");
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        assert_eq!(names.filter(|name| name.starts_with("assemble-")).count(), threads);
    }
}

#[tokio::test]
async fn telemetry_metrics_on_data_plane_opens_the_page() {
    for (open, status) in [(false, 404), (true, 200)] {
        let exporters = json!([{ "type": "prometheus" }]);
        let changes = telemetry(json!({ "metrics_on_data_plane": open, "exporters": exporters }));
        let scene = Scene::start(changes).await;
        assert_eq!(get(&scene.gateway.url("/metrics"), &[]).await.status, status, "{open}");
    }
}

async fn recorded(changes: Value) -> Value {
    let scene = Scene::start(changes).await;
    let answer = scene.streamed(&json!({ "text": "some words of an answer" })).await;
    assert_eq!(answer.status, 200);
    scene.last_of(1).await
}

#[tokio::test]
async fn telemetry_capture_bodies_says_what_records_hold() {
    let capture = |word: &str| telemetry(json!({ "capture": { "bodies": word } }));
    let full = recorded(capture("full")).await;
    assert!(full["request"]["messages"].is_array() && full["response"]["streamed_data"].is_array());
    let no_chunks = recorded(capture("no_chunks")).await;
    assert!(no_chunks["request"]["messages"].is_array() && no_chunks["response"]["choices"].is_array());
    assert!(!no_chunks["response"]["streamed_data"].is_array(), "{no_chunks}");
    let metadata = recorded(capture("metadata")).await;
    assert!(metadata["request"].is_null() && metadata["response"].is_null(), "{metadata}");
    assert_eq!(metadata["metadata"]["content_dropped"], "config");
}

#[tokio::test]
async fn telemetry_exporters_content_says_what_one_exporter_gets() {
    let record = recorded(file_alone(&json!({ "content": "metadata" }))).await;
    assert!(record["request"].is_null() && record["response"].is_null(), "{record}");
}

#[tokio::test]
async fn telemetry_capture_max_request_max_response_and_max_chunks_cut() {
    for (key, part) in
        [("max_request", "request"), ("max_response", "response"), ("max_chunks", "streamed_data")]
    {
        let record = recorded(telemetry(json!({ "capture": { key: "16B" } }))).await;
        let truncated = &record["metadata"]["truncated"];
        assert!(truncated[part].as_u64().is_some_and(|left_out| left_out > 0), "{key}: {truncated}");
        assert_eq!(truncated.as_object().map(serde_json::Map::len), Some(1), "{key}: {truncated}");
        assert_eq!(record["metadata"]["outcome"], "completed");
    }
}

#[tokio::test]
async fn telemetry_capture_memory_leaves_bodies_out() {
    let scene = Scene::start(telemetry(json!({ "capture": { "memory": "64KiB" } }))).await;
    let mut body = question();
    body["messages"][0]["content"] = json!("x".repeat(128 << 10));
    assert_eq!(scene.post(CHAT, &json!({}), &[], &body).await.status, 200);
    let record = scene.last_of(1).await;
    assert_eq!(record["metadata"]["content_dropped"], "memory", "{}", record["metadata"]);
    assert!(record["metadata"]["tokens"]["input"].is_u64());
}

#[tokio::test]
async fn telemetry_exporters_type_and_name_are_what_it_is_called() {
    let second = records_file(&json!({ "name": "audit", "path": "audit.jsonl" }));
    let scene = Scene::start(telemetry(json!({ "exporters": [records_file(&json!({})), second] }))).await;
    scene.ask(&json!({}), &[]).await;
    for (name, path) in [("file", RECORDS), ("audit", "audit.jsonl")] {
        until(name, async || (read_records(&scene.gateway.path(path)).len() == 1).then_some(())).await;
        assert_eq!(status(&scene, name).await["type"], "file");
    }
}

#[tokio::test]
async fn telemetry_exporters_file_path_is_where_records_are() {
    let scene = Scene::start(file_alone(&json!({ "path": "elsewhere.jsonl" }))).await;
    scene.ask(&json!({}), &[]).await;
    let path = scene.gateway.path("elsewhere.jsonl");
    until("a record", async || (read_records(&path).len() == 1).then_some(())).await;
    assert!(!scene.gateway.path(RECORDS).exists());
}

#[tokio::test]
async fn telemetry_exporters_require_healthy_ends_a_start_after_init_timeout() {
    let mock = mock().await;
    let changes = json!({ "require_healthy": true, "init_timeout": "300ms" });
    let config = configuration(&mock.base_url(), telemetry(json!({ "exporters": [unreachable(&changes)] })));
    // The default of 30 s would do as well; what shows `init_timeout` is the log's own clock.
    let begun = std::time::Instant::now();
    let mut gateway = Gateway::start(options(&config, &[])).await;
    assert_eq!(gateway.wait(DEADLINE).await.code(), Some(2));
    assert!(begun.elapsed() < std::time::Duration::from_secs(25), "the default of 30 s ended it");
    let lenient =
        Scene::start(telemetry(json!({ "exporters": [unreachable(&json!({ "init_timeout": "300ms" }))] })))
            .await;
    until("a failed init", async || {
        let status = status(&lenient, "elasticsearch").await;
        status["last_error"].is_string().then_some(())
    })
    .await;
    assert_eq!(lenient.ask(&json!({}), &[]).await.status, 200);
}

/// Sends requests until the second exporter, whose batches are soon due, has so many.
async fn beside_a_prompt_one(batch: Value, requests: usize) -> Scene {
    let mut slow = records_file(&json!({}));
    slow["batch"] = batch;
    // The default's age of 1 s, so that it is due when the default of the other key would be.
    let mut prompt = records_file(&json!({ "name": "prompt", "path": "prompt.jsonl" }));
    prompt["batch"] = json!({});
    let scene = Scene::start(telemetry(json!({ "exporters": [slow, prompt] }))).await;
    for number in 1..=requests {
        scene.ask(&json!({}), &[]).await;
        let path = scene.gateway.path("prompt.jsonl");
        until("a record", async || (read_records(&path).len() == number).then_some(())).await;
    }
    scene
}

#[tokio::test]
async fn telemetry_exporters_batch_age_is_how_long_a_batch_waits() {
    let mut scene = beside_a_prompt_one(json!({ "age": "10m" }), 2).await;
    assert_eq!(read_records(&scene.gateway.path(RECORDS)).len(), 0, "a batch went before its age");
    scene.gateway.signal("TERM");
    scene.gateway.wait(DEADLINE).await;
    assert_eq!(read_records(&scene.gateway.path(RECORDS)).len(), 2, "what waits is written at the end");
}

#[tokio::test]
async fn telemetry_exporters_batch_records_is_how_many_make_a_batch() {
    let scene = beside_a_prompt_one(json!({ "age": "10m", "records": 2 }), 1).await;
    assert_eq!(read_records(&scene.gateway.path(RECORDS)).len(), 0);
    scene.ask(&json!({}), &[]).await;
    scene.records(2).await;
}

#[tokio::test]
async fn telemetry_exporters_batch_bytes_make_a_batch() {
    let scene = Scene::start(file_alone(&json!({ "batch": { "age": "10m", "bytes": "8KiB" } }))).await;
    let mut body = question();
    body["messages"][0]["content"] = json!("x".repeat(16 << 10));
    scene.post(CHAT, &json!({}), &[], &body).await;
    scene.records(1).await;
}

#[tokio::test]
async fn telemetry_exporters_buffer_memory_bounds_what_waits() {
    let buffer =
        json!({ "buffer": { "memory": "32KiB", "when_full": "drop_oldest" }, "batch": { "bytes": "16KiB" } });
    let scene = Scene::start(telemetry(json!({ "exporters": [unreachable(&buffer)] }))).await;
    let mut body = question();
    body["messages"][0]["content"] = json!("x".repeat(8 << 10));
    for _ in 0..12 {
        assert_eq!(scene.post(CHAT, &json!({}), &[], &body).await.status, 200);
    }
    let status = until("dropped records", async || {
        Some(status(&scene, "elasticsearch").await).filter(|status| status["dropped"].as_u64() >= Some(8))
    })
    .await;
    assert!(status["queue_bytes"].as_u64().expect("bytes") <= 32 << 10, "{status}");
    assert!(status["queue_records"].as_u64().expect("records") >= 1, "the newest are kept: {status}");
}

#[tokio::test]
async fn telemetry_exporters_unknown_settings_are_refused() {
    let config = configuration("http://127.0.0.1:1/v1", file_alone(&json!({ "pth": "x" })));
    let said = options(&config, &[]).arg("check").output();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("telemetry.exporters[0].pth") && said.contains("`path`"), "{said}");
}
