//! The one place that turns an [`Error`] into HTTP: status, headers, and a body in the caller's dialect.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use magicapi_dialects::openai_chat::error;
use magicapi_model::{Error, ErrorKind, Origin, Outcome, Retry};

/// The status, the dialect's `type` and the outcome of each kind of error.
pub(crate) fn status(kind: ErrorKind) -> (StatusCode, &'static str) {
    use ErrorKind as K;
    const INVALID: &str = "invalid_request_error";
    const SERVER: &str = "server_error";
    match kind {
        K::InvalidRequest | K::UnsupportedParameter | K::UnknownProvider => {
            (StatusCode::BAD_REQUEST, INVALID)
        }
        K::ProviderNotConfigured => (StatusCode::BAD_REQUEST, INVALID),
        K::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID),
        K::NotImplemented => (StatusCode::NOT_IMPLEMENTED, INVALID),
        K::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID),
        K::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, INVALID),
        K::UnknownPath | K::UnknownModel => (StatusCode::NOT_FOUND, INVALID),
        K::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, INVALID),
        K::UpgradeRequired => (StatusCode::UPGRADE_REQUIRED, INVALID),
        K::Unauthenticated => (StatusCode::UNAUTHORIZED, "authentication_error"),
        K::Forbidden => (StatusCode::FORBIDDEN, "permission_error"),
        K::ClientTimeout => (StatusCode::REQUEST_TIMEOUT, INVALID),
        K::Overloaded | K::LedgerFull | K::TelemetryFull | K::ShuttingDown => {
            (StatusCode::SERVICE_UNAVAILABLE, SERVER)
        }
        // 499 is nginx's word for it; nobody reads it on the wire, the record does.
        K::ClientClosed => (StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST), INVALID),
        K::Internal => (StatusCode::INTERNAL_SERVER_ERROR, SERVER),
        K::DnsFailed
        | K::ConnectFailed
        | K::TlsFailed
        | K::ConnectionClosed
        | K::ProtocolError
        | K::StreamTruncated
        | K::ProviderStatus
        | K::ProviderStreamError => (StatusCode::BAD_GATEWAY, SERVER),
        K::ConnectTimeout | K::FirstTokenTimeout | K::IdleTimeout | K::AttemptTimeout | K::TotalTimeout => {
            (StatusCode::GATEWAY_TIMEOUT, SERVER)
        }
    }
}

/// The outcome that an error gives a request. `asked`: a provider had been asked.
pub(crate) fn outcome(error: &Error, asked: bool) -> Outcome {
    use ErrorKind as K;
    match (error.kind, error.origin) {
        (K::ClientClosed, _) => Outcome::ClientClosed,
        (
            K::ConnectTimeout | K::FirstTokenTimeout | K::IdleTimeout | K::AttemptTimeout | K::TotalTimeout,
            _,
        ) => Outcome::TimedOut,
        (K::StreamTruncated, _) => Outcome::Truncated,
        (K::ShuttingDown, _) if asked => Outcome::Truncated,
        (_, Origin::Provider) => Outcome::ProviderError,
        (kind, _) if status(kind).0.is_client_error() => Outcome::Blocked,
        _ => Outcome::GatewayError,
    }
}

/// An answer made of an error.
pub(crate) struct Rescued {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers, `content-type` among them.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

/// Renders an error before the answer's head was sent.
pub(crate) fn rescue(error: &Error) -> Rescued {
    let (status, kind) = status(error.kind);
    let status = provider_status(error).unwrap_or(status);
    let body = error::body(&error.message, kind, error.param.as_deref(), Some(error.kind.as_str()));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-gateway-error-origin", HeaderValue::from_static(error.origin.as_str()));
    let allow = error.context.iter().find(|(name, _)| *name == "allow");
    if let Some(value) = allow.and_then(|(_, value)| HeaderValue::from_str(value).ok()) {
        headers.insert(header::ALLOW, value);
    }
    match error.kind {
        // A client that wanted another protocol falls back at once only when this connection ends.
        ErrorKind::UpgradeRequired => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        ErrorKind::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ErrorKind::Overloaded
        | ErrorKind::LedgerFull
        | ErrorKind::TelemetryFull
        | ErrorKind::ShuttingDown => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    Rescued { status, headers, body }
}

/// The provider's own status, where an error stands in for its answer: it decides whether an SDK tries again.
fn provider_status(error: &Error) -> Option<StatusCode> {
    let (_, status) = error.context.iter().find(|(name, _)| *name == "provider_status")?;
    status.parse().ok().filter(|status: &StatusCode| status.as_u16() >= 400)
}

/// Renders an error inside a stream that has begun.
pub(crate) fn stream_event(error: &Error) -> Bytes {
    error::stream_event(
        &error.message,
        status(error.kind).1,
        error.param.as_deref(),
        Some(error.kind.as_str()),
    )
}

/// The connection to the provider broke within its answer. The caller learns that; where and how is for the record.
pub(crate) fn broke_off(cause: Error) -> Error {
    let message = "the connection to the provider broke off before its answer was whole";
    Error::provider(ErrorKind::StreamTruncated, Retry::Later, message).source(cause)
}

/// What the listener is told so that it closes the connection: the caller sees that its answer is not whole.
pub(crate) fn unfinished(error: &Error) -> Error {
    Error::provider(error.kind, error.retry, error.message.clone())
}

/// What the record says of an error: also the cause that the caller is not told.
pub(crate) fn with_cause(error: &Error) -> String {
    match error.source.as_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(cause) => format!("{}: {}", error.message, cause.message),
        None => error.message.clone(),
    }
}

/// The closed list of `provider_error_type` for a provider's status.
pub(crate) fn provider_error_type(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        ..400 => return None,
        401 => "authentication",
        402 => "payment_required",
        403 => "permission",
        404 => "not_found",
        408 | 504 => "timeout",
        413 => "too_large",
        429 => "rate_limited",
        400..500 => "invalid_request",
        503 | 529 => "overloaded",
        _ => "server_error",
    })
}

#[cfg(test)]
mod tests {
    use magicapi_model::{Error, ErrorKind, Outcome, Retry};

    use super::{outcome, rescue, status};

    #[test]
    fn every_kind_has_a_failing_status_and_a_body_in_the_dialect() {
        for kind in ErrorKind::ALL {
            let code = status(*kind).0;
            assert!(code.is_client_error() || code.is_server_error(), "{kind:?}");
            let rescued = rescue(&Error::gateway(*kind, "what and how to mend it").param("model"));
            let body: serde_json::Value = serde_json::from_slice(&rescued.body).expect("json");
            assert_eq!(body["error"]["code"], kind.as_str());
            assert_eq!(body["error"]["param"], "model");
        }
    }

    #[test]
    fn outcomes_follow_kind_and_origin() {
        assert_eq!(outcome(&Error::client(ErrorKind::InvalidRequest, ""), true), Outcome::Blocked);
        assert_eq!(outcome(&Error::gateway(ErrorKind::LedgerFull, ""), true), Outcome::GatewayError);
        assert_eq!(
            outcome(&Error::provider(ErrorKind::ConnectFailed, Retry::Safe, ""), true),
            Outcome::ProviderError
        );
        assert_eq!(
            outcome(&Error::provider(ErrorKind::ConnectTimeout, Retry::Safe, ""), true),
            Outcome::TimedOut
        );
        assert_eq!(outcome(&Error::client(ErrorKind::ClientClosed, ""), true), Outcome::ClientClosed);
    }
}
