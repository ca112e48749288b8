//! The exporter `exec` through the binary, with real children: obedient, mortal, choosy, mute, spinning.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::configuration::records_file;
use magicapi_testkit::http::post_json;
use magicapi_testkit::wire::until;
use magicapi_testkit::{DEADLINE, GatewayOptions, read_records};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{BINARY, Scene};

/// Notes each record it gets before it answers, and each answer behind it.
const BEGINNING: &str = r#"
import json, os, sys, time
notes = open("notes", "a")
def note(*words):
    print(*words, file=notes, flush=True)
def say(**answer):
    print(json.dumps(answer), flush=True)
def records():
    say(ready=True)
    for line in sys.stdin:
        if line != "\n":
            record = json.loads(line)["attributes"]
            note("got", record["id"])
            yield record
def ok(record):
    say(id=record["id"], ok=True)
    note("ok", record["id"])
"#;

/// The entry of a plug-in in Python, with changes.
fn python(source: &str, changes: Value) -> Value {
    let mut entry = json!({ "type": "exec", "batch": { "age": "20ms" },
        "command": ["python3", "-c", format!("{BEGINNING}{source}")],
        "env": { "PATH": "/usr/local/bin:/usr/bin:/bin" } });
    magicapi_testkit::configuration::lay_over(&mut entry, changes);
    entry
}

/// A gateway with this plug-in, and a file beside it.
async fn beside_a_file(entry: Value) -> Scene {
    Scene::start(json!({ "telemetry": { "exporters": [entry, records_file(&json!({}))] } })).await
}

/// Sends requests; the ids of their records.
async fn ask(scene: &Scene, requests: usize) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for _ in 0..requests {
        let answer = post_json(&scene.gateway.url(CHAT), &[], &question()).await;
        assert_eq!(answer.status, 200);
        ids.insert(answer.header("x-request-id").to_owned());
    }
    ids
}

/// What was noted under a word, in order.
fn noted(directory: &Path, word: &str) -> Vec<String> {
    let text = fs::read_to_string(directory.join("notes")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    lines.map(str::to_owned).collect()
}

fn set(list: Vec<String>) -> BTreeSet<String> {
    list.into_iter().collect()
}

async fn status(scene: &Scene) -> Value {
    let details = scene.admin("/health/details").await.json();
    let exporters = details["exporters"].as_array().cloned().expect("exporters");
    exporters.into_iter().find(|one| one["type"] == "exec").expect("the exporter")
}

async fn wait_for(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, async || Some(status(scene).await).filter(&wanted)).await
}

/// Processes that hold this directory as theirs, apart from the gateway itself; zombies have none.
fn children(scene: &Scene) -> Vec<u32> {
    let of = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let ours = of(scene.gateway.pid);
    let all = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        entry.expect("an entry").file_name().to_str().and_then(|name| name.parse::<u32>().ok())
    });
    all.filter(|pid| *pid != scene.gateway.pid && ours.is_some() && of(*pid) == ours).collect()
}

/// Children of the gateway that have ended and that nobody has buried.
fn zombies(scene: &Scene) -> usize {
    let stats = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| fs::read_to_string(entry.expect("an entry").path().join("stat")).ok());
    let parent = scene.gateway.pid.to_string();
    let is_ours = |stat: &String| {
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(&parent)
    };
    stats.filter(is_ours).count()
}

/// The plug-in that the page shows, word for word.
#[tokio::test]
async fn the_plug_in_of_the_page_works() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/exporters/exec.md");
    let page = fs::read_to_string(page).expect("the page");
    let code = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("code");
    assert!(code.lines().count() <= 15, "{code}");
    let command = json!({ "command": ["python3", "-c", code, "summary.txt"] });
    let scene = beside_a_file(python("", command)).await;
    let ids = ask(&scene, 20).await;
    wait_for(&scene, "all sent", |status| status["sent"] == 20).await;
    let text = fs::read_to_string(scene.gateway.path("summary.txt")).expect("a summary");
    assert_eq!(
        set(text.lines().map(|line| line.split(' ').next().expect("an id").to_owned()).collect()),
        ids
    );
    assert!(text.lines().all(|line| line.split(' ').nth(1) == Some("gpt-4o-mini")), "{text}");
    assert_eq!((status(&scene).await["health"].as_str(), text.lines().count()), (Some("ok"), 20));
    let directory = scene.gateway.data_dir.clone();
    scene::stop(scene.gateway).await;
    let input = fs::File::open(directory.path().join("records.jsonl")).expect("records");
    let mut again = std::process::Command::new("python3");
    again.args(["-c", code, "again.txt"]).current_dir(directory.path()).stdin(input);
    assert!(again.output().expect("python3").status.success());
    let again = fs::read_to_string(directory.path().join("again.txt")).expect("a summary");
    assert_eq!(
        set(again.lines().map(str::to_owned).collect()),
        set(text.lines().map(str::to_owned).collect())
    );
}

/// Every record arrives; what was acknowledged comes once; what comes twice was counted.
#[tokio::test]
async fn a_child_that_dies_after_every_tenth_record_loses_none() {
    let dies = r"
for number, record in enumerate(records(), 1):
    if number == 11:
        os._exit(9)
    ok(record)
";
    let scene = beside_a_file(python(dies, json!({}))).await;
    let mut ids = BTreeSet::new();
    for _ in 0..4 {
        ids.extend(ask(&scene, 15).await);
        until("some", async || (!noted(scene.gateway.data_dir.path(), "ok").is_empty()).then_some(())).await;
    }
    let status = wait_for(&scene, "all sent", |status| status["sent"] == 60).await;
    let directory = scene.gateway.data_dir.path();
    assert_eq!((set(noted(directory, "got")), set(noted(directory, "ok"))), (ids.clone(), ids.clone()));
    assert_eq!(noted(directory, "ok").len(), 60, "what was acknowledged was not sent again");
    let doubles = noted(directory, "got").len() - 60;
    let ambiguous = status["ambiguous"].as_u64().expect("a count");
    assert!((1..=ambiguous).contains(&(doubles as u64)), "{doubles} doubles, {ambiguous} ambiguous");
    assert_eq!(zombies(&scene), 0);
    let reasons = scene.logged("exec: child given up", 5).await;
    assert!(reasons.iter().all(|line| line["how"] == "exit status: 9" && line["program"] == "python3"));
    scene::stop(scene.gateway).await;
}

#[tokio::test]
async fn single_records_are_rejected_and_the_rest_arrives() {
    let choosy = r#"
for number, record in enumerate(records(), 1):
    if number % 5 == 0:
        say(id=record["id"], reject="every fifth goes")
        note("rejected", record["id"])
    elif number == 7:
        say(id=record["id"], retry=True, after="100ms")
    else:
        ok(record)
"#;
    let scene = beside_a_file(python(choosy, json!({}))).await;
    let ids = ask(&scene, 30).await;
    let done = |status: &Value| status["sent"].as_u64().zip(status["rejected"].as_u64()).map(|(a, b)| a + b);
    let status = wait_for(&scene, "all settled", |status| done(status) == Some(30)).await;
    let directory = scene.gateway.data_dir.path();
    let (taken, rejected) = (set(noted(directory, "ok")), set(noted(directory, "rejected")));
    assert_eq!(
        (status["sent"].as_u64(), status["rejected"].as_u64()),
        (Some(taken.len() as u64), Some(rejected.len() as u64))
    );
    assert!(taken.is_disjoint(&rejected) && rejected.len() >= 6);
    assert_eq!(taken.union(&rejected).cloned().collect::<BTreeSet<_>>(), ids);
    assert_eq!(
        (status["ambiguous"].as_u64(), status["last_error"].as_str()),
        (Some(0), Some("every fifth goes"))
    );
    let dead = scene.gateway.data_path().join("spool/exec/dead");
    until("dead letters", async || (fs::read_dir(&dead).ok()?.count() >= 1).then_some(())).await;
}

/// A child that reads nothing, one that reads and says nothing, one that spins, one that floods: each stops itself alone.
#[tokio::test]
async fn children_that_answer_nothing_hold_up_nobody() {
    let mute = [
        "say(ready=True); time.sleep(600)",
        "for record in records(): pass",
        "say(ready=True)\nwhile True: pass",
        "say(ready=True)\nwhile True: print('x' * 100)",
    ];
    let mut entries = vec![records_file(&json!({}))];
    for (number, source) in mute.into_iter().enumerate() {
        let changes = json!({ "name": format!("mute-{number}"), "timeout": "300ms" });
        entries.push(python(source, changes));
    }
    let scene = Scene::start(json!({ "telemetry": { "exporters": entries } })).await;
    let mut body = question();
    // More than a pipe holds.
    body["messages"][0]["content"] = json!("x".repeat(100_000));
    for number in 1..=20 {
        assert_eq!(scene.post(CHAT, &json!({}), &[], &body).await.status, 200);
        scene.records(number).await;
    }
    until("all were given up", async || {
        let details = scene.admin("/health/details").await.json();
        let mut mute = details["exporters"].as_array()?.iter().filter(|one| one["type"] == "exec");
        mute.all(|one| one["ambiguous"].as_u64() >= Some(5)).then_some(())
    })
    .await;
    assert_eq!(read_records(&scene.gateway.path("records.jsonl")).len(), 20);
    let flood = scene.gateway.log().iter().filter(|line| line.contains("not an answer")).count();
    let left_out = scene.logged("exec: left out", 1).await;
    assert!(left_out.iter().any(|line| line["lines"].as_u64() > Some(100)), "{left_out:?}");
    assert!(flood < 2000, "{flood} lines of a flood are in the log");
    let (pid, mut gateway) = (scene.gateway.pid, scene.gateway);
    gateway.signal("TERM");
    assert_eq!(gateway.wait(DEADLINE).await.code(), Some(0));
    until("no child is left", async || (alive_in(pid, gateway.data_dir.path()) == 0).then_some(())).await;
}

/// Processes in this directory, apart from this one.
fn alive_in(besides: u32, directory: &Path) -> usize {
    let directory = directory.canonicalize().expect("a directory");
    let all = fs::read_dir("/proc").expect("/proc").map(|entry| entry.expect("an entry").path());
    let here = |path: &Path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == directory);
    all.filter(|path| !path.ends_with(besides.to_string()) && here(path)).count()
}

#[tokio::test]
async fn nothing_of_our_environment_reaches_the_child() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let source = "note('env', json.dumps(dict(os.environ)))\nprint('to people', file=sys.stderr, flush=True)\n\
                  for record in records(): ok(record)";
    let entry = python(source, json!({ "name": "mine", "env": { "TOKEN": "${CANARY}" } }));
    let config = json!({ "telemetry": { "exporters": [entry] } });
    let scene = Scene::start_in(&directory, config, |options: GatewayOptions| {
        options.env("CANARY", "canary-value").env("OPENAI_API_KEY", "sk-canary").env("AWS_SECRET", "canary-2")
    })
    .await;
    let said = scene.logged("exec: the child says", 1).await;
    assert_eq!((said[0]["text"].as_str(), said[0]["output"].as_str()), (Some("to people"), Some("stderr")));
    for line in [&said[0], &scene.logged("exec: started", 1).await[0]] {
        assert_eq!(line["span"]["exporter"], "mine", "which of several it is: {line}");
    }
    let environment = noted(directory.path(), "env").swap_remove(0);
    let mut environment: BTreeMap<String, String> = serde_json::from_str(&environment).expect("json");
    environment.remove("LC_CTYPE");
    let expected = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("TOKEN", "canary-value")];
    assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let log = scene.gateway.log().join("\n");
    assert!(!log.contains("canary"), "a secret stands in the log");
    let config = magicapi_testkit::configuration::configuration(
        "http://127.0.0.1:1/v1",
        json!({
        "telemetry": { "exporters": [python("", json!({ "env": { "TOKEN": "canary" } }))] } }),
    );
    let shown = scene::stdout(&scene::options(&config, &[]).arg("config").output());
    assert!(shown.contains("\"TOKEN\":\"***\"") && !shown.contains("canary"), "{shown}");
}

/// A changed plug-in begins when the old one has ended; no record is lost, and nothing of the old one stays.
#[tokio::test]
async fn a_reload_replaces_the_child() {
    let source = |word: &str| {
        let source = format!(
            "note('{word}', os.getpid())\nfor record in records(): ok(record)\nnote('end', '{word}')"
        );
        json!({ "telemetry": { "exporters": [python(&source, json!({})), records_file(&json!({}))] } })
    };
    let scene = Scene::start(source("first")).await;
    let directory = scene.gateway.data_dir.clone();
    let mut ids = ask(&scene, 5).await;
    until("the first", async || (noted(directory.path(), "ok").len() == 5).then_some(())).await;
    let first = noted(directory.path(), "first").swap_remove(0);
    scene.rewrite(source("second"));
    while noted(directory.path(), "second").is_empty() {
        ids.extend(ask(&scene, 1).await);
    }
    ids.extend(ask(&scene, 5).await);
    until("all", async || (noted(directory.path(), "ok").len() >= ids.len()).then_some(())).await;
    assert_eq!(set(noted(directory.path(), "ok")), ids);
    assert_eq!(noted(directory.path(), "got").len(), ids.len(), "none twice");
    assert_eq!(noted(directory.path(), "end"), ["first"], "its input ended, so it could end by itself");
    assert!(!Path::new(&format!("/proc/{first}")).exists());
    assert_eq!(children(&scene).len(), 1);
    scene::stop(scene.gateway).await;
    assert_eq!(noted(directory.path(), "end"), ["first", "second"]);
}

/// With a memory of its own the child is asked for several batches at once.
#[tokio::test]
async fn concurrency_is_so_many_children() {
    let slow = "for record in records():\n    time.sleep(0.3)\n    ok(record)\n    note('pid', os.getpid())";
    let changes = json!({ "concurrency": 3, "batch": { "records": 1 } });
    let scene = beside_a_file(python(slow, changes)).await;
    let ids = ask(&scene, 12).await;
    let directory = scene.gateway.data_dir.clone();
    until("all", async || (noted(directory.path(), "ok").len() == 12).then_some(())).await;
    assert_eq!(set(noted(directory.path(), "ok")), ids);
    until("their names", async || (noted(directory.path(), "pid").len() == 12).then_some(())).await;
    assert_eq!(set(noted(directory.path(), "pid")).len(), 3);
}

#[test]
fn it_is_set_up_in_a_file_alone() {
    let output = GatewayOptions::new(BINARY).env("ENABLED_EXPORTERS", "exec").output();
    let said = scene::stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["exporter `exec`", "`command`", "configuration file"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
