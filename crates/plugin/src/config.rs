//! What every exporter is told about the process it runs in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names of this gateway, as they stand in every record's `resource`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TelemetryConfig {
    /// `service.name`.
    pub service_name: String,
    /// `service.version`: the gateway's version.
    pub service_version: String,
    /// `deployment.environment`; null in records when unknown.
    pub deployment_environment: Option<String>,
    /// `service.instance.id`: unique per process.
    pub service_instance_id: Option<String>,
    /// Further resource attributes (`OTEL_RESOURCE_ATTRIBUTES`).
    pub resource_attributes: BTreeMap<String, String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service_name: "noveum_ai_gateway".into(),
            service_version: env!("CARGO_PKG_VERSION").into(),
            deployment_environment: None,
            service_instance_id: None,
            resource_attributes: BTreeMap::new(),
        }
    }
}
