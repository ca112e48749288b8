//! What went wrong on the way to a provider, in words: one place makes the client's errors, so that each names the
//! place, the step and a remedy, and none shows a credential or a query.

use std::error::Error as StdError;
use std::io;

use magicapi_model::{Error, ErrorKind, Retry};

use crate::h1::READ_BYTES;

/// A failure that several waiters may be told: unlike [`Error`] it can be cloned.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) retry: Retry,
    pub(crate) message: String,
}

impl Fault {
    /// A failure before anything was sent: safe to try again at once.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, retry: Retry::Safe, message: message.into() }
    }

    /// A failure after the request was, or may have been, sent.
    pub(crate) fn sent(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, retry: Retry::Later, message: message.into() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault.kind {
            ErrorKind::Overloaded => Error::gateway(fault.kind, fault.message),
            _ => Error::provider(fault.kind, fault.retry, fault.message),
        }
    }
}

/// An error of hyper's, after the request was handed to an HTTP/1.1 connection to `place`.
pub(crate) fn of_hyper(error: &hyper::Error, place: &str, phase: &str) -> Error {
    if let Some(ours) = find::<Error>(error) {
        return again(ours);
    }
    let cause = deepest(error);
    if error.is_parse_too_large() {
        let message = format!(
            "{place} sent a head with more than 100 headers or more than {} KiB, which is the most that is read of one",
            READ_BYTES >> 10
        );
        return Fault::sent(ErrorKind::ProtocolError, message).into();
    }
    if error.is_parse() {
        let message = format!("{place} sent what is not HTTP/1.1 {phase}: {cause}; is the address right?");
        return Fault::sent(ErrorKind::ProtocolError, message).into();
    }
    // A broken length or chunk header arrives as an I/O error of these kinds.
    if find::<io::Error>(error)
        .is_some_and(|e| matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput))
    {
        return Fault::sent(ErrorKind::ProtocolError, format!("{place} broke HTTP/1.1 {phase}: {cause}"))
            .into();
    }
    closed(place, phase, &cause)
}

/// An error of h2's, on a stream to `place`.
pub(crate) fn of_h2(error: &h2::Error, place: &str, phase: &str) -> Error {
    if error.is_io() || error.is_go_away() && error.is_remote() {
        return closed(place, phase, &error.to_string());
    }
    if error.is_reset() && error.is_remote() && error.reason() != Some(h2::Reason::PROTOCOL_ERROR) {
        let message = format!("{place} reset the HTTP/2 stream {phase}: {error}; trying later may help");
        return Fault::sent(ErrorKind::ConnectionClosed, message).into();
    }
    Fault::sent(ErrorKind::ProtocolError, format!("HTTP/2 with {place} broke {phase}: {error}")).into()
}

/// The connection ended too early.
pub(crate) fn closed(place: &str, phase: &str, cause: &str) -> Error {
    let message = format!("{place} closed the connection {phase}: {cause}; trying later may help");
    Fault::sent(ErrorKind::ConnectionClosed, message).into()
}

/// The caller's own error that travelled through hyper as the request body's; it cannot be moved out.
fn again(error: &Error) -> Error {
    Error {
        kind: error.kind,
        origin: error.origin,
        retry: error.retry,
        message: error.message.clone(),
        param: error.param.clone(),
        context: error.context.clone(),
        source: None,
    }
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
