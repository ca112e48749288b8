//! A stage for tests of streams: the real binary between a client that shows the wire and a scripted provider, with its
//! records, its ledger and its process in view.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod puppet;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::task::Poll;

use magicapi_mock::{MockOptions, MockServer};
use magicapi_store::{LedgerRow, Reader};
use magicapi_testkit::wire::{Answer, Wire, patiently, request, until};
use magicapi_testkit::{DEADLINE, Gateway, GatewayOptions, read_records};
use serde_json::{Value, json};

pub(crate) const CHAT: &str = "/v1/chat/completions";
const TOKEN: &str = "stage-token";
const RECORDS: &str = "records.jsonl";

/// A gateway process.
pub(crate) struct Process {
    inner: Gateway,
    /// Where requests are taken.
    pub(crate) address: SocketAddr,
}

/// What a gateway left behind when it had ended.
pub(crate) struct Left {
    /// Every record.
    pub(crate) records: Vec<Value>,
    /// Every request of the ledger.
    pub(crate) ledger: Vec<LedgerRow>,
    /// Its exit code.
    pub(crate) code: Option<i32>,
}

impl Left {
    /// The one record of a case; a case is named by `x-thread-id`.
    pub(crate) fn record(&self, case: &str) -> &Value {
        only(case, self.records.iter().filter(|record| record["attributes"]["thread_id"] == case))
    }

    /// The `metadata` of the one record of a case.
    pub(crate) fn metadata(&self, case: &str) -> &Value {
        &self.record(case)["attributes"]["metadata"]
    }

    /// The one ledger row of a case.
    pub(crate) fn row(&self, case: &str) -> &LedgerRow {
        let id = self.record(case)["attributes"]["id"].as_str().expect("an id");
        only(case, self.ledger.iter().filter(|row| row.id == id))
    }
}

fn only<T>(case: &str, mut found: impl Iterator<Item = T>) -> T {
    let first = found.next().unwrap_or_else(|| panic!("{case}: none"));
    assert!(found.next().is_none(), "{case}: more than one");
    first
}

impl Process {
    /// Starts a gateway whose `openai` is `base_url`, with `changes` laid over the configuration.
    pub(crate) async fn start(base_url: &str, changes: Value) -> Self {
        let options = GatewayOptions::new(env!("CARGO_BIN_EXE_magicapi-ai-gateway"))
            .config(configuration(base_url, changes).to_string())
            .env("RUST_LOG", "info,access=off");
        let inner = Gateway::start(options).await;
        let address = socket(&inner.address);
        Self { inner, address }
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.inner.log().join("\n")
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        self.inner.signal(name);
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Left {
        let code = self.inner.wait(DEADLINE).await.code();
        let records = read_records(&self.inner.path(RECORDS));
        let ledger = ledger_in(&self.inner.data_path().join("magicapi.db"));
        Left { records, ledger, code }
    }

    /// Asks it to end, and waits.
    pub(crate) async fn stop(self) -> Left {
        self.signal("TERM");
        let left = self.ended().await;
        assert_eq!(left.code, Some(0));
        left
    }

    /// A document of the admin plane.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let authorization = format!("Bearer {TOKEN}");
        let asked =
            format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {authorization}\r\n\r\n");
        let mut wire = Wire::connect(socket(&self.inner.admin_address)).await;
        wire.send(asked.as_bytes()).await;
        let answer = wire.answer().await.expect("an answer of the admin plane");
        assert_eq!(answer.head.status, 200, "{}", answer.text());
        answer.json()
    }

    /// What the data plane holds now.
    pub(crate) async fn data_plane(&self) -> Value {
        self.admin("/health/details").await["data_plane"].clone()
    }

    /// Waits until no request is under way.
    pub(crate) async fn idle(&self) {
        until("no request under way", async || (self.data_plane().await["in_flight"] == 0).then_some(()))
            .await;
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        resident(self.inner.pid)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let pid = self.inner.pid;
        std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc").count()
    }
}

/// Resident memory of a process, in bytes; nothing once it has ended.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn socket(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

fn configuration(base_url: &str, changes: Value) -> Value {
    let mut config = json!({
        "server": { "drain": { "delay": "0s", "timeout": "60s" } },
        "admin": { "token": TOKEN },
        "providers": { "openai": { "api_key": "sk-stage", "base_url": base_url } },
        "telemetry": { "exporters": [{ "type": "file", "path": RECORDS, "batch": { "age": "20ms" } }] },
    });
    lay_over(&mut config, changes);
    config
}

fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

fn ledger_in(path: &Path) -> Vec<LedgerRow> {
    if !path.exists() {
        return Vec::new();
    }
    let reader = Reader::open(path).expect("the store");
    reader.ledger_rows(0..i64::MAX, None, 1_000_000).expect("the ledger")
}

/// A gateway before a mock provider.
pub(crate) struct Stage {
    /// The provider.
    pub(crate) mock: MockServer,
    /// The gateway.
    pub(crate) gateway: Process,
}

impl Stage {
    /// Starts both.
    pub(crate) async fn start(changes: Value) -> Self {
        let options = MockOptions { record: true, ..MockOptions::default() };
        let mock = MockServer::start(options).await.expect("the mock");
        let gateway = Process::start(&mock.base_url(), changes).await;
        Self { mock, gateway }
    }

    /// Sends a chat request of a case under a script; the connection on which the answer comes.
    pub(crate) async fn ask(&self, case: &str, script: &Value, body: &Value) -> Wire {
        let mut wire = Wire::connect(self.gateway.address).await;
        wire.send(&chat(case, script, body)).await;
        wire
    }

    /// The whole answer to a chat request.
    pub(crate) async fn answer(&self, case: &str, script: &Value, body: &Value) -> Answer {
        let mut wire = self.ask(case, script, body).await;
        let answer = patiently(case, wire.answer()).await;
        answer.unwrap_or_else(|| panic!("{case}: no answer: {}", self.gateway.log()))
    }

    /// The same straight from the provider.
    pub(crate) async fn straight(&self, script: &Value, body: &Value) -> Answer {
        let mut wire = Wire::connect(self.mock.addr()).await;
        wire.send(&chat("straight", script, body)).await;
        wire.answer().await.expect("an answer of the mock")
    }
}

/// A chat request under a script.
pub(crate) fn chat(case: &str, script: &Value, body: &Value) -> Vec<u8> {
    post(CHAT, case, script, body.to_string().as_bytes())
}

/// A JSON request under a script.
pub(crate) fn post(path: &str, case: &str, script: &Value, body: &[u8]) -> Vec<u8> {
    let script = script.to_string();
    let headers = [("content-type", "application/json"), ("x-thread-id", case), ("x-mock", script.as_str())];
    request("POST", path, &headers, body)
}

/// A chat body that asks for a stream.
pub(crate) fn streaming() -> Value {
    json!({ "model": "gpt-4o-mini", "stream": true, "messages": [{ "role": "user", "content": "hello there" }] })
}

/// A chat body that asks for a stream and its usage.
pub(crate) fn streaming_with_usage() -> Value {
    let mut body = streaming();
    body["stream_options"] = json!({ "include_usage": true });
    body
}

/// A chat body that asks for one document.
pub(crate) fn buffered() -> Value {
    let mut body = streaming();
    body["stream"] = json!(false);
    body
}

/// How often each value occurs.
pub(crate) fn tally<'v>(values: impl Iterator<Item = &'v Value>) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for value in values {
        *tally.entry(value.as_str().map_or_else(|| value.to_string(), str::to_owned)).or_default() += 1;
    }
    tally
}

/// Runs a handful of steps at once.
pub(crate) async fn at_once(steps: impl IntoIterator<Item = impl Future<Output = ()>>) {
    let mut steps: Vec<_> = steps.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        steps.retain_mut(|step| step.as_mut().poll(cx).is_pending());
        if steps.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
