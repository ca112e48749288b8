//! The tests that every telemetry exporter should pass, for authors of exporters: [`check`] is one line in a test.
//!
//! Layer: none; a dev-dependency. It depends on the SDK alone, so that a third party can use it. `suite` decides which
//! case runs, `stage` runs each as the pipeline would (a thread and a runtime of its own, panics caught, a deadline),
//! `settings`, `encoding`, `faults` and `metrics` are the cases, `backend` is what stands at the other end, `records`
//! what is sent, and `words` what must come out nowhere.
//!
//! ```
//! # use magicapi_plugin::{schemars, *};
//! # use serde_json::json;
//! # use std::sync::Arc;
//! # struct MyPlugin;
//! # impl TelemetryPlugin for MyPlugin {
//! #     fn name(&self) -> &'static str { "mine" }
//! #     fn settings(&self) -> SettingsSpec { SettingsSpec::of::<Nothing>() }
//! #     fn create_exporter(&self, s: Settings, _: Host) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
//! #         let Nothing {} = s.read()?;
//! #         Ok(Box::new(Mine))
//! #     }
//! # }
//! # #[derive(Default, serde::Deserialize, JsonSchema)]
//! # #[serde(default, deny_unknown_fields)]
//! # struct Nothing {}
//! # struct Mine;
//! # #[async_trait]
//! # impl TelemetryExporter for Mine {
//! #     fn name(&self) -> &str { "mine" }
//! #     async fn export(&self, _: &[Arc<RequestMetrics>]) -> Delivery { Delivery::Delivered }
//! # }
//! magicapi_compliance::check(&MyPlugin, json!({}));
//! ```

mod backend;
mod encoding;
mod faults;
mod metrics;
pub mod records;
mod settings;
mod sockets;
mod stage;
mod suite;
mod words;

pub use self::backend::Backend;
pub use self::suite::{Finding, Suite, check};
