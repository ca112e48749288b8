//! `/metrics`, `/health/details`, `/api/v1/exporters` and the OpenAPI document.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use magicapi_config::MetricsAccess;
use magicapi_plugin::{
    Delivery, ExportError, Health, MetricsSnapshot, RequestMetrics, ScrapePage, Signals, TelemetryConfig,
    TelemetryExporter, async_trait,
};
use magicapi_telemetry::{
    ExporterSetup, ExporterState, ExporterStatus, PipelineSettings, Telemetry, TelemetrySettings,
};
use serde_json::{Value, json};

use super::place::{Place, Set, authorization, facts, soon};
use crate::exporters::ExporterInfo;
use crate::openapi::document;
use crate::routes::routes;
use crate::{HealthFacts, JournalFacts, LedgerFacts, StoreFacts};

/// Makes a page; as an exporter of records its `init` fails.
struct Fake;

#[async_trait]
impl TelemetryExporter for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn init(&self, _: &TelemetryConfig) -> Result<(), ExportError> {
        Err(ExportError::new("no route to host"))
    }

    async fn export(&self, _: &[Arc<RequestMetrics>]) -> Delivery {
        Delivery::Delivered
    }

    fn scrape(&self, _: &MetricsSnapshot, accept: &str) -> Option<ScrapePage> {
        Some(ScrapePage::new("text/x-metrics", format!("accept={accept}")))
    }
}

fn telemetry(signals: Signals) -> Telemetry {
    let setup = ExporterSetup {
        name: "mine".into(),
        kind: "fake",
        exporter: Box::new(Fake),
        pipeline: PipelineSettings::default(),
        signals,
        needs: magicapi_plugin::Needs::default(),
        exclusive: false,
        fingerprint: String::new(),
    };
    Telemetry::start(TelemetrySettings::default(), Arc::default(), vec![setup]).expect("starts")
}

#[tokio::test]
async fn the_metrics_page_is_the_exporters_own() {
    for (metrics, headers) in [
        (MetricsAccess::Open, vec![]),
        (MetricsAccess::Open, vec!["Authorization: Bearer wrong".to_owned()]),
        (MetricsAccess::Token, vec![authorization()]),
    ] {
        let place =
            Place::new(Set { metrics, telemetry: telemetry(Signals::SCRAPE), ..Set::default() }).await;
        let mut lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        lines.push("Accept: application/openmetrics-text");
        let page = place.send("GET", "/metrics", &lines).await;
        assert_eq!((page.status, page.body.as_str()), (200, "accept=application/openmetrics-text"));
        assert_eq!(page.header("content-type"), Some("text/x-metrics"));
    }
}

#[tokio::test]
async fn without_prometheus_the_remedy_is_told() {
    let place = Place::new(Set::default()).await;
    let none = place.get("/metrics").await;
    assert_eq!(none.status, 404);
    assert!(none.refusal().1.contains("ENABLED_EXPORTERS"), "{none:?}");
}

#[tokio::test]
async fn health_shows_every_fact() {
    let place = Place::new(Set { telemetry: telemetry(Signals::SCRAPE), ..Set::default() }).await;
    let answer = place.get("/health/details").await;
    let mut health = answer.json();
    assert!(health["uptime_seconds"].as_u64().is_some_and(|up| up > 1_000_000_000), "{health}");
    health["uptime_seconds"] = json!(0);
    let exporter = json!({
        "name": "mine", "type": "fake", "state": "running", "received": 0, "queue_records": 0, "queue_bytes": 0,
        "oldest_age_ms": null, "spool_records": 0, "spool_bytes": 0, "spool_error": null, "spooled": 0, "refusing": false,
            "breaker": "closed", "dropped_by_reason": {}, "dead_letters": 0, "dead_letter_bytes": 0,
            "filtered": 0, "sampled_out": 0, "sent": 0, "retried": 0, "dropped": 0, "rejected": 0, "ambiguous": 0,
        "last_error": null, "last_error_at": null, "health": "ok", "health_reason": null,
    });
    let expected = json!({
        "status": "ok",
        "reasons": [],
        "version": "1.2.3",
        "started_at": "1970-01-01T00:00:00.000Z",
        "uptime_seconds": 0,
        "phase": "serving",
        "config_hash": "abc",
        "data_plane": { "in_flight": 1, "connections": 2, "connections_refused": 3, "held_bytes": 4 },
        "providers": ["groq"],
        "store": {
            "file_bytes": 4096, "storage_failed": false, "last_error": null, "log_queued_bytes": 0,
            "log_written": 0, "log_deleted": 0,
        },
        "ledger": {
            "ready": true, "queued": 0, "queued_bytes": 0, "written": 0, "missing": 0, "on_full": "count",
        },
        "journals": [{
            "name": "ledger", "bytes": 7, "limit": 0, "entries": 0, "oldest_age_ms": null, "unwritten": 0,
            "recovered": 0, "killed": 0, "error": null,
        }],
        "exporters": [exporter],
    });
    assert_eq!(health, expected);
    assert_eq!(place.get("/api/v1/exporters").await.json(), json!({ "data": [exporter] }));
}

#[tokio::test]
async fn what_is_wrong_is_a_reason_and_still_200() {
    let store =
        StoreFacts { storage_failed: true, last_error: Some("disk full".into()), ..StoreFacts::default() };
    let ledger = |ready, missing, on_full| LedgerFacts { ready, missing, on_full, ..LedgerFacts::default() };
    let journal = JournalFacts { name: "ledger", error: Some("read-only".into()), ..JournalFacts::default() };
    let with = |change: fn(&mut HealthFacts)| {
        let mut facts = facts();
        change(&mut facts);
        facts
    };
    let nothing = with(|facts| (facts.store, facts.ledger) = (None, None));
    for (facts, says) in [
        (with(|facts| facts.degraded.push("data_dir: read-only".into())), "data_dir: read-only"),
        (HealthFacts { store: Some(store), ..facts() }, "store: disk full"),
        (HealthFacts { ledger: Some(ledger(true, 3, "count")), ..facts() }, "3 requests are missing"),
        (HealthFacts { ledger: Some(ledger(false, 0, "refuse")), ..facts() }, "new requests are refused"),
        (HealthFacts { ledger: Some(ledger(false, 0, "count")), ..facts() }, "rows are missing"),
        (HealthFacts { journals: vec![journal], ..facts() }, "journal ledger: read-only"),
    ] {
        let place = Place::new(Set { health: facts, ..Set::default() }).await;
        let answer = place.get("/health/details").await;
        let health = answer.json();
        assert_eq!((answer.status, &health["status"]), (200, &json!("degraded")), "{says}");
        assert!(health["reasons"][0].as_str().is_some_and(|reason| reason.contains(says)), "{health}");
    }
    let place = Place::new(Set { health: nothing, ..Set::default() }).await;
    assert_eq!(place.get("/health/details").await.json()["status"], json!("ok"), "nothing is not broken");
}

#[tokio::test]
async fn an_exporter_that_cannot_start_is_a_reason() {
    let telemetry = telemetry(Signals::RECORDS);
    let place = Place::new(Set { telemetry, ..Set::default() }).await;
    let reasons = soon(async {
        loop {
            let health = place.get("/health/details").await.json();
            if health["status"] == json!("degraded") {
                let exporter = &health["exporters"][0];
                assert_eq!(
                    (&exporter["state"], &exporter["health"]),
                    (&json!("starting"), &json!("unknown"))
                );
                assert_eq!(exporter["health_reason"], exporter["last_error"]);
                break health["reasons"].clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let reason = reasons[0].as_str().expect("a reason");
    assert!(reason.starts_with("exporter mine: ") && reason.contains("no route to host"), "{reason}");
}

#[test]
fn what_a_running_exporter_says_of_its_back_end_is_a_reason() {
    let mut status = telemetry(Signals::SCRAPE).status().remove(0);
    let complaints =
        |status: &ExporterStatus| ExporterInfo::from(status.clone()).complaints().collect::<Vec<_>>();
    assert!(complaints(&status).is_empty());
    status.health = Some(Health::Degraded("the template is missing".into()));
    assert_eq!(complaints(&status), ["exporter mine: degraded: the template is missing"]);
    (status.state, status.last_error) = (ExporterState::Retrying, Some("503".into()));
    status.spool_error = Some("no space".into());
    assert_eq!(complaints(&status), ["exporter mine: retrying: 503", "exporter mine: spool: no space"]);
}

#[tokio::test]
async fn the_document_describes_every_route_and_no_other() {
    let place = Place::new(Set::default()).await;
    let served = place.get("/api/v1/openapi.json").await.json();
    let described: BTreeSet<&str> =
        served["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let routed: BTreeSet<&str> = routes().into_iter().map(|(path, ..)| path).collect();
    assert_eq!(described, routed);
    for (path, method, _) in routes() {
        let method = method.as_str().to_ascii_lowercase();
        let methods: Vec<&String> = served["paths"][path].as_object().expect("an item").keys().collect();
        assert_eq!(methods, [&method], "{path}");
        assert!(served["paths"][path][&method]["summary"].is_string(), "{path}");
        assert!(served["paths"][path][&method]["responses"]["401"].is_object(), "{path}");
    }
    assert!(served["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    assert!(served["components"]["securitySchemes"]["admin_token"].is_object());
}

#[test]
fn the_document_names_the_parameters_and_has_what_it_refers_to() {
    let document = serde_json::to_value(document()).expect("JSON");
    let parameters = |path: &str| -> Vec<String> {
        let list = document["paths"][path]["get"]["parameters"].as_array().expect("parameters");
        list.iter().map(|parameter| parameter["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(parameters("/api/v1/logs").len(), 20);
    assert!(parameters("/api/v1/logs/follow").contains(&"Last-Event-ID".to_owned()));
    assert!(!parameters("/api/v1/logs/follow").contains(&"cursor".to_owned()));
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
