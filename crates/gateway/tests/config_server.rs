//! Each key of `server`, `admin`, `data_dir`, `store`, `ledger`: flipped, and the difference seen from outside.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::sync::Arc;
use std::time::Instant;

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::configuration;
use magicapi_testkit::http::{Raw, get};
use magicapi_testkit::wire::{Wire, events, request_head, until};
use magicapi_testkit::{DEADLINE, Gateway, Response, request};
use serde_json::{Value, json};

use crate::scene::{Scene, mock, options, refusal};

async fn health(url: &str) -> u16 {
    get(&format!("{url}/health"), &[]).await.status
}

#[tokio::test]
async fn server_listen_is_where_requests_are_taken() {
    let scene = Scene::with(json!({ "server": { "listen": "127.0.0.7:0" } }), &[("PORT", "")]).await;
    assert!(scene.gateway.address.starts_with("http://127.0.0.7:"), "{}", scene.gateway.address);
    assert_eq!(health(&scene.gateway.address).await, 200);
}

#[tokio::test]
async fn admin_listen_is_where_the_admin_plane_is() {
    let scene = Scene::with(json!({ "admin": { "listen": "127.0.0.8:0" } }), &[("ADMIN_LISTEN", "")]).await;
    assert!(scene.gateway.admin_address.starts_with("http://127.0.0.8:"), "{}", scene.gateway.admin_address);
    assert_eq!(scene.admin("/health/details").await.status, 200);
}

#[tokio::test]
async fn admin_token_opens_the_admin_plane() {
    let scene = Scene::start(json!({ "admin": { "token": "another-token" } })).await;
    let url = scene.gateway.admin_url("/health/details");
    assert_eq!(get(&url, &[("authorization", "Bearer another-token")]).await.status, 200);
    assert_eq!(get(&url, &[("authorization", "Bearer wrong")]).await.status, 401);
    assert!(
        !scene.gateway.data_path().join("admin.token").exists(),
        "a token was made beside the configured one"
    );
}

#[tokio::test]
async fn admin_metrics_open_needs_no_token() {
    for (word, status) in [("token", 401), ("open", 200)] {
        let exporters = json!([{ "type": "prometheus" }]);
        let changes = json!({ "admin": { "metrics": word }, "telemetry": { "exporters": exporters } });
        let scene = Scene::start(changes).await;
        assert_eq!(get(&scene.gateway.admin_url("/metrics"), &[]).await.status, status, "{word}");
        assert_eq!(get(&scene.gateway.admin_url("/health/details"), &[]).await.status, 401, "{word}");
    }
}

#[tokio::test]
async fn admin_hosts_are_names_that_open_it() {
    for (hosts, status) in [(json!([]), "403"), (json!(["gateway"]), "401")] {
        let scene = Scene::start(json!({ "admin": { "hosts": hosts } })).await;
        let mut peer = Raw::connect(&scene.gateway.admin_address).await;
        peer.send("GET /health/details HTTP/1.1\r\nhost: gateway:3001\r\n\r\n").await.expect("sent");
        let answer = peer.read_until("}").await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{hosts}: {answer}");
    }
}

fn heartbeats(answer: &Response) -> usize {
    answer.text().split("\n\n").filter(|block| block.starts_with(':')).count()
}

#[tokio::test]
async fn server_heartbeat_breaks_the_silence_of_a_stream() {
    let script = json!({ "text": "one two", "ttft_ms": 1200 });
    let often = Scene::start(json!({ "server": { "heartbeat": "100ms" } })).await;
    let answer = often.streamed(&script).await;
    assert!(heartbeats(&answer) >= 3, "{}", answer.text());
    assert_eq!(events(&answer.text()).last().map(String::as_str), Some("[DONE]"));
    let seldom = Scene::start(json!({})).await;
    assert_eq!(heartbeats(&seldom.streamed(&script).await), 0);
}

#[tokio::test]
async fn server_limits_header_bytes_bounds_the_head() {
    let head = format!("GET /health HTTP/1.1\r\nhost: g\r\nx-long: {}\r\n\r\n", "x".repeat(20 << 10));
    for (limit, fits) in [("16KiB", false), ("64KiB", true)] {
        let scene = Scene::start(json!({ "server": { "limits": { "header_bytes": limit } } })).await;
        let mut raw = Raw::connect(&scene.gateway.address).await;
        raw.send(&head).await.expect("sent");
        let said = raw.read_until("\r\n\r\n").await.expect("an answer");
        let status = if fits { "HTTP/1.1 200" } else { "HTTP/1.1 431" };
        assert!(said.starts_with(status), "{limit}: {said}");
    }
}

#[tokio::test]
async fn server_limits_header_read_ends_a_slow_head() {
    let scene = Scene::start(json!({ "server": { "limits": { "header_read": "300ms" } } })).await;
    let begun = Instant::now();
    let mut raw = Raw::connect(&scene.gateway.address).await;
    raw.send("GET /health HTTP/1.1\r\nhost: g").await.expect("sent");
    let said = raw.read_to_end().await.expect("an end");
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "the default of 30 s ended it");
    assert!(!String::from_utf8_lossy(&said).contains("200 OK"));
}

#[tokio::test]
async fn server_limits_body_rate_ends_a_body_that_drips() {
    for (rate, status) in [("1MiB", 408), ("1KiB", 200)] {
        let limits = json!({ "header_read": "1s", "body_rate": rate });
        let scene = Scene::start(json!({ "server": { "limits": limits } })).await;
        let body = format!("{}{}", question(), " ".repeat(64 << 10));
        let mut wire = Wire::connect(scene.gateway.socket()).await;
        let length = body.len().to_string();
        wire.send(&request_head("POST", CHAT, &[("content-length", &length)])).await;
        for piece in body.as_bytes().chunks(body.len() / 15) {
            wire.try_send(piece).await;
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        }
        assert_eq!(wire.answer().await.expect("an answer").head.status, status, "{rate}");
    }
}

#[tokio::test]
async fn server_limits_connections_turns_away_the_next() {
    let scene = Scene::start(json!({ "server": { "limits": { "connections": 1 } } })).await;
    let mut first = Raw::connect(&scene.gateway.address).await;
    first.send("GET /health HTTP/1.1\r\nhost: g\r\n\r\n").await.expect("sent");
    assert!(first.read_until("healthy").await.expect("an answer").contains("200 OK"));
    let mut second = Raw::connect(&scene.gateway.address).await;
    second.send("GET /health HTTP/1.1\r\nhost: g\r\n\r\n").await.expect("sent");
    let turned_away = second.read_until("}}").await.expect("an answer");
    assert!(turned_away.starts_with("HTTP/1.1 503 "), "{turned_away}");
    assert!(turned_away.contains("retry-after: 1\r\n"), "{turned_away}");
    drop(first);
    until("room again", async || (health(&scene.gateway.address).await == 200).then_some(())).await;
}

#[tokio::test]
async fn server_limits_body_bounds_what_is_held() {
    for (limit, status) in [("1KiB", 413), ("64MiB", 200)] {
        let scene = Scene::start(json!({ "server": { "limits": { "body": limit } } })).await;
        let mut body = question();
        body["messages"][0]["content"] = json!("x".repeat(2 << 10));
        assert_eq!(scene.post(CHAT, &json!({}), &[], &body).await.status, status, "{limit}");
        assert_eq!(scene.mock.received().len(), usize::from(status == 200));
    }
}

#[tokio::test]
async fn server_limits_upload_bounds_what_passes_through() {
    let form = format!(
        "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{}\r\n--b--\r\n",
        "x".repeat(4 << 10)
    );
    let headers =
        [("content-type", "multipart/form-data; boundary=b"), ("authorization", "Bearer sk-caller")];
    for (limit, status) in [("1KiB", 413), ("1GiB", 200)] {
        let scene = Scene::start(json!({ "server": { "limits": { "upload": limit } } })).await;
        let answer = request("POST", &scene.gateway.url("/v1/files"), &headers, form.clone()).await;
        assert_eq!(answer.status, status, "{limit}: {}", answer.text());
    }
}

#[tokio::test]
async fn server_drain_delay_goes_on_accepting() {
    let scene = Scene::start(json!({ "server": { "drain": { "delay": "10m" } } })).await;
    scene.gateway.signal("TERM");
    let said =
        "draining: accepting for 600s, then finishing what runs for up to 60s; a second signal ends at once";
    scene.gateway.wait_for_log(|line| line["message"] == said).await;
    until("draining", async || (get(&scene.gateway.url("/ready"), &[]).await.status == 503).then_some(()))
        .await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);

    let mut at_once = Scene::start(json!({ "server": { "drain": { "delay": "0s" } } })).await;
    at_once.gateway.signal("TERM");
    assert_eq!(at_once.gateway.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn server_drain_timeout_ends_what_still_runs() {
    let mut scene = Scene::start(json!({ "server": { "drain": { "timeout": "300ms" } } })).await;
    let url = scene.gateway.url(CHAT);
    let headers = [("content-type", "application/json"), ("x-mock", r#"{"stall_after":2}"#)];
    let mut body = question();
    body["stream"] = json!(true);
    let mut stream = magicapi_testkit::stream("POST", &url, &headers, body.to_string()).await;
    stream.next().await.expect("a piece").expect("of the stream");
    scene.gateway.signal("TERM");
    let (pieces, _) = stream.rest().await;
    let text: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("shutting down"), "{text}");
    assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));
}

#[tokio::test]
async fn data_dir_holds_what_the_gateway_keeps() {
    let scene = Scene::with(json!({ "data_dir": "elsewhere" }), &[("DATA_DIR", "")]).await;
    assert!(scene.gateway.path("elsewhere/gateway.json").exists());
    assert!(scene.gateway.path("elsewhere/magicapi.db").exists());
    assert!(!scene.gateway.data_path().exists() && !scene.gateway.path("magicapi-data").exists());
}

#[tokio::test]
async fn store_url_names_the_file_or_none() {
    let other = Scene::start(json!({ "store": { "url": "sqlite://other.db" } })).await;
    let data = other.gateway.data_path();
    assert!(data.join("other.db").exists() && !data.join("magicapi.db").exists());
    let none = Scene::start(json!({ "store": { "url": "none" } })).await;
    assert!(!none.gateway.data_path().join("magicapi.db").exists());
    assert_eq!(none.ask(&json!({}), &[]).await.status, 200);
    let logs = none.admin("/api/v1/logs").await;
    assert_eq!((logs.status, logs.text().contains("no_request_log")), (404, true), "{}", logs.text());
}

#[tokio::test]
async fn ledger_on_full_decides_whether_it_runs_without_a_store() {
    let mock = mock().await;
    // Nobody, not even root, can make it.
    let data_dir = std::path::PathBuf::from("/proc/magicapi/data");
    let variables = [("DATA_DIR", data_dir.to_str().expect("a path"))];
    let config = |word: &str| {
        let changes = json!({ "ledger": { "on_full": word }, "admin": { "token": "given" } });
        configuration(&mock.base_url(), changes)
    };
    assert!(refusal(&config("refuse"), &variables).contains("ledger.on_full"));
    let gateway = Gateway::start(options(&config("count"), &variables)).await;
    let answer =
        magicapi_testkit::http::post_json(&format!("{}{CHAT}", gateway.address), &[], &question()).await;
    assert_eq!(answer.status, 200);
    let details = get(&gateway.admin_url("/health/details"), &[("authorization", "Bearer given")]).await;
    assert!(details.json()["reasons"].to_string().contains("cannot be written"), "{}", details.text());
}

/// How many requests the embedded log has.
async fn logged(scene: &Scene) -> usize {
    let answer = scene.admin("/api/v1/logs").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document: Value = answer.json();
    let list = document.as_object().into_iter().flat_map(|all| all.values()).find_map(Value::as_array);
    list.map_or(0, Vec::len)
}

#[tokio::test]
async fn store_retention_age_deletes_old_requests() {
    let kept = Scene::start(json!({ "store": { "retention": { "age": "7d" } } })).await;
    kept.ask(&json!({}), &[]).await;
    until("a logged request", async || (logged(&kept).await == 1).then_some(())).await;
    // The same directory, by another configuration: what was kept is now too old.
    let Scene { mock, mut gateway } = kept;
    gateway.signal("TERM");
    gateway.wait(DEADLINE).await;
    let directory = gateway.data_dir.clone();
    let changes = json!({ "store": { "retention": { "age": "1ms" } } });
    let again = restarted(&mock.base_url(), changes, &directory).await;
    let again = Scene { mock, gateway: again };
    until("an empty log", async || (logged(&again).await == 0).then_some(())).await;
}

#[tokio::test]
async fn store_retention_size_deletes_the_oldest_requests() {
    let kept = Scene::start(json!({})).await;
    let mut body = question();
    body["messages"][0]["content"] = json!("x".repeat(64 << 10));
    for _ in 0..3 {
        kept.post(CHAT, &json!({}), &[], &body).await;
    }
    until("logged requests", async || (logged(&kept).await == 3).then_some(())).await;
    let Scene { mock, mut gateway } = kept;
    gateway.signal("TERM");
    gateway.wait(DEADLINE).await;
    let directory = gateway.data_dir.clone();
    let changes = json!({ "store": { "retention": { "size": "1KiB" } } });
    let again = Scene { gateway: restarted(&mock.base_url(), changes, &directory).await, mock };
    until("a shorter log", async || (logged(&again).await < 3).then_some(())).await;
}

async fn restarted(base_url: &str, changes: Value, directory: &Arc<tempfile::TempDir>) -> Gateway {
    Gateway::start(options(&configuration(base_url, changes), &[]).data_dir(directory)).await
}
