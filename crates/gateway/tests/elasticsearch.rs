//! Records in Elasticsearch through the binary, and what an outage costs: no request, and no record within the bound.
//!
//! Outages are also tested against a scripted cluster, so that they are where no Elasticsearch is.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "clippy sees no test here")]

mod scene;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use magicapi_mock::{MockOptions, MockServer};
use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::http::{get, post_json};
use magicapi_testkit::wire::until;
use magicapi_testkit::{Gateway, GatewayOptions};
use serde_json::{Value, json};

use crate::scene::BINARY;
use magicapi_testkit::bulk::{Bulk, Way};
use magicapi_testkit::elasticsearch::Elasticsearch;

/// A gateway of the guide's environment.
async fn start(
    url: &str,
    index: &str,
    change: impl FnOnce(GatewayOptions) -> GatewayOptions,
) -> (MockServer, Gateway) {
    let mock = MockServer::start(MockOptions::default()).await.expect("the mock");
    let options = GatewayOptions::new(BINARY)
        .env("RUST_LOG", "info,access=off")
        .env("OPENAI_API_KEY", "sk-test")
        .env("OPENAI_BASE_URL", mock.base_url())
        .env("HOST", "127.0.0.1")
        .env("ENABLED_EXPORTERS", "prometheus,elasticsearch")
        .env("ELASTICSEARCH_URL", url)
        .env("ELASTICSEARCH_INDEX", index);
    (mock, Gateway::start(change(options)).await)
}

/// What the gateway says of the exporter.
async fn status(gateway: &Gateway) -> Value {
    let token = format!("Bearer {}", gateway.admin_token());
    let list = get(&gateway.admin_url("/api/v1/exporters"), &[("authorization", &token)]).await.json();
    let found = list["data"].as_array().expect("exporters").iter().find(|one| one["name"] == "elasticsearch");
    found.expect("the exporter").clone()
}

/// Sends requests on several connections until told to stop; gives the ids of the requests, all of which succeeded.
struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(gateway: &Gateway, content: usize, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..4).map(|_| {
            let (stop, url) = (stop.clone(), gateway.url(CHAT));
            let more = json!({ "messages": [{ "role": "user", "content": "x".repeat(content) }] });
            let body = chat("gpt-4o-mini", &more);
            tokio::spawn(async move {
                let mut ids = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = post_json(&url, &[("x-thread-id", "load")], &body).await;
                    assert_eq!(answer.status, 200, "a request failed: {}", answer.text());
                    ids.push(answer.header("x-request-id").to_owned());
                    tokio::time::sleep(pause).await;
                }
                ids
            })
        });
        Self { workers: workers.collect(), stop }
    }

    async fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeSet::new();
        for worker in self.workers {
            all.extend(worker.await.expect("no request failed"));
        }
        all
    }
}

fn ids<'d>(documents: impl IntoIterator<Item = &'d Value>) -> BTreeSet<String> {
    let id = |document: &Value| document["attributes"]["id"].as_str().expect("an id").to_owned();
    documents.into_iter().map(id).collect()
}

/// A record that arrives, so that the exporter is up and has nothing under way.
async fn warm_up(gateway: &Gateway) {
    let body = chat("gpt-4o-mini", &json!({}));
    assert_eq!(post_json(&gateway.url(CHAT), &[("x-thread-id", "before")], &body).await.status, 200);
    until("a first record", async || (status(gateway).await["sent"] == 1).then_some(())).await;
}

/// An outage in the middle of the load, which goes on after it; the ids of all requests.
async fn outage(gateway: &Gateway, way: &Way) -> BTreeSet<String> {
    warm_up(gateway).await;
    let load = Load::start(gateway, 100, Duration::from_millis(10));
    until("records under load", async || (status(gateway).await["sent"].as_u64() > Some(1)).then_some(()))
        .await;
    way.set(false);
    lasts(gateway, Duration::from_secs(3)).await;
    way.set(true);
    until("the exporter is back", async || running(gateway).await.then_some(())).await;
    load.stop().await
}

/// The exporter has seen that nobody answers, and so much time has gone by since.
async fn lasts(gateway: &Gateway, outage: Duration) {
    let down = async || (status(gateway).await["state"] == "retrying").then_some(());
    until("the exporter sees the outage", down).await;
    tokio::time::sleep(outage).await;
}

async fn running(gateway: &Gateway) -> bool {
    status(gateway).await["state"] == "running"
}

/// Waits until the pipeline has nothing left; what it says then.
async fn settled(gateway: &Gateway) -> Value {
    until("an empty queue", async || {
        let status = status(gateway).await;
        let count = |key: &str| status[key].as_u64().unwrap_or(0);
        let done = count("sent") + count("dropped") + count("rejected") == count("received");
        (done && count("queue_records") == 0).then_some(status)
    })
    .await
}

#[tokio::test]
async fn an_outage_costs_no_request_and_no_record() {
    let cluster = Bulk::start(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let way = Way::to(cluster.address);
    let (_mock, gateway) = start(&format!("http://{}", way.address), "outage", |options| options).await;
    let sent = outage(&gateway, &way).await;
    let status = settled(&gateway).await;
    assert_eq!((&status["dropped"], &status["rejected"]), (&json!(0), &json!(0)));
    let documents = cluster.documents();
    let missing: Vec<_> = sent.iter().filter(|id| !documents.contains_key(*id)).collect();
    assert!(missing.is_empty(), "{} of {} are missing", missing.len(), sent.len());
}

#[tokio::test]
async fn past_the_memory_bound_the_drop_counter_says_what_is_missing() {
    let cluster = Bulk::start(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let way = Way::to(cluster.address);
    let config = json!({ "telemetry": { "exporters": [{ "type": "elasticsearch", "url": format!("http://{}", way.address),
        "batch": { "bytes": "100KiB" }, "buffer": { "memory": "200KiB", "when_full": "drop_oldest" } }] } });
    let file = |options: GatewayOptions| options.without_env("ENABLED_EXPORTERS").config(config.to_string());
    let (_mock, gateway) = start("http://127.0.0.1:1", "unused", |options| {
        file(options).without_env("ELASTICSEARCH_URL").without_env("ELASTICSEARCH_INDEX")
    })
    .await;
    // Nothing is under way when it is cut: a batch whose answer is lost would be there, and yet count as dropped.
    warm_up(&gateway).await;
    way.set(false);
    let load = Load::start(&gateway, 5000, Duration::from_millis(10));
    lasts(&gateway, Duration::from_secs(2)).await;
    let sent = load.stop().await;
    way.set(true);
    let status = settled(&gateway).await;
    let documents = cluster.documents();
    let missing = sent.iter().filter(|id| !documents.contains_key(*id)).count() as u64;
    assert!(missing > 0, "{} requests of 5 kB fitted into 200 KiB", sent.len());
    assert_eq!(status["dropped"], missing, "what is missing is counted: {status}");
    let token = format!("Bearer {}", gateway.admin_token());
    let details = get(&gateway.admin_url("/health/details"), &[("authorization", &token)]).await.json();
    assert_eq!(details["exporters"][0]["dropped"], missing);
}

#[tokio::test]
async fn chat_stream_and_error_arrive() {
    let Some(server) = Elasticsearch::named() else { return };
    server.clean("binary-records").await;
    let login = |options: GatewayOptions| {
        options.env("ELASTICSEARCH_USERNAME", "elastic").env("ELASTICSEARCH_PASSWORD", &server.password)
    };
    let (_mock, gateway) = start(&server.url, "binary-records", login).await;
    let error = json!({ "error": { "status": 429 } }).to_string();
    let stream = json!({ "stream": true });
    for (case, script, more) in
        [("chat", "{}", json!({})), ("stream", "{}", stream), ("error", &error, json!({}))]
    {
        let headers = [("x-thread-id", case), ("x-mock", script)];
        post_json(&gateway.url(CHAT), &headers, &chat("gpt-4o-mini", &more)).await;
    }
    let documents = until("three documents", async || {
        Some(server.documents("binary-records", "").await).filter(|documents| documents.len() == 3)
    })
    .await;
    let of = |case: &str| {
        let mut found = documents.iter().filter(|document| document["attributes"]["thread_id"] == case);
        &found.next().unwrap_or_else(|| panic!("{case}"))["attributes"]
    };
    assert_eq!(of("chat")["metadata"]["outcome"], "completed");
    assert_eq!(of("chat")["request"]["messages"][0]["content"], "hello there");
    assert!(of("stream")["response"]["streamed_data"].as_array().is_some_and(|events| events.len() > 2));
    assert_eq!(of("error")["metadata"]["outcome"], "provider_error");
    let status = settled(&gateway).await;
    assert_eq!(
        (&status["sent"], &status["dropped"], &status["state"]),
        (&json!(3), &json!(0), &json!("running"))
    );
}

#[tokio::test]
async fn a_wrong_password_is_said_and_records_wait() {
    let Some(server) = Elasticsearch::named() else { return };
    server.clean("binary-refused").await;
    let wrong = |options: GatewayOptions| {
        options.env("ELASTICSEARCH_USERNAME", "elastic").env("ELASTICSEARCH_PASSWORD", "wrong-password")
    };
    let (_mock, gateway) = start(&server.url, "binary-refused", wrong).await;
    assert_eq!(post_json(&gateway.url(CHAT), &[], &chat("gpt-4o-mini", &json!({}))).await.status, 200);
    let status = until("the refusal", async || {
        Some(status(&gateway).await)
            .filter(|status| status["last_error"].is_string() && status["queue_records"] == 1)
    })
    .await;
    let said = status["last_error"].as_str().expect("a text");
    assert!(said.contains("401") && said.contains("ELASTICSEARCH_PASSWORD"), "{said}");
    let log = gateway.log().join("\n");
    assert!(!log.contains("wrong-password") && !status.to_string().contains("wrong-password"));
}

#[tokio::test]
async fn an_outage_of_the_real_one_costs_no_record() {
    let Some(server) = Elasticsearch::named() else { return };
    server.clean("binary-outage").await;
    let way = Way::to(server.address());
    let login = |options: GatewayOptions| {
        options.env("ELASTICSEARCH_USERNAME", "elastic").env("ELASTICSEARCH_PASSWORD", &server.password)
    };
    let (_mock, gateway) = start(&format!("http://{}", way.address), "binary-outage", login).await;
    let sent = outage(&gateway, &way).await;
    let status = settled(&gateway).await;
    assert_eq!((&status["dropped"], &status["rejected"]), (&json!(0), &json!(0)));
    let there = ids(&server.documents("binary-outage", "load").await);
    assert!(sent.is_subset(&there), "{} of {} are there", there.len(), sent.len());
    assert_eq!(sent.len(), there.len(), "none twice");
}

/// An Elasticsearch of this test's own, through the scripts; ended when dropped.
struct Own(Vec<(&'static str, String)>);

impl Own {
    fn script(&self, name: &str) -> Command {
        let path = format!("{}/../../tests/servers/elasticsearch/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(path);
        command.envs(self.0.iter().cloned());
        command
    }

    fn start(&self) {
        let output = self.script("start.sh").output().expect("the script");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn stop(&self) {
        assert!(self.script("stop.sh").status().expect("the script").success());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test]
#[ignore = "starts an Elasticsearch twice and keeps it away for 30 s"]
async fn stopped_for_half_a_minute_under_load() {
    const PORT: u16 = 9297;
    // A directory of its own: a start wipes the data of every server in the same one.
    let run = std::env::temp_dir().join(format!("magicapi-own-elasticsearch-{PORT}")).display().to_string();
    let own = Own(vec![
        ("MAGICAPI_TEST_RUN", run),
        ("MAGICAPI_TEST_ELASTICSEARCH_PORT", PORT.to_string()),
        ("MAGICAPI_TEST_ELASTICSEARCH_PASSWORD", "only-for-this-test".into()),
    ]);
    own.start();
    let server =
        Elasticsearch { url: format!("http://127.0.0.1:{PORT}"), password: "only-for-this-test".into() };
    let login = |options: GatewayOptions| {
        options.env("ELASTICSEARCH_USERNAME", "elastic").env("ELASTICSEARCH_PASSWORD", "only-for-this-test")
    };
    let (_mock, gateway) = start(&server.url, "stopped", login).await;
    warm_up(&gateway).await;
    own.stop();
    // A new start has no data, so what it has afterwards is what was asked while it was away.
    // Slow enough for the buffer's 64 MiB to hold what comes meanwhile.
    let load = Load::start(&gateway, 100, Duration::from_millis(50));
    tokio::time::sleep(Duration::from_secs(30)).await;
    own.start();
    until("the exporter is back", async || running(&gateway).await.then_some(())).await;
    let sent = load.stop().await;
    let status = settled(&gateway).await;
    assert_eq!(status["dropped"], 0, "{status}");
    let there = ids(&server.documents("stopped", "load").await);
    assert!(sent.len() > 100 && sent == there, "{} of {} are there", there.len(), sent.len());
}
