//! A setting for tests of configuration: the real binary, started with what a test lays over a plain configuration,
//! before a scripted provider that keeps what it received.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use magicapi_mock::{MockOptions, MockServer, Received};
use magicapi_testkit::http::{get, post_json};
use magicapi_testkit::{DEADLINE, Gateway, GatewayOptions, Response, wait_for_records};
use serde_json::{Value, json};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_magicapi-ai-gateway");
pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const TOKEN: &str = "setting-token";
pub(crate) const OUR_KEY: &str = "sk-ours";
pub(crate) const RECORDS: &str = "records.jsonl";

/// A mock provider and a gateway before it.
pub(crate) struct Setting {
    pub(crate) mock: MockServer,
    pub(crate) gateway: Gateway,
}

impl Setting {
    /// Starts both, with `changes` laid over [`plain`].
    pub(crate) async fn start(changes: Value) -> Self {
        Self::with(changes, &[]).await
    }

    /// The same with variables of the environment; an empty one counts as not set.
    pub(crate) async fn with(changes: Value, variables: &[(&str, &str)]) -> Self {
        let mock = mock().await;
        let gateway = Gateway::start(options(&configuration(&mock.base_url(), changes), variables)).await;
        Self { mock, gateway }
    }

    /// A gateway that is configured by variables alone.
    pub(crate) async fn by_variables(variables: &[(&str, &str)]) -> Self {
        let mock = mock().await;
        let base = [("OPENAI_BASE_URL", mock.base_url()), ("OPENAI_API_KEY", OUR_KEY.into())];
        let options =
            base.into_iter().fold(GatewayOptions::new(BINARY), |all, (name, value)| all.env(name, value));
        let gateway = Gateway::start(environment(options, variables)).await;
        Self { mock, gateway }
    }

    /// Asks for a chat under a script.
    pub(crate) async fn chat(&self, script: &Value, headers: &[(&str, &str)]) -> Response {
        self.post(CHAT, script, headers, &question()).await
    }

    /// Asks for a streamed chat under a script.
    pub(crate) async fn streamed(&self, script: &Value) -> Response {
        let mut body = question();
        body["stream"] = json!(true);
        self.post(CHAT, script, &[], &body).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        script: &Value,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Response {
        let script = script.to_string();
        let headers: Vec<_> = headers.iter().copied().chain([("x-mock", script.as_str())]).collect();
        post_json(&self.gateway.url(path), &headers, body).await
    }

    /// The records of the file, once there are so many.
    pub(crate) async fn records(&self, count: usize) -> Vec<Value> {
        wait_for_records(&self.gateway.path(RECORDS), count, DEADLINE).await
    }

    /// The last record, once there are so many.
    pub(crate) async fn record(&self, count: usize) -> Value {
        self.records(count).await.pop().expect("a record")["attributes"].take()
    }

    /// A page of the admin plane, with the token.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        let authorization = format!("Bearer {TOKEN}");
        get(&self.gateway.admin_url(path), &[("authorization", &authorization)]).await
    }

    /// What the provider received last.
    pub(crate) fn received(&self) -> Received {
        self.mock.received().pop().expect("a request upstream")
    }

    /// Replaces the configuration file.
    pub(crate) fn rewrite(&self, changes: Value) {
        let text = configuration(&self.mock.base_url(), changes).to_string();
        let aside = self.gateway.path("aside.yaml");
        fs::write(&aside, text).expect("a file");
        fs::rename(aside, self.gateway.config_path()).expect("a file");
    }

    /// Waits until the log has so many lines with this message.
    pub(crate) async fn logged(&self, message: &str, count: usize) -> Vec<Value> {
        eventually(message, async || {
            let lines: Vec<Value> =
                self.gateway.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let found: Vec<Value> = lines.into_iter().filter(|line| line["message"] == message).collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }
}

/// A provider that keeps what it receives.
pub(crate) async fn mock() -> MockServer {
    MockServer::start(MockOptions { record: true, ..MockOptions::default() }).await.expect("the mock")
}

/// The configuration that changes are laid over: one provider, records in a file, a short drain.
pub(crate) fn configuration(base_url: &str, changes: Value) -> Value {
    let mut config = json!({
        "server": { "drain": { "delay": "0s", "timeout": "30s" } },
        "admin": { "token": TOKEN },
        "providers": { "openai": { "api_key": OUR_KEY, "base_url": base_url } },
        "telemetry": { "exporters": [records_file(&json!({}))] },
    });
    lay_over(&mut config, changes);
    config
}

/// The entry of the exporter `file`, with changes.
pub(crate) fn records_file(changes: &Value) -> Value {
    let mut entry = json!({ "type": "file", "path": RECORDS, "batch": { "age": "20ms" } });
    lay_over(&mut entry, changes.clone());
    entry
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

/// How the gateway is started with this file and these variables.
pub(crate) fn options(config: &Value, variables: &[(&str, &str)]) -> GatewayOptions {
    environment(GatewayOptions::new(BINARY).config(config.to_string()), variables)
}

fn environment(options: GatewayOptions, variables: &[(&str, &str)]) -> GatewayOptions {
    variables.iter().fold(options, |options, (name, value)| options.env(name, *value))
}

/// Runs the binary to its end.
pub(crate) fn output(options: &GatewayOptions) -> Output {
    let (mut command, _directory) = options.command();
    command.output().expect("the gateway's binary")
}

/// Runs a start that must fail, and gives what it said.
pub(crate) fn refusal(config: &Value, variables: &[(&str, &str)]) -> String {
    let output = output(&options(config, variables));
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A question of 2 words.
pub(crate) fn question() -> Value {
    json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": "hello there" }] })
}

/// `sha256:…` of a virtual key, as `keys create` prints it.
pub(crate) fn hash_of(key: &str) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("a digit");
    let hash = magicapi_policies::hash_of(key);
    let digits = hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    format!("sha256:{}", digits.collect::<String>())
}

/// Waits until `look` finds something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl FnMut() -> F) -> T {
    magicapi_testkit::wire::until(what, look).await
}

/// A path that nobody, not even root, can make.
pub(crate) fn impossible_directory() -> PathBuf {
    PathBuf::from("/proc/magicapi/data")
}

/// Long enough to be told from the default of a key that is shorter, short enough from one that is longer.
pub(crate) const SOON: Duration = Duration::from_millis(300);
