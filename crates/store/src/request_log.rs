//! The exporter `request_log`: records become rows and compressed documents in the store.
//!
//! Encoding and compression happen on the exporter's own thread; the store's thread only writes. An export waits for
//! its commit, so `Delivered` means stored, and since rows are keyed by the record's id a batch may come again.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use magicapi_plugin::{Delivery, Health, RequestMetrics, TelemetryExporter, async_trait};
use rusqlite::{Connection, Transaction, TransactionBehavior, params, params_from_iter};
use tokio::sync::oneshot;
use zstd::bulk::Compressor;

use crate::queue::Shared;
use crate::row::{self, INSERT};
use crate::value::integer;

/// The exporter's name: in configuration, metrics and logs.
pub const REQUEST_LOG: &str = "request_log";

/// The fastest: the exporter has one thread, and JSON shrinks well at any level.
const LEVEL: i32 = 1;

/// The largest buffer that is kept for the next document.
const KEPT: usize = 1 << 20;

/// How soon a batch that was not taken may come again.
const AGAIN: Duration = Duration::from_secs(1);

const INSERT_BODY: &str = "INSERT INTO request_log_body (seq, length, document) VALUES (?, ?, ?)";

/// The exporter that writes into an open [`crate::Store`].
///
/// It is made by [`crate::Store::request_log`], not by a registered plug-in: a plug-in gets settings and a
/// [`magicapi_plugin::Host`], and neither leads to the store.
pub struct RequestLog {
    shared: Arc<Shared>,
    packer: Mutex<Option<Packer>>,
}

/// Compresses documents. Its tables and its buffers, as large as the worst case, serve all of them.
struct Packer {
    zstd: Compressor<'static>,
    json: Vec<u8>,
    packed: Vec<u8>,
}

/// A record on its way to the store.
#[derive(Debug)]
pub(crate) struct LogEntry {
    record: Arc<RequestMetrics>,
    metadata: String,
    /// Of the document, not compressed.
    length: usize,
    document: Vec<u8>,
    stored_bytes: usize,
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
        let Ok(entries) = self.encode(batch) else {
            // Out of memory for the compressor: fewer at once, later.
            return again;
        };
        let (done, wait) = oneshot::channel();
        let bytes = entries.iter().map(LogEntry::memory).sum();
        match self.shared.push_log(LogBatch { entries, bytes, done }) {
            // A sender that is dropped wrote nothing, or wrote what the next try finds there.
            Ok(()) => wait.await.unwrap_or(again),
            Err(_refused) => again,
        }
    }

    async fn health(&self) -> Health {
        match self.shared.trouble() {
            Some(trouble) if self.shared.storage_failed() => Health::Down(trouble),
            Some(trouble) => Health::Degraded(trouble),
            None => Health::Ok,
        }
    }
}

impl RequestLog {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, packer: Mutex::default() }
    }

    fn encode(&self, batch: &[Arc<RequestMetrics>]) -> std::io::Result<Vec<LogEntry>> {
        // Nobody else asks: the pipeline exports one batch at a time.
        let mut packer = self.packer.lock().unwrap_or_else(PoisonError::into_inner);
        let packer = match &mut *packer {
            Some(packer) => packer,
            none => {
                none.insert(Packer { zstd: Compressor::new(LEVEL)?, json: Vec::new(), packed: Vec::new() })
            }
        };
        batch.iter().map(|record| packer.entry(record)).collect()
    }
}

impl Packer {
    fn entry(&mut self, record: &Arc<RequestMetrics>) -> std::io::Result<LogEntry> {
        self.json.clear();
        for piece in record.otel_log_pieces() {
            self.json.extend_from_slice(piece);
        }
        let length = self.json.len();
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(length));
        self.zstd.compress_to_buffer(&self.json, &mut self.packed)?;
        let document = self.packed.clone();
        for buffer in [&mut self.json, &mut self.packed] {
            if buffer.capacity() > KEPT {
                *buffer = Vec::new();
            }
        }
        let metadata = row::metadata(record.facts());
        let stored_bytes = row::own_bytes(record.facts(), &metadata) + row::file_share(document.len());
        Ok(LogEntry { record: record.clone(), metadata, length, document, stored_bytes })
    }
}

impl LogEntry {
    /// What it holds until it is written, but for the record itself, which the pipeline counts.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.metadata.capacity() + self.document.capacity()
    }
}

/// What a transaction brought in; records that were there already are not in it.
#[derive(Default)]
pub(crate) struct Stored {
    /// Where the new rows stand.
    pub(crate) seqs: Range<i64>,
    pub(crate) rows: u64,
    pub(crate) bytes: i64,
}

/// Writes entries in one transaction.
pub(crate) fn insert(conn: &mut Connection, entries: &[LogEntry]) -> rusqlite::Result<Stored> {
    let batch = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut stored = Stored::default();
    {
        let mut row = batch.prepare_cached(INSERT)?;
        let mut body = batch.prepare_cached(INSERT_BODY)?;
        for entry in entries {
            let facts = entry.record.facts();
            let id = facts.id.to_string();
            let values = row::values(facts, &id, &entry.metadata, entry.stored_bytes);
            if row.execute(params_from_iter(values))? == 0 {
                continue;
            }
            let seq = batch.last_insert_rowid();
            body.execute(params![seq, integer(entry.length as u64), entry.document])?;
            let first = if stored.rows == 0 { seq } else { stored.seqs.start };
            stored.seqs = first..seq + 1;
            stored.rows += 1;
            stored.bytes += integer(entry.stored_bytes as u64);
        }
    }
    add_bytes(&batch, stored.bytes)?;
    batch.commit()?;
    Ok(stored)
}

/// Keeps the sum of `stored_bytes`.
pub(crate) fn add_bytes(batch: &Transaction<'_>, bytes: i64) -> rusqlite::Result<()> {
    batch
        .prepare_cached("UPDATE store_state SET value = max(0, value + ?) WHERE key = 'log_bytes'")?
        .execute([bytes])
        .map(drop)
}
