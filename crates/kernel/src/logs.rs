//! The request log as the admin plane reads it: what a list is asked for, its rows, and who answers.
//!
//! `store` writes the log and implements [`RequestLogReader`]; `admin` asks. Neither knows the other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use magicapi_model::Money;
use magicapi_plugin::async_trait;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Which rows; everything absent matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// The provider asked last.
    pub provider: Option<String>,
    /// The model, as sent upstream or as the caller named it.
    pub model: Option<String>,
    /// `completed`, `client_closed`, …
    pub outcome: Option<String>,
    /// `success` or `error`.
    pub status: Option<String>,
    /// What the caller got.
    pub status_code: Option<u16>,
    /// From the closed list of errors.
    pub error_type: Option<String>,
    /// The virtual key's name.
    pub key_name: Option<String>,
    /// The project.
    pub project_id: Option<String>,
    /// The caller's organisation.
    pub org_id: Option<String>,
    /// The caller's user.
    pub user_id: Option<String>,
    /// The caller's thread.
    pub thread_id: Option<String>,
    /// `chat`, `embeddings`, …
    pub operation: Option<String>,
    /// Streams only, or none.
    pub streamed: Option<bool>,
    /// Not before this, in Unix milliseconds; see [`LogQuery::time`].
    pub since: Option<i64>,
    /// Before this, in Unix milliseconds.
    pub until: Option<i64>,
    /// At least this slow.
    pub min_latency_ms: Option<u64>,
    /// A text anywhere in the document (names, request, response, stream events); ASCII letters match in either
    /// case. There is no index for it: documents are read, newest first, until the page is full or the time is up.
    pub text: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// Rows on a page: 50 unless told, 1000 at most.
    pub limit: Option<usize>,
    /// What one page may take, in milliseconds: 2000 unless told, 30000 at most.
    pub budget_ms: Option<u64>,
}

/// A row of the request log, without bodies.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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
pub struct Tokens {
    /// All prompt tokens.
    pub input: Option<u64>,
    /// All answer tokens.
    pub output: Option<u64>,
    /// Both.
    pub total: Option<u64>,
}

/// Rows, newest first, and where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Page {
    /// The rows.
    pub rows: Vec<LogRow>,
    /// Pass it as `cursor`; absent at the end of the log.
    pub next: Option<String>,
    /// The time was up before the page was full: `next` goes on from there.
    pub timed_out: bool,
}

/// Rows in the order of their arrival, and where to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arrivals {
    /// The rows that match.
    pub rows: Vec<LogRow>,
    /// Pass it as `after` the next time.
    pub position: i64,
}

/// Why the log did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// What was asked makes no sense (a cursor that no page gave): the text says what to do.
    Query(String),
    /// The log cannot be read now: the text names the file and the remedy.
    Unavailable(String),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(text) | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for LogError {}

/// Reads the request log. Every call but [`RequestLogReader::subscribe`] blocks, on the disk alone: from async code
/// call it on a blocking thread.
pub trait RequestLogReader: Send + Sync {
    /// Rows that match, newest first.
    fn list(&self, query: &LogQuery) -> Result<Page, LogError>;

    /// The document of one record, byte for byte as it was exported. The id with or without `msg_`.
    fn get(&self, id: &str) -> Result<Option<Bytes>, LogError>;

    /// Where following begins: after the row that arrived last or, with a time in Unix milliseconds, before the first
    /// arrival of a request that began not before it.
    fn position(&self, since: Option<i64>) -> Result<i64, LogError>;

    /// Rows that arrived after a position and match, in the order of arrival. Looks at as many as a page has;
    /// [`Arrivals::position`] = `after` means that there is none.
    fn arrivals(&self, query: &LogQuery, after: i64) -> Result<Arrivals, LogError>;

    /// Every row that is stored from now on. Does not block.
    fn subscribe(&self) -> Box<dyn LogFollower>;
}

/// One follower of the request log.
#[async_trait]
pub trait LogFollower: Send {
    /// The next row, in the order of arrival; `None` when the log is closed. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Followed>;
}

/// What a follower is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// A new row.
    Row(Arc<LogRow>),
    /// The follower was too slow and missed this many rows; they are found with [`RequestLogReader::arrivals`].
    Missed(u64),
}

impl LogQuery {
    /// A time as `since` and `until` are written, in Unix milliseconds: as such a number, or as RFC 3339 has it.
    pub fn time(text: &str) -> Option<i64> {
        text.parse().ok().or_else(|| text.parse().ok().map(jiff::Timestamp::as_millisecond))
    }

    /// Rows on a page.
    pub fn page_size(&self) -> usize {
        self.limit.unwrap_or(50).clamp(1, 1000)
    }

    /// What one page may take.
    pub fn budget(&self) -> Duration {
        Duration::from_millis(self.budget_ms.unwrap_or(2000).clamp(1, 30_000))
    }

    /// The conditions that ask one column for one text, by the column's name.
    pub fn texts(&self) -> [(&'static str, Option<&str>); 10] {
        [
            ("provider", self.provider.as_deref()),
            ("outcome", self.outcome.as_deref()),
            ("status", self.status.as_deref()),
            ("error_type", self.error_type.as_deref()),
            ("key_name", self.key_name.as_deref()),
            ("project_id", self.project_id.as_deref()),
            ("org_id", self.org_id.as_deref()),
            ("user_id", self.user_id.as_deref()),
            ("thread_id", self.thread_id.as_deref()),
            ("operation", self.operation.as_deref()),
        ]
    }

    /// Whether a new row belongs to what is followed: everything but place and page, and `text` in what the row itself
    /// shows, since following reads no documents.
    pub fn matches(&self, row: &LogRow) -> bool {
        let found = [
            row.provider.as_deref(),
            Some(row.outcome.as_str()),
            Some(row.status.as_str()),
            row.error_type.as_deref(),
            row.key_name.as_deref(),
            row.project_id.as_deref(),
            row.org_id.as_deref(),
            row.user_id.as_deref(),
            row.thread_id.as_deref(),
            Some(row.operation.as_str()),
        ]
        .into_iter()
        .zip(self.texts())
        .all(|(found, (_, wanted))| wanted.is_none_or(|wanted| found == Some(wanted)));
        let names = [&row.model, &row.requested_model];
        found
            && self.model.as_ref().is_none_or(|model| names.into_iter().flatten().any(|name| name == model))
            && self.status_code.is_none_or(|code| row.status_code == code)
            && self.streamed.is_none_or(|streamed| row.streamed == streamed)
            && self.min_latency_ms.is_none_or(|least| row.latency >= least)
            && self.since.is_none_or(|since| row.timestamp_ms >= since)
            && self.until.is_none_or(|until| row.timestamp_ms < until)
            && self.text.as_deref().is_none_or(|text| row.shows(text))
    }
}

impl LogRow {
    /// Whether the text stands in the row itself; ASCII letters match in either case.
    fn shows(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let maybe = [&self.provider, &self.model, &self.requested_model, &self.key_name, &self.project_id]
            .into_iter()
            .chain([&self.org_id, &self.user_id, &self.thread_id, &self.error_type, &self.error_message])
            .flatten();
        maybe
            .chain([&self.id, &self.path, &self.operation, &self.outcome])
            .any(|shown| shown.to_ascii_lowercase().contains(&text))
    }
}

// serde hands fields over by reference.
#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn dollars<S: Serializer>(cost: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
    cost.map(Money::usd).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::LogQuery;

    #[test]
    fn a_time_is_unix_milliseconds_or_rfc_3339() {
        for (text, expected) in [
            ("-5", Some(-5)),
            ("1741190600123", Some(1_741_190_600_123)),
            ("2025-03-05T16:03:20.123Z", Some(1_741_190_600_123)),
            ("2025-03-05T17:03:20.1239+01:00", Some(1_741_190_600_123)),
            ("2025-03-05 16:03:20z", Some(1_741_190_600_000)),
            ("2025-03-05T16:03:20", None),
            ("2025-03-05T16:03:20 01:00", None),
            ("2025-02-30T16:03:20Z", None),
            ("2025-03-05", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(LogQuery::time(text), expected, "{text:?}");
        }
    }
}
