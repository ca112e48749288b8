use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Script;
use crate::client_for_tests::{ask, chat, connect, head, post, server};

#[tokio::test]
async fn error_in_mid_stream() {
    let got = ask(json!({"text": "a b c", "error_after": 2}), true).await;
    let events = got.events();
    assert_eq!(events.len(), 3);
    assert_eq!(events[2]["error"]["type"], "server_error");
    assert!(got.complete && !got.text().contains("[DONE]"));
    let got = ask(json!({"error_after": 1, "error_event": {"error": "plain"}}), true).await;
    assert_eq!(got.events()[1], json!({"error": "plain"}));
}

#[tokio::test]
async fn cuts() {
    let got = ask(json!({"cut_after": 0}), true).await;
    assert_eq!(got.raw, 0, "nothing before a cut at 0");
    let got = ask(json!({"text": "a b c", "cut_after": 2}), true).await;
    assert_eq!((got.events().len(), got.complete), (2, false));
    let got = ask(json!({"cut_after_bytes": 0}), false).await;
    assert_eq!((got.status, got.body.len(), got.complete), (200, 0, false));
    let got = ask(json!({"cut_after_bytes": 33}), false).await;
    assert_eq!((got.body.len(), got.complete), (33, false));
    let got = ask(json!({"cut_after_bytes": 250_000, "bytes": 1_000_000}), false).await;
    assert_eq!((got.body.len(), got.complete), (250_000, false));
    let got = ask(json!({"cut_after_bytes": 100, "content_encoding": "gzip", "write_bytes": 9}), true).await;
    assert_eq!((got.body.len(), got.complete), (100, false));
}

#[tokio::test]
async fn a_scripted_cut_is_no_abort() {
    let server = server(Script::default()).await;
    for script in [json!({"cut_after": 0}), json!({"cut_after": 1})] {
        post(server.addr(), "/v1/chat/completions", script, &chat(true)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let stats = server.stats();
    assert_eq!((stats.requests, stats.completed, stats.aborted, stats.open_streams), (2, 2, 0, 0));
}

#[tokio::test]
async fn stalls_with_heartbeats() {
    let server = server(Script::default()).await;
    let mut socket = connect(server.addr()).await;
    let script = json!({"text": "a b", "stall_after": 2, "heartbeat_ms": 10}).to_string();
    let request =
        head("POST", "/chat/completions", &[("x-mock", &script)], chat(true).to_string().as_bytes());
    socket.write_all(&request).await.unwrap();
    let mut raw = Vec::new();
    let reading = async { while socket.read_buf(&mut raw).await.unwrap() > 0 {} };
    assert!(tokio::time::timeout(Duration::from_millis(120), reading).await.is_err(), "never ends");
    let text = String::from_utf8(raw).unwrap();
    assert_eq!(text.matches("data: {").count(), 2);
    assert!(text.matches(": keep-alive").count() >= 3);
}
