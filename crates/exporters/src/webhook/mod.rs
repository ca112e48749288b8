//! Posts records to any URL, as a JSON array or as lines of JSON, signed if a secret is set.
//!
//! **When to use it**: for a receiver of your own, or one that no other exporter speaks to.
//!
//! **Guarantee**: at least once. A batch that is tried again as it was keeps its `webhook-id`, which follows from the
//! ids of its records. One that was cut anew meanwhile (halved, spooled, taken up by the next process) has another: what
//! a receiver knows a record by is `attributes.id`.

use std::sync::Arc;
use std::time::SystemTime;

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, ItemOutcome, RequestMetrics, Settings, SettingsSpec,
    TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};

use self::config::Target;
pub use self::config::{Format, WebhookSettings};
use crate::health::LastHealth;
use crate::requests::{Verdict, unanswered};

mod client;
mod config;
mod encode;
#[cfg(test)]
mod tests;

/// The plug-in `webhook`.
pub struct WebhookPlugin;

magicapi_plugin::register!(WebhookPlugin);

impl TelemetryPlugin for WebhookPlugin {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<WebhookSettings>()
    }

    fn create_exporter(
        &self,
        settings: Settings,
        host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let target = settings.read::<WebhookSettings>()?.validate(host.http())?;
        Ok(Box::new(WebhookExporter { target, health: LastHealth::default() }))
    }
}

struct WebhookExporter {
    target: Target,
    health: LastHealth,
}

#[async_trait]
impl TelemetryExporter for WebhookExporter {
    fn name(&self) -> &'static str {
        "webhook"
    }

    /// Nothing is asked: a receiver knows no question but a batch.
    async fn init(&self, _: &TelemetryConfig) -> Result<(), ExportError> {
        self.health.set(Health::Degraded("a receiver cannot be asked; nothing sent yet".into()));
        Ok(())
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let body = encode::body(batch, self.target.format);
        let (verdict, problem) =
            match client::post(&self.target, &encode::id(batch), body, SystemTime::now()).await {
                Ok(answer) => (client::judge(&self.target, &answer), None),
                Err(error) => (unanswered(&error), Some(error.to_string())),
            };
        let delivery = match verdict {
            Verdict::Delivered => Delivery::Delivered,
            Verdict::Rejected(reason) if batch.len() == 1 => {
                Delivery::Items(vec![ItemOutcome::Rejected { reason }])
            }
            // The receiver does not say which record it means: halves tell.
            Verdict::Rejected(_) | Verdict::TooLarge => Delivery::TooLarge,
            Verdict::TakenAndRejected(reason) => {
                Delivery::Items(vec![ItemOutcome::Rejected { reason }; batch.len()])
            }
            Verdict::Retry(after) => Delivery::Retry { after },
            Verdict::Refused(reason) => Delivery::Refused { reason },
            Verdict::Unknown => Delivery::Unknown,
        };
        match problem {
            Some(problem) => self.health.set(Health::Down(problem)),
            None => self.health.after(&delivery),
        }
        delivery
    }

    async fn health(&self) -> Health {
        self.health.get()
    }
}
