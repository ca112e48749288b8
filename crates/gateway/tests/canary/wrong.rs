//! Settings that cannot be used, each with a secret at or beside what is wrong.

use magicapi_testkit::GatewayOptions;
use magicapi_testkit::canary::Canary;
use serde_json::{Value, json};

use crate::places::secret;
use crate::scene::{BINARY, options, stderr, stdout};

/// Files; `SECRET` stands for one.
const FILES: &[&str] = &[
    // No YAML, at the secret or near it.
    "providers: { openai: { api_key: \"SECRET } }",
    "providers: { openai: { api_key: 'SECRET' }",
    "providers:\n  openai:\n    api_key: SECRET\n   base_url: x",
    "providers:\n  openai:\n\tapi_key: SECRET",
    "providers: { openai: { api_key: *SECRET } }",
    "providers: { openai: { api_key: @SECRET } }",
    "providers: { openai: { api_key: SECRET, api_key: SECRET } }",
    "SECRET",
    "- SECRET",
    // Of another kind, under another name, in another place.
    "providers: { openai: { api_key: [SECRET] } }",
    "providers: { openai: { api_key: { value: SECRET } } }",
    "providers: { openai: { api_keys: SECRET } }",
    "providers: { openai: SECRET }",
    "providers: [SECRET]",
    "api_key: SECRET",
    "admin: { token: [SECRET] }",
    "admin: SECRET",
    "auth: { keys: [{ name: a, hash: SECRET }] }",
    "auth: { keys: [SECRET] }",
    "auth: { keys: { a: SECRET } }",
    "auth: SECRET",
    // In an address that is none.
    "providers: { openai: { base_url: 'htp://user:SECRET@host' } }",
    "providers: { openai: { base_url: 'http://user:SECRET@' } }",
    "providers: { openai: { base_url: 'user:SECRET@host' } }",
    "providers: { openai: { base_url: 'http://user:SECRET@host' } }",
    "upstream: { proxy: 'socks5://user:SECRET@host' }",
    "upstream: { proxy: 'http://user:SECRET@ho st' }",
    "upstream: { proxy: [ 'http://user:SECRET@host' ] }",
    "telemetry: { redact: { replace: hash, hash_key: [SECRET] } }",
    "telemetry: { exporters: SECRET }",
    "telemetry: { exporters: [SECRET] }",
];

/// Entries of exporters.
fn entries(secret: &str) -> Vec<Value> {
    let hook =
        |key: &str, value: Value| json!({ "type": "webhook", "url": "http://127.0.0.1:1/in", key: value });
    vec![
        json!({ "type": "webhok", "secret": secret }),
        json!({ "secret": secret }),
        json!({ "type": "webhook", "url": secret }),
        json!({ "type": "webhook", "url": format!("http://user:{secret}@host/in") }),
        json!({ "type": "webhook", "url": format!("http://host/{secret}#x") }),
        hook("secret", json!(secret)),
        hook("secret", json!(format!("whsec_{secret}!"))),
        hook("secrets", json!(secret)),
        hook("headers", json!({ "x-token": format!("{secret}\n{secret}") })),
        hook("headers", json!({ "x token": secret })),
        hook("headers", json!([secret])),
        hook("headers", json!(secret)),
        hook("auth", json!(secret)),
        hook("auth", json!({ "bearer": format!("{secret}\n{secret}") })),
        hook("auth", json!({ "bearer": [secret] })),
        hook("auth", json!({ "header": { "name": "a b", "value": secret } })),
        hook("auth", json!({ "basic": { "username": "ada", "pasword": secret } })),
        hook("auth", json!({ "basic": secret })),
        hook("proxy", json!(format!("socks5://user:{secret}@host"))),
        hook("proxy", json!(format!("http://user:{secret}@ho st"))),
        json!({ "type": "elasticsearch", "password": secret }),
        json!({ "type": "elasticsearch", "url": format!("http://elastic:{secret}@host:9200") }),
        json!({ "type": "elasticsearch", "api_key": secret, "username": "elastic", "password": secret }),
        json!({ "type": "elasticsearch", "api_key": secret, "auth": { "bearer": secret } }),
        json!({ "type": "elasticsearch", "api_key": [secret] }),
        json!({ "type": "datadog", "api_key": secret, "site": "a b" }),
        json!({ "type": "datadog", "api_key": format!("{secret}\n{secret}") }),
        json!({ "type": "newrelic", "license_key": format!("{secret}\n{secret}") }),
        json!({ "type": "otlp", "headers": secret }),
        json!({ "type": "otlp", "headers": format!("x-token=%zz{secret}") }),
        json!({ "type": "otlp", "headers": { "x-token": secret } }),
        json!({ "type": "otlp", "license_key": secret }),
        json!({ "type": "postgres", "url": format!("mysql://user:{secret}@host/db") }),
        json!({ "type": "postgres", "url": format!("postgres://user:{secret}@host:port/db") }),
        json!({ "type": "postgres", "url": format!("postgres://user:a@{secret}@host/db") }),
        json!({ "type": "postgres", "url": format!("postgres://user:a/{secret}@host/db") }),
        json!({ "type": "postgres", "url": format!("postgres://user@host/db?passwort={secret}") }),
        json!({ "type": "postgres", "url": { "password": secret } }),
        json!({ "type": "exec", "command": ["x"], "env": [format!("TOKEN={secret}")] }),
        json!({ "type": "exec", "command": ["x"], "env": { "A=B": secret } }),
        json!({ "type": "exec", "env": { "TOKEN": secret } }),
    ]
}

/// Variables.
fn variables(secret: &str) -> Vec<Vec<(&'static str, String)>> {
    let key = |key: String| vec![("GATEWAY_API_KEYS", key)];
    let exporter = |name: &'static str, variable, value: String| {
        vec![("ENABLED_EXPORTERS", name.to_owned()), (variable, value)]
    };
    vec![
        key(secret.to_owned()),
        key(format!("a:{secret},a:{secret}")),
        key(format!(":{secret}")),
        key(format!("{secret}:")),
        vec![("HTTP_PROXY", format!("socks5://user:{secret}@host"))],
        vec![("HTTPS_PROXY", format!("http://user:{secret}@ho st"))],
        vec![("OPENAI_API_KEY", format!("{secret}\n{secret}"))],
        vec![("OPENAI_API_KEY", secret.to_owned()), ("OPENAI_BASE_URL", format!("htp://user:{secret}@host"))],
        exporter("webhook", "WEBHOOK_URL", secret.to_owned()),
        exporter("webhook", "WEBHOOK_SECRET", secret.to_owned()),
        exporter("elasticsearch", "ELASTICSEARCH_PASSWORD", secret.to_owned()),
        exporter("elasticsearch", "ELASTICSEARCH_URL", format!("http://elastic:{secret}@host:9200")),
        exporter("datadog", "DD_API_KEY", format!("{secret}\n{secret}")),
        exporter("newrelic", "NEW_RELIC_LICENSE_KEY", format!("{secret}\n{secret}")),
        exporter("otlp", "OTEL_EXPORTER_OTLP_HEADERS", secret.to_owned()),
        exporter("postgres", "POSTGRES_URL", format!("postgres://{secret}@")),
    ]
}

/// Looks at what is said of each; gives how many were refused.
pub(crate) fn look(canary: &mut Canary) -> usize {
    let secret = secret("providers.openai.api_key");
    let files = FILES.iter().map(|file| options(&Value::Null, &[]).config(file.replace("SECRET", &secret)));
    let entries = entries(&secret).into_iter();
    let entries = entries.map(|entry| options(&json!({ "telemetry": { "exporters": [entry] } }), &[]));
    let variables = variables(&secret).into_iter();
    let variables = variables.map(|all| {
        all.iter()
            .fold(GatewayOptions::new(BINARY), |options, (name, value)| options.env(name, value.as_str()))
    });
    let mut refused = 0;
    for (index, start) in files.chain(entries).chain(variables).enumerate() {
        let start = start.env("RUST_LOG", "trace");
        let checked = start.clone().arg("check").output();
        let shown = start.clone().arg("config").output();
        for output in [&checked, &shown] {
            canary.look(&format!("what is said of setting {index}"), stdout(output) + &stderr(output));
        }
        // What is accepted would not end.
        assert_eq!(checked.status.code(), Some(2), "{index}: {}", stdout(&checked));
        let started = start.output();
        assert_eq!(started.status.code(), Some(2), "{index}: {}", stderr(&started));
        canary.look(&format!("a start with setting {index}"), stdout(&started) + &stderr(&started));
        refused += 1;
    }
    refused
}
