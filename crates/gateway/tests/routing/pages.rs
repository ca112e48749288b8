//! Pages about the gateway itself, and upgrades.

use magicapi_testkit::http::{get, request};
use magicapi_testkit::{Gateway, GatewayOptions};
use serde_json::json;

use crate::scene::BINARY;
use crate::{assert_error, start};

#[tokio::test]
async fn pages_of_the_data_plane_leave_no_record() {
    let scene = start(json!({})).await;
    let health = get(&scene.gateway.url("/health"), &[]).await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("healthy")));
    assert!(health.json()["version"].is_string());
    assert_eq!(health.header("content-type"), "application/json");
    assert_eq!(health.header("cache-control"), "no-store");
    assert_eq!(get(&scene.gateway.url("/ready"), &[]).await.status, 200);
    assert_eq!(get(&scene.gateway.url("/health?probe=1"), &[]).await.status, 200);
    let head = request("HEAD", &scene.gateway.url("/health"), &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let post = request("POST", &scene.gateway.url("/health"), &[], "").await;
    assert_eq!((post.status, post.header("allow")), (405, "GET"));
    assert_error(&get(&scene.gateway.url("/metrics"), &[]).await, 404, "unknown_path");
    // The wrong method is a request like any; after it nothing else was recorded.
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    let records = scene.records(1).await;
    let paths: Vec<_> =
        records.iter().map(|record| record["attributes"]["metadata"]["path"].clone()).collect();
    assert!(!paths.contains(&json!("/ready")) && !paths.contains(&json!("/metrics")), "{paths:?}");
}

/// Nothing can be served without a provider unless callers bring their own keys.
#[tokio::test]
async fn ready_says_when_nothing_can_be_served() {
    let bare = Gateway::start(GatewayOptions::new(BINARY)).await;
    assert_eq!(get(&bare.url("/ready"), &[]).await.status, 200);
    let keys = Gateway::start(GatewayOptions::new(BINARY).env("GATEWAY_API_KEYS", "a:vk-1")).await;
    let answer = get(&keys.url("/ready"), &[]).await;
    assert_eq!((answer.status, &answer.json()["reason"]), (503, &json!("no provider is configured")));
    assert_eq!(get(&keys.url("/health"), &[]).await.status, 200);
}

/// Whoever names `prometheus` finds it where the original has it.
#[tokio::test]
async fn metrics_are_on_the_data_plane_when_asked_for_by_name() {
    let named = Gateway::start(GatewayOptions::new(BINARY).env("ENABLED_EXPORTERS", "prometheus")).await;
    let answer = get(&named.url("/metrics"), &[]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("# TYPE"), "{}", answer.text());
}

#[tokio::test]
async fn upgrades_are_a_426_that_ends_the_connection() {
    let keys = json!({ "auth": { "mode": "keys", "keys": [{ "name": "a",
        "hash": "sha256:0000000000000000000000000000000000000000000000000000000000000000" }] } });
    for changes in [json!({}), keys] {
        let scene = start(changes).await;
        for path in ["/v1/responses", "/v1/realtime?model=gpt-realtime", "/proxy/openai/realtime"] {
            let headers = [
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            let answer = request("GET", &scene.gateway.url(path), &headers, "").await;
            assert_error(&answer, 426, "upgrade_required");
            assert_eq!(answer.header("connection"), "close", "{path}");
        }
        assert_eq!(scene.mock.stats().requests, 0);
    }
}
