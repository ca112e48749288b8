//! The contracts of a plug-in and of the exporter that it makes.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tracing::warn;

use crate::{
    ConfigError, Delivery, ExportError, Health, Host, ItemOutcome, MetricsSnapshot, RequestMetrics, Settings,
    SettingsSpec, TelemetryConfig,
};

/// After which [`EachRecord`] says what it has delivered, so that a batch that takes longer than `timeout` gets on.
const TURN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5000 });

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
pub struct ScrapePage {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// It.
    pub body: Bytes,
}

impl ScrapePage {
    /// The page as text; empty when it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }
}

/// The simple way to write an exporter: one record at a time. [`EachRecord`] lifts it to the batch form.
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

/// Lifts a [`RecordExporter`]: records go one by one, in order; the failed ones are retried by the pipeline, as is what
/// had no turn within 5 s.
pub struct EachRecord<X>(pub X);

#[async_trait]
impl<X: RecordExporter> TelemetryExporter for EachRecord<X> {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn init(&self, config: &TelemetryConfig) -> Result<(), ExportError> {
        self.0.init(config).await
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut first = None;
        let begun = Instant::now();
        for record in batch {
            if begun.elapsed() >= TURN {
                break;
            }
            outcomes.push(match self.0.export(record).await {
                Ok(()) => ItemOutcome::Delivered,
                Err(error) => {
                    first.get_or_insert(error);
                    ItemOutcome::Retry
                }
            });
        }
        // A retry has no reason of its own; this is where the author's words are seen, once per try.
        if let Some(error) = first {
            let failed = outcomes.iter().filter(|one| **one == ItemOutcome::Retry).count();
            warn!(exporter = self.name(), failed, of = batch.len(), %error, "records will be sent again");
        }
        outcomes.resize(batch.len(), ItemOutcome::Retry);
        Delivery::Items(outcomes)
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        self.0.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::time::SystemTime;

    use super::*;
    use crate::{Facts, RequestId};

    struct Slow(AtomicUsize);

    #[async_trait]
    impl RecordExporter for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        async fn export(&self, _: &RequestMetrics) -> Result<(), Box<dyn Error + Send + Sync>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        }
    }

    /// However slow a back end is, what it has is said before the pipeline loses its patience.
    #[test]
    fn a_batch_that_takes_too_long_gets_on_by_turns() {
        let record = || {
            let facts = Facts::new(RequestId::mint(), SystemTime::now());
            Arc::new(RequestMetrics::seal(facts, Arc::default(), None, None, None))
        };
        let batch: Vec<_> = (0..100).map(|_| record()).collect();
        let exporter = EachRecord(Slow(AtomicUsize::new(0)));
        let mut export = pin!(exporter.export(&batch));
        let Poll::Ready(Delivery::Items(outcomes)) =
            export.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("it waits for nothing")
        };
        let sent = exporter.0.0.load(Ordering::Relaxed);
        assert!((1..100).contains(&sent), "{sent}");
        assert!(outcomes[..sent].iter().all(|one| *one == ItemOutcome::Delivered));
        assert!(outcomes.len() == 100 && outcomes[sent..].iter().all(|one| *one == ItemOutcome::Retry));
    }
}
