//! How much the store's queue may hold, and how long the store keeps what it wrote.

use std::time::Duration;

/// The bounds and times of the store; tests use smaller ones.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Ledger entries that may wait.
    pub(crate) entries: usize,
    /// Bytes that waiting ledger entries may take.
    pub(crate) bytes: usize,
    /// Bytes that waiting log batches may take; a batch alone may be larger.
    pub(crate) log_bytes: usize,
    /// Ledger entries in one transaction.
    pub(crate) batch: usize,
    /// How long the first entry waits for others.
    pub(crate) window: Duration,
    /// How long SQLite waits for another program's lock.
    pub(crate) busy: Duration,
    /// How often retention looks when nothing else makes it.
    pub(crate) tidy: Duration,
    /// The size at which the file is full; `None` leaves that to the disk.
    pub(crate) max_pages: Option<i64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 65_536,
            bytes: 64 << 20,
            log_bytes: 32 << 20,
            batch: 1024,
            window: Duration::from_millis(50),
            busy: Duration::from_secs(2),
            tidy: Duration::from_secs(10),
            max_pages: None,
        }
    }
}

/// How long the request log keeps what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) age: Duration,
    pub(crate) size: u64,
}
