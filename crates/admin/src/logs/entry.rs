//! A row of the request log as the API shows it: a type of its own, so that a new column is not published by itself.

use magicapi_kernel::{LogRow, Tokens};
use magicapi_model::Money;
use serde::Serialize;
use utoipa::ToSchema;

/// A request, without bodies.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LogEntry {
    /// Counts arrivals; the position for following.
    pub(crate) seq: i64,
    /// The record's id.
    id: String,
    /// When the request's head had been read, in Unix milliseconds.
    timestamp_ms: i64,
    /// The provider asked last.
    provider: Option<String>,
    /// The model sent upstream last.
    model: Option<String>,
    /// The model as the caller named it.
    requested_model: Option<String>,
    /// `chat`, `embeddings`, …
    operation: String,
    /// How it ended: `completed`, `client_closed`, …
    outcome: String,
    /// `success` or `error`.
    status: String,
    /// What the caller got.
    status_code: u16,
    /// Head read → last byte, in milliseconds.
    latency: u64,
    /// Head read → first byte, in milliseconds.
    ttfb: Option<u64>,
    /// Inclusive totals.
    tokens: TokenTotals,
    /// What it cost, in US dollars; `null` when unknown.
    cost: Option<f64>,
    /// As received, without the query.
    path: String,
    /// The HTTP method.
    method: String,
    /// The virtual key's name.
    key_name: Option<String>,
    /// The key's project, else the caller's.
    project_id: Option<String>,
    /// The caller's organisation.
    org_id: Option<String>,
    /// The caller's user.
    user_id: Option<String>,
    /// The caller's thread.
    thread_id: Option<String>,
    /// Whether the answer was a stream of events.
    streamed: bool,
    /// From the closed list.
    error_type: Option<String>,
    /// What the caller was told; its beginning, when long.
    error_message: Option<String>,
    /// What row and document take of the file.
    stored_bytes: u64,
    /// Further facts, under the record's names.
    #[schema(value_type = Object)]
    metadata: serde_json::Value,
}

/// Token totals; unknown is `null`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct TokenTotals {
    /// All prompt tokens.
    input: Option<u64>,
    /// All answer tokens.
    output: Option<u64>,
    /// Both.
    total: Option<u64>,
}

impl From<LogRow> for LogEntry {
    fn from(row: LogRow) -> Self {
        let Tokens { input, output, total } = row.tokens;
        Self {
            seq: row.seq,
            id: row.id,
            timestamp_ms: row.timestamp_ms,
            provider: row.provider,
            model: row.model,
            requested_model: row.requested_model,
            operation: row.operation,
            outcome: row.outcome,
            status: row.status,
            status_code: row.status_code,
            latency: row.latency,
            ttfb: row.ttfb,
            tokens: TokenTotals { input, output, total },
            cost: row.cost.map(Money::usd),
            path: row.path,
            method: row.method,
            key_name: row.key_name,
            project_id: row.project_id,
            org_id: row.org_id,
            user_id: row.user_id,
            thread_id: row.thread_id,
            streamed: row.streamed,
            error_type: row.error_type,
            error_message: row.error_message,
            stored_bytes: row.stored_bytes,
            metadata: row.metadata,
        }
    }
}
