//! The table of `docs/exporters/README.md`: its settings exist, its defaults are those in force, its metrics are in the
//! catalogue of `docs/metrics.md`, which a test of its own holds against what is registered.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::collections::BTreeMap;
use std::process::Command;

use magicapi_testkit::configuration::configuration;
use serde_json::{Value, json};

use crate::scene::{BINARY, options, stderr, stdout};

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"))).expect("a page")
}

/// What stands in backticks in a cell.
fn words(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Every effective value of a configuration with one exporter.
fn effective(exporter: &Value) -> BTreeMap<String, String> {
    let config = configuration("http://127.0.0.1:1/v1", json!({ "telemetry": { "exporters": [exporter] } }));
    let output = options(&config, &[]).arg("config").output();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let values = text.lines().filter_map(|line| line.split("  # ").next()?.split_once(" = "));
    values.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn settings_defaults_and_metrics_are_what_the_table_says() {
    let schema = Command::new(BINARY).arg("schema").env_clear().output().expect("the binary");
    let keys = magicapi_config::key_paths(&serde_json::from_slice(&schema.stdout).expect("JSON"));
    let is_key = |setting: &str| {
        let entry = format!("telemetry.exporters[].{setting}");
        let within = format!("{entry}.");
        keys.iter().any(|key| key == setting || *key == entry || key.starts_with(&within))
            || keys.iter().any(|key| key.starts_with(&format!("{setting}.")))
    };
    let values = effective(&json!({ "type": "webhook", "url": "http://127.0.0.1:1" }));
    let (page, metrics) = (page("exporters/README.md"), page("metrics.md"));
    let rows = page.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut compared = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let ["", _, settings, default, shown, ""] = cells[..] else { panic!("four cells: {row}") };
        let (settings, defaults) = (words(settings), words(default.split(';').next().expect("a part")));
        for setting in &settings {
            assert!(is_key(setting), "no setting `{setting}`");
        }
        // The defaults of as many settings, in their order.
        for (setting, default) in settings.iter().zip(&defaults).filter(|_| settings.len() == defaults.len())
        {
            let entry = format!("telemetry.exporters[0].{setting}");
            let key = if setting.starts_with("telemetry.") { setting } else { entry.as_str() };
            // One default may be another setting's value.
            if let Some(value) = values.get(key).filter(|_| !is_key(default)) {
                assert_eq!(value, default, "{setting}");
                compared += 1;
            }
        }
        let shown: Vec<&str> = words(shown).into_iter().filter(|word| word.starts_with("gateway_")).collect();
        assert!(!shown.is_empty(), "no metric: {row}");
        for metric in shown {
            let name = metric.strip_suffix("_total").unwrap_or(metric);
            assert!(metrics.contains(&format!("| `{name}` |")), "no metric `{metric}`");
        }
    }
    assert!(compared >= 9, "{compared} defaults");
}

/// An alert that is copied from a page watches something.
#[test]
fn every_metric_that_a_page_names_is_in_the_catalogue() {
    const FAMILIES: [&str; 5] = ["exporter", "journal", "records", "capture", "redactions"];
    let catalogue = page("metrics.md");
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
    let mut named = 0;
    for folder in [docs.to_owned(), format!("{docs}/exporters")] {
        let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
        for path in files.filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
            let text = std::fs::read_to_string(&path).expect("a page");
            for word in words(&text) {
                let family = word.strip_prefix("gateway_").and_then(|rest| rest.split('_').next());
                if family.is_some_and(|family| FAMILIES.contains(&family)) {
                    let name = word.split('{').next().map(|name| name.strip_suffix("_total").unwrap_or(name));
                    let row = format!("| `{}` |", name.expect("a name"));
                    assert!(catalogue.contains(&row), "{}: no metric `{word}`", path.display());
                    named += 1;
                }
            }
        }
    }
    assert!(named > 60, "{named}");
}

/// What a back end takes no more need not wait for it.
#[test]
fn telemetry_exporters_buffer_max_age_is_below_the_back_ends_own_window() {
    for (exporter, age) in [
        (json!({ "type": "datadog", "api_key": "c0ffee0123456789abcdef0123456789" }), "17h"),
        (json!({ "type": "newrelic", "license_key": "c0ffee0123456789abcdef0123456789FFFFNRAL" }), "47h"),
    ] {
        let values = effective(&exporter);
        for key in ["buffer.max_age", "retry.max_age"] {
            assert_eq!(values[&format!("telemetry.exporters[0].{key}")], age, "{exporter}");
        }
    }
}
