//! gRPC as far as one call needs it: a frame each way, and a status in trailers or headers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Response};
use magicapi_plugin::Trailers;
use prost::Message;

use super::config::Signal;
use crate::requests::{Verdict, server_error};

/// A frame's head: whether it is packed, and its length.
const HEAD: usize = 5;

/// The path of a signal's method.
pub(super) const fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// A message as the one frame of a call.
pub(super) fn frame(message: &[u8], packed: bool) -> Bytes {
    let mut frame = Vec::with_capacity(HEAD + message.len());
    frame.push(u8::from(packed));
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

/// The message in the first frame of an answer; `None` when there is none, or it is packed.
fn message(body: &Bytes) -> Option<Bytes> {
    let (head, _) = body.split_first_chunk::<HEAD>()?;
    let [packed, length @ ..] = *head;
    let end = HEAD.checked_add(usize::try_from(u32::from_be_bytes(length)).ok()?)?;
    (packed == 0 && end <= body.len()).then(|| body.slice(HEAD..end))
}

/// `google.rpc.Status`, as far as it is read.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// What an answer means, and the message that it carries when all is well. The codes are judged as the OTLP
/// specification's table says.
pub(super) fn judge(answer: &Response<Bytes>) -> (Verdict, Option<Bytes>) {
    let trailers = answer.extensions().get::<Trailers>().map(|trailers| &trailers.0);
    let with_status = |headers: &&HeaderMap| headers.contains_key("grpc-status");
    let Some(status) = trailers.into_iter().chain([answer.headers()]).find(with_status) else {
        return (without_status(answer.status().as_u16()), None);
    };
    let code = status.get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<u8>().ok());
    let retry = retry_info(status);
    let verdict = match code {
        Some(0) => return (Verdict::Delivered, message(answer.body())),
        // One code for a message over the size limit and for a rate over its own: the text tells them apart. Some servers
        // have another for the first (tonic: OUT_OF_RANGE, `decoded message length too large`).
        Some(8 | 11) if retry.is_none() && speaks_of_size(status) => Verdict::TooLarge,
        // Broken off, or over time: it may have taken what it had by then. No status says even less.
        Some(1 | 4) | None => Verdict::Unknown,
        Some(8 | 10 | 11 | 14 | 15) => Verdict::Retry(retry),
        Some(code @ (7 | 16)) => {
            Verdict::Refused(format!("gRPC status {code}: {}", super::client::CREDENTIAL))
        }
        Some(code @ (5 | 12)) => Verdict::Refused(format!("gRPC status {code}: {}", super::client::ADDRESS)),
        Some(code) => Verdict::Rejected(format!("gRPC status {code}")),
    };
    (verdict, None)
}

/// Words of limits on how much may come in a time.
const RATE: &[&str] = &[
    "rate",
    "rates",
    "quota",
    "quotas",
    "per",
    "second",
    "seconds",
    "minute",
    "minutes",
    "throughput",
    "throttled",
    "throttling",
];

/// Whether the message is one of those that gRPC's libraries give for a message that is too large, and not one of a limit on
/// how much may come in a time, which speaks of bytes as well.
fn speaks_of_size(status: &HeaderMap) -> bool {
    let Some(text) = status.get("grpc-message") else { return false };
    // Percent-encoded or not.
    let text = String::from_utf8_lossy(text.as_bytes()).to_lowercase().replace("%20", " ");
    let has = |any: &[&str]| text.split(|c: char| !c.is_alphanumeric()).any(|word| any.contains(&word));
    // `received message larger than max (… vs. …)`; `message exceeds maximum size …`.
    let is_large = has(&["larger"]) || text.contains("too large");
    let exceeds = has(&["exceeds"]) && has(&["message", "size", "bytes"]);
    (is_large || exceeds) && !has(RATE)
}

/// Something else than a gRPC server answered: gRPC's own table for that.
fn without_status(http: u16) -> Verdict {
    match http {
        200 => Verdict::Unknown,
        401 | 403 => Verdict::Refused(format!("HTTP {http}: {}", super::client::CREDENTIAL)),
        413 => Verdict::TooLarge,
        429 => Verdict::Retry(None),
        502..=504 => server_error(http, None),
        _ => Verdict::Refused(format!("HTTP {http} without a gRPC status: {}", super::client::ADDRESS)),
    }
}

/// The server's own delay, in `grpc-status-details-bin`.
fn retry_info(status: &HeaderMap) -> Option<Duration> {
    let details = status.get("grpc-status-details-bin")?.as_bytes();
    let details = STANDARD_NO_PAD.decode(details).or_else(|_| STANDARD.decode(details)).ok()?;
    let details = Status::decode(&details[..]).ok()?.details;
    let info = details.into_iter().find(|detail| detail.kind.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.delay.unwrap_or_default();
    let nanos = u32::try_from(delay.nanos).unwrap_or_default().min(999_999_999);
    Some(Duration::new(u64::try_from(delay.seconds).unwrap_or_default(), nanos))
}

/// `%41` to `A`; `None` when a `%` has no two digits behind it.
pub(super) fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Some(out)
}
