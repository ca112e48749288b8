//! HTTP/1.1 connections that are used again, requests in a row, HTTP/2 in the clear, and both loopbacks.

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::http::{Raw, get};
use magicapi_testkit::wire::{Part, Wire, Wire2, request, rest, until};
use magicapi_testkit::{Gateway, GatewayOptions};
use serde_json::json;

use crate::ask;
use crate::scene::{BINARY, Scene};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn connections_are_used_again_on_both_sides() {
    let scene = Scene::start(json!({})).await;
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    for turn in 0..5 {
        let script = json!({ "text": format!("answer {turn}") }).to_string();
        let body = question().to_string();
        wire.send(&request("POST", CHAT, &[JSON, ("x-mock", &script)], body.as_bytes())).await;
        let answer = wire.answer().await.expect("an answer on the same connection");
        assert_eq!(answer.json()["choices"][0]["message"]["content"], format!("answer {turn}"));
    }
    assert_eq!(scene.mock.stats().open_connections, 1, "one connection upstream for all of them");
    assert_eq!(scene.admin("/health/details").await.json()["data_plane"]["connections"], 1);
    wire.send(&request("GET", "/health", &[("connection", "close")], b"")).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 200);
    assert!(wire.head().await.is_none(), "closed as asked");
}

/// An error ends the request, not the connection, when its body has been read.
#[tokio::test]
async fn a_refusal_leaves_the_connection_open() {
    let scene = Scene::start(json!({})).await;
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    wire.send(&request("POST", CHAT, &[JSON], b"{nonsense")).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 400);
    assert_eq!(ask(&mut wire, "/v1/unheard/of").await.expect("an answer").head.status, 403);
    assert_eq!(ask(&mut wire, "/health").await.expect("an answer").head.status, 200);
}

#[tokio::test]
async fn requests_sent_in_a_row_are_answered_in_order() {
    let scene = Scene::start(json!({})).await;
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let chat = |text: &str, delay: u32| {
        let script = json!({ "text": text, "delay_headers_ms": delay }).to_string();
        request("POST", CHAT, &[JSON, ("x-mock", &script)], question().to_string().as_bytes())
    };
    wire.send(&[chat("first", 200), chat("second", 0), request("GET", "/health", &[], b"")].concat()).await;
    for text in ["first", "second"] {
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.json()["choices"][0]["message"]["content"], text);
    }
    assert_eq!(wire.answer().await.expect("an answer").json()["status"], "healthy");
}

/// Bytes of the next request that wait hold nothing back: not an answer, not an event of a stream.
#[tokio::test]
async fn half_of_the_next_request_holds_nothing_back() {
    let scene = Scene::start(json!({})).await;
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let half = b"GET /health HTTP/1.1\r\nhost:";
    wire.send(&[request("GET", "/health", &[], b"").as_slice(), half].concat()).await;
    assert_eq!(wire.answer().await.expect("the first answer").head.status, 200);
    wire.send(b" x\r\n\r\n").await;
    assert_eq!(wire.answer().await.expect("the second answer").head.status, 200);

    let script = json!({ "chunks": 3, "stall_after": 3 }).to_string();
    let mut body = question();
    body["stream"] = json!(true);
    let stream = request("POST", CHAT, &[JSON, ("x-mock", &script)], body.to_string().as_bytes());
    wire.send(&[stream.as_slice(), half].concat()).await;
    assert_eq!(wire.head().await.expect("the stream's head").status, 200);
    assert!(matches!(wire.part().await, Part::Data(_)), "events although the provider has stopped");
}

#[tokio::test]
async fn http2_by_prior_knowledge_is_served() {
    let scene = Scene::start(json!({})).await;
    let mut wire = Wire2::connect(scene.gateway.socket()).await;
    let mut streams = Vec::new();
    for turn in 0..20 {
        let script = json!({ "text": format!("answer {turn}"), "ttft_ms": 200 }).to_string();
        let headers = [JSON, ("x-mock", &script)];
        streams.push(wire.send("POST", CHAT, &headers, question().to_string().as_bytes()).await);
    }
    for (turn, stream) in streams.into_iter().enumerate() {
        let (status, mut body) = stream.head().await;
        let (body, whole) = rest(&mut body).await;
        assert!(status == 200 && whole);
        assert!(String::from_utf8_lossy(&body).contains(&format!("answer {turn}\"")));
    }
    assert_eq!(scene.admin("/health/details").await.json()["data_plane"]["connections"], 1);
    drop(wire);
    let gone = async || {
        let health = scene.admin("/health/details").await.json();
        (health["data_plane"]["connections"] == 0).then_some(())
    };
    until("no connection", gone).await;
}

/// An offer to go over to HTTP/2 in the clear may be ignored, and is.
#[tokio::test]
async fn an_offer_of_h2c_is_answered_in_http1() {
    let scene = Scene::start(json!({})).await;
    let mut wire = Wire::connect(scene.gateway.socket()).await;
    let offer =
        [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk"), JSON];
    wire.send(&request("POST", CHAT, &offer, question().to_string().as_bytes())).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 200);
    let received = scene.received();
    assert_eq!((received.header("upgrade"), received.header("http2-settings")), (None, None));
}

#[tokio::test]
async fn both_loopbacks_are_listened_on() {
    let gateway = Gateway::start(GatewayOptions::new(BINARY)).await;
    let port = gateway.socket().port();
    assert_eq!(get(&format!("http://127.0.0.1:{port}/health"), &[]).await.status, 200);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        assert!(gateway.log().iter().any(|line| line.contains("lacks a loopback")));
        return;
    }
    let mut raw = Raw::connect(&format!("http://[::1]:{port}")).await;
    raw.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a peer");
    assert!(raw.read_until("healthy").await.expect("an answer").starts_with("HTTP/1.1 200 "));
}
