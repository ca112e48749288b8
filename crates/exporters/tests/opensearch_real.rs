//! The exporter `elasticsearch` against a real OpenSearch, without security.
//!
//! Start one with `eval "$(tests/servers/opensearch/start.sh)"`; without it these tests say that they are skipped.

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

async fn exporter_to(server: &Elasticsearch, index: &str, settings: Value) -> Box<dyn TelemetryExporter> {
    let mut all = json!({ "url": server.url, "index": index });
    all.as_object_mut().expect("settings").extend(settings.as_object().expect("settings").clone());
    let exporter = ElasticsearchPlugin.create_exporter(Settings::from(all), host()).expect("settings");
    exporter.init(&TelemetryConfig::default()).await.expect("init");
    exporter
}

/// Of a gateway with these names.
async fn named(server: &Elasticsearch, index: &str, names: &TelemetryConfig) -> Box<dyn TelemetryExporter> {
    let settings = json!({ "url": server.url, "index": index });
    let exporter = ElasticsearchPlugin.create_exporter(Settings::from(settings), host()).expect("settings");
    exporter.init(names).await.expect("init");
    exporter
}

/// A record with one resource attribute more.
fn record_of(name: &str) -> Arc<RequestMetrics> {
    let one = record("{}", "{}", None);
    let mut names = one.resource().clone();
    names.resource_attributes.insert(name.into(), "canary".into());
    Arc::new(RequestMetrics::seal(one.facts().clone(), Arc::new(names), None, None, None))
}

fn all() -> Value {
    json!({ "match_all": {} })
}

#[tokio::test]
async fn an_index_has_its_template_and_each_record_once() {
    let Some(server) = Elasticsearch::open_search() else { return };
    let index = "open-index";
    server.clean(index).await;
    let exporter = exporter_to(&server, index, json!({})).await;
    let records = batch(3);
    for _ in 0..2 {
        assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    }
    assert_eq!(exporter.health().await, Health::Ok);
    assert_eq!(server.count(index, &all()).await, 3);
    let said = json!({ "term": { "attributes.id": records[0].id().to_string() } });
    assert_eq!(server.count(index, &said).await, 1);
    let then = json!({ "range": { "@timestamp": { "gte": "2025-03-05", "lt": "2025-03-06" } } });
    assert_eq!(server.count(index, &then).await, 3);
}

#[tokio::test]
async fn json_that_it_cannot_read_is_rejected_alone() {
    let Some(server) = Elasticsearch::open_search() else { return };
    let index = "open-poison";
    server.clean(index).await;
    let exporter = exporter_to(&server, index, json!({})).await;
    let mut records = batch(2);
    records.insert(1, record(r#"{"a":1,"a":2}"#, "{}", None));
    let Delivery::Items(outcomes) = exporter.export(&records).await else { panic!("items") };
    assert!(matches!(&outcomes[1], ItemOutcome::Rejected { .. }), "{outcomes:?}");
    assert_eq!((&outcomes[0], &outcomes[2]), (&ItemOutcome::Delivered, &ItemOutcome::Delivered));
    assert_eq!(server.count(index, &all()).await, 2);
}

/// `service=x` wants a text where `service.name` wants an object, and the other way round.
#[tokio::test]
async fn a_resource_attribute_that_does_not_fit_costs_no_record() {
    let Some(server) = Elasticsearch::open_search() else { return };
    let index = "open-names";
    server.clean(index).await;
    let exporter = exporter_to(&server, index, json!({})).await;
    let refusal = async |name: &str| {
        let record = record_of(name);
        match named(&server, index, record.resource()).await.export(&[record]).await {
            Delivery::Refused { reason } => reason,
            other => panic!("{name}: {other:?}"),
        }
    };
    for (first, second) in [("squad.name", "squad"), ("crew", "crew.name")] {
        assert_eq!(exporter.export(&[record_of(first)]).await, Delivery::Delivered);
        let said = refusal(second).await;
        assert!(said.contains("OTEL_RESOURCE_ATTRIBUTES") && !said.contains("canary"), "{said}");
    }
    refusal("service").await;
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
}

/// How long it is kept, a policy of the cluster says: the template of Elasticsearch's kind is not taken, which is said.
#[tokio::test]
async fn a_data_stream_has_each_record_once() {
    let Some(server) = Elasticsearch::open_search() else { return };
    let stream = "open-stream";
    server.call("DELETE", &format!("/_data_stream/{stream}"), &Value::Null).await;
    server.clean(stream).await;
    let exporter = exporter_to(&server, stream, json!({ "data_stream": true })).await;
    let records = batch(3);
    for _ in 0..2 {
        assert_eq!(exporter.export(&records).await, Delivery::Delivered);
    }
    assert_eq!(exporter.health().await, Health::Ok);
    assert_eq!(server.count(stream, &all()).await, 3);
    let there = server.done("GET", &format!("/_data_stream/{stream}"), &Value::Null).await;
    assert_eq!(there["data_streams"][0]["indices"].as_array().map(Vec::len), Some(1));

    let exporter = exporter_to(&server, stream, json!({ "data_stream": true, "retention": "30d" })).await;
    let Health::Degraded(why) = exporter.health().await else { panic!("it takes no retention") };
    assert!(why.contains("HTTP 400"), "{why}");
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
}
