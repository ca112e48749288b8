//! The data directory: lock, generated token, and the note by which commands find a running gateway.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use magicapi_model::Secret;
use magicapi_store::{DataDirLock, LockError};
use serde_json::json;

const TOKEN: &str = "admin.token";
const NOTE: &str = "gateway.json";

/// A data directory that this process may write, and holds alone.
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: DataDirLock,
}

/// Why there is none.
pub(crate) enum Unusable {
    /// Another process holds it: refuse to start.
    Taken(String),
    /// It cannot be written: go on without store and spool, if the configuration allows that.
    ReadOnly(String),
}

impl DataDir {
    /// Makes the directory if need be and takes the lock.
    pub(crate) fn open(path: &Path) -> Result<Self, Unusable> {
        let unwritable = |error: &io::Error| {
            Unusable::ReadOnly(format!("the data directory {} cannot be written: {error}", path.display()))
        };
        if !path.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| unwritable(&error))?;
        }
        let probe = path.join(".probe");
        private_file(&probe).map_err(|error| unwritable(&error))?;
        let _ = fs::remove_file(&probe);
        match DataDirLock::acquire(path) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(error) => Err(match error {
                LockError::Held { .. } => Unusable::Taken(error.to_string()),
                _ => Unusable::ReadOnly(error.to_string()),
            }),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The admin token of this directory; made at the first start, which the flag tells.
    pub(crate) fn token(&self) -> io::Result<(Secret, bool)> {
        let path = self.path.join(TOKEN);
        if let Ok(text) = fs::read_to_string(&path)
            && !text.trim().is_empty()
        {
            return Ok((Secret::new(text.trim()), false));
        }
        let token = magicapi_admin::generate_token().map_err(io::Error::other)?;
        let mut file = private_file(&path)?;
        writeln!(file, "{}", token.expose())?;
        Ok((token, true))
    }

    /// Notes where the admin API is, for commands on this machine; removed with the guard.
    pub(crate) fn note(&self, admin: &str, token: &Secret) -> io::Result<Note> {
        let path = self.path.join(NOTE);
        let document = json!({ "admin": admin, "token": token.expose(), "pid": std::process::id() });
        // Written aside and renamed: a reader sees the whole note or none.
        let aside = self.path.join(".gateway.json.new");
        let mut file = private_file(&aside)?;
        writeln!(file, "{document}")?;
        fs::rename(&aside, &path)?;
        Ok(Note(path))
    }
}

/// Removes the note at the end.
pub(crate) struct Note(PathBuf);

impl Drop for Note {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn private_file(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
