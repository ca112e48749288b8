//! Forms: the model routes, is cut of its prefix and stands in the record, wherever in the form it is written.

use magicapi_testkit::Response;
use magicapi_testkit::http::request;
use magicapi_testkit::wire::{Wire, chunk, patiently, request_head};
use serde_json::{Value, json};

use crate::scene::{Scene, hash_of};
use crate::{assert_error, bearer, credentials_of, start};

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
    let scene = start(json!({ "server": { "limits": { "body": "1MiB" } } })).await;
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

const MINE: (&str, &str) = ("authorization", "Bearer sk-mine");

fn whisper_behind(file_bytes: usize, model: &str) -> Vec<u8> {
    form(&[file(file_bytes), field("model", model), field("language", "en")])
}

/// The order of OpenAI's own examples. Were the model not found, the caller's key for groq would go to OpenAI.
#[tokio::test]
async fn the_callers_key_goes_where_a_model_behind_the_file_points() {
    let scene = start(json!({})).await;
    for path in [TRANSCRIPTIONS, "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations"] {
        let body = whisper_behind(100_000, "groq/whisper-large-v3");
        let answer = request("POST", &scene.gateway.url(path), &[MINE, FORM], body).await;
        // The mock knows transcriptions alone; where the others went is what counts.
        assert!(answer.status == 200 || path != TRANSCRIPTIONS, "{path}: {}", answer.text());
        assert_eq!(answer.header("x-gateway-provider"), "groq", "{path}");
        let received = scene.received();
        assert!(received.path.starts_with("/groq/"), "{path}: {}", received.path);
        assert_eq!(credentials_of(&received), bearer("sk-mine"), "{path}");
        let expected = whisper_behind(100_000, "whisper-large-v3");
        assert!(received.body == expected, "{path}: nothing but the model's prefix changed");
        assert_eq!(received.header("content-length"), Some(expected.len().to_string().as_str()), "{path}");
    }
    let record = scene.last_of(4).await;
    assert_eq!(record["metadata"]["requested_model"], "groq/whisper-large-v3");
    assert_eq!(record["metadata"]["request_size"], whisper_behind(100_000, "groq/whisper-large-v3").len());
    assert_eq!(scene.mock.stats().requests, 4);
}

#[tokio::test]
async fn a_form_routes_alike_however_it_is_cut_into_pieces() {
    let scene = start(json!({})).await;
    let body = whisper_behind(80_000, "groq/whisper-large-v3");
    for size in [1, 7, 1000, 66_000] {
        // Single bytes where they matter; a file in single bytes would only take long.
        let (before, behind) = body.split_at(body.len() - 200);
        let mut wire = Wire::connect(scene.gateway.socket()).await;
        wire.send(&request_head("POST", TRANSCRIPTIONS, &[MINE, FORM, ("transfer-encoding", "chunked")]))
            .await;
        for piece in before.chunks(size.max(500)).chain(behind.chunks(size)) {
            wire.send(&chunk(piece)).await;
        }
        wire.send(b"0\r\n\r\n").await;
        let answer = patiently("the answer", wire.answer()).await.expect("an answer");
        assert_eq!(answer.head.status, 200, "{size}: {}", answer.text());
        assert!(scene.received().body == whisper_behind(80_000, "whisper-large-v3"), "{size}");
        assert!(scene.received().path.starts_with("/groq/"), "{size}");
    }
}

/// Who is pointed elsewhere needs no model: no more is read than the beginning, and the file goes by.
#[tokio::test]
async fn a_model_behind_the_file_is_not_looked_for_where_header_or_path_points() {
    let scene = start(json!({ "server": { "limits": { "body": "64KiB" } } })).await;
    let body = whisper_behind(100_000, "groq/whisper-large-v3");
    let answer = sent(&scene, &[MINE, ("x-provider", "groq")], &body).await;
    assert_eq!((answer.status, answer.header("x-gateway-provider")), (200, "groq"), "{}", answer.text());
    assert!(scene.received().body == body);
    let url = scene.gateway.url("/proxy/groq/audio/transcriptions");
    let answer = request("POST", &url, &[MINE, FORM], body.clone()).await;
    assert_eq!((answer.status, answer.header("x-gateway-provider")), (200, "groq"), "{}", answer.text());
    assert!(scene.received().body == body);
    assert_eq!(scene.last_of(2).await["metadata"]["requested_model"], json!(null));
}

#[tokio::test]
async fn a_form_without_a_model_goes_to_the_dialects_own_provider() {
    let scene = start(json!({})).await;
    let body = form(&[file(100_000), field("language", "en")]);
    let answer = sent(&scene, &[MINE], &body).await;
    assert_eq!((answer.status, answer.header("x-gateway-provider")), (200, "openai"), "{}", answer.text());
    assert!(scene.received().body == body);
}

/// What may point elsewhere and cannot be read is sent to nobody.
#[tokio::test]
async fn a_form_whose_model_cannot_be_read_is_refused() {
    let scene = start(json!({ "server": { "limits": { "body": "64KiB" } } })).await;
    let long = whisper_behind(100_000, "groq/whisper-large-v3");
    let said = assert_error(&sent(&scene, &[MINE], &long).await, 413, "body_too_large");
    assert!(said.contains("`model` before the file") && said.contains("`x-provider`"), "{said}");
    let parts = form(&[b"--b\r\n\r\n\r\n".repeat(2000), field("model", "groq/whisper-large-v3")]);
    assert_error(&sent(&scene, &[MINE], &parts).await, 413, "body_too_large");
    let lines = form(&[field("model", "groq/whisper-large-v3\n")]);
    assert_error(&sent(&scene, &[MINE], &lines).await, 400, "invalid_request");
    let short = whisper_behind(10, "groq/whisper-large-v3");
    let coded = [MINE, ("content-encoding", "gzip")];
    let said = assert_error(&sent(&scene, &coded, &short).await, 415, "unsupported_media_type");
    assert!(said.contains("`x-provider`"), "{said}");
    assert_eq!(scene.mock.stats().requests, 0);
}

/// Some providers take a transcription's address as JSON.
#[tokio::test]
async fn the_callers_key_goes_where_the_model_of_a_transcription_in_json_points() {
    let scene = start(json!({})).await;
    let body = json!({ "model": "groq/whisper-large-v3", "url": "https://example.com/a.wav" }).to_string();
    let headers = [MINE, ("content-type", "application/json")];
    let answer = request("POST", &scene.gateway.url(TRANSCRIPTIONS), &headers, body).await;
    assert_eq!(answer.header("x-gateway-provider"), "groq", "{}", answer.text());
    assert!(scene.received().path.starts_with("/groq/"));
}

/// A second `model` may stand behind the file, and who reads which is anybody's guess.
#[tokio::test]
async fn a_list_of_models_trusts_a_form_that_was_held_whole_and_names_one() {
    let key = |name: &str, models: &[&str]| json!({ "name": name, "hash": hash_of(name), "models": models });
    let keys = [key("one-model", &["openai/whisper-1"]), key("one-provider", &["openai/*"])];
    let changes: Value = json!({
        "auth": { "mode": "keys", "keys": keys }, "server": { "limits": { "body": "256KiB" } },
    });
    let scene = start(changes).await;
    let two = form(&[field("model", "whisper-1"), file(100_000), field("model", "gpt-4o-transcribe")]);
    let front = form(&[field("model", "openai/whisper-1"), file(100_000)]);
    let behind = form(&[file(100_000), field("model", "whisper-1")]);
    let long = form(&[field("model", "whisper-1"), file(300_000)]);
    let other = form(&[field("model", "gpt-4o-transcribe"), file(10)]);
    let mut passed = 0;
    for (case, body, one_model) in [
        ("two", &two, 403),
        ("front", &front, 200),
        ("behind", &behind, 200),
        ("long", &long, 403),
        ("other", &other, 403),
    ] {
        for (name, status) in [("one-model", one_model), ("one-provider", 200)] {
            let authorization = format!("Bearer {name}");
            let answer = sent(&scene, &[("authorization", &authorization)], body).await;
            assert_eq!(answer.status, status, "{case} {name}: {}", answer.text());
            passed += u64::from(status == 200);
            if status == 403 && case != "other" {
                assert!(answer.text().contains("names one `model`"), "{case}: {}", answer.text());
            }
        }
    }
    let headers = [("authorization", "Bearer one-model"), ("x-provider", "openai")];
    let said = assert_error(&sent(&scene, &headers, &front).await, 403, "forbidden");
    assert!(said.contains("not by `x-provider`"), "{said}");
    assert_eq!(scene.mock.stats().requests, passed);
}
