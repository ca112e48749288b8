//! The one error of the request path: what happened, who caused it, whether trying again can help.
//!
//! It becomes HTTP once, in the server's `rescue.rs`. Kind and origin are closed lists and serve as metric labels and
//! as the record's `error_type`.

use std::fmt;

/// Declares the kinds with their words, so that the list and the names cannot drift apart.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $word:literal,)+) => {
        /// What happened. The word is the record's `error_type` and the error body's `code`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[doc = $doc])+ $kind,)+ }

        impl ErrorKind {
            /// Every kind, for closed label sets and documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The kind's word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)+ }
            }
        }
    };
}

kinds! {
    /// The request cannot be read: bad JSON, a missing or mistyped field, an impossible header.
    InvalidRequest = "invalid_request",
    /// The provider refuses this parameter and dropping it would change the meaning.
    UnsupportedParameter = "unsupported_parameter",
    /// The body's coding or media type cannot be read here.
    UnsupportedMediaType = "unsupported_media_type",
    /// The head is over the limit, or has too many headers.
    HeadTooLarge = "head_too_large",
    /// The body, or what it decodes to, is over the limit.
    BodyTooLarge = "body_too_large",
    /// The request uses a part of HTTP that is not built: a transfer coding other than `chunked`.
    NotImplemented = "not_implemented",
    /// The path is not served.
    UnknownPath = "unknown_path",
    /// The path is served, but not with this method.
    MethodNotAllowed = "method_not_allowed",
    /// A protocol upgrade was asked for.
    UpgradeRequired = "upgrade_required",
    /// No provider has this name.
    UnknownProvider = "unknown_provider",
    /// The provider is known but has no key or address here.
    ProviderNotConfigured = "provider_not_configured",
    /// The provider's catalogue has no such model.
    UnknownModel = "unknown_model",
    /// No credential came, or it is not one of ours.
    Unauthenticated = "unauthenticated",
    /// The credential is good but may not do this.
    Forbidden = "forbidden",
    /// The client was too slow to send its request.
    ClientTimeout = "client_timeout",
    /// The client left.
    ClientClosed = "client_closed",
    /// The gateway holds as many requests or bytes as it may.
    Overloaded = "overloaded",
    /// The ledger cannot take a row, and `ledger.on_full` is `refuse`.
    LedgerFull = "ledger_full",
    /// An exporter with `when_full: refuse` is full, in memory and on disk.
    TelemetryFull = "telemetry_full",
    /// The gateway is draining.
    ShuttingDown = "shutting_down",
    /// A fault of the gateway's own.
    Internal = "internal",
    /// The provider's name could not be resolved.
    DnsFailed = "dns_failed",
    /// The provider could not be connected to.
    ConnectFailed = "connect_failed",
    /// TLS with the provider failed.
    TlsFailed = "tls_failed",
    /// `timeouts.connect` fired.
    ConnectTimeout = "connect_timeout",
    /// `timeouts.first_token` fired.
    FirstTokenTimeout = "first_token_timeout",
    /// `timeouts.idle` fired.
    IdleTimeout = "idle_timeout",
    /// `timeouts.attempt` fired.
    AttemptTimeout = "attempt_timeout",
    /// `timeouts.total` fired.
    TotalTimeout = "total_timeout",
    /// The provider closed the connection before its answer was whole.
    ConnectionClosed = "connection_closed",
    /// The provider broke HTTP.
    ProtocolError = "protocol_error",
    /// The stream ended without its terminator.
    StreamTruncated = "stream_truncated",
    /// The provider answered with a status of 400 or more.
    ProviderStatus = "provider_status",
    /// The provider sent an error inside a 2xx stream.
    ProviderStreamError = "provider_stream_error",
}

/// Who caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The caller's request.
    Client,
    /// The gateway.
    Gateway,
    /// The provider, or the way to it.
    Provider,
}

impl Origin {
    /// The word in `x-gateway-error-origin`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Provider => "provider",
        }
    }
}

/// Whether the same request may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// It never reached the provider: safe at once, also for a POST.
    Safe,
    /// It may work later; the provider may have done the work already.
    Later,
}

/// An error of the request path.
#[derive(Debug)]
pub struct Error {
    /// What happened.
    pub kind: ErrorKind,
    /// Who caused it.
    pub origin: Origin,
    /// Whether trying again can help.
    pub retry: Retry,
    /// A sentence for the person who reads it: what is wrong, where, and the remedy. No secret, no content.
    pub message: String,
    /// The field or header at fault, as the caller wrote it.
    pub param: Option<String>,
    /// Facts for the log.
    pub context: Vec<(&'static str, String)>,
    /// What caused it.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    fn new(kind: ErrorKind, origin: Origin, retry: Retry, message: impl Into<String>) -> Self {
        Self { kind, origin, retry, message: message.into(), param: None, context: Vec::new(), source: None }
    }

    /// The caller's fault: the same request fails again.
    pub fn client(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, Origin::Client, Retry::Never, message)
    }

    /// The gateway's own fault or state.
    pub fn gateway(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, Origin::Gateway, Retry::Later, message)
    }

    /// The provider's fault, or the way's to it.
    pub fn provider(kind: ErrorKind, retry: Retry, message: impl Into<String>) -> Self {
        Self::new(kind, Origin::Provider, retry, message)
    }

    /// Names the field or header at fault.
    pub fn param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    /// Adds a fact for the log.
    pub fn context(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.context.push((name, value.into()));
        self
    }

    /// Keeps the cause.
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.message)?;
        for (name, value) in &self.context {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
