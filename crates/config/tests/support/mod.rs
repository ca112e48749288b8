//! A small catalogue, and configurations from texts.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use magicapi_config::{
    Catalogue, Diagnostics, Effective, Environment, Loaded, PluginSpec, ProviderSpec, Sources, load,
};
use magicapi_plugin::{JsonSchema, Secret, SettingsSpec, Signals};
use serde::Deserialize;

/// Records to Elasticsearch.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code, reason = "read through its schema alone")]
pub(crate) struct Elasticsearch {
    /// Where it is.
    #[schemars(extend("env" = "ELASTICSEARCH_URL"))]
    url: String,
    /// The index.
    #[schemars(extend("env" = "ELASTICSEARCH_INDEX"))]
    index: String,
    /// The user.
    #[schemars(extend("env" = "ELASTICSEARCH_USERNAME"))]
    username: Option<String>,
    /// Its password.
    #[schemars(extend("env" = "ELASTICSEARCH_PASSWORD"))]
    password: Option<Secret>,
    /// How many shards.
    #[schemars(extend("env" = "ELASTICSEARCH_SHARDS"))]
    shards: Option<u32>,
    /// Headers.
    #[schemars(extend("env" = "ELASTICSEARCH_HEADERS"))]
    headers: std::collections::BTreeMap<String, String>,
}

/// Records to a file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read through its schema alone")]
pub(crate) struct File {
    /// The file.
    #[schemars(extend("env" = "FILE_EXPORTER_PATH"))]
    path: String,
}

/// Nothing to set.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Empty {}

pub(crate) fn catalogue() -> Catalogue {
    let provider = |name, key_env, url: &str, default_base_url, needs_key| ProviderSpec {
        name,
        key_env,
        base_url_env: url.into(),
        default_base_url,
        needs_key,
    };
    let plugin = |name, settings| PluginSpec { name, settings };
    Catalogue {
        providers: vec![
            provider(
                "openai",
                Some("OPENAI_API_KEY"),
                "OPENAI_BASE_URL",
                Some("https://api.openai.com/v1"),
                true,
            ),
            provider(
                "anthropic",
                Some("ANTHROPIC_API_KEY"),
                "ANTHROPIC_BASE_URL",
                Some("https://a.example"),
                true,
            ),
            provider("azure", Some("AZURE_API_KEY"), "AZURE_BASE_URL", None, true),
            provider("ollama", None, "OLLAMA_BASE_URL", Some("http://127.0.0.1:11434/v1"), false),
            provider("vllm", None, "VLLM_BASE_URL", None, false),
        ],
        plugins: vec![
            plugin("console", SettingsSpec::of::<Empty>().max_age(Duration::from_hours(17))),
            plugin("elasticsearch", SettingsSpec::of::<Elasticsearch>()),
            plugin("file", SettingsSpec::of::<File>()),
            plugin("prometheus", SettingsSpec::of::<Empty>().without_http().signals(Signals::SCRAPE)),
            plugin("request_log", SettingsSpec::of::<Empty>()),
        ],
        useless_passthrough: Some(|_, path| {
            path.contains("/organization/").then_some("is about the account")
        }),
    }
}

/// Loads a file of this text in this environment. Its path in messages is `gateway.yaml`.
pub(crate) fn load_text(env: &[(&str, &str)], yaml: &str) -> Result<Loaded, Diagnostics> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("gateway.yaml");
    fs::write(&path, yaml).expect("a file");
    load_file(env, &path)
}

pub(crate) fn load_file(env: &[(&str, &str)], path: &Path) -> Result<Loaded, Diagnostics> {
    let env = Environment::from_pairs(env.iter().copied());
    let sources = Sources { file: Some(path.into()), env, ..Sources::default() };
    load(&sources, &catalogue())
}

/// Loads from the environment alone.
pub(crate) fn load_env(env: &[(&str, &str)]) -> Result<Loaded, Diagnostics> {
    let env = Environment::from_pairs(env.iter().copied());
    load(&Sources { env, ..Sources::default() }, &catalogue())
}

/// The configuration, or a panic with what is wrong.
pub(crate) fn good(loaded: Result<Loaded, Diagnostics>) -> Loaded {
    loaded.unwrap_or_else(|problems| panic!("{problems}"))
}

/// What is wrong, without the directory of the file.
pub(crate) fn bad(loaded: Result<Loaded, Diagnostics>) -> String {
    let Err(problems) = loaded else { panic!("it loads") };
    let text = problems.to_string();
    let strip = |line: &str| match line.find("gateway.yaml") {
        Some(start) if line.starts_with('/') => line[start..].to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(strip).collect::<Vec<_>>().join("\n")
}

/// One effective value.
pub(crate) fn effective<'a>(loaded: &'a Loaded, key: &str) -> &'a Effective {
    loaded.origins.iter().find(|one| one.key == key).unwrap_or_else(|| panic!("no key {key}"))
}
