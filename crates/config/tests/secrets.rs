//! What is kept out of all that is shown: secrets of settings, wherever they stand.

#![allow(clippy::expect_used, reason = "clippy does not see that this is part of tests")]

mod support;

use magicapi_config::{Catalogue, Environment, Loaded, PluginSpec, Sources, load};
use magicapi_plugin::{JsonSchema, Secret, SettingsSpec, schemars};
use serde::Deserialize;
use support::{effective, good};

/// A third party's.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code, reason = "read through its schema alone")]
struct Deep {
    /// Each may be used.
    #[schemars(extend("env" = "DEEP_TOKENS"))]
    tokens: Vec<Secret>,
    /// Where records go.
    routes: Vec<Route>,
    /// What is run.
    #[schemars(extend("x-as-written" = true))]
    command: Vec<String>,
    /// What is not hidden.
    tags: Vec<String>,
}

/// One of them.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code, reason = "read through its schema alone")]
struct Route {
    /// Its address.
    url: String,
    /// What opens it.
    token: Option<Secret>,
    /// More for each request.
    headers: std::collections::BTreeMap<String, String>,
}

fn catalogue() -> Catalogue {
    let deep = PluginSpec { name: "deep", settings: SettingsSpec::of::<Deep>() };
    Catalogue { plugins: vec![deep], ..Catalogue::default() }
}

fn loaded(env: &[(&str, &str)], yaml: Option<&str>) -> Loaded {
    let directory = tempfile::tempdir().expect("a directory");
    let file = yaml.map(|yaml| {
        let path = directory.path().join("gateway.yaml");
        std::fs::write(&path, yaml).expect("a file");
        path
    });
    let env = Environment::from_pairs(env.iter().copied());
    good(load(&Sources { file, env, ..Sources::default() }, &catalogue()))
}

fn secrets(loaded: &Loaded) -> Vec<String> {
    let secrets = loaded.config.secrets(&catalogue());
    secrets.iter().map(|secret| secret.expose().to_owned()).collect()
}

fn shown(loaded: &Loaded, setting: &str) -> String {
    effective(loaded, &format!("telemetry.exporters[0].{setting}")).value.clone()
}

#[test]
fn secrets_in_lists_are_masked_and_known() {
    let file = r#"
telemetry:
  exporters:
    - type: deep
      tokens: [ canary-1, "${TOKEN}" ]
      tags: [ open ]
      routes:
        - { url: "http://u:canary-3@a", token: canary-4, headers: { x: canary-5 } }
"#;
    let file = loaded(&[("TOKEN", "canary-2")], Some(file));
    assert_eq!(shown(&file, "tokens"), r#"["***","***"]"#);
    let routes = r#"[{"url":"http://***@a","token":"***","headers":{"x":"***"}}]"#;
    assert_eq!((shown(&file, "routes").as_str(), shown(&file, "tags").as_str()), (routes, r#"["open"]"#));
    assert_eq!(secrets(&file), ["canary-1", "canary-2", "u", "canary-3", "canary-4", "canary-5"]);
    let all: String = file.origins.iter().map(|one| one.value.as_str()).collect();
    assert!(!all.contains("canary"), "{all}");

    let named = loaded(&[("ENABLED_EXPORTERS", "deep"), ("DEEP_TOKENS", "canary-1,canary-2")], None);
    assert_eq!(shown(&named, "tokens"), r#"["***","***"]"#);
    assert_eq!(secrets(&named), ["canary-1", "canary-2"]);
}

/// What a back end or a record may repeat is not the setting as a whole.
#[test]
fn what_is_a_secret_by_itself_is_known_alone() {
    let file = r#"
telemetry:
  exporters:
    - type: deep
      tokens:
        - "api-key=canary-1,authorization=Bearer%20canary-2"
        - "postgres://u:canary%2D3@h/db?sslmode=require"
        - "Bearer canary-4"
        - "canary 5 is a sentence"
      routes:
        - { url: "https://a/in?token=canary%2D6&canary-7", headers: { authorization: "Basic canary-8" } }
      auth: { header: { name: x-auth, value: "Token canary-9" } }
"#;
    let file = loaded(&[], Some(file));
    let known = secrets(&file);
    let parts = ["1", "2", "4", "8", "9"].map(|number| format!("canary-{number}"));
    let decoded = ["canary%2D3", "canary-3", "canary%2D6", "canary-6", "canary-7"].map(str::to_owned);
    for alone in parts.iter().chain(&decoded) {
        assert!(known.contains(alone), "{alone}: {known:?}");
    }
    assert!(!known.iter().any(|one| one == "5 is a sentence"), "{known:?}");
    let routes = r#"[{"url":"https://a/in?token=***&***","headers":{"authorization":"***"}}]"#;
    assert_eq!(shown(&file, "routes"), routes);
    let all: String = file.origins.iter().map(|one| one.value.as_str()).collect();
    assert!(!all.contains("canary"), "{all}");
}

#[test]
fn a_command_is_shown_as_it_was_written() {
    let file = r#"
telemetry:
  exporters:
    - type: deep
      command: [ curl, "-H", "authorization: ${TOKEN}", "${HOST_NAME:-localhost}", "$${x}" ]
"#;
    let file = loaded(&[("TOKEN", "canary")], Some(file));
    let written = r#"["curl","-H","authorization: ${TOKEN}","${HOST_NAME:-localhost}","${x}"]"#;
    assert_eq!(shown(&file, "command"), written);
    let [entry] = file.config.telemetry.exporters.as_slice() else { panic!("one") };
    let run: Vec<String> = serde_json::from_value(entry.settings.values()["command"].clone()).expect("texts");
    assert_eq!(run, ["curl", "-H", "authorization: canary", "localhost", "${x}"], "what is run has it");
}
