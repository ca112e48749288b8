//! One line of the request log in its table: made of a record, written, read. The whole record is the document beside
//! it.

use std::time::{SystemTime, UNIX_EPOCH};

use magicapi_kernel::{LogRow, Tokens};
use magicapi_model::Money;
use magicapi_plugin::Facts;
use rusqlite::{Row, params_from_iter, types::Value as Sql};
use serde_json::{Value, json};

/// The columns, in the order of [`LogRow`]'s fields.
pub(crate) const COLUMNS: &str = "seq, id, timestamp, provider, model, requested_model, operation, outcome, status, \
     status_code, latency, ttfb, input_tokens, output_tokens, total_tokens, cost, path, method, key_name, project_id, \
     org_id, user_id, thread_id, streamed, error_type, error_message, stored_bytes, metadata";

/// Its own number comes from the table.
pub(crate) const INSERT: &str = "INSERT INTO request_log (id, timestamp, provider, model, requested_model, operation, \
     outcome, status, status_code, latency, ttfb, input_tokens, output_tokens, total_tokens, cost, path, method, \
     key_name, project_id, org_id, user_id, thread_id, streamed, error_type, error_message, stored_bytes, metadata) \
     VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING";

/// What one text of a row may take. Names and ids are shorter; what callers make up need not be, and a list must
/// stay quick. The document keeps it whole.
const MAX_TEXT: usize = 1024;

/// The row of a record whose compressed document has `document` bytes. `seq` is the table's to give.
pub(crate) fn row_of(facts: &Facts, document: usize) -> LogRow {
    let mut row = LogRow {
        seq: 0,
        id: facts.id.to_string(),
        timestamp_ms: unix_ms(facts.timestamp),
        provider: clip(facts.provider.as_deref()),
        model: clip(facts.model.as_deref()),
        requested_model: clip(facts.requested_model.as_deref()),
        operation: facts.operation.to_owned(),
        outcome: facts.outcome.as_str().to_owned(),
        status: facts.outcome.status().to_owned(),
        status_code: facts.status_code,
        latency: facts.latency_ms,
        ttfb: facts.ttfb_ms,
        tokens: Tokens {
            input: facts.usage.input_total(),
            output: facts.usage.output_total(),
            total: facts.usage.total(),
        },
        cost: facts.cost,
        path: clip(Some(&facts.path)).unwrap_or_default(),
        method: clip(Some(&facts.method)).unwrap_or_default(),
        key_name: clip(facts.key_name.as_deref()),
        project_id: clip(facts.project_id.as_deref()),
        org_id: clip(facts.org_id.as_deref()),
        user_id: clip(facts.user_id.as_deref()),
        thread_id: clip(facts.thread_id.as_deref()),
        streamed: facts.streamed,
        error_type: facts.error_type.map(str::to_owned),
        error_message: clip(facts.error_message.as_deref()),
        stored_bytes: 0,
        metadata: extras(facts),
    };
    row.stored_bytes = (own_bytes(&row) + file_share(document)) as u64;
    row
}

/// What the row itself takes in its table and indexes, and about what it takes in memory.
pub(crate) fn own_bytes(row: &LogRow) -> usize {
    // Record headers, numbers, the id, three index entries, and the share of pages that is never filled.
    const FIXED: usize = 360;
    let texts = [
        &row.provider,
        &row.model,
        &row.requested_model,
        &row.key_name,
        &row.project_id,
        &row.org_id,
        &row.user_id,
        &row.thread_id,
        &row.error_type,
        &row.error_message,
    ];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    FIXED + texts + row.path.len() + row.metadata.to_string().len()
}

/// The values for [`INSERT`].
pub(crate) fn values(row: &LogRow) -> impl rusqlite::Params + use<> {
    let text = |text: &str| Sql::Text(text.to_owned());
    let maybe = |text: &Option<String>| text.clone().map_or(Sql::Null, Sql::Text);
    let count = |number: Option<u64>| number.map_or(Sql::Null, |number| Sql::Integer(integer(number)));
    params_from_iter([
        text(&row.id),
        Sql::Integer(row.timestamp_ms),
        maybe(&row.provider),
        maybe(&row.model),
        maybe(&row.requested_model),
        text(&row.operation),
        text(&row.outcome),
        text(&row.status),
        Sql::Integer(row.status_code.into()),
        Sql::Integer(integer(row.latency)),
        count(row.ttfb),
        count(row.tokens.input),
        count(row.tokens.output),
        count(row.tokens.total),
        row.cost.map_or(Sql::Null, |cost| Sql::Integer(pico(cost))),
        text(&row.path),
        text(&row.method),
        maybe(&row.key_name),
        maybe(&row.project_id),
        maybe(&row.org_id),
        maybe(&row.user_id),
        maybe(&row.thread_id),
        Sql::Integer(row.streamed.into()),
        maybe(&row.error_type),
        maybe(&row.error_message),
        Sql::Integer(integer(row.stored_bytes)),
        text(&row.metadata.to_string()),
    ])
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

/// Facts that lists show but nobody filters by, under the record's names; unknown ones are left out.
fn extras(facts: &Facts) -> Value {
    let mut extras = json!({
        "attempts": facts.attempts,
        "request_size": facts.request_size,
        "response_size": facts.response_size,
        "provider_status_code": facts.provider_status_code,
        "usage_final": facts.usage_final,
    });
    let texts = [
        ("route", facts.route.as_deref()),
        ("credential", facts.credential),
        ("provider_error_type", facts.provider_error_type),
        ("service_tier", facts.service_tier.as_deref()),
        ("content_dropped", facts.content_dropped),
        ("trace_id", facts.trace_id.as_deref()),
        ("experiment_id", facts.experiment_id.as_deref()),
    ];
    for (name, text) in texts {
        if let Some(text) = clip(text) {
            extras[name] = Value::String(text);
        }
    }
    if let Some(cached) = facts.usage.cache_read {
        extras["cached_tokens"] = json!(cached);
    }
    if let Some(reason) = facts.finish_reasons.first() {
        extras["finish_reason"] = json!(clip(Some(reason)));
    }
    extras
}

/// What a document of this many bytes takes of the file: small ones share a page, as many as fit; larger ones have
/// pages of their own.
fn file_share(document: usize) -> usize {
    const PAGE: usize = 4096;
    const CELL: usize = 16;
    let fit = (PAGE - 8) / (document + CELL);
    PAGE.checked_div(fit).unwrap_or(document + document / 1024 + 768)
}

/// The text up to [`MAX_TEXT`] bytes, cut between characters.
pub(crate) fn clip(text: Option<&str>) -> Option<String> {
    text.map(|text| text[..text.floor_char_boundary(MAX_TEXT)].to_owned())
}

/// Unix milliseconds; 0 for a clock before 1970.
pub(crate) fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Numbers beyond SQLite's largest integer become it.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back; no column holds negative counts.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// 10⁻¹² US dollars; amounts beyond nine million dollars become that.
pub(crate) fn pico(cost: Money) -> i64 {
    i64::try_from(cost.pico_usd()).unwrap_or(i64::MAX)
}

/// The way back.
pub(crate) fn money(pico: Option<i64>) -> Option<Money> {
    pico.map(|units| Money::from_pico_usd(units.into()))
}
