//! Where the log is read: a running gateway's admin API, else the file.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::StatusCode;
use magicapi_kernel::LogQuery;
use magicapi_store::{DataDirLock, LockError, Reader, StoreError};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::filters::{escaped, query_string};
use super::table::{Entry, Line};
use crate::admin_client::{AdminClient, ClientError, Events, refusal};

/// What a page may take of a search; there is nobody else whom it would keep waiting.
const BUDGET_MS: u64 = 10_000;

/// Why a command ends.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A flag cannot be used.
    Usage(String),
    /// The log cannot be read.
    Unreadable(String),
    /// The answer cannot be written.
    Output(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(text) | Self::Unreadable(text) => f.write_str(text),
            Self::Output(error) => write!(f, "the answer cannot be written: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// The log.
pub(crate) enum Source {
    /// Of a gateway that runs.
    Api(AdminClient),
    /// The file itself.
    File {
        reader: Reader,
        /// Nobody else has the directory, and nobody gets it meanwhile.
        _lock: DataDirLock,
    },
}

/// A page as the API sends it; rows keep their text.
#[derive(Deserialize)]
struct ApiPage {
    data: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// The data of `event: lag`.
#[derive(Deserialize)]
struct Lag {
    missed: u64,
}

impl Source {
    /// Finds the gateway of this data directory, or opens the file.
    pub(crate) async fn open(data_dir: &Path, database: Option<&Path>) -> Result<Self, Failure> {
        let client = AdminClient::find(data_dir)?;
        let unreachable = match client {
            None => None,
            Some(client) => match client.get("/api/v1/exporters").await {
                Ok(_) => return Ok(Self::Api(client)),
                Err(ClientError::Unreachable(why)) => Some(why),
                Err(error) => return Err(error.into()),
            },
        };
        let Some(database) = database else {
            return Err(Failure::Unreadable("no request log is kept: `store.url` is `none`".to_owned()));
        };
        // Before the lock, which would make the directory.
        if !database.exists() {
            return Err(StoreError::Missing { path: database.to_owned() }.into());
        }
        match DataDirLock::acquire(data_dir) {
            // Who crashed left a note but no lock.
            Ok(lock) => Ok(Self::File { reader: Reader::open(database)?, _lock: lock }),
            Err(LockError::Held { dir, pid }) => Err(Failure::Unreadable(held(&dir, pid, unreachable))),
            Err(error) => Err(Failure::Unreadable(error.to_string())),
        }
    }

    /// A page, newest first, and the cursor of the next.
    pub(crate) async fn list(&self, query: &LogQuery) -> Result<(Vec<Entry>, Option<String>), Failure> {
        let query = LogQuery { budget_ms: Some(BUDGET_MS), ..query.clone() };
        match self {
            Self::Api(client) => {
                let body = client.get(&format!("/api/v1/logs{}", query_string(&query))).await?;
                let page: ApiPage = serde_json::from_slice(&body).map_err(|error| garbled(&error))?;
                let entries: Result<_, _> = page.data.iter().map(|row| entry(row.get())).collect();
                Ok((entries?, page.next_cursor))
            }
            Self::File { reader, .. } => {
                let page = reader.list(&query)?;
                let entries = page.rows.iter().map(|row| Entry {
                    json: serde_json::to_string(row).unwrap_or_default(),
                    line: Line::of(row),
                });
                Ok((entries.collect(), page.next))
            }
        }
    }

    /// One record's document.
    pub(crate) async fn get(&self, id: &str) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Api(client) => match client.get(&format!("/api/v1/logs/{}", escaped(id))).await {
                Ok(document) => Ok(Some(document)),
                Err(ClientError::Refused(StatusCode::NOT_FOUND, _)) => self.unknown().await,
                Err(error) => Err(error.into()),
            },
            Self::File { reader, .. } => Ok(reader.get(id)?),
        }
    }

    /// A 404 is an unknown record only where there is a log.
    async fn unknown(&self) -> Result<Option<Bytes>, Failure> {
        self.list(&LogQuery { limit: Some(1), ..LogQuery::default() }).await.map(|_| None)
    }

    /// New rows from now on; `None` when no gateway runs.
    pub(crate) async fn follow(&self, query: &LogQuery) -> Result<Option<Live>, Failure> {
        let Self::Api(client) = self else {
            return Ok(None);
        };
        if query.until.is_some() {
            return Err(Failure::Usage(
                "--until and following exclude each other: add --no-follow".to_owned(),
            ));
        }
        // The list brings what is older.
        let query = LogQuery { since: None, ..query.clone() };
        Ok(Some(Live(client.events(&format!("/api/v1/logs/follow{}", query_string(&query))).await?)))
    }
}

/// Rows as they come.
pub(crate) struct Live(Events);

impl Live {
    /// The next row, or how many were missed; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Result<Entry, u64>>, Failure> {
        while let Some(event) = self.0.next().await? {
            match event.name.as_str() {
                "log" => return Ok(Some(Ok(entry(&event.data)?))),
                "lag" => {
                    let lag: Lag = serde_json::from_str(&event.data).map_err(|error| garbled(&error))?;
                    return Ok(Some(Err(lag.missed)));
                }
                "error" => return Err(Failure::Unreadable(refusal(event.data.as_bytes()))),
                // Of a later version.
                _ => {}
            }
        }
        Ok(None)
    }
}

fn entry(json: &str) -> Result<Entry, Failure> {
    let line = serde_json::from_str(json).map_err(|error| garbled(&error))?;
    Ok(Entry { json: json.to_owned(), line })
}

fn garbled(error: &serde_json::Error) -> Failure {
    Failure::Unreadable(format!(
        "the gateway's answer cannot be read ({error}); does it run another version than this command?"
    ))
}

/// Somebody has the directory, and cannot be asked.
fn held(dir: &Path, pid: Option<u32>, unreachable: Option<String>) -> String {
    let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let why = unreachable.unwrap_or_else(|| "it has not noted an admin API in gateway.json".to_owned());
    format!("{} is in use by {who}, which cannot be asked: {why}; stop it, or ask again", dir.display())
}
