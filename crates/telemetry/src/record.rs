//! Seals what the tap gathered into records, one per content level in use.

use std::sync::Arc;

use magicapi_plugin::{RequestMetrics, TelemetryConfig};

/// The record without bodies, saying why they are missing.
pub(crate) fn stripped(
    record: &RequestMetrics,
    resource: &Arc<TelemetryConfig>,
    reason: &'static str,
) -> RequestMetrics {
    let mut facts = record.facts().clone();
    facts.content_dropped = Some(reason);
    RequestMetrics::seal(facts, resource.clone(), None, None, None)
}
