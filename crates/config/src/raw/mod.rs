//! What the user wrote: the configuration file, key for key, nothing filled in.
//!
//! The schema of the file comes from these structs: a doc line is the key's description, `x-restart` marks a key that
//! takes effect at the next start only. Defaults stand in `resolve`.

mod pipeline;
mod redaction;
mod telemetry;

use std::collections::BTreeMap;
use std::path::PathBuf;

use magicapi_model::Secret;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::{AuthMode, MetricsAccess, OnClientGone, OnFull};
use crate::units::{Limit, Size, Span};

pub(crate) use self::pipeline::{Batch, Buffer, Keep, Only, Pipeline, ReachAuth, Retry, Sample};
pub(crate) use self::redaction::{Pattern as RedactPattern, Pii, Redact};
pub(crate) use self::telemetry::{Capture, Journal, Telemetry};

/// The configuration file of the MagicAPI gateway.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    /// The data plane's listener.
    pub(crate) server: Server,
    /// The admin plane: API, `/metrics`, health details.
    pub(crate) admin: Admin,
    /// Directory of store, generated token and lock, relative to the working directory. `--data-dir` and `DATA_DIR`
    /// win over it; without any of them it is `$STATE_DIRECTORY`, else `./magicapi-data`.
    #[schemars(extend("x-restart" = true))]
    pub(crate) data_dir: Option<PathBuf>,
    /// The embedded store: spend ledger and request log.
    pub(crate) store: Store,
    /// The spend ledger.
    pub(crate) ledger: Ledger,
    /// Who may call.
    pub(crate) auth: Auth,
    /// How providers are reached.
    pub(crate) upstream: Upstream,
    /// Time limits of a request.
    pub(crate) timeouts: Timeouts,
    /// The providers, by name: a catalogue entry's name, or any name with a `type`. A provider whose key is in the
    /// environment needs no entry.
    pub(crate) providers: BTreeMap<String, Provider>,
    /// Prices.
    pub(crate) prices: Prices,
    /// Records, metrics and exporters.
    pub(crate) telemetry: Telemetry,
}

/// One text or a list of texts.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// The data plane's listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// Addresses with port, one or several; default: port 3000 of both loopbacks. Port 0 takes a free one. `HOST` and
    /// `PORT` win over it.
    #[schemars(extend("x-restart" = true))]
    pub(crate) listen: Option<OneOrMany>,
    /// Certificate and key; without them the listener speaks plain HTTP.
    #[schemars(extend("x-restart" = true))]
    pub(crate) tls: Option<Tls>,
    /// Pause after which a silent stream gets a comment line (default 15s).
    pub(crate) heartbeat: Option<Span>,
    /// Bounds on what a client may send.
    pub(crate) limits: Limits,
    /// How the data plane stops after SIGTERM.
    pub(crate) drain: Drain,
}

/// Certificate and key, reread on change.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// The certificate chain as a PEM file, relative to the working directory.
    pub(crate) cert: PathBuf,
    /// The private key as a PEM file, relative to the working directory.
    pub(crate) key: PathBuf,
}

/// Bounds on what a client may send.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Size of a request's head (default 64KiB).
    pub(crate) header_bytes: Option<Size>,
    /// Time for a request's head to arrive, and for each further piece of its body (default 30s).
    pub(crate) header_read: Option<Span>,
    /// What a body brings in a second, on average, once `header_read` is over (default 1KiB); 0 = as slow as it likes.
    pub(crate) body_rate: Option<Size>,
    /// Connections at a time (default 10000).
    #[schemars(range(min = 1))]
    pub(crate) connections: Option<usize>,
    /// Size of a body that must be held in memory (default 64MiB).
    pub(crate) body: Option<Size>,
    /// Size of a body that passes through, such as a file upload (default 1GiB).
    pub(crate) upload: Option<Size>,
}

/// How the data plane stops after SIGTERM.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Drain {
    /// Time during which it goes on accepting while `/ready` answers 503 (default 5s).
    pub(crate) delay: Option<Span>,
    /// Time that running requests then have (default 10m).
    pub(crate) timeout: Option<Span>,
}

/// The admin plane.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// Addresses with port, one or several; default: port 3001 of both loopbacks. `ADMIN_LISTEN` wins over it. Beyond
    /// loopback it needs a `token`.
    #[schemars(extend("x-restart" = true))]
    pub(crate) listen: Option<OneOrMany>,
    /// The token that opens the API; `ADMIN_TOKEN` wins over it. Without one the gateway makes one at its first start.
    #[schemars(extend("x-restart" = true))]
    pub(crate) token: Option<Secret>,
    /// Who may read `/metrics` (default `token`).
    #[schemars(extend("x-restart" = true))]
    pub(crate) metrics: Option<MetricsAccess>,
    /// Names under which it is reached, such as a service's name in a cluster: `Host` must be one of them, an address
    /// that it listens on, or a loopback (default: none).
    #[schemars(extend("x-restart" = true))]
    pub(crate) hosts: Vec<String>,
}

/// The embedded store.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    /// `sqlite://FILE` (relative to `data_dir`; default `sqlite://magicapi.db`), or `none`: no ledger and no log.
    #[schemars(extend("x-restart" = true))]
    pub(crate) url: Option<String>,
    /// How long the request log is kept; the sooner of the two.
    pub(crate) retention: Retention,
}

/// How long the request log is kept.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retention {
    /// Age of a record (default 7d).
    pub(crate) age: Option<Span>,
    /// Size of all records (default 2GiB).
    pub(crate) size: Option<Size>,
}

/// The spend ledger.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ledger {
    /// What happens when rows can no longer be written; default `refuse` with `auth.mode: keys`, else `count`.
    pub(crate) on_full: Option<OnFull>,
}

/// Who may call.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    /// Whose credential is used; default `keys` when keys are configured, else `passthrough`.
    pub(crate) mode: Option<AuthMode>,
    /// The virtual keys; those of `GATEWAY_API_KEYS` come on top.
    pub(crate) keys: Vec<Key>,
    /// Pass-through paths that may use the gateway's own provider keys, as `METHOD /path`.
    pub(crate) passthrough: Vec<String>,
}

/// A virtual key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// Its name in logs and records.
    pub(crate) name: String,
    /// `sha256:` and the key's SHA-256 in hexadecimal; `keys create` makes both.
    pub(crate) hash: String,
    /// The project that its requests belong to.
    #[serde(default)]
    pub(crate) project: Option<String>,
    /// Patterns of the models that it may use (`openai/*`); none = all.
    #[serde(default)]
    pub(crate) models: Vec<String>,
}

/// How providers are reached.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Upstream {
    /// An HTTP proxy, as a URL; `HTTPS_PROXY` and `HTTP_PROXY` win over it, `NO_PROXY` names exceptions.
    pub(crate) proxy: Option<String>,
    /// Trust in providers' certificates.
    pub(crate) tls: UpstreamTls,
}

/// Trust in providers' certificates.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    /// Further trusted certificates as a PEM file, relative to the working directory; default `SSL_CERT_FILE`.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Time limits of a request.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// For a connection, with TLS (default 5s).
    pub(crate) connect: Option<Span>,
    /// Until the first semantic byte (default 10m).
    pub(crate) first_token: Option<Span>,
    /// Between two reads of a body or stream (default 2m).
    pub(crate) idle: Option<Span>,
    /// For one attempt, or `none`; ends at a stream's first semantic byte (default none).
    pub(crate) attempt: Option<Limit>,
    /// For all attempts together, or `none`; ends at a stream's first semantic byte (default none).
    pub(crate) total: Option<Limit>,
}

/// A provider.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Provider {
    /// The catalogue entry that it follows; default: its name.
    #[serde(rename = "type")]
    pub(crate) catalogue: Option<String>,
    /// The gateway's own key for it; the catalogue entry's variable (`OPENAI_API_KEY`) wins over it.
    pub(crate) api_key: Option<Secret>,
    /// Its address; default: the catalogue's. The catalogue entry's variable (`OPENAI_BASE_URL`) wins over it.
    pub(crate) base_url: Option<String>,
    /// What happens to a call whose client has left (default `cancel`).
    pub(crate) on_client_gone: Option<OnClientGone>,
    /// Whether it gets a `traceparent` that names the request's own span, and the caller's `tracestate` (default false).
    pub(crate) trace: Option<bool>,
}

/// Prices.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Prices {
    /// A file of price rows that overlays the built-in table, relative to the working directory.
    pub(crate) file: Option<PathBuf>,
}
