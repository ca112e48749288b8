use std::io::Read;
use std::time::Instant;

use serde_json::json;

use crate::Script;
use crate::client_for_tests::{ask, chat, head, send, server};

#[tokio::test]
async fn chunk_counts_and_sizes() {
    let got = ask(json!({"chunks": 5, "chunk_bytes": 1000}), true).await;
    let events = got.events();
    assert_eq!(events.len(), 7);
    assert!(events[1..6].iter().all(|e| e["choices"][0]["delta"]["content"].as_str().unwrap().len() == 1000));
    let whole = ask(json!({"chunks": 5, "chunk_bytes": 1000}), false).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"].as_str().unwrap().len(), 5000);
    assert_eq!(whole["usage"]["completion_tokens"], 5);
    let got = ask(json!({"text": "abcdef", "chunk_bytes": 2}), true).await;
    assert_eq!(got.events()[2]["choices"][0]["delta"]["content"], "cd");
    let huge = ask(json!({"huge_event_bytes": 300_000, "text": "x"}), true).await;
    assert_eq!(huge.events()[1]["choices"][0]["delta"]["content"].as_str().unwrap().len(), 300_000);
}

#[tokio::test]
async fn sizes_are_exact() {
    for bytes in [1024, 100_000, 1_000_000] {
        let got = ask(json!({"bytes": bytes}), false).await;
        assert_eq!(got.header("content-length"), Some(bytes.to_string().as_str()));
        assert_eq!(got.body.len(), bytes);
        assert!(got.json()["choices"][0]["message"]["content"].as_str().unwrap().starts_with("Hello"));
    }
}

#[tokio::test]
async fn single_byte_writes() {
    let got = ask(json!({"text": "ab", "write_bytes": 1}), true).await;
    assert!(got.complete && got.chunks.iter().all(|&c| c == 1));
    assert!(got.text().ends_with("data: [DONE]\n\n"));
    let got = ask(json!({"text": "ab", "write_bytes": 7}), false).await;
    assert_eq!(got.json()["choices"][0]["message"]["content"], "ab");
}

#[tokio::test]
async fn framing_fields() {
    let got = ask(json!({"text": "a", "crlf": "crlf", "no_space": true, "no_done": true}), true).await;
    let text = got.text();
    assert!(text.starts_with("data:{") && text.ends_with("\r\n\r\n") && !text.contains("[DONE]"));
    let got = ask(json!({"text": "a", "crlf": "cr"}), true).await;
    assert!(got.text().ends_with("data: [DONE]\r\r") && !got.text().contains('\n'));
    let got = ask(json!({"text": "a", "comments": true, "empty_events": true}), true).await;
    assert!(got.text().starts_with(": keep-alive\n\ndata: \n\ndata: {"));
    let got = ask(json!({"text": "a", "event_after_done": {"late": true}}), true).await;
    assert!(got.text().ends_with("data: [DONE]\n\ndata: {\"late\":true}\n\n"));
}

#[tokio::test]
async fn raw_streams() {
    let got = ask(json!({"raw_sse": "event: x\ndata: 1\n\n"}), true).await;
    assert_eq!(got.text(), "event: x\ndata: 1\n\n");
    let got = ask(json!({"raw_chunks": ["{\"a\":", {"b": 1}]}), true).await;
    assert_eq!(got.text(), "data: {\"a\":\n\ndata: {\"b\":1}\n\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn times() {
    let start = Instant::now();
    ask(json!({"text": "a b c", "ttft_ms": 60, "gap_ms": 40, "delay_headers_ms": 30}), true).await;
    let took = start.elapsed().as_millis();
    assert!((170..400).contains(&took), "{took}");
    let start = Instant::now();
    ask(json!({"ttft_ms": 60}), false).await;
    assert!(start.elapsed().as_millis() >= 60);
}

#[tokio::test]
async fn heartbeats_fill_the_silence() {
    let got = ask(json!({"text": "a", "ttft_ms": 100, "heartbeat_ms": 20}), true).await;
    let beats = got.text().matches(": keep-alive\n\n").count();
    assert!((2..=5).contains(&beats), "{beats}");
    assert!(got.text().ends_with("data: [DONE]\n\n"));
}

fn gunzip(data: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(data).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn compression_forced_and_negotiated() {
    let got = ask(json!({"text": "a", "content_encoding": "gzip"}), false).await;
    assert_eq!(got.header("content-encoding"), Some("gzip"));
    assert!(gunzip(&got.body).contains("\"content\":\"a\""));
    let got = ask(json!({"text": "a b", "content_encoding": "gzip"}), true).await;
    assert!(got.chunks.len() > 4, "flushed per event");
    assert!(gunzip(&got.body).ends_with("data: [DONE]\n\n"));
    let got = ask(json!({"bytes": 300_000, "content_encoding": "gzip"}), false).await;
    assert_eq!(gunzip(&got.body).len(), 300_000);
    let got = ask(json!({"content_encoding": "identity"}), false).await;
    assert_eq!(got.header("content-encoding"), Some("identity"));

    let server = server(Script { compress: true, ..Script::default() }).await;
    let body = chat(false).to_string();
    for (accept, coding) in [("br", Some("br")), ("zstd, gzip", Some("zstd")), ("deflate", None)] {
        let request = head("POST", "/chat/completions", &[("accept-encoding", accept)], body.as_bytes());
        assert_eq!(send(server.addr(), &request).await.header("content-encoding"), coding);
    }
}

/// Not a limit, only a figure: `cargo test -p magicapi-mock --release -- --ignored --nocapture speed`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed_of_the_plain_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let server = crate::MockServer::start(crate::MockOptions::default()).await.unwrap();
    let request = head("POST", "/v1/chat/completions", &[], chat(false).to_string().as_bytes());
    let start = Instant::now();
    let clients = (0..16).map(|_| {
        let (addr, request) = (server.addr(), request.clone());
        tokio::spawn(async move {
            let mut socket = crate::client_for_tests::connect(addr).await;
            let mut buf = vec![0; 16_384];
            for _ in 0..5000 {
                socket.write_all(&request).await.unwrap();
                let _ = socket.read(&mut buf).await.unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let rate = 80_000.0 / start.elapsed().as_secs_f64();
    println!("{rate:.0} answers a second");
}
