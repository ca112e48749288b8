//! Exporters that hang their thread, through the whole gateway: one spins in `export`, one blocks there, one blocks in
//! `init`. Traffic keeps every status and byte, the exporter beside them gets every record, the end comes in time, and
//! what the three held waits on disk for the next process.
//!
//! They are third parties' plug-ins in a gateway of their own, which is this program (`harness = false`): called with a
//! configuration it is that gateway, else the test.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Host, JsonSchema, RequestMetrics, Settings, SettingsSpec,
    TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait, schemars,
};
use magicapi_testkit::ask::{CHAT, buffered, streaming_with_usage};
use magicapi_testkit::configuration::{configuration, records_file};
use magicapi_testkit::wire::until;
use magicapi_testkit::{DEADLINE, Gateway, GatewayOptions, read_records};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{BINARY, Scene, mock};

/// Asked before and after the three have begun to hang.
const REQUESTS: usize = 20;
/// The exporters that hang, by how and where.
const HANGING: [(&str, &str, &str); 3] =
    [("spins", "spin", "export"), ("blocks", "block", "export"), ("never-begins", "block", "init")];

fn main() -> ExitCode {
    let is_given = |argument: &str| std::env::args().any(|given| given == argument);
    if is_given("--config") {
        return magicapi_ai_gateway::run(std::env::args_os());
    }
    // Nothing here is for long runs alone.
    if !is_given("--ignored") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(exporters_that_spin_and_block_hurt_neither_traffic_nor_each_other());
    }
    ExitCode::SUCCESS
}

/// Settings of the exporter `hanging`.
#[derive(Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct HangingSettings {
    /// `spin` or `block`.
    how: String,
    /// `export` or `init`.
    at: String,
}

struct HangingPlugin;
magicapi_plugin::register!(HangingPlugin);

impl TelemetryPlugin for HangingPlugin {
    fn name(&self) -> &'static str {
        "hanging"
    }
    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<HangingSettings>()
    }
    fn create_exporter(
        &self,
        settings: Settings,
        _host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        Ok(Box::new(Hanging(settings.read()?)))
    }
}

struct Hanging(HangingSettings);

impl Hanging {
    fn hang(&self, at: &str) {
        if self.0.at != at {
            return;
        }
        tracing::warn!(how = self.0.how, at, "hangs");
        loop {
            if self.0.how == "spin" {
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
    }
}

#[async_trait]
impl TelemetryExporter for Hanging {
    fn name(&self) -> &'static str {
        "hanging"
    }
    async fn init(&self, _config: &TelemetryConfig) -> Result<(), ExportError> {
        self.hang("init");
        Ok(())
    }
    async fn export(&self, _batch: &[Arc<RequestMetrics>]) -> Delivery {
        self.hang("export");
        Delivery::Delivered
    }
}

/// Asks both ways, compares each answer with the provider's own, and gives the records' ids.
async fn ask(scene: &Scene, ids: &mut BTreeSet<String>) {
    let script = json!({ "chunks": 5 });
    for body in [buffered(), streaming_with_usage()] {
        let expected = unnumbered(&scene.straight(&script, &body).await.body());
        for _ in 0..REQUESTS {
            let answer = scene.post(CHAT, &script, &[], &body).await;
            assert_eq!(answer.status, 200);
            assert_eq!(unnumbered(&answer.body), expected);
            ids.insert(answer.header("x-request-id").to_owned());
        }
    }
}

/// An answer without the number that the provider gives each.
fn unnumbered(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let mut parts = text.split("chatcmpl-mock-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        all + "chatcmpl-mock-" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

fn ids_in(path: &Path) -> BTreeSet<String> {
    let id = |record: &Value| record["attributes"]["id"].as_str().expect("an id").to_owned();
    read_records(path).iter().map(id).collect()
}

/// The status of each that hangs.
async fn statuses(gateway: &Gateway) -> Vec<Value> {
    let details = gateway.admin("/health/details").await.json();
    let exporters = details["exporters"].as_array().expect("exporters");
    let status = |name: &str| exporters.iter().find(|one| one["name"] == name).expect(name).clone();
    HANGING.iter().map(|(name, ..)| status(name)).collect()
}

async fn exporters_that_spin_and_block_hurt_neither_traffic_nor_each_other() {
    let directory = Arc::new(TempDir::new().expect("a directory"));
    let mock = mock().await;
    let hanging = HANGING.map(|(name, how, at)| {
        json!({ "type": "hanging", "name": name, "how": how, "at": at, "batch": { "age": "20ms" },
            "timeout": "1s" })
    });
    let healthy = records_file(&json!({ "name": "healthy" }));
    let entries: Vec<Value> = hanging.into_iter().chain([healthy]).collect();
    let config = configuration(&mock.base_url(), json!({ "telemetry": { "exporters": entries } }));
    let this = std::env::current_exe().expect("this program");
    let options = GatewayOptions::new(this).config(config.to_string()).data_dir(&directory);
    let mut scene = Scene { gateway: Gateway::start(options).await, mock };

    let mut ids = BTreeSet::new();
    ask(&scene, &mut ids).await;
    scene.logged("hangs", HANGING.len()).await;
    ask(&scene, &mut ids).await;
    assert_eq!(ids.len(), 4 * REQUESTS);
    let path = scene.path("records.jsonl");
    until("every record beside them", async || (ids_in(&path) == ids).then_some(())).await;
    for status in statuses(&scene).await {
        assert_eq!((&status["sent"], &status["received"]), (&json!(0), &json!(ids.len())), "{status}");
    }

    // Ten seconds for exporters, a few more for the disk.
    scene.gateway.signal("TERM");
    let code = scene.gateway.wait(DEADLINE).await;
    assert!(code.success(), "{code}: {}", scene.gateway.log().join("\n"));

    let freed =
        HANGING.map(|(name, ..)| records_file(&json!({ "name": name, "path": format!("{name}.jsonl") })));
    let config = configuration(&scene.mock.base_url(), json!({ "telemetry": { "exporters": freed } }));
    let next =
        Gateway::start(GatewayOptions::new(BINARY).config(config.to_string()).data_dir(&directory)).await;
    for (name, ..) in HANGING {
        let path = next.path(format!("{name}.jsonl"));
        until(name, async || (ids_in(&path) == ids).then_some(())).await;
    }
}
