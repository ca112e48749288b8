//! The exporter `elasticsearch` against a real server with security on.
//!
//! Start one with `eval "$(tests/servers/elasticsearch/start.sh)"`; without it these tests say that they are skipped.

// clippy's leave for tests does not reach what tests call.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use magicapi_exporters::elasticsearch::ElasticsearchPlugin;
use magicapi_plugin::{
    Delivery, Health, ItemOutcome, RequestMetrics, Settings, TelemetryConfig, TelemetryExporter,
    TelemetryPlugin,
};
use magicapi_testkit::elasticsearch::Elasticsearch;
use serde_json::{Value, json};

use self::support::{batch, host, record};

mod support;

/// An exporter to that index, as the administrator unless the settings say otherwise.
fn exporter_to(server: &Elasticsearch, index: &str, settings: &Value) -> Box<dyn TelemetryExporter> {
    let mut all =
        json!({"url": server.url, "index": index, "username": "elastic", "password": server.password});
    for (key, value) in settings.as_object().expect("settings") {
        all[key] = value.clone();
    }
    ElasticsearchPlugin.create_exporter(Settings::from(all), host()).expect("settings")
}

async fn stored(server: &Elasticsearch, index: &str, record: &RequestMetrics) -> Value {
    let path = format!("/{index}/_doc/{}", record.id());
    server.done("GET", &path, &Value::Null).await["_source"].take()
}

async fn init(exporter: &dyn TelemetryExporter) -> Result<(), String> {
    exporter.init(&TelemetryConfig::default()).await.map_err(|e| e.to_string())
}

/// A record with one resource attribute more.
fn record_of(name: &str) -> Arc<RequestMetrics> {
    let one = record("{}", "{}", None);
    let mut names = one.resource().clone();
    names.resource_attributes.insert(name.into(), "canary".into());
    Arc::new(RequestMetrics::seal(one.facts().clone(), Arc::new(names), None, None, None))
}

fn all() -> Value {
    json!({"match_all": {}})
}

#[tokio::test]
async fn basic_auth_gzip_template_and_bodies() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "real-basic";
    server.clean(index).await;
    let exporter = exporter_to(&server, index, &json!({}));
    init(&*exporter).await.expect("init");
    init(&*exporter).await.expect("init once more");
    let record = record(
        r#"{"messages":[{"role":"user","content":"xylophone"}],"max_tokens":500}"#,
        r#"{"id":"r","choices":[{"delta":{"content":"zeppelin"}}]}"#,
        Some(r#"[{"nonce":"0955","choices":[]}]"#),
    );
    assert_eq!(exporter.export(std::slice::from_ref(&record)).await, Delivery::Delivered);
    assert_eq!(exporter.health().await, Health::Ok);

    let stored = stored(&server, index, &record).await;
    assert_eq!(stored["attributes"]["request"]["messages"][0]["content"], "xylophone");
    assert_eq!(stored["attributes"]["response"]["streamed_data"][0]["nonce"], "0955");
    for word in ["xylophone", "zeppelin", "0955"] {
        assert_eq!(server.count(index, &json!({"query_string": {"query": word}})).await, 0, "{word}");
        assert_eq!(server.count(index, &json!({"multi_match": {"query": word, "fields": ["*"]}})).await, 0);
    }
    for query in [
        json!({"term": {"attributes.id": record.id().to_string()}}),
        json!({"term": {"attributes.model": "gpt-test"}}),
        json!({"term": {"attributes.metadata.status": "success"}}),
        json!({"term": {"resource.deployment.environment": "test"}}),
        json!({"term": {"resource.k8s.pod.name": "pod-1"}}),
        json!({"range": {"attributes.metadata.latency": {"gte": 6000}}}),
        json!({"range": {"attributes.metadata.cost": {"gt": 0.04, "lt": 0.05}}}),
        json!({"range": {"timestamp": {"gte": "2025-03-05", "lt": "2025-03-06"}}}),
        json!({"range": {"@timestamp": {"gte": "2025-03-05", "lt": "2025-03-06"}}}),
    ] {
        assert_eq!(server.count(index, &query.clone()).await, 1, "{query}");
    }
    let mapping = server.done("GET", &format!("/{index}/_mapping"), &Value::Null).await;
    let attributes = &mapping[index]["mappings"]["properties"]["attributes"]["properties"];
    assert_eq!(attributes["request"], json!({"type": "object", "enabled": false}), "nothing was added below");
    assert_eq!(attributes["metadata"]["properties"]["cost"]["type"], "double");
}

#[tokio::test]
async fn a_second_delivery_makes_no_second_document() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "real-twice";
    server.clean(index).await;
    let exporter = exporter_to(&server, index, &json!({"compression": "none"}));
    init(&*exporter).await.expect("init");
    let records = batch(50);
    for _ in 0..3 {
        assert_eq!(exporter.export(&records).await, Delivery::Delivered);
        assert_eq!(server.count(index, &all()).await, 50);
    }
    let more: Vec<_> = records.iter().cloned().chain(batch(1)).collect();
    assert_eq!(exporter.export(&more).await, Delivery::Delivered);
    assert_eq!(server.count(index, &all()).await, 51);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_costs_nothing() {
    let Some(server) = Elasticsearch::named() else { return };
    for settings in [
        json!({"password": "canary"}),
        json!({"username": "", "password": "", "api_key": "canary-id:canary-key"}),
        json!({"username": "", "password": ""}),
    ] {
        let exporter = exporter_to(&server, "real-wrong", &settings);
        let error = init(&*exporter).await.expect_err("401");
        assert!(error.contains("401") && error.contains("ELASTICSEARCH_PASSWORD"), "{error}");
        let Delivery::Refused { reason } = exporter.export(&batch(2)).await else { panic!("refused") };
        assert!(reason.contains("401") && reason.contains("ELASTICSEARCH_API_KEY"), "{reason}");
        assert!(!error.contains("canary") && !reason.contains("canary"), "{error} {reason}");
        assert_eq!(exporter.health().await, Health::Down(reason));
    }
}

/// An API key that may write to indices of this name and nothing else: `id:key` and the encoded form.
async fn api_key(server: &Elasticsearch, index: &str) -> (String, String) {
    let privileges = json!([{"names": [index], "privileges": ["create_doc", "auto_configure"]}]);
    let key = json!({"name": "gateway", "role_descriptors": {"writer": {"indices": privileges}}});
    let answer = server.done("POST", "/_security/api_key", &key).await;
    let text = |key: &str| answer[key].as_str().expect("a text").to_owned();
    (format!("{}:{}", text("id"), text("api_key")), text("encoded"))
}

#[tokio::test]
async fn an_api_key_that_may_only_write() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "real-key";
    server.clean(index).await;
    let (plain, encoded) = api_key(&server, index).await;
    for (n, key) in [plain.clone(), encoded].into_iter().enumerate() {
        let settings = json!({"username": "", "password": "", "api_key": key});
        let exporter = exporter_to(&server, index, &settings);
        init(&*exporter).await.expect("init goes on without the privileges to look");
        assert!(matches!(exporter.health().await, Health::Degraded(_)));
        assert_eq!(exporter.export(&batch(3)).await, Delivery::Delivered);
        assert_eq!(server.count(index, &all()).await, 3 * (n as u64 + 1));
    }
    let settings = json!({"username": "", "password": "", "api_key": plain, "template": false});
    let exporter = exporter_to(&server, index, &settings);
    init(&*exporter).await.expect("init");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    assert_eq!(exporter.health().await, Health::Ok);

    let elsewhere = exporter_to(&server, "real-key-elsewhere", &settings);
    let Delivery::Refused { reason } = elsewhere.export(&batch(2)).await else { panic!("refused") };
    assert!(reason.contains("create_doc"), "{reason}");
}

/// An index that was there before, with a mapping that one record does not fit.
#[tokio::test]
async fn a_record_that_does_not_fit_is_rejected_alone() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "real-conflict";
    server.clean(index).await;
    let latency = json!({"properties": {"n": {"type": "long"}}});
    let attributes = json!({"properties": {"request": latency}});
    let mapping = json!({"mappings": {"properties": {"attributes": attributes}}});
    server.done("PUT", &format!("/{index}"), &mapping).await;
    let exporter = exporter_to(&server, index, &json!({}));
    init(&*exporter).await.expect("init");
    let records = [
        record("{\"n\":1}", "{}", None),
        record("{\"n\":\"canary\"}", "{}", None),
        record("{\"n\":3}", "{}", None),
    ];
    let Delivery::Items(outcomes) = exporter.export(&records).await else { panic!("items") };
    let reason = "HTTP 400 document_parsing_exception in attributes.request".to_owned();
    let rejected = ItemOutcome::Rejected { reason };
    assert_eq!(outcomes, [ItemOutcome::Delivered, rejected, ItemOutcome::Delivered]);
    assert_eq!(server.count(index, &all()).await, 2);
}

/// What the server's JSON reader refuses even where nothing is indexed. The record is rejected, its text not quoted.
#[tokio::test]
async fn json_that_the_server_cannot_read_is_rejected_alone() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "real-json";
    server.clean(index).await;
    let exporter = exporter_to(&server, index, &json!({}));
    init(&*exporter).await.expect("init");
    let deep = format!("{}{}", "[".repeat(1100), "]".repeat(1100));
    let records = [
        record("{\"canary\":1,\"canary\":2}", "{}", None),
        record(&deep, "{}", None),
        record("\"text\"", "null", None),
        record("{\"\":1,\"a.b\":{},\"a\":{\"b\":1},\"s\":\"\\ud800\",\"n\":1e400}", "[1,\"2\",{}]", None),
    ];
    let Delivery::Items(outcomes) = exporter.export(&records).await else { panic!("items") };
    let rejected = ItemOutcome::Rejected { reason: "HTTP 400 document_parsing_exception".into() };
    assert_eq!(outcomes, [rejected.clone(), rejected, ItemOutcome::Delivered, ItemOutcome::Delivered]);
    assert_eq!(server.count(index, &all()).await, 2);
}

/// The block that a cluster sets by itself when its disks fill up.
#[tokio::test]
async fn a_full_cluster_is_waited_for() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "real-full";
    server.clean(index).await;
    let exporter = exporter_to(&server, index, &json!({}));
    init(&*exporter).await.expect("init");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    let block = |on: Value| json!({"index.blocks.read_only_allow_delete": on});
    let settings = format!("/{index}/_settings");
    server.done("PUT", &settings, &block(json!(true))).await;
    let records = batch(3);
    assert_eq!(exporter.export(&records).await, Delivery::Retry { after: None });
    assert!(matches!(exporter.health().await, Health::Degraded(_)));
    server.done("PUT", &settings, &block(Value::Null)).await;
    assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    assert_eq!(exporter.health().await, Health::Ok);
    assert_eq!(server.count(index, &all()).await, 4);
}

#[tokio::test]
async fn faults_of_the_set_up_are_refused_with_a_remedy() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "real-setup";
    server.clean(index).await;
    let exporter = exporter_to(&server, index, &json!({"template": false}));
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    let refusal = async |exporter: &dyn TelemetryExporter| match exporter.export(&batch(2)).await {
        Delivery::Refused { reason } => reason,
        other => panic!("{other:?}"),
    };
    server.done("PUT", &format!("/{index}/_settings"), &json!({"index.blocks.write": true})).await;
    assert!(refusal(&*exporter).await.contains("lift its block"));
    server.done("PUT", &format!("/{index}/_settings"), &json!({"index.blocks.write": false})).await;
    server.done("POST", &format!("/{index}/_close"), &Value::Null).await;
    assert!(refusal(&*exporter).await.contains("open it"));
    server.done("POST", &format!("/{index}/_open"), &Value::Null).await;
    assert_eq!(exporter.export(&batch(2)).await, Delivery::Delivered);

    let stream = "real-stream";
    let template = json!({"index_patterns": [stream], "data_stream": {}, "priority": 300});
    server.done("PUT", "/_index_template/real-somebodys", &template).await;
    let exporter = exporter_to(&server, stream, &json!({"template": false}));
    assert!(refusal(&*exporter).await.contains("data stream"));
}

/// `service=x` wants a text where `service.name` wants an object: every record would be rejected for it.
#[tokio::test]
async fn a_resource_attribute_that_does_not_fit_costs_no_record() {
    let Some(server) = Elasticsearch::named() else { return };
    for (index, first) in [("real-names-new", None), ("real-names-old", Some("team"))] {
        server.clean(index).await;
        let exporter = exporter_to(&server, index, &json!({}));
        init(&*exporter).await.expect("init");
        if let Some(first) = first {
            assert_eq!(exporter.export(&[record_of(first)]).await, Delivery::Delivered);
        }
        let records = [record_of("service"), record_of("service")];
        let named = exporter_to(&server, index, &json!({}));
        named.init(records[0].resource()).await.expect("init");
        let Delivery::Refused { reason } = named.export(&records).await else { panic!("refused") };
        assert!(reason.contains("OTEL_RESOURCE_ATTRIBUTES") && !reason.contains("canary"), "{reason}");
        // Once the operator has renamed it, what waits is not refused for ever.
        let Delivery::Items(outcomes) = exporter.export(&records).await else { panic!("items") };
        assert!(outcomes.iter().all(|one| matches!(one, ItemOutcome::Rejected { .. })), "{outcomes:?}");
        assert_eq!(
            exporter.export(&[record_of("team")]).await,
            Delivery::Delivered,
            "without it all is well"
        );
    }
}

#[tokio::test]
async fn somebody_elses_template_is_left_alone() {
    let Some(server) = Elasticsearch::named() else { return };
    let index = "real-theirs";
    server.clean(index).await;
    let path = format!("/_index_template/{index}");
    let theirs = json!({"index_patterns": [index], "priority": 7});
    server.done("PUT", &path, &theirs).await;
    let exporter = exporter_to(&server, index, &json!({}));
    init(&*exporter).await.expect("init");
    assert!(matches!(exporter.health().await, Health::Degraded(_)));
    let there = server.done("GET", &path, &Value::Null).await;
    assert_eq!(there["index_templates"][0]["index_template"]["priority"], 7);
    assert_eq!(exporter.export(&batch(2)).await, Delivery::Delivered);
    assert_eq!(server.count(index, &all()).await, 2);
}

#[tokio::test]
async fn our_older_template_is_replaced_and_names_are_escaped() {
    let Some(server) = Elasticsearch::named() else { return };
    let (index, escaped) = ("größe%+1", "gr%C3%B6%C3%9Fe%25%2B1");
    server.clean(escaped).await;
    let path = format!("/_index_template/{escaped}");
    let meta = json!({"managed_by": "magicapi-ai-gateway"});
    let old = json!({"index_patterns": [index], "priority": 7, "version": 0, "_meta": meta});
    server.done("PUT", &path, &old).await;
    let exporter = exporter_to(&server, index, &json!({}));
    init(&*exporter).await.expect("init");
    assert_eq!(exporter.health().await, Health::Ok);
    let there = server.done("GET", &path, &Value::Null).await;
    assert_eq!(there["index_templates"][0]["index_template"]["version"], 1);
    assert_eq!(exporter.export(&batch(2)).await, Delivery::Delivered);
    assert_eq!(server.count(escaped, &all()).await, 2);
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let Some(server) = Elasticsearch::named() else { return };
    let exporter = exporter_to(&server, "real-absent", &json!({"url": "http://127.0.0.1:9"}));
    assert!(init(&*exporter).await.expect_err("nobody").contains("could not connect"));
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Retry { after: None });
    assert!(matches!(exporter.health().await, Health::Down(_)));
}

/// The server that runs here lacks the module that lists and rules streams; the template takes their life all the same.
#[tokio::test]
async fn a_data_stream_has_each_record_once_and_its_template_its_life() {
    let Some(server) = Elasticsearch::named() else { return };
    // A stream cannot be removed here, so each run has its own.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let stream = &format!("real-stream-{}", now.as_millis());
    let records = batch(3);
    let exporter = exporter_to(&server, stream, &json!({"data_stream": true}));
    init(&*exporter).await.expect("init");
    for _ in 0..2 {
        assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    }
    assert_eq!(exporter.health().await, Health::Ok);
    assert_eq!(server.count(stream, &all()).await, 3);
    for time in ["timestamp", "@timestamp"] {
        let then = json!({"range": {time: {"gte": "2025-03-05", "lt": "2025-03-06"}}});
        assert_eq!(server.count(stream, &then).await, 3, "{time}");
    }
    let there = server.done("GET", &format!("/_index_template/{stream}"), &Value::Null).await;
    let life = &there["index_templates"][0]["index_template"]["template"]["lifecycle"];
    assert_eq!(life, &json!({"enabled": true}), "it is divided without a retention too");
    let indices = server.done("GET", &format!("/{stream}/_mapping"), &Value::Null).await;
    let names: Vec<_> = indices.as_object().expect("indices").keys().collect();
    assert!(names.len() == 1 && names[0].starts_with(&format!(".ds-{stream}-")), "{names:?}");

    let exporter = exporter_to(&server, stream, &json!({"data_stream": true, "retention": "30d"}));
    init(&*exporter).await.expect("init");
    let there = server.done("GET", &format!("/_index_template/{stream}"), &Value::Null).await;
    let life = &there["index_templates"][0]["index_template"]["template"]["lifecycle"];
    assert_eq!(life["data_retention"], "30d", "{there}");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
}
