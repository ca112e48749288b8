//! `logs tail | show | search`, beside a running gateway and without one.

use std::process::Stdio;
use std::sync::Arc;

use magicapi_testkit::DEADLINE;
use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::records::parse;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::scene::{BINARY, Scene, run, stderr, stdout};

/// A gateway with three requests in its log, the last of which failed.
async fn scene(directory: &Arc<TempDir>) -> Scene {
    let scene = Scene::start_in(directory, json!({}), |options| options).await;
    let plain = chat("gpt-4o-mini", &json!({}));
    scene.chat("first", &json!({ "text": "a xylophone" }), &plain).await;
    scene.chat("second", &json!({}), &chat("gpt-4o-mini", &json!({ "stream": true }))).await;
    let named = [("x-request-id", "callers-id-7"), ("x-mock", r#"{"error":{"status":503}}"#)];
    scene.send(CHAT, "third", &named, plain.to_string()).await;
    let listed = async || {
        let page = scene.admin("/api/v1/logs").await.json();
        (page["data"].as_array().map(Vec::len) == Some(3)).then_some(())
    };
    until("three requests in the log", listed).await;
    scene
}

fn threads(text: &str) -> Vec<Value> {
    text.lines().map(|line| parse(line)["thread_id"].take()).collect()
}

/// Every question gets the same answer from the running gateway and from the file that it leaves.
#[tokio::test]
async fn the_same_answers_beside_a_gateway_and_without_one() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let mut scene = scene(&directory).await;
    let line = scene.line("first").await;
    let id = parse(&line)["attributes"]["id"].as_str().expect("an id").to_owned();
    let bare = id.trim_start_matches("msg_").to_owned();
    let mut answers = Vec::new();
    for running in [true, false] {
        if !running {
            scene.gateway.signal("TERM");
            assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));
        }
        let tail = run(&directory, &["logs", "tail", "--no-follow", "--json"]).await;
        assert_eq!(tail.status.code(), Some(0), "{}", stderr(&tail));
        assert_eq!(threads(&stdout(&tail)), ["first", "second", "third"], "oldest first");
        let two = run(&directory, &["logs", "tail", "--no-follow", "--json", "-n", "2"]).await;
        assert_eq!(threads(&stdout(&two)), ["second", "third"]);
        let table = run(&directory, &["logs", "tail", "--no-follow"]).await;
        assert_eq!(stdout(&table).lines().count(), 4, "a head and three lines: {}", stdout(&table));
        assert!(stdout(&table).contains("provider_error"), "{}", stdout(&table));

        for id in [&id, &bare] {
            let shown = run(&directory, &["logs", "show", id]).await;
            assert_eq!((shown.status.code(), stdout(&shown)), (Some(0), line.clone()), "byte for byte");
        }
        let none = run(&directory, &["logs", "show", "msg_01890000-0000-7000-8000-000000000000"]).await;
        assert_eq!((none.status.code(), stdout(&none).as_str()), (Some(1), ""));

        let found = run(&directory, &["logs", "search", "xylophone", "--json"]).await;
        assert_eq!(threads(&stdout(&found)), ["first"], "{}", stderr(&found));
        let failed = run(&directory, &["logs", "search", "--outcome", "provider_error", "--json"]).await;
        assert_eq!(threads(&stdout(&failed)), ["third"]);
        let by_callers_id = run(&directory, &["logs", "search", "callers-id-7", "--json"]).await;
        assert_eq!(threads(&stdout(&by_callers_id)), ["third"]);
        let nothing = run(&directory, &["logs", "search", "zeppelin"]).await;
        assert_eq!((nothing.status.code(), stdout(&nothing).as_str()), (Some(1), ""));
        let since =
            run(&directory, &["logs", "search", "--since", "2020-01-01T01:00:00+01:00", "--json"]).await;
        assert_eq!(threads(&stdout(&since)).len(), 3, "{}", stderr(&since));
        let before = run(&directory, &["logs", "search", "--until", "2020-01-01T00:00:00Z"]).await;
        assert_eq!((before.status.code(), stdout(&before).as_str()), (Some(1), ""), "{}", stderr(&before));
        let bad = run(&directory, &["logs", "search", "--since", "yesterday"]).await;
        assert_eq!(bad.status.code(), Some(2), "{}", stderr(&bad));
        let said = stderr(&bad);
        assert!(said.contains("--since: `yesterday`") && said.contains("2026-03-05T16:00:00Z"), "{said}");
        answers.push((stdout(&tail), stdout(&two), stdout(&table), stdout(&found), stdout(&failed)));
    }
    assert_eq!(answers[0], answers[1], "running or not");
}

#[tokio::test]
async fn tail_follows_a_running_gateway_and_ends_with_it() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let mut scene = scene(&directory).await;
    let mut tail = Command::new(BINARY)
        .args(["logs", "tail", "--json", "-n", "1"])
        .env_clear()
        .env("DATA_DIR", directory.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary");
    let mut lines = BufReader::new(tail.stdout.take().expect("stdout")).lines();
    let mut next = async || {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("a line in time");
        line.expect("text").map(|line| parse(&line)["thread_id"].take())
    };
    assert_eq!(next().await, Some(json!("third")));
    for case in ["fourth", "fifth"] {
        scene.chat(case, &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
        assert_eq!(next().await, Some(json!(case)));
    }
    scene.gateway.signal("TERM");
    assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));
    assert_eq!(next().await, None, "it ends with the gateway");
    let status = tokio::time::timeout(DEADLINE, tail.wait()).await.expect("an end").expect("a status");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn without_a_log_it_says_why() {
    let directory = TempDir::new().expect("a directory");
    let missing = run(&directory, &["logs", "tail"]).await;
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("magicapi.db"), "{}", stderr(&missing));
    assert!(!directory.path().join("data").exists(), "reading makes nothing");

    let directory = Arc::new(TempDir::new().expect("a directory"));
    let none = json!({ "store": { "url": "none" } });
    let scene = Scene::start_in(&directory, none, |options| options).await;
    scene.chat("unkept", &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    scene.record("unkept").await;
    let beside = run(&directory, &["logs", "tail", "--no-follow"]).await;
    assert_eq!(beside.status.code(), Some(2));
    assert!(stderr(&beside).contains("store.url"), "{}", stderr(&beside));
}

/// A store under another name is found by the same configuration.
#[tokio::test]
async fn a_store_of_another_name_is_read() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let other = json!({ "store": { "url": "sqlite://other.db" } });
    let mut scene = Scene::start_in(&directory, other, |options| options).await;
    scene.chat("elsewhere", &json!({}), &chat("gpt-4o-mini", &json!({}))).await;
    scene.gateway.signal("TERM");
    assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));
    assert!(scene.gateway.data_path().join("other.db").exists());
    let config = scene.gateway.config_path().display().to_string();
    let found = run(&directory, &["logs", "--config", &config, "search", "--json"]).await;
    assert_eq!(threads(&stdout(&found)), ["elsewhere"], "{}", stderr(&found));
}
