//! The lock on `data_dir`: SQLite files and spool belong to one process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// The lock file's name.
const NAME: &str = "lock";

/// Holds a data directory for this process until it is dropped.
///
/// The file stays: removing it would let a third process lock a new file of the same name while a second one waits on
/// the old. It is the system's lock on it that counts, so a crash leaves nothing to clean up.
#[derive(Debug)]
pub struct DataDirLock {
    file: File,
    path: PathBuf,
}

/// The data directory cannot be held.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{dir} is in use by another gateway{}; stop it, or give this one a directory of its own with DATA_DIR",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Held {
        /// The data directory.
        dir: PathBuf,
        /// The process that has it, when its file can be read.
        pid: Option<u32>,
    },
    /// The lock file cannot be made or locked.
    #[error("{path}: {source}; make the directory writable, or choose another with DATA_DIR")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LockError {
    /// The process that has the directory, as far as known.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Held { pid, .. } => *pid,
            Self::Io { .. } => None,
        }
    }
}

impl DataDirLock {
    /// Takes the directory, making it when it is not there (readable by this user alone).
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(NAME);
        let failed = |source| LockError::Io { path: path.clone(), source };
        make_private_dir(dir).map_err(failed)?;
        let mut file = open_private(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Where locks are mandatory the file cannot be read; then the process stays unnamed.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held { dir: dir.to_path_buf(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { file, path })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // Closing the file frees the lock as well; an empty file names nobody in the meantime.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// Makes a directory that only this user can enter; one that exists is left as it is.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Opens a file that only this user can read, making it when it is not there.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::{DataDirLock, LockError};

    #[test]
    fn a_second_holder_is_refused_by_pid_and_the_directory_is_free_after_the_first() {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("data");
        let first = DataDirLock::acquire(&dir).expect("free");
        let refused = DataDirLock::acquire(&dir).expect_err("held");
        assert_eq!(refused.pid(), Some(std::process::id()));
        assert!(matches!(&refused, LockError::Held { .. }));
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        drop(DataDirLock::acquire(&dir).expect("free again"));
    }

    #[cfg(unix)]
    #[test]
    fn directory_and_file_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("data");
        let lock = DataDirLock::acquire(&dir).expect("free");
        let mode = |path: &std::path::Path| path.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(lock.path())), (0o700, 0o600));
    }
}
