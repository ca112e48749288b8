//! What an exporter answers: how a batch fared, how it feels, what is wrong with its settings.

use std::time::Duration;

/// How a batch fared. The pipeline acts on it; an exporter never retries by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The back end has all of it.
    Delivered,
    /// One outcome per record, in the batch's order.
    Items(Vec<ItemOutcome>),
    /// Nothing was taken; the same batch may be sent again, not before `after`.
    Retry {
        /// The back end's own delay.
        after: Option<Duration>,
    },
    /// The batch is too large; the pipeline halves it and sends again.
    TooLarge,
    /// Credential or set-up is wrong. Records are kept, none is rejected, and the operator is told.
    Refused {
        /// What the back end said, without secrets.
        reason: String,
    },
    /// Sent, but no answer came: the batch may be there twice after the retry. Counted.
    Unknown,
}

/// How one record fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// The back end has it.
    Delivered,
    /// May be sent again.
    Retry,
    /// Will never be taken.
    Rejected {
        /// What the back end said, without content.
        reason: String,
    },
    /// Sent, but no answer came: it may be there twice after the retry. Counted.
    Unknown,
}

/// An exporter's own judgement of its back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Ok,
    /// It works in part, or that cannot be known.
    Degraded(String),
    /// It does not work.
    Down(String),
}

impl Health {
    /// The state's word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded(_) => "degraded",
            Self::Down(_) => "down",
        }
    }

    /// What is wrong.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Degraded(reason) | Self::Down(reason) => Some(reason),
        }
    }
}

/// `init` or `shutdown` failed. The text is for the operator: what was tried, what came back, the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExportError(String);

impl ExportError {
    /// An error with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<String> for ExportError {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<&str> for ExportError {
    fn from(message: &str) -> Self {
        Self(message.into())
    }
}

/// A setting cannot be used. Found without I/O, so that `check` is exact and offline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigError {
    /// The setting, as a path below the exporter's own entry (`url`, `batch.age`); empty for the whole.
    pub key: String,
    /// What was found, what was expected.
    pub message: String,
}

impl ConfigError {
    /// An error about the setting `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}
