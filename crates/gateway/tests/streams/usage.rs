//! Usage in streams: always asked for, shown to those who asked.

use magicapi_testkit::ask::{buffered, streaming, streaming_with_usage};
use serde_json::{Value, json};

use crate::scene::{Scene, stop};

const USAGE: &str = r#"{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":30}}"#;

fn usage() -> Value {
    serde_json::from_str(USAGE).expect("JSON")
}

fn usage_objects(events: &[String]) -> usize {
    let json = events.iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
    json.filter(|event| event["usage"].is_object()).count()
}

#[tokio::test]
async fn usage_is_asked_for_and_shown_to_those_who_asked() {
    let scene = Scene::start(json!({})).await;
    let mut refused = streaming();
    refused["stream_options"] = json!({ "include_usage": false });
    let mut other = streaming();
    other["stream_options"] = json!({ "include_obfuscation": false });
    let cases = [
        ("not asked", streaming(), 0),
        ("refused", refused, 0),
        ("another option", other, 0),
        ("asked", streaming_with_usage(), 1),
    ];
    for (case, body, shown) in &cases {
        let answer = scene.answer(case, &json!({ "text": "a b", "usage": usage() }), body).await;
        assert_eq!(usage_objects(&answer.events()), *shown, "{case}: {}", answer.text());
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{case}");
        assert_eq!(answer.text().contains("\"choices\":[]"), *shown == 1, "{case}");
        let sent = scene.mock.received().pop().expect("a request");
        let sent: Value = serde_json::from_slice(&sent.body).expect("JSON");
        assert_eq!(sent["stream_options"]["include_usage"], true, "{case}");
        assert_eq!(
            sent["stream_options"]["include_obfuscation"], body["stream_options"]["include_obfuscation"],
            "{case}: other options stay"
        );
    }
    let left = stop(scene.gateway).await;
    for (case, ..) in &cases {
        let tokens = &left.metadata(case)["tokens"];
        assert_eq!((&tokens["input"], &tokens["output"]), (&json!(100), &json!(40)), "{case}");
        assert_eq!((&tokens["cached"], &tokens["reasoning"]), (&json!(60), &json!(30)), "{case}");
        assert_eq!(left.metadata(case)["usage_final"], true, "{case}");
        let row = left.row(case);
        assert_eq!((row.usage.input, row.usage.cache_read), (Some(40), Some(60)), "{case}: disjoint");
        assert_eq!((row.usage.output, row.usage.output_reasoning), (Some(10), Some(30)), "{case}: disjoint");
        assert_eq!(row.attempts.len(), 1, "{case}");
        // The record keeps every event as the provider sent it, ours to hide or not.
        let response = &left.record(case)["attributes"]["response"];
        assert_eq!(response["usage"], usage(), "{case}");
        let kept = response["streamed_data"].as_array().expect("events");
        assert_eq!(kept.last().map(|event| &event["usage"]), Some(&usage()), "{case}");
    }
}

#[tokio::test]
async fn usage_beside_content_stays_and_the_last_value_counts() {
    let scene = Scene::start(json!({})).await;
    for placement in ["every_chunk", "always_final", "x_groq"] {
        let script = json!({ "text": "a b c d", "usage_placement": placement });
        let answer = scene.answer(placement, &script, &streaming()).await;
        assert!(answer.text().contains("\"prompt_tokens\":2"), "{placement}: {}", answer.text());
    }
    let none = json!({ "text": "a b c d", "usage_placement": "none" });
    scene.answer("none", &none, &streaming()).await;
    let left = stop(scene.gateway).await;
    for placement in ["every_chunk", "always_final", "x_groq"] {
        assert_eq!(left.metadata(placement)["tokens"]["output"], 4, "{placement}: the last, no sum");
        assert_eq!(left.metadata(placement)["tokens"]["total"], 6, "{placement}");
    }
    let unknown = left.metadata("none");
    assert_eq!(unknown["outcome"], "completed");
    assert_eq!(unknown["tokens"]["total"], Value::Null, "unknown is not 0");
    assert_eq!(unknown["cost"], Value::Null);
    assert_eq!(left.row("none").cost, None);
}

#[tokio::test]
async fn a_buffered_request_is_not_asked_for_usage_in_streams() {
    let scene = Scene::start(json!({})).await;
    let body = buffered();
    scene.answer("buffered", &json!({ "usage": usage() }), &body).await;
    let sent = scene.mock.received().pop().expect("a request");
    assert_eq!(sent.body, body.to_string(), "nothing to edit, nothing edited");
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("buffered")["tokens"]["total"], 140);
}

#[tokio::test]
async fn a_provider_that_answers_a_stream_with_json_is_forwarded_as_json() {
    let scene = Scene::start(json!({})).await;
    let document = json!({ "id": "x", "object": "chat.completion", "model": "m", "choices": [
        { "index": 0, "message": { "role": "assistant", "content": "whole" }, "finish_reason": "stop" }
    ], "usage": usage() });
    let text = document.to_string();
    let answer = scene.answer("json", &json!({ "body": text }), &streaming()).await;
    assert_eq!(answer.head.status, 200);
    assert_eq!(answer.head.header("content-type"), Some("application/json"));
    assert_eq!(answer.text(), text);
    let left = stop(scene.gateway).await;
    let metadata = left.metadata("json");
    assert_eq!((&metadata["outcome"], &metadata["streamed"]), (&json!("completed"), &json!(false)));
    assert_eq!(metadata["tokens"]["total"], 140);
    assert_eq!(left.record("json")["attributes"]["response"], document);
}
