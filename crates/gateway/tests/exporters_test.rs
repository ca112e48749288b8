//! `exporters test NAME` through the binary: with a gateway that runs, and without one.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;

use magicapi_testkit::bulk::Bulk;
use magicapi_testkit::configuration::RECORDS;
use magicapi_testkit::hook::Hook;
use magicapi_testkit::wire::until;
use magicapi_testkit::{DEADLINE, read_records};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{Scene, run, stderr, stdout};

fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free address");
    listener.local_addr().expect("an address")
}

/// Back ends that take records, reject them, refuse us; and exporters for these, for nobody and for this machine.
struct Stage {
    bulk: Bulk,
    takes: Hook,
    directory: Arc<TempDir>,
    changes: Value,
    _others: [Hook; 3],
}

impl Stage {
    async fn new() -> Self {
        let bulk = Bulk::start("127.0.0.1:0".parse().expect("an address")).await;
        let (takes, rejects, refuses, busy) =
            (Hook::start(202).await, Hook::start(400).await, Hook::start(401).await, Hook::start(503).await);
        let hook = |name: &str, hook: &Hook| json!({ "type": "webhook", "name": name, "url": hook.url() });
        let elasticsearch = |name: &str, address: SocketAddr| {
            json!({ "type": "elasticsearch", "name": name, "url": format!("http://{address}"),
                "content": "metadata", "only": { "status": ["error"] } })
        };
        let changes = json!({ "telemetry": { "exporters": [
            { "type": "file", "path": RECORDS },
            { "type": "console" },
            { "type": "prometheus" },
            elasticsearch("search", bulk.address),
            elasticsearch("nobody", nowhere()),
            hook("takes", &takes), hook("rejects", &rejects), hook("refuses", &refuses), hook("busy", &busy),
        ] } });
        let directory = Arc::new(TempDir::new().expect("a directory"));
        Self { bulk, takes, directory, changes, _others: [rejects, refuses, busy] }
    }

    /// The command; the file names the exporters, whether a gateway runs or not.
    async fn test(&self, arguments: &[&str]) -> Output {
        let command = ["--config", "gateway.yaml", "exporters", "test"];
        run(&self.directory, &[&command, arguments].concat()).await
    }

    /// What has to be said, with a gateway or without.
    async fn check(&self) {
        for (name, code, says) in [
            ("file", 0, "arrived"),
            ("console", 0, "arrived"),
            ("search", 0, "arrived"),
            ("takes", 0, "arrived"),
            ("request_log", 0, "arrived"),
            ("prometheus", 0, "/metrics"),
            ("rejects", 1, "record   rejected"),
            ("rejects", 1, "HTTP 400"),
            ("refuses", 1, "record   refused"),
            ("refuses", 1, "HTTP 401: check url, headers and secret"),
            ("busy", 1, "record   put_off"),
            ("nobody", 1, "init     failed"),
            ("nobody", 1, "refused"),
            ("nobody", 1, "did not arrive"),
        ] {
            let output = self.test(&[name]).await;
            let text = stdout(&output);
            assert_eq!(output.status.code(), Some(code), "{name}: {text}{}", stderr(&output));
            assert!(text.contains(says), "{name}, {says}: {text}");
            assert_eq!(text.contains("remedy: "), code == 1, "{name}: {text}");
        }
        let unknown = self.test(&["nothing"]).await;
        assert_eq!((unknown.status.code(), stdout(&unknown)), (Some(2), String::new()));
        assert!(stderr(&unknown).contains("there are: ") && stderr(&unknown).contains("refuses"));
        let output = self.test(&["takes", "--json"]).await;
        let trial: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        assert_eq!((&trial["passed"], &trial["type"]), (&json!(true), &json!("webhook")));
        let id = trial["record"].as_str().expect("an id").to_owned();
        let taken = self.takes.taken();
        let record = taken.iter().find(|one| one["id"] == id.as_str()).expect("it arrived");
        assert_eq!(
            (&record["provider"], &record["model"], &record["metadata"]["operation"]),
            (&json!("test"), &json!("exporters-test"), &json!("test"))
        );
        let documents = self.bulk.documents();
        let sent = documents.values().next().expect("a document");
        assert_eq!(sent["attributes"]["request"], Value::Null, "`content: metadata` holds for it, too");
    }

    fn in_the_file(&self) -> usize {
        read_records(&self.directory.path().join(RECORDS)).len()
    }

    async fn in_the_log(&self) -> usize {
        let search = ["logs", "search", "--operation", "test", "--json"];
        stdout(&run(&self.directory, &search).await).lines().count()
    }
}

#[tokio::test]
async fn through_the_running_gateway_and_from_the_configuration_the_answer_is_told() {
    let stage = Stage::new().await;
    let mut scene = Scene::start_in(&stage.directory, stage.changes.clone(), |options| options).await;
    stage.check().await;
    assert_eq!(stage.in_the_file(), 1, "written by the gateway, the one writer");
    assert_eq!(stage.in_the_log().await, 1);
    let how = stdout(&stage.test(&["search"]).await);
    assert!(how.contains("through the gateway that runs at 127.0.0.1:"), "{how}");
    let page = stdout(&stage.test(&["prometheus"]).await);
    let served = format!("served at {}/metrics", scene.admin_address);
    assert!(page.contains(&served) && page.contains(" series, "), "{page}");
    let exporters = scene.admin("/api/v1/exporters").await.json();
    for exporter in exporters["data"].as_array().expect("exporters") {
        assert_eq!(
            (&exporter["received"], &exporter["sent"]),
            (&json!(0), &json!(0)),
            "not counted: {exporter}"
        );
    }
    scene.gateway.signal("TERM");
    assert_eq!(scene.gateway.wait(DEADLINE).await.code(), Some(0));

    stage.check().await;
    assert_eq!((stage.in_the_file(), stage.in_the_log().await), (2, 2));
    let how = stdout(&stage.test(&["search"]).await);
    assert!(how.contains("no gateway runs; made from gateway.yaml"), "{how}");
    let printed = stdout(&stage.test(&["console"]).await);
    assert!(
        printed.lines().any(|line| line.starts_with('{') && line.contains("exporters-test")),
        "{printed}"
    );
}

#[tokio::test]
async fn exporters_list_tells_how_the_running_ones_are_and_what_is_compiled_in() {
    let stage = Stage::new().await;
    let scene = Scene::start_in(&stage.directory, stage.changes.clone(), |options| options).await;
    scene.ask(&json!({}), &[]).await;
    let text = until("the dead one has failed", async || {
        let text = stdout(&run(&stage.directory, &["exporters", "list"]).await);
        text.contains("last error").then_some(text)
    })
    .await;
    let row =
        |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    assert!(row("RUNNING").contains("BREAKER") && row("nobody").contains("starting"), "{text}");
    assert!(text.contains("last error (20"), "with its time: {text}");
    assert!(text.lines().any(|line| line == "console") && text.contains("[ELASTICSEARCH_URL]"), "{text}");
    let output = run(&stage.directory, &["exporters", "list", "--json"]).await;
    let document: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(document["running"].as_array().map(Vec::len), Some(10));
    assert!(document["compiled_in"].as_array().is_some_and(|all| all.len() > 5));

    // A configuration that cannot be used is when the names are wanted most.
    let broken = run(&stage.directory, &["--config", "absent.yaml", "exporters", "list"]).await;
    assert!(broken.status.success() && stderr(&broken).contains("absent.yaml"), "{}", stderr(&broken));
    assert!(stdout(&broken).lines().any(|line| line == "console"));
}

/// Series that are not 0 once `takes` has taken records, `old` has let some expire, and `silent` has never answered.
const MOVED: [&str; 11] = [
    "gateway_exporter_sent_total{exporter=\"takes\"}",
    "gateway_exporter_dropped_total{exporter=\"old\",reason=\"expired\"}",
    "gateway_exporter_retried_total{exporter=\"old\"}",
    "gateway_exporter_ambiguous_total{exporter=\"silent\"}",
    "gateway_exporter_spooled_total{exporter=\"silent\"}",
    "gateway_exporter_spool_records{exporter=\"silent\"}",
    "gateway_exporter_spool_bytes{exporter=\"silent\"}",
    "gateway_exporter_breaker{exporter=\"silent\",state=\"open\"}",
    "gateway_exporter_state{exporter=\"silent\",state=\"retrying\"}",
    "gateway_exporter_last_error_timestamp_seconds{exporter=\"silent\"}",
    "gateway_exporter_oldest_age_seconds{exporter=\"silent\"}",
];

#[tokio::test]
async fn every_figure_of_an_exporter_stands_in_metrics_health_and_list() {
    let (takes, busy, silent) = (Hook::start(202).await, Hook::start(503).await, Hook::start(0).await);
    let hook = |name: &str, hook: &Hook, max_age: &str| {
        json!({ "type": "webhook", "name": name, "url": hook.url(), "retry": { "max_age": max_age },
            "batch": { "records": 1, "bytes": "8KiB", "age": "5ms" }, "buffer": { "memory": "16KiB" } })
    };
    let exporters = json!([{ "type": "prometheus" }, hook("takes", &takes, "1h"), hook("old", &busy, "1s"), hook("silent", &silent, "1h")]);
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let scene =
        Scene::start_in(&directory, json!({ "telemetry": { "exporters": exporters } }), |options| options)
            .await;
    for _ in 0..12 {
        scene.ask(&json!({}), &[]).await;
    }
    let page = until("records sent, expired, retried, unclear and on disk", async || {
        let page = scene.admin("/metrics").await.text();
        let has = |series: &str| page.lines().any(|line| line.starts_with(series) && !line.ends_with(" 0"));
        MOVED.iter().all(|series| has(series)).then_some(page.clone())
    })
    .await;
    for series in ["queue_records", "queue_bytes", "dead_letter_bytes", "oldest_age_seconds"] {
        assert!(
            page.contains(&format!("gateway_exporter_{series}{{exporter=\"takes\"}}")),
            "{series}: {page}"
        );
    }
    let details = scene.admin("/health/details").await.json();
    let listed = scene.admin("/api/v1/exporters").await.json();
    for document in [&details["exporters"], &listed["data"]] {
        let all = document.as_array().expect("exporters");
        let silent = all.iter().find(|one| one["name"] == "silent").expect("the exporter");
        for figure in ["spool_records", "spool_bytes", "spooled", "oldest_age_ms", "ambiguous", "retried"] {
            assert!(silent[figure].as_u64() > Some(0), "{figure}: {silent}");
        }
        for figure in ["queue_records", "queue_bytes", "sent", "dropped", "rejected", "dead_letters"] {
            assert!(silent[figure].is_u64(), "{figure}: {silent}");
        }
        for word in ["state", "breaker", "last_error", "last_error_at"] {
            assert!(silent[word].is_string(), "{word}: {silent}");
        }
        let old = all.iter().find(|one| one["name"] == "old").expect("the exporter");
        assert!(old["dropped_by_reason"]["expired"].as_u64() > Some(0), "{old}");
    }
    let text = stdout(&run(&directory, &["exporters", "list"]).await);
    let head = text.lines().next().expect("a head");
    for column in
        ["STATE", "BREAKER", "QUEUE", "SPOOL", "OLDEST", "SENT", "RETRIED", "REJECTED", "AMBIGUOUS", "DEAD"]
    {
        assert!(head.contains(column), "{column}: {head}");
    }
    assert!(text.contains("  dropped: expired ") && text.contains("  last error (20"), "{text}");
}
