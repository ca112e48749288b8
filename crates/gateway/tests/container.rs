//! What the container image, the compose file and the systemd unit promise, kept by the real binary: it runs with exactly
//! their environment, as an unprivileged user, in a directory that cannot be written, before its back end is up.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "clippy sees no test here")]

mod scene;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use magicapi_mock::{MockOptions, MockServer};
use magicapi_testkit::ask::{CHAT, chat};
use magicapi_testkit::http::{get, post_json};
use magicapi_testkit::wire::until;
use magicapi_testkit::{DEADLINE, Gateway, GatewayOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{BINARY, stderr};
use magicapi_testkit::bulk::{Bulk, Way};
use magicapi_testkit::elasticsearch::Elasticsearch;

type Variables = BTreeMap<String, String>;

fn file(name: &str) -> String {
    let path = format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The instructions of the image that is shipped: name and rest, of the last stage.
fn instructions() -> Vec<(String, String)> {
    let text = file("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let all =
        lines.filter_map(|line| line.split_once(' ')).map(|(name, rest)| (name.into(), rest.trim().into()));
    let all: Vec<(String, String)> = all.collect();
    let last = all.iter().rposition(|(name, _)| name == "FROM").expect("a stage");
    all[last..].to_vec()
}

fn instruction(wanted: &str) -> String {
    let all = instructions();
    all.iter().find(|(name, _)| name == wanted).unwrap_or_else(|| panic!("no {wanted}")).1.clone()
}

fn gateway_service() -> Value {
    let compose: Value = serde_saphyr::from_str(&file("compose.yaml")).expect("YAML");
    compose["services"]["gateway"].clone()
}

/// The environment of the container that compose starts; `given` is compose's own environment.
fn environment(given: &[(&str, &str)]) -> Variables {
    let mut variables: Variables = instruction("ENV")
        .split_whitespace()
        .map(|pair| pair.split_once('=').expect("NAME=value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for line in gateway_service()["environment"].as_array().expect("a list") {
        let (name, value) = line.as_str().and_then(|line| line.split_once('=')).expect("NAME=value");
        variables.insert(name.to_owned(), interpolated(value, given));
    }
    variables
}

/// `${NAME:-default}`, the only form that is used.
fn interpolated(value: &str, given: &[(&str, &str)]) -> String {
    let Some(inner) = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        assert!(!value.contains('$'), "{value}");
        return value.to_owned();
    };
    let (name, default) = inner.split_once(":-").expect("NAME:-default");
    given.iter().find(|(known, _)| *known == name).map_or(default, |(_, value)| *value).to_owned()
}

/// That environment with the addresses of this machine.
fn options(directory: &Arc<TempDir>, given: &[(&str, &str)], replaced: &[(&str, String)]) -> GatewayOptions {
    let mut options = GatewayOptions::unprivileged(BINARY, directory);
    for (name, value) in environment(given) {
        if name != "DATA_DIR" {
            options = options.env(&name, value);
        }
    }
    let addresses =
        [("HOST", "127.0.0.1".to_owned()), ("PORT", "0".into()), ("ADMIN_LISTEN", "127.0.0.1:0".into())];
    for (name, value) in addresses.iter().chain(replaced) {
        println!("replaced: {name}={value}");
        options = options.env(name, value);
    }
    println!("replaced: DATA_DIR={}, LOG_FORMAT=json", directory.path().join("data").display());
    options
}

/// A root that cannot be written, with a data directory that can.
struct Root(Arc<TempDir>);

impl Root {
    fn new() -> Self {
        let directory = Arc::new(TempDir::new().expect("a directory"));
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("a directory");
        let _ = GatewayOptions::unprivileged(BINARY, &directory);
        let owner = std::os::unix::fs::MetadataExt::uid(&directory.path().metadata().expect("metadata"));
        std::os::unix::fs::chown(&data, Some(owner), None).expect("an owner");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o555)).expect("a mode");
        Self(directory)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Or a user other than root could not remove it.
        let _ = std::fs::set_permissions(self.0.path(), PermissionsExt::from_mode(0o755));
    }
}

const KEYS: [(&str, &str); 2] = [("OPENAI_API_KEY", "sk-test"), ("GATEWAY_API_KEYS", "app-1:a-long-secret")];

/// Asks until told to; each request succeeds.
async fn ask(gateway: &Gateway, case: &str) {
    let headers = [("authorization", "Bearer a-long-secret"), ("x-thread-id", case)];
    let answer = post_json(&gateway.url(CHAT), &headers, &chat("gpt-4o-mini", &json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The gateway runs and answers, its back end comes late, the records arrive.
async fn late_start<T, F: Future<Output = T>>(
    url: String,
    more: &[(&str, String)],
    late: Duration,
    start: impl FnOnce() -> F,
) -> (T, Root) {
    let mock = MockServer::start(MockOptions::default()).await.expect("the mock");
    let root = Root::new();
    let mut replaced = vec![("ELASTICSEARCH_URL", url), ("OPENAI_BASE_URL", mock.base_url())];
    replaced.extend(more.iter().cloned());
    let mut gateway = Gateway::start(options(&root.0, &KEYS, &replaced)).await;
    ask(&gateway, "early").await;
    assert_eq!(get(&gateway.url("/ready"), &[]).await.status, 200, "ready without its back end");
    let token = format!("Bearer {}", gateway.admin_token());
    let exporter = async || {
        let details = get(&gateway.admin_url("/health/details"), &[("authorization", &token)]).await.json();
        let all = details["exporters"].as_array().expect("exporters").clone();
        all.into_iter().find(|exporter| exporter["name"] == "elasticsearch").expect("the exporter")
    };
    until("a first try that failed", async || exporter().await["last_error"].is_string().then_some(())).await;
    tokio::time::sleep(late).await;
    ask(&gateway, "meanwhile").await;
    let back_end = start().await;
    until("all records sent", async || (exporter().await["sent"] == 2).then_some(())).await;
    ask(&gateway, "later").await;
    until("all records sent", async || (exporter().await["sent"] == 3).then_some(())).await;
    assert_eq!(exporter().await["dropped"], 0);
    assert_eq!(get(&gateway.url("/metrics"), &[]).await.status, 200, "the image publishes port 3000 alone");
    gateway.signal("TERM");
    assert_eq!(gateway.wait(DEADLINE).await.code(), Some(0));
    let beside: Vec<_> = std::fs::read_dir(root.0.path()).expect("the root").collect();
    assert_eq!(beside.len(), 1, "nothing but the data directory: {beside:?}");
    assert!(root.0.path().join("data/magicapi.db").exists());
    (back_end, root)
}

/// An address where nobody listens yet.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
    listener.local_addr().expect("an address")
}

async fn scripted(late: Duration) {
    let address = free();
    let (cluster, _root) = late_start(format!("http://{address}"), &[], late, || Bulk::start(address)).await;
    let documents = cluster.documents();
    let mut threads: Vec<_> =
        documents.values().map(|one| one["attributes"]["thread_id"].to_string()).collect();
    threads.sort();
    assert_eq!(threads, ["\"early\"", "\"later\"", "\"meanwhile\""]);
    assert!(documents.values().all(|one| one["attributes"]["metadata"]["key_name"] == "app-1"));
}

async fn real(late: Duration) {
    let Some(server) = Elasticsearch::named() else { return };
    server.clean("noveum-metrics").await;
    // The server runs; the way to it opens late.
    let way = Way::to(server.address());
    way.set(false);
    let login = [
        ("ELASTICSEARCH_USERNAME", "elastic".to_owned()),
        ("ELASTICSEARCH_PASSWORD", server.password.clone()),
    ];
    late_start(format!("http://{}", way.address), &login, late, async || way.set(true)).await;
    let documents = server.documents("noveum-metrics", "").await;
    assert_eq!(documents.len(), 3, "in the index that the compose file names");
}

#[tokio::test]
async fn elasticsearch_comes_up_later() {
    scripted(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn the_real_elasticsearch_comes_up_later() {
    real(Duration::from_secs(2)).await;
}

#[tokio::test]
#[ignore = "waits 20 s for a back end, twice"]
async fn elasticsearch_comes_up_twenty_seconds_later() {
    scripted(Duration::from_secs(20)).await;
    real(Duration::from_secs(20)).await;
}

/// What `docker compose up` does with and without the two variables; `check` says it without listening on 0.0.0.0.
#[tokio::test]
async fn missing_variables_start_or_refuse_with_the_remedy() {
    let checked = |given: &[(&str, &str)]| {
        let root = Root::new();
        let mut options = GatewayOptions::new(BINARY).arg("check").data_dir(&root.0);
        for (name, value) in environment(given).into_iter().filter(|(name, _)| name != "DATA_DIR") {
            options = options.env(&name, value);
        }
        let output = options.command().0.output().expect("the binary");
        (output.status.code(), stderr(&output))
    };
    assert_eq!(environment(&[])["HOST"], "0.0.0.0");
    assert_eq!(checked(&KEYS), (Some(0), String::new()));
    assert_eq!(checked(&[]), (Some(0), String::new()), "callers bring their own keys");
    assert_eq!(checked(&KEYS[1..]).0, Some(0));
    let (code, said) = checked(&KEYS[..1]);
    assert_eq!(code, Some(2), "a key that anybody could use");
    assert!(said.contains("GATEWAY_API_KEYS=app-1:") && said.contains("openai"), "{said}");

    let elsewhere = ("ELASTICSEARCH_URL", format!("http://{}", free()));
    let body = chat("gpt-4o-mini", &json!({}));
    let root = Root::new();
    let gateway = Gateway::start(options(&root.0, &[], std::slice::from_ref(&elsewhere))).await;
    let without = post_json(&gateway.url(CHAT), &[], &body).await;
    assert_eq!(without.status, 401, "{}", without.text());
    drop(gateway);
    let mock = MockServer::start(MockOptions::default()).await.expect("the mock");
    let gateway =
        Gateway::start(options(&root.0, &[], &[elsewhere, ("OPENAI_BASE_URL", mock.base_url())])).await;
    let own = post_json(&gateway.url(CHAT), &[("authorization", "Bearer sk-own")], &body).await;
    assert_eq!(own.status, 200, "{}", own.text());
}

/// What image and compose file say about themselves is what the program does.
#[test]
fn image_and_compose_agree_with_the_program() {
    let variables = environment(&[]);
    assert_eq!(instruction("EXPOSE"), variables["PORT"]);
    assert_eq!(instruction("VOLUME"), variables["DATA_DIR"]);
    assert_eq!(variables["ENABLED_EXPORTERS"], "prometheus,elasticsearch");
    let service = gateway_service();
    assert_eq!(service["read_only"], true);
    assert_eq!(service["ports"], json!([format!("{0}:{0}", variables["PORT"])]));
    let volume = format!("gateway-data:{}", variables["DATA_DIR"]);
    assert_eq!(service["volumes"], json!([volume]));
    // A volume takes its owner from the image; the user of `nonroot` images has the number 65532.
    assert!(instruction("FROM").ends_with(":nonroot"));
    let owned =
        instructions().iter().any(|(name, rest)| name == "COPY" && rest.contains("--chown=65532:0 /out/ /"));
    assert!(
        owned && file("Dockerfile").contains("install -d -m 0770 /out/data"),
        "nobody could write {volume}"
    );
}

/// The keys of the unit that the program relies on.
fn unit() -> BTreeMap<String, String> {
    let text = file("deploy/magicapi-ai-gateway.service");
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn the_unit_relies_on_what_the_program_does() {
    let unit = unit();
    assert_eq!(unit["ExecStart"], "/usr/local/bin/magicapi-ai-gateway --config /etc/magicapi/gateway.yaml");
    assert_eq!(unit["ExecReload"], "/bin/kill -HUP $MAINPID");
    assert_eq!((unit["DynamicUser"].as_str(), unit["ProtectSystem"].as_str()), ("yes", "strict"));
    assert_eq!(unit["StateDirectory"], "magicapi");
    assert!(!unit.contains_key("Environment"), "DATA_DIR would beat $STATE_DIRECTORY");
    // `drain.delay` 5 s, `drain.timeout` 10 min, 10 s to flush.
    let stop = unit["TimeoutStopSec"].strip_suffix("min").and_then(|minutes| minutes.parse::<u64>().ok());
    assert!(stop.expect("minutes") * 60 > 5 + 600 + 10);

    let directory = Arc::new(TempDir::new().expect("a directory"));
    let (first, second) = (directory.path().join("state"), directory.path().join("other"));
    let state = format!("{}:{}", first.display(), second.display());
    let started = GatewayOptions::unprivileged(BINARY, &directory)
        .env("DATA_DIR", "")
        .env("STATE_DIRECTORY", state)
        .env("ADMIN_TOKEN", "t")
        .env("HOST", "127.0.0.1")
        .config("telemetry: { service_name: first }\n");
    let mut gateway = Gateway::start(started).await;
    assert!(first.join("gateway.json").exists() && !second.exists());
    assert!(!directory.path().join("magicapi-data").exists());
    let details = async |key: &str| {
        let url = gateway.admin_url("/health/details");
        get(&url, &[("authorization", "Bearer t")]).await.json()[key].take()
    };
    assert_eq!(details("status").await, "ok");
    let before = details("config_hash").await;
    std::fs::write(gateway.config_path(), "telemetry: { capture: { bodies: metadata } }\n")
        .expect("the file");
    gateway.signal("HUP");
    until("the new configuration", async || (details("config_hash").await != before).then_some(())).await;
    gateway.signal("TERM");
    assert_eq!(gateway.wait(DEADLINE).await.code(), Some(0), "Restart=on-failure must not start it again");
    assert!(Path::new(&first).join("magicapi.db").exists());
}
