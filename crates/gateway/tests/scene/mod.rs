//! A scene for tests of records and their ways out: the real binary before a scripted provider, its records found by
//! the case (`x-thread-id`) that made them.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use magicapi_mock::{MockOptions, MockServer};
use magicapi_testkit::http::{Response, get, request};
use magicapi_testkit::{DEADLINE, Gateway, GatewayOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) mod bulk;
pub(crate) mod search;

/// The gateway's binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_magicapi-ai-gateway");
/// The path of chat completions.
pub(crate) const CHAT: &str = "/v1/chat/completions";
/// What `file` exporters write, below the gateway's working directory.
pub(crate) const RECORDS: &str = "records.jsonl";
/// The providers of a scene; all of them are the mock.
const PROVIDERS: [&str; 4] = ["openai", "azure", "groq", "openrouter"];

/// A gateway before a provider.
pub(crate) struct Scene {
    /// The provider.
    pub(crate) mock: MockServer,
    /// The gateway.
    pub(crate) gateway: Gateway,
}

impl Scene {
    /// Starts both, with `changes` laid over the configuration.
    pub(crate) async fn start(changes: Value) -> Self {
        Self::start_in(&Arc::new(TempDir::new().expect("a directory")), changes, |options| options).await
    }

    /// The same in a directory of the test's own and with its own options.
    pub(crate) async fn start_in(
        directory: &Arc<TempDir>,
        changes: Value,
        change: impl FnOnce(GatewayOptions) -> GatewayOptions,
    ) -> Self {
        let options = MockOptions { record: true, ..MockOptions::default() };
        let mock = MockServer::start(options).await.expect("the mock");
        let config = configuration(&mock.base_url(), changes).to_string();
        let options = GatewayOptions::new(BINARY).data_dir(directory).config(config);
        let gateway = Gateway::start(change(options)).await;
        Self { mock, gateway }
    }

    /// Sends a chat request of a case under a script and reads the whole answer.
    pub(crate) async fn chat(&self, case: &str, script: &Value, body: &Value) -> Response {
        self.send(CHAT, case, &[("x-mock", &script.to_string())], body.to_string()).await
    }

    /// Sends any JSON document of a case; `headers` may name another content type.
    pub(crate) async fn send(
        &self,
        path: &str,
        case: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response {
        let mut all = vec![("x-thread-id", case)];
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/json"));
        }
        all.extend_from_slice(headers);
        request("POST", &self.gateway.url(path), &all, body).await
    }

    /// The record of a case.
    pub(crate) async fn record(&self, case: &str) -> Value {
        parse(&self.line(case).await)
    }

    /// The line that is the record of a case.
    pub(crate) async fn line(&self, case: &str) -> String {
        line_of(&self.gateway.path(RECORDS), case).await
    }

    /// `metadata` of the record of a case.
    pub(crate) async fn metadata(&self, case: &str) -> Value {
        self.record(case).await["attributes"]["metadata"].take()
    }
}

/// The line in a file of records that belongs to a case.
pub(crate) async fn line_of(path: &Path, case: &str) -> String {
    let wanted = format!("\"thread_id\":\"{case}\"");
    lines_with(path, &wanted, 1).await.remove(0)
}

/// Waits for so many lines with this text.
pub(crate) async fn lines_with(path: &Path, wanted: &str, count: usize) -> Vec<String> {
    let end = Instant::now() + DEADLINE;
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let found: Vec<_> = whole.filter(|line| line.contains(wanted)).map(str::to_owned).collect();
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < end, "{} of {count} lines with {wanted} in:\n{text}", found.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A line as JSON.
pub(crate) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Waits until `seen` gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut seen: impl FnMut() -> F) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = seen().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: did not happen within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Scene {
    /// Asks the admin plane with the token that the gateway made.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        let bearer = format!("Bearer {}", self.gateway.admin_token());
        get(&self.gateway.admin_url(path), &[("authorization", &bearer)]).await
    }
}

/// Runs a command of the binary on the data directory of a gateway, running or not.
pub(crate) async fn run(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.env_clear().env("DATA_DIR", directory.path().join("data")).current_dir(directory.path());
    command.args(arguments);
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("a thread").expect("the binary")
}

/// What a command printed.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command complained about.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The user `nobody`, as whom the gateway runs where tests run as root: root may write anywhere.
const NOBODY: u32 = 65534;

/// The binary for an unprivileged user, in a directory that is that user's.
pub(crate) fn unprivileged(directory: &Arc<TempDir>) -> GatewayOptions {
    if std::fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return GatewayOptions::new(BINARY).data_dir(directory);
    }
    std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("an owner");
    let mut options = GatewayOptions::new("setpriv").data_dir(directory);
    for argument in ["--reuid=nobody", "--regid=nogroup", "--clear-groups", BINARY] {
        options = options.arg(argument);
    }
    options
}

fn configuration(base_url: &str, changes: Value) -> Value {
    let providers: serde_json::Map<_, _> = PROVIDERS
        .into_iter()
        .map(|name| (name.to_owned(), json!({ "api_key": "sk-scene", "base_url": base_url })))
        .collect();
    let mut config = json!({
        "server": { "listen": ["127.0.0.1:0"], "drain": { "delay": "0s", "timeout": "30s" } },
        "providers": providers,
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

/// A chat body.
pub(crate) fn chat(model: &str, more: &Value) -> Value {
    let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": "hello there" }] });
    lay_over(&mut body, more.clone());
    body
}
