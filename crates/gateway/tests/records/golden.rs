//! Whole records, pinned as files in `golden/records`. `UPDATE_GOLDEN=1` writes them anew.

use std::path::PathBuf;

use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::http::stream_json;
use serde_json::{Value, json};

use crate::scene::Scene;

/// Keys in `metadata` whose values are times.
const TIMES: [&str; 3] = ["latency", "ttfb", "provider_latency"];

/// Compares a record with its file, what differs from run to run put aside. The text is compared: order counts.
pub(crate) fn assert_golden(name: &str, record: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/records/{name}.json"));
    let text = format!("{:#}\n", normalised(record.clone()));
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, not a setting of the product")]
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    if update {
        std::fs::write(&path, &text).expect("a golden file");
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(pinned == text, "{} differs; the record is now:\n{text}", path.display());
}

/// Checks the form of what differs from run to run, and puts constants in its place.
fn normalised(mut record: Value) -> Value {
    let timestamp = record["timestamp"].as_str().expect("a timestamp");
    assert_eq!((timestamp.len(), timestamp.as_bytes().last()), (24, Some(&b'Z')), "{timestamp}");
    record["timestamp"] = json!("<timestamp>");
    assert_eq!(record["resource"]["service.version"], env!("CARGO_PKG_VERSION"));
    record["resource"]["service.version"] = json!("<version>");
    assert!(!record["resource"]["service.instance.id"].as_str().expect("an id").is_empty());
    record["resource"]["service.instance.id"] = json!("<instance>");
    let id = record["attributes"]["id"].as_str().expect("an id");
    assert!(id.starts_with("msg_") && id.len() == 40, "{id}");
    record["attributes"]["id"] = json!("<id>");
    let metadata = &mut record["attributes"]["metadata"];
    for key in TIMES {
        if !metadata[key].is_null() {
            assert!(metadata[key].is_u64(), "{key}: {}", metadata[key]);
            metadata[key] = json!("<ms>");
        }
    }
    if let Some((before, rest)) =
        metadata["error_message"].as_str().and_then(|text| text.split_once("127.0.0.1:"))
    {
        let message = format!("{before}<address>{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        metadata["error_message"] = json!(message);
    }
    if let Some(version) = metadata["price_version"].as_str() {
        metadata["price_version"] = json!(version.replacen(magicapi_providers::PRICES_VERSION, "<table>", 1));
    }
    record
}

#[tokio::test]
async fn buffered_streamed_and_refused_by_the_provider() {
    let scene = Scene::start(json!({})).await;
    let text = json!({ "text": "Good day.", "headers": { "x-request-id": "req_1" } });
    assert_eq!(scene.chat("buffered", &text, &chat("gpt-4o-mini", &json!({}))).await.status, 200);
    let asks = json!({ "stream": true, "stream_options": { "include_usage": true } });
    assert_eq!(scene.chat("streamed", &text, &chat("gpt-4o-mini", &asks)).await.status, 200);
    let error = json!({ "error": { "status": 429, "body": { "error": {
        "message": "Rate limit reached", "type": "requests", "param": null, "code": "rate_limit_exceeded" } } } });
    assert_eq!(scene.chat("provider_error", &error, &chat("gpt-4o-mini", &json!({}))).await.status, 429);
    for case in ["buffered", "streamed", "provider_error"] {
        assert_golden(case, &scene.record(case).await);
    }
}

#[tokio::test]
async fn a_client_that_leaves_midway() {
    let scene = Scene::start(json!({})).await;
    let script = json!({ "text": "one two three", "chunk_bytes": 4, "stall_after": 3 }).to_string();
    let body = chat("gpt-4o-mini", &json!({ "stream": true }));
    let headers = [("x-thread-id", "client_gone"), ("x-mock", script.as_str())];
    let mut answer = stream_json(&scene.gateway.url(CHAT), &headers, &body).await;
    let mut seen = String::new();
    while seen.matches("\n\n").count() < 3 {
        let piece = answer.next().await.expect("three events").expect("a piece");
        seen.push_str(&String::from_utf8_lossy(&piece.bytes));
    }
    drop(answer);
    assert_golden("client_gone", &scene.record("client_gone").await);
}

#[tokio::test]
async fn a_stream_that_breaks_midway() {
    let scene = Scene::start(json!({})).await;
    let script = json!({ "text": "one two three", "chunk_bytes": 4, "cut_after": 3 });
    let answer = scene.chat("stream_broken", &script, &chat("gpt-4o-mini", &json!({ "stream": true }))).await;
    assert!(answer.text().contains("\"stream_truncated\""), "{}", answer.text());
    assert_golden("stream_broken", &scene.record("stream_broken").await);
}
