//! The data directory: lock, generated token, and the note by which commands find a running gateway.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use magicapi_config::{Loaded, OnFull, StoreUrl};
use magicapi_model::Secret;
use magicapi_store::{DataDirLock, LockError, Store, StoreOptions};
use serde_json::json;

const TOKEN: &str = "admin.token";
/// The note's name.
pub(crate) const NOTE: &str = "gateway.json";

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
            Unusable::ReadOnly(format!(
                "the data directory {} cannot be written ({error}); make it writable for this user, or choose another with \
                 DATA_DIR",
                path.display()
            ))
        };
        if !path.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| unwritable(&error))?;
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

    /// The admin token of this directory; made at the first start.
    fn token(&self) -> io::Result<Token> {
        let path = self.path.join(TOKEN);
        if let Ok(text) = fs::read_to_string(&path)
            && !text.trim().is_empty()
        {
            return Ok(Token::Known(Secret::new(text.trim())));
        }
        let token = magicapi_admin::generate_token().map_err(io::Error::other)?;
        let mut file = private_file(&path)?;
        writeln!(file, "{}", token.expose())?;
        Ok(Token::Kept(token, path))
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

/// Data directory and store, as far as they can be had. What is missing is said once and listed as degraded.
pub(crate) struct Data {
    /// The directory; `None` when it cannot be written.
    pub(crate) dir: Option<DataDir>,
    /// The store; `None` without a directory and with `store.url: none`.
    pub(crate) store: Option<Arc<Store>>,
    /// What is missing.
    pub(crate) degraded: Vec<String>,
}

impl Data {
    /// Opens both.
    pub(crate) fn open(loaded: &Loaded) -> Result<Self, String> {
        let config = &loaded.config;
        let mut degraded = Vec::new();
        let dir = match DataDir::open(&config.data_dir) {
            Ok(dir) => Some(dir),
            Err(Unusable::Taken(problem)) => return Err(problem),
            Err(Unusable::ReadOnly(problem)) => {
                if config.ledger.explicit && config.ledger.on_full == OnFull::Refuse {
                    return Err(format!(
                        "{problem}; `ledger.on_full: refuse` wants a store that can be written"
                    ));
                }
                if config.telemetry.durable.is_some() {
                    return Err(format!(
                        "{problem}; `telemetry.durable` wants a journal that can be written"
                    ));
                }
                tracing::warn!("{problem}; going on without store and spool: spend is counted, not written");
                degraded.push(problem);
                None
            }
        };
        let store = match (&config.store.url, &dir) {
            (StoreUrl::Sqlite(path), Some(dir)) => {
                let options = StoreOptions {
                    path: path.clone(),
                    retention_age: config.store.retention.age,
                    retention_size: config.store.retention.size,
                    journal: Some(dir.path().join("journal").join("ledger")),
                };
                Some(Arc::new(Store::open(options).map_err(|error| error.to_string())?))
            }
            _ => None,
        };
        Ok(Self { dir, store, degraded })
    }
}

/// The admin token, and how its user can come to know it.
pub(crate) enum Token {
    /// Configured, or made by an earlier start.
    Known(Secret),
    /// Made just now and kept in this file.
    Kept(Secret, PathBuf),
    /// Made just now and kept nowhere.
    OfThisRun(Secret),
}

impl Token {
    /// The token itself.
    pub(crate) fn secret(&self) -> &Secret {
        match self {
            Self::Known(token) | Self::Kept(token, _) | Self::OfThisRun(token) => token,
        }
    }

    /// The line that shows it, when there is somebody to read it or no other place to find it.
    pub(crate) fn shown(&self, at_a_terminal: bool) -> Option<String> {
        match self {
            Self::Kept(token, path) if at_a_terminal => {
                Some(format!("admin token (kept in {}): {}", path.display(), token.expose()))
            }
            Self::OfThisRun(token) => Some(format!("admin token: {}", token.expose())),
            Self::Known(_) | Self::Kept(..) => None,
        }
    }
}

/// The admin token: configured, else the directory's own, else one for this run.
pub(crate) fn admin_token(
    configured: Option<&Secret>,
    dir: Option<&DataDir>,
    degraded: &mut Vec<String>,
) -> Result<Token, String> {
    if let Some(token) = configured {
        return Ok(Token::Known(token.clone()));
    }
    match dir.map(DataDir::token) {
        Some(Ok(found)) => return Ok(found),
        Some(Err(error)) => degraded.push(format!("the admin token could not be kept: {error}")),
        None => {}
    }
    let token =
        magicapi_admin::generate_token().map_err(|error| format!("no admin token could be made: {error}"))?;
    Ok(Token::OfThisRun(token))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_token_is_shown_at_a_terminal_or_when_it_is_kept_nowhere() {
        let secret = || Secret::new("tok");
        let kept = Token::Kept(secret(), "data/admin.token".into());
        assert_eq!(kept.shown(true).as_deref(), Some("admin token (kept in data/admin.token): tok"));
        assert_eq!(kept.shown(false), None);
        for at_a_terminal in [true, false] {
            let shown = Token::OfThisRun(secret()).shown(at_a_terminal);
            assert_eq!(shown.as_deref(), Some("admin token: tok"));
            assert_eq!(Token::Known(secret()).shown(at_a_terminal), None);
        }
    }
}
