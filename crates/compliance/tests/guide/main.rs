//! The three examples of the original guide and its custom metrics run, with the changes of `docs/from-the-guide.md`
//! and no other: a test per line of that page.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy sees no test here")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_compliance::{Backend, Suite, records};
use magicapi_plugin::{
    Delivery, ExportError, Host, Http, HttpError, HttpTransport, ItemOutcome, MetricRegistry,
    MetricsExporter, PointValue, RecordExporter, RequestMetrics, TelemetryConfig, TelemetryExporter,
    TelemetryPlugin, async_trait, plugins,
};
use magicapi_testkit::elasticsearch::Elasticsearch;
use serde_json::{Value, json};

use self::datadog::DatadogPlugin;
use self::elasticsearch::{ElasticsearchExporter, ElasticsearchPlugin};
use self::metrics::GatewayMetrics;
use self::postgres::PostgresPlugin;

/// What a guide shows is written for its reader; a lint of this workspace is no reason to change it.
#[allow(clippy::pedantic, unreachable_pub, missing_docs, reason = "shown as it is")]
#[rustfmt::skip]
mod datadog;
#[allow(clippy::pedantic, unreachable_pub, missing_docs, reason = "shown as it is")]
#[rustfmt::skip]
mod elasticsearch;
#[allow(clippy::pedantic, unreachable_pub, missing_docs, reason = "shown as it is")]
#[rustfmt::skip]
mod metrics;
#[allow(clippy::pedantic, unreachable_pub, missing_docs, reason = "shown as it is")]
#[rustfmt::skip]
mod postgres;

const KEY: &str = "0123456789abcdef0123456789abcdef";

type Documents = Arc<Mutex<BTreeMap<String, Value>>>;

/// A cluster that knows `_bulk` with `create` and its health, and nothing of types.
fn cluster(documents: &Documents) -> impl Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static {
    let documents = documents.clone();
    move |request| {
        let said = |status: u16, body: Value| {
            Response::builder().status(status).body(body.to_string().into()).expect("an answer")
        };
        match request.uri().path() {
            "/_cluster/health" => said(200, json!({"status": "green"})),
            path if path.ends_with("/_bulk") => {
                let text = std::str::from_utf8(request.body()).expect("text");
                let lines: Vec<Value> =
                    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
                let mut documents = documents.lock().expect("documents");
                let items = lines.chunks(2).map(|pair| {
                    let id = pair[0]["create"]["_id"].as_str().expect("an id").to_owned();
                    let known = documents.insert(id, pair[1].clone()).is_some();
                    json!({"create": {"status": if known { 409 } else { 201 }}})
                });
                said(200, json!({"items": items.collect::<Vec<_>>()}))
            }
            _ => said(400, json!({"error": "no handler found for uri"})),
        }
    }
}

fn made(plugin: &dyn TelemetryPlugin, settings: Value, host: Host) -> Box<dyn TelemetryExporter> {
    plugin.create_exporter(settings.into(), host).expect("settings")
}

fn delivered(count: usize) -> Delivery {
    Delivery::Items(vec![ItemOutcome::Delivered; count])
}

#[tokio::test]
async fn the_elasticsearch_example_sends_bulk_with_create() {
    let documents = Documents::default();
    let backend = Backend::answering(cluster(&documents));
    let exporter = made(&ElasticsearchPlugin, json!({}), backend.host());
    let config = TelemetryConfig::default();
    exporter.init(&config).await.expect("init");
    let batch = records::batch(3);
    for _ in 0..2 {
        assert_eq!(exporter.export(&batch).await, delivered(3), "sent again it is there already");
    }
    exporter.shutdown().await.expect("shutdown");
    let requests = backend.requests();
    assert_eq!(requests[0].uri(), "http://localhost:9200/_cluster/health", "the health call at init");
    assert_eq!(requests[1].uri(), "http://localhost:9200/noveum-metrics/_bulk", "the names and defaults");
    let documents = documents.lock().expect("documents");
    let ids: Vec<String> = batch.iter().map(|record| record.id().to_string()).collect();
    assert_eq!(documents.keys().cloned().collect::<Vec<_>>(), ids);
    assert_eq!(documents[&ids[0]], batch[0].to_otel_log());
}

#[test]
fn the_elasticsearch_example_complies() {
    let documents = Documents::default();
    let suite = Suite::of(&ElasticsearchPlugin, &json!({"url": "http://{address}"}));
    suite.answering(cluster(&documents)).check();
}

/// Speaks to a real server, as its administrator: the example has no settings for a credential.
struct Administrator(Elasticsearch);

#[async_trait]
impl HttpTransport for Administrator {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (method, url) = (request.method().as_str(), request.uri().to_string());
        let basic = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            format!("elastic:{}", self.0.password),
        );
        let credential = format!("Basic {basic}");
        let mut headers = vec![("authorization", credential.as_str())];
        let given = request.headers().iter();
        headers.extend(given.map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))));
        let answer = magicapi_testkit::request(method, &url, &headers, request.body().clone()).await;
        Response::builder()
            .status(answer.status)
            .body(answer.body)
            .map_err(|error| HttpError::NoAnswer(error.to_string()))
    }
}

#[tokio::test]
async fn the_elasticsearch_example_on_a_real_server() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "guide-example";
    server.call("DELETE", &format!("/{index}"), &Value::Null).await;
    let (url, password) = (server.url.clone(), server.password.clone());
    let http = Http::new(Arc::new(Administrator(Elasticsearch { url: url.clone(), password })));
    let exporter = ElasticsearchExporter::new(http, url, index.to_owned());
    exporter.init(&TelemetryConfig::default()).await.expect("init");
    let record = records::record(1);
    for _ in 0..2 {
        RecordExporter::export(&exporter, &record).await.expect("delivered");
    }
    let found = server.done("GET", &format!("/{index}/_doc/{}", record.id()), &Value::Null).await;
    assert_eq!(found["_source"]["name"], "ai_gateway_request_log");
    server.done("DELETE", &format!("/{index}"), &Value::Null).await;
}

#[tokio::test]
async fn the_datadog_example_posts_logs_with_the_key() {
    let backend =
        Backend::answering(|_| Response::builder().status(202).body(Bytes::new()).expect("an answer"));
    let exporter = made(&DatadogPlugin, json!({"api_key": KEY}), backend.host());
    assert_eq!(exporter.export(&records::batch(1)).await, delivered(1));
    let [request] = backend.requests().try_into().expect("one request");
    assert_eq!(request.uri(), "https://http-intake.logs.datadoghq.com/api/v2/logs");
    assert_eq!(request.headers()["dd-api-key"], KEY);
    let logs: Value = serde_json::from_slice(request.body()).expect("an array");
    assert_eq!(logs[0]["resource"]["service.name"], "noveum_ai_gateway");
}

#[test]
fn the_datadog_example_complies() {
    magicapi_compliance::check(&DatadogPlugin, json!({"api_key": KEY}));
}

#[test]
fn a_missing_variable_is_a_configuration_error() {
    let backend = Backend::answering(|_| Response::new(Bytes::new()));
    let made = DatadogPlugin.create_exporter(json!({}).into(), backend.host());
    assert_eq!(made.err().expect("an error").to_string(), "api_key: DD_API_KEY must be set");
}

#[test]
fn registration_is_a_constant() {
    let names: Vec<&str> = plugins().iter().map(|plugin| plugin.name()).collect();
    assert_eq!(names, ["datadog", "elasticsearch", "postgres"]);
}

#[test]
fn variables_and_defaults_are_the_guides() {
    let of = |plugin: &dyn TelemetryPlugin| -> Vec<(String, Option<Value>)> {
        let spec = plugin.settings();
        let keys = spec.keys().iter();
        keys.map(|key| (key.env.clone().expect("a variable"), key.default.clone())).collect()
    };
    // Defaults of structs that cannot be written out are applied when settings are read.
    let names = |plugin| of(plugin).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&ElasticsearchPlugin), ["ELASTICSEARCH_URL", "ELASTICSEARCH_INDEX"]);
    assert_eq!(of(&ElasticsearchPlugin)[1].1, Some(json!("noveum-metrics")));
    assert_eq!(names(&DatadogPlugin), ["DD_API_KEY", "DD_SITE"]);
    assert_eq!(names(&PostgresPlugin), ["POSTGRES_URL", "POSTGRES_TABLE"]);
    assert_eq!(TelemetryConfig::default().service_name, "noveum_ai_gateway");
}

#[test]
fn export_error_takes_what_trace_error_took() {
    assert_eq!(ExportError::from("away".to_string()).to_string(), "away");
    assert_eq!(ExportError::from("away").to_string(), "away");
}

/// `MetricsExporter` is another name of the same trait, which takes the record by reference.
#[tokio::test]
async fn metrics_exporter_is_record_exporter() {
    struct Counting(Mutex<u32>);
    #[async_trait]
    impl MetricsExporter for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }
        async fn export(&self, _: &RequestMetrics) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            *self.0.lock().expect("a number") += 1;
            Ok(())
        }
    }
    let counting = Counting(Mutex::new(0));
    RecordExporter::export(&counting, &records::record(1)).await.expect("counted");
    assert_eq!(*counting.0.lock().expect("a number"), 1);
}

#[test]
fn custom_metrics_stand_in_the_snapshot() {
    let registry = Arc::new(MetricRegistry::default());
    let metrics = GatewayMetrics::new(&registry.meter("mine"));
    metrics.custom_metric.add(3, &[("provider", "groq"), ("not_declared", "x")]);
    metrics.custom_histogram.record(0.2, &[]);
    let snapshot = registry.snapshot();
    let [histogram, counter] = snapshot.metrics.as_slice() else { panic!("two metrics: {snapshot:?}") };
    assert_eq!((counter.name.as_str(), counter.unit.as_str()), ("mine_custom_metric", "units"));
    assert_eq!(counter.points[0].labels, [("provider", "groq".to_owned())], "labels are the declared ones");
    assert_eq!(counter.points[0].value, PointValue::Number(3.0));
    assert_eq!(histogram.description, "Description of custom histogram");
    assert!(
        matches!(&histogram.points[0].value, PointValue::Histogram(value) if value.counts.iter().sum::<u64>() == 1)
    );
}

/// Where no answer began there was no first byte: `ttfb` is null.
#[test]
fn ttfb_is_null_where_there_was_none() {
    let bare =
        records::odd().into_iter().find(|(what, _)| *what == "with nothing known of it").expect("it").1;
    assert_eq!(bare.to_otel_log()["attributes"]["metadata"]["ttfb"], Value::Null);
}

#[test]
fn experiment_id_is_written_when_it_was_sent() {
    let plain = records::record(1).to_otel_log();
    assert!(plain["attributes"].get("experiment_id").is_none());
    let named = records::odd().into_iter().find(|(what, _)| *what == "with names that nobody expects");
    let sent = named.expect("it").1.to_otel_log();
    assert!(sent["attributes"]["experiment_id"].is_string());
}

#[test]
fn the_document_is_the_same_in_both_forms() {
    let record = records::record(1);
    let encoded: Value = serde_json::from_slice(&record.otel_log_json()).expect("JSON");
    assert_eq!(encoded, record.to_otel_log());
    assert!(!record.otel_log_json().contains(&b'\n'), "one line");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "which server to test with is no setting of the product")]
async fn the_postgres_example_fills_the_guides_table() {
    let Ok(url) = std::env::var("MAGICAPI_TEST_POSTGRES") else {
        println!(
            "skipped: no server; MAGICAPI_TEST_POSTGRES names one, as postgres://user:password@host:port/database"
        );
        return;
    };
    let table = format!("guide_example_{}", std::process::id());
    let backend = Backend::answering(|_| Response::new(Bytes::new()));
    let exporter = made(&PostgresPlugin, json!({"url": url, "table": table}), backend.host());
    exporter.init(&TelemetryConfig::default()).await.expect("init");
    let bare =
        records::odd().into_iter().find(|(what, _)| *what == "with nothing known of it").expect("it").1;
    assert_eq!(exporter.export(&[records::record(1), bare]).await, delivered(2));
    let pool = sqlx::PgPool::connect(&url).await.expect("the server");
    let rows: Vec<(i32, Option<i32>, i32, String)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT id, ttfb, latency, log_data->>'name' FROM {table} ORDER BY id"
    )))
    .fetch_all(&pool)
    .await
    .expect("rows");
    let name = || "ai_gateway_request_log".to_owned();
    assert_eq!(rows, [(1, Some(120), 6250, name()), (2, None, 0, name())]);
    let drop = sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE {table}"))).execute(&pool);
    drop.await.expect("dropped");
}

/// Without a server: settings, purity, a server that is away. Its errors hold no password.
#[test]
fn the_postgres_example_complies() {
    magicapi_compliance::check(
        &PostgresPlugin,
        json!({"url": "postgres://user:canary-password@{address}/logs"}),
    );
}

/// A reader copies both: a crate that the shown code names stands in the shown manifest.
#[test]
fn the_manifest_that_is_shown_has_what_the_shown_code_names() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/telemetry-plugins.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let shown = |file: &str| {
        let (_, block) = page.split_once(&format!("<!-- examples/custom-exporter/{file} -->")).expect(file);
        block.split("```").nth(1).expect("a block").to_owned()
    };
    let manifest = shown("Cargo.toml");
    let code = ["src/lib.rs", "src/main.rs", "tests/compliance.rs"].map(shown).concat();
    let crates = [
        "http",
        "magicapi-ai-gateway",
        "magicapi-compliance",
        "magicapi-plugin",
        "serde",
        "serde_json",
        "tokio",
    ];
    for name in crates {
        assert!(code.contains(&format!("{}::", name.replace('-', "_"))), "the code names {name}");
        assert!(manifest.contains(&format!("\n{name} = ")), "{name} is missing:\n{manifest}");
    }
}
