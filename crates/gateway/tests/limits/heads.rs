//! Heads that are refused: the answer says why, and it arrives although the peer is still sending.

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::puppet::Puppet;
use magicapi_testkit::wire::{Answer, Wire, chunk, patiently, request, request_head};
use serde_json::{Value, json};

use crate::limits;
use crate::scene::{Scene, before};

/// What a client gets that writes all it has, whatever comes back meanwhile, and reads only then.
async fn written_then_read(scene: &Scene, bytes: &[u8]) -> Answer {
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.try_send(bytes).await;
    let answer = patiently("an answer", wire.answer()).await.expect("an answer, not a reset");
    assert_eq!(answer.head.header("connection"), Some("close"), "RFC 9112, 9.6");
    assert!(wire.head().await.is_none(), "the connection ends");
    answer
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.head.status, status, "{}", answer.text());
    assert!(answer.whole);
    assert_eq!(answer.head.header("content-type"), Some("application/json"));
    assert_eq!(answer.head.header("x-gateway-error-origin"), Some("client"));
    let error = &answer.json()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!(code), &json!("invalid_request_error")));
    assert!(error["message"].as_str().is_some_and(|message| message.contains(';')), "a remedy: {error}");
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_answered_in_json() {
    let scene = Scene::start(limits(&json!({ "header_bytes": "16KiB" }))).await;
    for head in [
        "not HTTP at all\r\n\r\n",
        "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST /v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
    ] {
        assert_refused(&written_then_read(&scene, head.as_bytes()).await, 400, "invalid_request");
    }
    // After requests that were served, too, and sent in one go with them.
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&[request("GET", "/health", &[], b""), b"nonsense\r\n\r\n".to_vec()].concat()).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 200);
    assert_refused(&wire.answer().await.expect("an answer"), 400, "invalid_request");
    assert!(wire.head().await.is_none(), "the connection ends");
}

/// More than the sockets hold: without reading on, the close would be a reset that takes the answer with it.
#[tokio::test]
async fn an_answer_to_a_head_that_is_too_large_arrives() {
    let scene = Scene::start(limits(&json!({ "header_bytes": "16KiB" }))).await;
    for size in [17 << 10, 8 << 20] {
        let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(size));
        assert_refused(&written_then_read(&scene, head.as_bytes()).await, 431, "head_too_large");
    }
}

#[tokio::test]
async fn an_answer_arrives_although_the_body_was_not_read() {
    let scene = Scene::start(limits(&json!({ "body": "1MiB" }))).await;
    let body = vec![b' '; 24 << 20];
    let json = ("content-type", "application/json");
    assert_refused(
        &written_then_read(&scene, &request("POST", CHAT, &[json], &body)).await,
        413,
        "body_too_large",
    );
    let chunked = request_head("POST", CHAT, &[json, ("transfer-encoding", "chunked")]);
    let chunked = [chunked, chunk(&body), b"0\r\n\r\n".to_vec()].concat();
    assert_refused(&written_then_read(&scene, &chunked).await, 413, "body_too_large");
    assert_eq!(scene.last_of(2).await["metadata"]["error_type"], "body_too_large");
    let nowhere = request("POST", "/nowhere", &[json], &body);
    assert_refused(&written_then_read(&scene, &nowhere).await, 404, "unknown_path");
    let broken = [request_head("POST", CHAT, &[json, ("transfer-encoding", "chunked")]), b"zz\r\n".to_vec()];
    assert_refused(&written_then_read(&scene, &broken.concat()).await, 400, "invalid_request");
}

/// It looks like the last word on a connection and is none.
#[tokio::test]
async fn a_short_refusal_of_the_providers_is_not_held_back() {
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), json!({})).await;
    let mut wire = Wire::connect(gateway.socket()).await;
    for _ in 0..2 {
        wire.send(&request("GET", "/v1/models/none", &[("x-provider", "openai")], b"")).await;
        let mut hand = puppet.asked().await;
        hand.raw(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(wire.answer().await.expect("an answer").head.status, 404);
    }
}

fn posted(headers: &str) -> Vec<u8> {
    let body = question().to_string();
    let head = format!("POST {CHAT} HTTP/1.1\r\n{headers}content-type: application/json\r\n");
    [head.as_bytes(), b"\r\n", &chunk(body.as_bytes()), b"0\r\n\r\n"].concat()
}

/// RFC 9112, 6.1: whoever reads only `chunked` would take packed bytes for the body.
#[tokio::test]
async fn a_transfer_coding_beside_chunked_is_a_501() {
    let scene = Scene::start(json!({})).await;
    for coding in ["gzip, chunked", "chunked, chunked", "gzip\r\ntransfer-encoding: chunked"] {
        let mut wire = Wire::connect(scene.gateway.socket()).await;
        wire.send(&posted(&format!("host: x\r\ntransfer-encoding: {coding}\r\n"))).await;
        assert_refused(&wire.answer().await.expect("an answer"), 501, "not_implemented");
    }
    assert_eq!(scene.mock.stats().requests, 0);
    for record in scene.records(3).await {
        let metadata = &record["attributes"]["metadata"];
        assert_eq!(
            (&metadata["status_code"], &metadata["error_type"]),
            (&json!(501), &json!("not_implemented"))
        );
    }
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&posted("host: x\r\ntransfer-encoding: Chunked\r\n")).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 200);
}

/// RFC 9112, 3.2. HTTP/1.0 knows no `host`.
#[tokio::test]
async fn a_request_has_one_host() {
    let scene = Scene::start(json!({})).await;
    for host in ["", "host: a\r\nhost: a\r\n"] {
        for path in [CHAT, "/health"] {
            let mut wire = Wire::connect(scene.gateway.socket()).await;
            wire.send(format!("GET {path} HTTP/1.1\r\n{host}\r\n").as_bytes()).await;
            let answer = wire.answer().await.expect("an answer");
            assert_eq!(answer.head.status, 400, "{path} {host:?}");
            let error: Value = answer.json()["error"].clone();
            assert_eq!((&error["param"], &error["code"]), (&json!("host"), &json!("invalid_request")));
        }
    }
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(b"GET /health HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 200);
}
