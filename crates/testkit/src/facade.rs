//! The usual setting of an end-to-end test: a gateway that writes its records to a file, and the record of one answer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{DEADLINE, Gateway, GatewayOptions, Response, read_records};

/// The lines of a configuration without store that writes records to `records.jsonl`; more follows below them.
pub const RECORDS_YAML: &str = "store: { url: none }\ntelemetry: { exporters: [ { type: file, path: records.jsonl, batch: { age: 20ms } } ] }\n";

/// A gateway that writes records, with `yaml` behind [`RECORDS_YAML`] and these variables.
pub async fn recording(binary: &str, yaml: &str, environment: &[(&str, &str)]) -> Gateway {
    let options = GatewayOptions::new(binary).config(format!("{RECORDS_YAML}{yaml}"));
    Gateway::start(environment.iter().fold(options, |options, (name, value)| options.env(name, *value))).await
}

/// Where [`recording`] has its records.
pub fn records_path(gateway: &Gateway) -> PathBuf {
    gateway.path("records.jsonl")
}

/// The record of an answer whose `x-request-id` is the gateway's own.
///
/// # Panics
/// When it is not written within [`DEADLINE`].
pub async fn record_of(gateway: &Gateway, answer: &Response) -> Value {
    let id = answer.header("x-request-id").to_owned();
    assert!(id.starts_with("msg_"), "not an id of the gateway's: {id:?}");
    record_where(gateway, &id, |record| record["attributes"]["id"] == id.as_str()).await
}

/// The first record that is looked for.
///
/// # Panics
/// When it is not written within [`DEADLINE`].
pub async fn record_where(gateway: &Gateway, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let records = read_records(&records_path(gateway));
        if let Some(found) = records.into_iter().find(|record| wanted(record)) {
            return found;
        }
        assert!(Instant::now() < end, "no record of {what}; the log:\n{}", gateway.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
