//! What the gateway's own key is never used for, and what a caller's own key still may do.

use magicapi_testkit::Response;
use magicapi_testkit::ask::CHAT;
use magicapi_testkit::http::request;
use serde_json::json;

use crate::scene::Scene;
use crate::{assert_error, start};

/// Paths that reach into the account behind a key.
const GUARDED: [(&str, &str); 21] = [
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/file-1/content"),
    ("DELETE", "/v1/files/file-1"),
    ("POST", "/v1/uploads"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches/batch_1"),
    ("GET", "/v1/responses/resp_1"),
    ("DELETE", "/v1/responses/resp_1"),
    ("POST", "/v1/responses/resp_1/cancel"),
    ("GET", "/v1/chat/completions/chatcmpl-1"),
    ("DELETE", "/v1/models/ft:gpt-4o:me"),
    ("POST", "/v1/vector_stores"),
    ("GET", "/v1/fine_tuning/jobs"),
    ("GET", "/v1/organization/users"),
    ("GET", "/v1/dashboard/billing/usage"),
    ("GET", "/openai/v1/files"),
    ("GET", "/proxy/groq/files"),
    ("GET", "/v1/%66iles"),
    ("GET", "/v1//files"),
    ("GET", "/v1/ORGANIZATION/users"),
];

async fn call(scene: &Scene, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
    let body = if method == "POST" { "{}" } else { "" };
    request(method, &scene.gateway.url(path), &headers, body).await
}

#[tokio::test]
async fn our_key_never_reaches_into_the_account_behind_it() {
    for mode in ["passthrough", "open"] {
        let scene = start(json!({ "auth": { "mode": mode } })).await;
        for (method, path) in GUARDED {
            let answer = call(&scene, method, path, &[]).await;
            let text = assert_error(&answer, 403, "forbidden");
            assert!(!text.contains("sk-ours"), "{text}");
        }
        assert_eq!(scene.mock.stats().requests, 0, "{mode}");
    }
}

#[tokio::test]
async fn a_callers_own_key_may_do_what_it_may_do() {
    let scene = start(json!({})).await;
    for (method, path) in GUARDED {
        call(&scene, method, path, &[("authorization", "Bearer sk-mine")]).await;
        let received = scene.received();
        assert_eq!(received.header("authorization"), Some("Bearer sk-mine"), "{path}");
        assert_eq!(received.method, method, "{path}");
    }
    assert_eq!(scene.mock.received().len(), GUARDED.len());
}

/// Stored responses have no owner yet, however the body names one.
#[tokio::test]
async fn a_stored_response_is_not_continued_with_our_key() {
    let scene = start(json!({})).await;
    let url = scene.gateway.url("/v1/responses");
    let json = ("content-type", "application/json");
    for body in [
        r#"{"model":"gpt-4o","input":"x","previous_response_id":"resp_1"}"#,
        r#"{"model":"gpt-4o","input":"x","previous_response_id":"resp_1","previous_response_id":null}"#,
        r#"{"model":"gpt-4o","input":"x","previous_\u0072esponse_id":"resp_1"}"#,
    ] {
        let answer = request("POST", &url, &[json], body).await;
        assert_error(&answer, 403, "forbidden");
        assert_eq!(answer.json()["error"]["param"], "previous_response_id");
    }
    let conversation = r#"{"model":"gpt-4o","input":"x","conversation":"conv_1"}"#;
    let answer = request("POST", &url, &[json], conversation).await;
    assert_error(&answer, 403, "forbidden");
    assert_eq!(answer.json()["error"]["param"], "conversation");
    assert_eq!(scene.mock.stats().requests, 0);
    let fresh = r#"{"model":"gpt-4o","input":"x","previous_response_id":null}"#;
    assert_eq!(request("POST", &url, &[json], fresh).await.status, 200);
    let own = [json, ("authorization", "Bearer sk-mine")];
    let continued = r#"{"model":"gpt-4o","input":"x","previous_response_id":"resp_1"}"#;
    assert_eq!(request("POST", &url, &own, continued).await.status, 200);
}

/// With our key no one means to list stored chats: what is wrong is the method.
#[tokio::test]
async fn a_chat_that_is_fetched_is_told_the_method_unless_the_key_may_list() {
    let scene = start(json!({})).await;
    let answer = call(&scene, "GET", CHAT, &[]).await;
    let text = assert_error(&answer, 405, "method_not_allowed");
    assert!(text.contains("GET") && text.contains("use POST"), "{text}");
    assert_eq!(answer.header("allow"), "POST");
    assert_eq!(scene.mock.stats().requests, 0);
    call(&scene, "GET", CHAT, &[("authorization", "Bearer sk-mine")]).await;
    assert_eq!(scene.received().method, "GET", "a caller's own key may list");
    let opened = start(json!({ "auth": { "passthrough": ["GET /v1/chat/completions"] } })).await;
    call(&opened, "GET", CHAT, &[]).await;
    assert_eq!(opened.received().method, "GET", "so may ours where the operator says so");
}

/// The address ends in `/v1`: a path that says so again gets the path that works, and that path works.
#[tokio::test]
async fn a_path_that_repeats_the_end_of_the_address_is_told_the_right_one() {
    let scene = start(json!({})).await;
    for (path, right) in [
        ("/proxy/openai/v1/models", "/proxy/openai/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/openai/v1/v1/models", "/openai/v1/models"),
    ] {
        let text = assert_error(&call(&scene, "GET", path, &[]).await, 403, "forbidden");
        assert!(text.contains(&format!("use `{right}`\"")) && !text.contains("auth.passthrough"), "{text}");
        assert_eq!(scene.mock.stats().requests, 0);
    }
    assert_eq!(call(&scene, "GET", "/proxy/openai/models", &[]).await.status, 200);
}

/// The rule that a refusal suggests is one that opens the path.
#[tokio::test]
async fn the_suggested_rule_works() {
    let scene = start(json!({})).await;
    for (method, path) in [("POST", "/v1/vector_stores"), ("GET", "/proxy/openai/fine_tuning/jobs")] {
        let text = assert_error(&call(&scene, method, path, &[]).await, 403, "forbidden");
        let rule =
            text.split_once(r#"[ \""#).and_then(|(_, rest)| rest.split_once(r#"\" ]"#)).expect("a rule").0;
        let opened = start(json!({ "auth": { "passthrough": [rule] } })).await;
        call(&opened, method, path, &[]).await;
        assert_eq!(opened.mock.stats().requests, 1, "{rule}");
    }
}

/// The operator opens one path with one method; what concerns the account itself stays shut.
#[tokio::test]
async fn the_operator_may_open_a_path_but_no_account() {
    let rules = ["POST /v1/vector_stores"];
    let scene = start(json!({ "auth": { "passthrough": rules } })).await;
    let answer = call(&scene, "POST", "/v1/vector_stores", &[]).await;
    assert_eq!(answer.header("x-gateway-error-origin"), "provider", "the mock knows no such path");
    assert_eq!(scene.received().path, "/openai/v1/vector_stores");
    for (method, path) in [
        ("GET", "/v1/vector_stores"),
        ("POST", "/v1/vector_stores/vs_1"),
        ("POST", "/openai/v1/vector_stores"),
        ("GET", "/v1/organization/users"),
        ("GET", "/proxy/groq/v1/organization/users"),
        ("GET", "/v1/files"),
    ] {
        assert_error(&call(&scene, method, path, &[]).await, 403, "forbidden");
    }
    assert_eq!(scene.mock.stats().requests, 1);
}
