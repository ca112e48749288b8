//! Appends each record as one line of JSON to a file.
//!
//! **When to use it**: to keep records on the machine, or to hand them to a log shipper. Rotation is somebody else's:
//! when the file has been moved away or deleted, the next batch begins a new one; a file that was truncated goes on at
//! its beginning. So logrotate works with and without `copytruncate`.
//!
//! **Guarantee**: a batch is on the file (with `fsync: batch` on the disk) or not there at all: what a full disk took
//! of it is cut away again, and it is written later. A process that dies while writing leaves at most one torn line,
//! the last; the next record begins on a line of its own. After a failed `fsync` a batch may be there twice.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, RequestMetrics, Settings, SettingsSpec,
    TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::appender::{Appender, Fault};
use crate::health::LastHealth;

mod appender;
#[cfg(test)]
mod tests;

/// The plug-in `file`.
pub struct FilePlugin;

magicapi_plugin::register!(FilePlugin);

/// When a batch is forced onto the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// When the operating system sees fit: a crash of the machine may cost the last seconds.
    #[default]
    Never,
    /// Before a batch counts as delivered.
    Batch,
}

/// Settings of the exporter `file`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// File that records are appended to; required. Its directory must exist. A relative path starts at the working
    /// directory. A new file is readable by its owner alone.
    pub path: PathBuf,
    /// When a batch is forced onto the disk: `never` leaves it to the operating system, `batch` waits for it.
    pub fsync: Fsync,
}

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
        let FileSettings { path, fsync } = settings.read()?;
        if path.as_os_str().is_empty() {
            return Err(ConfigError::new("path", "missing; expected a file such as records.jsonl"));
        }
        if path.to_string_lossy().ends_with('/') || path.file_name().is_none() {
            return Err(ConfigError::new(
                "path",
                format!("{} is a directory; expected a file", path.display()),
            ));
        }
        Ok(Box::new(FileExporter {
            appender: Mutex::new(Appender::new(path, fsync == Fsync::Batch)),
            health: LastHealth::default(),
        }))
    }
}

struct FileExporter {
    appender: Mutex<Appender>,
    health: LastHealth,
}

impl FileExporter {
    fn with_file<T>(&self, act: impl FnOnce(&mut Appender) -> Result<T, Fault>) -> Result<T, Fault> {
        let result = act(&mut self.appender.lock().unwrap_or_else(PoisonError::into_inner));
        self.health.set(match &result {
            Ok(_) => Health::Ok,
            Err(fault) => Health::Down(fault.to_string()),
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
        match self.with_file(|file| file.append(lines)) {
            Ok(()) => Delivery::Delivered,
            Err(Fault::SetUp(reason)) => Delivery::Refused { reason },
            Err(Fault::NotWritten(_)) => Delivery::Retry { after: None },
            Err(Fault::Unclear(_)) => Delivery::Unknown,
        }
    }

    async fn health(&self) -> Health {
        self.health.get()
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        self.with_file(Appender::close).map_err(|fault| fault.to_string().into())
    }
}
