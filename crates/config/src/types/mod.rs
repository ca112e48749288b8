//! What the program needs: the resolved configuration, with every default filled in.
//!
//! `raw` holds what the user wrote, `resolve` turns it into these; nothing past this crate sees an `Option` that means
//! "default" (the defaults stand in `resolve`, and the schema shows them). The enumerations are the file's own words:
//! `raw` reads them and `effective` writes them. A `Config` is a snapshot: it is swapped whole and never edited. No
//! `Debug`: it holds secrets.

mod access;
mod pipeline;
mod reach;
mod redaction;
mod serving;
mod telemetry;

pub use self::access::{
    Auth, AuthMode, KeyEntry, OnClientGone, PassthroughRule, ProviderEntry, Timeouts, Upstream,
};
pub use self::pipeline::{
    Batch, Breaker, Buffer, DeadLetters, Only, Pipeline, RateLimit, Retry, Sample, WhenFull,
};
pub use self::reach::{Reach, ReachAuth, ReachProxy};
pub use self::redaction::{PersonalData, Redaction, RedactionPattern, ReplaceWith};
pub use self::serving::{
    Admin, Drain, Ledger, Limits, Listen, ListenSource, Log, LogFormat, MetricsAccess, OnFull, Prices,
    Retention, Server, Store, StoreUrl, TlsFiles,
};
pub use self::telemetry::{Capture, Durable, ExporterEntry, Fsync, Source, Telemetry};

use std::path::PathBuf;

/// The whole configuration, resolved and validated.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// The data plane's listener.
    pub server: Server,
    /// The admin plane.
    pub admin: Admin,
    /// Where store, generated token and lock live: `--data-dir`, `DATA_DIR`, `data_dir`, `$STATE_DIRECTORY`,
    /// `./magicapi-data`, the first that is set. As written: relative to the working directory.
    pub data_dir: PathBuf,
    /// The embedded store.
    pub store: Store,
    /// The spend ledger.
    pub ledger: Ledger,
    /// Who may call.
    pub auth: Auth,
    /// How providers are reached.
    pub upstream: Upstream,
    /// Time limits of a request.
    pub timeouts: Timeouts,
    /// The configured providers, by name.
    pub providers: Vec<ProviderEntry>,
    /// Price overlay.
    pub prices: Prices,
    /// Records, metrics and exporters.
    pub telemetry: Telemetry,
    /// The gateway's own log.
    pub log: Log,
}
