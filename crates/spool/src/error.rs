//! Why a file could not be written or read.

use std::io;
use std::path::{Path, PathBuf};

/// What a file that ends too early is called.
const CUT_SHORT: &str = "cut short";

/// What went wrong with a spool's file.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It would grow past its bound.
    #[error("{needed} more bytes do not fit: {used} of {limit} are in use")]
    Full {
        /// Bytes to be written.
        needed: u64,
        /// Bytes on disk now.
        used: u64,
        /// The bound.
        limit: u64,
    },
    /// The file is not what was written: cut short, or changed.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// The file is of a newer release.
    #[error("{}: format {version} is newer than this program; use the release that wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format version.
        version: u8,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SpoolError {
    /// Makes an I/O error say which file it is about.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Whether the file ends in the middle of something: what a kill leaves of the last write.
    pub fn is_cut_short(&self) -> bool {
        matches!(self, Self::Corrupt { what, .. } if what.starts_with(CUT_SHORT))
    }

    /// Whether a later release wrote the file.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. })
    }

    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the file itself is bad, so that reading it again is no use.
    pub fn is_about_content(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Newer { .. })
    }
}
