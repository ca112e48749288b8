//! Each key of `timeouts`: set to a moment, and the provider's silence ended by exactly that one.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::time::{Duration, Instant};

use magicapi_testkit::Gateway;
use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::configuration;
use magicapi_testkit::http::post_json;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::scene::{Scene, options};

/// What a streamed request under a script comes to with one limit set; the defaults of the others never strike here.
async fn ended_by(limit: &str, script: Value) -> (u16, String) {
    let scene = Scene::start(json!({ "timeouts": { limit: "300ms" } })).await;
    let answer = scene.streamed(&script).await;
    let record = scene.last_of(1).await;
    let metadata = &record["metadata"];
    assert_eq!(metadata["outcome"], "timed_out", "{metadata}");
    (answer.status, metadata["error_type"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn timeouts_first_token_ends_a_stream_that_does_not_begin() {
    let (_, error) = ended_by("first_token", json!({ "stall_after": 0 })).await;
    assert_eq!(error, "first_token_timeout");
}

#[tokio::test]
async fn timeouts_idle_ends_a_stream_that_stops() {
    let (status, error) = ended_by("idle", json!({ "stall_after": 3 })).await;
    assert_eq!((status, error.as_str()), (200, "idle_timeout"));
}

#[tokio::test]
async fn timeouts_attempt_ends_an_attempt() {
    let (status, error) = ended_by("attempt", json!({ "delay_headers_ms": 60_000 })).await;
    assert_eq!((status, error.as_str()), (504, "attempt_timeout"));
}

#[tokio::test]
async fn timeouts_total_ends_a_request() {
    let (status, error) = ended_by("total", json!({ "delay_headers_ms": 60_000 })).await;
    assert_eq!((status, error.as_str()), (504, "total_timeout"));
}

#[tokio::test]
async fn timeouts_connect_ends_a_handshake_that_nobody_answers() {
    // Takes connections and says nothing: the TLS handshake never ends.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let changes = json!({ "timeouts": { "connect": "300ms" } });
    let config = configuration(&format!("https://{address}/v1"), changes);
    let gateway = Gateway::start(options(&config, &[])).await;
    let begun = Instant::now();
    let answer = post_json(&gateway.url(CHAT), &[], &question()).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "the default of 5 s ended it");
    assert!(matches!(answer.status, 502 | 504), "{}: {}", answer.status, answer.text());
    drop(silent);
}
