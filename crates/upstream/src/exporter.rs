//! The exporters' face: whole requests, whole answers, bounded in time and size.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use magicapi_model::{Error, Retry};
use magicapi_plugin::{HttpError, HttpTransport};

use crate::body::RequestBody;
use crate::client::{Client, Replay};

/// A back end that took a batch and does not answer within this time will not.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The largest answer is a bulk index's verdict on each record of a batch.
const MAX_ANSWER: usize = 16 << 20;

/// The client as [`magicapi_plugin::Http`] carries it.
pub(crate) struct Exporter {
    client: Client,
    timeout: Duration,
    max_answer: usize,
}

impl Exporter {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, timeout: TIMEOUT, max_answer: MAX_ANSWER }
    }

    #[cfg(test)]
    pub(crate) fn bounded(client: Client, timeout: Duration, max_answer: usize) -> Self {
        Self { client, timeout, max_answer }
    }

    async fn exchange(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let response = self.client.dispatch_with(request.map(RequestBody::Full), Replay::Never).await;
        let response = response.map_err(named)?;
        let (head, mut body) = response.into_parts();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(named)?;
            let Some(data) = frame.data_ref() else { continue };
            if whole.len() + data.len() > self.max_answer {
                return Err(HttpError::TooLarge(format!("it exceeds {} bytes", self.max_answer)));
            }
            whole.extend_from_slice(data);
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
