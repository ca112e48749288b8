//! The HTTP client as exporters see it: whole requests, whole answers.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
