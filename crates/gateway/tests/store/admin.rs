//! The admin API through the binary: who gets in, what it says, what it refuses.

use std::sync::Arc;

use magicapi_testkit::GatewayOptions;
use magicapi_testkit::ask::chat;
use magicapi_testkit::http::{get, stream};
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{BINARY, Scene};

#[tokio::test]
async fn nobody_gets_in_without_the_token_or_under_another_name() {
    let scrape = json!({ "telemetry": { "exporters": [{ "type": "prometheus" }] } });
    let scene = Scene::start(scrape.clone()).await;
    let token = format!("Bearer {}", scene.gateway.admin_token());
    let gateway = &scene.gateway;
    for path in ["/api/v1/logs", "/api/v1/exporters", "/health/details", "/metrics", "/api/v1/nothing"] {
        let url = gateway.admin_url(path);
        assert_eq!(get(&url, &[]).await.status, 401, "{path}");
        assert_eq!(get(&url, &[("authorization", "Bearer wrong")]).await.status, 401, "{path}");
        let wanted = if path.ends_with("nothing") { 404 } else { 200 };
        assert_eq!(get(&url, &[("authorization", &token)]).await.status, wanted, "{path}");
        // A page elsewhere that has made its name point here (DNS rebinding).
        for host in ["evil.example", "localhost:4000/#@x", "127.0.0.1.evil.example"] {
            let mut raw = magicapi_testkit::http::Raw::connect(&url).await;
            let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: {token}\r\n\r\n");
            raw.send(head).await.expect("sent");
            let answer = raw.read_until("\r\n\r\n").await.expect("an answer");
            let status: u16 = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
            assert!([400, 403].contains(&status), "{path} as {host}: {answer}");
        }
    }
    let mut open = scrape;
    open["admin"] = json!({ "metrics": "open" });
    let open = Scene::start(open).await;
    assert_eq!(get(&open.gateway.admin_url("/metrics"), &[]).await.status, 200);
    assert_eq!(get(&open.gateway.admin_url("/health/details"), &[]).await.status, 401);
}

#[tokio::test]
async fn a_configured_token_is_the_only_one_and_is_not_written_beside() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let token = |options: GatewayOptions| options.env("ADMIN_TOKEN", "a-long-secret");
    let scene = Scene::start_in(&directory, json!({}), token).await;
    let url = scene.gateway.admin_url("/health/details");
    assert_eq!(get(&url, &[("authorization", "Bearer a-long-secret")]).await.status, 200);
    assert!(!scene.gateway.data_path().join("admin.token").exists());
    let log = scene.gateway.log().join("\n");
    assert!(!log.contains("a-long-secret") && !log.contains("admin token"), "{log}");
}

#[test]
fn beyond_loopback_it_wants_a_token() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let options = GatewayOptions::new(BINARY).env("ADMIN_LISTEN", address).env("ENABLED_EXPORTERS", "");
        let (mut command, _kept) = options.command();
        let output = command.output().expect("the binary");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{address}: {said}");
        assert!(said.contains("ADMIN_TOKEN=") && said.contains("ADMIN_LISTEN=127.0.0.1"), "{said}");
    }
}

#[tokio::test]
async fn list_one_and_details() {
    let scene = Scene::start(json!({})).await;
    for case in ["a", "b", "c"] {
        scene.chat(case, &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    }
    let first = until("three rows", async || {
        let page = scene.admin("/api/v1/logs?limit=2").await.json();
        (page["data"][0]["thread_id"] == "c").then_some(page)
    })
    .await;
    assert_eq!(first["data"].as_array().map(Vec::len), Some(2));
    let cursor = first["next_cursor"].as_str().expect("more");
    let second = scene.admin(&format!("/api/v1/logs?limit=2&cursor={cursor}")).await.json();
    assert_eq!(second["data"][0]["thread_id"], "a");
    assert_eq!(second["next_cursor"], Value::Null);
    let line = scene.line("a").await;
    let one =
        scene.admin(&format!("/api/v1/logs/{}", second["data"][0]["id"].as_str().expect("an id"))).await;
    assert_eq!(format!("{}\n", one.text()), line, "the document as it was exported");
    assert_eq!(scene.admin("/api/v1/logs?provider=nobody").await.json()["data"], json!([]));
    let refused = scene.admin("/api/v1/logs?providr=openai").await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("provider"), "the nearest is named: {}", refused.text());

    let details = scene.admin("/health/details").await.json();
    assert_eq!((&details["status"], &details["reasons"]), (&json!("ok"), &json!([])));
    assert_eq!(details["phase"], "serving");
    assert_eq!(details["ledger"]["missing"], 0);
    assert_eq!(details["providers"], json!(["openai"]));
    let names: Vec<_> =
        details["exporters"].as_array().expect("exporters").iter().map(|e| &e["name"]).collect();
    assert!(names.contains(&&json!("file")) && names.contains(&&json!("request_log")), "{names:?}");
}

#[tokio::test]
async fn follow_sends_each_request_as_it_ends_and_resumes() {
    let scene = Scene::start(json!({})).await;
    let token = format!("Bearer {}", scene.gateway.admin_token());
    let url = scene.gateway.admin_url("/api/v1/logs/follow");
    let mut follow = stream("GET", &url, &[("authorization", &token)], "").await;
    assert_eq!((follow.status, follow.header("content-type")), (200, "text/event-stream"));
    scene.chat("one", &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    scene.chat("two", &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    let mut seen = String::new();
    while !seen.contains("\"thread_id\":\"two\"") || !seen.ends_with("\n\n") {
        let piece = follow.next().await.expect("more").expect("a piece");
        seen.push_str(&String::from_utf8_lossy(&piece.bytes));
    }
    assert_eq!(seen.matches("event: log\n").count(), 2, "{seen}");
    let id = seen.lines().find_map(|line| line.strip_prefix("id: ")).expect("a position");
    drop(follow);
    let headers = [("authorization", token.as_str()), ("last-event-id", id)];
    let mut follow = stream("GET", &url, &headers, "").await;
    let mut again = String::new();
    while !again.ends_with("\n\n") {
        let piece = follow.next().await.expect("more").expect("a piece");
        again.push_str(&String::from_utf8_lossy(&piece.bytes));
    }
    assert!(again.contains("\"thread_id\":\"two\"") && !again.contains("\"thread_id\":\"one\""), "{again}");
}

#[tokio::test]
async fn the_hash_names_what_is_in_force_not_what_the_file_asks_for() {
    let scene = Scene::start(json!({})).await;
    let hash = async || scene.admin("/health/details").await.json()["config_hash"].take();
    let first = hash().await;
    assert!(first.as_str().is_some_and(|hash| hash.len() == 16), "{first}");
    scene.rewrite(json!({ "telemetry": { "threads": 3 } }));
    scene.logged("configuration reloaded", 1).await;
    assert_eq!(hash().await, first, "what takes a restart is not in force");
    scene.rewrite(json!({ "telemetry": { "threads": 3 }, "timeouts": { "idle": "7s" } }));
    scene.logged("configuration reloaded", 2).await;
    let second = hash().await;
    assert_ne!(second, first);
    scene.rewrite(json!({ "timeouts": { "idle": "7s" } }));
    scene.logged("configuration reloaded", 3).await;
    assert_eq!(hash().await, second, "the same in force, whatever was asked for before");
}

#[tokio::test]
async fn metrics_that_nobody_makes_are_said_at_the_start() {
    let scene = Scene::start(json!({ "telemetry": { "metrics_on_data_plane": true } })).await;
    let said = until("the notice", async || {
        scene.gateway.log().into_iter().find(|line| line.contains("telemetry.metrics_on_data_plane"))
    })
    .await;
    assert!(said.contains("type: prometheus"), "{said}");
}
