//! Listeners, data directory, store, ledger, log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use magicapi_model::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The data plane's listener.
#[derive(Clone, PartialEq)]
pub struct Server {
    /// Where it listens: port 3000 of both loopbacks unless named.
    pub listen: Listen,
    /// Certificate and key; `None` = plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Pause after which a silent stream gets a comment line.
    pub heartbeat: Duration,
    /// Bounds on what a client may send.
    pub limits: Limits,
    /// How it stops.
    pub drain: Drain,
}

/// Addresses of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The addresses, at least one; port 0 = a free port.
    pub addresses: Vec<SocketAddr>,
    /// Whether somebody named them.
    pub source: ListenSource,
}

impl Listen {
    /// Whether every address is a loopback.
    pub fn is_loopback(&self) -> bool {
        self.addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
    }
}

/// Whether somebody named the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenSource {
    /// Both loopbacks, by default or as `localhost`: one that the machine lacks is a warning.
    Default,
    /// Named: an address that cannot be had is a failure.
    Named,
}

/// Certificate and key, as PEM files; relative to the working directory, reread on change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Bounds on what a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Time for a request's head to arrive, and for each further piece of its body.
    pub header_read: Duration,
    /// Bytes a second that a body brings on average once `header_read` is over; 0 = as slow as it likes.
    pub body_rate: u64,
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of a body that must be held in memory.
    pub body: usize,
    /// Bytes of a body that passes through.
    pub upload: u64,
}

/// How the data plane stops after SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Time during which it goes on accepting while `/ready` is 503.
    pub delay: Duration,
    /// Time that running requests then have.
    pub timeout: Duration,
}

/// The admin plane.
#[derive(Clone, PartialEq)]
pub struct Admin {
    /// Where it listens: port 3001 of both loopbacks unless named.
    pub listen: Listen,
    /// Opens the API; `None` = the gateway makes one at its first start.
    pub token: Option<Secret>,
    /// Who may read `/metrics`.
    pub metrics: MetricsAccess,
    /// Names that `Host` may be, besides the addresses listened on and loopback literals.
    pub hosts: Vec<String>,
}

/// Who may read `/metrics` on the admin plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricsAccess {
    /// Who holds the admin token.
    #[default]
    Token,
    /// Everybody who reaches the listener.
    Open,
}

/// The embedded store: ledger and request log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Where it is.
    pub url: StoreUrl,
    /// How long records are kept.
    pub retention: Retention,
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A SQLite file; a relative path has been joined to the data directory.
    Sqlite(PathBuf),
    /// No store: ledger and embedded request log are off.
    None,
}

/// How long the embedded request log is kept; the sooner of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Age of a record.
    pub age: Duration,
    /// Bytes of all records.
    pub size: u64,
}

/// The spend ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// What happens when rows can no longer be written: `refuse` with `auth.mode: keys`, else `count`.
    pub on_full: OnFull,
    /// Whether the file says so: then an unwritable data directory stops the start.
    pub explicit: bool,
}

/// What happens when ledger rows can no longer be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// New requests are answered 503.
    Refuse,
    /// Traffic goes on; missing rows are counted.
    Count,
}

/// Price overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// A file of price rows that overlays the built-in table; relative to the working directory.
    pub file: Option<PathBuf>,
}

/// The gateway's own log, on stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Directives of `RUST_LOG`. Their syntax is checked where the log is set up.
    pub filter: String,
    /// `LOG_FORMAT`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
