//! What the crate lists, registers and documents is the same set of exporters.

use std::fs;
use std::path::Path;

use magicapi_plugin::{TelemetryPlugin, TlsVariables, ValueKind, plugins};

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_folder_is_listed_and_registered_once() {
    let registered: Vec<&str> = plugins().iter().map(|plugin| plugin.name()).collect();
    assert_eq!(registered, magicapi_exporters::NAMES);
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("src");
    let mut folders: Vec<String> = folders
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    folders.sort();
    assert_eq!(folders, magicapi_exporters::NAMES);
}

/// The row that the settings table of an exporter's page has for each setting.
fn rows(plugin: &dyn TelemetryPlugin) -> Vec<String> {
    let spec = plugin.settings();
    let row = |key: &magicapi_plugin::SettingsKey| {
        let code = |text: &str| format!("`{text}`");
        let default = key.default.as_ref().map(|value| value.to_string().trim_matches('"').to_owned());
        let kind = match &key.kind {
            ValueKind::OneOf(words) => words.iter().map(|word| code(word)).collect::<Vec<_>>().join(", "),
            kind => format!("{kind:?}").to_lowercase(),
        };
        let cell = |text: Option<String>| {
            text.filter(|text| !text.is_empty()).map(|text| code(&text)).unwrap_or_default()
        };
        format!(
            "| {} | {} | {} | {} | {} |",
            code(&key.name),
            kind,
            cell(default),
            cell(key.env.clone()),
            key.doc
        )
    };
    spec.keys().iter().map(row).collect()
}

#[test]
fn every_exporter_has_a_page_with_its_settings() {
    for plugin in plugins() {
        let path = repository().join(format!("docs/exporters/{}.md", plugin.name()));
        let page = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for row in rows(plugin) {
            assert!(page.contains(&row), "{} lacks this row:\n{row}", path.display());
        }
        for (key, variable) in plugin.settings().tls().into_iter().flat_map(TlsVariables::keys) {
            assert!(page.contains(&format!("`{variable}`")), "{} lacks {key}'s {variable}", path.display());
        }
        assert!(page.contains("## Guarantee"), "{}", path.display());
    }
}

/// A query that names no metric finds nothing, and says nothing.
#[test]
fn datadogs_query_names_a_metric() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).expect(path);
    let page = read("docs/exporters/datadog.md");
    let asked: Vec<&str> = page.split("sum:").skip(1).filter_map(|rest| rest.split('{').next()).collect();
    assert!(!asked.is_empty());
    for name in asked {
        assert!(read("docs/metrics.md").contains(&format!("| `{name}` |")), "{name} is no metric");
    }
}
