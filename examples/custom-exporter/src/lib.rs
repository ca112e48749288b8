//! Sends each record to Acme, a collector that takes one JSON document per request.

use http::{HeaderValue, Request, Uri};
use magicapi_plugin::*;

/// Settings of the exporter `acme`.
#[derive(Default, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AcmeSettings {
    /// Where documents are posted; required.
    #[schemars(extend("env" = "ACME_URL"))]
    url: String,
    /// Token that Acme shows under "Access".
    #[schemars(extend("env" = "ACME_TOKEN"))]
    token: Secret,
}

pub struct AcmePlugin;
magicapi_plugin::register!(AcmePlugin);

impl TelemetryPlugin for AcmePlugin {
    fn name(&self) -> &'static str {
        "acme"
    }
    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<AcmeSettings>()
    }
    fn create_exporter(&self, s: Settings, host: Host) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let AcmeSettings { url, token } = s.read()?;
        let url: Uri = url.parse().map_err(|_| ConfigError::new("url", "expected an address"))?;
        let token = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| ConfigError::new("token", "holds what no header can"))?;
        let taken = host.meter().u64_counter("documents").with_labels(&["streamed"]).build();
        Ok(Box::new(EachRecord(AcmeExporter { url, token, host, taken })))
    }
}

struct AcmeExporter {
    url: Uri,
    token: HeaderValue,
    host: Host,
    taken: Counter<u64>,
}

#[async_trait]
impl RecordExporter for AcmeExporter {
    fn name(&self) -> &str {
        "acme"
    }
    async fn export(&self, metrics: &RequestMetrics) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let request = Request::post(&self.url).header("authorization", &self.token);
        let answer = self.host.http().send(request.body(metrics.otel_log_json())?).await?;
        if !answer.status().is_success() {
            return Err(format!("Acme answers {}", answer.status()).into());
        }
        self.taken.add(1, &[("streamed", if metrics.facts().streamed { "yes" } else { "no" })]);
        Ok(())
    }
}
