//! The suite, and what Loki gets: the push API's schema, one stream per record, and nothing twice.

use std::sync::Arc;

use http::Response;
use loki_exporter::LokiPlugin;
use magicapi_compliance::{Backend, records};
use magicapi_plugin::{ContentDropped, Delivery, ItemOutcome, RequestMetrics, TelemetryPlugin};
use serde_json::{Value, json};

#[test]
fn loki_complies() {
    magicapi_compliance::check(&LokiPlugin, json!({"url": "http://{address}/loki/api/v1/push"}));
}

#[test]
fn the_gateway_takes_its_file() {
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_loki-gateway"))
        .args(["check", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.yaml")])
        .envs([("OPENAI_API_KEY", "sk-ours"), ("LOKI_URL", "http://loki.example/loki/api/v1/push")])
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

/// What a push holds, and what became of the records.
async fn pushed(status: u16, batch: &[Arc<RequestMetrics>]) -> (Value, Delivery) {
    let backend = Backend::answering(move |_| Response::builder().status(status).body("".into()).unwrap());
    let settings = json!({"url": "http://loki/loki/api/v1/push"});
    let exporter = LokiPlugin.create_exporter(settings.into(), backend.host()).unwrap();
    let delivery = exporter.export(batch).await;
    let [push] = backend.requests().try_into().expect("one push per batch");
    assert_eq!((push.method().as_str(), push.uri().path()), ("POST", "/loki/api/v1/push"));
    assert_eq!(push.headers()["content-type"], "application/json");
    (serde_json::from_slice(push.body()).unwrap(), delivery)
}

#[tokio::test]
async fn a_record_is_a_line_of_its_own_stream() {
    let batch = records::batch(2);
    let (push, delivery) = pushed(204, &batch).await;
    assert_eq!((push["streams"].as_array().unwrap().len(), delivery), (2, Delivery::Delivered));
    for (stream, record) in push["streams"].as_array().unwrap().iter().zip(batch) {
        assert_eq!(stream["stream"]["service_name"], "noveum_ai_gateway");
        let [at, line, beside] = stream["values"][0].as_array().unwrap().as_slice() else {
            panic!("{stream}")
        };
        // Text, or Loki answers 400.
        let nanoseconds: u128 = at.as_str().unwrap().parse().unwrap();
        let since = record.facts().timestamp.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(nanoseconds, since.as_nanos());
        assert_eq!(serde_json::from_str::<Value>(line.as_str().unwrap()).unwrap(), record.to_otel_log());
        assert_eq!(beside["id"], record.id().to_string());
        assert!(beside.as_object().unwrap().values().all(Value::is_string), "{beside}");
    }
}

#[tokio::test]
async fn a_line_is_never_longer_than_loki_takes() {
    let (_, long) = records::odd().into_iter().max_by_key(|(_, record)| record.otel_log_len()).unwrap();
    assert!(long.otel_log_len() > 256 << 10);
    let (push, delivery) = pushed(204, &[long.clone()]).await;
    assert_eq!(delivery, Delivery::Delivered);
    let line = push["streams"][0]["values"][0][1].as_str().unwrap();
    let without = long.without_content(ContentDropped::TooLarge).to_otel_log();
    assert_eq!(serde_json::from_str::<Value>(line).unwrap(), without);
}

#[tokio::test]
async fn a_bad_line_is_looked_for_by_halves() {
    assert_eq!(pushed(400, &records::batch(2)).await.1, Delivery::TooLarge);
    assert!(
        matches!(pushed(400, &records::batch(1)).await.1, Delivery::Items(items) if matches!(items[..], [ItemOutcome::Rejected { .. }]))
    );
    assert!(matches!(pushed(401, &records::batch(1)).await.1, Delivery::Refused { .. }));
}
