//! What a list of the request log is asked for, and how a page names the next.

use std::time::Duration;

use rusqlite::types::Value as Sql;
use serde::{Deserialize, Serialize};

use crate::row::integer;
use crate::{LogRow, StoreError};

/// Which rows; everything absent matches all. Reads from a query string as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    /// Not before this, in Unix milliseconds.
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

/// Rows, newest first, and where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Page {
    /// The rows.
    pub rows: Vec<LogRow>,
    /// Pass it as `cursor`; absent at the end of the log.
    pub next: Option<String>,
    /// The time was up before the page was full: `next` goes on from there.
    pub timed_out: bool,
}

/// A place in the log: newest first, by time and then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) timestamp_ms: i64,
    pub(crate) seq: i64,
}

impl Place {
    /// Before the newest.
    pub(crate) const START: Self = Self { timestamp_ms: i64::MAX, seq: i64::MAX };

    pub(crate) fn of(row: &LogRow) -> Self {
        Self { timestamp_ms: row.timestamp_ms, seq: row.seq }
    }

    pub(crate) fn cursor(self) -> String {
        format!("{}-{}", self.timestamp_ms, self.seq)
    }

    pub(crate) fn parse(cursor: &str) -> Result<Self, StoreError> {
        let parts = cursor.split_once('-').and_then(|(timestamp, seq)| {
            Some(Self { timestamp_ms: timestamp.parse().ok()?, seq: seq.parse().ok()? })
        });
        parts.ok_or_else(|| StoreError::Cursor(cursor.chars().take(64).collect()))
    }
}

impl LogQuery {
    pub(crate) fn page_size(&self) -> usize {
        self.limit.unwrap_or(50).clamp(1, 1000)
    }

    pub(crate) fn budget(&self) -> Duration {
        Duration::from_millis(self.budget_ms.unwrap_or(2000).clamp(1, 30_000))
    }

    /// Where the page begins.
    pub(crate) fn start(&self) -> Result<Place, StoreError> {
        let cursor = self.cursor.as_deref().map_or(Ok(Place::START), Place::parse)?;
        // Before any row of that millisecond.
        let until = self.until.map_or(Place::START, |until| Place { timestamp_ms: until, seq: i64::MIN });
        Ok(cursor.min(until))
    }

    fn texts(&self) -> [(&'static str, Option<&str>); 10] {
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
            &row.provider,
            &Some(row.outcome.clone()),
            &Some(row.status.clone()),
            &row.error_type,
            &row.key_name,
            &row.project_id,
            &row.org_id,
            &row.user_id,
            &row.thread_id,
            &Some(row.operation.clone()),
        ]
        .into_iter()
        .zip(self.texts())
        .all(|(found, (_, wanted))| wanted.is_none_or(|wanted| found.as_deref() == Some(wanted)));
        let names = [&row.model, &row.requested_model];
        found
            && self.model.as_ref().is_none_or(|model| names.into_iter().flatten().any(|name| name == model))
            && self.status_code.is_none_or(|code| row.status_code == code)
            && self.streamed.is_none_or(|streamed| row.streamed == streamed)
            && self.min_latency_ms.is_none_or(|least| row.latency >= least)
            && self.since.is_none_or(|since| row.timestamp_ms >= since)
            && self.until.is_none_or(|until| row.timestamp_ms < until)
            && self.text.as_deref().is_none_or(|text| shows(row, text))
    }

    /// The conditions on columns, each with its value; ` AND …`. Only names from here enter the SQL.
    pub(crate) fn conditions(&self) -> (String, Vec<Sql>) {
        let mut conditions: Vec<(String, Sql)> = Vec::new();
        for (column, wanted) in self.texts() {
            if let Some(wanted) = wanted {
                conditions.push((format!("{column} = ?"), Sql::Text(wanted.to_owned())));
            }
        }
        if let Some(model) = &self.model {
            conditions.push(("? IN (model, requested_model)".to_owned(), Sql::Text(model.clone())));
        }
        let numbers = [
            ("status_code = ?", self.status_code.map(i64::from)),
            ("streamed = ?", self.streamed.map(i64::from)),
            ("latency >= ?", self.min_latency_ms.map(integer)),
            ("timestamp >= ?", self.since),
        ];
        for (condition, wanted) in numbers {
            if let Some(wanted) = wanted {
                conditions.push((condition.to_owned(), Sql::Integer(wanted)));
            }
        }
        let mut sql: String = conditions.iter().flat_map(|(condition, _)| [" AND ", condition]).collect();
        if self.status.as_deref() == Some("error") {
            // As a literal it finds the index of errors.
            sql.push_str(" AND status = 'error'");
        }
        (sql, conditions.into_iter().map(|(_, value)| value).collect())
    }
}

fn shows(row: &LogRow, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let maybe =
        [&row.provider, &row.model, &row.requested_model, &row.key_name, &row.project_id, &row.org_id]
            .into_iter()
            .chain([&row.user_id, &row.thread_id, &row.error_type, &row.error_message])
            .flatten();
    maybe
        .chain([&row.id, &row.path, &row.operation, &row.outcome])
        .any(|shown| shown.to_ascii_lowercase().contains(&text))
}
