//! Back ends that take OTLP under rules of their own, so that nobody need look them up.

use http::{HeaderMap, HeaderName};
use magicapi_plugin::{ConfigError, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::OtlpSettings;
use crate::newrelic;

/// A back end whose address, credential and limits are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// New Relic: metrics and traces; logs are the exporter `newrelic`'s.
    /// <https://docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp/>
    NewRelic,
}

/// The settings with what the preset says for those that are not given; unchanged without one.
pub(super) fn fill(settings: Settings) -> Result<Settings, ConfigError> {
    let asked: OtlpSettings = settings.read()?;
    match asked.preset {
        None => Ok(settings),
        Some(Preset::NewRelic) => {
            let given = asked.license_key.as_ref().is_some_and(|key| !key.expose().trim().is_empty());
            if !given {
                return Err(ConfigError::new("license_key", "missing; `preset: newrelic` needs it"));
            }
            let (_, region) = newrelic::account(asked.license_key, asked.region)?;
            let known = json!({
                "endpoint": region.otlp_url(),
                "signals": ["traces", "metrics"],
                "compression": "gzip",
                // What it prefers.
                "temporality": "delta",
                // The longest text that it keeps.
                "attribute_bytes": 4095,
                // Of one request.
                "request_bytes": 1_000_000,
            });
            let mut values = settings.values().clone();
            for (key, value) in known.as_object().into_iter().flat_map(Map::iter) {
                let slot = values.entry(key.clone()).or_insert(Value::Null);
                if slot.is_null() || slot.as_str() == Some("") {
                    *slot = value.clone();
                }
            }
            Ok(Settings::new(values))
        }
    }
}

impl OtlpSettings {
    /// The headers of the preset's credential.
    pub(super) fn credential(&self) -> Result<HeaderMap, ConfigError> {
        match self.preset {
            Some(Preset::NewRelic) => {
                let (key, _) = newrelic::account(self.license_key.clone(), self.region.clone())?;
                Ok([(HeaderName::from_static("api-key"), key)].into_iter().collect())
            }
            None => {
                let given = [("license_key", self.license_key.is_some()), ("region", self.region.is_some())];
                match given.into_iter().find(|(_, given)| *given) {
                    Some((key, _)) => Err(ConfigError::new(key, "means nothing without `preset: newrelic`")),
                    None => Ok(HeaderMap::new()),
                }
            }
        }
    }
}
