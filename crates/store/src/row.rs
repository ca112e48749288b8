//! One line of the request log: what lists and filters show of a record. The whole record is the document beside it.

use std::time::{SystemTime, UNIX_EPOCH};

use magicapi_model::Money;
use magicapi_plugin::Facts;
use rusqlite::{Row, params_from_iter, types::Value as Sql};
use serde::{Serialize, Serializer};
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

/// A row of the request log, without bodies.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogRow {
    /// Counts arrivals; the position for following.
    pub seq: i64,
    /// The record's id.
    pub id: String,
    /// When the request's head had been read, in Unix milliseconds.
    pub timestamp_ms: i64,
    /// The provider asked last.
    pub provider: Option<String>,
    /// The model sent upstream last.
    pub model: Option<String>,
    /// The model as the caller named it.
    pub requested_model: Option<String>,
    /// `chat`, `embeddings`, …
    pub operation: String,
    /// How it ended, in the words of [`magicapi_model::Outcome`].
    pub outcome: String,
    /// `success` or `error`.
    pub status: String,
    /// What the caller got.
    pub status_code: u16,
    /// Head read → last byte, in milliseconds.
    pub latency: u64,
    /// Head read → first byte, in milliseconds.
    pub ttfb: Option<u64>,
    /// Inclusive totals.
    pub tokens: Tokens,
    /// What it cost; in JSON, US dollars.
    #[serde(serialize_with = "dollars")]
    pub cost: Option<Money>,
    /// As received, without the query.
    pub path: String,
    /// The HTTP method.
    pub method: String,
    /// The virtual key's name.
    pub key_name: Option<String>,
    /// The key's project, else the caller's.
    pub project_id: Option<String>,
    /// The caller's organisation.
    pub org_id: Option<String>,
    /// The caller's user.
    pub user_id: Option<String>,
    /// The caller's thread.
    pub thread_id: Option<String>,
    /// Whether the answer was a stream of events.
    pub streamed: bool,
    /// From the closed list.
    pub error_type: Option<String>,
    /// What the caller was told; its beginning, when long.
    pub error_message: Option<String>,
    /// What row and document take of the file.
    pub stored_bytes: u64,
    /// Further facts, under the record's names.
    pub metadata: Value,
}

/// Token totals, as in the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tokens {
    /// All prompt tokens.
    pub input: Option<u64>,
    /// All answer tokens.
    pub output: Option<u64>,
    /// Both.
    pub total: Option<u64>,
}

// serde hands fields over by reference.
#[allow(clippy::ref_option)]
fn dollars<S: Serializer>(cost: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
    cost.map(Money::usd).serialize(serializer)
}

impl LogRow {
    /// The row of a record whose compressed document has `document` bytes. `seq` is the table's to give.
    pub(crate) fn of(facts: &Facts, document: usize) -> Self {
        let mut row = Self {
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
        row.stored_bytes = (row.own_bytes() + file_share(document)) as u64;
        row
    }

    /// What the row itself takes in its table and indexes, and about what it takes in memory.
    pub(crate) fn own_bytes(&self) -> usize {
        // Record headers, numbers, the id, three index entries, and the share of pages that is never filled.
        const FIXED: usize = 360;
        let texts = [
            &self.provider,
            &self.model,
            &self.requested_model,
            &self.key_name,
            &self.project_id,
            &self.org_id,
            &self.user_id,
            &self.thread_id,
            &self.error_type,
            &self.error_message,
        ];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        FIXED + texts + self.path.len() + self.metadata.to_string().len()
    }

    /// The values for [`INSERT`].
    pub(crate) fn values(&self) -> impl rusqlite::Params + use<> {
        let text = |text: &str| Sql::Text(text.to_owned());
        let maybe = |text: &Option<String>| text.clone().map_or(Sql::Null, Sql::Text);
        let count = |number: Option<u64>| number.map_or(Sql::Null, |number| Sql::Integer(integer(number)));
        params_from_iter([
            text(&self.id),
            Sql::Integer(self.timestamp_ms),
            maybe(&self.provider),
            maybe(&self.model),
            maybe(&self.requested_model),
            text(&self.operation),
            text(&self.outcome),
            text(&self.status),
            Sql::Integer(self.status_code.into()),
            Sql::Integer(integer(self.latency)),
            count(self.ttfb),
            count(self.tokens.input),
            count(self.tokens.output),
            count(self.tokens.total),
            self.cost.map_or(Sql::Null, |cost| Sql::Integer(pico(cost))),
            text(&self.path),
            text(&self.method),
            maybe(&self.key_name),
            maybe(&self.project_id),
            maybe(&self.org_id),
            maybe(&self.user_id),
            maybe(&self.thread_id),
            Sql::Integer(self.streamed.into()),
            maybe(&self.error_type),
            maybe(&self.error_message),
            Sql::Integer(integer(self.stored_bytes)),
            text(&self.metadata.to_string()),
        ])
    }

    /// Reads a row of [`COLUMNS`].
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let count = |column| row.get::<_, Option<i64>>(column).map(|number| number.map(unsigned));
        Ok(Self {
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
