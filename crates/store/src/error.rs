//! What can go wrong with the store, in words for the operator: the file, what is wrong with it, the remedy.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// The store cannot be opened, read or flushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file or its directory cannot be made.
    #[error(
        "{path}: cannot be created ({source}); make the directory writable, or choose another with DATA_DIR or store.url"
    )]
    Create {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing to read.
    #[error("{path}: no such file; the gateway makes it at its first start with a store")]
    Missing {
        /// The database file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{path}: not an SQLite database; move it away, or name another file in store.url")]
    NotADatabase {
        /// The database file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error(
        "{path}: damaged ({reason}); move it away to start with an empty store, `sqlite3 FILE .recover` saves what is left"
    )]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What is damaged.
        reason: String,
    },
    /// An SQLite database, but not a store.
    #[error("{path}: the database of another program; name another file in store.url")]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// Written by a newer gateway.
    #[error(
        "{path}: written by a newer version (schema {found}, this version knows {known}); run that version, or name another file in store.url"
    )]
    NewerVersion {
        /// The database file.
        path: PathBuf,
        /// The file's schema.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// Written by an older gateway; a reader does not migrate.
    #[error(
        "{path}: written by an older version (schema {found}, this version reads {known}); start the gateway once, it migrates the file"
    )]
    OlderVersion {
        /// The database file.
        path: PathBuf,
        /// The file's schema.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// It cannot be written.
    #[error("{path}: read-only; make the file and its directory writable for this user")]
    ReadOnly {
        /// The database file.
        path: PathBuf,
    },
    /// Another program holds it.
    #[error("{path}: locked by another program; stop the other gateway, or the tool that has it open")]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// Anything else that SQLite says.
    #[error("{path}: {source}")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The thread that writes cannot be started.
    #[error("the store's thread cannot be started ({0}); raise the limit on threads")]
    Thread(io::Error),
    /// A cursor that no page gave.
    #[error("not a cursor: `{0}`; pass `next` of the page before")]
    Cursor(String),
    /// Time was up before everything was written.
    #[error("{left} ledger entries were not written in time")]
    NotFlushed {
        /// How many.
        left: u64,
    },
}

impl StoreError {
    /// Puts SQLite's codes into words.
    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt { path, reason: source.to_string() },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            _ => Self::Sqlite { path, source },
        }
    }
}

/// What a failed write means for what waits behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Another program has the file; it passes.
    Busy,
    /// No room left.
    Full,
    /// The file or the disk is broken, gone or read-only.
    Storage,
    /// This row alone cannot be written.
    Row,
}

impl Trouble {
    pub(crate) fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OperationInterrupted) => {
                Self::Busy
            }
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) | None => {
                Self::Row
            }
            Some(_) => Self::Storage,
        }
    }
}
