//! The spend ledger: rows in, rows out. Written by the store's thread, once per request id.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use magicapi_kernel::{AttemptRow, Ledger, LedgerEntry};
use magicapi_model::{Outcome, RequestId, Usage};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, TransactionBehavior, params, params_from_iter};

use crate::journal::Queued;
use crate::queue::Shared;
use crate::value::{Bound, amount, count, integer, maybe, money, text, time, unix_ms, unsigned, whole};

/// The columns of usage, in the order of [`usage_values`].
macro_rules! usage {
    () => {
        "input, cache_read, cache_write, cache_write_1h, input_audio, input_image, output, output_reasoning, \
         output_audio, output_image, reported_cost"
    };
}

/// The columns of a request, in the order of [`request_values`].
macro_rules! request {
    () => {
        concat!(
            "id, timestamp, key_name, project_id, org_id, user_id, provider, model, operation, outcome, status_code, ",
            usage!(),
            ", usage_final, cost, price_version, service_tier"
        )
    };
}

/// The columns of an attempt but for its request's id, in the order of [`attempt_values`].
macro_rules! attempt {
    () => {
        concat!("attempt, provider, model, status_code, error_type, latency, cost, ", usage!())
    };
}

const INSERT_REQUEST: &str = concat!(
    "INSERT INTO ledger_request (",
    request!(),
    ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING"
);

const INSERT_ATTEMPT: &str = concat!(
    "INSERT INTO ledger_attempt (request_id, ",
    attempt!(),
    ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (request_id, attempt) DO NOTHING"
);

const SELECT_REQUESTS: &str = concat!(
    "SELECT ",
    request!(),
    " FROM ledger_request WHERE timestamp >= ?1 AND timestamp < ?2 AND (timestamp, id) > (?3, ?4) \
     ORDER BY timestamp, id LIMIT ?5"
);

const SELECT_ATTEMPTS: &str =
    concat!("SELECT ", attempt!(), " FROM ledger_attempt WHERE request_id = ?1 ORDER BY attempt");

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
    let texts = [
        &entry.key_name,
        &entry.project_id,
        &entry.org_id,
        &entry.user_id,
        &entry.provider,
        &entry.model,
        &entry.price_version,
        &entry.service_tier,
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
pub(crate) fn insert(conn: &mut Connection, entries: &VecDeque<Queued>) -> rusqlite::Result<u64> {
    let batch = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut new = 0;
    {
        let mut request = batch.prepare_cached(INSERT_REQUEST)?;
        let mut attempt = batch.prepare_cached(INSERT_ATTEMPT)?;
        for Queued { entry, .. } in entries {
            let id = entry.id.to_string();
            if request.execute(params_from_iter(request_values(&id, entry)))? == 0 {
                continue;
            }
            new += 1;
            for row in &entry.attempts {
                attempt.execute(params_from_iter(attempt_values(&id, row)))?;
            }
        }
    }
    batch.commit()?;
    Ok(new)
}

fn request_values<'e>(id: &'e str, entry: &'e LedgerEntry) -> impl Iterator<Item = Bound<'e>> {
    let asked = [
        text(id),
        whole(unix_ms(entry.timestamp)),
        maybe(entry.key_name.as_deref()),
        maybe(entry.project_id.as_deref()),
        maybe(entry.org_id.as_deref()),
        maybe(entry.user_id.as_deref()),
        maybe(entry.provider.as_deref()),
        maybe(entry.model.as_deref()),
        text(&entry.operation),
        text(entry.outcome.as_str()),
        whole(entry.status_code),
    ];
    let priced = [
        whole(entry.usage_final),
        amount(entry.cost),
        maybe(entry.price_version.as_deref()),
        maybe(entry.service_tier.as_deref()),
    ];
    asked.into_iter().chain(usage_values(&entry.usage)).chain(priced)
}

fn attempt_values<'e>(id: &'e str, row: &'e AttemptRow) -> impl Iterator<Item = Bound<'e>> {
    let tried = [
        text(id),
        whole(row.attempt),
        text(&row.provider),
        maybe(row.model.as_deref()),
        whole(row.status_code),
        maybe(row.error_type.as_deref()),
        whole(integer(row.latency_ms)),
        amount(row.cost),
    ];
    tried.into_iter().chain(usage_values(&row.usage))
}

/// NULL is unknown, never 0.
fn usage_values(usage: &Usage) -> [Bound<'static>; 11] {
    [
        count(usage.input),
        count(usage.cache_read),
        count(usage.cache_write),
        count(usage.cache_write_1h),
        count(usage.input_audio),
        count(usage.input_image),
        count(usage.output),
        count(usage.output_reasoning),
        count(usage.output_audio),
        count(usage.output_image),
        amount(usage.reported_cost),
    ]
}

/// Requests of `times` (Unix milliseconds), oldest first, after the last one seen.
pub(crate) fn rows(
    conn: &Connection,
    times: std::ops::Range<i64>,
    after: Option<&LedgerEntry>,
    limit: usize,
) -> rusqlite::Result<Vec<LedgerEntry>> {
    let (time, id) =
        after.map_or((i64::MIN, String::new()), |last| (unix_ms(last.timestamp), last.id.to_string()));
    let mut requests = conn.prepare_cached(SELECT_REQUESTS)?;
    let bounds = params![times.start, times.end, time, id, integer(limit as u64)];
    let mut entries = requests.query_map(bounds, read_request)?.collect::<Result<Vec<_>, _>>()?;
    let mut attempts = conn.prepare_cached(SELECT_ATTEMPTS)?;
    for entry in &mut entries {
        entry.attempts =
            attempts.query_map([entry.id.to_string()], read_attempt)?.collect::<Result<_, _>>()?;
    }
    Ok(entries)
}

fn read_request(row: &Row<'_>) -> rusqlite::Result<LedgerEntry> {
    Ok(LedgerEntry {
        id: read_word(row, 0, RequestId::parse)?,
        timestamp: time(row.get(1)?),
        key_name: row.get(2)?,
        project_id: row.get(3)?,
        org_id: row.get(4)?,
        user_id: row.get(5)?,
        provider: row.get(6)?,
        model: row.get(7)?,
        operation: row.get::<_, String>(8)?.into(),
        outcome: read_word(row, 9, |word| Outcome::ALL.iter().copied().find(|one| one.as_str() == word))?,
        status_code: row.get(10)?,
        usage: read_usage(row, 11)?,
        usage_final: row.get(22)?,
        cost: money(row.get(23)?),
        price_version: row.get(24)?,
        service_tier: row.get(25)?,
        attempts: Vec::new(),
    })
}

fn read_attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRow> {
    Ok(AttemptRow {
        attempt: row.get(0)?,
        provider: row.get(1)?,
        model: row.get(2)?,
        status_code: row.get(3)?,
        error_type: row.get::<_, Option<String>>(4)?.map(Into::into),
        latency_ms: row.get(5).map(unsigned)?,
        cost: money(row.get(6)?),
        usage: read_usage(row, 7)?,
    })
}

/// Reads the columns of usage, from `first` on.
fn read_usage(row: &Row<'_>, first: usize) -> rusqlite::Result<Usage> {
    let bucket = |nth: usize| row.get::<_, Option<i64>>(first + nth).map(|number| number.map(unsigned));
    // `is_implausible` has its effect, no cost, in the row.
    let mut usage = Usage::default();
    usage.input = bucket(0)?;
    usage.cache_read = bucket(1)?;
    usage.cache_write = bucket(2)?;
    usage.cache_write_1h = bucket(3)?;
    usage.input_audio = bucket(4)?;
    usage.input_image = bucket(5)?;
    usage.output = bucket(6)?;
    usage.output_reasoning = bucket(7)?;
    usage.output_audio = bucket(8)?;
    usage.output_image = bucket(9)?;
    usage.reported_cost = money(row.get(first + 10)?);
    Ok(usage)
}

/// A text from a closed list; one that is not on it was written by something else.
fn read_word<T>(row: &Row<'_>, column: usize, read: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    read(&word).ok_or_else(|| {
        let reason = format!("`{word}` is not a value that this version writes");
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, reason.into())
    })
}
