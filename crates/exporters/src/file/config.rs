//! Settings of the exporter `file`, and what they mean once they have been checked.

use std::path::PathBuf;

use magicapi_plugin::ConfigError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::appender::Appender;
use crate::archive::Compression;
use crate::rotation::Rotate;

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
    #[schemars(extend("x-unique" = true))]
    pub path: PathBuf,
    /// When a batch is forced onto the disk: `never` leaves it to the operating system, `batch` waits for it.
    pub fsync: Fsync,
    /// When the file is rotated: at a `size`, at an `age`; how many are kept (`keep`) and how long (`keep_for`). Unset:
    /// never, one file grows.
    pub rotate: Rotate,
    /// How rotated files are packed.
    pub compression: Compression,
}

impl FileSettings {
    /// Checks everything that can be checked without touching a disk.
    pub(super) fn validate(self) -> Result<Appender, ConfigError> {
        let Self { path, fsync, rotate, compression } = self;
        if path.as_os_str().is_empty() {
            return Err(ConfigError::new("path", "missing; expected a file such as records.jsonl"));
        }
        if path.to_string_lossy().ends_with('/') || path.file_name().is_none() {
            let problem = format!("{} is a directory; expected a file", path.display());
            return Err(ConfigError::new("path", problem));
        }
        let rotation = rotate.validate(path.clone(), compression)?;
        Ok(Appender::new(path, fsync == Fsync::Batch, rotation))
    }
}
