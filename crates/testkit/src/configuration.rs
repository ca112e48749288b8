//! The plain configuration of an end-to-end test, over which a test lays what it is about.

use serde_json::{Value, json};

/// The gateway's own key for the provider.
pub const OUR_KEY: &str = "sk-ours";
/// What the `file` exporter writes, below the gateway's working directory.
pub const RECORDS: &str = "records.jsonl";

/// One provider, records in a file, a drain that waits for requests but for nothing else; with changes.
pub fn configuration(base_url: &str, changes: Value) -> Value {
    let mut config = json!({
        "server": { "drain": { "delay": "0s", "timeout": "60s" } },
        "providers": { "openai": { "api_key": OUR_KEY, "base_url": base_url } },
        "telemetry": { "exporters": [records_file(&json!({}))] },
    });
    lay_over(&mut config, changes);
    config
}

/// The entry of the exporter `file`, with changes.
pub fn records_file(changes: &Value) -> Value {
    let mut entry = json!({ "type": "file", "path": RECORDS, "batch": { "age": "20ms" } });
    lay_over(&mut entry, changes.clone());
    entry
}

/// Lays one document over another: objects key by key, anything else whole.
pub fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}
