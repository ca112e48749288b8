//! How a request ended.

use serde::{Deserialize, Serialize};

/// The one outcome of a request: the first that applies, in the words of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// A 2xx that ended properly, whatever the finish reason.
    Completed,
    /// Refused by the gateway with a 4xx.
    Blocked,
    /// A 5xx of the gateway's own, before any provider was asked.
    GatewayError,
    /// The provider answered non-2xx or with an error frame, or could not be reached.
    ProviderError,
    /// The stream ended without its terminator, or was cut.
    Truncated,
    /// A timer of the gateway fired; `error_type` names it.
    TimedOut,
    /// The client left first, whatever came after.
    ClientClosed,
}

impl Outcome {
    /// Every outcome, for closed label sets.
    pub const ALL: &'static [Self] = &[
        Self::Completed,
        Self::Blocked,
        Self::GatewayError,
        Self::ProviderError,
        Self::Truncated,
        Self::TimedOut,
        Self::ClientClosed,
    ];

    /// The record's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Blocked => "blocked",
            Self::GatewayError => "gateway_error",
            Self::ProviderError => "provider_error",
            Self::Truncated => "truncated",
            Self::TimedOut => "timed_out",
            Self::ClientClosed => "client_closed",
        }
    }

    /// The record's `status`: `success` for a completed request alone.
    pub const fn status(self) -> &'static str {
        match self {
            Self::Completed => "success",
            _ => "error",
        }
    }
}
