//! The guide's custom metrics, as `docs/telemetry-plugins.md` shows them.

use magicapi_plugin::{Counter, Histogram, Meter};

pub struct GatewayMetrics {
    // Add custom metrics
    pub custom_metric: Counter<u64>,
    pub custom_histogram: Histogram<f64>,
}

impl GatewayMetrics {
    pub fn new(meter: &Meter) -> Self {
        Self {
            custom_metric: meter
                .u64_counter("custom_metric")
                .with_description("Description of custom metric")
                .with_unit("units")
                .with_labels(&["provider"])
                .build(),

            custom_histogram: meter
                .f64_histogram("custom_histogram")
                .with_description("Description of custom histogram")
                .with_unit("units")
                .build(),
        }
    }
}
