//! The texts of every kind of problem, as golden files: `tests/golden/NAME.snap`.

mod support;

use std::collections::BTreeSet;

use magicapi_plugin::RESERVED_KEYS;
use support::{bad, good, load_env, load_text};

const SECRET: &str = "sk-very-secret-0123456789";

fn golden(name: &str, text: &str) {
    assert!(!text.contains(SECRET), "a secret in {text}");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn file(name: &str, env: &[(&str, &str)], yaml: &str) {
    golden(name, &bad(load_text(env, yaml)));
}

fn env(name: &str, env: &[(&str, &str)]) {
    golden(name, &bad(load_env(env)));
}

#[test]
fn unknown_keys() {
    let yaml = "servr: {}\nserver:\n  lisen: \"127.0.0.1:1\"\n  limits: { bdy: 1MiB, zzzzzz: 1 }\ntelemetry:\n  exporters:\n    - type: elasticsearch\n      ulr: http://x\n      batch: { ages: 1s }\nroutes: {}\nproviders:\n  openai: { region: us-east-1 }\n";
    file("unknown_keys", &[], yaml);
}

#[test]
fn wrong_kinds_and_units() {
    let yaml = "server:\n  heartbeat: 15\n  limits: { body: 64M, connections: \"10\", header_read: [1] }\nadmin: { metrics: opn }\nauth:\n  mode: key\n  keys: { name: x }\ntimeouts: { attempt: never, idle: 0s }\ntelemetry:\n  threads: 0\n  metrics_on_data_plane: yes\n  capture: full\nproviders: [ openai ]\n";
    file("wrong_kinds", &[], yaml);
}

#[test]
fn the_journal_of_durable_records() {
    file("journal_without_durable", &[], "telemetry:\n  journal: { fsync: always }\n");
    file("journal_too_small", &[], "telemetry:\n  durable: true\n  journal: { disk: 64KiB }\n");
    file("journal_kinds", &[], "telemetry:\n  durable: yes\n  journal: { fsync: sometimes, disk: 1 GB/s }\n");
}

#[test]
fn syntax() {
    file("syntax", &[], "server:\n  listen: [ \"a\"\nadmin: x: y\n");
    file("unquoted_in_flow", &[], "providers:\n  openai: { api_key: ${K} }\n");
    file("duplicate_keys", &[], "server:\n  heartbeat: 1s\n  heartbeat: 2s\nserver: {}\n");
    file("second_document", &[], "server: {}\n---\nadmin: {}\n");
    file("not_a_mapping", &[], "- server\n");
    file("tag", &[], "server: !include server.yaml\n");
}

#[test]
fn variables_in_the_file() {
    let yaml = "providers:\n  openai: { api_key: \"${NOT_SET}\" }\nserver:\n  listen: \"${OPEN\"\n  heartbeat: ${SECRET}\nadmin:\n  metrics: ${SECRET}\n";
    file("expansion", &[("SECRET", SECRET)], yaml);
}

#[test]
fn exporters() {
    let listed = "telemetry:\n  exporters:\n    - { type: file, path: x }\n";
    file("exporters_twice", &[("ENABLED_EXPORTERS", "")], listed);
    file("exporters_alias", &[("ENABLE_ELASTICSEARCH", "true")], listed);
    let yaml = "telemetry:\n  capture: { bodies: metadata }\n  exporters:\n    - { type: file, path: a }\n    - { type: file, path: b }\n    - { type: console, name: request_log }\n    - { type: console, content: full }\n    - { type: console, name: c2, batch: { bytes: 1GiB } }\n    - { type: prometheus, sample: 0.5, only: { status: [error] } }\n    - { type: console, name: c3, sample: 1.5, only: { outcome: [timedout], min_cost_usd: -1 } }\n    - { type: console, name: c4, sample: { rate: -1 }, buffer: { disk: 0 }, rate_limit: { bytes: 0 }, retry: { max_age: 0s } }\n";
    file("exporters_meaning", &[], yaml);
    let yaml = "telemetry:\n  exporters:\n    - { type: elastic }\n    - { type: file }\n    - { url: x }\n    - file\n    - { type: elasticsearch, shards: -1, url: [x] }\n    - { type: file, path: x, conversation: 0.1 }\n";
    file("exporters_shape", &[], yaml);
    env("enabled_unknown", &[("ENABLED_EXPORTERS", "elastic,console,console,request_log")]);
    let settings = [
        ("ENABLED_EXPORTERS", "elasticsearch,file"),
        ("ELASTICSEARCH_SHARDS", "many"),
        ("ELASTICSEARCH_HEADERS", "sk-very-secret-0123456789"),
    ];
    env("exporter_settings", &settings);
}

/// A setting that does nothing is refused: whoever writes it expects something.
#[test]
fn settings_that_would_mean_nothing() {
    let yaml = "telemetry:\n  exporters:\n    - { type: console, buffer: { when_full: drop_oldest, disk: 10GiB, max_age: 3d } }\n    - { type: file, path: a, buffer: { when_full: refuse, disk: 0, max_age: 3d } }\n    - type: prometheus\n      batch: { age: 2s }\n      retry: { max_age: 1h }\n      tls: { server_name: a }\n";
    file("meaningless", &[], yaml);
    for buffer in [
        "when_full: drop_oldest, memory: 8MiB, disk: 0",
        "when_full: refuse, disk: 1GiB, max_age: 3d",
        "when_full: refuse, disk: 0",
        "disk: 1GiB, max_age: 3d",
    ] {
        let entry = format!("telemetry: {{ exporters: [ {{ type: console, buffer: {{ {buffer} }} }} ] }}");
        good(load_text(&[], &entry));
    }
}

/// Every key of the pipeline: none is taken without a word by an exporter that is only fetched from.
#[test]
fn a_page_has_no_use_for_the_pipeline() {
    let values = [
        ("content", "metadata"),
        ("only", "{ key: [a] }"),
        ("sample", "0.5"),
        ("require_healthy", "true"),
        ("init_timeout", "1s"),
        ("timeout", "1s"),
        ("concurrency", "2"),
        ("rate_limit", "{ requests: 1 }"),
        ("batch", "{ age: 1s }"),
        ("buffer", "{ memory: 8MiB }"),
        ("retry", "{ max_age: 1m }"),
        ("breaker", "{ failures: 1 }"),
        ("dead_letters", "{ disk: 1MiB }"),
        ("tls", "{ server_name: a }"),
        ("proxy", "none"),
        ("auth", "{ bearer: a }"),
    ];
    let known = RESERVED_KEYS.iter().copied().filter(|key| !["type", "name"].contains(key));
    assert_eq!(known.collect::<BTreeSet<_>>(), values.iter().map(|(key, _)| *key).collect());
    for (key, value) in values {
        let entry =
            |kind: &str| format!("telemetry:\n  exporters:\n    - type: {kind}\n      {key}: {value}\n");
        let text = bad(load_text(&[], &entry("prometheus")));
        assert!(
            text.starts_with(&format!("gateway.yaml:4:7: telemetry.exporters[0].{key}: `prometheus` ")),
            "{text}"
        );
        assert!(text.ends_with("; leave it out"), "{text}");
        good(load_text(&[], &entry("console")));
    }
}

#[test]
fn redaction() {
    let yaml = "telemetry:\n  redact:\n    pii: [email, phon]\n    patterns: [{ name: x }, { name: y, regx: z, regex: a }]\n    paths: $.request\n    replace: hsh\n    hash_key: [sk-very-secret-0123456789]\n";
    file("redaction", &[], yaml);
    file("redaction_pii", &[], "telemetry:\n  redact:\n    pii: email\n");
}

#[test]
fn variables() {
    let all = [
        ("PORT", "http"),
        ("HOST", "gateway.internal"),
        ("ADMIN_LISTEN", "3001"),
        ("LOG_FORMAT", "jsn"),
        ("ENABLE_ELASTICSEARCH", "maybe"),
        ("GATEWAY_API_KEYS", "sk-very-secret-0123456789,a:1,a:2"),
        ("OPENAI_BASE_URL", "https://user:sk-very-secret-0123456789@api"),
        ("HTTPS_PROXY", "socks5://u:sk-very-secret-0123456789@p"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c"),
    ];
    env("variables", &all);
}

#[test]
fn values() {
    let yaml = "server:\n  listen: [ \"::1:3000\", \"host:1\", \"127.0.0.1\" ]\n  heartbeat: 0s\nadmin: { listen: [] }\nstore: { url: \"postgres://u:sk-very-secret-0123456789@db/x\" }\nauth:\n  keys:\n    - { name: a, hash: sk-very-secret-0123456789 }\n    - { name: b, hash: x }\n  passthrough: [ \"/v1/x\", \"post /v1/x\", \"POST /v1/x\", \"GET /v1/organization/users\" ]\nupstream: { proxy: \"ftp://p\" }\nproviders:\n  opnai: {}\n  local: { type: openai, base_url: \"localhost:8000\" }\n  \"a/b\": { type: openai }\n  deep: { type: openai, base_url: \"https://h/v1/chat/completions/\" }\ntimeouts: { total: 0s, connect: 0s }\n";
    file("values", &[], yaml);
    file(
        "secret_in_the_wrong_place",
        &[],
        "providers:\n  openai: sk-very-secret-0123456789\nauth: { keys: sk-very-secret-0123456789 }\ntelemetry: { exporters: [ sk-very-secret-0123456789 ] }\n",
    );
    file("provider_type", &[], "providers: { local: { type: olama } }\n");
    for (name, url) in
        [("store_scheme", "mysql://x"), ("store_path", "magicapi.db"), ("store_empty", "sqlite://")]
    {
        file(name, &[], &format!("store: {{ url: \"{url}\" }}\n"));
    }
}

#[test]
fn empty_texts() {
    let yaml = "server:\n  listen: [ \"\" ]\n  tls: { cert: \"\", key: k.pem }\nauth:\n  keys: [ { name: \"\", hash: x } ]\ntelemetry:\n  exporters:\n    - { type: \"\" }\n    - { type: file, path: \"\" }\n";
    file("empty_texts", &[], yaml);
    env("no_keys_named", &[("GATEWAY_API_KEYS", " ,")]);
}

#[test]
fn limits_of_nothing() {
    let yaml = "server:\n  limits: { body: 0, upload: 0B, header_bytes: 0KiB }\nstore: { retention: { size: 0 } }\ntelemetry: { capture: { memory: 0 } }\n";
    file("limits_of_nothing", &[], yaml);
}

#[test]
fn half_configured_providers() {
    env("azure_without_url", &[("AZURE_API_KEY", SECRET)]);
    env("azure_without_key", &[("AZURE_BASE_URL", "https://x.example")]);
    let yaml = "providers:\n  eu: { type: azure, api_key: x }\n  us: { type: azure, base_url: \"https://us.example\" }\n  gpu: { type: vllm }\n";
    file("half_configured", &[], yaml);
}

#[test]
fn refusals() {
    env("refuse_provider_key", &[("HOST", "0.0.0.0"), ("OPENAI_API_KEY", SECRET)]);
    let yaml = "server: { listen: [ \"[::]:8080\", \"127.0.0.1:3000\" ] }\nauth: { mode: open }\nproviders:\n  openai: { api_key: sk-very-secret-0123456789 }\n  anthropic: { api_key: sk-very-secret-0123456789 }\n";
    file("refuse_open", &[("GATEWAY_API_KEYS", "a:b")], yaml);
    env("refuse_admin", &[("ADMIN_LISTEN", "0.0.0.0:3001")]);
    file(
        "refuse_admin_file",
        &[("ADMIN_TOKEN", "")],
        "admin:\n  listen: \"10.0.0.1:3001\"\n  token: \"${ADMIN_TOKEN:-}\"\n",
    );
    file("refuse_no_keys", &[], "auth: { mode: keys }\n");
}

#[test]
fn one_address_for_both_planes() {
    let both = "cannot be listened on twice";
    env("one_address", &[("PORT", "3011"), ("ADMIN_LISTEN", "127.0.0.1:3011")]);
    file("one_address_file", &[], "server: { listen: \"127.0.0.1:3001\" }\n");
    let everywhere = "server: { listen: \"0.0.0.0:3001\" }\n";
    assert!(bad(load_text(&[], everywhere)).contains(both));
    for apart in [
        "server: { listen: \"[::]:3005\" }\nadmin: { listen: \"127.0.0.1:3005\" }\n",
        "server: { listen: \"127.0.0.2:3001\" }\n",
        "server: { listen: \"127.0.0.1:0\" }\nadmin: { listen: \"127.0.0.1:0\" }\n",
    ] {
        good(load_text(&[], apart));
    }
}

#[test]
fn files_that_cannot_be_read() {
    let text = bad(support::load_file(&[], std::path::Path::new("no-such/gateway.yaml")));
    golden("no_file", &text);
}
