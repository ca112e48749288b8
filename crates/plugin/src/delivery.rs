//! What an exporter answers: how a batch fared, how it feels, what is wrong with its settings.

use std::time::Duration;

use bytes::Bytes;

use crate::{HttpError, retry_after};

/// How a batch fared. The pipeline acts on it; an exporter never retries by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

impl Delivery {
    /// How a batch of so many `records` fared by HTTP's own words, where one request carries it whole: 2xx is delivered;
    /// 408, 425, 429 and 5xx are sent again, not before `Retry-After`; so is a 504, with which a proxy says that it has no
    /// answer, so that the batch may be there twice; 413 is too large; 400 and 422 mean something in
    /// the batch, which is halved until it is found, then rejected; anything else (401, 403, 404, …) is for the operator.
    ///
    /// A back end with other habits is judged by code of your own: one that says 200 and means it for some records only,
    /// or one that keeps the good half of what it answers with 400 and would have it twice.
    pub fn of_answer(answer: &Result<http::Response<Bytes>, HttpError>, records: usize) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(HttpError::Connect(_)) => return Self::Retry { after: None },
            Err(_) => return Self::Unknown,
        };
        match answer.status().as_u16() {
            200..=299 => Self::Delivered,
            status @ (400 | 422) if records == 1 => {
                Self::Items(vec![ItemOutcome::Rejected { reason: format!("HTTP {status}") }])
            }
            400 | 413 | 422 => Self::TooLarge,
            // Whoever stands between has no answer: what he passed on may have arrived.
            504 => Self::Unknown,
            408 | 425 | 429 | 500 | 502..=599 => Self::Retry { after: retry_after(answer.headers()) },
            status => {
                Self::Refused { reason: format!("HTTP {status}: check the address and the credential") }
            }
        }
    }
}

/// How one record fared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemOutcome {
    /// The back end has it.
    Delivered,
    /// May be sent again.
    Retry,
    /// May be sent again, not before the back end's own delay is over.
    RetryAfter(Duration),
    /// Will never be taken.
    Rejected {
        /// What the back end said, without content.
        reason: String,
    },
    /// Sent, but no answer came: it may be there twice after the retry. Counted.
    Unknown,
}

impl ItemOutcome {
    /// What may be sent again, at once or after the back end's own delay.
    pub fn again(after: Option<Duration>) -> Self {
        after.map_or(Self::Retry, Self::RetryAfter)
    }

    /// Whether nothing is left to do: the back end has the record, or will never take it.
    pub const fn is_settled(&self) -> bool {
        matches!(self, Self::Delivered | Self::Rejected { .. })
    }

    /// The back end's own delay.
    pub const fn after(&self) -> Option<Duration> {
        match self {
            Self::RetryAfter(after) => Some(*after),
            _ => None,
        }
    }
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
#[non_exhaustive]
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Delivery, ItemOutcome};
    use crate::HttpError;

    fn of(status: u16, records: usize) -> Delivery {
        let answer = http::Response::builder().status(status).header("retry-after", "7");
        Delivery::of_answer(&Ok(answer.body("".into()).expect("answer")), records)
    }

    #[test]
    fn an_answer_is_judged_by_its_status() {
        for status in [200, 202, 204] {
            assert_eq!(of(status, 2), Delivery::Delivered, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 529] {
            assert_eq!(of(status, 2), Delivery::Retry { after: Some(Duration::from_secs(7)) }, "{status}");
        }
        for status in [301, 401, 403, 404, 405, 410, 415, 501] {
            assert!(matches!(of(status, 1), Delivery::Refused { .. }), "{status}");
        }
        assert_eq!(of(504, 2), Delivery::Unknown);
        assert_eq!(of(413, 1), Delivery::TooLarge);
        for status in [400, 422] {
            assert_eq!(of(status, 2), Delivery::TooLarge, "halved, to find the record that is meant");
            let reason = format!("HTTP {status}");
            assert_eq!(of(status, 1), Delivery::Items(vec![ItemOutcome::Rejected { reason }]));
        }
    }

    #[test]
    fn no_answer_is_unknown_unless_nothing_was_sent() {
        let of = |error| Delivery::of_answer(&Err(error), 2);
        assert_eq!(of(HttpError::Connect("refused".into())), Delivery::Retry { after: None });
        assert_eq!(of(HttpError::NoAnswer("closed".into())), Delivery::Unknown);
        assert_eq!(of(HttpError::TooLarge("10 MB".into())), Delivery::Unknown);
    }
}
