//! A record as one of New Relic's logs: a flat list of attributes.

use std::time::{Duration, SystemTime};

use magicapi_plugin::RequestMetrics;
use serde_json::{Map, Value, json};

use crate::document::{self, Keep};
use crate::requests::Entry;

/// Logs older than that may be dropped by New Relic.
pub(super) const WINDOW: Duration = Duration::from_hours(48);

/// Of a text New Relic keeps 4,094 characters to search and another 128,000 bytes to read; so much is never cut.
const MAX_TEXT: usize = 128_000;

/// Attributes of one log.
const MAX_ATTRIBUTES: usize = 255;

/// The longest name of an attribute, in characters.
const MAX_NAME: usize = 255;

/// The attribute that says how many others are missing.
const LEFT_OUT: &str = "attributes_left_out";

/// One element of `logs`.
pub(super) fn log(record: &RequestMetrics, now: SystemTime) -> Entry {
    if document::is_older(record, WINDOW, now) {
        return Err("older than the 48 hours that New Relic takes".into());
    }
    let document = document::with_texts(record, Keep { body: MAX_TEXT, events: MAX_TEXT });
    let mut all = Vec::new();
    all.push(("level".to_owned(), Value::from(document::level(record))));
    all.push(("logtype".to_owned(), document.get("name").cloned().unwrap_or_default()));
    // The record's own come before the operator's, of which there may be too many.
    for part in ["attributes", "resource"] {
        flatten("", document.get(part).unwrap_or(&Value::Null), &mut all);
    }
    let log = json!({
        "timestamp": document::milliseconds(record),
        "message": document::line(record),
        "attributes": bounded(all),
    });
    Ok(log.to_string().into_bytes())
}

/// As many as New Relic keeps, and how many that leaves out. The first of a name stays.
fn bounded(all: Vec<(String, Value)>) -> Map<String, Value> {
    let given = all.len();
    let mut attributes = Map::new();
    for (name, value) in all {
        let fits = name.chars().count() <= MAX_NAME && name != LEFT_OUT;
        if fits && attributes.len() < MAX_ATTRIBUTES - 1 && !attributes.contains_key(&name) {
            attributes.insert(name, value);
        }
    }
    if attributes.len() < given {
        attributes.insert(LEFT_OUT.into(), json!(given - attributes.len()));
    }
    attributes
}

/// Objects become dotted names, lists texts of JSON; what is null says nothing there.
fn flatten(name: &str, value: &Value, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Null => {}
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            flatten(&name, value, into);
        }),
        Value::Array(_) => into.push((name.to_owned(), value.to_string().into())),
        value => into.push((name.to_owned(), value.clone())),
    }
}
