//! How streams end: exactly once, with the caller's own terminator or an error frame, and one record that says so.

use magicapi_testkit::ask::{CHAT, chat_request, streaming, streaming_with_usage};
use magicapi_testkit::wire::{Answer, Part, Wire, Wire2, rest, until};
use serde_json::{Value, json};

use crate::scene::{Scene, before, stop};
use magicapi_testkit::puppet::Puppet;

/// The error frame that ends a stream; nothing follows it.
fn error_frame(answer: &Answer) -> Value {
    let events = answer.events();
    let last = events.last().unwrap_or_else(|| panic!("no event: {}", answer.text()));
    let frame: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {}", answer.text()));
    assert!(frame["error"]["message"].is_string(), "no error frame: {last}");
    assert!(answer.text().ends_with("\n\n"), "the frame is not whole: {:?}", answer.text());
    assert!(!answer.text().contains("[DONE]"), "an error is no success: {}", answer.text());
    frame["error"].clone()
}

#[tokio::test]
async fn a_missing_done_is_added_once() {
    let scene = Scene::start(json!({})).await;
    let answer = scene.answer("no done", &json!({ "no_done": true, "text": "a b" }), &streaming()).await;
    assert!(answer.whole);
    assert_eq!(answer.text().matches("[DONE]").count(), 1);
    assert!(answer.text().ends_with("\n\ndata: [DONE]\n\n"), "{}", answer.text());
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("no done")["outcome"], "completed");
    assert_eq!(left.metadata("no done")["tokens"]["output"], 2);
    assert_eq!(left.metadata("no done")["response_size"], answer.body().len());
}

#[tokio::test]
async fn a_stream_that_is_cut_short_ends_with_an_error_frame() {
    let chunk = |text: &str| {
        format!(
            "data: {}\n\n",
            json!({ "id": "c", "choices": [{ "index": 0, "delta": { "content": text } }] })
        )
    };
    let two = chunk("one ") + &chunk("two ✓");
    let half = two.clone() + "data: {\"id\":\"c\",\"choices\":[{\"ind";
    let unended = two.trim_end().to_owned();
    let scene = Scene::start(json!({})).await;
    let cases = [
        ("end of file", json!({ "raw_sse": two }), 2),
        ("end within an event", json!({ "raw_sse": half }), 2),
        ("no blank line", json!({ "raw_sse": unended }), 2),
        ("nothing at all", json!({ "raw_sse": "" }), 0),
        ("comments alone", json!({ "raw_sse": ": hello\n\n: there\n\n" }), 0),
        ("cut between events", json!({ "text": "a b c d", "cut_after": 3 }), 3),
        ("cut within an event", json!({ "raw_sse": two, "cut_after_bytes": chunk("one ").len() + 9 }), 1),
        ("cut before any event", json!({ "raw_sse": two, "cut_after_bytes": 0 }), 0),
    ];
    for (case, script, events) in &cases {
        let answer = scene.answer(case, script, &streaming()).await;
        assert_eq!(answer.head.status, 200, "{case}");
        assert!(answer.whole, "{case}: the frame says it, the connection stays");
        let frame = error_frame(&answer);
        assert_eq!(frame["code"], "stream_truncated", "{case}");
        assert!(!frame.to_string().contains("127.0.0.1"), "{case}: the provider's address: {frame}");
        assert_eq!(answer.events().len(), events + 1, "{case}: {}", answer.text());
        for event in answer.events() {
            serde_json::from_str::<Value>(&event).unwrap_or_else(|e| panic!("{case}: {e}: {event}"));
        }
    }
    let address = scene.mock.addr().to_string();
    let left = stop(scene.gateway).await;
    for (case, ..) in &cases {
        let metadata = left.metadata(case);
        assert_eq!(metadata["outcome"], "truncated", "{case}");
        assert_eq!(metadata["error_type"], "stream_truncated", "{case}");
        assert_eq!((&metadata["status"], &metadata["error_count"]), (&json!("error"), &json!(1)), "{case}");
        assert_eq!(metadata["status_code"], 200, "{case}");
        let message = metadata["error_message"].as_str().expect("a message");
        assert_eq!(
            message.contains(&address),
            case.starts_with("cut"),
            "{case}: the record says where: {message}"
        );
        assert_eq!(left.row(case).outcome.as_str(), "truncated", "{case}");
        assert_eq!(left.row(case).attempts.len(), 1, "{case}");
    }
}

#[tokio::test]
async fn a_cut_before_the_head_is_an_answer_in_json() {
    let scene = Scene::start(json!({})).await;
    let answer = scene.answer("no head", &json!({ "cut_after": 0 }), &streaming()).await;
    assert_eq!(answer.head.status, 502);
    assert_eq!(answer.head.header("content-type"), Some("application/json"));
    assert_eq!(answer.head.header("x-gateway-error-origin"), Some("provider"));
    assert_eq!(answer.json()["error"]["code"], "connection_closed");
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("no head")["outcome"], "provider_error");
    assert_eq!(left.metadata("no head")["provider_status_code"], 0);
}

#[tokio::test]
async fn a_cut_within_an_event_that_was_passing_leaves_the_frame_readable() {
    let scene = Scene::start(json!({})).await;
    let script = json!({ "huge_event_bytes": 3 << 20, "cut_after_bytes": 2 << 20 });
    let answer = scene.answer("huge cut", &script, &streaming()).await;
    let text = answer.text();
    let frame = text.rfind("data: {\"error\"").expect("an error frame");
    assert!(text[..frame].ends_with("\n\n"), "the frame is glued to the event: {:?}", &text[frame - 20..]);
    assert_eq!(error_frame(&answer)["code"], "stream_truncated");
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("huge cut")["outcome"], "truncated");
}

#[tokio::test]
async fn an_error_event_ends_the_stream_as_it_came() {
    let scene = Scene::start(json!({})).await;
    let said = json!({ "error": { "message": "overloaded midway ✓", "type": "server_error", "code": "x9" } });
    let script = json!({ "text": "a b c d", "error_after": 3, "error_event": said });
    let answer = scene.answer("error", &script, &streaming_with_usage()).await;
    assert!(answer.whole);
    assert_eq!(error_frame(&answer), said["error"]);
    assert_eq!(answer.events().len(), 4);
    let left = stop(scene.gateway).await;
    let metadata = left.metadata("error");
    assert_eq!(metadata["outcome"], "provider_error");
    assert_eq!(metadata["error_type"], "provider_stream_error");
    assert_eq!(metadata["provider_error_count"], 1);
    assert!(metadata["error_message"].as_str().expect("a message").contains("overloaded midway ✓"));
    assert_eq!(left.row("error").attempts[0].error_type.as_deref(), Some("provider_stream_error"));
}

#[tokio::test]
async fn a_refused_stream_keeps_status_and_body() {
    let scene = Scene::start(json!({})).await;
    let kinds =
        [(400, "invalid_request"), (401, "authentication"), (429, "rate_limited"), (500, "server_error")];
    for (status, kind) in kinds {
        let body = json!({ "error": { "message": format!("no: {status} ✓"), "type": "t", "code": null } });
        let text = format!("  {body}\n");
        let error = json!({ "status": status, "body": text });
        let script = json!({ "error": error, "headers": { "retry-after": "7" } });
        let answer = scene.answer(kind, &script, &streaming()).await;
        assert_eq!(answer.head.status, status);
        assert_eq!(answer.text(), text, "{status}");
        assert_eq!(answer.head.header("content-type"), Some("application/json"));
        assert_eq!(answer.head.header("retry-after"), Some("7"));
        assert_eq!(answer.head.header("x-gateway-error-origin"), Some("provider"));
    }
    let left = stop(scene.gateway).await;
    for (status, kind) in kinds {
        let metadata = left.metadata(kind);
        assert_eq!((&metadata["outcome"], &metadata["streamed"]), (&json!("provider_error"), &json!(false)));
        assert_eq!(
            (&metadata["status_code"], &metadata["provider_status_code"]),
            (&json!(status), &json!(status))
        );
        assert_eq!(metadata["provider_error_type"], kind);
        assert_eq!(left.record(kind)["attributes"]["response"]["error"]["type"], "t");
    }
}

/// A finish reason, then a provider that never ends: five seconds of grace for the usage, then our terminator.
/// What the provider sends to keep the connection open does not prolong it (pitfall 10).
#[tokio::test]
async fn silence_after_the_finish_is_an_end() {
    let scene = Scene::start(json!({})).await;
    // Role, "a", "b", finish.
    let silent = json!({ "text": "a b", "stall_after": 4 });
    let beating = json!({ "text": "a b", "stall_after": 4, "heartbeat_ms": 300 });
    let body = streaming();
    let (silent, beating) =
        tokio::join!(scene.answer("silent", &silent, &body), scene.answer("beating", &beating, &body));
    for answer in [&silent, &beating] {
        assert!(answer.whole);
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
        assert_eq!(answer.text().matches("[DONE]").count(), 1);
    }
    assert!(beating.text().contains(": keep-alive"), "the provider's comments pass");
    until("the upstreams closing", async || (scene.mock.stats().aborted == 2).then_some(())).await;
    let left = stop(scene.gateway).await;
    for case in ["silent", "beating"] {
        assert_eq!(left.metadata(case)["outcome"], "completed", "{case}");
        assert_eq!(left.metadata(case)["finish_reasons"], json!(["stop"]), "{case}");
        let latency = left.metadata(case)["latency"].as_u64().expect("a time");
        assert!(latency >= 5_000, "{case}: the usage chunk had no time to come: {latency}");
    }
}

/// The caller does not wait for a provider that keeps its connection open after `[DONE]`.
#[tokio::test]
async fn done_ends_the_stream_at_once() {
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), json!({})).await;
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(&chat_request("open", &json!({}), &streaming())).await;
    let mut hand = puppet.asked().await;
    hand.stream().await;
    hand.send(
        b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n",
    )
    .await;
    hand.send(b"data: [DONE]\n\n").await;
    let answer = wire.answer().await.expect("an answer");
    assert!(answer.whole && answer.text().ends_with("data: [DONE]\n\n"));
    // The connection serves the next request, and the provider's is let go.
    hand.closed().await;
    wire.send(&chat_request("next", &json!({}), &streaming())).await;
    let mut hand = puppet.asked().await;
    hand.stream().await;
    hand.send(b"data: [DONE]\n\n").await;
    hand.end().await;
    assert!(wire.answer().await.expect("an answer").whole);
    let left = stop(gateway).await;
    assert_eq!(left.metadata("open")["outcome"], "completed");
}

/// What a provider sent before it broke off reaches the client before its connection is cut: a race that is lost now and
/// then is lost within so many runs.
#[tokio::test]
async fn what_came_before_a_break_reaches_the_client() {
    const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    const CODED: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\
                         transfer-encoding: chunked\r\n\r\n";
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), json!({})).await;
    for run in 0..200 {
        for (head, body, sent) in [(PLAIN, "", ""), (PLAIN, "{\"a\"", "{\"a\""), (CODED, "", "")] {
            let mut wire = Wire::connect(gateway.socket()).await;
            wire.send(&chat_request("broken", &json!({}), &streaming())).await;
            let mut hand = puppet.asked().await;
            hand.raw([head, body].concat().as_bytes()).await;
            drop(hand);
            let answer = wire.answer().await.unwrap_or_else(|| panic!("run {run}: no head"));
            assert_eq!(
                (answer.head.status, answer.text().as_str(), answer.whole),
                (200, sent, false),
                "{run}"
            );
        }
    }
    for run in 0..20 {
        let mut wire = Wire2::connect(gateway.socket()).await;
        let json = [("content-type", "application/json")];
        let exchange = wire.send("POST", CHAT, &json, streaming().to_string().as_bytes()).await;
        let mut hand = puppet.asked().await;
        hand.raw(PLAIN.as_bytes()).await;
        drop(hand);
        let (status, mut body) = exchange.head().await;
        assert_eq!((status, rest(&mut body).await), (200, (Vec::new(), false)), "{run}");
    }
}

/// The same with more than a socket holds, for a client that reads only then.
#[tokio::test]
async fn all_that_came_before_a_break_reaches_a_slow_client() {
    const SENT: usize = 16 << 20;
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), json!({})).await;
    let mut wire = Wire::connect(gateway.socket()).await;
    wire.send(&chat_request("broken", &json!({}), &streaming())).await;
    let mut hand = puppet.asked().await;
    let provider = async {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", SENT + 1);
        hand.raw(head.as_bytes()).await;
        hand.raw(&vec![b'a'; SENT]).await;
        drop(hand);
    };
    let client = async {
        assert_eq!(wire.head().await.expect("a head").status, 200);
        let mut received = 0;
        loop {
            match wire.part().await {
                Part::Data(data) => received += data.len(),
                end => return (received, end),
            }
        }
    };
    let ((), (received, end)) = tokio::join!(provider, client);
    assert_eq!((received, end), (SENT, Part::Cut));
    let left = stop(gateway).await;
    assert_eq!(left.metadata("broken")["response_size"], SENT);
    assert_eq!(left.metadata("broken")["outcome"], "truncated");
}
