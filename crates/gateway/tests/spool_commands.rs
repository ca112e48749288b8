//! `spool list | replay | purge` through the binary: with a gateway that runs, and without one.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::Arc;

use magicapi_testkit::DEADLINE;
use magicapi_testkit::hook::Hook;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{Scene, run, stderr, stdout};

/// A webhook with little memory and one record per batch.
fn config(hook: &Hook) -> Value {
    json!({ "telemetry": { "exporters": [{ "type": "webhook", "name": "hook", "url": hook.url(),
        "batch": { "records": 1, "bytes": "8KiB", "age": "5ms" }, "buffer": { "memory": "16KiB" } }] } })
}

fn directory() -> Arc<TempDir> {
    Arc::new(TempDir::new().expect("a directory"))
}

async fn start(directory: &Arc<TempDir>, config: Value) -> Scene {
    Scene::start_in(directory, config, |options| options).await
}

async fn stop(mut scene: Scene) {
    scene.gateway.signal("TERM");
    assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));
}

async fn ask(scene: &Scene, requests: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for _ in 0..requests {
        ids.insert(scene.ask(&json!({}), &[]).await.header("x-request-id").to_owned());
    }
    ids
}

async fn status(scene: &Scene) -> Value {
    let exporters = scene.admin("/api/v1/exporters").await.json();
    exporters["data"]
        .as_array()
        .expect("exporters")
        .iter()
        .find(|one| one["name"] == "hook")
        .expect("it")
        .clone()
}

/// A command on the spool, with the file that names the exporter.
async fn spool(directory: &TempDir, arguments: &[&str]) -> Output {
    run(directory, &[&["--config", "gateway.yaml", "spool"], arguments].concat()).await
}

async fn json_of(directory: &TempDir, arguments: &[&str]) -> Value {
    let output = spool(directory, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&stdout(&output))
        .unwrap_or_else(|_| panic!("{}{}", stdout(&output), stderr(&output)))
}

async fn of_hook(directory: &TempDir) -> Value {
    let list = json_of(directory, &["list"]).await;
    list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["exporter"] == "hook")
        .cloned()
        .unwrap_or_default()
}

fn ids(records: &Value) -> BTreeSet<String> {
    let data = records["data"].as_array().expect("records").iter();
    data.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn dead_letters_are_shown_with_their_reason_and_delivered_once_replayed() {
    let (hook, directory) = (Hook::start(400).await, directory());
    let scene = start(&directory, config(&hook)).await;
    let sent = ask(&scene, 6).await;
    until("all are dead letters", async || (status(&scene).await["dead_letters"] == 6).then_some(())).await;

    let text = stdout(&spool(&directory, &["list"]).await);
    assert!(text.contains("hook ") && text.contains("dead ") && text.contains("6 dead: HTTP 400"), "{text}");
    let lines = stdout(&spool(&directory, &["list", "hook", "--dead"]).await);
    assert!(sent.iter().all(|id| lines.contains(id)) && lines.contains("openai/gpt-4o-mini"), "{lines}");
    assert!(!lines.contains("hello") && !lines.contains("messages"), "no content unless asked: {lines}");
    let whole = stdout(&spool(&directory, &["list", "hook", "--content"]).await);
    assert_eq!(whole.lines().count(), 6);
    let record: Value = serde_json::from_str(whole.lines().next().expect("a line")).expect("a record");
    assert!(record["attributes"]["request"]["messages"].is_array(), "{record}");

    let one = sent.iter().next().expect("an id").clone();
    hook.answer(202);
    let output = spool(&directory, &["replay", "hook", &one]).await;
    assert!(
        output.status.success() && stdout(&output).starts_with("1 records of hook"),
        "{}",
        stdout(&output)
    );
    until("it arrives", async || (hook.ids() == [one.clone()]).then_some(())).await;
    assert_eq!(status(&scene).await["dead_letters"], 5);
    let again = spool(&directory, &["replay", "hook", &one]).await;
    assert!(again.status.code() == Some(2) && stderr(&again).contains(&one), "{}", stderr(&again));

    // The rest without a gateway: put back by the command, delivered by the next start.
    stop(scene).await;
    assert_eq!(ids(&json_of(&directory, &["list", "hook"]).await).len(), 5);
    let replayed = json_of(&directory, &["replay", "hook"]).await;
    assert_eq!(replayed, json!({ "records": 5, "kept": [] }));
    assert_eq!(of_hook(&directory).await["waiting"]["records"], 5);
    let scene = start(&directory, config(&hook)).await;
    until("all arrive", async || (hook.ids().len() == 6).then_some(())).await;
    assert_eq!(hook.ids().into_iter().collect::<BTreeSet<_>>(), sent);
    until("nothing is left", async || of_hook(&directory).await.is_null().then_some(())).await;
    stop(scene).await;
}

#[tokio::test]
async fn what_waits_is_purged_only_when_it_is_confirmed_and_is_counted() {
    let (hook, directory) = (Hook::start(401).await, directory());
    let scene = start(&directory, config(&hook)).await;
    ask(&scene, 30).await;
    until("most is on disk", async || (status(&scene).await["spooled"].as_u64() >= Some(20)).then_some(()))
        .await;
    let young = json_of(&directory, &["purge", "hook", "--older-than", "2h", "--yes"]).await;
    assert_eq!(young["records"], 0, "nothing is that old");
    let would = spool(&directory, &["purge", "hook"]).await;
    assert_eq!(would.status.code(), Some(1));
    assert!(
        stdout(&would).starts_with("would remove ") && stdout(&would).contains("--yes"),
        "{}",
        stdout(&would)
    );
    assert!(of_hook(&directory).await["waiting"]["records"].as_u64() >= Some(20), "nothing was removed");
    let dead = json_of(&directory, &["purge", "hook", "--dead", "--yes"]).await;
    assert_eq!(dead["records"], 0, "none is dead");
    let purged = json_of(&directory, &["purge", "hook", "--yes"]).await;
    let records = purged["records"].as_u64().expect("a count");
    assert!(records >= 20, "{purged}");
    assert_eq!(status(&scene).await["dropped_by_reason"]["purged"], records);
    ask(&scene, 3).await;
    stop(scene).await;
    let left = of_hook(&directory).await["waiting"]["records"].as_u64();
    assert!(left >= Some(3), "{left:?}");
    let purged = json_of(&directory, &["purge", "hook", "--yes"]).await;
    assert_eq!((purged["records"].as_u64(), of_hook(&directory).await), (left, Value::Null));
    let bad = spool(&directory, &["purge", "hook", "--older-than", "soon"]).await;
    assert!(bad.status.code() == Some(2) && stderr(&bad).contains("2h"), "{}", stderr(&bad));
}

#[tokio::test]
async fn corrupt_files_and_directories_without_exporter_are_not_forgotten() {
    let (hook, directory) = (Hook::start(503).await, directory());
    let scene = start(&directory, config(&hook)).await;
    ask(&scene, 12).await;
    stop(scene).await;
    let spool_dir = directory.path().join("data/spool/hook");
    let entries =
        std::fs::read_dir(&spool_dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let victim = entries.into_iter().find(|path| path.is_file()).expect("a file");
    let whole = std::fs::read(&victim).expect("a file");
    std::fs::write(&victim, &whole[..20]).expect("a file");
    let text = stdout(&spool(&directory, &["list"]).await);
    assert!(text.contains("corrupt") && text.contains("cut short"), "{text}");

    // Without the exporter nothing delivers them: said at the start, and in the list.
    let scene = start(&directory, json!({})).await;
    let line = scene.gateway.wait_for_log(|line| line["dead_letters"].is_u64()).await;
    assert!(line["directory"].as_str().is_some_and(|path| path.ends_with("spool/hook")), "{line}");
    assert_eq!(line["records"], 12);
    assert!(stdout(&spool(&directory, &["list"]).await).contains("orphaned: no exporter named hook"));
    let replay = spool(&directory, &["replay", "hook"]).await;
    assert!(
        replay.status.code() == Some(2) && stderr(&replay).contains("configure it again"),
        "{}",
        stderr(&replay)
    );
    stop(scene).await;

    hook.answer(202);
    let scene = start(&directory, config(&hook)).await;
    until("the rest arrives", async || (hook.ids().len() == 11).then_some(())).await;
    let replay = spool(&directory, &["replay", "hook"]).await;
    assert!(replay.status.code() == Some(1) && stdout(&replay).contains("cut short"), "{}", stdout(&replay));
    std::fs::write(spool_dir.join("corrupt").join(victim.file_name().expect("a name")), whole)
        .expect("a file");
    let replay = json_of(&directory, &["replay", "hook"]).await;
    assert_eq!(replay, json!({ "records": 1, "kept": [] }), "it can be read now");
    until("the last arrives", async || (hook.ids().len() == 12).then_some(())).await;
    stop(scene).await;

    let scene = start(&directory, json!({})).await;
    let purged = json_of(&directory, &["purge", "hook", "--yes"]).await;
    assert_eq!(purged["records"], 0, "it was empty: {purged}");
    assert!(!spool_dir.exists(), "an orphan's empty directory goes");
    stop(scene).await;
}
