//! One signal's way to the server: items to requests, answers to verdicts, by HTTP or gRPC.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use magicapi_plugin::{
    Counter, Delivery, ExportError, Health, Http, HttpError, RequestMetrics, TelemetryConfig, async_trait,
    retry_after,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::config::{Protocol, Signal};
use super::thrown_away::ThrownAway;
use super::{envelope, grpc};
use crate::endpoint::Compression;
use crate::health::LastHealth;
use crate::requests::{self, Coding, Courier, Limits, Verdict, pack, server_error};
use crate::tally::{Tally, Untold};

pub(super) const CREDENTIAL: &str = "check headers (OTEL_EXPORTER_OTLP_HEADERS)";
pub(super) const ADDRESS: &str =
    "check endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) and protocol (OTEL_EXPORTER_OTLP_PROTOCOL)";

/// What a request's envelope measures, about.
const AROUND: usize = 1024;

/// One signal's way to the server.
pub(super) struct Wire {
    pub(super) http: Http,
    pub(super) signal: Signal,
    pub(super) protocol: Protocol,
    /// With path.
    pub(super) url: String,
    /// The user's own, marked as sensitive.
    pub(super) headers: HeaderMap,
    pub(super) compression: Compression,
    pub(super) timeout: Duration,
    pub(super) request_bytes: usize,
    pub(super) rejected: Counter<u64>,
    pub(super) health: LastHealth,
    pub(super) thrown_away: ThrownAway,
    pub(super) untold: Untold,
}

/// What is sent of one record: a message, or several that go together.
pub(super) type Item = Vec<Bytes>;

/// Items on their way.
struct Posted<'a> {
    wire: &'a Wire,
    items: &'a [Option<Item>],
    names: &'a [&'a TelemetryConfig],
}

#[async_trait]
impl Courier for Posted<'_> {
    async fn send(&self, part: &[usize]) -> Verdict {
        let item = |index: &usize| Some((self.items.get(*index)?.as_ref()?, *self.names.get(*index)?));
        let messages = || {
            let items = part.iter().filter_map(item);
            items.flat_map(|(item, names)| item.iter().map(move |message| (message, names)))
        };
        let body = envelope::request(messages());
        let (verdict, message) = self.wire.send(&body).await;
        match verdict {
            Verdict::Delivered => self.wire.partial(message, messages().count()),
            other => other,
        }
    }
}

impl Wire {
    /// Sends a batch's records, an item for each; what becomes of a `None`, which is not sent, is not said here. Of an export
    /// that is cut off `untold` knows the rest.
    pub(super) async fn export(&self, batch: &[Arc<RequestMetrics>], items: &[Option<Item>]) -> Delivery {
        let names: Vec<_> = batch.iter().map(|record| record.resource()).collect();
        let tally = Tally::of(batch, &self.untold, vec![None; items.len()]);
        self.carry(tally, items, &names).await
    }

    /// Sends items of no batch in as many requests as their size demands.
    pub(super) async fn deliver(&self, items: &[Option<Item>], names: &[&TelemetryConfig]) -> Delivery {
        self.carry(vec![None; items.len()].into(), items, names).await
    }

    async fn carry(&self, tally: Tally<'_>, items: &[Option<Item>], names: &[&TelemetryConfig]) -> Delivery {
        let limits = Limits { entries: usize::MAX, plain: self.request_bytes, packed: usize::MAX };
        let length = |item: &Item| item.iter().map(Bytes::len).sum();
        let parts = requests::parts(items.iter().map(|item| item.as_ref().map(length)), limits, AROUND);
        if parts.is_empty() {
            let _nothing_sent = tally.end(None);
            return Delivery::Delivered;
        }
        requests::carry(tally, parts, &Posted { wire: self, items, names }).await
    }

    /// Asks whether the server is there and takes the credential.
    pub(super) async fn probe(&self) -> Result<(), ExportError> {
        let (verdict, _) = self.send(&[]).await;
        // A query may hold a credential.
        let url = self.url.split('?').next().unwrap_or_default();
        match verdict {
            Verdict::Refused(reason) => Err(format!("{url}: {reason}").into()),
            Verdict::Retry(_) | Verdict::Unknown => match self.health.get() {
                Health::Down(reason) => Err(format!("{url}: {reason}").into()),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What the server says of a request that it took. Which items it threw away it does not say.
    fn partial(&self, message: Option<Bytes>, items: usize) -> Verdict {
        // The other services' answers have the same shape.
        let said = message.and_then(|message| ExportTraceServiceResponse::decode(message).ok());
        let Some(partial) = said.and_then(|said| said.partial_success) else { return Verdict::Delivered };
        let count = u64::try_from(partial.rejected_spans).unwrap_or_default();
        // With nothing thrown away it is a piece of advice, as the specification has it.
        if count == 0 {
            return Verdict::Delivered;
        }
        let words: String = partial.error_message.chars().filter(|c| !c.is_control()).take(200).collect();
        self.rejected.add(count, &[("signal", self.signal.word())]);
        self.thrown_away.note(self.signal.word(), count, words);
        // Of metrics it counts points, of which an item has many.
        if count >= items as u64 && self.signal != Signal::Metrics {
            return Verdict::TakenAndRejected("the server keeps none of the request".into());
        }
        Verdict::Delivered
    }

    /// One request; the message of its answer when it was taken.
    async fn send(&self, message: &[u8]) -> (Verdict, Option<Bytes>) {
        let Some(request) = self.request(message) else {
            self.health.set(Health::Down(ADDRESS.into()));
            return (Verdict::Refused(ADDRESS.into()), None);
        };
        let answer = match tokio::time::timeout(self.timeout, self.http.send(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::NoAnswer(format!("not within {:?}", self.timeout))),
        };
        let mut message = None;
        let verdict = requests::judged(&self.health, answer, |answer| {
            if self.protocol == Protocol::HttpProtobuf {
                message = Some(answer.body().clone());
                return judge(answer);
            }
            let (verdict, said) = grpc::judge(answer);
            message = said;
            verdict
        });
        (verdict, message)
    }

    fn request(&self, message: &[u8]) -> Option<Request<Bytes>> {
        let packed = if self.compression == Compression::Gzip { pack(message, Coding::Gzip) } else { None };
        let (is_packed, body) = match packed {
            Some((packed, _)) => (true, packed),
            None => (false, Bytes::copy_from_slice(message)),
        };
        let mut headers = self.headers.clone();
        let agent = concat!("magicapi-ai-gateway-otlp/", env!("CARGO_PKG_VERSION"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(agent));
        let gzip = HeaderValue::from_static("gzip");
        if self.protocol == Protocol::HttpProtobuf {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            if is_packed {
                headers.insert(CONTENT_ENCODING, gzip);
            }
            headers.insert(http::header::CONTENT_LENGTH, body.len().into());
            return self.build(Version::HTTP_11, headers, body);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        // At most eight digits (gRPC over HTTP/2, "Timeout").
        let timeout = self.timeout.as_millis().min(99_999_999).to_string() + "m";
        if let Ok(timeout) = HeaderValue::from_str(&timeout) {
            headers.insert(HeaderName::from_static("grpc-timeout"), timeout);
        }
        if is_packed {
            headers.insert(HeaderName::from_static("grpc-encoding"), gzip);
        }
        self.build(Version::HTTP_2, headers, grpc::frame(&body, is_packed))
    }

    fn build(&self, version: Version, headers: HeaderMap, body: Bytes) -> Option<Request<Bytes>> {
        let request = Request::builder().method(Method::POST).uri(&self.url).version(version).body(body);
        let mut request = request.ok()?;
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// What an answer over HTTP means (OTLP specification, "Failures": four statuses are tried again, no other is).
fn judge(answer: &Response<Bytes>) -> Verdict {
    match answer.status().as_u16() {
        // A page for people: no server of OTLP is there, whatever takes everything.
        200..=299 if is_page(answer.headers()) => {
            Verdict::Refused(format!("answered with a web page: {ADDRESS}"))
        }
        200..=299 => Verdict::Delivered,
        429 => Verdict::Retry(retry_after(answer.headers())),
        status @ 502..=504 => server_error(status, retry_after(answer.headers())),
        413 => Verdict::TooLarge,
        status @ (401 | 403) => Verdict::Refused(format!("HTTP {status}: {CREDENTIAL}")),
        status @ (300..=399 | 404 | 405 | 415) => Verdict::Refused(format!("HTTP {status}: {ADDRESS}")),
        status => Verdict::Rejected(format!("HTTP {status}")),
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/html")
}
