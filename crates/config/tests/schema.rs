//! The schema of the file.

mod support;

use magicapi_config::{key_paths, schema};
use serde_json::{Value, json};
use support::catalogue;

#[test]
fn keys() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("key_paths", key_paths(&schema(&catalogue())).join("\n")));
}

#[test]
fn defaults_restarts_and_exporters() {
    let schema = schema(&catalogue());
    let at = |pointer: &str| schema.pointer(pointer).cloned().unwrap_or(Value::Null);
    let threads = at("/properties/telemetry/properties/threads");
    assert_eq!((&threads["default"], &threads["x-restart"]), (&json!(1), &json!(true)));
    assert_eq!(at("/properties/server/properties/limits/properties/body/default"), json!("64MiB"));
    assert_eq!(at("/properties/store/properties/url/default"), json!("sqlite://magicapi.db"));
    assert_eq!(at("/properties/timeouts/properties/total/default"), json!("none"));
    assert_eq!(at("/properties/server/properties/listen/default"), json!(["127.0.0.1:3000", "[::1]:3000"]));
    let exporters = at("/properties/telemetry/properties/exporters/items/oneOf");
    let types: Vec<_> =
        exporters.as_array().expect("variants").iter().map(|one| one["title"].clone()).collect();
    assert_eq!(types, ["console", "elasticsearch", "file", "prometheus"]);
    assert_eq!(exporters[2]["required"], json!(["type", "path"]));
    assert_eq!(exporters[1]["properties"]["password"]["format"], json!("secret"));
    let pipeline =
        |exporter: usize, pointer: &str| exporters[exporter]["properties"].pointer(pointer).cloned();
    assert_eq!(pipeline(1, "/batch/properties/records/default"), Some(json!(1000)));
    assert_eq!(pipeline(1, "/buffer/properties/max_age/default"), Some(json!("7d")));
    assert_eq!(
        pipeline(0, "/buffer/properties/max_age/default"),
        Some(json!("17h")),
        "what the plug-in says"
    );
    assert_eq!(pipeline(3, "/batch/properties/records/default"), Some(Value::Null), "it gets no records");
    let kinds = at("/properties/providers/additionalProperties/properties/type/enum");
    assert_eq!(kinds, json!(["openai", "anthropic", "azure", "ollama", "vllm"]));
}

#[test]
fn every_key_is_described() {
    fn walk(schema: &Value, path: &str) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            assert!(property["description"].is_string(), "{path} has no description");
            walk(property, &path);
        }
        for inner in [&schema["items"], &schema["additionalProperties"]] {
            if inner.is_object() {
                walk(inner, path);
            }
        }
        for variant in schema["oneOf"].as_array().into_iter().flatten() {
            walk(variant, path);
        }
    }
    walk(&schema(&catalogue()), "");
}

/// A description that names a default names the one that holds.
#[test]
fn described_defaults_hold() {
    fn walk(schema: &Value, path: &str, named: &mut usize) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let text = property["description"].as_str().unwrap_or_default();
            let said = text.split_once("(default ").and_then(|(_, rest)| rest.split([')', ';', ',']).next());
            // Below a list or a name of the user's there is no value that holds by default.
            if let (Some(said), Some(default)) =
                (said, property.get("default").filter(|value| !value.is_null()))
            {
                let holds = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
                assert_eq!(said.trim_matches('`'), holds, "{path}");
                *named += 1;
            }
            walk(property, &path, named);
        }
        // Whose plug-in says nothing of the pipeline.
        let variants = schema["items"]["oneOf"].as_array().into_iter().flatten();
        if let Some(variant) = variants.into_iter().find(|variant| variant["title"] == "elasticsearch") {
            walk(variant, &format!("{path}[]"), named);
        }
    }
    let mut named = 0;
    walk(&schema(&catalogue()), "", &mut named);
    assert!(named > 40, "{named}");
}
