//! Bodies that drip: each piece may be in time and the whole still too slow.

use std::time::Duration;

use magicapi_testkit::ask::CHAT;
use magicapi_testkit::wire::{Wire, chunk, patiently, request_head};
use serde_json::{Value, json};

use crate::limits;
use crate::scene::Scene;

/// A byte every tenth of a second until the answer comes, and what is recorded of it.
async fn dripped(scene: &Scene, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let headers: Vec<_> = headers.iter().copied().chain([("transfer-encoding", "chunked")]).collect();
    wire.send(&request_head("POST", path, &headers)).await;
    let answer = async {
        loop {
            wire.try_send(&chunk(b" ")).await;
            if let Ok(answer) = tokio::time::timeout(Duration::from_millis(100), wire.head()).await {
                return answer.expect("an answer");
            }
        }
    };
    let status = patiently("an answer", answer).await.status;
    (status, scene.last_of(1).await["metadata"].clone())
}

#[tokio::test]
async fn a_body_that_drips_is_a_408() {
    let slow = limits(&json!({ "header_read": "1s", "body_rate": "1KiB" }));
    let own = [("authorization", "Bearer sk-mine"), ("content-type", "multipart/form-data; boundary=b")];
    for (path, headers) in
        [(CHAT, &own[..1]), ("/v1/files", &own[..]), ("/v1/audio/transcriptions", &own[..])]
    {
        let scene = Scene::start(slow.clone()).await;
        let (status, metadata) = dripped(&scene, path, headers).await;
        assert_eq!(status, 408, "{path}");
        assert_eq!(
            (&metadata["error_type"], &metadata["outcome"]),
            (&json!("client_timeout"), &json!("blocked"))
        );
        let size = metadata["request_size"].as_u64().expect("a size");
        assert!((2..=20).contains(&size), "{path}: {size} bytes came");
    }
}

/// The wait for a caller's body is none of the gateway's doing, held or on its way to the provider.
#[tokio::test]
async fn the_wait_for_a_body_is_not_the_gateways_overhead() {
    let scene = Scene::start(limits(&json!({ "header_read": "2s" }))).await;
    let own = [("authorization", "Bearer sk-mine"), ("content-length", "100")];
    for path in [CHAT, "/v1/files"] {
        let mut wire = Wire::connect(scene.gateway.socket()).await;
        wire.send(&request_head("POST", path, &own)).await;
        wire.send(b"{").await;
        let head = patiently("an answer", wire.head()).await.expect("an answer");
        assert_eq!(head.status, 408, "{path}");
        let overhead = head.header("x-gateway-overhead-ms").and_then(|ms| ms.parse::<f64>().ok());
        assert!(overhead.is_some_and(|ms| ms < 1900.0), "{path}: {overhead:?} of 2000 ms");
    }
}

/// What came of a refused body, and of one whose caller left, stands in the record.
#[tokio::test]
async fn request_size_counts_what_came_of_a_body_without_an_end() {
    let scene = Scene::start(limits(&json!({ "body": "1KiB" }))).await;
    let json = ("content-type", "application/json");
    let chunked = request_head("POST", CHAT, &[json, ("transfer-encoding", "chunked")]);
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&[chunked.clone(), chunk(&[b' '; 1000]), chunk(&[b' '; 1000])].concat()).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 413);
    let size = scene.last_of(1).await["metadata"]["request_size"].clone();
    assert_eq!(size, 2000);
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&[chunked, chunk(&[b' '; 100])].concat()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(wire);
    let left = scene.last_of(2).await;
    assert_eq!(left["metadata"]["outcome"], "client_closed");
    assert_eq!(left["metadata"]["request_size"], 100);
    let packed = [json, ("content-encoding", "gzip")];
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&magicapi_testkit::wire::request("POST", CHAT, &packed, b"no gzip")).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 400);
    assert_eq!(scene.last_of(3).await["metadata"]["request_size"], 7);
}
