//! The contracts of a plug-in and of the exporter that it makes.

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ConfigError, Delivery, ExportError, Health, Host, MetricsSnapshot, RequestMetrics, Settings,
    SettingsSpec, TelemetryConfig,
};

/// One kind of exporter: its name, its settings, and how to make one. Register it with [`crate::register!`].
pub trait TelemetryPlugin: Send + Sync {
    /// The word in `ENABLED_EXPORTERS` and in `type:`.
    fn name(&self) -> &'static str;

    /// Keys, kinds, defaults and documentation of the settings, and which signals it takes.
    fn settings(&self) -> SettingsSpec;

    /// Makes an exporter. Pure: settings are checked here, connections are made in `init`.
    fn create_exporter(
        &self,
        settings: Settings,
        host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError>;
}

/// One configured exporter. All methods are called on its own thread; blocking there hurts nobody else.
#[async_trait]
pub trait TelemetryExporter: Send + Sync {
    /// Its name in logs.
    fn name(&self) -> &str;

    /// Connects, creates the index or table. Runs beside traffic and is tried again with backoff while records wait.
    async fn init(&self, _config: &TelemetryConfig) -> Result<(), ExportError> {
        Ok(())
    }

    /// Delivers a batch and judges the answer. Must not panic; must not retry.
    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery;

    /// What is known of a batch whose `export` was cut off, by `timeout` or at the end: called right after it was
    /// dropped. For exporters that hear of each record by itself; must not wait.
    fn cut_off(&self, _batch: &[Arc<RequestMetrics>]) -> Delivery {
        Delivery::Unknown
    }

    /// Delivers metrics, every `metrics.interval`; called for plug-ins with the signal `METRICS`.
    async fn export_metrics(&self, _snapshot: &MetricsSnapshot) -> Delivery {
        Delivery::Delivered
    }

    /// Renders the scrape page for a request's `Accept`; called for plug-ins with the signal `SCRAPE`.
    fn scrape(&self, _snapshot: &MetricsSnapshot, _accept: &str) -> Option<ScrapePage> {
        None
    }

    /// The back end's state as far as the exporter knows. Asked every few seconds once `init` has succeeded, for
    /// `/health/details`.
    async fn health(&self) -> Health {
        Health::Ok
    }

    /// Flushes what it holds itself; called once, after the last batch.
    async fn shutdown(&self) -> Result<(), ExportError> {
        Ok(())
    }
}

/// A page that a monitoring system fetches.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScrapePage {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// It.
    pub body: Bytes,
}

impl ScrapePage {
    /// A page of this `Content-Type`.
    pub fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { content_type, body: body.into() }
    }

    /// The page as text; empty when it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }
}

/// The simple way to write an exporter: one record at a time. [`EachRecord`](fn@crate::EachRecord) lifts it to the batch form.
#[async_trait]
pub trait RecordExporter: Send + Sync {
    /// Its name in logs.
    fn name(&self) -> &str;

    /// See [`TelemetryExporter::init`].
    async fn init(&self, _config: &TelemetryConfig) -> Result<(), ExportError> {
        Ok(())
    }

    /// Delivers one record; an `Err` is a retry of that record.
    async fn export(&self, metrics: &RequestMetrics) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// See [`TelemetryExporter::health`].
    async fn health(&self) -> Health {
        Health::Ok
    }

    /// See [`TelemetryExporter::shutdown`].
    async fn shutdown(&self) -> Result<(), ExportError> {
        Ok(())
    }
}
