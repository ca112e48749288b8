//! The exporter `file` with rotation, through the binary: under load, over kills, reloads and second writers.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::{RECORDS, records_file};
use magicapi_testkit::http::post_json;
use magicapi_testkit::wire::until;
use magicapi_testkit::{DEADLINE, read_records};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::scene::{Scene, refusal};

fn exporters(list: &Value) -> Value {
    json!({ "telemetry": { "exporters": list } })
}

/// Small files, packed.
fn rotated() -> Value {
    let rotate = json!({ "rotate": { "size": "32KiB" }, "compression": "gzip", "batch": { "records": 5 } });
    exporters(&json!([records_file(&rotate)]))
}

fn directory() -> Arc<TempDir> {
    Arc::new(TempDir::new().expect("a directory"))
}

/// Sends so many requests, several at once; the ids of those that were answered.
async fn load(scene: &Scene, requests: usize) -> Vec<String> {
    let url = scene.gateway.url(CHAT);
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (url, requests) = (url.clone(), requests / 8);
        clients.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..requests {
                let answer = post_json(&url, &[], &question()).await;
                ids.push(answer.header("x-request-id").to_owned());
            }
            ids
        });
    }
    clients.join_all().await.concat()
}

/// The lines of the file and of every file that it became, by their names; packed ones are unpacked whole. While one is
/// being packed there may be both; what goes away while this looks is not there.
fn files(directory: &Path) -> BTreeMap<String, Vec<String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with("records") || name.contains(".unfinished") {
            continue;
        }
        let mut text = String::new();
        let Ok(mut file) = fs::File::open(&path) else { continue };
        let mode = file.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        let read = if path.extension().is_some_and(|ending| ending == "gz") {
            GzDecoder::new(file).read_to_string(&mut text)
        } else {
            file.read_to_string(&mut text)
        };
        read.unwrap_or_else(|error| panic!("{name}: {error}"));
        files.insert(name, text.lines().map(str::to_owned).collect());
    }
    let packed: Vec<String> =
        files.keys().filter_map(|name: &String| name.strip_suffix(".gz").map(str::to_owned)).collect();
    files.retain(|name, _| !packed.contains(name));
    files
}

/// The ids of all lines that are records, sorted, and how many lines are torn.
fn ids(directory: &Path) -> (Vec<String>, usize) {
    let lines: Vec<String> = files(directory).into_values().flatten().collect();
    let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut ids: Vec<String> =
        parsed.map(|record| record["attributes"]["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort_unstable();
    let torn = lines.len() - ids.len();
    (ids, torn)
}

/// Waits until all that was put away is packed.
async fn packed(directory: &Path) {
    until("packed", async || {
        let mut entries =
            fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        let is_rotated = |path: &Path| path.to_string_lossy().contains("records-");
        let all =
            entries.all(|path| !is_rotated(&path) || path.extension().is_some_and(|ending| ending == "gz"));
        all.then_some(())
    })
    .await;
}

#[tokio::test]
async fn rotated_files_hold_every_record_once_under_load() {
    let scene = Scene::start(rotated()).await;
    let mut sent = load(&scene, 400).await;
    let directory = scene.gateway.data_dir.clone();
    until("all", async || (ids(directory.path()).0.len() >= 400).then_some(())).await;
    packed(directory.path()).await;
    scene::stop(scene.gateway).await;
    sent.sort_unstable();
    assert_eq!(ids(directory.path()), (sent, 0), "each once, in whole lines");
    let files = files(directory.path());
    assert!(files.len() > 5, "{:?}", files.keys());
    for (name, lines) in files {
        assert!(lines.iter().map(|line| line.len() + 1).sum::<usize>() <= 32 << 10, "{name}");
    }
}

/// What a kill leaves is whole files, a torn line at most, and nothing twice, however often it comes.
#[tokio::test]
async fn kills_under_load_tear_one_line_and_double_none() {
    let directory = directory();
    for round in 1..=4 {
        let mut scene = Scene::start_in(&directory, rotated(), |options| options).await;
        let written = ids(directory.path()).0.len();
        tokio::select! {
            _ = load(&scene, 100_000) => panic!("the load ended"),
            () = until("some files more", async || {
                (ids(directory.path()).0.len() > written + 150).then_some(())
            }) => {}
        }
        scene.gateway.kill();
        let (ids, torn) = ids(directory.path());
        assert!(torn <= round, "{torn} lines are torn after {round} kills");
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "a record is there twice");
    }
    let scene = Scene::start_in(&directory, rotated(), |options| options).await;
    packed(directory.path()).await;
    let hidden = fs::read_dir(directory.path()).expect("a directory").filter(|entry| {
        entry.as_ref().expect("an entry").file_name().to_string_lossy().contains("unfinished")
    });
    assert_eq!(hidden.count(), 0);
    scene::stop(scene.gateway).await;
}

/// A changed entry for the same file: the old one has let go before the new one begins.
#[tokio::test]
async fn a_reload_never_has_two_writers_of_one_file() {
    let entry = |size: &str| {
        let changes = json!({ "rotate": { "size": size }, "compression": "gzip", "batch": { "age": "1ms" } });
        exporters(&json!([records_file(&changes)]))
    };
    let scene = Scene::start(entry("20KiB")).await;
    let mut sent = Vec::new();
    for (number, size) in ["24KiB", "28KiB", "32KiB"].into_iter().enumerate() {
        scene.rewrite(entry(size));
        while scene.logged("configuration reloaded", 0).await.len() <= number {
            sent.extend(load(&scene, 24).await);
        }
    }
    let directory = scene.gateway.data_dir.clone();
    until("all", async || (ids(directory.path()).0.len() >= sent.len()).then_some(())).await;
    assert!(!scene.gateway.log().iter().any(|line| line.contains("another exporter or gateway")));
    scene::stop(scene.gateway).await;
    sent.sort_unstable();
    assert_eq!(ids(directory.path()), (sent, 0));
}

#[test]
fn two_entries_of_one_path_are_refused() {
    let second = |path: &str| {
        let config = exporters(&json!([
            { "type": "file", "path": RECORDS },
            { "type": "file", "name": "audit", "path": path },
        ]));
        magicapi_testkit::configuration::configuration("http://127.0.0.1:1/v1", config)
    };
    for path in [RECORDS, "./records.jsonl", ".//./records.jsonl"] {
        let said = refusal(&second(path), &[]);
        for part in ["telemetry.exporters[1].path", "gateway.yaml:1:", "by the exporter `file`", "of its own"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    let output = scene::options(&second("other.jsonl"), &[]).arg("check").output();
    assert!(output.status.success(), "{}", scene::stderr(&output));
}

/// A second process waits, with its records, until the first has let go of the file.
#[tokio::test]
async fn a_second_gateway_waits_for_the_file() {
    let shared = directory();
    let path = shared.path().join("shared.jsonl");
    let entry = || exporters(&json!([records_file(&json!({ "path": path, "rotate": { "size": "1GiB" } }))]));
    let (first, second) = (Scene::start(entry()).await, Scene::start(entry()).await);
    for scene in [&first, &second] {
        assert_eq!(scene.ask(&json!({}), &[]).await.status, 200);
    }
    until("the first one's record", async || (read_records(&path).len() == 1).then_some(())).await;
    let error = until("the reason", async || {
        let details = second.admin("/health/details").await.json();
        let exporters = details["exporters"].as_array().expect("exporters");
        let file = exporters.iter().find(|one| one["type"] == "file").expect("the exporter");
        file["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.contains("shared.jsonl") && error.contains("another exporter or gateway"), "{error}");
    assert_eq!(read_records(&path).len(), 1);
    first.gateway.signal("TERM");
    let mut gateway = first.gateway;
    assert_eq!(gateway.wait(DEADLINE).await.code(), Some(0));
    until("the second one's record", async || (read_records(&path).len() == 2).then_some(())).await;
}

/// What `config` shows of it: sizes and times are no secrets.
#[tokio::test]
async fn config_shows_the_rotation() {
    let changes = json!({ "rotate": { "size": "1MiB", "keep_for": "7d" } });
    let config = exporters(&json!([records_file(&changes)]));
    let config = magicapi_testkit::configuration::configuration("http://127.0.0.1:1/v1", config);
    let output = scene::options(&config, &[]).arg("config").output();
    let text = scene::stdout(&output);
    let line = text.lines().find(|line| line.contains("[0].rotate")).expect("a line");
    assert!(line.contains(r#"{"size":1048576,"keep_for":"7d"}"#), "{line}");
}
