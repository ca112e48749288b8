use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use magicapi_plugin::{
    Delivery, Health, ItemOutcome, RequestMetrics, TelemetryConfig, TelemetryExporter, TelemetryPlugin,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ExecPlugin;
use crate::testing::{Script, batch, create, large_record};

/// The beginning of a plug-in that makes an answer of each record by `answer(record, number)`; `None` says nothing.
const PLUGIN: &str = r#"
import json, os, sys, time
def say(answer):
    print(answer if isinstance(answer, str) else json.dumps(answer), flush=True)
def note(text):
    with open(sys.argv[1], "a") as out:
        out.write(text + "\n")
def serve(answer):
    say({"ready": True})
    number = 0
    for line in sys.stdin:
        if line == "\n":
            note("batch")
            continue
        record = json.loads(line)
        note(record["attributes"]["id"])
        number += 1
        said = answer(record["attributes"]["id"], number)
        if said is not None:
            say(said)
"#;

fn python(dir: &Path, source: &str) -> Box<dyn TelemetryExporter> {
    let notes = dir.join("notes");
    let command = json!(["python3", "-c", format!("{PLUGIN}{source}"), notes]);
    let env = json!({ "PATH": "/usr/local/bin:/usr/bin:/bin", "NAME": "value" });
    create(&ExecPlugin, json!({ "command": command, "env": env }), &Arc::new(Script::default()))
        .expect("an exporter")
}

fn sh(script: &str) -> Box<dyn TelemetryExporter> {
    let settings = json!({ "command": ["sh", "-c", script] });
    create(&ExecPlugin, settings, &Arc::new(Script::default())).expect("an exporter")
}

async fn init(exporter: &dyn TelemetryExporter) -> Result<(), String> {
    exporter.init(&TelemetryConfig::default()).await.map_err(|e| e.to_string())
}

fn notes(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("notes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn ids(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|n| format!("msg_01956700-0000-7000-8000-0000000000{n:02x}")).collect()
}

#[tokio::test]
async fn records_are_lines_and_an_empty_one_ends_a_batch() {
    let dir = tempfile::tempdir().expect("a directory");
    let exporter = python(dir.path(), "serve(lambda id, n: {'id': id, 'ok': True})");
    init(&*exporter).await.expect("init");
    let mut records = batch(2);
    assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    records.push(large_record());
    assert_eq!(exporter.export(&records[2..]).await, Delivery::Delivered);
    let expected = [ids(&[0, 1]), vec!["batch".into()], ids(&[255]), vec!["batch".into()]].concat();
    exporter.shutdown().await.expect("shutdown");
    assert_eq!(notes(dir.path()), expected, "one child for both");
    assert_eq!(exporter.health().await, Health::Ok);
}

#[tokio::test]
async fn each_record_has_its_own_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let answers = r#"
answers = [{"ok": True}, {"retry": True, "after": "7s"}, {"reject": "no room"}, {"ok": True}]
def answer(id, n):
    say("not an answer")
    say({"id": "msg_01956700-0000-7000-8000-0000000000ff", "ok": True})
    say({"id": id, **answers[(n - 1) % 4]})
    if n < 4:
        say({"id": id, "reject": "too late"})
serve(answer)"#;
    let exporter = python(dir.path(), answers);
    init(&*exporter).await.expect("init");
    let rejected = ItemOutcome::Rejected { reason: "no room".into() };
    let (delivered, retry) = (ItemOutcome::Delivered, ItemOutcome::RetryAfter(Duration::from_secs(7)));
    let items = vec![delivered.clone(), retry, rejected, delivered];
    assert_eq!(exporter.export(&batch(4)).await, Delivery::Items(items));
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    let after = Some(Duration::from_secs(7));
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Retry { after });
    exporter.shutdown().await.expect("shutdown");
}

/// What has no answer when a child goes is unknown; what was never sent is not; what was answered holds.
#[tokio::test]
async fn of_a_child_that_dies_answers_hold() {
    let dir = tempfile::tempdir().expect("a directory");
    let dies = "serve(lambda id, n: {'id': id, 'ok': True} if n < 3 else os._exit(7))";
    let exporter = python(dir.path(), dies);
    init(&*exporter).await.expect("init");
    let Delivery::Items(outcomes) = exporter.export(&batch(4)).await else { panic!("items") };
    let expected =
        [ItemOutcome::Delivered, ItemOutcome::Delivered, ItemOutcome::Unknown, ItemOutcome::Unknown];
    assert_eq!(outcomes, expected);
    let Health::Down(reason) = exporter.health().await else { panic!("down") };
    assert!(reason.contains("it says no more") && reason.contains("exit status: 7"), "{reason}");
    assert_eq!(exporter.export(&batch(2)).await, Delivery::Delivered, "by another child");
    assert_eq!(exporter.health().await, Health::Ok);
}

#[tokio::test]
async fn a_refusal_keeps_records_and_the_child() {
    let dir = tempfile::tempdir().expect("a directory");
    let refuses = "serve(lambda id, n: {'refuse': 'no token'} if n < 3 else {'id': id, 'ok': True})";
    let exporter = python(dir.path(), refuses);
    init(&*exporter).await.expect("init");
    let refused = Delivery::Refused { reason: "no token".into() };
    assert_eq!(exporter.export(&batch(1)).await, refused);
    assert_eq!(exporter.export(&batch(1)).await, refused);
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
}

/// One that takes the first record and rejects the second, and is silent over the third; another takes what is left. Gives
/// what the pipeline, which gives up on it, sends again.
async fn given_up(dir: &Path) -> (Box<dyn TelemetryExporter>, Vec<Arc<RequestMetrics>>) {
    let silent = r#"
def answer(id, n):
    if os.path.exists(sys.argv[1] + ".second") or n == 1:
        return {"id": id, "ok": True}
    if n == 2:
        return {"id": id, "reject": "bad"}
    open(sys.argv[1] + ".second", "w").close()
    time.sleep(600)
serve(answer)"#;
    let exporter = python(dir, silent);
    init(&*exporter).await.expect("init");
    let records = batch(4);
    let patience = async {
        while !dir.join("notes.second").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The answers stand in the pipe; the exporter has yet to read them.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        _ = exporter.export(&records) => panic!("it is silent"),
        () = patience => {}
    }
    (exporter, records)
}

/// The pipeline gives up on a silent child: what it had answered by then is not sent again.
#[tokio::test]
async fn an_answer_outlives_the_patience_of_the_pipeline() {
    let dir = tempfile::tempdir().expect("a directory");
    let (exporter, records) = given_up(dir.path()).await;
    let rejected = ItemOutcome::Rejected { reason: "bad".into() };
    let items = vec![ItemOutcome::Delivered, rejected, ItemOutcome::Delivered, ItemOutcome::Delivered];
    assert_eq!(exporter.export(&records).await, Delivery::Items(items));
    exporter.shutdown().await.expect("shutdown");
    assert_eq!(notes(dir.path()), [ids(&[0, 1, 2]), ids(&[2, 3]), vec!["batch".into()]].concat());
}

/// And when it asks at once, only what was sent and has no answer is unclear.
#[tokio::test]
async fn of_a_batch_that_was_cut_off_answers_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (exporter, records) = given_up(dir.path()).await;
    let (rejected, unknown) = (ItemOutcome::Rejected { reason: "bad".into() }, ItemOutcome::Unknown);
    let known = vec![ItemOutcome::Delivered, rejected, unknown.clone(), unknown];
    assert_eq!(exporter.cut_off(&records), Delivery::Items(known));
    assert_eq!(exporter.export(&records[2..]).await, Delivery::Delivered);
    exporter.shutdown().await.expect("shutdown");
    assert_eq!(notes(dir.path()), [ids(&[0, 1, 2]), ids(&[2, 3]), vec!["batch".into()]].concat());
    let retry = vec![ItemOutcome::Retry; 4];
    assert_eq!(exporter.cut_off(&records), Delivery::Items(retry), "told once");
}

#[tokio::test]
async fn the_environment_is_what_env_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let exporter = python(dir.path(), "note(json.dumps(dict(os.environ))); serve(None)");
    init(&*exporter).await.expect("init");
    let seen: Value = serde_json::from_str(&notes(dir.path())[0]).expect("json");
    let mut seen = seen.as_object().expect("an object").clone();
    // Python's own, for want of a locale.
    seen.remove("LC_CTYPE");
    assert_eq!(Value::Object(seen), json!({ "PATH": "/usr/local/bin:/usr/bin:/bin", "NAME": "value" }));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let create = |command: Value| {
        let settings = json!({ "command": command });
        create(&ExecPlugin, settings, &Arc::new(Script::default())).expect("an exporter")
    };
    let absent = create(json!(["/no/such/program"]));
    let error = init(&*absent).await.expect_err("no program");
    assert!(error.contains("/no/such/program cannot be started: No such file"), "{error}");
    assert!(matches!(absent.export(&batch(1)).await, Delivery::Refused { .. }));
    let error = init(&*sh("exit 3")).await.expect_err("no word");
    assert!(error.contains("not ready") && error.contains("exit status: 3"), "{error}");
    let error = init(&*sh(r#"echo '{"refuse": "no token"}'"#)).await.expect_err("a refusal");
    assert!(error.contains("no token"), "{error}");
    assert_eq!(sh("exit 3").export(&batch(1)).await, Delivery::Retry { after: None });
}

#[tokio::test]
async fn an_endless_line_is_the_end_of_the_child() {
    let exporter = sh(r#"echo '{"ready": true}'; cat > /dev/null & yes | tr -d '\n'"#);
    init(&*exporter).await.expect("init");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Items(vec![ItemOutcome::Unknown]));
    let Health::Down(reason) = exporter.health().await else { panic!("down") };
    assert!(reason.contains("more than 65536 bytes"), "{reason}");
}

/// Processes that run, whose command line has this word. A zombie has none.
#[cfg(target_os = "linux")]
fn processes(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| Some(entry.ok()?.path()));
    let line = |path: std::path::PathBuf| std::fs::read_to_string(path.join("cmdline")).ok();
    entries.filter_map(line).filter(|line| line.split('\0').any(|argument| argument == word)).count()
}

/// However stubborn a child is, and whatever it has started, nothing of it stays.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn children_end_with_all_that_they_have_started() {
    for (word, script) in [
        ("61.25", r#"sleep 61.25 & echo '{"ready": true}'; read line"#),
        ("62.25", r#"trap '' TERM; echo '{"ready": true}'; sleep 62.25; sleep 62.25"#),
        ("63.25", r#"echo '{"ready": true}'; exec sleep 63.25"#),
    ] {
        for dropped in [false, true] {
            let exporter = sh(script);
            init(&*exporter).await.expect("init");
            let begun = Instant::now();
            while processes(word) == 0 {
                assert!(begun.elapsed() < Duration::from_secs(30));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if !dropped {
                exporter.shutdown().await.expect("shutdown");
                assert!(begun.elapsed() < Duration::from_secs(20));
            }
            drop(exporter);
            while processes(word) > 0 {
                assert!(begun.elapsed() < Duration::from_secs(30), "{word} is still there");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_child_that_ends_by_itself_is_noticed_and_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let exporter = python(dir.path(), "say({'ready': True})");
    init(&*exporter).await.expect("init");
    let begun = Instant::now();
    let reason = loop {
        if let Health::Degraded(reason) = exporter.health().await {
            break reason;
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(reason.contains("ended by itself") && reason.contains("exit status"), "{reason}");
}

/// An argument may hold a secret that a variable brought.
#[test]
fn the_command_is_shown_as_the_file_has_it() {
    let spec = ExecPlugin.settings();
    assert_eq!(spec.schema().pointer("/properties/command/x-as-written"), Some(&json!(true)));
}

#[test]
fn settings_are_checked() {
    let script = Arc::new(Script::default());
    for (settings, part) in [
        (json!({}), "command: missing"),
        (json!({"command": []}), "command: missing"),
        (json!({"command": [""]}), "command: missing"),
        (json!({"command": "python3 plugin.py"}), "expected a sequence"),
        (json!({"command": ["x"], "env": {"A=B": "c"}}), "env.A=B: is no name"),
        (json!({"command": ["x"], "shell": true}), "shell"),
    ] {
        let error = create(&ExecPlugin, settings, &script).err().expect("an error");
        assert!(error.contains(part), "{error}");
    }
}
