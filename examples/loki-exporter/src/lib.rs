//! Pushes records to Grafana Loki, one request per batch. Written by following `docs/telemetry-plugins.md` alone.

use http::{HeaderValue, Method, Request, Uri, header::CONTENT_TYPE};
use magicapi_plugin::*;
use serde_json::{Value, json};
use std::{sync::Arc, time};

/// Settings of the exporter `loki`.
#[derive(Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LokiSettings {
    /// Address of Loki's push API, as in `http://localhost:3100/loki/api/v1/push`; required.
    #[schemars(extend("env" = "LOKI_URL"))]
    url: String,
}

pub struct LokiPlugin;
magicapi_plugin::register!(LokiPlugin);

impl TelemetryPlugin for LokiPlugin {
    fn name(&self) -> &'static str {
        "loki"
    }
    fn settings(&self) -> SettingsSpec {
        // Loki refuses what is older than a week.
        SettingsSpec::of::<LokiSettings>().max_age(time::Duration::from_secs(6 * 86_400))
    }
    fn create_exporter(&self, s: Settings, host: Host) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let url = s.read::<LokiSettings>()?.url.parse();
        Ok(Box::new(LokiExporter(url.map_err(|_| ConfigError::new("url", "expected an address"))?, host)))
    }
}

struct LokiExporter(Uri, Host);

/// A stream of one line: labels of few values, as Loki wants them, and beside the line what may have many.
fn stream(record: &RequestMetrics) -> Value {
    let (facts, at) = (record.facts(), record.facts().timestamp.duration_since(time::UNIX_EPOCH));
    // Loki refuses a line of more than 256 KiB.
    let long = (record.otel_log_len() > 256 << 10).then(|| record.without_content(ContentDropped::TooLarge));
    let line = long.as_ref().unwrap_or(record).to_otel_log().to_string();
    let beside = json!({"id": facts.id.to_string(), "model": facts.model.as_deref().unwrap_or("unknown")});
    let labels = json!({"service_name": record.resource().service_name, "outcome": facts.outcome});
    json!({"stream": labels, "values": [[at.unwrap_or_default().as_nanos().to_string(), line, beside]]})
}

#[async_trait]
impl TelemetryExporter for LokiExporter {
    fn name(&self) -> &str {
        "loki"
    }
    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let streams: Vec<Value> = batch.iter().map(|record| stream(record)).collect();
        let mut request = Request::new(json!({"streams": streams}).to_string().into());
        (*request.method_mut(), *request.uri_mut()) = (Method::POST, self.0.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Delivery::of_answer(&self.1.http().send(request).await, batch.len())
    }
}
