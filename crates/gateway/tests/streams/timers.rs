//! The timers of a request: what each of them bounds, what counts as progress, and how they end it.

use magicapi_testkit::ask::{buffered, streaming};
use std::task::Poll;

use magicapi_testkit::wire::{Answer, until};
use serde_json::{Value, json};

use crate::scene::{Scene, stop};

/// A silence that no test waits out.
const FOR_EVER: u64 = 600_000;

/// How a timer ends a request.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// With a 504 in JSON.
    Status,
    /// With an error frame.
    Frame,
    /// With a connection that is cut: the body of a document cannot say it.
    Cut,
    /// Not at all.
    Never,
}

struct Case {
    name: &'static str,
    script: Value,
    body: Value,
    end: End,
}

fn case(name: &'static str, script: Value, body: Value, end: End) -> Case {
    Case { name, script, body, end }
}

fn judge(case: &Case, answer: &Answer, code: &str) {
    let (name, text) = (case.name, answer.text());
    match case.end {
        End::Status => {
            assert_eq!(answer.head.status, 504, "{name}: {text}");
            assert_eq!(answer.head.header("content-type"), Some("application/json"), "{name}");
            assert_eq!(answer.json()["error"]["code"], code, "{name}");
        }
        End::Frame => {
            assert_eq!((answer.head.status, answer.whole), (200, true), "{name}: {text}");
            let last = answer.events().pop().unwrap_or_default();
            let frame: Value = serde_json::from_str(&last).unwrap_or_else(|e| panic!("{name}: {e}: {text}"));
            assert_eq!(frame["error"]["code"], code, "{name}: {text}");
            assert!(!text.contains("[DONE]"), "{name}: {text}");
        }
        End::Cut => assert_eq!((answer.head.status, answer.whole), (200, false), "{name}: {text}"),
        End::Never => {
            assert!(answer.whole && text.ends_with("data: [DONE]\n\n"), "{name}: {text}");
        }
    }
}

/// Runs a handful of steps at once.
async fn at_once(steps: impl IntoIterator<Item = impl Future<Output = ()>>) {
    let mut steps: Vec<_> = steps.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        steps.retain_mut(|step| step.as_mut().poll(cx).is_pending());
        if steps.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Runs the cases at once; all that a timer ends must say `code` and close the upstream.
async fn timed(changes: Value, code: &str, cases: Vec<Case>) {
    let scene = Scene::start(json!({ "server": { "heartbeat": "100ms" }, "timeouts": changes })).await;
    let ask = async |case: &Case| judge(case, &scene.answer(case.name, &case.script, &case.body).await, code);
    at_once(cases.iter().map(ask)).await;
    let ended = cases.iter().filter(|case| case.end != End::Never).count() as u64;
    until("the upstreams closing", async || (scene.mock.stats().aborted == ended).then_some(())).await;
    let left = stop(scene.gateway).await;
    assert_eq!(left.records.len(), cases.len());
    for case in &cases {
        let (name, metadata) = (case.name, left.metadata(case.name));
        if case.end == End::Never {
            assert_eq!(metadata["outcome"], "completed", "{name}");
            continue;
        }
        assert_eq!(metadata["outcome"], "timed_out", "{name}");
        assert_eq!(metadata["error_type"], code, "{name}");
        assert_eq!(metadata["provider_error_count"], 1, "{name}");
        let status = if case.end == End::Status { 504 } else { 200 };
        assert_eq!(metadata["status_code"], status, "{name}");
        assert_eq!(left.row(name).outcome.as_str(), "timed_out", "{name}");
        assert_eq!(left.row(name).attempts[0].error_type.as_deref(), Some(code), "{name}");
    }
}

#[tokio::test]
async fn first_token_bounds_the_wait_for_the_first_word() {
    let cases = vec![
        case("before the head", json!({ "delay_headers_ms": FOR_EVER }), streaming(), End::Status),
        case("a document", json!({ "delay_headers_ms": FOR_EVER }), buffered(), End::Status),
        case("before the first event", json!({ "stall_after": 0 }), streaming(), End::Frame),
        case("after the role alone", json!({ "stall_after": 1 }), streaming(), End::Frame),
        case("under comments", json!({ "stall_after": 1, "heartbeat_ms": 20 }), streaming(), End::Frame),
        case("a slow stream", json!({ "text": "a b c d e f g h", "gap_ms": 300 }), streaming(), End::Never),
    ];
    timed(json!({ "first_token": "1500ms" }), "first_token_timeout", cases).await;
}

#[tokio::test]
async fn idle_bounds_each_silence() {
    let cases = vec![
        case("midway", json!({ "text": "a b c", "stall_after": 3 }), streaming(), End::Frame),
        case(
            "under comments",
            json!({ "text": "a b c", "stall_after": 3, "heartbeat_ms": 20 }),
            streaming(),
            End::Frame,
        ),
        case("a document", json!({ "stall_after": 0 }), buffered(), End::Cut),
        case("a slow stream", json!({ "text": "a b c d e f g h", "gap_ms": 300 }), streaming(), End::Never),
        case("a slow start", json!({ "text": "a b", "ttft_ms": 2500 }), streaming(), End::Never),
    ];
    timed(json!({ "idle": "1500ms" }), "idle_timeout", cases).await;
}

#[tokio::test]
async fn attempt_bounds_what_comes_before_the_first_word() {
    let cases = vec![
        case("before the head", json!({ "delay_headers_ms": FOR_EVER }), streaming(), End::Status),
        case("before the first event", json!({ "stall_after": 1 }), streaming(), End::Frame),
        case("a document", json!({ "stall_after": 0 }), buffered(), End::Cut),
        case("a slow stream", json!({ "text": "a b c d e f g h", "gap_ms": 300 }), streaming(), End::Never),
    ];
    timed(json!({ "attempt": "1500ms" }), "attempt_timeout", cases).await;
}

#[tokio::test]
async fn total_bounds_the_request_until_the_first_word() {
    let cases = vec![
        case("before the head", json!({ "delay_headers_ms": FOR_EVER }), streaming(), End::Status),
        case("before the first event", json!({ "stall_after": 1 }), streaming(), End::Frame),
        case("a document", json!({ "stall_after": 0 }), buffered(), End::Cut),
        case("a slow stream", json!({ "text": "a b c d e f g h", "gap_ms": 300 }), streaming(), End::Never),
    ];
    timed(json!({ "total": "1500ms" }), "total_timeout", cases).await;
}
