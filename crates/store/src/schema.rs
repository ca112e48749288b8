//! The database file: how it is opened, what is in it, how it gets from one version to the next.
//!
//! A migration runs when the store opens, before the gateway listens, so it may only do what costs the same on an
//! empty file and on one with 100 million rows: make tables, add nullable columns, drop indexes. What has to touch
//! rows belongs on the store's thread, in small steps beside the traffic.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::StoreError;
use crate::lock::{make_private_dir, open_private};

/// Marks the file as ours: "MAGI".
const APPLICATION_ID: i32 = 0x4d41_4749;

/// What makes each version of the one before; the file's `user_version` says which it has.
const MIGRATIONS: [(i32, &str); 1] = [(VERSION, V1)];

/// The version that this program writes and reads.
pub(crate) const VERSION: i32 = 1;

/// Times are Unix milliseconds, money is 10⁻¹² US dollars, NULL is unknown.
///
/// `seq` counts arrivals: requests are logged when they end, so the order of `timestamp` cannot be followed.
/// AUTOINCREMENT, so that a number does not come back after retention emptied the table. `stored_bytes` is a row's
/// share of the file; `store_state.log_bytes` is its sum, kept in the same transactions, so that nothing is ever
/// counted through.
const V1: &str = "
CREATE TABLE request_log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    timestamp INTEGER NOT NULL,
    provider TEXT,
    model TEXT,
    requested_model TEXT,
    operation TEXT NOT NULL,
    outcome TEXT NOT NULL,
    status TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    latency INTEGER NOT NULL,
    ttfb INTEGER,
    input_tokens INTEGER,
    output_tokens INTEGER,
    total_tokens INTEGER,
    cost INTEGER,
    path TEXT NOT NULL,
    method TEXT NOT NULL,
    key_name TEXT,
    project_id TEXT,
    org_id TEXT,
    user_id TEXT,
    thread_id TEXT,
    streamed INTEGER NOT NULL,
    error_type TEXT,
    error_message TEXT,
    stored_bytes INTEGER NOT NULL,
    metadata TEXT NOT NULL
) STRICT;
CREATE INDEX request_log_time ON request_log (timestamp);
CREATE INDEX request_log_errors ON request_log (timestamp) WHERE status = 'error';

CREATE TABLE request_log_body (
    seq INTEGER PRIMARY KEY,
    length INTEGER NOT NULL,
    document BLOB NOT NULL
) STRICT;

CREATE TABLE ledger_request (
    id TEXT NOT NULL PRIMARY KEY,
    timestamp INTEGER NOT NULL,
    key_name TEXT,
    project_id TEXT,
    org_id TEXT,
    user_id TEXT,
    provider TEXT,
    model TEXT,
    operation TEXT NOT NULL,
    outcome TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    input INTEGER,
    cache_read INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER,
    input_audio INTEGER,
    input_image INTEGER,
    output INTEGER,
    output_reasoning INTEGER,
    output_audio INTEGER,
    output_image INTEGER,
    reported_cost INTEGER,
    usage_final INTEGER NOT NULL,
    cost INTEGER,
    price_version TEXT,
    service_tier TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_request_time ON ledger_request (timestamp);

CREATE TABLE ledger_attempt (
    request_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    provider TEXT NOT NULL,
    model TEXT,
    status_code INTEGER NOT NULL,
    error_type TEXT,
    latency INTEGER NOT NULL,
    input INTEGER,
    cache_read INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER,
    input_audio INTEGER,
    input_image INTEGER,
    output INTEGER,
    output_reasoning INTEGER,
    output_audio INTEGER,
    output_image INTEGER,
    reported_cost INTEGER,
    cost INTEGER,
    PRIMARY KEY (request_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE store_state (
    key TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO store_state VALUES ('log_bytes', 0);
";

/// Opens the file for writing, makes or migrates it. Work does not grow with what is in it.
pub(crate) fn open_writer(path: &Path, busy: Duration) -> Result<Connection, StoreError> {
    make_private(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let wrap = |source| StoreError::sqlite(path, source);
    let mut conn = Connection::open_with_flags(path, flags).map_err(wrap)?;
    conn.busy_timeout(busy).map_err(wrap)?;
    let version = version(&conn, path)?;
    if version == 0 {
        // Must come before anything else is in the file.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(wrap)?;
        if pragma(&conn, "page_count").map_err(wrap)? > 0 {
            conn.execute_batch("VACUUM").map_err(wrap)?;
        }
    }
    // NORMAL: a commit survives the process; a power cut can cost the last ones, never the file. 4000 pages: a page that
    // many rows fill one after the other is carried over once. The limit cuts a log that a large batch made long.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 67108864; \
         PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -8192; PRAGMA trusted_schema = OFF;",
    )
    .map_err(wrap)?;
    if version < VERSION {
        migrate(&mut conn).map_err(wrap)?;
    }
    Ok(conn)
}

/// Opens the file for reading, beside the gateway or without it.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing { path: path.to_path_buf() });
    }
    let wrap = |source| StoreError::sqlite(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(wrap)?;
    conn.busy_timeout(Duration::from_secs(2)).map_err(wrap)?;
    let found = version(&conn, path)?;
    if found < VERSION {
        return Err(StoreError::OlderVersion { path: path.to_path_buf(), found, known: VERSION });
    }
    conn.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA query_only = ON;").map_err(wrap)?;
    Ok(conn)
}

/// Writes something small, to see whether that works.
pub(crate) fn probe(conn: &Connection) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO store_state VALUES ('probes', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1";
    conn.execute(sql, []).map(drop)
}

/// A pragma that is one number.
pub(crate) fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

/// The file's version; an error when it is not ours or newer. 0 is an empty file.
fn version(conn: &Connection, path: &Path) -> Result<i32, StoreError> {
    let wrap = |source| StoreError::sqlite(path, source);
    let found = i32::try_from(pragma(conn, "user_version").map_err(wrap)?).unwrap_or(i32::MAX);
    let owner = pragma(conn, "application_id").map_err(wrap)?;
    let tables: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(wrap)?;
    let empty = owner == 0 && found == 0 && tables == 0;
    if owner != i64::from(APPLICATION_ID) && !empty {
        return Err(StoreError::Foreign { path: path.to_path_buf() });
    }
    if found > VERSION {
        return Err(StoreError::NewerVersion { path: path.to_path_buf(), found, known: VERSION });
    }
    Ok(found)
}

/// Brings the file to [`VERSION`], each version in a transaction of its own.
fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    for (version, script) in MIGRATIONS {
        let step = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Asked under the lock: another process may be at it too.
        if pragma(&step, "user_version")? >= i64::from(version) {
            continue;
        }
        step.execute_batch(script)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", version)?;
        step.commit()?;
    }
    Ok(())
}

/// The file holds whole conversations: its owner alone may read it. SQLite gives its side files the same mode.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let made = make_private_dir(dir).and_then(|()| match open_private(path) {
        #[cfg(unix)]
        Ok(file) => {
            use std::os::unix::fs::PermissionsExt as _;
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            }
            Ok(())
        }
        #[cfg(not(unix))]
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    });
    made.map_err(|source| match (source.kind(), path.exists()) {
        (std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem, true) => {
            StoreError::ReadOnly { path: path.to_path_buf() }
        }
        _ => StoreError::Create { path: path.to_path_buf(), source },
    })
}
