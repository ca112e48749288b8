//! An exporter whose own log lines name its entry of the configuration: there may be several of a kind.

use std::sync::Arc;

use magicapi_plugin::{
    Delivery, ExportError, Health, MetricsSnapshot, RequestMetrics, ScrapePage, TelemetryConfig,
    TelemetryExporter, async_trait,
};
use tracing::{Instrument, Span};

/// See the module. Whatever it logs stands in a span with the field `exporter`.
pub(crate) struct Named {
    exporter: Box<dyn TelemetryExporter>,
    span: Span,
}

impl Named {
    /// `name`: the entry's.
    pub(crate) fn new(exporter: Box<dyn TelemetryExporter>, name: &str) -> Self {
        // At the highest level, so that it stands on every line that is written at all.
        Self { exporter, span: tracing::error_span!(parent: None, "of", exporter = name) }
    }
}

#[async_trait]
impl TelemetryExporter for Named {
    fn name(&self) -> &str {
        self.exporter.name()
    }

    async fn init(&self, config: &TelemetryConfig) -> Result<(), ExportError> {
        self.exporter.init(config).instrument(self.span.clone()).await
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        self.exporter.export(batch).instrument(self.span.clone()).await
    }

    fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        self.span.in_scope(|| self.exporter.cut_off(batch))
    }

    async fn export_metrics(&self, snapshot: &MetricsSnapshot) -> Delivery {
        self.exporter.export_metrics(snapshot).instrument(self.span.clone()).await
    }

    fn scrape(&self, snapshot: &MetricsSnapshot, accept: &str) -> Option<ScrapePage> {
        self.span.in_scope(|| self.exporter.scrape(snapshot, accept))
    }

    async fn health(&self) -> Health {
        self.exporter.health().instrument(self.span.clone()).await
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        self.exporter.shutdown().instrument(self.span.clone()).await
    }
}
