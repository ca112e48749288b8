//! Hands records, a line each, to a child process, which answers each with a line: a plug-in in any language.
//!
//! **When to use it**: for a back end that no other exporter speaks to. The protocol is in `docs/exporters/exec.md`;
//! `answer` reads it, `exchange` keeps the books of one batch, `crate::process` is the child.
//!
//! **Guarantee**: at least once. A record that was acknowledged is not sent again, whatever becomes of the child
//! afterwards; one that was sent and has no answer when the child ends is sent again and counted as ambiguous.

use std::sync::Arc;

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, RequestMetrics, Settings, SettingsSpec,
    TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};

use self::answer::ready;
pub use self::config::ExecSettings;
use self::exchange::{Exchange, Untold};
use crate::health::LastHealth;
use crate::process::{CommandLine, Process, Waiting};

mod answer;
mod config;
mod exchange;
#[cfg(test)]
mod tests;

/// The plug-in `exec`.
pub struct ExecPlugin;

magicapi_plugin::register!(ExecPlugin);

impl TelemetryPlugin for ExecPlugin {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<ExecSettings>().without_http().exclusive()
    }

    fn create_exporter(
        &self,
        settings: Settings,
        _: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let command = settings.read::<ExecSettings>()?.validate()?;
        let (waiting, health) = (Waiting::default(), LastHealth::default());
        Ok(Box::new(ExecExporter { command, waiting, untold: Untold::default(), health }))
    }
}

struct ExecExporter {
    command: CommandLine,
    /// As many as there are exports at once, since each has a child of its own.
    waiting: Waiting,
    untold: Untold,
    health: LastHealth,
}

impl ExecExporter {
    /// A new child that has said that it is ready.
    async fn start(&self) -> Result<Process, Delivery> {
        let mut child = self.command.spawn().map_err(|reason| {
            self.health.set(Health::Down(reason.clone()));
            Delivery::Refused { reason }
        })?;
        match ready(&mut child.stdout).await {
            Ok(()) => Ok(child),
            Err(reason) => {
                self.health.set(Health::Down(child.give_up(&reason).await));
                Err(Delivery::Retry { after: None })
            }
        }
    }
}

#[async_trait]
impl TelemetryExporter for ExecExporter {
    fn name(&self) -> &'static str {
        "exec"
    }

    async fn init(&self, _: &TelemetryConfig) -> Result<(), ExportError> {
        let Ok(child) = self.start().await else {
            let reason = self.health.get().reason().unwrap_or("cannot be started").to_owned();
            return Err(reason.into());
        };
        self.waiting.put(child);
        self.health.set(Health::Ok);
        Ok(())
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let mut exchange = Exchange::begin(batch, &self.untold);
        if exchange.is_over() {
            return exchange.judge(Delivery::Unknown);
        }
        let waiting = self.waiting.take();
        let started = if let Some(child) = waiting { Ok(child) } else { self.start().await };
        let mut child = match started {
            Ok(child) => child,
            Err(delivery) => return exchange.judge(delivery),
        };
        let mut down = None;
        if let Err(reason) = exchange.talk(&mut child).await {
            down = Some(Health::Down(child.give_up(&reason).await));
        } else {
            self.waiting.put(child);
        }
        // Not before: if nobody waits for it any more, what was answered is kept for the next try.
        let delivery = exchange.judge(Delivery::Retry { after: None });
        self.health.after(&delivery);
        if let Some(down) = down {
            self.health.set(down);
        }
        delivery
    }

    fn cut_off(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        Exchange::cut_off(batch, &self.untold)
    }

    /// Asked every few seconds; who has ended meanwhile is buried here.
    async fn health(&self) -> Health {
        if let Some(reason) = self.waiting.bury() {
            self.health.set(Health::Degraded(reason));
        }
        self.health.get()
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        self.waiting.end().await;
        Ok(())
    }
}
