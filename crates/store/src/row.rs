//! One line of the request log in its table: a record's facts written, a [`LogRow`] read. The whole record is the
//! document beside it.

use std::ops::Range;

use magicapi_kernel::{LogRow, Tokens};
use magicapi_plugin::Facts;
use rusqlite::{Connection, Row};
use serde::Serialize;
use serde_json::Value;

use crate::value::{Bound, amount, clip, count, integer, maybe, money, text, unix_ms, unsigned, whole};

/// The columns that are written, in the order of [`values`]; `seq` is the table's to give.
macro_rules! columns {
    () => {
        "id, timestamp, provider, model, requested_model, operation, outcome, status, status_code, latency, ttfb, \
         input_tokens, output_tokens, total_tokens, cost, path, method, key_name, project_id, org_id, user_id, \
         thread_id, streamed, error_type, error_message, stored_bytes, metadata"
    };
}

/// The columns that are read, in the order of [`LogRow`]'s fields.
pub(crate) const COLUMNS: &str = concat!("seq, ", columns!());

pub(crate) const INSERT: &str = concat!(
    "INSERT INTO request_log (",
    columns!(),
    ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING"
);

/// What the row itself takes in its table and indexes.
pub(crate) fn own_bytes(facts: &Facts, metadata: &str) -> usize {
    // Record headers, numbers, the id, three index entries, and the share of pages that is never filled.
    const FIXED: usize = 360;
    let texts = [
        facts.provider.as_deref(),
        facts.model.as_deref(),
        facts.requested_model.as_deref(),
        facts.key_name.as_deref(),
        facts.project_id.as_deref(),
        facts.org_id.as_deref(),
        facts.user_id.as_deref(),
        facts.thread_id.as_deref(),
        facts.error_type,
        facts.error_message.as_deref(),
        Some(facts.path.as_str()),
    ];
    let texts: usize = texts.into_iter().flatten().map(|text| clip(text).len()).sum();
    FIXED + texts + metadata.len()
}

/// The values for [`INSERT`].
pub(crate) fn values<'r>(
    facts: &'r Facts,
    id: &'r str,
    metadata: &'r str,
    stored_bytes: usize,
) -> [Bound<'r>; 27] {
    [
        id.into(),
        whole(unix_ms(facts.timestamp)),
        maybe(facts.provider.as_deref()),
        maybe(facts.model.as_deref()),
        maybe(facts.requested_model.as_deref()),
        text(facts.operation),
        text(facts.outcome.as_str()),
        text(facts.outcome.status()),
        whole(facts.status_code),
        whole(integer(facts.latency_ms)),
        count(facts.ttfb_ms),
        count(facts.usage.input_total()),
        count(facts.usage.output_total()),
        count(facts.usage.total()),
        amount(facts.cost),
        text(&facts.path),
        text(&facts.method),
        maybe(facts.key_name.as_deref()),
        maybe(facts.project_id.as_deref()),
        maybe(facts.org_id.as_deref()),
        maybe(facts.user_id.as_deref()),
        maybe(facts.thread_id.as_deref()),
        whole(facts.streamed),
        maybe(facts.error_type),
        maybe(facts.error_message.as_deref()),
        whole(integer(stored_bytes as u64)),
        metadata.into(),
    ]
}

/// Reads a row of [`COLUMNS`].
pub(crate) fn read_row(row: &Row<'_>) -> rusqlite::Result<LogRow> {
    let count = |column| row.get::<_, Option<i64>>(column).map(|number| number.map(unsigned));
    Ok(LogRow {
        seq: row.get(0)?,
        id: row.get(1)?,
        timestamp_ms: row.get(2)?,
        provider: row.get(3)?,
        model: row.get(4)?,
        requested_model: row.get(5)?,
        operation: row.get(6)?,
        outcome: row.get(7)?,
        status: row.get(8)?,
        status_code: row.get(9)?,
        latency: row.get::<_, i64>(10).map(unsigned)?,
        ttfb: count(11)?,
        tokens: Tokens { input: count(12)?, output: count(13)?, total: count(14)? },
        cost: money(row.get(15)?),
        path: row.get(16)?,
        method: row.get(17)?,
        key_name: row.get(18)?,
        project_id: row.get(19)?,
        org_id: row.get(20)?,
        user_id: row.get(21)?,
        thread_id: row.get(22)?,
        streamed: row.get(23)?,
        error_type: row.get(24)?,
        error_message: row.get(25)?,
        stored_bytes: row.get::<_, i64>(26).map(unsigned)?,
        metadata: row
            .get_ref(27)?
            .as_str()
            .map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or(Value::Null)),
    })
}

/// Shows the rows with these numbers, in the order of arrival.
pub(crate) fn each(
    conn: &Connection,
    seqs: Range<i64>,
    mut show: impl FnMut(LogRow),
) -> rusqlite::Result<()> {
    let sql = format!("SELECT {COLUMNS} FROM request_log WHERE seq >= ?1 AND seq < ?2 ORDER BY seq");
    let mut statement = conn.prepare_cached(&sql)?;
    for row in statement.query_map([seqs.start, seqs.end], read_row)? {
        show(row?);
    }
    Ok(())
}

/// Facts that lists show but nobody filters by, under the record's names; unknown ones are left out.
#[derive(Serialize)]
struct Metadata<'r> {
    attempts: u32,
    request_size: u64,
    response_size: u64,
    provider_status_code: u16,
    usage_final: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_error_type: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_dropped: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    experiment_id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'r str>,
}

/// The column `metadata`.
pub(crate) fn metadata(facts: &Facts) -> String {
    let metadata = Metadata {
        attempts: facts.attempts,
        request_size: facts.request_size,
        response_size: facts.response_size,
        provider_status_code: facts.provider_status_code,
        usage_final: facts.usage_final,
        route: facts.route.as_deref().map(clip),
        credential: facts.credential,
        provider_error_type: facts.provider_error_type,
        service_tier: facts.service_tier.as_deref().map(clip),
        content_dropped: facts.content_dropped.map(magicapi_plugin::ContentDropped::as_str),
        trace_id: facts.trace_id.as_deref().map(clip),
        experiment_id: facts.experiment_id.as_deref().map(clip),
        cached_tokens: facts.usage.cache_read,
        finish_reason: facts.finish_reasons.first().map(|reason| clip(reason)),
    };
    // Numbers and texts always become JSON.
    serde_json::to_string(&metadata).unwrap_or_else(|_| "{}".to_owned())
}

/// What a document of this many bytes takes of the file: small ones share a page, as many as fit; larger ones have
/// pages of their own.
pub(crate) fn file_share(document: usize) -> usize {
    const PAGE: usize = 4096;
    const CELL: usize = 16;
    let fit = (PAGE - 8) / (document + CELL);
    PAGE.checked_div(fit).unwrap_or(document + document / 1024 + 768)
}
