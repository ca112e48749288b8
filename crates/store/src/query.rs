//! How a list of the request log becomes SQL, and how a page names the next.

use magicapi_kernel::{LogQuery, LogRow};
use rusqlite::types::Value as Sql;

use crate::StoreError;
use crate::value::integer;

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

/// Where the page begins.
pub(crate) fn start(query: &LogQuery) -> Result<Place, StoreError> {
    let cursor = query.cursor.as_deref().map_or(Ok(Place::START), Place::parse)?;
    // Before any row of that millisecond.
    let until = query.until.map_or(Place::START, |until| Place { timestamp_ms: until, seq: i64::MIN });
    Ok(cursor.min(until))
}

/// The conditions on columns, each with its value; ` AND …`. Only names from here enter the SQL.
pub(crate) fn conditions(query: &LogQuery) -> (String, Vec<Sql>) {
    let mut conditions: Vec<(String, Sql)> = Vec::new();
    for (column, wanted) in query.texts() {
        if let Some(wanted) = wanted {
            conditions.push((format!("{column} = ?"), Sql::Text(wanted.to_owned())));
        }
    }
    if let Some(model) = &query.model {
        conditions.push(("? IN (model, requested_model)".to_owned(), Sql::Text(model.clone())));
    }
    let numbers = [
        ("status_code = ?", query.status_code.map(i64::from)),
        ("streamed = ?", query.streamed.map(i64::from)),
        ("latency >= ?", query.min_latency_ms.map(integer)),
        ("timestamp >= ?", query.since),
    ];
    for (condition, wanted) in numbers {
        if let Some(wanted) = wanted {
            conditions.push((condition.to_owned(), Sql::Integer(wanted)));
        }
    }
    let mut sql: String = conditions.iter().flat_map(|(condition, _)| [" AND ", condition]).collect();
    if query.status.as_deref() == Some("error") {
        // As a literal it finds the index of errors.
        sql.push_str(" AND status = 'error'");
    }
    (sql, conditions.into_iter().map(|(_, value)| value).collect())
}
