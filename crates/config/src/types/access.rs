//! Who may call, whom the gateway calls, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use magicapi_model::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The mode. Not set: `keys` when keys are configured (file or `GATEWAY_API_KEYS`), else `passthrough`.
    pub mode: AuthMode,
    /// Whether the file names the mode.
    pub explicit_mode: bool,
    /// The virtual keys: those of the file, then those of `GATEWAY_API_KEYS`. Names are unique.
    pub keys: Vec<KeyEntry>,
    /// Pass-through paths that may use the gateway's own provider keys.
    pub passthrough: Vec<PassthroughRule>,
}

/// Whose credential opens the gateway, and whose goes to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// A virtual key opens it; the gateway's provider key is used.
    Keys,
    /// The caller's own provider key is used.
    Passthrough,
    /// Everybody may call; the gateway's provider key is used.
    Open,
}

/// A virtual key. The key itself is never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its name in logs and records.
    pub name: String,
    /// `sha256:` and the key's SHA-256 as 64 lower-case hexadecimal digits.
    pub hash: String,
    /// The project that its requests belong to.
    pub project: Option<String>,
    /// Patterns of the models that it may use (`openai/*`); empty = all.
    pub models: Vec<String>,
}

/// A pass-through path that may use the gateway's own provider key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassthroughRule {
    /// The method, in capitals.
    pub method: String,
    /// The path, with its leading slash.
    pub path: String,
}

/// How providers are reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// `upstream.proxy`, as the file has it; already merged into the next two.
    pub proxy: Option<String>,
    /// The proxy towards `https://` addresses: `HTTPS_PROXY`, else `upstream.proxy`. May hold a password.
    pub https_proxy: Option<String>,
    /// The proxy towards `http://` addresses: `HTTP_PROXY`, else `upstream.proxy`. May hold a password.
    pub http_proxy: Option<String>,
    /// Hosts, domains (`.corp`), addresses and networks that are reached directly; `*` = all (`NO_PROXY`).
    pub no_proxy: Vec<String>,
    /// Further trusted certificates, as PEM: `upstream.tls.ca_file`, else `SSL_CERT_FILE`.
    pub ca_file: Option<PathBuf>,
}

/// Time limits of a request; `None` = no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, with TLS.
    pub connect: Duration,
    /// Until the first semantic byte.
    pub first_token: Duration,
    /// Between two reads of a body or stream.
    pub idle: Duration,
    /// For one attempt; ends at a stream's first semantic byte.
    pub attempt: Option<Duration>,
    /// For all attempts together; ends at a stream's first semantic byte.
    pub total: Option<Duration>,
}

/// A configured provider.
#[derive(Clone, PartialEq)]
pub struct ProviderEntry {
    /// Its name in `x-provider` and in `provider/model`.
    pub name: String,
    /// The catalogue entry that it follows (`type`; default: its name).
    pub catalogue: String,
    /// The gateway's own key for it.
    pub api_key: Option<Secret>,
    /// Its address, without a trailing slash; `None` = the catalogue's.
    pub base_url: Option<String>,
    /// What happens to a call whose client has left.
    pub on_client_gone: OnClientGone,
    /// Whether `traceparent` and `tracestate` are sent to it.
    pub trace: bool,
}

/// What happens to a call whose client has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnClientGone {
    /// It is closed at once.
    #[default]
    Cancel,
    /// It is read to its end, within limits, for providers that bill the whole answer anyway.
    Drain,
}
