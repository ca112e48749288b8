//! One ledger row per request and per attempt, equal to the record; retention takes the log, never the ledger.

use std::sync::Arc;
use std::time::Duration;

use magicapi_testkit::ask::chat;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{Scene, ledger_in};

#[tokio::test]
async fn the_ledger_says_what_the_record_says() {
    let scene = Scene::start(json!({})).await;
    let fails = json!({ "error": { "status": 500 } });
    let (plain, stream) = (chat("gpt-4o-mini", &json!({})), chat("gpt-4o-mini", &json!({ "stream": true })));
    scene.chat("whole", &json!({}), &plain).await;
    scene.chat("stream", &json!({}), &stream).await;
    scene.chat("fails", &fails, &plain).await;
    let data = scene.gateway.data_path();
    let rows = until("three rows", async || Some(ledger_in(&data)).filter(|rows| rows.len() == 3)).await;
    for case in ["whole", "stream", "fails"] {
        let record = scene.record(case).await["attributes"].take();
        let row = rows.iter().find(|row| record["id"] == row.id.to_string()).expect("the record's row");
        let metadata = &record["metadata"];
        assert_eq!(row.cost.map(magicapi_model::Money::usd), metadata["cost"].as_f64(), "{case}");
        assert_eq!(json!(row.usage.input_total()), metadata["tokens"]["input"], "{case}");
        assert_eq!(json!(row.usage.output_total()), metadata["tokens"]["output"], "{case}");
        assert_eq!(json!(row.outcome), metadata["outcome"], "{case}");
        assert_eq!(json!(row.price_version), metadata["price_version"], "{case}");
        assert_eq!(json!(row.status_code), metadata["status_code"], "{case}");
        assert_eq!((row.attempts.len(), json!(row.model)), (1, record["model"].clone()), "{case}");
    }
    assert_eq!(scene.metadata("fails").await["cost"], Value::Null);
}

#[tokio::test]
async fn retention_takes_the_log_and_leaves_the_ledger() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let scene = Scene::start_in(&directory, json!({}), |options| options).await;
    for case in ["one", "two"] {
        scene.chat(case, &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    }
    let listed =
        async |scene: &Scene| scene.admin("/api/v1/logs").await.json()["data"].as_array().map_or(0, Vec::len);
    until("two in the log", async || (listed(&scene).await == 2).then_some(())).await;
    let data = scene.gateway.data_path();
    until("two in the ledger", async || (ledger_in(&data).len() == 2).then_some(())).await;
    drop(scene);
    let short = json!({ "store": { "retention": { "age": "1s" } } });
    let scene = Scene::start_in(&directory, short, |options| options).await;
    until("an empty log", async || (listed(&scene).await == 0).then_some(())).await;
    assert_eq!(ledger_in(&data).len(), 2);
}

#[tokio::test]
async fn the_log_keeps_to_its_size_and_the_newest_stay() {
    let scene = Scene::start(json!({ "store": { "retention": { "size": "100KB" } } })).await;
    // Text that does not pack: what counts is what the file takes.
    let mut seed = 1_u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{seed:016x}")
    };
    for count in 0..20 {
        let text: String = (0..1250).map(|_| noise()).collect();
        scene.chat(&format!("n{count}"), &json!({ "text": text }), &chat("gpt-4o-mini", &json!({}))).await;
    }
    let deleted = async || {
        let store = scene.admin("/health/details").await.json()["store"].take();
        (store["log_written"] == 20 && store["log_deleted"].as_u64() > Some(10)).then_some(())
    };
    until("a log of its size", deleted).await;
    let rows = scene.admin("/api/v1/logs").await.json()["data"].take();
    let rows = rows.as_array().expect("rows");
    let kept: u64 = rows.iter().filter_map(|row| row["stored_bytes"].as_u64()).sum();
    assert!(!rows.is_empty() && kept <= 100_000, "{kept} bytes in {} rows", rows.len());
    assert_eq!(rows[0]["thread_id"], "n19", "the newest stay");
    tokio::time::timeout(Duration::from_secs(30), scene.record("n0"))
        .await
        .expect("other exporters keep theirs");
}
