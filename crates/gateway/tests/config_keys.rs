//! `tests/keys.toml` names, for every key of the schema, a test that sees what the key does.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// One line of the list.
struct Line {
    value: String,
    test: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The list. Its lines all have one form, so that no TOML reader is needed for it.
fn lines() -> BTreeMap<String, Line> {
    let text = fs::read_to_string(root().join("tests/keys.toml")).expect("tests/keys.toml");
    let mut lines = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let parts: Vec<&str> = line.split('"').collect();
        let ["", key, " = { value = ", value, ", test = ", test, " }"] = parts.as_slice() else {
            panic!("not `\"KEY\" = {{ value = \"VALUE\", test = \"NAME\" }}`: {line}");
        };
        let read = Line { value: (*value).to_owned(), test: (*test).to_owned() };
        assert!(lines.insert((*key).to_owned(), read).is_none(), "{key} has two lines");
    }
    lines
}

/// The schema that this binary prints.
fn schema() -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_magicapi-ai-gateway"));
    let output = command.arg("schema").env_clear().output().expect("the binary");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn every_key_of_the_schema_has_a_line_and_every_line_a_key() {
    let keys: BTreeSet<String> = magicapi_config::key_paths(&schema()).into_iter().collect();
    let listed: BTreeSet<String> = lines().into_keys().collect();
    let missing: Vec<_> = keys.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&keys).collect();
    assert!(missing.is_empty(), "keys without a line in tests/keys.toml: {missing:?}");
    assert!(unknown.is_empty(), "lines of tests/keys.toml without a key: {unknown:?}");
    assert!(keys.len() > 50, "{keys:?}");
}

/// The default of a key, where it has one; a key that every exporter has is looked up where one gets records.
fn default_of<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    let (schema, key) = match key.strip_prefix("telemetry.exporters[").and_then(|rest| rest.split_once("]."))
    {
        Some((kind, own)) => {
            let variants =
                schema.pointer("/properties/telemetry/properties/exporters/items/oneOf")?.as_array()?;
            let kind = if kind.is_empty() { "file" } else { kind };
            (variants.iter().find(|variant| variant["title"] == kind).expect(kind), own)
        }
        None => (schema, key),
    };
    schema
        .pointer(&format!("/properties/{}/default", key.replace('.', "/properties/")))
        .filter(|one| !one.is_null())
}

#[test]
fn every_value_differs_from_the_default() {
    let schema = schema();
    let (mut of_file, mut of_all_exporters, mut of_one_exporter) = (0, 0, 0);
    for (key, line) in lines() {
        let Some(default) = default_of(&schema, &key) else { continue };
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        assert_ne!(default, line.value, "{key}");
        *match key.strip_prefix("telemetry.exporters[") {
            None => &mut of_file,
            Some(rest) if rest.starts_with(']') => &mut of_all_exporters,
            Some(_) => &mut of_one_exporter,
        } += 1;
    }
    let compared = [of_file, of_all_exporters, of_one_exporter];
    assert!(of_file > 20 && of_all_exporters > 15 && of_one_exporter > 20, "{compared:?}");
}

#[test]
fn every_named_test_exists() {
    let mut tests = BTreeSet::new();
    gather(&root().join("crates"), &mut tests);
    assert!(tests.len() > 100);
    for (key, line) in lines() {
        assert!(tests.contains(&line.test), "{key}: there is no test `{}`", line.test);
    }
}

/// The names of all functions that follow a `#[test]` or `#[tokio::test]`.
fn gather(directory: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                match name {
                    Some(name) if marked => {
                        tests.extend(name.split('(').next().map(str::to_owned));
                        marked = false;
                    }
                    _ => marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
                }
            }
        }
    }
}
