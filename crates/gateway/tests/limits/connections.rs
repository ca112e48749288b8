//! Heads and connections: how long one may take, how large it may be, how many there may be.

use magicapi_testkit::http::{Raw, get};
use magicapi_testkit::wire::{Wire, Wire2, until};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{ask, limits, served};

async fn open_connections(scene: &Scene) -> Value {
    scene.admin("/health/details").await.json()["data_plane"]["connections"].clone()
}

/// A peer holds its place only as long as its head may take, whatever it said first: nothing, what could still become
/// HTTP/2, or half of a request.
#[tokio::test]
async fn a_peer_that_does_not_go_on_is_closed() {
    let scene = Scene::start(limits(&json!({ "header_read": "500ms" }))).await;
    for opening in ["", "PRI * HTTP/2", "G", "GET /health HTTP/1.1\r\nhost: x\r\n"] {
        let mut raw = Raw::connect(&scene.gateway.address).await;
        raw.send(opening).await.expect("a peer");
        let rest = raw.read_to_end().await.expect("a proper end");
        assert!(rest.is_empty(), "{opening:?}: {rest:?}");
    }
    until("no connection", async || (open_connections(&scene).await == 0).then_some(())).await;
}

/// A connection whose request was answered may rest until the next head's time is up, and no answer is cut by it.
#[tokio::test]
async fn an_answer_may_take_longer_than_a_head() {
    let scene = Scene::start(limits(&json!({ "header_read": "300ms" }))).await;
    let answer = scene.ask(&json!({ "delay_headers_ms": 1500, "text": "late" }), &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "late");
}

fn head_of(bytes: usize) -> String {
    let start = "GET /health HTTP/1.1\r\nhost: x\r\nx-long: ";
    format!("{start}{}\r\n\r\n", "a".repeat(bytes - start.len() - 4))
}

async fn status_of(scene: &Scene, head: &str) -> u16 {
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    // The gateway may answer before it has read everything.
    let _ = wire.try_send(head.as_bytes()).await;
    wire.head().await.expect("an answer").status
}

#[tokio::test]
async fn a_head_over_the_limit_is_a_431() {
    let small = Scene::start(limits(&json!({ "header_bytes": "16KiB" }))).await;
    assert_eq!(status_of(&small, &head_of(15 << 10)).await, 200);
    assert_eq!(status_of(&small, &head_of(17 << 10)).await, 431);
    let many = (0..150).map(|n| format!("x-{n}: a\r\n")).collect::<Vec<_>>().concat();
    assert_eq!(status_of(&small, &format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await, 431);
    let default = Scene::start(json!({})).await;
    assert_eq!(status_of(&default, &head_of(63 << 10)).await, 200);
    assert_eq!(status_of(&default, &head_of(66 << 10)).await, 431);
    assert_eq!(status_of(&default, "not HTTP at all\r\n\r\n").await, 400);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_over_http2() {
    let scene = Scene::start(limits(&json!({ "header_bytes": "16KiB" }))).await;
    let mut wire = Wire2::connect(scene.gateway.socket()).await;
    let fits = "a".repeat(15 << 10);
    assert_eq!(wire.send("GET", "/health", &[("x-long", &fits)], b"").await.head().await.0, 200);
    let long = "a".repeat(17 << 10);
    assert_eq!(wire.send("GET", "/health", &[("x-long", &long)], b"").await.head().await.0, 431);
    assert_eq!(wire.send("GET", "/health", &[], b"").await.head().await.0, 200, "the connection goes on");
}

/// Past the limit a connection gets an answer that says so; those within go on; room that comes back is used.
#[tokio::test]
async fn connections_over_the_limit_are_told_and_room_comes_back() {
    let scene = Scene::start(limits(&json!({ "connections": 3 }))).await;
    let mut within = Vec::new();
    for _ in 0..3 {
        within.push(served(&scene.gateway).await);
    }
    let mut over = Wire::connect(scene.gateway.socket()).await;
    let answer = ask(&mut over, "/health").await.expect("an answer, not a reset");
    assert_eq!(answer.head.status, 503);
    assert_eq!(answer.head.header("retry-after"), Some("1"));
    assert_eq!(answer.head.header("x-gateway-error-origin"), Some("gateway"));
    assert_eq!(answer.json()["error"]["code"], "overloaded");
    assert!(ask(&mut over, "/health").await.is_none(), "the connection is closed");
    assert_eq!(scene.admin("/health/details").await.json()["data_plane"]["connections_refused"], 1);
    for wire in &mut within {
        assert_eq!(ask(wire, "/health").await.expect("an answer").head.status, 200);
    }
    within.pop();
    let url = scene.gateway.url("/health");
    until("room", async || (get(&url, &[]).await.status == 200).then_some(())).await;
}
