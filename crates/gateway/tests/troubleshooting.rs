//! `docs/troubleshooting.md`: each symptom is caused, the page's own command is run, and the page's words are found in what
//! it prints.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use magicapi_testkit::DEADLINE;
use magicapi_testkit::ask::{CHAT, question};
use magicapi_testkit::hook::Hook;
use magicapi_testkit::wire::until;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{Scene, run, stderr, stdout};

/// So many symptoms are caused below.
const ENTRIES: usize = 16;

/// One symptom of the page.
struct Entry {
    title: String,
    /// Without the name of the program.
    command: Vec<String>,
    /// Lines, of which each has to be found in one line of the output, its pieces in order.
    words: Vec<String>,
}

fn page() -> Vec<Entry> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/troubleshooting.md"))
        .expect("the page");
    let mut entries = Vec::new();
    let mut title = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("### ") {
            title = heading;
        } else if line == "```console" {
            let command = lines.next().and_then(|line| line.strip_prefix("$ magicapi-ai-gateway "));
            let command = command.expect("a command of ours").split(' ').map(str::to_owned).collect();
            let words = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
            entries.push(Entry { title: title.to_owned(), command, words });
        }
    }
    entries
}

/// Whether one line of the output holds the pieces between `…`, in order.
fn says(output: &str, words: &str) -> bool {
    output.lines().any(|line| {
        let mut rest = line;
        words.split('…').map(str::trim).all(|piece| {
            let found = rest.find(piece);
            rest = found.map_or("", |at| &rest[at + piece.len()..]);
            found.is_some()
        })
    })
}

fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free address")
}

/// The address, as if it had TLS, of a server that answers whatever comes as most web servers do.
fn plain() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    format!("https://{address}/")
}

fn hook(name: &str, url: &str, changes: Value) -> Value {
    let mut entry = json!({ "type": "webhook", "name": name, "url": url,
        "batch": { "bytes": "8KiB", "age": "20ms" }, "buffer": { "memory": "16KiB" } });
    magicapi_testkit::configuration::lay_over(&mut entry, changes);
    entry
}

/// Requests with bodies that do not pack well, so that bounds in bytes are reached.
async fn ask(scene: &Scene, requests: u32) {
    for request in 0..requests {
        let mut state = request.wrapping_mul(2_654_435_761) | 1;
        let noise: String = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            format!("{state:08x}")
        })
        .take(512)
        .collect();
        let mut body = question();
        body["messages"][0]["content"] = json!(noise);
        assert_eq!(scene.post(CHAT, &json!({}), &[], &body).await.status, 200, "traffic is unharmed");
    }
}

async fn start(directory: &Arc<TempDir>, exporters: &[Value]) -> Scene {
    let config = json!({ "telemetry": { "durable": true, "exporters": exporters } });
    Scene::start_in(directory, config, |options| options).await
}

async fn stop(mut scene: Scene) {
    scene.gateway.signal("TERM");
    assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));
}

/// A gateway that ended with records on disk: one file was damaged since, one exporter is to be configured no more, and
/// where a third would keep its records there is a file.
async fn leave_a_mess(directory: &Arc<TempDir>) {
    let busy = Hook::start(503).await;
    let scene =
        start(directory, &[hook("damaged", &busy.url(), json!({})), hook("removed", &busy.url(), json!({}))])
            .await;
    ask(&scene, 8).await;
    stop(scene).await;
    kill_under_way(directory).await;
    let spool = directory.path().join("data/spool");
    let files =
        fs::read_dir(spool.join("damaged")).expect("a directory").map(|file| file.expect("a file").path());
    let victim = files.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "batch"));
    cut(&victim.expect("a batch"));
    fs::write(spool.join("no-spool"), "").expect("a file in the way");
}

/// A gateway that is killed while a request waits for its provider.
async fn kill_under_way(directory: &Arc<TempDir>) {
    let mut scene = start(directory, &[]).await;
    let (patient, body) = (json!({ "ttft_ms": 60_000 }), question());
    tokio::select! {
        answer = scene.post(CHAT, &patient, &[], &body) => panic!("answered: {}", answer.status),
        () = until("the request in the journal", async || {
            let details = scene.admin("/health/details").await.json();
            let journals = details["journals"].as_array().expect("journals");
            let telemetry = journals.iter().find(|one| one["name"] == "telemetry").expect("telemetry's");
            (telemetry["entries"] == 1).then_some(())
        }) => {}
    }
    scene.gateway.kill();
}

fn cut(file: &Path) {
    let whole = fs::read(file).expect("a file");
    fs::write(file, &whole[..20]).expect("a file");
}

/// Everything that the page knows goes wrong in one gateway; beside it a healthy exporter gets every record.
#[tokio::test]
async fn every_symptom_is_found_by_the_words_of_the_page() {
    let entries = page();
    assert_eq!(entries.len(), ENTRIES, "an entry was added or lost: cause its symptom here");
    let directory = Arc::new(TempDir::new().expect("a directory"));
    leave_a_mess(&directory).await;
    let (takes, rejects, refuses) = (Hook::start(202).await, Hook::start(400).await, Hook::start(401).await);
    // The kernel takes connections for it; nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("an address");
    let silent = format!("http://{}/", silent.local_addr().expect("an address"));
    let nobody = format!("http://{}/", nowhere());
    let wrong_password = json!({ "type": "elasticsearch", "name": "wrong-password", "url": refuses.url(),
        "username": "elastic", "password": "wrong" });
    let scene = start(
        &directory,
        &[
            hook("nobody-listens", &nobody, json!({})),
            hook("no-such-name", "http://no-such-host.invalid/", json!({})),
            hook("not-tls", &plain(), json!({})),
            wrong_password,
            hook("wrong-key", &refuses.url(), json!({})),
            hook("too-slow", &silent, json!({ "timeout": "200ms" })),
            hook("small-queue", &nobody, json!({ "buffer": { "when_full": "drop_oldest" } })),
            hook("small-spool", &nobody, json!({ "buffer": { "disk": "32KiB" } })),
            hook("too-old", &nobody, json!({ "retry": { "max_age": "1s" }, "buffer": { "max_age": "1s" } })),
            hook("rejecting", &rejects.url(), json!({})),
            hook("no-spool", &nobody, json!({})),
            hook("damaged", &nobody, json!({})),
            hook("errors", &takes.url(), json!({ "only": { "status": ["error"] } })),
            hook("healthy", &takes.url(), json!({})),
        ],
    )
    .await;
    ask(&scene, 40).await;
    for Entry { title, command, words } in &entries {
        let mut arguments = vec!["--config", "gateway.yaml"];
        arguments.extend(command.iter().map(String::as_str));
        let mut seen = String::new();
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                let output = run(&directory, &arguments).await;
                seen = stdout(&output) + &stderr(&output);
                if words.iter().all(|line| says(&seen, line)) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        });
        assert!(found.await.is_ok(), "{title}: {words:?} are not all in\n{seen}");
    }
    until("every record where all is well", async || (takes.ids().len() >= 40).then_some(())).await;
    drop(scene);
}
