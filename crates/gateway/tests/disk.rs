//! Disks that are full or cannot be written, through the binary: `DATA_DIR` on a small file system of its own, and a spool
//! that belongs to somebody else. Traffic goes on, the reason is said, and the rest is delivered.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::bulk::Bulk;
use magicapi_testkit::configuration::{RECORDS, records_file};
use magicapi_testkit::wire::{until, until_within};
use magicapi_testkit::{GatewayOptions, read_records};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::Scene;

/// Bytes of the file system, of which the store takes some for itself.
const DISK: &str = "12m";

/// An exporter whose back end is away asks for it once a minute in the end.
const RECOVERY: Duration = Duration::from_mins(10);

/// Elasticsearch there with little memory, and a healthy file elsewhere.
fn config(address: SocketAddr, durable: bool) -> Value {
    let elasticsearch = json!({ "type": "elasticsearch", "url": format!("http://{address}"),
        "batch": { "bytes": "16KiB", "age": "20ms" }, "buffer": { "memory": "32KiB" } });
    json!({ "telemetry": { "durable": durable, "exporters": [elasticsearch, records_file(&json!({}))] } })
}

/// An address at which nobody listens, for now.
fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free address");
    listener.local_addr().expect("an address")
}

/// Sends requests whose bodies do not pack, all of which succeed, and gives the ids of their records.
async fn ask(scene: &Scene, requests: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for _ in 0..requests {
        let noise: String = (0..128).map(|_| uuid()).collect();
        let mut body = question();
        body["messages"][0]["content"] = json!(noise);
        let answer = scene.post(CHAT, &json!({}), &[], &body).await;
        assert_eq!(answer.status, 200, "traffic is unharmed");
        ids.insert(answer.header("x-request-id").to_owned());
    }
    ids
}

/// 32 digits that nothing packs.
fn uuid() -> String {
    magicapi_plugin::RequestId::mint().to_string().split('-').skip(2).collect()
}

async fn details(scene: &Scene) -> Value {
    scene.admin("/health/details").await.json()
}

async fn status(scene: &Scene) -> Value {
    let details = details(scene).await;
    let exporters = details["exporters"].as_array().cloned().expect("exporters");
    exporters.into_iter().find(|one| one["name"] == "elasticsearch").expect("the exporter")
}

/// Asks until the exporter's status is as wanted.
async fn ask_until(scene: &Scene, ids: &mut BTreeSet<String>, wanted: impl Fn(&Value) -> bool) -> Value {
    let asked = std::sync::Mutex::new(ids);
    until("a disk that cannot be written", async || {
        let new = ask(scene, 20).await;
        asked.lock().expect("no panic").extend(new);
        Some(status(scene).await).filter(&wanted)
    })
    .await
}

/// What the back end and its neighbour must have once the disk takes something again: of the exporter that had no room
/// all but what it counts, of the other everything.
async fn the_rest_arrives(scene: &Scene, address: SocketAddr, ids: &BTreeSet<String>) {
    let bulk = Bulk::start(address).await;
    let settled = until_within(RECOVERY, "nothing waits", async || {
        let status = status(scene).await;
        let waits = status["queue_records"] != 0 || status["spool_records"] != 0;
        let all = status["received"].as_u64() == Some(ids.len() as u64);
        (all && !waits && status["spool_error"].is_null()).then_some(status)
    })
    .await;
    let there: BTreeSet<String> = bulk.documents().into_keys().collect();
    let lost = settled["dropped"].as_u64().expect("a count");
    assert!(there.is_subset(ids));
    assert_eq!(there.len() as u64 + lost, ids.len() as u64, "{settled}");
    assert_eq!(settled["sent"].as_u64(), Some(there.len() as u64), "{settled}");
    let path = scene.gateway.path(RECORDS);
    let written = until("every record in the file", async || {
        Some(read_records(&path)).filter(|records| records.len() >= ids.len())
    })
    .await;
    let written: Vec<_> = written.iter().map(|record| record["attributes"]["id"].to_string()).collect();
    assert_eq!(written.len(), ids.len(), "each once");
    assert_eq!(written.iter().map(|id| id.trim_matches('"').to_owned()).collect::<BTreeSet<_>>(), *ids);
}

/// A file that takes all the room there is.
fn fill(path: &Path) {
    let mut filler = File::create(path).expect("a file");
    for size in [64 << 10, 4 << 10, 1] {
        while filler.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

async fn a_full_disk(durable: bool) {
    let (address, directory) = (nowhere(), Arc::new(TempDir::new().expect("a directory")));
    let small = |options: GatewayOptions| options.on_small_disk(DISK);
    let scene = Scene::start_in(&directory, config(address, durable), small).await;
    let mut ids = ask(&scene, 30).await;
    until("records on disk", async || (status(&scene).await["spooled"].as_u64() > Some(0)).then_some(()))
        .await;
    let filler = scene.gateway.data_path().join("filler");
    fill(&filler);
    let full = ask_until(&scene, &mut ids, |status| status["spool_error"].is_string()).await;
    let error = full["spool_error"].as_str().expect("an error");
    assert!(error.contains("No space left on device"), "{full}");
    let full =
        ask_until(&scene, &mut ids, |status| status["dropped_by_reason"]["disk_full"].as_u64() > Some(0))
            .await;
    assert_eq!(full["dropped"], full["dropped_by_reason"]["disk_full"], "and for no other reason: {full}");
    // The ledger's journal is on the same disk, as is the one of `durable`; both say so, once the last block of their file is
    // full, and neither costs a request.
    let journals = if durable { vec!["ledger", "telemetry"] } else { vec!["ledger"] };
    let asked = std::sync::Mutex::new(&mut ids);
    until("all journals say so", async || {
        let new = ask(&scene, 20).await;
        asked.lock().expect("no panic").extend(new);
        let details = details(&scene).await;
        assert_eq!(details["status"], "degraded");
        let reasons = details["reasons"].to_string();
        assert!(reasons.contains("No space left"), "{reasons}");
        journals.iter().all(|name| reasons.contains(&format!("journal {name}: "))).then_some(())
    })
    .await;
    fs::remove_file(filler).expect("the filler");
    ids.extend(ask(&scene, 5).await);
    the_rest_arrives(&scene, address, &ids).await;
    until("journals that work", async || {
        let details = scene.admin("/health/details").await.json();
        let journals = details["journals"].as_array().cloned().expect("journals");
        journals.iter().all(|one| one["error"].is_null()).then_some(())
    })
    .await;
    let said = scene.gateway.log().iter().filter(|line| line.contains("files cannot be written")).count();
    assert_eq!(said, 1);
}

#[tokio::test]
async fn a_full_disk_is_said_and_costs_no_request_and_no_delivery() {
    a_full_disk(false).await;
}

#[tokio::test]
async fn a_full_disk_under_durable_records_is_said_and_costs_no_request() {
    a_full_disk(true).await;
}

#[tokio::test]
async fn a_read_only_spool_is_said_and_mended_without_a_restart() {
    let (address, directory) = (nowhere(), Arc::new(TempDir::new().expect("a directory")));
    let changes = config(address, false);
    let scene = Scene::start_unprivileged(&directory, changes).await;
    let mut ids = ask(&scene, 30).await;
    until("records on disk", async || (status(&scene).await["spooled"].as_u64() > Some(0)).then_some(()))
        .await;
    let spool = scene.gateway.data_path().join("spool/elasticsearch");
    fs::set_permissions(&spool, Permissions::from_mode(0o555)).expect("a mode");
    let failing =
        ask_until(&scene, &mut ids, |status| status["dropped_by_reason"]["disk_error"].as_u64() > Some(0))
            .await;
    assert!(failing["spool_error"].as_str().expect("an error").contains("Permission denied"), "{failing}");
    assert_eq!(failing["dropped"], failing["dropped_by_reason"]["disk_error"]);
    let reasons = details(&scene).await["reasons"].to_string();
    assert!(reasons.contains("exporter elasticsearch: spool: "), "{reasons}");
    fs::set_permissions(&spool, Permissions::from_mode(0o700)).expect("a mode");
    ids.extend(ask(&scene, 5).await);
    the_rest_arrives(&scene, address, &ids).await;
}
