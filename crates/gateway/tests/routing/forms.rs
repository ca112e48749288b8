//! Forms: the model in front of the file routes, is cut of its prefix and stands in the record; the file goes by.

use magicapi_testkit::Response;
use magicapi_testkit::http::request;
use serde_json::json;

use crate::scene::{Scene, hash_of};
use crate::start;

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=b");

fn field(name: &str, value: &str) -> Vec<u8> {
    format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
}

fn file(size: usize) -> Vec<u8> {
    let head = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    [head.as_bytes(), &vec![0xA5; size], b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), b"--b--\r\n".to_vec()].concat()
}

async fn sent(scene: &Scene, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let headers: Vec<_> = headers.iter().copied().chain([FORM]).collect();
    request("POST", &scene.gateway.url(TRANSCRIPTIONS), &headers, body.to_vec()).await
}

#[tokio::test]
async fn the_model_of_a_form_routes_and_loses_its_prefix() {
    let scene = start(json!({})).await;
    let written = |model: &str| form(&[field("language", "en"), field("model", model), file(3 << 20)]);
    let answer = sent(&scene, &[], &written("groq/whisper-large-v3")).await;
    assert_eq!((answer.status, answer.header("x-gateway-provider")), (200, "groq"), "{}", answer.text());
    assert_eq!(answer.header("x-gateway-model"), "whisper-large-v3");
    let received = scene.received();
    assert!(received.body == written("whisper-large-v3"), "nothing but the model's prefix changed");
    let length = received.body.len().to_string();
    assert_eq!(received.header("content-length"), Some(length.as_str()));
    let record = scene.last_of(1).await;
    let metadata = &record["metadata"];
    assert_eq!((&record["provider"], &record["model"]), (&json!("groq"), &json!("whisper-large-v3")));
    assert_eq!(metadata["requested_model"], "groq/whisper-large-v3");
    assert_eq!(metadata["edits"], json!(["model"]));
    assert_eq!(metadata["request_size"], written("groq/whisper-large-v3").len(), "as the caller sent it");
    assert_eq!(record["request"]["parts"][1]["text"], "groq/whisper-large-v3");
}

/// The model is waited for no longer than to the first file: such a form goes by header, path or to the dialect's own.
#[tokio::test]
async fn a_model_behind_the_file_is_not_looked_for() {
    let scene = start(json!({})).await;
    let body = form(&[file(100_000), field("model", "groq/whisper-large-v3")]);
    let answer = sent(&scene, &[], &body).await;
    assert_eq!(answer.header("x-gateway-provider"), "openai", "{}", answer.text());
    assert!(scene.received().body == body);
    let answer = sent(&scene, &[("x-provider", "groq")], &body).await;
    assert_eq!(answer.header("x-gateway-provider"), "groq");
    let long =
        form(&[field("prompt", &"x".repeat(70_000)), field("model", "groq/whisper-large-v3"), file(10)]);
    assert_eq!(sent(&scene, &[], &long).await.header("x-gateway-provider"), "openai");
    assert!(scene.received().body == long);
    assert_eq!(scene.last_of(3).await["metadata"]["requested_model"], json!(null));
}

/// A second `model` may stand behind the file, and who reads which is anybody's guess.
#[tokio::test]
async fn a_list_of_models_does_not_trust_a_form() {
    let key = |name: &str, models: &[&str]| json!({ "name": name, "hash": hash_of(name), "models": models });
    let keys = [key("one-model", &["openai/whisper-1"]), key("one-provider", &["openai/*"])];
    let scene = start(json!({ "auth": { "mode": "keys", "keys": keys } })).await;
    let body = form(&[field("model", "whisper-1"), file(10), field("model", "gpt-4o-transcribe")]);
    for (name, status) in [("one-model", 403), ("one-provider", 200)] {
        let authorization = format!("Bearer {name}");
        let answer = sent(&scene, &[("authorization", &authorization)], &body).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    assert_eq!(scene.mock.stats().requests, 1);
}
