//! `/api/v1/spool…` and the test of an exporter: what is refused, and how. What they do is proven through the binary.

use std::sync::Arc;

use magicapi_plugin::{Delivery, RequestMetrics, Signals, TelemetryExporter, async_trait};
use magicapi_telemetry::{ExporterSetup, PipelineSettings, Telemetry, TelemetrySettings};
use serde_json::json;

use super::place::{Place, Set, authorization};

/// Refuses everything.
struct Refusing;

#[async_trait]
impl TelemetryExporter for Refusing {
    fn name(&self) -> &'static str {
        "refusing"
    }

    async fn export(&self, _: &[Arc<RequestMetrics>]) -> Delivery {
        Delivery::Refused { reason: "wrong key".into() }
    }
}

fn telemetry() -> Telemetry {
    let setup = ExporterSetup {
        name: "mine".into(),
        kind: "refusing",
        exporter: Box::new(Refusing),
        pipeline: PipelineSettings::default(),
        signals: Signals::RECORDS,
        needs: magicapi_plugin::Needs::default(),
        exclusive: false,
        fingerprint: String::new(),
    };
    let spool_dir = Some(std::env::temp_dir().join("magicapi-admin-tests-nothing-is-here"));
    let settings = TelemetrySettings { spool_dir, ..TelemetrySettings::default() };
    Telemetry::start(settings, Arc::default(), vec![setup]).expect("starts")
}

#[tokio::test]
async fn an_exporter_is_tested_and_a_name_that_is_none_is_told_what_there_is() {
    let place = Place::new(Set { telemetry: telemetry(), ..Set::default() }).await;
    let answer = place.send("POST", "/api/v1/exporters/mine/test", &[&authorization()]).await;
    let trial = answer.json();
    assert_eq!((answer.status, &trial["passed"], &trial["type"]), (200, &json!(false), &json!("refusing")));
    let record = trial["steps"].as_array().expect("steps").iter().find(|step| step["stage"] == "record");
    let record = record.expect("a record");
    assert_eq!((&record["end"], &record["says"]), (&json!("refused"), &json!("wrong key")));
    assert!(record["remedy"].as_str().is_some_and(|remedy| remedy.contains("credential")), "{trial}");
    let unknown = place.send("POST", "/api/v1/exporters/other/test", &[&authorization()]).await;
    assert_eq!((unknown.status, unknown.refusal().0.as_str()), (404, "unknown_exporter"));
    assert!(unknown.refusal().1.contains("there are: mine"), "{unknown:?}");
}

#[tokio::test]
async fn parameters_are_read_strictly_and_names_stay_below_the_spool() {
    let place = Place::new(Set { telemetry: telemetry(), ..Set::default() }).await;
    assert_eq!(place.get("/api/v1/spool").await.json(), json!({ "data": [] }));
    let nothing = json!({ "data": [], "unreadable": [], "more": false });
    assert_eq!(place.get("/api/v1/spool/mine?dead=true&limit=5").await.json(), nothing);
    for (method, path, status, code) in [
        ("GET", "/api/v1/spool/mine?dad=true", 400, "invalid_parameter"),
        ("GET", "/api/v1/spool/mine?limit=x", 400, "invalid_parameter"),
        ("GET", "/api/v1/spool/other", 404, "unknown_exporter"),
        ("GET", "/api/v1/spool/..%2f..", 404, "unknown_exporter"),
        ("POST", "/api/v1/spool/mine/purge?older_than=soon", 400, "invalid_parameter"),
        ("POST", "/api/v1/spool/..%2fx/purge", 404, "unknown_exporter"),
        ("POST", "/api/v1/spool/mine/replay?id=msg_1", 404, "unknown_id"),
        ("POST", "/api/v1/spool/other/replay", 404, "unknown_exporter"),
    ] {
        let refused = place.send(method, path, &[&authorization()]).await;
        assert_eq!((refused.status, refused.refusal().0.as_str()), (status, code), "{path}");
    }
    let purged = place.send("POST", "/api/v1/spool/mine/purge?dry_run=true", &[&authorization()]).await;
    assert_eq!(purged.json(), json!({ "files": 0, "records": 0, "bytes": 0, "busy": 0, "dry_run": true }));
    let none = Place::new(Set::default()).await.get("/api/v1/spool").await;
    assert_eq!((none.status, none.refusal().0.as_str()), (404, "no_spool"));
}
