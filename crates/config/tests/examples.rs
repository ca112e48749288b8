//! The files in `examples/` load.

mod support;

use std::path::{Path, PathBuf};

use support::{good, load_file};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

#[test]
fn minimal() {
    let loaded = good(load_file(&[("OPENAI_API_KEY", "k")], &example("minimal.yaml")));
    assert_eq!(loaded.config.providers.len(), 1);
}

#[test]
fn team_keys() {
    let hash = format!("sha256:{}", "0".repeat(64));
    let env = [("OPENAI_API_KEY", "k"), ("APP_1_HASH", &hash), ("APP_2_HASH", &hash)];
    let loaded = good(load_file(&env, &example("team-keys.yaml")));
    assert_eq!(loaded.config.auth.keys[1].models, ["openai/gpt-*", "ollama/*"]);
}

#[test]
fn elasticsearch() {
    let loaded = good(load_file(&[], &example("elasticsearch.yaml")));
    let names: Vec<_> = loaded.config.telemetry.exporters.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["prometheus", "elasticsearch", "audit"]);
}

#[test]
fn local_models() {
    let loaded = good(load_file(&[], &example("local-models.yaml")));
    assert_eq!(loaded.config.providers.len(), 3);
}

#[test]
fn there_are_no_others() {
    let entries = std::fs::read_dir(example("")).expect("examples");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "yaml"));
    names.sort();
    assert_eq!(names, ["elasticsearch.yaml", "local-models.yaml", "minimal.yaml", "team-keys.yaml"]);
}
