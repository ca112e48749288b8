//! The second example of the original guide, as `docs/telemetry-plugins.md` shows it.

use http::Request;
use magicapi_plugin::*;
use serde::Deserialize;
use std::error::Error;

pub struct DatadogExporter {
    api_key: Secret,
    site: String,
    client: Http,
}

#[async_trait]
impl RecordExporter for DatadogExporter {
    fn name(&self) -> &str {
        "datadog"
    }

    async fn init(&self, _config: &TelemetryConfig) -> Result<(), ExportError> {
        // Initialize DataDog connection
        Ok(())
    }

    async fn export(&self, metrics: &RequestMetrics) -> Result<(), Box<dyn Error + Send + Sync>> {
        let request = Request::post(format!("https://http-intake.logs.{}/api/v2/logs", self.site))
            .header("content-type", "application/json")
            .header("dd-api-key", self.api_key.expose())
            .body(format!("[{}]", metrics.to_otel_log()).into())?;
        let answer = self.client.send(request).await?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("HTTP {}", answer.status()).into()) }
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        // Cleanup
        Ok(())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct DatadogSettings {
    /// API key; required.
    #[schemars(extend("env" = "DD_API_KEY"))]
    api_key: Secret,
    /// Site of the account.
    #[schemars(extend("env" = "DD_SITE"))]
    site: String,
}

impl Default for DatadogSettings {
    fn default() -> Self {
        Self { api_key: Secret::default(), site: "datadoghq.com".to_string() }
    }
}

pub struct DatadogPlugin;

impl TelemetryPlugin for DatadogPlugin {
    fn name(&self) -> &'static str {
        "datadog"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<DatadogSettings>()
    }

    fn create_exporter(
        &self,
        settings: Settings,
        host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let DatadogSettings { api_key, site } = settings.read()?;
        if api_key.is_empty() {
            return Err(ConfigError::new("api_key", "DD_API_KEY must be set"));
        }

        Ok(Box::new(EachRecord(DatadogExporter { api_key, site, client: host.http().clone() })))
    }
}

magicapi_plugin::register!(DatadogPlugin);
