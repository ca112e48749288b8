//! The table: its name, checked, and the statements that name it.
//!
//! It is the guide's, with its five columns, and `record_id`, which is unique: a record that is sent again is there
//! once. The unique index of a table that is split by time must hold the time too; a record's never changes.

use jiff::civil::Date;

/// What an identifier may be long, in bytes.
const LONGEST: usize = 63;
/// Begins a transaction: locks are waited for in bounds, and notices, which may quote content, reach no log.
const BEGIN: &str = "BEGIN; SET LOCAL client_min_messages = error; SET LOCAL lock_timeout = '10s'";
/// The same for gateways that may be making the same things at once.
const BEGIN_MAKING: &str = "BEGIN; SET LOCAL client_min_messages = error; SET LOCAL lock_timeout = '10s'; \
     SELECT pg_advisory_xact_lock(7017280452245743464)";
const COLUMNS: &str = "record_id, timestamp, log_data, ttfb, latency";

pub(super) struct Table {
    schema: Option<String>,
    name: String,
}

impl Table {
    /// Reads `table` or `schema.table`, folded to lower case as the server folds what stands in no quotes. The table's
    /// parts are named after it, with `suffix` bytes more.
    pub(super) fn parse(text: &str, suffix: usize) -> Result<Self, String> {
        let part = |part: &str, longest: usize| {
            let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
            if !part.starts_with(letter) || !part.chars().all(|c| letter(c) || c.is_ascii_digit()) {
                Err(format!(
                    "{text:?} is no table's name; expected table or schema.table, of letters, digits and _"
                ))
            } else if part.len() > longest {
                Err(format!("{part} is {} bytes long; at most {longest} are allowed", part.len()))
            } else {
                Ok(part.to_ascii_lowercase())
            }
        };
        let (schema, name) = text.split_once('.').map_or((None, text), |(schema, name)| (Some(schema), name));
        let schema = schema.map(|schema| part(schema, LONGEST)).transpose()?;
        Ok(Self { schema, name: part(name, LONGEST - suffix)? })
    }

    /// Whether the gateway gives this column a value.
    pub(super) fn is_ours(column: &str) -> bool {
        COLUMNS.split(", ").any(|ours| ours == column)
    }

    /// Its name, or that of a part, as it stands in statements.
    fn sql(&self, suffix: &str) -> String {
        let schema = self.schema.as_ref().map(|schema| format!("\"{schema}\".")).unwrap_or_default();
        format!("{schema}\"{}{suffix}\"", self.name)
    }

    /// Asks what it is: `pg_class.relkind`; no row when there is no such table.
    pub(super) fn kind(&self) -> String {
        format!("SELECT relkind::text FROM pg_class WHERE oid = to_regclass('{}')", self.sql(""))
    }

    /// Makes the table as the guide does. What the guide lacks is added by [`Self::take_over`].
    pub(super) fn create(&self, by_day: bool) -> String {
        let (key, split) =
            if by_day { ("id, timestamp", " PARTITION BY RANGE (timestamp)") } else { ("id", "") };
        format!(
            "{BEGIN_MAKING}; CREATE TABLE IF NOT EXISTS {} (id SERIAL, timestamp TIMESTAMPTZ NOT NULL, \
             log_data JSONB NOT NULL, ttfb INTEGER, latency INTEGER, PRIMARY KEY ({key})){split}; COMMIT",
            self.sql("")
        )
    }

    /// Adds to a table what makes records unique.
    pub(super) fn take_over(&self, is_split: bool) -> String {
        let table = self.sql("");
        format!(
            "{BEGIN_MAKING}; ALTER TABLE {table} ADD COLUMN IF NOT EXISTS record_id TEXT; \
             CREATE UNIQUE INDEX IF NOT EXISTS \"{:.53}_record_id\" ON {table} ({}); COMMIT",
            self.name,
            unique(is_split)
        )
    }

    /// Begins a batch. Its temporary table stays for the connection's life, since one per batch would bloat the
    /// catalogue; behind a pooler each transaction may be on another connection, so each asks for it.
    pub(super) fn stage() -> String {
        format!(
            "{BEGIN}; CREATE TEMP TABLE IF NOT EXISTS magicapi_batch (record_id TEXT, timestamp TIMESTAMPTZ, \
             log_data JSONB, ttfb INTEGER, latency INTEGER) ON COMMIT DELETE ROWS"
        )
    }

    /// Takes the batch's rows.
    pub(super) const COPY: &str = "COPY pg_temp.magicapi_batch FROM STDIN (FORMAT binary)";

    /// Moves the batch into the table. A conflict in any other index is an error: it would be a loss.
    pub(super) fn insert(&self, is_split: bool) -> String {
        format!(
            "INSERT INTO {} ({COLUMNS}) SELECT {COLUMNS} FROM pg_temp.magicapi_batch ON CONFLICT ({}) DO NOTHING; \
             COMMIT",
            self.sql(""),
            unique(is_split)
        )
    }

    /// Asks for the names of its parts.
    pub(super) fn parts(&self) -> String {
        format!(
            "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid \
             WHERE inhparent = to_regclass('{}')",
            self.sql("")
        )
    }

    /// The name of a day's part.
    pub(super) fn part(&self, day: Date) -> String {
        format!("{}{}", self.name, suffix(day))
    }

    /// Makes a day's part beside the table, then adds it: made within, it would wait for every reader.
    pub(super) fn add_part(&self, day: Date) -> String {
        let (table, part) = (self.sql(""), self.sql(&suffix(day)));
        let next = day.tomorrow().unwrap_or(day);
        format!(
            "{BEGIN_MAKING}; CREATE TABLE {part} (LIKE {table} INCLUDING ALL); ALTER TABLE {table} \
             ATTACH PARTITION {part} FOR VALUES FROM ('{day} 00:00+00') TO ('{next} 00:00+00'); COMMIT"
        )
    }

    /// Drops a part, if its name says that it is one of ours and older than that day.
    pub(super) fn drop_part(&self, part: &str, before: Date) -> Option<String> {
        let day = Date::strptime("%Y%m%d", part.strip_prefix(&*self.name)?.strip_prefix("_p")?).ok()?;
        let is_old = day < before && part == self.part(day);
        is_old.then(|| format!("{BEGIN}; DROP TABLE {}; COMMIT", self.sql(&suffix(day))))
    }
}

fn unique(is_split: bool) -> &'static str {
    if is_split { "record_id, timestamp" } else { "record_id" }
}

fn suffix(day: Date) -> String {
    day.strftime("_p%Y%m%d").to_string()
}
