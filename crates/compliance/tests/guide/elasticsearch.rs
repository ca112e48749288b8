//! The first example of the original guide, as `docs/telemetry-plugins.md` shows it.

use http::Request;
use magicapi_plugin::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::error::Error;
use tracing::info;

pub struct ElasticsearchExporter {
    client: Http,
    url: String,
    index: String,
}

impl ElasticsearchExporter {
    pub fn new(client: Http, url: String, index: String) -> Self {
        Self { client, url, index }
    }

    async fn send_metrics(&self, id: RequestId, metrics: Value) -> Result<(), ExportError> {
        let url = format!("{}/{}/_bulk", self.url, self.index);
        let action = json!({"create": {"_id": id.to_string()}});
        let request = Request::post(&url)
            .header("content-type", "application/x-ndjson")
            .body(format!("{action}\n{metrics}\n").into())
            .map_err(|e| ExportError::from(e.to_string()))?;
        let answer = self.client.send(request).await.map_err(|e| ExportError::from(e.to_string()))?;
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        match body["items"][0]["create"]["status"].as_u64() {
            // 409: this very record is there already.
            Some(200..=299 | 409) => Ok(()),
            _ => Err(ExportError::from(format!("{url}: HTTP {}", answer.status()))),
        }
    }
}

#[async_trait]
impl RecordExporter for ElasticsearchExporter {
    fn name(&self) -> &str {
        "elasticsearch"
    }

    async fn init(&self, _config: &TelemetryConfig) -> Result<(), ExportError> {
        info!("Initializing Elasticsearch exporter");

        // Test connection
        let health_url = format!("{}/_cluster/health", self.url);
        let request = Request::get(&health_url).body(Default::default());
        let request = request.map_err(|e| ExportError::from(e.to_string()))?;
        self.client.send(request).await.map_err(|e| ExportError::from(e.to_string()))?;

        Ok(())
    }

    async fn export(&self, metrics: &RequestMetrics) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.send_metrics(metrics.id(), metrics.to_otel_log()).await.map_err(Into::into)
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        info!("Shutting down Elasticsearch exporter");
        Ok(())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ElasticsearchSettings {
    /// Where the cluster is.
    #[schemars(extend("env" = "ELASTICSEARCH_URL"))]
    url: String,
    /// Index that records go to.
    #[schemars(extend("env" = "ELASTICSEARCH_INDEX"))]
    index: String,
}

impl Default for ElasticsearchSettings {
    fn default() -> Self {
        Self { url: "http://localhost:9200".to_string(), index: "noveum-metrics".to_string() }
    }
}

pub struct ElasticsearchPlugin;

impl TelemetryPlugin for ElasticsearchPlugin {
    fn name(&self) -> &'static str {
        "elasticsearch"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<ElasticsearchSettings>()
    }

    fn create_exporter(
        &self,
        settings: Settings,
        host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let ElasticsearchSettings { url, index } = settings.read()?;

        Ok(Box::new(EachRecord(ElasticsearchExporter::new(host.http().clone(), url, index))))
    }
}

// Register the plugin
magicapi_plugin::register!(ElasticsearchPlugin);
