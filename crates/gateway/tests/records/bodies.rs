//! Bodies in the record: JSON token for token, everything else described, codings undone beside the bytes on the wire.

use std::io::Write;

use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::http::request;
use serde_json::{Value, json};

use crate::scene::Scene;

/// Numbers that no float or integer type holds, in an order that no map would give.
const ODD: &str = r#"{"z":12345678901234567890123,"model":"gpt-4o-mini","e":1E5,"huge":1e400,"a":-0.0,"z":1.50,"messages":[{"content":"hi","role":"user"}]}"#;
const ODD_ANSWER: &str = r#"{"z":98765432109876543210987,"id":"x","n":1E5,"h":1e400,"choices":[{"finish_reason":"stop","index":0,"message":{"content":"hi","role":"assistant"}}],"usage":{"total_tokens":3,"prompt_tokens":2,"completion_tokens":1}}"#;

#[tokio::test]
async fn numbers_and_order_of_keys_are_kept() {
    let scene = Scene::start(json!({})).await;
    let script = json!({ "body": ODD_ANSWER }).to_string();
    let answer = scene.send(CHAT, "odd", &[("x-mock", &script)], ODD).await;
    assert_eq!(answer.text(), ODD_ANSWER);
    let line = scene.line("odd").await;
    assert!(line.contains(&format!("\"request\":{ODD},")), "{line}");
    assert!(line.contains(&format!("\"response\":{ODD_ANSWER},")), "{line}");
    assert!(line.contains("\"tokens\":{\"input\":2,\"output\":1,\"total\":3,"), "{line}");
    assert_eq!(scene.mock.received()[0].body, ODD, "and sent on as it was");

    let event =
        r#"{"z":12345678901234567890123,"x":1e400,"choices":[{"index":0,"delta":{"content":"a"},"n":1E5}]}"#;
    let script = json!({ "raw_chunks": [event] }).to_string();
    let body = chat("gpt-4o-mini", &json!({ "stream": true })).to_string();
    scene.send(CHAT, "odd-stream", &[("x-mock", &script)], body).await;
    let line = scene.line("odd-stream").await;
    assert!(line.contains(&format!("\"streamed_data\":[{event}]")), "{line}");
}

#[tokio::test]
async fn a_record_is_one_line_whatever_the_bodies_look_like() {
    let scene = Scene::start(json!({})).await;
    let body = "{\r\n  \"model\": \"gpt-4o-mini\",\n\t\"messages\": [{\"role\": \"user\", \"content\": \"a\\nb\"}]\n}\n";
    let script = json!({ "body": "{\n  \"choices\": []\n}\n" }).to_string();
    scene.send(CHAT, "lines", &[("x-mock", &script)], body).await;
    let record = scene.record("lines").await;
    assert_eq!(record["attributes"]["request"]["messages"][0]["content"], "a\nb");
    assert_eq!(record["attributes"]["metadata"]["request_size"], body.len());
    assert_eq!(record["attributes"]["response"], json!({ "choices": [] }));
}

#[tokio::test]
async fn what_is_no_json_is_described() {
    let scene = Scene::start(json!({})).await;
    let speech = json!({ "model": "tts-1", "input": "hello", "voice": "alloy" }).to_string();
    let answer = scene.send("/v1/audio/speech", "binary", &[("x-mock", "{\"bytes\":3000}")], speech).await;
    assert_eq!(answer.body.len(), 3000);
    let response = scene.record("binary").await["attributes"]["response"].take();
    assert_eq!((&response["bytes"], response.get("text")), (&json!(3000), None), "{response}");
    assert_eq!(response["content_type"], answer.header("content-type"));
    assert_eq!(response["sha256"].as_str().map(str::len), Some(64));

    let script = json!({ "body": "WEBVTT\n\nHällo", "content_type": "text/vtt" }).to_string();
    let (form, kind) = multipart();
    let headers = [("content-type", kind), ("x-mock", script.as_str())];
    let answer = scene.send("/v1/audio/transcriptions", "text", &headers, form.clone()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "WEBVTT\n\nHällo"));
    let record = scene.record("text").await["attributes"].take();
    assert_eq!(record["response"]["text"], "WEBVTT\n\nHällo");
    assert_eq!(record["response"]["content_type"], "text/vtt");
    // `printf 'WEBVTT\n\nHällo' | sha256sum`
    assert_eq!(
        record["response"]["sha256"],
        "163b2ffcb0d5bc470a7c992614a3e5ca29fb1e13b6c88f8488b4a8fc024b752a"
    );
    let parts = record["request"]["parts"].as_array().expect("parts");
    assert_eq!(parts.len(), 2, "{parts:?}");
    assert_eq!((&parts[0]["name"], &parts[0]["text"]), (&json!("model"), &json!("whisper-1")));
    assert_eq!((&parts[1]["name"], &parts[1]["filename"]), (&json!("file"), &json!("a.wav")));
    assert_eq!((&parts[1]["bytes"], parts[1].get("text")), (&json!(6), None), "binary is not shown");
    assert_eq!(record["metadata"]["request_size"], form.len());
    let received = scene.mock.received();
    assert_eq!(received[1].body, form, "and sent on as it was");
}

fn multipart() -> (Vec<u8>, &'static str) {
    let mut form = b"--b1\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n".to_vec();
    form.extend_from_slice(b"--b1\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n");
    form.extend_from_slice(b"content-type: audio/wav\r\n\r\n\x00\x01\xff\xfe\r\n\r\n--b1--\r\n");
    (form, "multipart/form-data; boundary=b1")
}

/// What the caller gets is what the provider sent, byte for byte; the record has what it says.
#[tokio::test]
async fn compressed_answers_are_forwarded_as_received_and_decoded_in_the_record() {
    let scene = Scene::start(json!({})).await;
    // Fixed texts: the mock's own answers count themselves.
    let usage = json!({ "prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7 });
    let whole = json!({ "id": "x", "choices": [{ "index": 0, "finish_reason": "stop",
        "message": { "role": "assistant", "content": "Hello to all of you" } }], "usage": usage });
    let delta = |text: &str| json!({ "id": "x", "choices": [{ "index": 0, "delta": { "content": text } }] });
    let last = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }], "usage": usage });
    let events = json!([delta("Hello to "), delta("all of you"), last]);
    for coding in ["gzip", "br", "zstd"] {
        for streams in [false, true] {
            let case = format!("{coding}-{streams}");
            let script = if streams {
                json!({ "content_encoding": coding, "raw_chunks": events })
            } else {
                json!({ "content_encoding": coding, "body": whole })
            };
            assert_as_received(&scene, &case, &script.to_string(), streams).await;
            let record = scene.record(&case).await["attributes"].take();
            let choice = &record["response"]["choices"][0];
            let said = if streams { &choice["delta"]["content"] } else { &choice["message"]["content"] };
            assert_eq!(said, "Hello to all of you", "{case}: {}", record["response"]);
            assert_eq!(record["metadata"]["tokens"]["total"], 7, "{case}: usage is read all the same");
            assert_eq!(record["metadata"]["outcome"], "completed", "{case}");
        }
    }
}

async fn assert_as_received(scene: &Scene, case: &str, script: &str, streams: bool) {
    let body = chat("gpt-4o-mini", &json!({ "stream": streams })).to_string();
    let coding = case.split('-').next().expect("a coding");
    let headers = [("x-mock", script), ("accept-encoding", coding)];
    let answer = scene.send(CHAT, case, &headers, body.clone()).await;
    assert_eq!(answer.header("content-encoding"), coding, "{case}: {}", answer.text());
    let typed = [headers[0], headers[1], ("content-type", "application/json")];
    let straight =
        request("POST", &format!("{}/chat/completions", scene.mock.base_url()), &typed, body).await;
    assert!(answer.body == straight.body, "{case}: not the provider's bytes");
    let size = scene.metadata(case).await["response_size"].take();
    assert_eq!(size, answer.body.len(), "{case}: as on the wire");
}

#[tokio::test]
async fn a_compressed_request_is_read_and_sent_on_as_received() {
    let scene = Scene::start(json!({})).await;
    let body = chat("gpt-4o-mini", &json!({})).to_string();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(body.as_bytes()).expect("bytes");
    let packed = packer.finish().expect("gzip");
    scene.send(CHAT, "packed", &[("content-encoding", "gzip")], packed.clone()).await;
    let record = scene.record("packed").await["attributes"].take();
    assert_eq!(record["request"], serde_json::from_str::<Value>(&body).expect("JSON"));
    assert_eq!(record["metadata"]["request_size"], packed.len());
    let received = &scene.mock.received()[0];
    assert_eq!(received.header("content-encoding"), Some("gzip"));
    assert_eq!(received.body, packed);
}
