//! The HTTP client as exporters see it: whole requests, whole answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The request was never sent: no name, no connection, no TLS. Safe to send again.
    #[error("could not connect: {0}")]
    Connect(String),
    /// It was sent, or may have been; what became of it is unknown.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer was larger than an exporter may need to read.
    #[error("the answer is too large: {0}")]
    TooLarge(String),
}

/// The trailers of an answer, for those who need them (gRPC's status stands there): in the response's extensions.
#[derive(Clone, Debug, Default)]
pub struct Trailers(pub http::HeaderMap);

/// What carries the requests; the gateway's client, or a test's.
#[async_trait]
pub trait HttpTransport: Send + Sync {
    /// Sends one request and reads the whole answer.
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError>;
}

/// A handle to the client; cheap to clone.
#[derive(Clone)]
pub struct Http(Arc<dyn HttpTransport>);

impl Http {
    /// Wraps a transport.
    pub fn new(transport: Arc<dyn HttpTransport>) -> Self {
        Self(transport)
    }

    /// Sends one request with its whole body and reads the whole answer (bounded; see [`HttpError::TooLarge`]).
    ///
    /// A request of version [`http::Version::HTTP_2`] goes over HTTP/2 and nothing else, over `http://` too (prior
    /// knowledge); trailers then stand in the answer's extensions as [`Trailers`].
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        self.0.send(request).await
    }
}

/// A server's own delay, `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3). `None` when there is none that can
/// be read.
pub fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::retry_after;

    fn of(text: &str) -> Option<Duration> {
        retry_after(&[(http::header::RETRY_AFTER, text.parse().expect("header"))].into_iter().collect())
    }

    #[test]
    fn a_delay_is_seconds_or_a_date() {
        assert_eq!(of(" 120 "), Some(Duration::from_mins(2)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_hours(1));
        let delay = of(&soon).expect("a date");
        assert!(Duration::from_mins(58) < delay && delay <= Duration::from_hours(1), "{delay:?}");
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO), "it has passed");
        for text in ["", "-1", "1.5", "soon", "99999999999999999999"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(retry_after(&http::HeaderMap::new()), None);
    }
}
