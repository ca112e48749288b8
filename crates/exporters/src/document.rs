//! The record's document for back ends that make a field of every key they are sent: its own keys as they are, the
//! bodies as texts, so that no caller can mint fields.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use magicapi_plugin::{Outcome, RequestMetrics};
use serde_json::Value;

/// How much of each body is kept, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Of `request` and of `response`.
    pub(crate) body: usize,
    /// Of `streamed_data`, which stands beside `response` here.
    pub(crate) events: usize,
}

/// The document with `request`, `response` and `streamed_data` as texts of JSON; a text that was cut is counted in
/// `metadata.truncated`, as one that a capture limit cut.
pub(crate) fn with_texts(record: &RequestMetrics, keep: Keep) -> Value {
    let mut facts = record.facts().clone();
    let request = text(record.request(), keep.body, &mut facts.truncated.request);
    let response = text(record.response(), keep.body, &mut facts.truncated.response);
    let events = text(record.streamed_data(), keep.events, &mut facts.truncated.streamed_data);
    let bare = RequestMetrics::seal(facts, Arc::new(record.resource().clone()), None, None, None);
    let mut document = bare.to_otel_log();
    if let Some(attributes) = document.get_mut("attributes").and_then(Value::as_object_mut) {
        for (key, text) in [("request", request), ("response", response), ("streamed_data", events)] {
            if let Some(text) = text {
                attributes.insert(key.into(), text.into());
            }
        }
    }
    document
}

/// The beginning of a body, as text; `None` when there is none, or nothing of it may stay.
fn text(body: Option<&Bytes>, keep: usize, left_out: &mut u64) -> Option<String> {
    let body = String::from_utf8_lossy(body?);
    let end = body.floor_char_boundary(keep);
    *left_out += (body.len() - end) as u64;
    Some(body.get(..end)?.to_owned()).filter(|text| !text.is_empty())
}

/// The line that a list of logs shows.
pub(crate) fn line(record: &RequestMetrics) -> String {
    let facts = record.facts();
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
    format!(
        "{} {} {}/{} {} {} {} ms",
        facts.method,
        facts.path,
        name(&facts.provider),
        name(&facts.model),
        facts.status_code,
        facts.outcome.as_str(),
        facts.latency_ms,
    )
}

/// How bad it was, in the words of log levels: what a caller did is a warning, what failed an error.
pub(crate) fn level(record: &RequestMetrics) -> &'static str {
    match record.facts().outcome {
        Outcome::Completed => "info",
        Outcome::Blocked | Outcome::ClientClosed => "warn",
        _ => "error",
    }
}

/// When the request began, in milliseconds since 1970.
pub(crate) fn milliseconds(record: &RequestMetrics) -> u64 {
    let since = record.facts().timestamp.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Whether a back end that keeps nothing older than that would lose the record.
pub(crate) fn is_older(record: &RequestMetrics, window: Duration, now: SystemTime) -> bool {
    now.duration_since(record.facts().timestamp).is_ok_and(|age| age > window)
}
