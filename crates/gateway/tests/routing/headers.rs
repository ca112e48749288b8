//! Which headers cross, each way.

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::http::Raw;
use magicapi_testkit::wire::{Wire, request};
use serde_json::json;

use crate::{ask, start};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Kept by the gateway: hop by hop, its own, tracing, and with its own key the account's.
const KEPT: [(&str, &str); 19] = [
    ("connection", "keep-alive, x-hop"),
    ("x-hop", "1"),
    ("keep-alive", "timeout=5"),
    ("te", "trailers"),
    ("proxy-authorization", "Basic abc"),
    ("cookie", "session=1"),
    ("x-project-id", "p"),
    ("x-project-name", "project"),
    ("x-organisation-id", "o"),
    ("x-organization-id", "o2"),
    ("x-user-id", "u"),
    ("x-experiment-id", "e"),
    ("x-thread-id", "t"),
    ("x-request-id", "my-id"),
    ("traceparent", TRACE),
    ("tracestate", "a=b"),
    ("openai-organization", "org-1"),
    ("openai-project", "proj-1"),
    ("x-provider", "openai"),
];

const SENT_ON: [(&str, &str); 7] = [
    ("user-agent", "my-app/1.0"),
    ("openai-beta", "assistants=v2"),
    ("idempotency-key", "k-1"),
    ("x-stainless-lang", "python"),
    ("accept", "application/json"),
    ("x-custom", "one"),
    ("x-custom", "two"),
];

#[tokio::test]
async fn what_goes_to_the_provider() {
    let scene = start(json!({})).await;
    let sent: Vec<_> =
        KEPT.into_iter().chain(SENT_ON).chain([("accept-encoding", "gzip, foo, br;q=0.5")]).collect();
    let answer = scene.post(CHAT, &json!({}), &sent, &question()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let received = scene.received();
    for (name, _) in KEPT {
        assert_eq!(received.header(name), None, "{name} went on");
    }
    for pair in SENT_ON {
        let pair = (pair.0.to_owned(), pair.1.to_owned());
        assert!(received.headers.contains(&pair), "{pair:?} is missing in {:?}", received.headers);
    }
    assert_eq!(received.header("host"), Some(scene.mock.addr().to_string().as_str()));
    assert_eq!(received.header("content-length"), Some(received.body.len().to_string().as_str()));
    assert_eq!(
        received.header("accept-encoding"),
        Some("gzip, br;q=0.5"),
        "what the record's reader can undo"
    );

    let record = scene.last_of(1).await;
    for (name, value) in [("org_id", "o"), ("user_id", "u"), ("thread_id", "t"), ("experiment_id", "e")] {
        assert_eq!(record[name], value);
    }
    assert_eq!(record["metadata"]["trace_id"], &TRACE[3..35]);
}

/// The account that a caller names is the caller's own when the key is.
#[tokio::test]
async fn a_callers_key_takes_its_account_along() {
    let scene = start(json!({})).await;
    let headers =
        [("authorization", "Bearer sk-mine"), ("openai-organization", "org-1"), ("openai-project", "p-1")];
    let script = json!({ "headers": { "openai-organization": "org-of-key" } });
    let answer = scene.ask(&script, &headers).await;
    let received = scene.received();
    assert_eq!(received.header("openai-organization"), Some("org-1"));
    assert_eq!(received.header("openai-project"), Some("p-1"));
    assert_eq!(answer.header("openai-organization"), "org-of-key");
}

/// To the caller goes everything but hop by hop, cookies and the account of our key; what the gateway says of itself
/// no provider can say for it.
#[tokio::test]
async fn what_goes_to_the_caller() {
    let scene = start(json!({})).await;
    let script = json!({ "headers": {
        "set-cookie": ["a=1", "b=2"], "openai-organization": "org-of-ours", "keep-alive": "timeout=5",
        "x-custom": ["one", "two"], "x-ratelimit-remaining-requests": "9", "x-request-id": "req-of-provider",
        "x-gateway-error-origin": "gateway", "x-gateway-params-dropped": "nothing", "x-gateway-provider": "fake",
        "x-gateway-cache": "hit",
    } });
    for stream in [false, true] {
        let answer = if stream { scene.streamed(&script).await } else { scene.ask(&script, &[]).await };
        for gone in [
            "set-cookie",
            "openai-organization",
            "keep-alive",
            "x-gateway-error-origin",
            "x-gateway-params-dropped",
            "x-gateway-cache",
        ] {
            assert_eq!(answer.header(gone), "", "{gone} came through");
        }
        let custom: Vec<_> = answer.headers.get_all("x-custom").iter().collect();
        assert_eq!(custom, ["one", "two"]);
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), "9");
        assert_eq!(answer.header("x-gateway-provider"), "openai");
        assert_eq!(answer.header("x-gateway-attempts"), "1");
        assert_eq!(answer.header("x-gateway-provider-request-id"), "req-of-provider");
        assert!(answer.header("x-request-id").starts_with("msg_"));
        assert!(answer.header("x-gateway-overhead-ms").parse::<f64>().is_ok_and(|ms| ms >= 0.0));
    }
}

#[tokio::test]
async fn the_callers_request_id_comes_back_and_the_record_keeps_its_own() {
    let scene = start(json!({})).await;
    let answer = ask(&scene, &[("x-request-id", "my id, 42")], "gpt-4o").await;
    assert_eq!(answer.header("x-request-id"), "my id, 42");
    let refused = ask(&scene, &[("x-request-id", "of an error"), ("x-provider", "nobody")], "gpt-4o").await;
    assert_eq!((refused.status, refused.header("x-request-id")), (400, "of an error"));
    let long = "x".repeat(257);
    let answer = ask(&scene, &[("x-request-id", &long)], "gpt-4o").await;
    assert!(answer.header("x-request-id").starts_with("msg_"));
    for record in scene.records(3).await {
        assert!(record["attributes"]["id"].as_str().is_some_and(|id| id.starts_with("msg_")), "{record}");
    }
}

/// A `traceparent` that is none leaves no trace, and does no harm.
#[tokio::test]
async fn a_bad_traceparent_is_ignored() {
    let scene = start(json!({})).await;
    for bad in ["", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        assert_eq!(ask(&scene, &[("traceparent", bad), ("x-user-id", "bad")], "gpt-4o").await.status, 200);
    }
    for record in scene.records(3).await {
        assert_eq!(record["attributes"]["metadata"]["trace_id"], serde_json::Value::Null);
    }
}

/// Header values that are no UTF-8 are the record's problem, not the request's; what a header cannot hold is refused.
#[tokio::test]
async fn strange_bytes_in_headers_do_no_harm() {
    let scene = start(json!({})).await;
    let authority = scene.gateway.address.trim_start_matches("http://").parse().expect("an address");
    let mut wire = Wire::connect(authority).await;
    let body = question().to_string();
    let mut sent = request("POST", CHAT, &[("x-user-id", "MARK"), ("x-mock", "{}")], body.as_bytes());
    let at = sent.windows(4).position(|bytes| bytes == b"MARK").expect("the mark");
    sent.splice(at..at + 4, [b'u', 0xFF, 0xE9]);
    wire.send(&sent).await;
    assert_eq!(wire.answer().await.expect("an answer").head.status, 200);
    let record = scene.record_where("the strange one", |_| true).await;
    assert!(record["attributes"]["user_id"].as_str().is_some_and(|user| user.starts_with('u')));

    for line in ["x-a: a\0b", "x a: b", ": empty"] {
        let mut raw = Raw::connect(&scene.gateway.address).await;
        let head = format!("GET /health HTTP/1.1\r\nhost: x\r\n{line}\r\n\r\n");
        raw.send(head).await.expect("a peer");
        let answer = raw.read_to_end().await.expect("a proper end");
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{line:?}: {answer:?}");
    }
}
