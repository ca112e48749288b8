//! Bodies: those that are held and those that pass through, announced and in chunks, and those that do not go on.

use magicapi_testkit::Response;
use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::http::request as post;
use magicapi_testkit::wire::{Wire, chunk, request_head};
use serde_json::{Value, json};

use crate::limits;
use crate::scene::Scene;

const MIB: usize = 1 << 20;

/// A chat of exactly so many bytes.
fn chat_of(bytes: usize) -> Vec<u8> {
    let (start, end) = (r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":""#, r#""}]}"#);
    let filler = "a".repeat(bytes - start.len() - end.len());
    [start, &filler, end].concat().into_bytes()
}

/// Sends a body in chunks, as far as it is taken, and reads the answer.
async fn in_chunks(scene: &Scene, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let headers: Vec<_> = headers.iter().copied().chain([("transfer-encoding", "chunked")]).collect();
    wire.send(&request_head("POST", path, &headers)).await;
    let mut taken = true;
    for piece in body.chunks(256 << 10) {
        taken = taken && wire.try_send(&chunk(piece)).await;
    }
    if taken {
        let _ = wire.try_send(b"0\r\n\r\n").await;
    }
    let answer = wire.answer().await.expect("an answer, not a reset");
    (answer.head.status, answer.json())
}

fn assert_too_large(status: u16, body: &Value, limit: usize) {
    assert_eq!((status, &body["error"]["code"]), (413, &json!("body_too_large")));
    let message = body["error"]["message"].as_str().expect("a message");
    assert!(message.contains(&limit.to_string()), "{message}");
}

#[tokio::test]
async fn a_body_within_64_mib_passes_announced_and_in_chunks() {
    let scene = Scene::start(json!({ "telemetry": { "capture": { "bodies": "metadata" } } })).await;
    let body = chat_of(63 * MIB);
    let headers = [("content-type", "application/json")];
    let answer: Response = post("POST", &scene.gateway.url(CHAT), &headers, body.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (status, _) = in_chunks(&scene, CHAT, &headers, &body).await;
    assert_eq!(status, 200);
    let received = scene.mock.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|request| request.body == body), "the same bytes upstream");
    for record in scene.records(2).await {
        assert_eq!(record["attributes"]["metadata"]["request_size"], 63 * MIB);
    }
}

/// What is announced over the limit is refused before it is sent; the caller who waits for leave to send is spared it.
#[tokio::test]
async fn a_body_announced_over_64_mib_is_refused_at_once() {
    let scene = Scene::start(json!({})).await;
    let length = (64 * MIB + 1).to_string();
    for extra in [("x-a", "b"), ("expect", "100-continue")] {
        let mut wire = Wire::connect(scene.gateway.socket()).await;
        wire.send(&request_head("POST", CHAT, &[("content-length", &length), extra])).await;
        let answer = wire.answer().await.expect("an answer");
        assert_too_large(answer.head.status, &answer.json(), 64 * MIB);
        assert_eq!(answer.head.header("x-gateway-error-origin"), Some("client"));
    }
    assert_eq!(scene.mock.stats().requests, 0);
    assert_eq!(scene.last_of(2).await["metadata"]["outcome"], "blocked");
}

#[tokio::test]
async fn a_body_that_grows_over_64_mib_is_refused() {
    let scene = Scene::start(json!({})).await;
    let (status, body) = in_chunks(&scene, CHAT, &[], &chat_of(64 * MIB + 1)).await;
    assert_too_large(status, &body, 64 * MIB);
    assert_eq!(scene.mock.stats().requests, 0);
    let held = &scene.admin("/health/details").await.json()["data_plane"]["held_bytes"];
    assert_eq!(*held, 0, "its share is given back");
}

fn upload_of(bytes: usize) -> Vec<u8> {
    let start = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
    let end = "\r\n--b--\r\n";
    let filler = vec![0xA5; bytes - start.len() - end.len()];
    [start.as_bytes(), &filler, end.as_bytes()].concat()
}

#[tokio::test]
async fn an_upload_has_a_limit_of_its_own() {
    let scene = Scene::start(limits(&json!({ "upload": "1MiB", "body": "1KiB" }))).await;
    let own = [("authorization", "Bearer sk-mine"), ("content-type", "multipart/form-data; boundary=b")];
    let url = scene.gateway.url("/v1/files");
    let answer = post("POST", &url, &own, upload_of(MIB)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(scene.received().body, upload_of(MIB), "the same bytes upstream");
    let (status, _) = in_chunks(&scene, "/v1/files", &own, &upload_of(MIB)).await;
    assert_eq!(status, 200);

    let before = scene.mock.stats().requests;
    let length = (MIB + 1).to_string();
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let headers: Vec<_> = own.into_iter().chain([("content-length", length.as_str())]).collect();
    wire.send(&request_head("POST", "/v1/files", &headers)).await;
    let answer = wire.answer().await.expect("an answer");
    assert_too_large(answer.head.status, &answer.json(), MIB);
    assert_eq!(scene.mock.stats().requests, before, "never sent on");

    let (status, body) = in_chunks(&scene, "/v1/files", &own, &upload_of(MIB + 1)).await;
    assert_too_large(status, &body, MIB);
    assert_eq!(scene.mock.stats().completed, before, "the provider never got a whole one");
}

#[tokio::test]
async fn a_body_that_does_not_go_on_is_a_408() {
    let scene = Scene::start(limits(&json!({ "header_read": "500ms" }))).await;
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&request_head("POST", CHAT, &[("content-length", "100")])).await;
    wire.send(b"{").await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.head.status, &answer.json()["error"]["code"]), (408, &json!("client_timeout")));
    assert!(wire.head().await.is_none(), "the connection ends: what would follow is no head");
    let record = scene.last_of(1).await;
    assert_eq!(record["metadata"]["outcome"], "blocked");
    assert_eq!(record["metadata"]["error_type"], "client_timeout");
    assert_eq!(scene.mock.stats().requests, 0);
}

/// A client that leaves in the middle of its body is recorded as gone, and nobody is asked.
#[tokio::test]
async fn a_body_that_breaks_off_is_recorded_as_gone() {
    let scene = Scene::start(json!({})).await;
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&request_head("POST", CHAT, &[("content-length", "100")])).await;
    wire.send(b"{\"model\"").await;
    drop(wire);
    let record = scene.last_of(1).await;
    assert_eq!(record["metadata"]["outcome"], "client_closed");
    assert_eq!(record["metadata"]["status_code"], 499);
    assert_eq!(scene.mock.stats().requests, 0);
    let answer = scene.ask(&json!({}), &[]).await;
    assert_eq!((answer.status, question()["model"].as_str()), (200, Some("gpt-4o-mini")));
}
