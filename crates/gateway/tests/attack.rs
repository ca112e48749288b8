//! What an attack found: ways around admission, answers that a provider frames badly, bodies that lie about themselves.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::io::Write;
use std::time::Duration;

use crate::scene::{Scene, before, stop};
use magicapi_testkit::Gateway;
use magicapi_testkit::ask::{CHAT, buffered, json_request, streaming};
use magicapi_testkit::puppet::Puppet;
use magicapi_testkit::wire::{Answer, Wire, patiently, request, request_head};
use serde_json::{Value, json};

/// Sends a request and takes the answer.
async fn sent(gateway: &Gateway, bytes: &[u8]) -> Answer {
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(bytes).await;
    patiently("an answer", wire.answer()).await.expect("an answer")
}

/// A gateway before a provider that answers one chat request with these very bytes and closes.
async fn answered(case: &str, body: &Value, answer: &[u8]) -> (Answer, Value) {
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), json!({})).await;
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(&json_request(CHAT, case, &json!({}), body.to_string().as_bytes())).await;
    let mut hand = puppet.asked().await;
    hand.raw(answer).await;
    drop(hand);
    let answer = patiently(case, wire.answer()).await.expect("an answer");
    let left = stop(gateway).await;
    assert_eq!(left.ledger.len(), 1, "{case}");
    (answer, left.record(case)["attributes"].clone())
}

/// Many servers read JSON whatever its type says: a form's type must not be the way around reading a body.
#[tokio::test]
async fn a_content_type_is_no_way_around_admission() {
    let scene = Scene::start(json!({})).await;
    let form = [("content-type", "multipart/form-data; boundary=x")];
    let continued = br#"{"model":"gpt-4o","previous_response_id":"resp_1"}"#;
    let answer = sent(&scene.gateway, &request("POST", "/v1/responses", &form, continued)).await;
    assert_eq!(answer.json()["error"]["param"], "previous_response_id", "{}", answer.text());
    let chat = buffered().to_string();
    let answer = sent(&scene.gateway, &request("POST", CHAT, &form, chat.as_bytes())).await;
    assert_eq!(answer.head.status, 200, "it is read as what it is: {}", answer.text());
    let answer = sent(&scene.gateway, &request("POST", CHAT, &form, b"--x--")).await;
    assert_eq!(answer.head.status, 400, "{}", answer.text());
    assert_eq!(scene.mock.stats().requests, 1);
}

#[tokio::test]
async fn a_key_with_a_list_of_models_names_no_others_to_fall_back_to() {
    let keys = json!([
        { "name": "bound", "models": ["openai/gpt-4o"],
          "hash": "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" },
        { "name": "free", "hash": "sha256:35224d0d3465d74e855f8d69a136e79c744ea35a675d3393360a327cbf6359a2" },
    ]);
    let scene = Scene::start(json!({ "auth": { "mode": "keys", "keys": keys } })).await;
    let mut body = buffered();
    body["model"] = json!("gpt-4o");
    body["models"] = json!(["some/other"]);
    for (key, status) in [("secret", 403), ("k", 401), ("secret2", 200)] {
        let authorization = format!("Bearer {key}");
        let headers = [("content-type", "application/json"), ("authorization", authorization.as_str())];
        let answer =
            sent(&scene.gateway, &request("POST", CHAT, &headers, body.to_string().as_bytes())).await;
        assert_eq!(answer.head.status, status, "{key}: {}", answer.text());
    }
    assert_eq!(scene.mock.stats().requests, 1);
}

/// A model's name goes into a header, the log, the record and the ledger.
#[tokio::test]
async fn a_model_name_has_a_bound() {
    let scene = Scene::start(json!({})).await;
    for (length, status) in [(1024, 200), (1025, 400)] {
        let mut body = buffered();
        body["model"] = json!("m".repeat(length));
        let answer = scene.answer(&length.to_string(), &json!({}), &body).await;
        assert_eq!(answer.head.status, status, "{length}");
    }
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("1025")["outcome"], "blocked");
    assert_eq!(left.metadata("1025")["requested_model"], Value::Null);
}

#[tokio::test]
async fn chunks_overrule_a_length_beside_them() {
    let (answer, record) = answered(
        "both",
        &buffered(),
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
          transfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!((answer.text().as_str(), answer.whole), ("{\"a\":1}", true));
    assert_eq!(record["metadata"]["outcome"], "completed");
    assert_eq!(record["response"], json!({ "a": 1 }));
}

#[tokio::test]
async fn a_provider_switches_no_protocol() {
    let head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: foo\r\nconnection: upgrade\r\n\r\nhello";
    let (answer, record) = answered("switch", &buffered(), head).await;
    assert_eq!(answer.head.status, 502);
    assert_eq!(answer.json()["error"]["code"], "protocol_error");
    let metadata = &record["metadata"];
    assert_eq!((&metadata["status_code"], &metadata["outcome"]), (&json!(502), &json!("provider_error")));
}

#[tokio::test]
async fn a_compressed_page_is_quoted_in_words() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(b"<html><h1>Bad gateway at the proxy</h1></html>").expect("gzip");
    let page = gzip.finish().expect("gzip");
    let head = format!(
        "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        page.len()
    );
    let (answer, _) = answered("page", &buffered(), &[head.as_bytes(), &page].concat()).await;
    let said = answer.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(said.ends_with("It says: Bad gateway at the proxy"), "{said}");
}

/// A coding that nobody here knows, and one that is a bomb: both go on as they came, and the process lives.
#[tokio::test]
async fn a_stream_that_cannot_be_read_goes_on_as_it_came() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: ";
    let unknown = format!("{head}lz4\r\ncontent-length: 8\r\n\r\nabcdefgh");
    let (answer, record) = answered("unknown", &streaming(), unknown.as_bytes()).await;
    assert_eq!((answer.text().as_str(), answer.whole), ("abcdefgh", true));
    assert_eq!(record["metadata"]["outcome"], "completed");
    assert_eq!(record["metadata"]["tokens"]["total"], Value::Null, "unknown is not zero");
}

/// Neither direction carries what belongs to one connection only.
#[tokio::test]
async fn proxy_connection_ends_at_the_gateway() {
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), json!({})).await;
    let mut wire = Wire::connect(gateway.socket()).await;
    let headers = [("content-type", "application/json"), ("proxy-connection", "keep-alive")];
    wire.send(&request("POST", CHAT, &headers, buffered().to_string().as_bytes())).await;
    let mut hand = puppet.asked().await;
    assert!(!String::from_utf8_lossy(&hand.request).contains("proxy-connection"));
    hand.raw(b"HTTP/1.1 200 OK\r\nproxy-connection: close\r\ncontent-length: 2\r\n\r\n{}").await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!(answer.head.header("proxy-connection"), None);
}

#[tokio::test]
async fn broken_chunks_are_the_callers_fault_and_a_caller_who_left_got_nothing() {
    let scene = Scene::start(json!({})).await;
    let chunked = |case| {
        let headers =
            [("content-type", "application/json"), ("x-thread-id", case), ("transfer-encoding", "chunked")];
        request_head("POST", CHAT, &headers)
    };
    let broken = [chunked("broken"), b"xyz\r\nabc\r\n".to_vec()].concat();
    let answer = sent(&scene.gateway, &broken).await;
    assert_eq!((answer.head.status, &answer.json()["error"]["code"]), (400, &json!("invalid_request")));
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&[chunked("gone"), b"5\r\n{\"mod\r\n".to_vec()].concat()).await;
    drop(wire);
    let head = request("HEAD", CHAT, &[("x-thread-id", "head")], b"");
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&head).await;
    assert_eq!(wire.head().await.expect("a head").status, 405);
    scene.gateway.idle().await;
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("broken")["outcome"], "blocked");
    let gone = &left.record("gone")["attributes"];
    assert_eq!(gone["metadata"]["outcome"], "client_closed");
    for case in ["gone", "head"] {
        let record = &left.record(case)["attributes"];
        let metadata = &record["metadata"];
        assert_eq!(
            (&record["response"], &metadata["response_size"], &metadata["ttfb"]),
            (&Value::Null, &json!(0), &Value::Null),
            "{case}"
        );
    }
}

/// `first_token` counts from the request's end: until then the provider has nothing to answer.
#[tokio::test]
async fn a_slow_upload_is_not_the_providers_silence() {
    let allowed = json!({ "auth": { "mode": "open", "passthrough": ["POST /v1/x"] }, "timeouts": { "first_token": "500ms" } });
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), allowed).await;
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(&request_head("POST", "/v1/x", &[("content-length", "6"), ("x-thread-id", "slow")])).await;
    let upload = async {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            wire.send(b"x").await;
        }
        wire.answer().await.expect("an answer")
    };
    let provider = async {
        let mut hand = puppet.asked().await;
        hand.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").await;
        hand
    };
    let (answer, hand) = tokio::join!(upload, provider);
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    drop((wire, hand));
    // One that has been sent is waited for as long as ever.
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(&request("POST", "/v1/x", &[("x-thread-id", "silent")], b"whole")).await;
    let _hand = puppet.asked().await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 504);
    let left = stop(gateway).await;
    assert_eq!(left.metadata("silent")["error_type"], "first_token_timeout");
    assert_eq!(left.metadata("slow")["outcome"], "completed");
}
