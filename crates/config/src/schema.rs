//! The JSON Schema of the file: made from the raw structs and the plug-ins' own settings, used to read the file, to
//! print it (`schema`), and to know which keys there are.

use magicapi_plugin::{Settings, Signals};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::catalogue::Catalogue;
use crate::effective::{defaults, pipeline_defaults};
use crate::raw;

/// The JSON Schema of the file for this build. Keys that take effect at the next start only carry `"x-restart": true`.
pub fn schema(catalogue: &Catalogue) -> Value {
    let mut schema = shape(catalogue);
    insert(&mut schema, defaults());
    let variants = schema.pointer_mut("/properties/telemetry/properties/exporters/items/oneOf");
    let variants = variants.and_then(Value::as_array_mut).into_iter().flatten();
    for (variant, plugin) in variants.zip(catalogue.plugins()) {
        // To one that gets none, most of these keys mean nothing.
        if plugin.settings.takes(Signals::RECORDS) {
            insert(variant, pipeline_defaults(plugin.settings.default_max_age()));
        }
    }
    schema
}

fn insert(schema: &mut Value, defaults: Vec<(String, Value)>) {
    for (key, default) in defaults {
        if let Some(property) = property(schema, &key) {
            property.insert("default".into(), default);
        }
    }
}

/// Every key of the file as a dotted path: `telemetry.exporters[].batch.age`, `providers.*.api_key`; a plug-in's own
/// setting as `telemetry.exporters[elasticsearch].url`.
pub fn key_paths(schema: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    collect(schema, "", &mut paths);
    paths.sort();
    paths.dedup();
    paths
}

/// The keys that take effect at the next start only.
pub(crate) fn restart_keys() -> Vec<String> {
    let schema = shape(&Catalogue::default());
    let is_marked = |path: &str| {
        let pointer = format!("/properties/{}", path.replace('.', "/properties/"));
        schema.pointer(&pointer).and_then(|key| key.get("x-restart")) == Some(&Value::Bool(true))
    };
    // A mark on a mapping holds for all keys below it.
    let marked = |path: &String| {
        let parents = path.match_indices('.').map(|(end, _)| &path[..end]);
        parents.chain([path.as_str()]).any(is_marked)
    };
    key_paths(&schema).into_iter().filter(marked).collect()
}

/// The schema without defaults.
pub(crate) fn shape(catalogue: &Catalogue) -> Value {
    let mut schema = of::<raw::File>();
    let variants: Vec<Value> =
        catalogue.plugins().map(|plugin| variant(plugin.name, plugin.settings.schema())).collect();
    // `oneOf: []` allows nothing, which is what a build without plug-ins takes, but not every tool reads it so.
    let items = if variants.is_empty() { json!(false) } else { json!({ "oneOf": variants }) };
    if let Some(Value::Object(exporters)) = schema.pointer_mut("/properties/telemetry/properties/exporters") {
        exporters.insert("items".into(), items);
    }
    let names: Vec<&str> = catalogue.providers.iter().map(|spec| spec.name).collect();
    let pointer = "/properties/providers/additionalProperties/properties/type";
    if let Some(Value::Object(kind)) = schema.pointer_mut(pointer).filter(|_| !names.is_empty()) {
        kind.remove("type");
        kind.insert("enum".into(), json!(names));
    }
    schema
}

/// The schema of one exporter's entry: `type`, the pipeline's keys, the plug-in's own.
fn variant(name: &str, settings: &Value) -> Value {
    let mut properties = Map::new();
    properties.insert("type".into(), json!({ "const": name, "description": "The plug-in." }));
    let pipeline = of::<raw::Pipeline>();
    for source in [&pipeline, settings] {
        let keys = source.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (key, property) in keys {
            // The pipeline's own keys are reserved words; a plug-in's setting of that name could never be given.
            properties.entry(key.clone()).or_insert_with(|| property.clone());
        }
    }
    let mut required = vec![json!("type")];
    required.extend(settings.get("required").and_then(Value::as_array).into_iter().flatten().cloned());
    let description = settings.get("description").cloned().unwrap_or_else(|| json!(name));
    json!({
        "type": "object",
        "title": name,
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The keys that belong to the pipeline, not to the plug-in.
pub(crate) fn pipeline_keys() -> Vec<String> {
    let schema = of::<raw::Pipeline>();
    let keys = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    keys.cloned().collect()
}

/// The plug-in's own settings and the pipeline's keys of one entry, apart.
pub(crate) fn split(entry: Map<String, Value>) -> (Map<String, Value>, Settings) {
    let reserved = pipeline_keys();
    let own = |key: &String| key != "type" && !reserved.contains(key);
    let (settings, pipeline): (Map<_, _>, Map<_, _>) =
        entry.into_iter().filter(|(key, _)| key != "type").partition(|(key, _)| own(key));
    (pipeline, Settings::new(settings))
}

fn of<T: JsonSchema>() -> Value {
    SchemaSettings::default()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The property that a dotted path of plain keys leads to.
fn property<'a>(schema: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let pointer = format!("/properties/{}", key.replace('.', "/properties/"));
    schema.pointer_mut(&pointer)?.as_object_mut()
}

fn collect(schema: &Value, path: &str, paths: &mut Vec<String>) {
    let before = paths.len();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        collect(property, &crate::yaml::join(path, name), paths);
    }
    if let Some(rest) = schema.get("additionalProperties").filter(|rest| rest.get("properties").is_some()) {
        collect(rest, &crate::yaml::join(path, "*"), paths);
    }
    if let Some(items) = schema.get("items") {
        let variants = items.get("oneOf").and_then(Value::as_array);
        match variants {
            Some(variants) => variants.iter().for_each(|variant| collect_variant(variant, path, paths)),
            None if items.get("properties").is_some() => collect(items, &format!("{path}[]"), paths),
            None => {}
        }
    }
    let choices: Vec<&Value> = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten().collect();
    for choice in choices.iter().filter(|choice| leads_to_keys(choice)) {
        collect(choice, path, paths);
    }
    // What may also be a single value is a key too.
    let is_value = choices.iter().any(|choice| !leads_to_keys(choice) && choice["type"] != "null");
    if (paths.len() == before || is_value) && !path.is_empty() {
        paths.push(path.to_owned());
    }
}

/// Whether a mapping with keys may stand there.
fn leads_to_keys(schema: &Value) -> bool {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    schema.get("properties").is_some() || choices.is_some_and(|all| all.iter().any(leads_to_keys))
}

fn collect_variant(variant: &Value, path: &str, paths: &mut Vec<String>) {
    let kind = variant.pointer("/properties/type/const").and_then(Value::as_str).unwrap_or_default();
    let reserved = pipeline_keys();
    for (name, property) in variant.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let common = name == "type" || reserved.contains(name);
        let parent = if common { format!("{path}[]") } else { format!("{path}[{kind}]") };
        collect(property, &crate::yaml::join(&parent, name), paths);
    }
}

#[cfg(test)]
mod tests {
    use magicapi_plugin::RESERVED_KEYS;

    /// Authors of exporters are told by the SDK which names are taken.
    #[test]
    fn the_sdk_knows_the_keys_of_the_pipeline() {
        let unknown: Vec<String> =
            super::pipeline_keys().into_iter().filter(|key| !RESERVED_KEYS.contains(&key.as_str())).collect();
        assert!(unknown.is_empty(), "add to RESERVED_KEYS of crates/plugin: {unknown:?}");
    }
}
