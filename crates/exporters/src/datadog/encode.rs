//! A record as one of Datadog's logs.

use std::time::{Duration, SystemTime};

use magicapi_plugin::RequestMetrics;
use serde_json::{Map, Value, json};

use super::config::{MAX_TAG, Target};
use crate::document::{self, Keep};
use crate::requests::Entry;

/// Logs older than that are dropped by Datadog.
pub(super) const WINDOW: Duration = Duration::from_hours(18);

/// The largest log, in bytes: longer ones are cut by Datadog, wherever the end falls.
const MAX_LOG: usize = 1_000_000;

/// What is tried until a log fits. The single events go first: `response` has what they said.
const KEEP: [Keep; 6] = [
    Keep { body: usize::MAX, events: usize::MAX },
    Keep { body: usize::MAX, events: 0 },
    Keep { body: 450_000, events: 0 },
    Keep { body: 225_000, events: 0 },
    Keep { body: 100_000, events: 0 },
    Keep { body: 0, events: 0 },
];

/// Tags, and where their values stand in the document. A closed list, so that a log has at most so many.
const TAGS: [(&str, &str); 11] = [
    ("env", "/resource/deployment.environment"),
    ("version", "/resource/service.version"),
    ("provider", "/attributes/provider"),
    ("model", "/attributes/model"),
    ("project", "/attributes/project_id"),
    ("operation", "/attributes/metadata/operation"),
    ("outcome", "/attributes/metadata/outcome"),
    ("error_type", "/attributes/metadata/error_type"),
    ("status_code", "/attributes/metadata/status_code"),
    ("route", "/attributes/metadata/route"),
    ("key", "/attributes/metadata/key_name"),
];

/// One entry of a request to the logs' intake.
pub(super) fn log(record: &RequestMetrics, target: &Target, now: SystemTime) -> Entry {
    if document::is_older(record, WINDOW, now) {
        return Err("older than the 18 hours that Datadog takes".into());
    }
    let bodies = [record.request(), record.response(), record.streamed_data()];
    let largest: usize = bodies.into_iter().flatten().map(bytes::Bytes::len).sum();
    for keep in KEEP {
        // Escapes only make texts longer: what is too long without them need not be tried.
        if keep.events == usize::MAX && largest > MAX_LOG {
            continue;
        }
        let log = fields(record, target, keep).to_string().into_bytes();
        if log.len() <= MAX_LOG {
            return Ok(log);
        }
    }
    Err("over 1 MB even without bodies".into())
}

fn fields(record: &RequestMetrics, target: &Target, keep: Keep) -> Value {
    let mut document = document::with_texts(record, keep);
    let tags = tags(&document, &target.tags);
    let mut log = Map::new();
    log.insert("message".into(), document::line(record).into());
    log.insert("ddsource".into(), "magicapi".into());
    log.insert("ddtags".into(), tags.into());
    log.insert("service".into(), record.resource().service_name.clone().into());
    log.insert("status".into(), document::level(record).into());
    log.insert("timestamp".into(), document::milliseconds(record).into());
    if let Some(host) = &target.hostname {
        log.insert("hostname".into(), json!(host));
    }
    if let Some(id) = &record.facts().trace_id {
        log.insert("trace_id".into(), json!(id));
    }
    if let Some(Value::Object(attributes)) = document.get_mut("attributes").map(Value::take) {
        log.extend(attributes);
    }
    for key in ["name", "resource"] {
        log.insert(key.into(), document.get_mut(key).map(Value::take).unwrap_or_default());
    }
    Value::Object(log)
}

fn tags(document: &Value, own: &[String]) -> String {
    let value = |path| match document.pointer(path)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let fixed = TAGS.iter().filter_map(|(name, path)| Some(tag(name, &value(path)?)));
    fixed.chain(own.iter().cloned()).collect::<Vec<_>>().join(",")
}

/// A tag in the letters that Datadog keeps; a comma in a value would begin another tag.
pub(super) fn tag(name: &str, value: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "_-:./".contains(c) { c } else { '_' };
    format!("{name}:{value}").chars().map(kept).take(MAX_TAG).collect()
}
