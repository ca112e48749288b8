//! What the two gateways are set up with: a secret in every setting that takes one, and a back end behind each.

use magicapi_testkit::configuration::{configuration, lay_over, records_file};
use serde_json::{Value, json};

use crate::back_ends::BackEnds;
use crate::places::{encoded, secret};
use crate::scene::hash_of;

/// For the file, where `${` begins the name of a variable.
fn child() -> String {
    CHILD.replace("${", "$${")
}

/// Puts its one secret wherever a child can: among its answers, in its reasons, on standard error.
const CHILD: &str = r#"
echo '{"ready": true}'
echo "given $TOKEN" >&2
while read -r line; do
    [ -n "$line" ] || continue
    rest="${line#*\"id\":\"msg_}"
    echo "no answer is $TOKEN"
    case "$0" in
        rejects) echo "{\"id\": \"msg_${rest%%\"*}\", \"reject\": \"cannot use $TOKEN\"}" ;;
        refuses) echo "{\"refuse\": \"cannot use $TOKEN\"}" ;;
    esac
done
"#;

/// Exporters whose back ends repeat what they were sent.
pub(crate) const REPEATING: [&str; 16] = [
    "refusing",
    "datadog",
    "newrelic",
    "otlp",
    "grpc",
    "preset",
    "rejects",
    "refuses",
    "webhook",
    "basic",
    "header",
    "proxied",
    "tunnelled",
    "locked",
    "bearer",
    "es-key",
];
/// Those that nobody answers.
pub(crate) const AWAY: [&str; 1] = ["dead"];

/// Exporters with credentials of their own, one in each, but for what can be said of it in a word.
fn with_credentials(to: &BackEnds) -> Value {
    let url = |address| format!("http://{address}");
    let (bad_request, forbidden) = (url(to.bad_request), url(to.forbidden));
    let run = |name: &str| json!(["/bin/sh", "-c", child(), name]);
    json!([
        { "type": "elasticsearch", "name": "refusing", "url": bad_request,
            "username": "elastic", "password": secret("elasticsearch, password") },
        { "type": "elasticsearch", "name": "es-key", "url": forbidden, "api_key": secret("elasticsearch, api_key") },
        { "type": "elasticsearch", "name": "dead", "url": url(to.dead), "api_key": secret("elasticsearch, api_key"),
            "buffer": { "memory": "32KiB" } },
        { "type": "datadog", "logs_url": forbidden, "api_url": forbidden, "api_key": secret("datadog, api_key") },
        { "type": "newrelic", "url": bad_request, "license_key": secret("newrelic, license_key") },
        { "type": "otlp", "endpoint": forbidden,
            "headers": format!("authorization=Bearer%20{}", secret("otlp, headers")),
            "traces_headers": format!("x-token={}", encoded("otlp, traces_headers")) },
        { "type": "otlp", "name": "grpc", "endpoint": url(to.grpc), "protocol": "grpc",
            "headers": format!("x-token={}", secret("otlp over gRPC, headers")) },
        { "type": "otlp", "name": "preset", "endpoint": bad_request, "preset": "newrelic",
            "license_key": secret("otlp, preset newrelic, license_key") },
        { "type": "postgres", "url": to.database(&secret("postgres, url")) },
        { "type": "exec", "name": "rejects", "command": run("rejects"), "env": { "TOKEN": secret("exec, env") } },
        { "type": "exec", "name": "refuses", "command": run("refuses"), "env": { "TOKEN": secret("exec, env") } },
        { "type": "webhook", "url": format!("{bad_request}/{}", secret("webhook, url")),
            "secret": secret("webhook, secret"), "headers": { "x-token": secret("webhook, headers") } },
    ])
}

/// Exporters with a secret on the way to their back ends.
fn with_ways(to: &BackEnds) -> Value {
    let auth = |place: &str| secret(&format!("an exporter's {place}"));
    let proxy = format!("http://user:{}@{}", auth("proxy"), to.proxy);
    let (url, locked) = (format!("http://{}/in", to.forbidden), to.locked.port());
    json!([
        { "name": "basic", "url": url,
            "auth": { "basic": { "username": "ada", "password": auth("auth.basic") } } },
        { "name": "bearer", "url": url, "auth": { "bearer": auth("auth.bearer") } },
        { "name": "header", "url": url,
            "auth": { "header": { "name": "x-scope", "value": auth("auth.header") } } },
        { "name": "proxied", "url": "http://hooks.example/in", "proxy": proxy },
        { "name": "tunnelled", "url": "https://hooks.example/in", "proxy": proxy },
        { "name": "locked", "url": format!("https://localhost:{locked}/in"), "tls": {
            "ca_file": to.file("cert.pem"), "cert": to.file("cert.pem"), "key": to.file("key.pem") } },
    ])
}

fn exporters(to: &BackEnds) -> Vec<Value> {
    let mut all = Vec::new();
    for entry in [with_credentials(to), with_ways(to)].iter().filter_map(Value::as_array).flatten() {
        let batch = json!({ "records": 5, "bytes": "16KiB", "age": "20ms" });
        let mut whole = json!({ "type": "webhook", "batch": batch });
        lay_over(&mut whole, entry.clone());
        all.push(whole);
    }
    all
}

/// The first gateway: all in its file. Callers bring keys of their own.
pub(crate) fn by_file(provider: &str, to: &BackEnds) -> Value {
    let mut all =
        vec![records_file(&json!({})), json!({ "type": "console" }), json!({ "type": "prometheus" })];
    all.extend(exporters(to));
    let changes = json!({
        "admin": { "token": secret("admin.token") },
        "providers": {
            "openai": { "api_key": secret("providers.openai.api_key") },
            "groq": { "api_key": "gsk-of-no-use", "base_url": "https://provider.example/v1" },
        },
        "upstream": { "proxy": format!("http://user:{}@{}", secret("upstream.proxy"), to.proxy) },
        "telemetry": { "exporters": all, "durable": true,
            "redact": { "replace": "hash", "hash_key": secret("telemetry.redact.hash_key") } },
    });
    configuration(provider, changes)
}

/// The file of the second gateway: what no variable says.
pub(crate) fn with_keys() -> Value {
    json!({
        "server": { "drain": { "delay": "0s" } },
        "auth": { "keys": [{ "name": "of-the-file", "hash": hash_of(&secret("auth.keys")) }] },
    })
}

/// The variables of the second gateway, which demands virtual keys.
pub(crate) fn by_variables(provider: &str, to: &BackEnds) -> Vec<(&'static str, String)> {
    let proxy = |variable: &str| format!("http://user:{}@{}", secret(variable), to.proxy);
    let key = |variable: &'static str| (variable, secret(variable));
    vec![
        ("OPENAI_BASE_URL", provider.to_owned()),
        ("GATEWAY_API_KEYS", format!("of-a-variable:{}", secret("GATEWAY_API_KEYS"))),
        (
            "ENABLED_EXPORTERS",
            "console,prometheus,elasticsearch,datadog,newrelic,otlp,postgres,webhook".to_owned(),
        ),
        ("ELASTICSEARCH_URL", format!("http://{}", to.bad_request)),
        ("ELASTICSEARCH_USERNAME", "ada".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", to.forbidden)),
        ("OTEL_EXPORTER_OTLP_HEADERS", format!("api-key={}", secret("OTEL_EXPORTER_OTLP_HEADERS"))),
        // The user is there, where there is a server; the password is not this one.
        ("POSTGRES_URL", to.database(&secret("POSTGRES_URL"))),
        ("WEBHOOK_URL", format!("http://hooks.example/{}", secret("WEBHOOK_URL"))),
        ("HTTP_PROXY", proxy("HTTP_PROXY")),
        ("HTTPS_PROXY", proxy("HTTPS_PROXY")),
        key("ADMIN_TOKEN"),
        key("OPENAI_API_KEY"),
        key("ELASTICSEARCH_PASSWORD"),
        key("DD_API_KEY"),
        key("NEW_RELIC_LICENSE_KEY"),
        key("WEBHOOK_SECRET"),
    ]
}
