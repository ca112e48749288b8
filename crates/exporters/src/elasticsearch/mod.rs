//! Puts records into an index of Elasticsearch (7.8 and newer) or OpenSearch.
//!
//! **When to use it**: to search and chart requests in Kibana or OpenSearch Dashboards. Bodies are stored and come back
//! with a hit, but are not indexed.
//!
//! **Guarantee**: at least once, without duplicates. A record is created under its own id, so sending it again is a
//! conflict that counts as delivered (as long as `index` leads to the same index; an alias or a data stream may have moved on). Records
//! that the cluster will never take are rejected one by one; the rest of their batch is delivered.

use std::sync::{Arc, OnceLock};

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, HttpError, RequestMetrics, Settings, SettingsSpec,
    TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};
use tracing::warn;

pub use self::config::ElasticsearchSettings;
use self::config::Target;
use crate::health::LastHealth;

mod client;
mod config;
mod encode;
mod lifecycle;
mod template;
#[cfg(test)]
mod tests;

/// The plug-in `elasticsearch`.
pub struct ElasticsearchPlugin;

magicapi_plugin::register!(ElasticsearchPlugin);

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
        let target = settings.read::<ElasticsearchSettings>()?.validate(host.http().clone())?;
        Ok(Box::new(ElasticsearchExporter {
            target,
            names: OnceLock::new(),
            shortfall: OnceLock::new(),
            health: LastHealth::default(),
        }))
    }
}

struct ElasticsearchExporter {
    target: Target,
    /// Those that new records have.
    names: OnceLock<TelemetryConfig>,
    /// What `init` could not do, though records can be delivered without it.
    shortfall: OnceLock<String>,
    health: LastHealth,
}

impl ElasticsearchExporter {
    async fn prepare(&self) -> Result<Health, ExportError> {
        let health = client::check_cluster(&self.target).await?;
        if let Some(shortfall) = template::ensure(&self.target).await? {
            warn!(index = self.target.index, "elasticsearch: {shortfall}");
            self.shortfall.get_or_init(|| shortfall);
        }
        Ok(health)
    }
}

#[async_trait]
impl TelemetryExporter for ElasticsearchExporter {
    fn name(&self) -> &'static str {
        "elasticsearch"
    }

    async fn init(&self, names: &TelemetryConfig) -> Result<(), ExportError> {
        self.names.get_or_init(|| names.clone());
        let prepared = self.prepare().await;
        self.health.set(prepared.as_ref().map_or_else(|e| Health::Down(e.to_string()), Clone::clone));
        prepared.map(|_| ())
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        match client::bulk(&self.target, encode::bulk(batch, self.target.stream.is_some())).await {
            Ok(answer) => {
                let delivery = client::judge(&answer, batch, self.names.get());
                self.health.after(&delivery);
                delivery
            }
            Err(error) => {
                self.health.set(Health::Down(error.to_string()));
                match error {
                    HttpError::Connect(_) => Delivery::Retry { after: None },
                    _ => Delivery::Unknown,
                }
            }
        }
    }

    async fn health(&self) -> Health {
        match (self.health.get(), self.shortfall.get()) {
            (Health::Ok, Some(shortfall)) => Health::Degraded(shortfall.clone()),
            (health, _) => health,
        }
    }
}
