//! A record as a span, and as an event; a call that failed is a second event.
//!
//! The span's id is always the record's own, its trace the caller's or its own (`RequestId::trace_id`): a retry, another
//! replica and the `traceparent` that a provider got name the same span.

use std::time::{Duration, SystemTime};

use magicapi_plugin::{Facts, RequestMetrics};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;

use super::attributes::{Attributes, attribute, error_type, model, structured, text};
use super::client::Item;
use super::config::Signal;
use super::messages;
use super::target::Target;
use crate::document;

/// W3C's "sampled".
const SAMPLED: u32 = 1;
/// `SpanFlags`: it is known whether the parent is elsewhere, and it is.
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

const WARN: (SeverityNumber, &str) = (SeverityNumber::Warn, "WARN");

/// What a message of a failed span may hold, in bytes.
const MOST_MESSAGE: usize = 1024;

/// The record as one item of a signal.
pub(super) fn encode(record: &RequestMetrics, signal: Signal, target: &Target) -> Item {
    match signal {
        Signal::Logs => {
            let events = std::iter::once(event(record, target)).chain(exception(record, target));
            events.map(|event| event.encode_to_vec().into()).collect()
        }
        _ => vec![span(record, target).encode_to_vec().into()],
    }
}

fn span(record: &RequestMetrics, target: &Target) -> Span {
    let facts = record.facts();
    let operation = facts.gen_ai_operation().unwrap_or(facts.operation);
    let parent = facts.parent_span_id.as_deref().filter(|_| facts.trace_id.is_some());
    let parent_span_id = parent.and_then(bytes).unwrap_or_default();
    let flags = SAMPLED | REMOTE_KNOWN | if parent_span_id.is_empty() { 0 } else { REMOTE };
    let status =
        error_type(facts).map(|_| Status { code: StatusCode::Error.into(), message: message(facts) });
    Span {
        trace_id: trace_id(facts),
        span_id: facts.id.span_id().into(),
        parent_span_id,
        trace_state: trace_state(facts).to_owned(),
        flags,
        name: model(facts).map_or_else(|| operation.to_owned(), |model| format!("{operation} {model}")),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(facts.timestamp),
        end_time_unix_nano: nanos(end(facts)),
        attributes: attributes(record, Signal::Traces, target),
        status,
        ..Span::default()
    }
}

fn event(record: &RequestMetrics, target: &Target) -> LogRecord {
    let severity = match document::level(record) {
        "info" => (SeverityNumber::Info, "INFO"),
        "warn" => WARN,
        _ => (SeverityNumber::Error, "ERROR"),
    };
    // The conventions name an event for calls of models; any other is the record's own.
    let name = match record.facts().gen_ai_operation() {
        Some("chat" | "text_completion" | "generate_content") => "gen_ai.client.inference.operation.details",
        _ => "ai_gateway_request_log",
    };
    log(record, name, severity, attributes(record, Signal::Logs, target))
}

/// The event that the conventions have for a call of a model that failed, at the severity that they ask for.
fn exception(record: &RequestMetrics, target: &Target) -> Option<LogRecord> {
    let facts = record.facts();
    let kind = error_type(facts).filter(|_| facts.gen_ai_operation().is_some())?;
    let mut attributes = Attributes::new(target.attribute_bytes);
    attributes.exception(facts, kind);
    Some(log(record, "gen_ai.client.operation.exception", WARN, attributes.list))
}

/// An event at the record's end, in its span.
fn log(
    record: &RequestMetrics,
    name: &str,
    (number, word): (SeverityNumber, &str),
    attributes: Vec<KeyValue>,
) -> LogRecord {
    let facts = record.facts();
    LogRecord {
        time_unix_nano: nanos(end(facts)),
        observed_time_unix_nano: nanos(end(facts)),
        severity_number: number.into(),
        severity_text: word.into(),
        body: Some(AnyValue { value: Some(Value::StringValue(document::line(record))) }),
        attributes,
        flags: SAMPLED,
        trace_id: trace_id(facts),
        span_id: facts.id.span_id().into(),
        event_name: name.into(),
        ..LogRecord::default()
    }
}

fn attributes(record: &RequestMetrics, signal: Signal, target: &Target) -> Vec<KeyValue> {
    let mut attributes = Attributes::new(target.attribute_bytes);
    attributes.describe(record);
    let mut list = attributes.list;
    let said = record.conversation().filter(|_| target.has_messages(signal));
    let mut is_cut = false;
    for one in said.into_iter().flat_map(|said| messages::read(said, target.attribute_bytes)) {
        is_cut |= one.is_cut;
        // Spans take texts alone in most back ends; events are structured.
        list.push(match signal {
            Signal::Logs => {
                KeyValue { key: one.key.into(), value: Some(structured(one.json)), ..KeyValue::default() }
            }
            _ => text(one.key, one.json.to_string()),
        });
    }
    if is_cut {
        list.push(attribute("gateway.messages_cut", Value::BoolValue(true)));
    }
    list
}

fn trace_id(facts: &Facts) -> Vec<u8> {
    let callers = facts.trace_id.as_deref().and_then(bytes).filter(|id| id.len() == 16);
    callers.unwrap_or_else(|| facts.id.trace_id().into())
}

/// What the caller's tracer wrote beside the trace; what redaction left no list of is none.
fn trace_state(facts: &Facts) -> &str {
    let state = facts.trace_state.as_deref().filter(|state| facts.trace_id.is_some() && state.contains('='));
    state.unwrap_or_default()
}

/// Hexadecimal digits as bytes.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

fn message(facts: &Facts) -> String {
    let text = facts.error_message.as_deref().unwrap_or_default();
    text.get(..text.floor_char_boundary(MOST_MESSAGE)).unwrap_or_default().to_owned()
}

fn end(facts: &Facts) -> SystemTime {
    facts.timestamp + Duration::from_millis(facts.latency_ms)
}

/// Nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
