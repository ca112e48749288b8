//! Writes each record as one line of JSON to standard output.
//!
//! **When to use it**: to look at records while developing, or where a container's runtime collects standard output.
//! The gateway's own log goes to standard error, so the two do not mix.
//!
//! **Guarantee**: at least once, as far as standard output itself keeps what it takes. A batch is written in one go and
//! flushed. When its reader is gone the batch is refused: records wait and the operator is told. After any other failed
//! write part of the batch may be there already; it is written again, on a line of its own.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use magicapi_plugin::{
    ConfigError, Delivery, Health, Host, RequestMetrics, Settings, SettingsSpec, TelemetryExporter,
    TelemetryPlugin, async_trait,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::health::LastHealth;

#[cfg(test)]
mod tests;

/// The plug-in `console`.
pub struct ConsolePlugin;

magicapi_plugin::register!(ConsolePlugin);

/// Settings of the exporter `console`: it has none.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleSettings {}

impl TelemetryPlugin for ConsolePlugin {
    fn name(&self) -> &'static str {
        "console"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<ConsoleSettings>().without_http()
    }

    fn create_exporter(
        &self,
        settings: Settings,
        _: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let ConsoleSettings {} = settings.read()?;
        Ok(Box::new(ConsoleExporter::new(io::stdout())))
    }
}

/// Writes to `out`: standard output, or a test's own.
struct ConsoleExporter<W> {
    out: Mutex<W>,
    /// The last write failed, so that the output may end within a line.
    torn: AtomicBool,
    health: LastHealth,
}

impl<W: Write + Send> ConsoleExporter<W> {
    fn new(out: W) -> Self {
        Self { out: Mutex::new(out), torn: AtomicBool::new(false), health: LastHealth::default() }
    }

    fn write(&self, lines: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if self.torn.swap(true, Ordering::Relaxed) {
            out.write_all(b"\n")?;
        }
        out.write_all(lines)?;
        out.flush()?;
        self.torn.store(false, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl<W: Write + Send> TelemetryExporter for ConsoleExporter<W> {
    fn name(&self) -> &'static str {
        "console"
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let (delivery, health) = match self.write(&lines(batch)) {
            Ok(()) => (Delivery::Delivered, Health::Ok),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                let reason = "standard output is closed: whatever read it is gone";
                (Delivery::Refused { reason: reason.into() }, Health::Down(reason.into()))
            }
            Err(error) => (Delivery::Unknown, Health::Down(format!("standard output: {error}"))),
        };
        self.health.set(health);
        delivery
    }

    async fn health(&self) -> Health {
        self.health.get()
    }
}

/// The batch, a line per record, so that one write takes it.
fn lines(batch: &[Arc<RequestMetrics>]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(batch.iter().map(|record| record.otel_log_len() + 1).sum());
    for record in batch {
        record.otel_log_pieces().for_each(|piece| lines.extend_from_slice(piece));
        lines.push(b'\n');
    }
    lines
}
