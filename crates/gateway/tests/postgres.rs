//! Records in PostgreSQL through the binary: the guide's environment and table, and what outages, poison and wrong
//! passwords cost. They need a real server; without one they say that they are skipped.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy sees no test here")]

mod scene;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::http::post_json;
use magicapi_testkit::postgres::Postgres;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::scene::Scene;

const CONTENT: &str = "a question of some length";

/// Sends a chat request, which succeeds; the record's id.
async fn ask(url: &str, content: &str) -> String {
    let body = chat("gpt-4o-mini", &json!({ "messages": [{ "role": "user", "content": content }] }));
    let answer = post_json(url, &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-request-id").to_owned()
}

/// What the gateway says of the exporter.
async fn status(scene: &Scene) -> Value {
    let details = scene.admin("/health/details").await.json();
    let exporters = details["exporters"].as_array().cloned().expect("exporters");
    exporters.into_iter().find(|one| one["type"] == "postgres").expect("the exporter")
}

async fn wait_for(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, async || Some(status(scene).await).filter(&wanted)).await
}

/// The exporter alone, with changes.
fn exporter(url: &str, changes: Value) -> Value {
    let mut entry = json!({ "type": "postgres", "url": url, "batch": { "age": "20ms" } });
    magicapi_testkit::configuration::lay_over(&mut entry, changes);
    json!({ "telemetry": { "exporters": [entry] } })
}

/// Waits until so many rows are there; the ids of their records, each once.
async fn rows(server: &Postgres, database: &str, count: usize) -> BTreeSet<String> {
    until("the rows", async || {
        let output = server.try_sql(database, "SELECT count(*) FROM ai_gateway_logs");
        let there = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0_usize);
        (there >= count).then_some(())
    })
    .await;
    let there = server.sql(database, "SELECT record_id FROM ai_gateway_logs WHERE record_id IS NOT NULL");
    let ids: BTreeSet<String> = there.lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), there.lines().count(), "none twice");
    ids
}

#[tokio::test]
async fn records_arrive_in_the_table_that_is_named() {
    let Some(server) = Postgres::named() else { return };
    server.database("binary_named");
    server.sql("binary_named", "CREATE SCHEMA audit");
    let variables = [
        ("ENABLED_EXPORTERS", "prometheus,postgres"),
        ("POSTGRES_URL", &server.url("binary_named")),
        ("POSTGRES_TABLE", "audit.logs"),
    ];
    let scene = Scene::by_variables(&variables).await;
    let error = json!({ "error": { "status": 429 } }).to_string();
    for (case, script, more) in
        [("chat", "{}", json!({})), ("stream", "{}", json!({ "stream": true })), ("error", &error, json!({}))]
    {
        let headers = [("x-thread-id", case), ("x-mock", script)];
        post_json(&scene.url(CHAT), &headers, &chat("gpt-4o-mini", &more)).await;
    }
    wait_for(&scene, "three records", |status| status["sent"] == 3).await;
    let rows = "SELECT log_data #>> '{attributes,thread_id}', log_data #>> '{attributes,metadata,outcome}', \
         latency >= coalesce(ttfb, 0), jsonb_array_length(log_data #> '{attributes,response,streamed_data}') > 2 \
         FROM audit.logs ORDER BY 1";
    let rows = server.sql("binary_named", rows);
    assert_eq!(rows, "chat|completed|t|\nerror|provider_error|t|\nstream|completed|t|t");
    assert!(!scene.gateway.log().join("\n").contains(server.password()), "the log has no password");
    let status = scene.admin("/health/details").await.text();
    assert!(!status.contains(server.password()));
}

#[tokio::test]
async fn a_table_of_the_guide_goes_on_and_characters_are_marked() {
    let Some(server) = Postgres::named() else { return };
    server.database("binary_guide");
    let guide = "CREATE TABLE ai_gateway_logs (id SERIAL PRIMARY KEY, timestamp TIMESTAMPTZ NOT NULL, \
         log_data JSONB NOT NULL, ttfb INTEGER, latency INTEGER); \
         INSERT INTO ai_gateway_logs (timestamp, log_data, ttfb, latency) VALUES (now(), '{\"old\": 1}', 0, 5)";
    server.sql("binary_guide", guide);
    let scene = Scene::start(exporter(&server.url("binary_guide"), json!({}))).await;
    let ids = BTreeSet::from([ask(&scene.url(CHAT), "a\u{0}b").await, ask(&scene.url(CHAT), CONTENT).await]);
    assert_eq!(rows(&server, "binary_guide", 3).await, ids);
    let marked = "SELECT log_data #>> '{attributes,request,messages,0,content}', \
         log_data #>> '{attributes,metadata,characters_replaced}' FROM ai_gateway_logs WHERE id = 2";
    // The provider repeats what it was asked.
    assert_eq!(server.sql("binary_guide", marked), "a\u{fffd}b|2");
    assert_eq!(
        server.sql("binary_guide", "SELECT log_data FROM ai_gateway_logs WHERE id = 1"),
        "{\"old\": 1}"
    );
}

/// More than the memory holds waits on disk while the server is stopped; each record is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_under_load_costs_no_record() {
    let Some(server) = Postgres::own() else { return };
    server.database("binary_outage");
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let changes =
        json!({ "batch": { "bytes": "128KiB" }, "buffer": { "memory": "256KiB" }, "partitions": "day" });
    let config = exporter(&server.url("binary_outage"), changes);
    let scene = Scene::start_in(&directory, config, |options| options).await;
    ask(&scene.url(CHAT), CONTENT).await;
    wait_for(&scene, "a first record", |status| status["sent"] == 1).await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (stop, url, content) = (stop.clone(), scene.url(CHAT), CONTENT.repeat(40));
        load.spawn(async move {
            let mut ids = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                ids.insert(ask(&url, &content).await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            ids
        });
    }
    for round in 1..=2 {
        let before = status(&scene).await["sent"].as_u64();
        wait_for(&scene, "records under load", |status| status["sent"].as_u64() > before).await;
        tokio::task::block_in_place(|| server.stop());
        let full = |status: &Value| status["spooled"].as_u64() >= Some(100 * round);
        wait_for(&scene, "records on disk", full).await;
        tokio::task::block_in_place(|| server.start());
        wait_for(&scene, "the server again", |status| status["state"] == "running").await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut asked = BTreeSet::new();
    while let Some(ids) = load.join_next().await {
        asked.extend(ids.expect("no request failed"));
    }
    let there = rows(&server, "binary_outage", asked.len() + 1).await;
    assert!(asked.is_subset(&there) && there.len() == asked.len() + 1, "{} of {}", there.len(), asked.len());
    let status = wait_for(&scene, "an empty spool", |status| status["spool_records"] == 0).await;
    for key in ["dropped", "rejected"] {
        assert_eq!(status[key], 0, "{key}: {status}");
    }
}

#[tokio::test]
async fn a_poisoned_row_is_set_aside_with_its_reason() {
    let Some(server) = Postgres::named() else { return };
    server.database("binary_poison");
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let config = exporter(&server.url("binary_poison"), json!({ "batch": { "age": "2s" } }));
    let scene = Scene::start_in(&directory, config, |options| options).await;
    // The table is made before traffic comes.
    until("the table", async || {
        let found = server.sql("binary_poison", "SELECT to_regclass('ai_gateway_logs_record_id')");
        (!found.is_empty()).then_some(())
    })
    .await;
    server.sql(
        "binary_poison",
        "ALTER TABLE ai_gateway_logs ADD CONSTRAINT no_canary CHECK (log_data::text NOT LIKE '%canary%')",
    );
    let mut ids = BTreeSet::new();
    for n in 0..20 {
        let id = ask(&scene.url(CHAT), if n == 7 { "canary" } else { CONTENT }).await;
        if n != 7 {
            ids.insert(id);
        }
    }
    assert_eq!(rows(&server, "binary_poison", 19).await, ids);
    let status = wait_for(&scene, "the rejection", |status| status["rejected"] == 1).await;
    assert_eq!((&status["sent"], &status["dropped"]), (&json!(19), &json!(0)), "{status}");
    let said = status["last_error"].as_str().expect("a reason");
    assert_eq!(said, "SQLSTATE 23514: refused by no_canary");
    let dead = scene.gateway.data_path().join("spool/postgres/dead");
    assert_eq!(std::fs::read_dir(dead).expect("dead letters").count(), 1);
}

#[tokio::test]
async fn a_wrong_password_is_said_and_records_wait_until_it_is_right() {
    let Some(server) = Postgres::named() else { return };
    server.database("binary_password");
    server.sql("postgres", "DROP ROLE IF EXISTS binary_writer");
    server.sql("postgres", "CREATE ROLE binary_writer LOGIN PASSWORD 'another'");
    server.sql("binary_password", "GRANT CREATE ON SCHEMA public TO binary_writer");
    let url = server.url_as("binary_writer", "canary-password", "binary_password");
    let scene = Scene::start(exporter(&url, json!({}))).await;
    let id = ask(&scene.url(CHAT), CONTENT).await;
    let status = wait_for(&scene, "the refusal", |status| {
        status["last_error"].is_string() && status["queue_records"] == 1
    })
    .await;
    let said = status["last_error"].as_str().expect("a text");
    assert!(said.contains("SQLSTATE 28P01") && said.contains("POSTGRES_URL"), "{said}");
    server.sql("postgres", "ALTER ROLE binary_writer PASSWORD 'canary-password'");
    assert_eq!(rows(&server, "binary_password", 1).await, BTreeSet::from([id]));
    let log = scene.gateway.log().join("\n");
    assert!(!log.contains("canary-password") && !status.to_string().contains("canary-password"));
}
