//! `buffer.when_full: refuse` through the binary: a record that could not be kept is a request that is not taken.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::BTreeSet;

use magicapi_testkit::Response;
use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::hook::Hook;
use magicapi_testkit::http::post_json;
use magicapi_testkit::puppet::Puppet;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};

use crate::scene::Scene;

/// A chat with 96 KiB that cannot be packed.
fn large() -> Value {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: String = (0..96 << 10)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(33 + (state >> 33) as u8 % 90)
        })
        .collect();
    let mut body = question();
    body["messages"][0]["content"] = json!(noise);
    body
}

async fn hook_status(scene: &Scene) -> Value {
    let details = scene.admin("/health/details").await.json();
    let exporters = details["exporters"].as_array().expect("exporters");
    exporters.iter().find(|one| one["name"] == "audit").expect("the exporter").clone()
}

/// What a refused caller gets.
fn check(refused: &Response) {
    let error = &refused.json()["error"];
    assert_eq!(
        (refused.status, &error["code"], &error["type"]),
        (503, &json!("telemetry_full"), &json!("server_error"))
    );
    assert_eq!((refused.header("x-gateway-error-origin"), refused.header("retry-after")), ("gateway", "1"));
    assert!(error["message"].as_str().is_some_and(|text| text.contains("when_full: refuse")), "{error}");
}

/// Asks until a request is refused; gives the ids of those that were not, and the refusal.
async fn fill(scene: &Scene) -> (BTreeSet<String>, Response) {
    let (body, mut taken) = (large(), BTreeSet::new());
    loop {
        let answer = scene.post(CHAT, &json!({}), &[], &body).await;
        if answer.status != 200 {
            return (taken, answer);
        }
        taken.insert(answer.header("x-request-id").to_owned());
        assert!(taken.len() < 2000, "never full");
    }
}

/// Where it can be seen while three requests have been refused, the first with this id.
async fn is_shown(scene: &Scene, id: &str) {
    let details = scene.admin("/health/details").await.json();
    assert!(details["reasons"].to_string().contains("new requests are refused"), "{details}");
    let page = scene.admin("/metrics").await.text();
    assert!(page.contains("gateway_exporter_refusing{exporter=\"audit\"} 1"), "{page}");
    assert_eq!(
        magicapi_testkit::http::get(&scene.url("/ready"), &[]).await.status,
        200,
        "not the pods' fault"
    );
    // The refused have records all the same, for every other exporter; the full one counts them.
    let record = scene.record_where("the refusal", |record| record["attributes"]["id"] == id).await;
    let metadata = &record["attributes"]["metadata"];
    assert_eq!(
        (&metadata["error_type"], &metadata["outcome"], &metadata["status_code"]),
        (&json!("telemetry_full"), &json!("gateway_error"), &json!(503))
    );
    until("three are counted", async || {
        (hook_status(scene).await["dropped_by_reason"] == json!({ "queue_full": 3 })).then_some(())
    })
    .await;
}

#[tokio::test]
async fn telemetry_exporters_buffer_when_full_refuse_takes_no_request_whose_record_it_could_not_keep() {
    let (hook, puppet) = (Hook::start(503).await, Puppet::start().await);
    let audit = json!({ "type": "webhook", "name": "audit", "url": hook.url(), "batch": { "bytes": "256KiB", "age": "5ms" },
        "buffer": { "memory": "1MiB", "disk": "64KiB", "when_full": "refuse" } });
    let scene = Scene::start(json!({
        "providers": { "held": { "type": "openai", "base_url": puppet.base_url(), "api_key": "k" } },
        "telemetry": { "exporters": [
            audit,
            { "type": "prometheus" },
            { "type": "file", "path": "records.jsonl", "batch": { "age": "20ms" } },
        ] },
    }))
    .await;

    // One request is under way before it is full; its record must be kept.
    let url = scene.url(CHAT);
    let under_way =
        tokio::spawn(async move { post_json(&url, &[("x-provider", "held")], &question()).await });
    let mut hand = puppet.asked().await;

    let (mut taken, refused) = fill(&scene).await;
    check(&refused);
    let id = refused.header("x-request-id").to_owned();
    assert!(taken.len() > 20, "memory and disk took some: {}", taken.len());
    check(&scene.post(CHAT, &json!({}), &[("x-provider", "held")], &question()).await);
    let models = magicapi_testkit::http::get(&scene.url("/v1/models"), &[]).await;
    check(&models);
    is_shown(&scene, &id).await;

    let answer = br#"{"id":"x","object":"chat.completion","model":"m","choices":[]}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    hand.raw(&[head.as_bytes(), answer].concat()).await;
    let answer = under_way.await.expect("answered");
    assert_eq!(answer.status, 200, "what was taken is served to its end");
    taken.insert(answer.header("x-request-id").to_owned());

    // The back end comes back, and nobody has to do anything.
    hook.answer(202);
    let late = until("requests are taken again", async || {
        let answer = scene.post(CHAT, &json!({}), &[], &question()).await;
        (answer.status == 200).then(|| answer.header("x-request-id").to_owned())
    })
    .await;
    taken.insert(late);
    until("every record that was promised arrives", async || {
        let there: BTreeSet<String> = hook.ids().into_iter().collect();
        taken.is_subset(&there).then_some(())
    })
    .await;
    let status = hook_status(&scene).await;
    assert_eq!(
        status["dropped"], status["dropped_by_reason"]["queue_full"],
        "nothing that was taken: {status}"
    );
    assert!(!hook.ids().contains(&id), "it was not kept, as counted");
    assert_eq!(status["refusing"], false);
}

/// What is left of an exporter that nobody wants any more keeps no request out while it is given its time to drain.
#[tokio::test]
async fn a_full_exporter_that_is_removed_refuses_nothing() {
    let hook = Hook::start(503).await;
    let audit = json!({ "type": "webhook", "name": "audit", "url": hook.url(), "batch": { "bytes": "256KiB", "age": "5ms" },
        "buffer": { "memory": "1MiB", "disk": "64KiB", "when_full": "refuse" } });
    let scene =
        Scene::start(json!({ "telemetry": { "exporters": [audit, { "type": "prometheus" }] } })).await;
    let (_, refused) = fill(&scene).await;
    assert_eq!(refused.status, 503);
    scene.rewrite(json!({ "telemetry": { "exporters": [{ "type": "prometheus" }] } }));
    let begun = std::time::Instant::now();
    until("requests are taken", async || {
        let answer = scene.post(CHAT, &json!({}), &[], &question()).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(8), "it drains for 10 s: {:?}", begun.elapsed());
}
