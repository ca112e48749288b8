//! The disk spool through the binary: outages longer than the memory, kills, disks that cannot be written.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::bulk::Bulk;
use magicapi_testkit::configuration::records_file;
use magicapi_testkit::hook::Hook;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::Scene;

/// An address at which nobody listens, for now.
fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free address");
    listener.local_addr().expect("an address")
}

/// Elasticsearch there, with little memory; and changes.
fn exporter(address: SocketAddr, changes: Value) -> Value {
    let mut entry = json!({ "type": "elasticsearch", "url": format!("http://{address}"),
        "batch": { "bytes": "16KiB", "age": "20ms" }, "buffer": { "memory": "32KiB" } });
    magicapi_testkit::configuration::lay_over(&mut entry, changes);
    json!({ "telemetry": { "exporters": [entry] } })
}

async fn scene(directory: &Arc<TempDir>, config: Value) -> Scene {
    Scene::start_in(directory, config, |options| options).await
}

/// Sends requests, all of which succeed, and gives the ids of their records.
async fn ask(scene: &Scene, requests: usize) -> BTreeSet<String> {
    let mut body = question();
    body["messages"][0]["content"] = json!("x".repeat(4 << 10));
    let mut ids = BTreeSet::new();
    for _ in 0..requests {
        let answer = scene.post(CHAT, &json!({}), &[], &body).await;
        assert_eq!(answer.status, 200);
        ids.insert(answer.header("x-request-id").to_owned());
    }
    assert_eq!(ids.len(), requests);
    ids
}

async fn status(scene: &Scene) -> Value {
    let details = scene.admin("/health/details").await.json();
    let exporters = details["exporters"].as_array().cloned().expect("exporters");
    exporters.into_iter().find(|one| one["type"] == "elasticsearch").expect("the exporter")
}

/// Waits until the exporter's status is as wanted.
async fn wait_for(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, async || Some(status(scene).await).filter(&wanted)).await
}

async fn arrived(bulk: &Bulk, ids: &BTreeSet<String>) {
    until("every record", async || (bulk.documents().len() >= ids.len()).then_some(())).await;
    assert_eq!(&bulk.documents().into_keys().collect::<BTreeSet<_>>(), ids);
}

fn spool(scene: &Scene) -> PathBuf {
    scene.gateway.data_path().join("spool/elasticsearch")
}

fn batches(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "batch")).collect()
}

fn directory() -> Arc<TempDir> {
    Arc::new(TempDir::new().expect("a directory"))
}

#[tokio::test]
async fn an_outage_longer_than_the_memory_loses_no_record() {
    let address = nowhere();
    let scene = scene(&directory(), exporter(address, json!({}))).await;
    let mut ids = ask(&scene, 60).await;
    let waiting =
        wait_for(&scene, "records on disk", |status| status["spool_bytes"].as_u64() > Some(0)).await;
    assert!(waiting["queue_bytes"].as_u64() <= Some(32 << 10), "{waiting}");
    assert_eq!(waiting["dropped"], 0);
    let bulk = Bulk::start(address).await;
    ids.extend(ask(&scene, 5).await);
    arrived(&bulk, &ids).await;
    wait_for(&scene, "an empty spool", |status| {
        status["spool_records"] == 0 && status["spool_bytes"] == 0 && status["breaker"] == "closed"
    })
    .await;
}

#[tokio::test]
async fn records_survive_a_kill_in_the_spool_and_a_shutdown() {
    let (address, directory) = (nowhere(), directory());
    let mut first = scene(&directory, exporter(address, json!({}))).await;
    let mut ids = ask(&first, 40).await;
    // Only what is on disk survives a kill: enough more push the first records out of memory.
    wait_for(&first, "records on disk", |status| status["spooled"].as_u64() >= Some(30)).await;
    first.gateway.kill();
    let kept: u64 = batches(&spool(&first))
        .iter()
        .filter_map(|path| path.file_stem()?.to_str()?.rsplit('-').next()?.parse::<u64>().ok())
        .sum();
    assert!(kept >= 30, "{kept}");
    let mut second = scene(&directory, exporter(address, json!({}))).await;
    wait_for(&second, "what the kill left", |status| status["spool_records"].as_u64() >= Some(kept)).await;
    let late = ask(&second, 10).await;
    ids.extend(late.iter().cloned());
    second.gateway.signal("TERM");
    assert_eq!(second.gateway.wait(magicapi_testkit::DEADLINE).await.code(), Some(0));
    let bulk = Bulk::start(address).await;
    let _third = scene(&directory, exporter(address, json!({}))).await;
    let all = kept as usize + late.len();
    until("every record that was on disk", async || (bulk.documents().len() >= all).then_some(())).await;
    let there: BTreeSet<String> = bulk.documents().into_keys().collect();
    assert!(there.is_subset(&ids) && late.is_subset(&there), "{} of {}", there.len(), ids.len());
}

#[tokio::test]
async fn a_corrupt_file_is_set_aside_and_the_rest_is_delivered() {
    let (address, directory) = (nowhere(), directory());
    let mut first = scene(&directory, exporter(address, json!({}))).await;
    let ids = ask(&first, 40).await;
    first.gateway.signal("TERM");
    first.gateway.wait(magicapi_testkit::DEADLINE).await;
    let victim = batches(&spool(&first)).pop().expect("a file");
    fs::write(&victim, b"MAGISPL\0 and then nothing").expect("a file");
    let bulk = Bulk::start(address).await;
    let second = scene(&directory, exporter(address, json!({}))).await;
    let status = wait_for(&second, "the rest", |status| {
        status["spool_records"] == 0 && status["sent"].as_u64() > Some(0)
    })
    .await;
    let corrupt = status["dropped_by_reason"]["corrupt"].as_u64().expect("counted");
    assert!(corrupt > 0, "{status}");
    assert_eq!(bulk.documents().len() as u64 + corrupt, ids.len() as u64);
    assert_eq!(batches(&spool(&second).join("corrupt")).len(), 1);
    let logged = second.gateway.log().iter().filter(|line| line.contains("set aside in `corrupt`")).count();
    assert_eq!(logged, 1);
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_is_said_once_and_costs_no_request() {
    let (address, directory) = (nowhere(), directory());
    // Root may write into read-only directories, but not below a file.
    fs::create_dir_all(directory.path().join("data/spool")).expect("a directory");
    fs::write(directory.path().join("data/spool/elasticsearch"), b"").expect("a file");
    let scene = scene(&directory, exporter(address, json!({}))).await;
    let status = until("drops", async || {
        ask(&scene, 100).await;
        let status = status(&scene).await;
        (status["dropped_by_reason"]["disk_error"].as_u64() > Some(0)).then_some(status)
    })
    .await;
    let error = status["spool_error"].as_str().unwrap_or_default();
    assert!(error.contains("spool/elasticsearch"), "{status}");
    let reasons = scene.admin("/health/details").await.json()["reasons"].to_string();
    assert!(reasons.contains("exporter elasticsearch: spool: "), "beside the back end's: {reasons}");
    let listed = scene::stdout(&scene::run(&directory, &["exporters", "list"]).await);
    assert!(listed.contains("  spool: ") && listed.contains("  dropped: disk_error "), "{listed}");
    let said = scene.gateway.log().iter().filter(|line| line.contains("files cannot be written")).count();
    assert_eq!(said, 1);
}

#[tokio::test]
async fn telemetry_exporters_buffer_disk_bounds_the_spool() {
    let changes = json!({ "buffer": { "disk": "24KiB" }, "batch": { "records": 2 } });
    let scene = scene(&directory(), exporter(nowhere(), changes)).await;
    let status = until("drops", async || {
        ask(&scene, 40).await;
        let status = status(&scene).await;
        (status["dropped_by_reason"]["disk_full"].as_u64() > Some(0)).then_some(status)
    })
    .await;
    assert!(status["spool_bytes"].as_u64().expect("bytes") <= 24 << 10, "{status}");
}

#[tokio::test]
async fn telemetry_exporters_buffer_max_age_bounds_the_wait_on_disk() {
    let scene = scene(&directory(), exporter(nowhere(), json!({ "buffer": { "max_age": "1s" } }))).await;
    ask(&scene, 30).await;
    wait_for(&scene, "old records gone", |status| {
        status["dropped_by_reason"]["expired"].as_u64() > Some(0) && status["spool_bytes"] == 0
    })
    .await;
}

#[tokio::test]
async fn telemetry_exporters_only_chooses_records() {
    let is = |key: &str, yes: Value, no: Value| (key.to_owned(), yes, no);
    let cases = [
        is("status", json!(["success"]), json!(["error"])),
        is("outcome", json!(["completed"]), json!(["timed_out"])),
        is("provider", json!(["openai"]), json!(["groq"])),
        is("model", json!(["gpt-*"]), json!(["claude-*"])),
        is("operation", json!(["chat"]), json!(["embeddings"])),
        is("min_cost_usd", json!(0.0), json!(1000.0)),
        is("min_latency", json!("0s"), json!("1h")),
        is("min_status_code", json!(200), json!(400)),
    ];
    let mut entries = vec![records_file(&json!({ "name": "none", "path": "none",
        "only": { "key": ["nobody"] } }))];
    for (key, yes, no) in cases {
        for (name, value) in [(format!("{key}-yes"), yes), (format!("{key}-no"), no)] {
            entries
                .push(records_file(&json!({ "name": name, "path": name, "only": { key.as_str(): value } })));
        }
    }
    let scene = Scene::start(json!({ "telemetry": { "exporters": entries } })).await;
    scene.ask(&json!({}), &[]).await;
    until("chosen by all that name it, and by no other", async || {
        let details = scene.admin("/health/details").await.json();
        let mut exporters = details["exporters"].as_array().expect("exporters").iter();
        exporters
            .all(|one| {
                let name = one["name"].as_str().unwrap_or_default();
                let chosen = name.ends_with("-yes") || name == "request_log";
                let counts = (one["sent"].as_u64(), one["filtered"].as_u64());
                counts == if chosen { (Some(1), Some(0)) } else { (Some(0), Some(1)) }
            })
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn telemetry_exporters_sample_keeps_a_share_and_what_a_rule_names() {
    let sampled =
        |name: &str, sample: Value| records_file(&json!({ "name": name, "path": name, "sample": sample }));
    let entries = [
        sampled("nothing", json!(0)),
        sampled("half", json!(0.5)),
        sampled("errors", json!({ "rate": 0 })),
        sampled("no-errors", json!({ "rate": 0, "keep": { "errors": false } })),
        sampled("slow", json!({ "rate": 0, "keep": { "slower_than": "20ms" } })),
        sampled("dear", json!({ "rate": 0, "keep": { "errors": false, "cost_usd_over": 0 } })),
    ];
    let scene = Scene::start(json!({ "telemetry": { "exporters": entries } })).await;
    for _ in 0..60 {
        scene.ask(&json!({ "ttft_ms": 40 }), &[]).await;
    }
    scene.ask(&json!({ "error": { "status": 400 } }), &[]).await;
    let counts = until("all are chosen or not", async || {
        let details = scene.admin("/health/details").await.json();
        let exporters = details["exporters"].as_array().expect("exporters").clone();
        let sampled: Vec<(u64, u64)> = exporters
            .iter()
            .filter(|one| one["name"] != "request_log")
            .map(|one| (one["sent"].as_u64().unwrap_or(0), one["sampled_out"].as_u64().unwrap_or(0)))
            .collect();
        sampled.iter().all(|(sent, out)| sent + out == 61).then_some(sampled)
    })
    .await;
    let sent: Vec<u64> = counts.iter().map(|(sent, _)| *sent).collect();
    assert_eq!((sent[0], sent[2], sent[3]), (0, 1, 0));
    assert!((5..56).contains(&sent[1]), "{sent:?}");
    assert!(sent[4] >= 60 && sent[5] >= 60, "{sent:?}");
    let rates = |name: &str| -> BTreeSet<String> {
        let records = magicapi_testkit::read_records(&scene.gateway.path(name));
        records.iter().map(|record| record["attributes"]["metadata"]["sample_rate"].to_string()).collect()
    };
    assert_eq!(rates("half"), BTreeSet::from(["0.5".to_owned()]));
    assert!(rates("slow").iter().all(|rate| rate == "1.0" || rate == "1"));
}

/// A webhook with these settings, to whom the back end answers so; it is tried without end.
fn hook(hook: &Hook, changes: Value) -> Value {
    let mut entry =
        json!({ "type": "webhook", "name": "elasticsearch", "url": hook.url(), "batch": { "age": "20ms" } });
    magicapi_testkit::configuration::lay_over(&mut entry, changes);
    json!({ "telemetry": { "exporters": [entry] } })
}

async fn hooked(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, async || {
        let details = scene.admin("/health/details").await.json();
        let exporters = details["exporters"].as_array().cloned().expect("exporters");
        exporters.into_iter().find(|one| one["type"] == "webhook").filter(&wanted)
    })
    .await
}

#[tokio::test]
async fn telemetry_exporters_retry_longest_bounds_the_wait_between_tries() {
    let busy = Hook::start(503).await;
    let retry =
        json!({ "retry": { "first": "10ms", "longest": "10ms" }, "breaker": { "failures": 1_000_000 } });
    let scene = scene(&directory(), hook(&busy, retry)).await;
    ask(&scene, 1).await;
    // With waits that double, so many tries take more than a minute.
    let status = hooked(&scene, "many tries", |status| status["retried"].as_u64() >= Some(100)).await;
    assert_eq!(status["breaker"], "closed", "it takes more failures than that");
}

#[tokio::test]
async fn telemetry_exporters_breaker_failures_opens_it() {
    let busy = Hook::start(503).await;
    let changes = json!({ "breaker": { "failures": 1 }, "retry": { "first": "1h", "longest": "1h" } });
    let scene = scene(&directory(), hook(&busy, changes)).await;
    ask(&scene, 1).await;
    let status = hooked(&scene, "open", |status| status["breaker"] == "open").await;
    assert_eq!(status["retried"], 1, "the first failure: {status}");
}

#[tokio::test]
async fn telemetry_exporters_dead_letters_are_bounded_in_bytes_and_age() {
    let never = Hook::start(400).await;
    for (bound, what) in [(json!({ "disk": "2KiB" }), "bytes"), (json!({ "max_age": "1s" }), "age")] {
        let changes = json!({ "dead_letters": bound, "batch": { "records": 1 } });
        let scene = scene(&directory(), hook(&never, changes)).await;
        ask(&scene, 12).await;
        let status = hooked(&scene, what, |status| {
            status["rejected"] == 12
                && status["dead_letters"].as_u64() < Some(if what == "age" { 1 } else { 12 })
        })
        .await;
        assert!(status["dead_letter_bytes"].as_u64() <= Some(2 << 10), "{what}: {status}");
    }
}

/// A server that takes connections and never answers; gives how many it has.
async fn silent() -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free address");
    let address = listener.local_addr().expect("an address");
    let bulks = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = bulks.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut received = vec![0; 4096];
                let read = socket.read(&mut received).await.unwrap_or(0);
                if received[..read].starts_with(b"POST") {
                    counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    tokio::time::sleep(std::time::Duration::from_mins(10)).await;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 18\r\n\r\n{\"status\":\"green\"}";
                let _ = socket.write_all(answer).await;
            });
        }
    });
    (address, bulks)
}

#[tokio::test]
async fn telemetry_exporters_concurrency_and_timeout_bound_exports() {
    let (address, bulks) = silent().await;
    let changes = json!({ "concurrency": 3, "batch": { "records": 1 }, "buffer": { "memory": "4MiB" } });
    let patient = scene(&directory(), exporter(address, changes)).await;
    ask(&patient, 12).await;
    until("three", async || (bulks.load(std::sync::atomic::Ordering::SeqCst) == 3).then_some(())).await;
    assert_eq!(status(&patient).await["ambiguous"], 0, "the default timeout is 30 s");
    assert_eq!(bulks.load(std::sync::atomic::Ordering::SeqCst), 3, "and no more");
    let hasty = scene(&directory(), exporter(silent().await.0, json!({ "timeout": "200ms" }))).await;
    let begun = std::time::Instant::now();
    ask(&hasty, 1).await;
    wait_for(&hasty, "a try without an answer", |status| status["ambiguous"].as_u64() > Some(0)).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(25), "the default of 30 s ended it");
}

#[tokio::test]
async fn telemetry_exporters_rate_limit_bounds_the_pace() {
    for limit in [json!({ "requests": 2 }), json!({ "bytes": "16KiB" })] {
        let bulk = Bulk::start("127.0.0.1:0".parse().expect("an address")).await;
        let changes =
            json!({ "rate_limit": limit, "batch": { "records": 1 }, "buffer": { "memory": "4MiB" } });
        let scene = scene(&directory(), exporter(bulk.address, changes)).await;
        let begun = std::time::Instant::now();
        let ids = ask(&scene, 12).await;
        arrived(&bulk, &ids).await;
        assert!(begun.elapsed() >= std::time::Duration::from_secs(2), "{limit}: {:?}", begun.elapsed());
    }
}
