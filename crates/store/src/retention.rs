//! Keeps the request log within its age and its size, in steps small enough that no write waits long for one.
//!
//! Each step is one short transaction on the store's thread, between two writes: delete some of the oldest rows, or
//! give some free pages back to the file system. The ledger is never touched. The size bounds the log's own share of
//! the file, free pages included: were the ledger counted too, a ledger that has grown for years would leave the log
//! no room.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, TransactionBehavior};

use crate::limits::Bounds;
use crate::request_log::add_bytes;
use crate::schema::pragma;
use crate::value::{integer, unix_ms};

/// Rows deleted in one step, at most.
const STEP_ROWS: i64 = 256;
/// Bytes deleted in one step; the row that crosses the line goes too.
const STEP_BYTES: i64 = 8 << 20;
/// Bytes that make way for the ledger at a time.
const WAY_BYTES: i64 = 1 << 20;
/// Pages given back in one step.
const STEP_PAGES: i64 = 512;
/// Free pages that are kept, at most: new rows fill them without growing the file.
const KEEP_FREE: i64 = 64 << 20;

/// What retention knows between its steps.
#[derive(Debug)]
pub(crate) struct Retention {
    log_bytes: i64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing was due.
    Done,
    /// This many rows went.
    Deleted(u64),
    /// Pages went back to the file system.
    Shrunk,
}

impl Retention {
    /// Reads the sum that the file keeps; no row is looked at.
    pub(crate) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let sum = "SELECT value FROM store_state WHERE key = 'log_bytes'";
        Ok(Self { log_bytes: conn.query_row(sum, [], |row| row.get(0))? })
    }

    /// Rows came in.
    pub(crate) fn grew(&mut self, bytes: i64) {
        self.log_bytes += bytes;
    }

    /// Whether the log is over its size.
    pub(crate) fn over(&self, bounds: Bounds) -> bool {
        self.log_bytes > goal(bounds)
    }

    /// Does one thing that is due.
    pub(crate) fn step(&mut self, conn: &mut Connection, bounds: Bounds) -> rusqlite::Result<Step> {
        let oldest_kept = SystemTime::now().checked_sub(bounds.age).map_or(0, unix_ms);
        let deleted = match self.delete(conn, oldest_kept, STEP_BYTES)? {
            0 if self.over(bounds) => {
                let excess = self.log_bytes - goal(bounds);
                self.delete(conn, i64::MAX, excess.min(STEP_BYTES))?
            }
            deleted => deleted,
        };
        if deleted > 0 {
            return Ok(Step::Deleted(deleted));
        }
        shrink(conn, bounds)
    }

    /// Deletes some of the oldest rows whatever their age: on a full disk the log makes way for the ledger.
    pub(crate) fn give_way(&mut self, conn: &mut Connection) -> rusqlite::Result<u64> {
        self.delete(conn, i64::MAX, WAY_BYTES)
    }

    /// Deletes rows older than `before`, the oldest first, until about `bytes` are free or the step is long enough.
    fn delete(&mut self, conn: &mut Connection, before: i64, bytes: i64) -> rusqlite::Result<u64> {
        let victims = oldest(conn, before, bytes)?;
        if victims.is_empty() {
            return Ok(0);
        }
        let batch = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut freed = 0;
        for (seq, bytes) in &victims {
            batch.prepare_cached("DELETE FROM request_log WHERE seq = ?")?.execute([seq])?;
            batch.prepare_cached("DELETE FROM request_log_body WHERE seq = ?")?.execute([seq])?;
            freed += bytes;
        }
        add_bytes(&batch, -freed)?;
        batch.commit()?;
        self.log_bytes = (self.log_bytes - freed).max(0);
        Ok(victims.len() as u64)
    }
}

/// Gives some free pages back, when there are more than are kept.
fn shrink(conn: &Connection, bounds: Bounds) -> rusqlite::Result<Step> {
    let page = pragma(conn, "page_size")?;
    let before = pragma(conn, "freelist_count")?;
    if before * page <= spare(bounds) {
        return Ok(Step::Done);
    }
    conn.execute_batch(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
    let after = pragma(conn, "freelist_count")?;
    if after * page <= spare(bounds) {
        // The file itself shrinks when the write-ahead log is carried over.
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    }
    // A file that some other tool rebuilt without room for this must not keep the thread busy.
    Ok(if after < before { Step::Shrunk } else { Step::Done })
}

/// Free pages that stay in the file.
fn spare(bounds: Bounds) -> i64 {
    (integer(bounds.size) / 8).min(KEEP_FREE)
}

/// What the rows may take, so that with the free pages the log keeps to its size.
fn goal(bounds: Bounds) -> i64 {
    integer(bounds.size) - spare(bounds)
}

/// The oldest rows before a time, as many as one step may delete.
fn oldest(conn: &Connection, before: i64, enough: i64) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, stored_bytes FROM request_log WHERE timestamp < ?1 ORDER BY timestamp, seq LIMIT ?2",
    )?;
    let mut rows = statement.query([before, STEP_ROWS])?;
    let (mut victims, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let victim: (i64, i64) = (row.get(0)?, row.get(1)?);
        bytes += victim.1;
        victims.push(victim);
        if bytes >= enough {
            break;
        }
    }
    Ok(victims)
}

/// How long to leave a file alone that could not be tidied.
pub(crate) const AFTER_TROUBLE: Duration = Duration::from_secs(5);
