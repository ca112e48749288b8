//! How much of the bodies is kept: limits, `capture.bodies`, and a level per exporter.

use std::sync::Arc;

use magicapi_plugin::ContentDropped;
use magicapi_testkit::ask::chat;
use magicapi_testkit::records::{line_of, parse};
use serde_json::{Value, json};
use tempfile::TempDir;

use magicapi_testkit::GatewayOptions;

use crate::scene::{BINARY, Scene};

#[tokio::test]
async fn past_a_limit_the_record_says_what_is_missing_and_figures_stay_exact() {
    let limits = json!({ "max_request": "1KiB", "max_response": "2KiB", "max_chunks": "4KiB" });
    let scene = Scene::start(json!({ "telemetry": { "capture": limits } })).await;
    let long = "x".repeat(3000);
    let body = json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": long }] });
    let usage = json!({ "prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16 });
    let script = json!({ "text": "y".repeat(5000), "usage": usage, "finish_reason": "length" });
    let answer = scene.chat("long", &script, &body).await;
    let record = scene.record("long").await["attributes"].take();
    let metadata = &record["metadata"];
    let size = body.to_string().len();
    assert_eq!(metadata["truncated"]["request"], size - 1024);
    assert_eq!(metadata["truncated"]["response"], answer.body.len() - 2048);
    assert_eq!(metadata["truncated"].get("streamed_data"), None);
    assert_eq!(record["request"]["text"].as_str(), Some(&body.to_string()[..1024]), "what fitted is kept");
    assert_eq!((&record["request"]["bytes"], &record["request"]["truncated"]), (&json!(size), &json!(true)));
    assert_exact(metadata);
    assert!(answer.text().contains(&"y".repeat(5000)), "the caller's answer is whole");

    let mut body = chat("gpt-4o-mini", &json!({ "stream": true }));
    body["stream_options"] = json!({ "include_usage": true });
    let script = json!({ "chunks": 600, "chunk_bytes": 10, "usage": usage, "finish_reason": "length" });
    let answer = scene.chat("long-stream", &script, &body).await;
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    let record = scene.record("long-stream").await["attributes"].take();
    let metadata = &record["metadata"];
    assert!(metadata["truncated"]["streamed_data"].as_u64() > Some(10_000), "{}", metadata["truncated"]);
    let kept = record["response"]["streamed_data"].as_array().expect("the events that fitted");
    assert!(!kept.is_empty() && kept.len() < 600, "{} events", kept.len());
    let kept = record["response"]["streamed_data"].to_string().len();
    assert!(kept <= 4096 + 256, "{kept} bytes of events");
    assert_exact(metadata);
}

fn assert_exact(metadata: &Value) {
    assert_eq!((&metadata["tokens"]["input"], &metadata["tokens"]["output"]), (&json!(7), &json!(9)));
    assert_eq!(metadata["finish_reasons"], json!(["length"]));
    assert_eq!(metadata["outcome"], "completed");
    assert!(metadata["cost"].is_f64(), "{}", metadata["cost"]);
}

/// Every exporter has its level; nobody gets more than is captured.
#[tokio::test]
async fn each_exporter_has_its_level() {
    let file = |name: &str, content: Option<&str>| {
        let mut entry = json!({ "type": "file", "name": name, "path": format!("{name}.jsonl"), "batch": { "age": "20ms" } });
        if let Some(content) = content {
            entry["content"] = json!(content);
        }
        entry
    };
    let captured = |bodies: &str, exporters: Vec<Value>| json!({ "telemetry": { "capture": { "bodies": bodies }, "exporters": exporters } });
    let all = vec![file("all", None), file("some", Some("no_chunks")), file("none", Some("metadata"))];
    let stream = chat("gpt-4o-mini", &json!({ "stream": true }));
    let scene = Scene::start(captured("full", all)).await;
    scene.chat("levels", &json!({}), &stream).await;
    let (whole, some, none) =
        (read(&scene, "all").await, read(&scene, "some").await, read(&scene, "none").await);
    assert!(whole["response"]["streamed_data"].as_array().is_some_and(|events| events.len() > 2));
    assert_eq!(whole["metadata"]["content_dropped"], Value::Null);
    assert_eq!((&some["request"], some["response"].get("streamed_data")), (&whole["request"], None));
    assert_eq!(some["response"]["choices"], whole["response"]["choices"]);
    assert_eq!((&none["request"], &none["response"]), (&Value::Null, &Value::Null));
    assert_eq!(none["metadata"]["content_dropped"], "config");
    for other in [&some, &none] {
        assert_eq!(other["id"], whole["id"], "one record");
        assert_eq!(other["metadata"]["tokens"], whole["metadata"]["tokens"]);
    }

    let scene = Scene::start(captured("no_chunks", vec![file("all", None)])).await;
    scene.chat("levels", &json!({}), &stream).await;
    let record = read(&scene, "all").await;
    assert_eq!(record["response"].get("streamed_data"), None);
    assert_eq!(record["response"]["choices"], some["response"]["choices"]);

    let scene = Scene::start(captured("metadata", vec![file("all", None)])).await;
    scene.chat("levels", &json!({}), &stream).await;
    let record = read(&scene, "all").await;
    assert_eq!((&record["request"], &record["response"]), (&Value::Null, &Value::Null));
    assert_eq!(record["metadata"]["content_dropped"], "config");
}

async fn read(scene: &Scene, name: &str) -> Value {
    parse(&line_of(&scene.gateway.path(format!("{name}.jsonl")), "levels").await)["attributes"].take()
}

#[test]
fn more_than_is_captured_is_refused_at_the_start() {
    let config = "telemetry:\n  capture: { bodies: metadata }\n  exporters: [ { type: file, path: x, content: full } ]\n";
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let (mut command, _kept) = GatewayOptions::new(BINARY).data_dir(&directory).config(config).command();
    let output = command.output().expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("telemetry.exporters[0].content") && said.contains("gateway.yaml:3"), "{said}");
}

/// `docs/record.md` names the reasons that there are, and no others.
#[test]
fn the_page_has_every_reason_why_bodies_are_missing() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/record.md"));
    let page = page.expect("the page");
    let row = page.lines().find_map(|line| line.strip_prefix("| `content_dropped` |")).expect("its row");
    let on_the_page: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
    let reasons = ContentDropped::ALL.iter();
    assert_eq!(on_the_page, reasons.clone().map(|reason| reason.as_str()).collect::<Vec<_>>());
    let written: Vec<_> = reasons.map(|reason| serde_json::to_value(reason).expect("a word")).collect();
    assert_eq!(written, on_the_page, "the record has the same words");
}
