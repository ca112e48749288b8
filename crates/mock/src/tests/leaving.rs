use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client_for_tests::{chat, connect, head, send, server};
use crate::{MockServer, Script};

/// Leaves once the socket has given `wait_for` bytes; returns the server after the abort was seen.
async fn leave(script: Value, wait_for: usize) -> MockServer {
    let server = server(Script::default()).await;
    let mut socket = connect(server.addr()).await;
    let script = script.to_string();
    let request =
        head("POST", "/v1/chat/completions", &[("x-mock", &script)], chat(true).to_string().as_bytes());
    socket.write_all(&request).await.unwrap();
    let mut raw = Vec::new();
    while raw.len() < wait_for {
        socket.read_buf(&mut raw).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((server.stats().aborted, server.stats().open_streams), (0, 1));
    drop(socket);
    tokio::time::sleep(Duration::from_millis(20)).await;
    server
}

#[tokio::test]
async fn in_every_phase() {
    for (script, wait_for) in [
        (json!({"delay_headers_ms": 5000}), 0),
        (json!({"ttft_ms": 5000}), 100),
        (json!({"text": "a b c d", "gap_ms": 5000}), 800),
        (json!({"stall_after": 0}), 100),
    ] {
        let server = leave(script.clone(), wait_for).await;
        let stats = server.stats();
        assert_eq!((stats.aborted, stats.completed, stats.open_streams), (1, 0, 0), "{script}");
        assert_eq!(stats.open_connections, 0);
        assert!(server.received()[0].closed_by_peer);
    }
}

#[tokio::test]
async fn while_sending_the_request() {
    let server = server(Script::default()).await;
    let mut socket = connect(server.addr()).await;
    socket.write_all(b"POST /v1/files HTTP/1.1\r\nhost: m\r\ncontent-length: 100\r\n\r\nabc").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(socket);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(server.stats().aborted, 1);
    let received = server.received();
    assert_eq!((&received[0].body[..], received[0].closed_by_peer), (&b"abc"[..], true));
}

#[tokio::test]
async fn complete_answers_are_counted_so() {
    let server = server(Script::default()).await;
    for (stream, script) in [
        (false, json!({})),
        (true, json!({})),
        (false, json!({"bytes": 200_000})),
        (false, json!({"write_bytes": 100})),
        (true, json!({"content_encoding": "br"})),
        (false, json!({"body": ""})),
        (false, json!({"status": 204})),
    ] {
        let script = script.to_string();
        let body = chat(stream).to_string();
        let request = head("POST", "/v1/chat/completions", &[("x-mock", &script)], body.as_bytes());
        send(server.addr(), &request).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let stats = server.stats();
    assert_eq!((stats.requests, stats.completed, stats.aborted), (7, 7, 0));
}

#[tokio::test]
async fn admin_surface() {
    let server = server(Script::default()).await;
    let request = head("POST", "/v1/embeddings?a=1", &[("x-tag", "t")], b"\xff\xfe");
    send(server.addr(), &request).await;
    let list = send(server.addr(), &head("GET", "/mock/received", &[], b"")).await.json();
    assert_eq!(list[0]["path"], "/v1/embeddings?a=1");
    assert_eq!(list[0]["body_base64"], "//4=");
    assert_eq!(list[0]["http_version"], "HTTP/1.1");
    assert_eq!(server.received()[0].header("x-tag"), Some("t"));
    let stats = send(server.addr(), &head("GET", "/mock/stats", &[], b"")).await.json();
    assert_eq!((stats["requests"].as_u64(), stats["completed"].as_u64()), (Some(1), Some(1)));
    send(server.addr(), &head("DELETE", "/mock/received", &[], b"")).await;
    assert!(server.received().is_empty());
    server.stop().await;
}
