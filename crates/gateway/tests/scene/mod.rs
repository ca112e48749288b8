//! The real binary before the scripted provider: what most end-to-end tests start from. What they ask of it and find in
//! its records is `magicapi_testkit::ask`; here is what only this package can name: binary, mock, store, keys.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use magicapi_kernel::LedgerEntry;
use magicapi_mock::{MockOptions, MockServer, Received};
use magicapi_store::Reader;
use magicapi_testkit::ask::chat_request;
use magicapi_testkit::configuration::{OUR_KEY, RECORDS, configuration};
use magicapi_testkit::wire::{Answer, Wire};
use magicapi_testkit::{DEADLINE, Gateway, GatewayOptions, read_records};
use serde_json::Value;
use tempfile::TempDir;

/// The gateway's binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_magicapi-ai-gateway");

/// A gateway, which it stands for, and the provider before which it is.
pub(crate) struct Scene {
    pub(crate) mock: MockServer,
    pub(crate) gateway: Gateway,
}

impl Deref for Scene {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

impl Scene {
    /// Starts both, with `changes` laid over the plain configuration.
    pub(crate) async fn start(changes: Value) -> Self {
        Self::with(changes, &[]).await
    }

    /// The same with variables of the environment; an empty one counts as not set.
    pub(crate) async fn with(changes: Value, variables: &[(&str, &str)]) -> Self {
        let mock = mock().await;
        let gateway = Gateway::start(options(&configuration(&mock.base_url(), changes), variables)).await;
        Self { mock, gateway }
    }

    /// The same in a directory of the test's own and with its own options.
    pub(crate) async fn start_in(
        directory: &Arc<TempDir>,
        changes: Value,
        change: impl FnOnce(GatewayOptions) -> GatewayOptions,
    ) -> Self {
        let mock = mock().await;
        let plain = options(&configuration(&mock.base_url(), changes), &[]).data_dir(directory);
        let gateway = Gateway::start(change(plain)).await;
        Self { mock, gateway }
    }

    /// The same for a user without rights of its own.
    pub(crate) async fn start_unprivileged(directory: &Arc<TempDir>, changes: Value) -> Self {
        let mock = mock().await;
        let config = configuration(&mock.base_url(), changes).to_string();
        let gateway = Gateway::start(GatewayOptions::unprivileged(BINARY, directory).config(config)).await;
        Self { mock, gateway }
    }

    /// A gateway that is configured by variables alone.
    pub(crate) async fn by_variables(variables: &[(&str, &str)]) -> Self {
        let mock = mock().await;
        let provider = [("OPENAI_BASE_URL", &*mock.base_url()), ("OPENAI_API_KEY", OUR_KEY)];
        let gateway = Gateway::start(GatewayOptions::new(BINARY).envs(&provider).envs(variables)).await;
        Self { mock, gateway }
    }

    /// What the provider received last.
    pub(crate) fn received(&self) -> Received {
        self.mock.received().pop().expect("a request upstream")
    }

    /// The whole answer to a chat request, straight from the provider.
    pub(crate) async fn straight(&self, script: &Value, body: &Value) -> Answer {
        let mut wire = Wire::connect(self.mock.addr()).await;
        wire.send(&chat_request("straight", script, body)).await;
        wire.answer().await.expect("an answer of the mock")
    }

    /// Replaces the configuration file.
    pub(crate) fn rewrite(&self, changes: Value) {
        let text = configuration(&self.mock.base_url(), changes).to_string();
        let aside = self.gateway.path("aside.yaml");
        std::fs::write(&aside, text).expect("a file");
        std::fs::rename(aside, self.gateway.config_path()).expect("a file");
    }
}

/// A provider that keeps what it receives.
pub(crate) async fn mock() -> MockServer {
    MockServer::start(MockOptions { record: true, ..MockOptions::default() }).await.expect("the mock")
}

/// A gateway before any other provider.
pub(crate) async fn before(base_url: &str, changes: Value) -> Gateway {
    Gateway::start(options(&configuration(base_url, changes), &[])).await
}

/// How the gateway is started with this file and these variables.
pub(crate) fn options(config: &Value, variables: &[(&str, &str)]) -> GatewayOptions {
    GatewayOptions::new(BINARY).config(config.to_string()).envs(variables)
}

/// Runs a start that must fail, and gives what it said.
pub(crate) fn refusal(config: &Value, variables: &[(&str, &str)]) -> String {
    let output = options(config, variables).output();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    stderr(&output)
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

/// `sha256:…` of a virtual key, as `keys create` prints it.
pub(crate) fn hash_of(key: &str) -> String {
    let hash = magicapi_policies::hash_of(key);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// What a gateway left behind when it had ended.
pub(crate) struct Left {
    /// Every record.
    pub(crate) records: Vec<Value>,
    /// Every request of the ledger.
    pub(crate) ledger: Vec<LedgerEntry>,
    /// Its exit code.
    pub(crate) code: Option<i32>,
}

impl Left {
    /// The one record of a case.
    pub(crate) fn record(&self, case: &str) -> &Value {
        only(case, self.records.iter().filter(|record| record["attributes"]["thread_id"] == case))
    }

    /// The `metadata` of the one record of a case.
    pub(crate) fn metadata(&self, case: &str) -> &Value {
        &self.record(case)["attributes"]["metadata"]
    }

    /// The one ledger row of a case.
    pub(crate) fn row(&self, case: &str) -> &LedgerEntry {
        let id = self.record(case)["attributes"]["id"].as_str().expect("an id");
        only(case, self.ledger.iter().filter(|row| row.id.to_string() == id))
    }
}

fn only<T>(case: &str, mut found: impl Iterator<Item = T>) -> T {
    let first = found.next().unwrap_or_else(|| panic!("{case}: none"));
    assert!(found.next().is_none(), "{case}: more than one");
    first
}

/// Waits for a gateway's end.
pub(crate) async fn ended(mut gateway: Gateway) -> Left {
    let code = gateway.wait(DEADLINE).await.code();
    let records = read_records(&gateway.path(RECORDS));
    Left { records, ledger: ledger_in(&gateway.data_path()), code }
}

/// Asks a gateway to end, and waits.
pub(crate) async fn stop(gateway: Gateway) -> Left {
    gateway.signal("TERM");
    let left = ended(gateway).await;
    assert_eq!(left.code, Some(0));
    left
}

/// Every request of the ledger in a data directory.
pub(crate) fn ledger_in(data: &Path) -> Vec<LedgerEntry> {
    let store = data.join("magicapi.db");
    if !store.exists() {
        return Vec::new();
    }
    let reader = Reader::open(&store).expect("the store");
    reader.ledger_rows(0..i64::MAX, None, 1_000_000).expect("the ledger")
}
