//! The exporter `request_log`: records become rows and compressed documents in the store.
//!
//! Encoding and compression happen on the exporter's own thread; the store's thread only writes. An export waits for
//! its commit, so `Delivered` means stored, and since rows are keyed by the record's id a batch may come again.

use std::sync::Arc;
use std::time::Duration;

use magicapi_kernel::LogRow;
use magicapi_plugin::{Delivery, Health, ItemOutcome, RequestMetrics, TelemetryExporter, async_trait};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use crate::queue::Shared;
use crate::row::{INSERT, integer, own_bytes, row_of, values};

/// The exporter's name: in configuration, metrics and logs.
pub const REQUEST_LOG: &str = "request_log";

/// The fastest: the exporter has one thread, and JSON shrinks well at any level.
const LEVEL: i32 = 1;

/// How soon a batch that was not taken may come again.
const AGAIN: Duration = Duration::from_secs(1);

const INSERT_BODY: &str = "INSERT INTO request_log_body (seq, length, document) VALUES (?, ?, ?)";

/// The exporter that writes into an open [`crate::Store`].
///
/// It is made by [`crate::Store::request_log`], not by a registered plug-in: a plug-in gets settings and a
/// [`magicapi_plugin::Host`], and neither leads to the store.
pub struct RequestLog(pub(crate) Arc<Shared>);

/// A record on its way to the store.
#[derive(Debug)]
pub(crate) struct LogEntry {
    pub(crate) row: LogRow,
    /// Of the document, not compressed.
    length: usize,
    document: Vec<u8>,
}

/// Records that are stored together, and who waits for them.
#[derive(Debug)]
pub(crate) struct LogBatch {
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) bytes: usize,
    pub(crate) done: oneshot::Sender<Delivery>,
}

#[async_trait]
impl TelemetryExporter for RequestLog {
    fn name(&self) -> &str {
        REQUEST_LOG
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        let again = Delivery::Retry { after: Some(AGAIN) };
        let Ok(entries) = encode(batch) else {
            // Out of memory for the compressor: fewer at once, later.
            return again;
        };
        let (done, wait) = oneshot::channel();
        let bytes = entries.iter().map(LogEntry::memory).sum();
        match self.0.push_log(LogBatch { entries, bytes, done }) {
            // A sender that is dropped wrote nothing, or wrote what the next try finds there.
            Ok(()) => wait.await.unwrap_or(again),
            Err(_refused) => again,
        }
    }

    async fn health(&self) -> Health {
        match self.0.waiting().3 {
            Some(trouble) if self.0.storage_failed() => Health::Down(trouble),
            Some(trouble) => Health::Degraded(trouble),
            None => Health::Ok,
        }
    }
}

impl LogEntry {
    fn memory(&self) -> usize {
        size_of::<Self>() + own_bytes(&self.row) + self.document.capacity()
    }
}

fn encode(batch: &[Arc<RequestMetrics>]) -> std::io::Result<Vec<LogEntry>> {
    let mut zstd = zstd::bulk::Compressor::new(LEVEL)?;
    batch
        .iter()
        .map(|record| {
            let json = record.otel_log_json();
            let mut document = zstd.compress(&json)?;
            // It was made as large as the worst case.
            document.shrink_to_fit();
            Ok(LogEntry { row: row_of(record.facts(), document.len()), length: json.len(), document })
        })
        .collect()
}

/// Writes entries in one transaction. Fills in `seq` of those that are new; the others are there already and keep 0.
pub(crate) fn insert(conn: &mut Connection, entries: &mut [LogEntry]) -> rusqlite::Result<i64> {
    let batch = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut bytes = 0;
    for entry in entries.iter_mut() {
        entry.row.seq = insert_one(&batch, entry)?.unwrap_or(0);
        if entry.row.seq != 0 {
            bytes += integer(entry.row.stored_bytes);
        }
    }
    add_bytes(&batch, bytes)?;
    batch.commit()?;
    Ok(bytes)
}

fn insert_one(batch: &Transaction<'_>, entry: &LogEntry) -> rusqlite::Result<Option<i64>> {
    if batch.prepare_cached(INSERT)?.execute(values(&entry.row))? == 0 {
        return Ok(None);
    }
    let seq = batch.last_insert_rowid();
    let length = integer(entry.length as u64);
    batch.prepare_cached(INSERT_BODY)?.execute(params![seq, length, entry.document])?;
    Ok(Some(seq))
}

/// Keeps the sum of `stored_bytes`.
pub(crate) fn add_bytes(batch: &Transaction<'_>, bytes: i64) -> rusqlite::Result<()> {
    batch
        .prepare_cached("UPDATE store_state SET value = max(0, value + ?) WHERE key = 'log_bytes'")?
        .execute([bytes])
        .map(drop)
}

/// One outcome per record: stored, or refused for good.
pub(crate) fn outcome(result: Result<(), &rusqlite::Error>) -> ItemOutcome {
    match result {
        Ok(()) => ItemOutcome::Delivered,
        Err(error) => ItemOutcome::Rejected { reason: error.to_string() },
    }
}
