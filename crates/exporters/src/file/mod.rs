//! Appends each record as one line of JSON to a file.
//!
//! **When to use it**: to keep records on the machine, or to hand them to a log shipper. `rotate` puts the file away by
//! size and age; else rotation is somebody else's: when the file has been moved away or deleted, the next batch begins a
//! new one; a file that was truncated goes on at its beginning.
//!
//! **Guarantee**: a batch is on one file (with `fsync: batch` on the disk) or not there at all: what a full disk took
//! of it is cut away again, and it is written later. A process that dies while writing leaves at most one torn line,
//! the last; the next record begins on a line of its own. After a failed `fsync` a batch may be there twice.

use std::sync::{Arc, Mutex, PoisonError};

use self::appender::{Appender, Fault};
pub use self::config::{FileSettings, Fsync};
pub use crate::archive::Compression;
use crate::health::LastHealth;
pub use crate::rotation::Rotate;
use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, RequestMetrics, Settings, SettingsSpec,
    TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};

mod appender;
mod config;
#[cfg(test)]
mod tests;

/// The plug-in `file`.
pub struct FilePlugin;

magicapi_plugin::register!(FilePlugin);

impl TelemetryPlugin for FilePlugin {
    fn name(&self) -> &'static str {
        "file"
    }

    fn settings(&self) -> SettingsSpec {
        SettingsSpec::of::<FileSettings>().without_http().exclusive()
    }

    fn create_exporter(
        &self,
        settings: Settings,
        _: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let appender = Mutex::new(settings.read::<FileSettings>()?.validate()?);
        Ok(Box::new(FileExporter { appender, health: LastHealth::default() }))
    }
}

struct FileExporter {
    appender: Mutex<Appender>,
    health: LastHealth,
}

impl FileExporter {
    fn with_file<T>(&self, act: impl FnOnce(&mut Appender) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut appender = self.appender.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut appender);
        self.health.set(match (&result, appender.trouble()) {
            (Err(fault), _) => Health::Down(fault.to_string()),
            (Ok(_), Some(trouble)) => Health::Degraded(trouble.to_owned()),
            (Ok(_), None) => Health::Ok,
        });
        result
    }
}

#[async_trait]
impl TelemetryExporter for FileExporter {
    fn name(&self) -> &'static str {
        "file"
    }

    async fn init(&self, _: &TelemetryConfig) -> Result<(), ExportError> {
        self.with_file(Appender::open).map_err(|fault| fault.to_string().into())
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let newline = std::iter::once(&b"\n"[..]);
        let lines = batch.iter().flat_map(|record| record.otel_log_pieces().chain(newline.clone()));
        let length: usize = batch.iter().map(|record| record.otel_log_len() + 1).sum();
        match self.with_file(|file| file.rotate(length).and_then(|()| file.append(lines))) {
            Ok(()) => Delivery::Delivered,
            Err(Fault::SetUp(reason)) => Delivery::Refused { reason },
            Err(Fault::NotWritten(_)) => Delivery::Retry { after: None },
            Err(Fault::Unclear(_)) => Delivery::Unknown,
        }
    }

    /// Asked every few seconds, which is how a file gets too old while nothing is written.
    async fn health(&self) -> Health {
        if self.health.get() == Health::Ok {
            let _set = self.with_file(|file| file.rotate(0));
        }
        self.health.get()
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        self.with_file(Appender::close).map_err(|fault| fault.to_string().into())
    }
}
