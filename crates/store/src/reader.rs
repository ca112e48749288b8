//! Reading: lists, single records, following, the ledger. On a connection of its own, so it never waits for writes
//! and writes never wait for it; every call is one short look.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use magicapi_kernel::{Arrivals, LedgerEntry, LogQuery, LogRow, Page};
use memchr::memmem::Finder;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use crate::StoreError;
use crate::ledger;
use crate::query::{Place, conditions, start};
use crate::row::{COLUMNS, read_row};
use crate::schema::open_reader;
use crate::value::integer;

/// Rows that one look at the index covers: what a filter that matches nothing costs between two looks at the clock.
const STRETCH: i64 = 20_000;

/// The largest document that is believed to be one.
const MAX_DOCUMENT: usize = 1 << 30;

/// A read-only view of the store. It blocks (on the disk alone): from async code call it on a blocking thread.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens the file, beside a gateway or without one.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { conn: open_reader(path)?, path: path.to_path_buf() })
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.conn
    }

    fn wrap(&self, source: rusqlite::Error) -> StoreError {
        StoreError::sqlite(&self.path, source)
    }

    /// Rows that match, newest first. Bodies are read for [`LogQuery::text`] alone.
    pub fn list(&self, query: &LogQuery) -> Result<Page, StoreError> {
        let until = Instant::now() + query.budget();
        let text = query.text.as_deref().map(Text::new);
        let mut page = Page::default();
        let mut from = start(query)?;
        loop {
            let end = self.stretch(from).map_err(|error| self.wrap(error))?;
            let stop = self.walk(query, from, end, |row| {
                if text.as_ref().is_none_or(|text| self.contains(row.seq, text)) {
                    page.rows.push(row);
                }
                page.rows.len() >= query.page_size() || Instant::now() >= until
            })?;
            page.timed_out = page.rows.len() < query.page_size() && Instant::now() >= until;
            if let Some(stop) = stop {
                page.next = Some(stop.cursor());
                return Ok(page);
            }
            let Some(end) = end.filter(|end| query.since.is_none_or(|since| end.timestamp_ms >= since))
            else {
                page.timed_out = false;
                return Ok(page);
            };
            if page.timed_out {
                page.next = Some(end.cursor());
                return Ok(page);
            }
            from = end;
        }
    }

    /// The place some rows further on; `None` when the log ends before.
    fn stretch(&self, from: Place) -> rusqlite::Result<Option<Place>> {
        self.conn
            .prepare_cached(
                "SELECT timestamp, seq FROM request_log WHERE timestamp <= ?1 AND (timestamp < ?1 OR seq < ?2) \
                 ORDER BY timestamp DESC, seq DESC LIMIT 1 OFFSET ?3",
            )?
            .query_row(params![from.timestamp_ms, from.seq, STRETCH - 1], |row| {
                Ok(Place { timestamp_ms: row.get(0)?, seq: row.get(1)? })
            })
            .optional()
    }

    /// Shows rows after `from`, up to and with `end`, to `take`, until it says stop; where that was.
    fn walk(
        &self,
        query: &LogQuery,
        from: Place,
        end: Option<Place>,
        mut take: impl FnMut(LogRow) -> bool,
    ) -> Result<Option<Place>, StoreError> {
        let (conditions, values) = conditions(query);
        let end = end.unwrap_or(Place { timestamp_ms: i64::MIN, seq: i64::MIN });
        let sql = format!(
            "SELECT {COLUMNS} FROM request_log WHERE timestamp <= ? AND timestamp >= ? \
             AND (timestamp, seq) < (?, ?) AND (timestamp, seq) >= (?, ?){conditions} \
             ORDER BY timestamp DESC, seq DESC"
        );
        let places =
            [from.timestamp_ms, end.timestamp_ms, from.timestamp_ms, from.seq, end.timestamp_ms, end.seq];
        let values = places.map(Sql::Integer).into_iter().chain(values);
        let walk = || {
            let mut statement = self.conn.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                let row = read_row(row)?;
                let place = Place::of(&row);
                if take(row) {
                    return Ok(Some(place));
                }
            }
            Ok(None)
        };
        walk().map_err(|error| self.wrap(error))
    }

    /// Whether a document contains the text. One that cannot be read does not.
    fn contains(&self, seq: i64, text: &Text) -> bool {
        self.document("seq = ?1", params![seq])
            .is_ok_and(|document| document.is_some_and(|json| text.is_in(json)))
    }

    fn document(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = format!("SELECT length, document FROM request_log_body WHERE {condition}");
        let mut unpacked = Ok(Vec::new());
        let found = self
            .conn
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                statement
                    .query_row(values, |row| {
                        let length = usize::try_from(row.get::<_, i64>(0)?)
                            .map_or(0, |length| length.min(MAX_DOCUMENT));
                        let document = row.get_ref(1)?.as_blob()?;
                        unpacked = zstd::bulk::decompress(document, length);
                        Ok(())
                    })
                    .optional()
            })
            .map_err(|error| self.wrap(error))?;
        match (found, unpacked) {
            (None, _) => Ok(None),
            (Some(()), Ok(document)) => Ok(Some(document)),
            (Some(()), Err(error)) => {
                Err(StoreError::Corrupt { path: self.path.clone(), reason: format!("a document: {error}") })
            }
        }
    }

    /// The document of one record, byte for byte as it was exported. The id with or without `msg_`.
    pub fn get(&self, id: &str) -> Result<Option<Bytes>, StoreError> {
        let condition = "seq = (SELECT seq FROM request_log WHERE id = ?1)";
        Ok(self.document(condition, [full_id(id)])?.map(Bytes::from))
    }

    /// The row of one record.
    pub fn row(&self, id: &str) -> Result<Option<LogRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM request_log WHERE id = ?1");
        let row = self
            .conn
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_row([full_id(id)], read_row).optional());
        row.map_err(|error| self.wrap(error))
    }

    /// The position after the row that arrived last: where following begins.
    pub fn position(&self) -> Result<i64, StoreError> {
        let last =
            self.conn.query_row("SELECT max(seq) FROM request_log", [], |row| row.get::<_, Option<i64>>(0));
        Ok(last.map_err(|error| self.wrap(error))?.unwrap_or(0))
    }

    /// The position before the first arrival of a request that began not before `since` (Unix milliseconds).
    pub fn position_since(&self, since: i64) -> Result<i64, StoreError> {
        // Requests arrive when they end, so the earliest beginning is not always the first arrival. The index alone is
        // read; without the plus SQLite may walk the table instead.
        let sql = "SELECT min(+seq) FROM request_log WHERE timestamp >= ?1";
        let first = self.conn.query_row(sql, [since], |row| row.get::<_, Option<i64>>(0));
        match first.map_err(|error| self.wrap(error))? {
            Some(first) => Ok(first - 1),
            None => self.position(),
        }
    }

    /// Rows that arrived after a position and match, in the order of arrival; for following a file without its
    /// gateway. `text` and place are judged as in [`LogQuery::matches`]; at most `limit` rows are looked at.
    pub fn since(&self, query: &LogQuery, after: i64) -> Result<Arrivals, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM request_log WHERE seq > ?1 ORDER BY seq LIMIT ?2");
        let read = || {
            let mut statement = self.conn.prepare_cached(&sql)?;
            let mut arrivals = Arrivals { rows: Vec::new(), position: after };
            let mut rows = statement.query(params![after, integer(query.page_size() as u64)])?;
            while let Some(row) = rows.next()? {
                let row = read_row(row)?;
                arrivals.position = row.seq;
                if query.matches(&row) {
                    arrivals.rows.push(row);
                }
            }
            Ok(arrivals)
        };
        read().map_err(|error| self.wrap(error))
    }

    /// The ledger's requests of `times` (Unix milliseconds), with their attempts, oldest first; `after` is the last one
    /// of the page before.
    pub fn ledger_rows(
        &self,
        times: std::ops::Range<i64>,
        after: Option<&LedgerEntry>,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        ledger::rows(&self.conn, times, after, limit).map_err(|error| self.wrap(error))
    }
}

fn full_id(id: &str) -> String {
    if id.starts_with("msg_") { id.to_owned() } else { format!("msg_{id}") }
}

/// A text to look for, as it stands and as JSON writes it.
struct Text {
    plain: Finder<'static>,
    escaped: Option<Finder<'static>>,
}

impl Text {
    fn new(text: &str) -> Self {
        let finder = |text: &str| Finder::new(&text.to_ascii_lowercase()).into_owned();
        let json = serde_json::to_string(text).unwrap_or_default();
        let inner = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
        Self { plain: finder(text), escaped: (inner != text).then(|| finder(inner)) }
    }

    fn is_in(&self, mut document: Vec<u8>) -> bool {
        document.make_ascii_lowercase();
        self.plain.find(&document).is_some()
            || self.escaped.as_ref().is_some_and(|escaped| escaped.find(&document).is_some())
    }
}
