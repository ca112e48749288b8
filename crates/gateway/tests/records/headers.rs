//! The caller's own headers, and what is written when they do not come.

use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::configuration::RECORDS;
use magicapi_testkit::records::{lines_with, parse};
use serde_json::{Value, json};

use crate::scene::Scene;

async fn sent(scene: &Scene, case: &str, headers: &[(&str, &str)]) -> Value {
    let body = chat("gpt-4o-mini", &json!({})).to_string();
    assert_eq!(scene.send(CHAT, case, headers, body).await.status, 200);
    scene.record(case).await["attributes"].take()
}

#[tokio::test]
async fn every_header_lands_and_none_goes_to_the_provider() {
    let scene = Scene::start(json!({})).await;
    let headers = [
        ("x-project-id", "p-1"),
        ("x-project-name", "Projekt Ü"),
        ("x-organisation-id", "o-1"),
        ("x-user-id", "u-1"),
        ("x-experiment-id", "e-1"),
        ("x-request-id", "caller-1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let body = chat("gpt-4o-mini", &json!({})).to_string();
    let answer = scene.send(CHAT, "all", &headers, body).await;
    assert_eq!(answer.header("x-request-id"), "caller-1");
    let record = scene.record("all").await["attributes"].take();
    let wanted = [("project_id", "p-1"), ("org_id", "o-1"), ("user_id", "u-1"), ("experiment_id", "e-1")];
    for (key, value) in wanted.into_iter().chain([("thread_id", "all")]) {
        assert_eq!(record[key], value, "{key}");
    }
    assert_eq!(record["metadata"]["project_id"], "p-1");
    assert_eq!(record["metadata"]["project_name"], "Projekt Ü");
    assert_eq!(record["metadata"]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_ne!(record["id"], "caller-1", "a caller's id is never a key");
    assert_eq!(record["metadata"]["client_request_id"], "caller-1");
    let received = &scene.mock.received()[0];
    for (name, _) in headers.iter().chain([&("x-thread-id", "")]) {
        assert_eq!(received.header(name), None, "{name} went to the provider");
    }
}

#[tokio::test]
async fn organization_is_spelled_either_way_and_ids_are_minted() {
    let scene = Scene::start(json!({})).await;
    let american = sent(&scene, "z", &[("x-organization-id", "o-2")]).await;
    assert_eq!(american["org_id"], "o-2");
    let same = [("x-request-id", "again")];
    let (first, second) = (sent(&scene, "a", &same).await, sent(&scene, "b", &same).await);
    assert_ne!(first["id"], second["id"]);
    let kept = |record: &Value| record["metadata"]["client_request_id"].clone();
    assert_eq!((kept(&first), kept(&second)), (json!("again"), json!("again")));
    let cut = sent(&scene, "c", &[("x-request-id", &"x".repeat(256))]).await;
    assert_eq!(kept(&cut), "x".repeat(128), "bounded");
    let too_long = sent(&scene, "d", &[("x-request-id", &"x".repeat(257))]).await;
    let unseen = sent(&scene, "e", &[("x-request-id", "ü")]).await;
    assert_eq!((kept(&too_long), kept(&unseen)), (Value::Null, Value::Null), "what is not echoed");
}

#[tokio::test]
async fn what_is_unknown_is_null() {
    let scene = Scene::start(json!({})).await;
    let empty =
        [("x-user-id", ""), ("x-project-id", "  "), ("x-experiment-id", ""), ("traceparent", "00-0-0-00")];
    let script = json!({ "usage": null }).to_string();
    let mut headers = empty.to_vec();
    headers.push(("x-mock", &script));
    let body = chat("gpt-4o-mini", &json!({})).to_string();
    scene.send(CHAT, "unknown", &headers, body).await;
    let record = scene.record("unknown").await["attributes"].take();
    for key in ["user_id", "project_id", "org_id"] {
        assert_eq!(record[key], Value::Null, "{key}");
    }
    assert!(record.get("experiment_id").is_none());
    let metadata = &record["metadata"];
    for key in [
        "project_id",
        "project_name",
        "cost",
        "cost_source",
        "price_version",
        "trace_id",
        "key_name",
        "client_request_id",
    ] {
        assert_eq!(metadata[key], Value::Null, "{key}");
    }
    for (key, tokens) in metadata["tokens"].as_object().expect("tokens") {
        assert_eq!(*tokens, Value::Null, "{key}");
    }
    assert_eq!(metadata["error_type"], Value::Null);
}

/// Refused by the gateway itself: a record as well, with what is known.
#[tokio::test]
async fn a_refusal_has_a_record() {
    let scene = Scene::start(json!({})).await;
    let bad_json = scene.send(CHAT, "bad-json", &[], "{\"model\":").await;
    let unknown =
        scene.send(CHAT, "unknown", &[("x-provider", "nobody")], chat("m", &json!({})).to_string()).await;
    assert_eq!((bad_json.status, unknown.status), (400, 400));
    for case in ["bad-json", "unknown"] {
        let record = scene.record(case).await["attributes"].take();
        let metadata = &record["metadata"];
        assert_eq!(metadata["outcome"], "blocked", "{case}");
        assert_eq!((&metadata["status"], &metadata["error_count"]), (&json!("error"), &json!(1)));
        assert_eq!(metadata["provider_status_code"], 0, "nobody was asked");
        assert_eq!(metadata["attempts"], 0);
        assert_eq!((&record["provider"], &metadata["cost"]), (&Value::Null, &Value::Null));
    }
    assert_eq!(scene.metadata("unknown").await["requested_model"], "m");
    let text = scene.record("bad-json").await["attributes"]["request"]["text"].take();
    assert_eq!(text, "{\"model\":", "what is no JSON is kept as text");
}

/// Health, readiness and metrics leave none: the only record is the one of the chat that came after them.
#[tokio::test]
async fn pages_about_the_process_have_no_record() {
    let scene = Scene::start(json!({})).await;
    for (path, status) in [("/health", 200), ("/ready", 200), ("/metrics", 404)] {
        let answer = magicapi_testkit::http::get(&scene.gateway.url(path), &[]).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    sent(&scene, "last", &[]).await;
    let lines = lines_with(&scene.gateway.path(RECORDS), "", 1).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(parse(&lines[0])["attributes"]["thread_id"], "last");
}
