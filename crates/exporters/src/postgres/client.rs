//! Talks to the server, and says what its errors mean.
//!
//! They are judged by their SQLSTATE (PostgreSQL's manual, appendix A). Every statement goes by the simple protocol and
//! leaves nothing but an empty temporary table, so that a pooler in transaction mode may stand between.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use magicapi_plugin::RequestMetrics;
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row, raw_sql};

use super::config::Target;
use super::encode;
use super::table::Table;

/// How long a new connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// What is handed to the driver at once, in bytes.
const PIECE: usize = 256 * 1024;

/// Why something did not work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not now.
    Retry(String),
    /// The connection was lost behind the commit of records; whether they are there nobody said.
    Unanswered(String),
    /// Not until somebody puts it right.
    Refused(String),
    /// The table lacks what the gateway adds, or is gone.
    Unprepared(String),
    /// A record of the batch is at fault.
    Record(String),
}

impl Fault {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Retry(text)
            | Self::Unanswered(text)
            | Self::Refused(text)
            | Self::Unprepared(text)
            | Self::Record(text) => text,
        }
    }
}

pub(super) async fn connect(target: &Target) -> Result<PgConnection, Fault> {
    let error = match tokio::time::timeout(CONNECT, target.options.connect()).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => error,
        Err(_) => return Err(Fault::Retry(format!("no connection within {CONNECT:?}"))),
    };
    Err(match &error {
        sqlx::Error::Database(_) => error.into(),
        sqlx::Error::Io(io) if io.kind() == ErrorKind::NotFound && target.options.get_socket().is_none() => {
            Fault::Refused(format!("a file that url names cannot be read: {io}"))
        }
        // What rustls says of a certificate.
        sqlx::Error::Io(io) if io.kind() == ErrorKind::InvalidData => Fault::Refused(format!("TLS: {io}")),
        sqlx::Error::Io(io) => Fault::Retry(format!("could not connect: {io}")),
        _ => Fault::Refused(error.to_string()),
    })
}

/// Runs statements, separated by semicolons.
pub(super) async fn run(connection: &mut PgConnection, sql: String) -> Result<(), Fault> {
    connection.execute(raw_sql(AssertSqlSafe(sql))).await?;
    Ok(())
}

/// The first column of every row of the answer.
pub(super) async fn ask(connection: &mut PgConnection, sql: String) -> Result<Vec<String>, Fault> {
    let rows = connection.fetch_all(raw_sql(AssertSqlSafe(sql))).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Puts records into the table, all or none; with none, tries whether that would work.
pub(super) async fn insert(
    connection: &mut PgConnection,
    table: &Table,
    is_split: bool,
    batch: &[Arc<RequestMetrics>],
) -> Result<(), Fault> {
    run(connection, Table::stage()).await?;
    let mut copy = connection.copy_in_raw(Table::COPY).await?;
    let mut rows = encode::HEADER.to_vec();
    for record in batch.iter().map(Some).chain([None]) {
        match record {
            Some(record) => encode::row(&mut rows, record),
            None => rows.extend_from_slice(encode::TRAILER),
        }
        if rows.len() >= PIECE || record.is_none() {
            for piece in rows.chunks(PIECE) {
                copy.send(piece).await?;
            }
            rows.clear();
        }
    }
    copy.finish().await?;
    let committed = connection.execute(raw_sql(AssertSqlSafe(table.insert(is_split)))).await;
    committed.map(drop).map_err(|error| match error {
        sqlx::Error::Database(_) => error.into(),
        _ if batch.is_empty() => error.into(),
        _ => Fault::Unanswered(format!("no answer to the commit: {error}")),
    })
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let answer = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
        answer.map_or_else(
            || Self::Retry(error.to_string()),
            |answer| {
                judge(
                    answer.code(),
                    (answer.constraint(), answer.column().or(answer.data_type())),
                    answer.message(),
                )
            },
        )
    }
}

/// What the server said, and which constraint and which column (or a domain, which is a type) it named. Its texts about records may quote them, so those
/// are not used.
pub(super) fn judge(state: &str, (constraint, column): (Option<&str>, Option<&str>), message: &str) -> Fault {
    let said = format!("{message} (SQLSTATE {state})");
    let refused = |remedy: &str| Fault::Refused(format!("{said}; {remedy}"));
    let record = |what: &str| {
        let rule = constraint.map(|rule| format!(" by {rule}")).unwrap_or_default();
        Fault::Record(format!("SQLSTATE {state}: {what}{rule}"))
    };
    match (state, state.get(..2).unwrap_or_default()) {
        ("28P01" | "28000", _) => refused("check user and password in url (POSTGRES_URL), and pg_hba.conf"),
        ("3D000" | "57P04", _) => refused("create the database, or name another in url (POSTGRES_URL)"),
        ("25006", _) => refused("url (POSTGRES_URL) must name a server that can be written to"),
        ("42501", _) => refused("grant what the exporter's page lists"),
        ("2200H", _) => refused("its ids are used up: alter the column and its sequence to BIGINT"),
        ("23505", _) if constraint.is_some_and(|rule| rule.ends_with("_pkey")) => {
            refused("set the sequence of its ids behind the largest one")
        }
        ("23502", _) if column.is_some_and(|column| !Table::is_ours(column)) => {
            refused("the gateway knows nothing for that column: give it a default, or let it be NULL")
        }
        ("23514", _) if constraint.is_none() => refused("make the part that these records belong to"),
        ("42P01" | "42703" | "42P10", _) => Fault::Unprepared(said),
        ("22P02" | "22P03" | "22P05", _) => record("JSON that jsonb does not take"),
        ("22003", _) => record("a number that is out of range"),
        ("54001", _) => record("nested too deep"),
        // The first: another gateway has just made the same part.
        ("42P07" | "55P03" | "55006" | "25P03" | "25P04", _)
        | (_, "08" | "40" | "53" | "57" | "58" | "XX") => Fault::Retry(said),
        (_, "21" | "22" | "23" | "27" | "44" | "54" | "P0") => record("refused"),
        _ => refused("see the exporter's page"),
    }
}
