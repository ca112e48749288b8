//! Rotation of a file that an exporter writes: the settings, when it is due, and who looks after what was put away.

use std::fs::Metadata;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use magicapi_plugin::{ConfigError, Size, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::archive::{Archive, Archivist, Compression};

/// When the file is put away under another name and a new one begun, and how long such files are kept.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// The file becomes no larger, unless a single batch is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// How long one file is written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<Span>,
    /// How many rotated files are kept; unset: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
    /// How long rotated files are kept; unset: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_for: Option<Span>,
}

impl Rotate {
    /// The rotation of the file at `path`; `None` when it is not to be rotated.
    pub(crate) fn validate(
        self,
        path: PathBuf,
        compression: Compression,
    ) -> Result<Option<Rotation>, ConfigError> {
        let (size, age) = (self.size.map(|size| size.0), self.age.map(|age| age.0));
        let keep_for = self.keep_for.map(|span| span.0);
        let zero = [
            ("rotate.size", size == Some(0)),
            ("rotate.age", age == Some(Duration::ZERO)),
            ("rotate.keep", self.keep == Some(0)),
            ("rotate.keep_for", keep_for == Some(Duration::ZERO)),
        ];
        if let Some((key, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(ConfigError::new(key, "must be more than 0; leave it out for no limit"));
        }
        let rotates = size.is_some() || age.is_some();
        let idle = [
            ("rotate.keep", self.keep.is_some()),
            ("rotate.keep_for", keep_for.is_some()),
            ("compression", compression != Compression::None),
        ];
        if let Some((key, _)) = idle.into_iter().find(|(_, is_set)| *is_set && !rotates) {
            let problem = "is about rotated files, and there are none: set `rotate.size` or `rotate.age`";
            return Err(ConfigError::new(key, problem));
        }
        let archive = Archive::new(path, compression, self.keep, keep_for);
        let opened = SystemTime::now();
        Ok(rotates.then(|| Rotation { size, age, archive, archivist: None, opened, trouble: None }))
    }
}

/// When a file is put away, and what becomes of it then.
pub(crate) struct Rotation {
    size: Option<u64>,
    age: Option<Duration>,
    archive: Archive,
    archivist: Option<Archivist>,
    /// When this process opened the file: its age where the file system knows no other.
    opened: SystemTime,
    /// Why the file could not be put away.
    trouble: Option<String>,
}

impl Rotation {
    /// Starts to look after what was put away, earlier too. For the holder of the file's lock alone.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        if self.archivist.is_none() {
            self.archivist = Some(Archivist::start(self.archive.clone())?);
        }
        Ok(())
    }

    /// Lets go of what was put away; returns once nothing of it is touched any more.
    pub(crate) fn stop(&mut self) {
        self.archivist = None;
    }

    /// The file was opened just now.
    pub(crate) fn opened(&mut self) {
        self.opened = SystemTime::now();
    }

    /// Puts the file away when it is old enough, or when `more` bytes would make it too large. What keeps that from
    /// happening costs no record: they go on in the same file.
    pub(crate) fn turn(&mut self, file: &Metadata, more: u64) {
        if !self.is_due(file, more) {
            return;
        }
        let moved = self.archive.put_away(SystemTime::now());
        let trouble = moved.err().map(|error| error.to_string());
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            warn!("file: {trouble}");
        }
        self.trouble = trouble;
        self.archivist.iter().for_each(Archivist::wake);
    }

    fn is_due(&self, file: &Metadata, more: u64) -> bool {
        let age = || file.created().unwrap_or(self.opened).elapsed().unwrap_or_default();
        let is_full = self.size.is_some_and(|size| more > 0 && file.len().saturating_add(more) > size);
        file.len() > 0 && (is_full || self.age.is_some_and(|limit| age() >= limit))
    }

    /// What is wrong although records are written.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}
