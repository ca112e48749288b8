//! Each key of `auth`, `providers`, `prices` and `upstream`: flipped, and the difference seen by caller or provider.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::fs;

use magicapi_mock::{MockOptions, MockServer, MockTls};
use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::{OUR_KEY, configuration};
use magicapi_testkit::http::post_json;
use magicapi_testkit::wire::until;
use magicapi_testkit::{Gateway, stream};
use serde_json::{Value, json};

use crate::scene::{Scene, hash_of, options};

const KEY: &str = "a-virtual-key";

fn entry(changes: &[(&str, Value)]) -> Value {
    let mut entry = json!({ "name": "app-1", "hash": hash_of(KEY) });
    for (name, value) in changes {
        entry[*name] = value.clone();
    }
    json!({ "auth": { "mode": "keys", "keys": [entry] } })
}

const WITH_KEY: [(&str, &str); 1] = [("authorization", "Bearer a-virtual-key")];

async fn sent_upstream(scene: &Scene) -> String {
    assert_eq!(scene.ask(&json!({}), &WITH_KEY).await.status, 200);
    scene.received().header("authorization").unwrap_or_default().to_owned()
}

#[tokio::test]
async fn auth_mode_decides_whose_credential_goes_upstream() {
    for (mode, credential) in
        [("passthrough", format!("Bearer {KEY}")), ("open", format!("Bearer {OUR_KEY}"))]
    {
        let scene = Scene::start(json!({ "auth": { "mode": mode } })).await;
        assert_eq!(sent_upstream(&scene).await, credential, "{mode}");
    }
    let keys = Scene::start(entry(&[])).await;
    assert_eq!(sent_upstream(&keys).await, format!("Bearer {OUR_KEY}"));
    assert_eq!(keys.ask(&json!({}), &[]).await.status, 401);
}

#[tokio::test]
async fn auth_keys_hash_is_the_key_that_opens() {
    let scene = Scene::start(entry(&[])).await;
    assert_eq!(scene.ask(&json!({}), &WITH_KEY).await.status, 200);
    let other = Scene::start(entry(&[("hash", json!(hash_of("another")))])).await;
    assert_eq!(other.ask(&json!({}), &WITH_KEY).await.status, 401);
}

/// Of several credentials the one that opens counts; it stands in no record, whoever repeats it.
#[tokio::test]
async fn auth_keys_hash_finds_its_key_among_others_and_keeps_it_out_of_the_record() {
    const OPENS: &str = "Zk+b/07q7Zt4Lw9Xk2Vb8Nm5";
    let scene = Scene::start(entry(&[("hash", json!(hash_of(OPENS)))])).await;
    let headers = [("authorization", "Bearer another"), ("x-api-key", OPENS)];
    assert_eq!(scene.ask(&json!({ "text": format!("you are {OPENS}") }), &headers).await.status, 200);
    let record = scene.last_of(1).await.to_string();
    assert!(record.contains("you are [REDACTED:caller_key]") && !record.contains(OPENS), "{record}");
}

#[tokio::test]
async fn auth_keys_name_and_project_stand_in_the_record() {
    let scene = Scene::start(entry(&[("name", json!("the-name")), ("project", json!("the-project"))])).await;
    let headers = [WITH_KEY[0], ("x-project-id", "the-callers")];
    assert_eq!(scene.ask(&json!({}), &headers).await.status, 200);
    let record = scene.last_of(1).await;
    assert_eq!(record["project_id"], "the-project");
    assert_eq!(record["metadata"]["key_name"], "the-name", "{record}");
}

#[tokio::test]
async fn auth_keys_models_limit_a_key() {
    for (pattern, status) in [("openai/text-*", 403), ("openai/gpt-*", 200)] {
        let scene = Scene::start(entry(&[("models", json!([pattern]))])).await;
        assert_eq!(scene.ask(&json!({}), &WITH_KEY).await.status, status, "{pattern}");
    }
}

#[tokio::test]
async fn auth_passthrough_opens_one_path_for_our_key() {
    for (rules, ours) in [(json!([]), false), (json!(["POST /v1/threads"]), true)] {
        let changes = json!({ "auth": { "mode": "open", "passthrough": rules } });
        let scene = Scene::start(changes).await;
        let answer =
            scene.post("/v1/threads", &json!({ "status": 200, "body": "{}" }), &[], &json!({})).await;
        assert_eq!(answer.status, if ours { 200 } else { 403 }, "{}", answer.text());
        assert_eq!(scene.mock.received().len(), usize::from(ours));
    }
}

#[tokio::test]
async fn providers_type_makes_a_name_of_ones_own() {
    let mock = scene::mock().await;
    let local = json!({ "local": { "type": "openai", "base_url": mock.base_url(), "api_key": "sk-local" } });
    let gateway =
        Gateway::start(options(&configuration("http://127.0.0.1:1", json!({ "providers": local })), &[]))
            .await;
    let mut body = question();
    body["model"] = json!("local/any-model");
    let answer = post_json(&gateway.url(CHAT), &[], &body).await;
    assert_eq!((answer.status, answer.header("x-gateway-provider")), (200, "local"), "{}", answer.text());
    let received = mock.received().pop().expect("a request");
    assert_eq!(received.header("authorization"), Some("Bearer sk-local"));
    body["model"] = json!("elsewhere/any-model");
    let elsewhere = post_json(&gateway.url(CHAT), &[("x-provider", "elsewhere")], &body).await;
    assert_eq!(elsewhere.status, 400, "{}", elsewhere.text());
}

#[tokio::test]
async fn providers_api_key_and_base_url_say_where_and_as_whom() {
    let scene = Scene::start(json!({ "providers": { "openai": { "api_key": "sk-another" } } })).await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    assert_eq!(scene.received().header("authorization"), Some("Bearer sk-another"));
    let deeper =
        json!({ "providers": { "openai": { "base_url": format!("{}/deeper", scene.mock.base_url()) } } });
    let gateway = Gateway::start(options(&configuration("", deeper), &[])).await;
    assert_eq!(post_json(&gateway.url(CHAT), &[], &question()).await.status, 200);
    assert_eq!(scene.received().path, "/v1/deeper/chat/completions");
}

#[tokio::test]
async fn providers_on_client_gone_drain_reads_to_the_end() {
    for (word, ended) in [("cancel", (0, 1)), ("drain", (1, 0))] {
        let scene = Scene::start(json!({ "providers": { "openai": { "on_client_gone": word } } })).await;
        let headers = [("content-type", "application/json"), ("x-mock", r#"{"chunks":40,"gap_ms":20}"#)];
        let mut body = question();
        body["stream"] = json!(true);
        let mut answer = stream("POST", &scene.gateway.url(CHAT), &headers, body.to_string()).await;
        answer.next().await.expect("a piece").expect("of the stream");
        drop(answer);
        let stats = until("the upstream's end", async || {
            Some(scene.mock.stats()).filter(|stats| stats.completed + stats.aborted == 1)
        })
        .await;
        assert_eq!((stats.completed, stats.aborted), ended, "{word}");
    }
}

#[tokio::test]
async fn providers_trace_sends_the_trace_along() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let state = ("tracestate", "vendor=1");
    let silent = Scene::start(json!({ "providers": { "openai": { "trace": false } } })).await;
    assert_eq!(silent.ask(&json!({}), &[("traceparent", trace), state]).await.status, 200);
    assert_eq!(silent.received().header("traceparent"), None);
    assert_eq!(silent.received().header("tracestate"), None);
    let scene = Scene::start(json!({ "providers": { "openai": { "trace": true } } })).await;
    for (number, (sent, own)) in
        [(Some(trace), false), (None, true), (Some("00-bad"), true)].iter().enumerate()
    {
        let headers: Vec<_> = sent.map(|trace| ("traceparent", trace)).into_iter().chain([state]).collect();
        assert_eq!(scene.ask(&json!({}), &headers).await.status, 200);
        // The span is the record's own, and so is the trace unless the caller began one.
        let id = scene.last_of(number + 1).await["id"].as_str().expect("an id").to_owned();
        let id: String = id["msg_".len()..].split('-').collect();
        let trace = if *own { &id } else { &trace[3..35] };
        let expected = format!("00-{trace}-{}-01", &id[16..]);
        let received = scene.received();
        assert_eq!(received.header("traceparent"), Some(expected.as_str()), "{sent:?}");
        assert_eq!(received.header("tracestate"), (!own).then_some(state.1), "{sent:?}");
    }
}

#[tokio::test]
async fn prices_file_lies_over_the_built_in_table() {
    let usage = json!({ "usage": { "prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000 } });
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("prices.jsonl");
    let row = json!({ "provider": "openai", "model": "gpt-4o-mini", "mode": "chat",
        "price": { "standard": { "base": { "input": 7000.0, "output": 1.0 } } } });
    fs::write(&file, format!("{row}\n")).expect("a file");
    let scene = Scene::start(json!({ "prices": { "file": file } })).await;
    assert_eq!(scene.ask(&usage, &[]).await.status, 200);
    assert_eq!(scene.last_of(1).await["metadata"]["cost"], json!(7.0));
    let built_in = Scene::start(json!({})).await;
    assert_eq!(built_in.ask(&usage, &[]).await.status, 200);
    let cost = built_in.last_of(1).await["metadata"]["cost"].as_f64().expect("a known price");
    assert!(cost > 0.0 && cost < 1.0, "{cost}");
}

#[tokio::test]
async fn upstream_proxy_carries_requests_to_others() {
    // Nobody has this name, so that only the proxy, the mock, can have answered.
    let named = json!({ "openai": { "base_url": "http://provider.invalid/v1" } });
    let proxy = scene::mock().await;
    let changes = json!({ "providers": named, "upstream": { "proxy": format!("http://{}", proxy.addr()) } });
    let scene = Scene::start(changes).await;
    assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    assert_eq!(proxy.received().len(), 1);
    let direct = Scene::start(json!({ "providers": named })).await;
    assert_eq!(direct.ask(&json!({}), &[]).await.status, 502);
}

/// A mock that speaks TLS with a certificate of its own, which is returned as a file.
async fn strange_mock() -> (MockServer, tempfile::TempDir) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("ca.pem"), made.cert.pem()).expect("a file");
    let tls = MockTls {
        cert_pem: made.cert.pem().into_bytes(),
        key_pem: made.signing_key.serialize_pem().into_bytes(),
    };
    let mock =
        MockServer::start(MockOptions { tls: Some(tls), ..MockOptions::default() }).await.expect("the mock");
    (mock, directory)
}

#[tokio::test]
async fn upstream_tls_ca_file_is_trusted() {
    let (mock, directory) = strange_mock().await;
    let trusted = json!({ "upstream": { "tls": { "ca_file": directory.path().join("ca.pem") } } });
    for (changes, status) in [(trusted, 200), (json!({}), 502)] {
        let gateway = Gateway::start(options(&configuration(&mock.base_url(), changes), &[])).await;
        let answer = post_json(&gateway.url(CHAT), &[], &question()).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

#[tokio::test]
async fn ssl_cert_file_is_trusted_too() {
    let (mock, directory) = strange_mock().await;
    let file = directory.path().join("ca.pem");
    let variables = [("SSL_CERT_FILE", file.to_str().expect("a path"))];
    let gateway = Gateway::start(options(&configuration(&mock.base_url(), json!({})), &variables)).await;
    assert_eq!(post_json(&gateway.url(CHAT), &[], &question()).await.status, 200);
}
