use serde_json::json;

use crate::client_for_tests::{ask, chat, head, post, send, server};
use crate::{MockOptions, MockServer, Script, ScriptFile};

#[tokio::test]
async fn default_answer_echoes_and_counts() {
    let got = ask(json!({}), false).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("x-request-id"), Some("mock_req_1"));
    assert_eq!(got.header("x-ratelimit-remaining-requests"), Some("9999"));
    assert_eq!(got.header("content-type"), Some("application/json"));
    let body = got.json();
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["content"], "Hello from the mock provider. You said: hi there");
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(body["model"], "m");
    assert_eq!(body["usage"]["prompt_tokens"], 2);
    assert_eq!(body["usage"]["completion_tokens"], 9);
    assert_eq!(body["usage"]["total_tokens"], 11);
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[tokio::test]
async fn stream_without_usage_and_with() {
    let got = ask(json!({"text": "one two"}), true).await;
    assert_eq!(got.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(got.text().ends_with("data: [DONE]\n\n"));
    let events = got.events();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[1]["choices"][0]["delta"]["content"], "one ");
    assert_eq!(events[3]["choices"][0]["finish_reason"], "stop");
    assert!(events.iter().all(|e| e.get("usage").is_none()));

    let server = server(Script::default()).await;
    let mut body = chat(true);
    body["stream_options"] = json!({"include_usage": true});
    let got = post(server.addr(), "/x/v1/chat/completions", json!({"text": "one two"}), &body).await;
    let events = got.events();
    assert_eq!(events.len(), 5);
    assert!(events[..4].iter().all(|e| e["usage"].is_null() && e.get("usage").is_some()));
    assert_eq!(events[4]["choices"], json!([]));
    assert_eq!(events[4]["usage"]["total_tokens"], 4);
    let got = post(server.addr(), "/v1/chat/completions", json!({"usage": null}), &body).await;
    assert!(got.events().iter().all(|e| e.get("usage").is_none()));
}

#[tokio::test]
async fn usage_in_every_place() {
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8, "odd": 1.5});
    let script = |place: &str| json!({"text": "a b", "usage": usage, "usage_placement": place});
    let events = ask(script("always_final"), true).await.events();
    assert_eq!(events[3]["usage"], usage);
    assert_eq!(events[3]["choices"][0]["finish_reason"], "stop");
    let events = ask(script("x_groq"), true).await.events();
    assert_eq!(events[3]["x_groq"]["usage"], usage);
    let events = ask(script("every_chunk"), true).await.events();
    assert!(events.iter().all(|e| e["usage"] == usage));
    let events = ask(json!({"text": "a b", "usage_placement": "every_chunk"}), true).await.events();
    let counts: Vec<_> = events.iter().map(|e| e["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(counts, [0, 1, 2, 2]);
    let events = ask(script("none"), true).await.events();
    assert!(events.iter().all(|e| e.get("usage").is_none()));
    assert_eq!(ask(script("openai"), false).await.json()["usage"], usage);
    assert!(ask(json!({"usage": null}), false).await.json().get("usage").is_none());
}

#[tokio::test]
async fn tool_calls_interleave() {
    let script = json!({"tool_calls": [
        {"id": "a", "name": "f", "arguments": "{\"city\":\"Paris\",\"n\":1}"},
        {"name": "g", "arguments": {"x": [1, 2]}},
        {"name": "h", "arguments": "free text", "custom": true},
    ]});
    let body = ask(script.clone(), false).await.json();
    let message = &body["choices"][0]["message"];
    assert!(message["content"].is_null());
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(message["tool_calls"][1]["function"]["arguments"], "{\"x\":[1,2]}");
    assert_eq!(message["tool_calls"][1]["id"], "call_mock_1");
    assert_eq!(message["tool_calls"][2]["custom"], json!({"name": "h", "input": "free text"}));

    let mut arguments = vec![String::new(); 3];
    let mut order = Vec::new();
    for event in ask(script, true).await.events() {
        let Some(call) = event["choices"][0]["delta"]["tool_calls"].get(0).cloned() else { continue };
        let index = call["index"].as_u64().unwrap() as usize;
        order.push(index);
        let piece = call["function"]["arguments"].as_str().or(call["custom"]["input"].as_str()).unwrap();
        assert_eq!(call.get("id").is_some(), piece.is_empty());
        arguments[index].push_str(piece);
    }
    assert_eq!(arguments, ["{\"city\":\"Paris\",\"n\":1}", "{\"x\":[1,2]}", "free text"]);
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0]);
}

#[tokio::test]
async fn reasoning_refusal_choices_and_tier() {
    let script = json!({"reasoning": "let me think", "reasoning_field": "reasoning", "text": "ok",
        "service_tier": "flex", "finish_reason": "length", "n": 2});
    let body = ask(script.clone(), false).await.json();
    assert_eq!(body["choices"][1]["message"]["reasoning"], "let me think");
    assert_eq!(body["choices"][1]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens_details"]["reasoning_tokens"], 6);
    assert_eq!(body["service_tier"], "flex");
    let events = ask(script, true).await.events();
    let said = |index: u64, member: &str| -> String {
        let of = events.iter().filter(|e| e["choices"][0]["index"] == index);
        of.filter_map(|e| e["choices"][0]["delta"][member].as_str()).collect()
    };
    assert_eq!((said(0, "reasoning"), said(1, "content")), ("let me think".into(), "ok".into()));

    let body = ask(json!({"refusal": "no way"}), false).await.json();
    assert_eq!(body["choices"][0]["message"]["refusal"], "no way");
    assert!(body["choices"][0]["message"]["content"].is_null());
    let events = ask(json!({"refusal": "no way"}), true).await.events();
    assert_eq!(events[1]["choices"][0]["delta"]["refusal"], "no ");
}

#[tokio::test]
async fn status_error_body_and_headers() {
    let got = ask(json!({"status": 429, "headers": {"retry-after": "3", "x-many": ["a", "b"]}}), true).await;
    assert_eq!((got.status, got.header("retry-after")), (429, Some("3")));
    assert_eq!(got.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(got.headers.iter().filter(|(n, _)| n == "x-many").count(), 2);
    let got =
        ask(json!({"error": {"status": 502, "body": "<html>", "content_type": "text/html"}}), false).await;
    assert_eq!(
        (got.status, got.text().as_str(), got.header("content-type")),
        (502, "<html>", Some("text/html"))
    );
    let got = ask(
        json!({"body": {"detail": [1]}, "status": 422, "content_type": "application/problem+json"}),
        false,
    );
    let got = got.await;
    assert_eq!((got.status, got.text().as_str()), (422, "{\"detail\":[1]}"));
    assert_eq!(got.header("content-type"), Some("application/problem+json"));
    let got = ask(json!({"connection_close": true}), false).await;
    assert_eq!(got.header("connection"), Some("close"));
    assert_eq!(ask(json!({"status": 204}), false).await.status, 204);
}

#[tokio::test]
async fn bad_script_is_named() {
    let got = ask(json!({"txet": "x"}), false).await;
    assert_eq!(got.status, 400);
    assert_eq!(got.json()["error"]["type"], "mock_script_error");
}

#[tokio::test]
async fn header_beats_rule_beats_default() {
    let file = ScriptFile::from_json(
        br#"{"rules":[{"match":{"path":"/chat/completions","model":"m"},"script":{"text":"rule"}}],
            "default":{"text":"default"}}"#,
    );
    let server =
        MockServer::start(MockOptions { script: file.unwrap(), ..MockOptions::default() }).await.unwrap();
    let text = |got: crate::client_for_tests::Got| got.json()["choices"][0]["message"]["content"].clone();
    let body = chat(false).to_string();
    let plain = head("POST", "/v1/chat/completions", &[], body.as_bytes());
    assert_eq!(text(send(server.addr(), &plain).await), "rule");
    let own = post(server.addr(), "/v1/chat/completions", json!({"text": "own"}), &chat(false)).await;
    assert_eq!(text(own), "own");
    let other = body.replace("\"m\"", "\"q\"");
    let other = head("POST", "/v1/chat/completions", &[], other.as_bytes());
    assert_eq!(text(send(server.addr(), &other).await), "default");
}

#[tokio::test]
async fn echo_headers() {
    let content = ask(json!({"echo_headers": true}), false).await.json();
    let headers: serde_json::Value =
        serde_json::from_str(content["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(headers["host"], "mock");
}
