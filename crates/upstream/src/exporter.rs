//! The exporters' face: whole requests, whole answers, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Version};
use http_body_util::BodyExt as _;
use magicapi_model::{Error, Retry};
use magicapi_plugin::{Http, HttpError, HttpTransport, Trailers};

use crate::body::RequestBody;
use crate::client::{Client, Replay};
use crate::options::{ClientOptions, Http2Choice};

/// The largest answer is a bulk index's verdict on each record of a batch.
const MAX_ANSWER: usize = 16 << 20;

/// How one exporter's requests are sent.
#[derive(Clone, Debug)]
pub struct ExporterOptions {
    /// How it connects.
    pub client: ClientOptions,
    /// A header of each request that does not bring one of this name.
    pub header: Option<(HeaderName, HeaderValue)>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// A client of an exporter's own. Opens nothing yet.
pub fn exporter_http(options: ExporterOptions) -> Result<Http, Error> {
    Exporter::new(options).map(|exporter| Http::new(Arc::new(exporter)))
}

/// The client as [`magicapi_plugin::Http`] carries it.
pub(crate) struct Exporter {
    client: Client,
    /// For requests of version HTTP/2, which speak nothing else.
    http2: Client,
    header: Option<(HeaderName, HeaderValue)>,
    timeout: Duration,
    max_answer: usize,
}

impl Exporter {
    fn new(options: ExporterOptions) -> Result<Self, Error> {
        let ExporterOptions { client, header, timeout } = options;
        let http2 = ClientOptions { http2: Http2Choice::PriorKnowledge, ..client.clone() };
        Ok(Self {
            client: Client::new(client)?,
            http2: Client::new(http2)?,
            header,
            timeout,
            max_answer: MAX_ANSWER,
        })
    }

    #[cfg(test)]
    pub(crate) fn bounded(client: Client, timeout: Duration, max_answer: usize) -> Self {
        Self { http2: client.clone(), client, header: None, timeout, max_answer }
    }

    async fn exchange(&self, mut request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        if let Some((name, value)) = &self.header {
            request.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        let client = if request.version() == Version::HTTP_2 { &self.http2 } else { &self.client };
        let response = client.dispatch_with(request.map(RequestBody::Full), Replay::Never).await;
        let (mut head, mut body) = response.map_err(named)?.into_parts();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let data = match frame.map_err(named)?.into_data() {
                Ok(data) => data,
                Err(other) => {
                    if let Ok(trailers) = other.into_trailers() {
                        head.extensions.insert(Trailers(trailers));
                    }
                    continue;
                }
            };
            if whole.len() + data.len() > self.max_answer {
                return Err(HttpError::TooLarge(format!("it exceeds {} bytes", self.max_answer)));
            }
            whole.extend_from_slice(&data);
        }
        Ok(http::Response::from_parts(head, whole.freeze()))
    }
}

fn named(error: Error) -> HttpError {
    match error.retry {
        Retry::Safe => HttpError::Connect(error.message),
        Retry::Never | Retry::Later => HttpError::NoAnswer(error.message),
    }
}

#[async_trait]
impl HttpTransport for Exporter {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        tokio::time::timeout(self.timeout, self.exchange(request)).await.unwrap_or_else(|_| {
            Err(HttpError::NoAnswer(format!(
                "nothing within {:?}; what became of it is unknown",
                self.timeout
            )))
        })
    }
}
