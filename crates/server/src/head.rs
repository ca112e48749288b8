//! What the head of a request must be, whatever its path (RFC 9112, 3.2 and 6.1), and what no head gets yet.

use http::request::Parts;
use http::{HeaderMap, Version, header};
use magicapi_dialects::openai_chat::Operation;
use magicapi_model::{Error, ErrorKind};

/// Refuses what servers on the way could read in another way than the gateway does.
pub(crate) fn check(parts: &Parts) -> Result<(), Error> {
    if parts.version == Version::HTTP_11 {
        one_host(&parts.headers)?;
    }
    only_chunked(&parts.headers)
}

fn one_host(headers: &HeaderMap) -> Result<(), Error> {
    let message = match headers.get_all(header::HOST).iter().count() {
        1 => return Ok(()),
        0 => "an HTTP/1.1 request needs the header `host`; send the name that the gateway is called by",
        _ => "the header `host` came more than once; send it once",
    };
    Err(Error::client(ErrorKind::InvalidRequest, message).param("host"))
}

fn only_chunked(headers: &HeaderMap) -> Result<(), Error> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => {
            let message = "the only `transfer-encoding` that is read is `chunked`; pack the body with `content-encoding`";
            Err(Error::client(ErrorKind::NotImplemented, message).param("transfer-encoding"))
        }
    }
}

/// Upgrades are refused until realtime is built: only 426 makes a client fall back at once. An offer of cleartext
/// HTTP/2 (`Upgrade: h2c`) may be ignored and is.
pub(crate) fn no_websocket(headers: &HeaderMap) -> Result<(), Error> {
    let websocket = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("websocket")));
    if websocket { Err(upgrade_refused()) } else { Ok(()) }
}

/// Realtime has no other form.
pub(crate) fn no_realtime(operation: Operation) -> Result<(), Error> {
    if operation == Operation::Realtime { Err(upgrade_refused()) } else { Ok(()) }
}

fn upgrade_refused() -> Error {
    Error::client(
        ErrorKind::UpgradeRequired,
        "WebSocket connections are not served; use the HTTP form of the API",
    )
}
