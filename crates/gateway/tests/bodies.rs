//! Bodies that are large, binary or of unknown length, both ways: held or passed through, never changed.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::fmt::Write;

use crate::scene::{Scene, stop};
use bytes::Bytes;
use magicapi_testkit::ask::{CHAT, buffered, json_request, streaming};
use magicapi_testkit::wire::{Wire, chunk, patiently, request, request_head};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// Every byte value, NUL first, in no order that a text would have.
fn binary(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at * 167 + at / 251) % 256).expect("a byte")).collect()
}

fn multipart(file: &[u8]) -> Vec<u8> {
    let head = "--xBOUNDARYx\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
                --xBOUNDARYx\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\\\"b ü.bin\"\r\n\
                content-type: application/octet-stream\r\n\r\n";
    [head.as_bytes(), file, b"\r\n--xBOUNDARYx--\r\n"].concat()
}

const MULTIPART: (&str, &str) = ("content-type", "multipart/form-data; boundary=xBOUNDARYx");

/// A chat body of exactly `size` bytes.
fn chat_of(size: usize) -> Vec<u8> {
    let frame = |text: &str| {
        format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{text}"}}]}}"#)
    };
    frame(&"x".repeat(size - frame("").len())).into_bytes()
}

#[tokio::test]
async fn a_request_of_64_mib_goes_through_and_one_byte_more_does_not() {
    let scene = Scene::start(json!({})).await;
    let body = chat_of(64 * MIB);
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&json_request(CHAT, "large", &json!({ "text": "a b" }), &body)).await;
    let answer = patiently("the answer", wire.answer()).await.expect("an answer");
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    let sent = scene.mock.received().pop().expect("a request");
    assert!(sent.body == body, "the provider got other bytes");
    assert_eq!(scene.gateway.data_plane().await["held_bytes"], 0, "given back");
    // Announced as too long, and found to be.
    let over = chat_of(64 * MIB + 1);
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let length = over.len().to_string();
    let headers = [
        ("content-type", "application/json"),
        ("x-thread-id", "announced"),
        ("content-length", length.as_str()),
    ];
    wire.send(&request_head("POST", CHAT, &headers)).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 413);
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let headers =
        [("content-type", "application/json"), ("x-thread-id", "found"), ("transfer-encoding", "chunked")];
    wire.send(&request_head("POST", CHAT, &headers)).await;
    for part in over.chunks(MIB) {
        wire.try_send(&chunk(part)).await;
    }
    assert!(wire.answer().await.is_none_or(|answer| answer.head.status == 413));
    assert_eq!(scene.mock.stats().requests, 1);
    let left = stop(scene.gateway).await;
    let metadata = left.metadata("large");
    assert_eq!((&metadata["outcome"], &metadata["request_size"]), (&json!("completed"), &json!(64 * MIB)));
    assert_eq!(metadata["truncated"]["request"], 48 * MIB, "the record holds 16 MiB and says so");
    for case in ["announced", "found"] {
        assert_eq!(left.metadata(case)["outcome"], "blocked", "{case}");
        assert_eq!(left.metadata(case)["status_code"], 413, "{case}");
        assert_eq!(left.row(case).attempts.len(), 0, "{case}");
    }
}

#[tokio::test]
async fn an_edit_of_a_large_body_touches_nothing_else() {
    let scene = Scene::start(json!({})).await;
    let mut text = String::new();
    for n in 0..200_000 {
        write!(text, "{n} ü \\u00fc \\n ").expect("text");
    }
    let body = format!(
        r#"{{ "model" : "openai/gpt-4o-mini","x":1E40, "stream":true,"messages":[{{"role":"user","content":"{text}"}}],"x":-0.0 }}"#
    );
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&json_request(CHAT, "edited", &json!({ "text": "a" }), body.as_bytes())).await;
    assert_eq!(patiently("the answer", wire.answer()).await.expect("an answer").head.status, 200);
    let sent = scene.mock.received().pop().expect("a request").body;
    let sent = String::from_utf8(sent.to_vec()).expect("text");
    let added = sent.find(r#""stream_options""#).expect("the edit");
    let inserted = &sent[added..sent[added..].find('}').map(|end| added + end + 1).expect("its end")];
    let undone = sent.replace(&format!(",{inserted}"), "").replace(&format!("{inserted},"), "");
    assert!(
        undone == body.replace("openai/gpt-4o-mini", "gpt-4o-mini"),
        "more than model and option changed"
    );
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("edited")["edits"], json!(["model", "stream_options"]));
}

#[tokio::test]
async fn binary_uploads_pass_through_unread() {
    let scene = Scene::start(json!({})).await;
    let file = binary(5 * MIB + 3);
    let body = multipart(&file);
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let headers = [MULTIPART, ("x-thread-id", "known"), ("authorization", "Bearer own")];
    wire.send(&request("POST", "/v1/audio/transcriptions", &headers, &body)).await;
    let answer = patiently("the answer", wire.answer()).await.expect("an answer");
    assert_eq!(answer.json()["file_bytes"], file.len(), "{}", answer.text());
    let headers = [
        MULTIPART,
        ("x-thread-id", "chunked"),
        ("authorization", "Bearer own"),
        ("transfer-encoding", "chunked"),
    ];
    wire.send(&request_head("POST", "/v1/files", &headers)).await;
    for part in body.chunks(100_003) {
        wire.send(&chunk(part)).await;
    }
    wire.send(b"0\r\n\r\n").await;
    let answer = patiently("the answer", wire.answer()).await.expect("an answer");
    assert_eq!(answer.json()["bytes"], file.len(), "{}", answer.text());
    let received = scene.mock.received();
    assert!(received.iter().all(|sent| sent.body == body), "the provider got other bytes");
    let length = body.len().to_string();
    assert_eq!(received[0].header("content-length"), Some(length.as_str()), "a known length stays known");
    assert_eq!(received[1].header("content-length"), None);
    assert_eq!(received[1].header("content-type"), Some(MULTIPART.1));
    let left = stop(scene.gateway).await;
    for case in ["known", "chunked"] {
        let record = &left.record(case)["attributes"];
        assert_eq!(record["metadata"]["outcome"], "completed", "{case}");
        assert_eq!(record["metadata"]["request_size"], body.len(), "{case}");
        let parts = record["request"]["parts"].as_array().expect("parts");
        assert_eq!(parts.len(), 2, "{case}");
        assert_eq!((&parts[1]["name"], &parts[1]["bytes"]), (&json!("file"), &json!(file.len())), "{case}");
        assert!(
            parts[1]["sha256"].is_string() && parts[1]["text"].is_null(),
            "{case}: no binary in a record"
        );
    }
}

#[tokio::test]
async fn speech_comes_back_byte_for_byte() {
    const SIZE: usize = 3 * MIB + 7;
    let scene = Scene::start(json!({})).await;
    let body = json!({ "model": "tts-1", "input": "hello", "voice": "alloy", "response_format": "opus" });
    let script = json!({ "bytes": SIZE, "write_bytes": 70_001 });
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&json_request("/v1/audio/speech", "speech", &script, body.to_string().as_bytes())).await;
    let answer = patiently("the answer", wire.answer()).await.expect("an answer");
    assert_eq!(answer.head.header("content-type"), Some("audio/opus"));
    assert_eq!(answer.head.header("content-length"), Some(SIZE.to_string().as_str()));
    let expected: Bytes = (0..=u8::MAX).cycle().take(SIZE).collect();
    assert!(answer.whole && answer.body() == expected, "other bytes, or not all");
    let left = stop(scene.gateway).await;
    let record = &left.record("speech")["attributes"];
    assert_eq!(record["metadata"]["outcome"], "completed");
    assert_eq!(record["metadata"]["response_size"], SIZE);
    assert_eq!(
        (&record["response"]["content_type"], &record["response"]["bytes"]),
        (&json!("audio/opus"), &json!(SIZE))
    );
    assert!(record["response"]["sha256"].is_string() && record["response"].get("text").is_none());
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_like_any() {
    let scene = Scene::start(json!({})).await;
    for (case, body) in [("buffered", buffered()), ("streamed", streaming())] {
        let script = json!({ "text": "a b" }).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("x-thread-id", case),
            ("x-mock", script.as_str()),
            ("transfer-encoding", "chunked"),
        ];
        let mut wire = Wire::connect(scene.gateway.socket()).await;
        wire.send(&request_head("POST", CHAT, &headers)).await;
        for byte in body.to_string().as_bytes() {
            wire.send(&chunk(&[*byte])).await;
        }
        wire.send(b"0\r\n\r\n").await;
        let answer = patiently(case, wire.answer()).await.expect("an answer");
        assert_eq!((answer.head.status, answer.whole), (200, true), "{case}");
        let sent = scene.mock.received().pop().expect("a request");
        assert_eq!(sent.header("transfer-encoding"), None, "{case}: held, so its length is known");
        let sent: Value = serde_json::from_slice(&sent.body).expect("JSON");
        assert_eq!(sent["messages"], body["messages"], "{case}");
    }
    let left = stop(scene.gateway).await;
    for (case, body) in [("buffered", buffered()), ("streamed", streaming())] {
        assert_eq!(left.metadata(case)["outcome"], "completed", "{case}");
        assert_eq!(left.metadata(case)["request_size"], body.to_string().len(), "{case}");
        assert_eq!(left.record(case)["attributes"]["request"], body, "{case}");
    }
}

#[tokio::test]
async fn large_documents_are_handed_on_as_read() {
    let scene = Scene::start(json!({})).await;
    let answer = scene.answer("large", &json!({ "bytes": 20 * MIB }), &buffered()).await;
    assert!(answer.whole && answer.body().len() == 20 * MIB);
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 2);
    let left = stop(scene.gateway).await;
    let metadata = left.metadata("large");
    assert_eq!(metadata["tokens"]["input"], 2, "usage is read whatever the record holds");
    assert_eq!(metadata["response_size"], 20 * MIB);
    assert!(metadata["truncated"]["response"].as_u64().is_some_and(|bytes| bytes > 0), "{metadata}");
}
