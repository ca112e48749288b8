//! The spend ledger: rows in, rows out. Written by the store's thread, once per request id.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use magicapi_kernel::{AttemptRow, Ledger, LedgerEntry, RequestRow};
use magicapi_model::{Money, Usage};
use rusqlite::{Connection, Row, TransactionBehavior, params};
use serde::{Serialize, Serializer};

use crate::queue::Shared;
use crate::row::{clip, integer, money, pico, unix_ms, unsigned};

const INSERT_REQUEST: &str = "INSERT INTO ledger_request (id, timestamp, key_name, project_id, org_id, user_id, \
     provider, model, operation, outcome, status_code, input, cache_read, cache_write, cache_write_1h, input_audio, \
     input_image, output, output_reasoning, output_audio, output_image, reported_cost, usage_final, cost, \
     price_version, service_tier) \
     VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING";

const INSERT_ATTEMPT: &str = "INSERT INTO ledger_attempt (request_id, attempt, provider, model, status_code, \
     error_type, latency, input, cache_read, cache_write, cache_write_1h, input_audio, input_image, output, \
     output_reasoning, output_audio, output_image, reported_cost, cost) \
     VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (request_id, attempt) DO NOTHING";

/// The ledger's door to the store: hands entries to the queue and returns at once.
pub(crate) struct QueuedLedger(pub(crate) Arc<Shared>);

impl Ledger for QueuedLedger {
    fn ready(&self) -> bool {
        self.0.ready()
    }

    fn record(&self, entry: LedgerEntry) {
        self.0.push_ledger(entry);
    }
}

/// The ledger of a gateway that keeps none (`store.url: none`, or a data directory that cannot be written): always
/// ready, and it counts what it did not keep.
#[derive(Debug, Default)]
pub struct NoLedger(AtomicU64);

impl NoLedger {
    /// A ledger that keeps nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries it was given.
    pub fn missing(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Ledger for NoLedger {
    fn ready(&self) -> bool {
        true
    }

    fn record(&self, _entry: LedgerEntry) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What an entry takes in memory.
pub(crate) fn weight(entry: &LedgerEntry) -> usize {
    let request = &entry.request;
    let texts = [
        &request.key_name,
        &request.project_id,
        &request.org_id,
        &request.user_id,
        &request.provider,
        &request.model,
        &request.price_version,
        &request.service_tier,
    ];
    let texts: usize = texts.into_iter().flatten().map(String::capacity).sum();
    let attempts: usize = entry
        .attempts
        .iter()
        .map(|attempt| attempt.provider.capacity() + attempt.model.as_ref().map_or(0, String::capacity))
        .sum();
    size_of::<LedgerEntry>() + texts + attempts + entry.attempts.capacity() * size_of::<AttemptRow>()
}

/// Writes entries in one transaction. Returns how many were new: an id that is there already keeps its rows.
pub(crate) fn insert(conn: &mut Connection, entries: &VecDeque<LedgerEntry>) -> rusqlite::Result<u64> {
    let batch = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut new = 0;
    {
        let mut request = batch.prepare_cached(INSERT_REQUEST)?;
        let mut attempt = batch.prepare_cached(INSERT_ATTEMPT)?;
        for entry in entries {
            let id = entry.request.id.to_string();
            if insert_request(&mut request, &id, &entry.request)? == 0 {
                continue;
            }
            new += 1;
            for row in &entry.attempts {
                insert_attempt(&mut attempt, &id, row)?;
            }
        }
    }
    batch.commit()?;
    Ok(new)
}

fn insert_request(
    statement: &mut rusqlite::Statement<'_>,
    id: &str,
    row: &RequestRow,
) -> rusqlite::Result<usize> {
    let usage = Buckets::of(&row.usage);
    statement.execute(params![
        id,
        unix_ms(row.timestamp),
        clip(row.key_name.as_deref()),
        clip(row.project_id.as_deref()),
        clip(row.org_id.as_deref()),
        clip(row.user_id.as_deref()),
        clip(row.provider.as_deref()),
        clip(row.model.as_deref()),
        row.operation,
        row.outcome.as_str(),
        row.status_code,
        usage.0[0],
        usage.0[1],
        usage.0[2],
        usage.0[3],
        usage.0[4],
        usage.0[5],
        usage.0[6],
        usage.0[7],
        usage.0[8],
        usage.0[9],
        row.usage.reported_cost.map(pico),
        row.usage_final,
        row.cost.map(pico),
        clip(row.price_version.as_deref()),
        clip(row.service_tier.as_deref()),
    ])
}

fn insert_attempt(
    statement: &mut rusqlite::Statement<'_>,
    id: &str,
    row: &AttemptRow,
) -> rusqlite::Result<usize> {
    let usage = Buckets::of(&row.usage);
    statement.execute(params![
        id,
        row.attempt,
        clip(Some(&row.provider)),
        clip(row.model.as_deref()),
        row.status_code,
        row.error_type,
        integer(row.latency_ms),
        usage.0[0],
        usage.0[1],
        usage.0[2],
        usage.0[3],
        usage.0[4],
        usage.0[5],
        usage.0[6],
        usage.0[7],
        usage.0[8],
        usage.0[9],
        row.usage.reported_cost.map(pico),
        row.cost.map(pico),
    ])
}

/// The buckets in the order of the columns; NULL is unknown, never 0.
struct Buckets([Option<i64>; 10]);

impl Buckets {
    fn of(usage: &Usage) -> Self {
        Self(
            [
                usage.input,
                usage.cache_read,
                usage.cache_write,
                usage.cache_write_1h,
                usage.input_audio,
                usage.input_image,
                usage.output,
                usage.output_reasoning,
                usage.output_audio,
                usage.output_image,
            ]
            .map(|tokens| tokens.map(integer)),
        )
    }

    /// Reads ten buckets and the reported cost, from column `first` on.
    fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Usage> {
        let bucket = |nth: usize| row.get::<_, Option<i64>>(first + nth).map(|number| number.map(unsigned));
        Ok(Usage {
            input: bucket(0)?,
            cache_read: bucket(1)?,
            cache_write: bucket(2)?,
            cache_write_1h: bucket(3)?,
            input_audio: bucket(4)?,
            input_image: bucket(5)?,
            output: bucket(6)?,
            output_reasoning: bucket(7)?,
            output_audio: bucket(8)?,
            output_image: bucket(9)?,
            reported_cost: money(row.get(first + 10)?),
        })
    }
}

/// One request in the ledger, with its attempts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LedgerRow {
    /// The request's id.
    pub id: String,
    /// When the request's head had been read, in Unix milliseconds.
    pub timestamp_ms: i64,
    /// The virtual key's name.
    pub key_name: Option<String>,
    /// The key's project, else the caller's.
    pub project_id: Option<String>,
    /// The caller's organisation.
    pub org_id: Option<String>,
    /// The caller's user.
    pub user_id: Option<String>,
    /// The provider asked last.
    pub provider: Option<String>,
    /// The model sent last.
    pub model: Option<String>,
    /// `chat`, `embeddings`, …
    pub operation: String,
    /// How it ended.
    pub outcome: String,
    /// What the caller got.
    pub status_code: u16,
    /// Tokens, in disjoint buckets.
    pub usage: Usage,
    /// Whether the usage is final or a lower bound.
    pub usage_final: bool,
    /// What it cost; in JSON, 10⁻¹² US dollars.
    #[serde(rename = "cost_pico_usd", serialize_with = "units")]
    pub cost: Option<Money>,
    /// The price table used.
    pub price_version: Option<String>,
    /// The tier that the answer named.
    pub service_tier: Option<String>,
    /// One per attempt, in order.
    pub attempts: Vec<LedgerAttempt>,
}

/// One attempt in the ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LedgerAttempt {
    /// From 1.
    pub attempt: u32,
    /// The provider asked.
    pub provider: String,
    /// The model sent.
    pub model: Option<String>,
    /// The provider's status; 0 when it never answered.
    pub status_code: u16,
    /// Why it failed.
    pub error_type: Option<String>,
    /// Attempt begun → ended, in milliseconds.
    pub latency_ms: u64,
    /// Tokens of this attempt.
    pub usage: Usage,
    /// What it cost; in JSON, 10⁻¹² US dollars.
    #[serde(rename = "cost_pico_usd", serialize_with = "units")]
    pub cost: Option<Money>,
}

// serde hands fields over by reference.
#[allow(clippy::ref_option)]
fn units<S: Serializer>(cost: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
    cost.map(pico).serialize(serializer)
}

/// Requests of `times` (Unix milliseconds), oldest first, after the time and id of the last one seen.
pub(crate) fn rows(
    conn: &Connection,
    times: std::ops::Range<i64>,
    after: Option<(i64, &str)>,
    limit: usize,
) -> rusqlite::Result<Vec<LedgerRow>> {
    let mut requests = conn.prepare_cached(
        "SELECT id, timestamp, key_name, project_id, org_id, user_id, provider, model, operation, outcome, \
         status_code, input, cache_read, cache_write, cache_write_1h, input_audio, input_image, output, \
         output_reasoning, output_audio, output_image, reported_cost, usage_final, cost, price_version, service_tier \
         FROM ledger_request WHERE timestamp >= ?1 AND timestamp < ?2 AND (timestamp, id) > (?3, ?4) ORDER BY timestamp, id LIMIT ?5",
    )?;
    let after = after.unwrap_or((i64::MIN, ""));
    let bounds = params![times.start, times.end, after.0, after.1, integer(limit as u64)];
    let mut rows = requests.query_map(bounds, read_request)?.collect::<Result<Vec<_>, _>>()?;
    let mut attempts = conn.prepare_cached(
        "SELECT attempt, provider, model, status_code, error_type, latency, input, cache_read, cache_write, \
         cache_write_1h, input_audio, input_image, output, output_reasoning, output_audio, output_image, \
         reported_cost, cost FROM ledger_attempt WHERE request_id = ?1 ORDER BY attempt",
    )?;
    for row in &mut rows {
        row.attempts = attempts.query_map([&row.id], read_attempt)?.collect::<Result<_, _>>()?;
    }
    Ok(rows)
}

fn read_request(row: &Row<'_>) -> rusqlite::Result<LedgerRow> {
    Ok(LedgerRow {
        id: row.get(0)?,
        timestamp_ms: row.get(1)?,
        key_name: row.get(2)?,
        project_id: row.get(3)?,
        org_id: row.get(4)?,
        user_id: row.get(5)?,
        provider: row.get(6)?,
        model: row.get(7)?,
        operation: row.get(8)?,
        outcome: row.get(9)?,
        status_code: row.get(10)?,
        usage: Buckets::read(row, 11)?,
        usage_final: row.get(22)?,
        cost: money(row.get(23)?),
        price_version: row.get(24)?,
        service_tier: row.get(25)?,
        attempts: Vec::new(),
    })
}

fn read_attempt(row: &Row<'_>) -> rusqlite::Result<LedgerAttempt> {
    Ok(LedgerAttempt {
        attempt: row.get(0)?,
        provider: row.get(1)?,
        model: row.get(2)?,
        status_code: row.get(3)?,
        error_type: row.get(4)?,
        latency_ms: row.get::<_, i64>(5).map(unsigned)?,
        usage: Buckets::read(row, 6)?,
        cost: money(row.get(17)?),
    })
}
