//! Requests that the gateway refuses by itself.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use magicapi_testkit::Response;
use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::http::request;
use magicapi_testkit::wire::{Wire, request_head};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{assert_answer, assert_golden};

async fn post(scene: &Scene, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Response {
    let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
    request("POST", &scene.gateway.url(CHAT), &headers, body.into()).await
}

async fn call(scene: &Scene, method: &str, path: &str) -> Response {
    request(method, &scene.gateway.url(path), &[], "").await
}

/// None of them reached the provider, and each has a record that says the same.
async fn assert_blocked(scene: &Scene, count: usize) {
    assert_eq!(scene.mock.stats().requests, 0);
    for record in scene.records(count).await {
        let metadata = &record["attributes"]["metadata"];
        assert_eq!(metadata["outcome"], "blocked", "{record}");
        assert_eq!((&metadata["status"], &metadata["error_count"]), (&json!("error"), &json!(1)));
        let said = &record["attributes"]["response"]["error"];
        assert_eq!(metadata["error_type"], said["code"]);
        assert_eq!(metadata["error_message"], said["message"]);
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let scene = Scene::start(json!({})).await;
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"model":"gpt-4o","messages":{open}{close}}}"#)
    };
    let cases = [
        ("bad_json", "{\"model\": \"gpt-4o\",\n  \"messages\": [}".to_owned()),
        ("empty_body", String::new()),
        ("no_object", "[1, 2]".to_owned()),
        ("cut_off", r#"{"model":"gpt-4o","messages":[{"role":"us"#.to_owned()),
        ("more_after_the_end", r#"{"model":"gpt-4o","messages":[]} {}"#.to_owned()),
        ("model_missing", r#"{"messages":[]}"#.to_owned()),
        ("model_no_string", r#"{"model":5,"messages":[]}"#.to_owned()),
        ("model_twice", r#"{"model":"gpt-4o","messages":[],"\u006dodel":"gpt-5"}"#.to_owned()),
        ("stream_no_boolean", r#"{"model":"gpt-4o","stream":"yes"}"#.to_owned()),
        ("stream_twice", r#"{"model":"gpt-4o","stream":true,"stream":false}"#.to_owned()),
        ("stream_options_no_object", r#"{"model":"gpt-4o","stream_options":[]}"#.to_owned()),
        ("too_deep", deep(127)),
        ("far_too_deep", deep(1 << 20)),
    ];
    let count = cases.len();
    for (name, body) in cases {
        assert_answer(name, &post(&scene, &[], body).await);
    }
    assert_blocked(&scene, count).await;
    let within = post(&scene, &[], r#"{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}"#).await;
    assert_eq!(within.status, 200, "{}", within.text());
    let nested = post(&scene, &[], deep(126)).await;
    assert_eq!(nested.header("x-gateway-error-origin"), "provider", "126 levels are the provider's to judge");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn bodies_in_codings_and_sizes_that_are_not_taken() {
    let scene = Scene::start(json!({})).await;
    let bomb = gzip(&vec![b' '; 65 << 20]);
    assert!(bomb.len() < 1 << 17, "a bomb is small");
    assert_answer("gzip_bomb", &post(&scene, &[("content-encoding", "gzip")], bomb).await);
    let plain = br#"{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}"#;
    assert_answer("unknown_coding", &post(&scene, &[("content-encoding", "snappy")], plain).await);
    assert_answer("two_codings", &post(&scene, &[("content-encoding", "gzip, br")], plain).await);
    assert_answer("not_gzip", &post(&scene, &[("content-encoding", "gzip")], plain).await);
    let half = gzip(plain);
    assert_answer("half_gzip", &post(&scene, &[("content-encoding", "gzip")], &half[..half.len() / 2]).await);
    assert_blocked(&scene, 5).await;
    let whole = post(&scene, &[("content-encoding", "gzip")], half.clone()).await;
    assert_eq!(
        whole.header("x-gateway-error-origin"),
        "provider",
        "the mock does not unpack: {}",
        whole.text()
    );
    assert_eq!(scene.received().body, half, "sent on as received, coding and all");
    assert_eq!(scene.received().header("content-encoding"), Some("gzip"));
}

/// 70 MiB, whole: the answer reaches a client that reads only after it has written what it could.
#[tokio::test]
async fn a_body_of_70_mib() {
    let scene = Scene::start(json!({})).await;
    let address = scene.gateway.address.trim_start_matches("http://").parse().expect("an address");
    let mut wire = Wire::connect(address).await;
    let length = (70_usize << 20).to_string();
    wire.send(&request_head("POST", CHAT, &[("content-length", &length)])).await;
    let piece = vec![b' '; 1 << 20];
    for _ in 0..70 {
        if !wire.try_send(&piece).await {
            break;
        }
    }
    let answer = wire.answer().await.expect("an answer");
    assert_golden("body_of_70_mib", &format!("{}\n\n{}", answer.head.status, answer.text()));
    assert_blocked(&scene, 1).await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served() {
    let scene = Scene::start(json!({})).await;
    let cases = [
        ("unknown_path", "GET", "/v2/chat/completions"),
        ("root", "GET", "/"),
        ("no_v1", "POST", CHAT.trim_start_matches("/v1")),
        ("method_of_chat", "GET", CHAT),
        ("other_dialect", "POST", "/v1/messages"),
        ("proxy_without_provider", "POST", "/proxy/"),
        ("unsupported_method", "PUT", "/v1/chat/completions"),
        ("method_of_embeddings", "GET", "/v1/embeddings"),
        ("method_of_health", "POST", "/health"),
        ("dots", "GET", "/proxy/openai/../admin"),
        ("encoded_dots", "GET", "/proxy/openai/%2e%2E/admin"),
        ("encoded_slash", "GET", "/proxy/openai/a%2fb"),
        ("realtime", "GET", "/v1/realtime"),
    ];
    for (name, method, path) in cases {
        assert_answer(name, &call(&scene, method, path).await);
    }
    assert_blocked(&scene, cases.len()).await;
}

#[tokio::test]
async fn providers_and_credentials_that_are_missing() {
    let scene = Scene::start(json!({})).await;
    let ask = async |headers: &[(&str, &str)], model: &str| {
        post(&scene, headers, json!({ "model": model, "messages": [] }).to_string()).await
    };
    assert_answer("unknown_provider", &ask(&[("x-provider", "opnai")], "gpt-4o").await);
    let in_path = scene.post("/proxy/opnai/chat/completions", &json!({}), &[], &question()).await;
    assert_answer("provider_in_path", &in_path);
    assert_answer("no_key_for_provider", &ask(&[], "fireworks/some-model").await);
    let word = [("authorization", "Bearer gateway")];
    assert_answer("word_for_no_key", &ask(&word, "fireworks/some-model").await);
    assert_answer("provider_without_address", &ask(&[], "azure/deployment").await);
    assert_answer("basic_credential", &ask(&[("authorization", "Basic dTpw")], "gpt-4o").await);
    assert_answer("files_with_our_key", &call(&scene, "GET", "/v1/files").await);
    assert_answer("unlisted_with_our_key", &call(&scene, "POST", "/v1/vector_stores").await);
    assert_answer("repeated_v1", &call(&scene, "GET", "/proxy/openai/v1/models").await);
    assert_answer("account_with_our_key", &call(&scene, "GET", "/v1/organization/users").await);
    assert_answer("unknown_model", &call(&scene, "GET", "/v1/models/nothing").await);
    assert_blocked(&scene, 11).await;
}

#[tokio::test]
async fn keys_that_are_missing_wrong_or_limited() {
    let key = |name: &str, key: &str, models: &Value| {
        let digits: Vec<_> =
            magicapi_policies::hash_of(key).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "name": name, "hash": format!("sha256:{}", digits.concat()), "models": models })
    };
    let auth = json!({ "mode": "keys", "keys": [key("app", "vk-1", &json!(["openai/gpt-4o", "groq/*"]))] });
    let scene = Scene::start(json!({ "auth": auth })).await;
    let body = json!({ "model": "gpt-5", "messages": [] }).to_string();
    assert_answer("key_missing", &post(&scene, &[], body.clone()).await);
    assert_answer("key_wrong", &post(&scene, &[("authorization", "Bearer vk-2")], body.clone()).await);
    assert_answer("key_limited", &post(&scene, &[("authorization", "Bearer vk-1")], body).await);
    assert_blocked(&scene, 3).await;
}
