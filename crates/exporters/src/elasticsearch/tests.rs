use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use magicapi_plugin::{
    Delivery, Health, HttpError, ItemOutcome, RequestMetrics, SettingsSpec, TelemetryConfig,
    TelemetryExporter, ValueKind,
};
use serde_json::{Value, json};

use super::{ElasticsearchPlugin, ElasticsearchSettings};
use crate::testing::{Script, batch, create};

mod lifecycle;

fn exporter(settings: Value, script: &Arc<Script>) -> Box<dyn TelemetryExporter> {
    create(&ElasticsearchPlugin, settings, script).expect("settings")
}

fn plain() -> Value {
    json!({"url": "http://es:9200/", "index": "ai-requests", "compression": "none"})
}

/// An answer to `_bulk` with these items: status, type, reason.
fn items(items: &[(u16, &str, &str)]) -> String {
    let items: Vec<Value> = items
        .iter()
        .map(|(status, kind, reason)| match *status {
            200..=299 => json!({"create": {"status": status}}),
            _ => json!({"create": {"status": status, "error": {"type": kind, "reason": reason}}}),
        })
        .collect();
    json!({"errors": true, "items": items}).to_string()
}

async fn delivery(status: u16, body: &str, records: u8) -> Delivery {
    let script = Arc::new(Script::default());
    script.answer(status, body.to_owned());
    exporter(plain(), &script).export(&batch(records)).await
}

#[tokio::test]
async fn the_bulk_request() {
    let script = Arc::new(Script::default());
    script.answer(200, items(&[(201, "", ""), (201, "", "")]));
    let exporter = exporter(plain(), &script);
    assert_eq!(exporter.export(&batch(2)).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    assert_eq!(request.method(), "POST");
    assert_eq!(
        request.uri().to_string(),
        "http://es:9200/ai-requests/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
    );
    let headers = request.headers();
    assert_eq!(headers["content-type"], "application/x-ndjson");
    assert_eq!(headers["content-length"], request.body().len().to_string().as_str());
    assert!(headers.get("content-encoding").is_none() && headers.get("authorization").is_none());
    // New keys of the record change it: INSTA_UPDATE=always cargo test -p magicapi-exporters
    insta::assert_snapshot!(std::str::from_utf8(request.body()).expect("utf-8"));
}

#[tokio::test]
async fn bodies_are_packed_by_default() {
    let script = Arc::new(Script::default());
    script.answer(200, items(&[(201, "", "")]));
    // Empty texts are what `${X:-}` leaves.
    let exporter = exporter(json!({"url": "", "index": " "}), &script);
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    assert!(request.uri().to_string().starts_with("http://localhost:9200/noveum-metrics/_bulk?"));
    assert_eq!(request.headers()["content-encoding"], "gzip");
    assert_eq!(request.headers()["content-length"], request.body().len().to_string().as_str());
    let mut text = String::new();
    flate2::read::GzDecoder::new(&request.body()[..]).read_to_string(&mut text).expect("gzip");
    assert!(text.starts_with("{\"create\":{\"_id\":\"msg_") && text.ends_with("}\n"));
}

#[tokio::test]
async fn every_item_is_judged() {
    let content = "[1:99] failed to parse field [attributes.metadata.latency] of type [long] in document with id 'msg_1'. Preview of field's value: 'my password'";
    let body = items(&[
        (201, "", ""),
        (409, "version_conflict_engine_exception", "[msg_1]: version conflict"),
        (429, "es_rejected_execution_exception", "rejected execution"),
        (503, "unavailable_shards_exception", ""),
        (400, "document_parsing_exception", content),
    ]);
    let rejected = "HTTP 400 document_parsing_exception in attributes.metadata.latency";
    assert_eq!(
        delivery(200, &body, 5).await,
        Delivery::Items(vec![
            ItemOutcome::Delivered,
            ItemOutcome::Delivered,
            ItemOutcome::Retry,
            ItemOutcome::Retry,
            ItemOutcome::Rejected { reason: rejected.into() },
        ])
    );
}

#[tokio::test]
async fn nothing_of_a_document_gets_into_a_reason() {
    for reason in [
        "[1:5] failed to parse: Duplicate field 'a'\n at [Source: (byte[])\"{\"canary\":1}\"; line: 1, column: 57]",
        "[1:5] failed to parse: x failed to parse field [canary] of type",
        "canary] failed to parse field [canary] of type",
        "[1:5] failed to parse field [attributes.request.canary] of type [long]",
        "[1:5] object mapping for [attributes.response.canary] tried to parse field [canary] as object",
        "canary data stream timestamp field [@timestamp] is missing\"; line: 1",
        "canary no write index is defined for alias [x]",
        "canary object mapping for [resource.service] tried to parse field [service] as object",
        "[1:5] failed to parse field [attributes.resource.x] of type [long]",
        "Could not dynamically add mapping for field [canary]. Existing mapping for [attributes.x] must be of type",
        "Could not dynamically add mapping for field [a]. Existing mapping for [resource.canary]. Existing mapping for [x]",
    ] {
        let body = items(&[(400, "document_parsing_exception", reason), (201, "", "")]);
        let Delivery::Items(outcomes) = delivery(200, &body, 2).await else { panic!("items for {reason}") };
        let ItemOutcome::Rejected { reason: said } = &outcomes[0] else { panic!("rejected: {reason}") };
        assert!(!said.contains("canary") && said.contains("document_parsing_exception"), "{said}");
        assert_eq!(outcomes[1], ItemOutcome::Delivered);
    }
}

/// A wrong set-up must cost no record, whether it shows in a status or in every item.
#[tokio::test]
async fn faults_of_the_set_up_are_refused_with_a_remedy() {
    let error = |kind: &str| json!({"error": {"type": kind, "reason": "canary"}}).to_string();
    for (status, body, part) in [
        (401, error("security_exception"), "ELASTICSEARCH_PASSWORD"),
        (403, error("security_exception"), "create_doc"),
        (404, error("index_not_found_exception"), "auto_create_index"),
        (400, error("parse_exception"), "check url and index"),
        (301, String::new(), "check url"),
        (501, String::new(), "HTTP 501"),
        (200, items(&[(403, "security_exception", "canary")]), "create_doc"),
        (200, items(&[(403, "cluster_block_exception", "canary")]), "lift its block"),
        (200, items(&[(404, "index_not_found_exception", "canary")]), "auto_create_index"),
        (200, items(&[(400, "index_closed_exception", "closed")]), "open it"),
        (
            200,
            items(&[(
                400,
                "document_parsing_exception",
                "[1:1] failed to parse: data stream timestamp field [@timestamp] is missing",
            )]),
            "data stream",
        ),
        (
            200,
            items(&[(400, "illegal_argument_exception", "no write index is defined for alias [x].")]),
            "is_write_index",
        ),
    ] {
        let Delivery::Refused { reason } = delivery(status, &body, 1).await else {
            panic!("{status} {body}")
        };
        assert!(reason.contains(part) && !reason.contains("canary"), "{reason}");
    }
    let mixed = items(&[(201, "", ""), (403, "security_exception", "")]);
    let outcomes = vec![ItemOutcome::Delivered, ItemOutcome::Retry];
    assert_eq!(delivery(200, &mixed, 2).await, Delivery::Items(outcomes));
}

/// They keep their names, so nothing that an operator does would ever get them in.
#[tokio::test]
async fn records_of_an_earlier_set_up_are_rejected_for_their_resource() {
    let script = Arc::new(Script::default());
    script.answer(200, "{}");
    let exporter = exporter(json!({"url": "http://es:9200/", "template": false}), &script);
    let mut names = TelemetryConfig::default();
    (names.service_version, names.service_instance_id) = ("2.0.0".into(), Some("i-2".into()));
    names.resource_attributes = [("team".to_owned(), "a".to_owned())].into();
    exporter.init(&names).await.expect("init");
    let now = batch(2).into_iter().map(|record| {
        let mut resource = names.clone();
        resource.service_version = "1.0.0".into();
        resource.resource_attributes = [("team".to_owned(), "another value".to_owned())].into();
        Arc::new(RequestMetrics::seal(record.facts().clone(), Arc::new(resource), None, None, None))
    });
    let reason = "object mapping for [resource.service] tried to parse field [service] as object";
    let body = items(&[(400, "mapper_parsing_exception", reason); 3]);
    let mixed: Vec<_> = batch(1).into_iter().chain(now).collect();
    script.answer(200, body).answer(200, items(&[(400, "mapper_parsing_exception", reason); 2]));
    let rejected =
        ItemOutcome::Rejected { reason: "HTTP 400 mapper_parsing_exception in resource.service".into() };
    let expected = vec![rejected, ItemOutcome::Retry, ItemOutcome::Retry];
    assert_eq!(exporter.export(&mixed).await, Delivery::Items(expected));
    let Delivery::Refused { reason } = exporter.export(&mixed[1..]).await else { panic!("refused") };
    assert!(reason.contains("OTEL_RESOURCE_ATTRIBUTES"), "{reason}");
}

/// As Elasticsearch 8.19 and OpenSearch 2.19 word it. What stands below `resource` is the same in every record.
#[tokio::test]
async fn a_resource_attribute_that_does_not_fit_is_refused() {
    for reason in [
        "[1:43] object mapping for [resource.service] tried to parse field [service] as object, but found a concrete value",
        "[1:29] failed to parse field [resource.service] of type [keyword] in document with id '2'. Preview of field's value: '{name=canary}'",
        "object mapping for [resource.service] tried to parse field [service] as object, but found a concrete value",
        "Could not dynamically add mapping for field [service.name]. Existing mapping for [resource.service] must be of type object but found [keyword].",
        "can't merge a non object mapping [resource.service] with an object mapping",
    ] {
        let body = items(&[(400, "mapper_parsing_exception", reason); 2]);
        let Delivery::Refused { reason } = delivery(200, &body, 2).await else { panic!("{reason}") };
        assert!(reason.contains("OTEL_RESOURCE_ATTRIBUTES") && !reason.contains("canary"), "{reason}");
    }
}

#[tokio::test]
async fn whole_answers_are_judged() {
    let one = items(&[(201, "", "")]);
    let all_busy = items(&[(429, "es_rejected_execution_exception", ""); 2]);
    let all_conflicts = items(&[(409, "version_conflict_engine_exception", ""); 2]);
    for (status, body, records, expected) in [
        (200, all_conflicts.as_str(), 2, Delivery::Delivered),
        (200, all_busy.as_str(), 2, Delivery::Retry { after: None }),
        (200, one.as_str(), 2, Delivery::Unknown),
        (200, one.as_str(), 0, Delivery::Unknown),
        (200, "<html>", 1, Delivery::Unknown),
        (200, "{}", 1, Delivery::Unknown),
        (200, "{\"errors\":false,\"items\":[{\"index\":{\"status\":201}}]}", 1, Delivery::Unknown),
        (204, "", 1, Delivery::Unknown),
        (413, "", 1, Delivery::TooLarge),
        (408, "", 1, Delivery::Retry { after: None }),
        (429, "", 1, Delivery::Retry { after: None }),
        (500, "", 1, Delivery::Retry { after: None }),
        (502, "", 1, Delivery::Retry { after: None }),
        (503, "", 1, Delivery::Retry { after: None }),
        (504, "", 1, Delivery::Retry { after: None }),
    ] {
        assert_eq!(delivery(status, body, records).await, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn the_servers_delay_and_silence() {
    let script = Arc::new(Script::default());
    let busy = Response::builder().status(429).header("retry-after", "7").body(Bytes::new()).expect("answer");
    let at = Response::builder().status(503).header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
    script.then(Ok(busy)).then(Ok(at.body(Bytes::new()).expect("answer")));
    script.then(Err(HttpError::Connect("refused".into()))).then(Err(HttpError::NoAnswer("reset".into())));
    script.then(Err(HttpError::TooLarge("9 GiB".into()))).answer(200, items(&[(201, "", "")]));
    let exporter = exporter(plain(), &script);
    for (expected, healthy) in [
        (Delivery::Retry { after: Some(Duration::from_secs(7)) }, false),
        // A date that has passed.
        (Delivery::Retry { after: Some(Duration::ZERO) }, false),
        (Delivery::Retry { after: None }, false),
        (Delivery::Unknown, false),
        (Delivery::Unknown, false),
        (Delivery::Delivered, true),
    ] {
        assert_eq!(exporter.export(&batch(1)).await, expected);
        assert_eq!(exporter.health().await == Health::Ok, healthy);
    }
}

async fn init(settings: Value, script: &Arc<Script>) -> (Result<(), String>, Health) {
    let exporter = exporter(settings, script);
    let result = exporter.init(&TelemetryConfig::default()).await.map_err(|e| e.to_string());
    (result, exporter.health().await)
}

#[tokio::test]
async fn init_asks_for_health_and_puts_the_template() {
    let script = Arc::new(Script::default());
    script.answer(200, "{\"status\":\"green\"}").answer(404, "{}").answer(200, "{\"acknowledged\":true}");
    assert_eq!(init(plain(), &script).await, (Ok(()), Health::Ok));
    let [health, get, put] = script.seen().try_into().expect("three requests");
    assert_eq!(health.uri().path(), "/_cluster/health");
    assert_eq!((get.method().as_str(), get.uri().path()), ("GET", "/_index_template/ai-requests"));
    assert_eq!((put.method().as_str(), put.uri().path()), ("PUT", "/_index_template/ai-requests"));
    let template: Value = serde_json::from_slice(put.body()).expect("json");
    assert_eq!(template["index_patterns"], json!(["ai-requests"]));
    assert_eq!(template["priority"], 200);
    assert_eq!(template["template"]["mappings"]["dynamic"], false);
}

#[tokio::test]
async fn a_data_streams_documents_have_their_time() {
    let script = Arc::new(Script::default());
    script.answer(200, items(&[(201, "", "")]));
    let mut settings = plain();
    settings["data_stream"] = json!(true);
    let records = batch(1);
    exporter(settings, &script).export(&records).await;
    let [request] = script.seen().try_into().expect("one request");
    let text = String::from_utf8(request.body().to_vec()).expect("text");
    let document: Value = serde_json::from_str(text.lines().nth(1).expect("a document")).expect("json");
    let time = records[0].facts().timestamp.duration_since(std::time::UNIX_EPOCH).expect("a time");
    assert_eq!(document["@timestamp"], json!(u64::try_from(time.as_millis()).expect("a time")));
    assert_eq!(document["attributes"]["id"], records[0].id().to_string());
}

fn there(version: i64, managed_by: &str) -> String {
    let template = json!({"version": version, "_meta": {"managed_by": managed_by}, "index_patterns": ["x"]});
    json!({"index_templates": [{"name": "ai-requests", "index_template": template}]}).to_string()
}

#[tokio::test]
async fn a_template_that_is_there_is_kept_unless_it_is_ours_and_older() {
    let ours = "magicapi-ai-gateway";
    for (answer, requests, healthy) in [
        (there(1, ours), 2, true),
        (there(9, ours), 2, true),
        (there(0, ours), 3, true),
        (there(0, "terraform"), 2, false),
        ("{\"index_templates\":[{\"index_template\":{\"index_patterns\":[\"x\"]}}]}".into(), 2, false),
        ("{}".into(), 2, false),
        ("<html>".into(), 2, false),
    ] {
        let script = Arc::new(Script::default());
        script.answer(200, "{}").answer(200, answer.clone()).answer(200, "{}");
        let (result, health) = init(plain(), &script).await;
        assert_eq!((result, health == Health::Ok), (Ok(()), healthy), "{answer}");
        assert_eq!(script.seen().len(), requests, "{answer}");
    }
}

#[tokio::test]
async fn init_fails_only_for_what_stands_in_the_way_of_writing() {
    let without =
        || json!({"url": "http://es:9200", "template": false, "password": "canary", "username": "u"});
    for (status, ok) in
        [(200, true), (403, true), (404, true), (405, true), (410, true), (401, false), (503, false)]
    {
        let script = Arc::new(Script::default());
        script.answer(status, "");
        let (result, health) = init(without(), &script).await;
        assert_eq!(result.is_ok(), ok, "{status}");
        assert_eq!(health == Health::Ok, ok && status != 403, "{status} {health:?}");
        if status == 401 {
            let error = result.expect_err("401");
            assert!(error.contains("ELASTICSEARCH_USERNAME") && error.contains("api_key"), "{error}");
            assert!(error.contains("http://es:9200") && !error.contains("canary"), "{error}");
        }
    }
    for (status, ok) in [(403, true), (400, true), (405, true), (503, false), (429, false)] {
        let script = Arc::new(Script::default());
        script.answer(200, "{}").answer(404, "{}").answer(status, "{\"error\":{\"type\":\"x\"}}");
        let (result, health) = init(plain(), &script).await;
        assert_eq!(result.is_ok(), ok, "{status}");
        assert_ne!(health, Health::Ok, "{status}");
    }
    let script = Arc::new(Script::default());
    script.then(Err(HttpError::NoAnswer("closed".into())));
    assert!(init(plain(), &script).await.0.expect_err("no answer").contains("write https:// in url"));
}

#[test]
fn settings_are_checked_without_a_connection() {
    let script = Arc::new(Script::default());
    let long = "x".repeat(256);
    for (settings, part) in [
        (json!({"url": "localhost:9200"}), "url: begins with neither http:// nor https://"),
        (json!({"url": "ftp://x"}), "url: begins with neither"),
        (json!({"url": "http://u:canary@x:9200"}), "url: holds a user or password"),
        (json!({"url": "http://x:9200/?pretty"}), "url: expected"),
        (json!({"url": "http://x:9200/#a"}), "url: expected"),
        (json!({"url": "http://x y"}), "url: not an address"),
        (json!({"index": ".."}), "is no name"),
        (json!({"index": "Requests"}), "must be lower case: \"requests\""),
        (json!({"index": "a b"}), "' '"),
        (json!({"index": "a,b"}), "','"),
        (json!({"index": "a*"}), "'*'"),
        (json!({"index": "a/b"}), "'/'"),
        (json!({"index": "a\\b"}), "'\\\\'"),
        (json!({"index": "a:b"}), "':'"),
        (json!({"index": "_all"}), "begins with"),
        (json!({"index": "-x"}), "begins with"),
        (json!({"index": long}), "256 bytes"),
        (json!({"username": "u"}), "password: missing"),
        (json!({"username": "u", "password": ""}), "password: missing"),
        (json!({"password": "canary"}), "username: missing"),
        (json!({"username": "a:b", "password": "canary"}), "username: holds a colon"),
        (json!({"api_key": "canary", "username": "u", "password": "canary"}), "api_key: set beside"),
        (json!({"api_key": "canary\nx"}), "api_key: expected id:key"),
        (json!({"compression": "zstd"}), "zstd"),
        (json!({"retention": "30d"}), "retention: \"30d\" needs `data_stream: true`"),
        (
            json!({"lifecycle_policy": "p", "data_stream": true, "template": false}),
            "lifecycle_policy: \"p\" needs",
        ),
        (json!({"data_stream": true, "retention": "30 days"}), "as 30d"),
        (json!({"data_stream": true, "retention": "0d"}), "as 30d"),
        (json!({"data_stream": true, "retention": "1d", "lifecycle_policy": "p"}), "retention: set beside"),
        (json!({"ulr": "http://x"}), "ulr"),
    ] {
        let error = create(&ElasticsearchPlugin, settings.clone(), &script).err().expect("an error");
        assert!(error.contains(part) && !error.contains("canary"), "{settings}: {error}");
    }
    for settings in [
        json!({}),
        json!({"url": "https://x.example/es/", "index": "größe-1"}),
        json!({"url": "http://[::1]:9200", "username": "", "password": "", "api_key": ""}),
    ] {
        assert!(create(&ElasticsearchPlugin, settings.clone(), &script).is_ok(), "{settings}");
    }
}

#[tokio::test]
async fn credentials_go_into_the_header_and_nowhere_else() {
    for (settings, expected) in [
        (json!({"username": "elastic", "password": "canary:é"}), "Basic ZWxhc3RpYzpjYW5hcnk6w6k="),
        (json!({"api_key": "id:canary"}), "ApiKey aWQ6Y2FuYXJ5"),
        (json!({"api_key": " aWQ6Y2FuYXJ5\n"}), "ApiKey aWQ6Y2FuYXJ5"),
    ] {
        let script = Arc::new(Script::default());
        script.answer(200, items(&[(201, "", "")]));
        exporter(settings, &script).export(&batch(1)).await;
        let [request] = script.seen().try_into().expect("one request");
        assert_eq!(request.headers()["authorization"].as_bytes(), expected.as_bytes());
        let shown = format!("{:?}", request.headers());
        assert!(shown.contains("Sensitive") && !shown.contains("Y2FuYXJ5"), "{shown}");
    }
}

#[test]
fn settings_describe_themselves() {
    let spec = SettingsSpec::of::<ElasticsearchSettings>();
    let key = |name: &str| spec.keys().iter().find(|key| key.name == name).expect("a key");
    assert_eq!(key("url").default, Some(json!("http://localhost:9200")));
    assert_eq!(key("index").default, Some(json!("noveum-metrics")));
    assert_eq!(key("compression").kind, ValueKind::OneOf(vec!["gzip".into(), "none".into()]));
    for (name, env) in [
        ("url", "ELASTICSEARCH_URL"),
        ("index", "ELASTICSEARCH_INDEX"),
        ("username", "ELASTICSEARCH_USERNAME"),
        ("password", "ELASTICSEARCH_PASSWORD"),
        ("api_key", "ELASTICSEARCH_API_KEY"),
    ] {
        assert_eq!(key(name).env.as_deref(), Some(env));
    }
    assert_eq!((&key("password").kind, &key("api_key").kind), (&ValueKind::Secret, &ValueKind::Secret));
    assert!(spec.keys().iter().all(|key| !key.doc.is_empty()));
}

/// The record's keys and the mapping's are the same, so that a new key of the record cannot be forgotten here.
#[test]
fn the_template_knows_every_key_of_the_record() {
    let template: Value = serde_json::from_str(include_str!("template.json")).expect("json");
    let mapped = &template["template"]["mappings"]["properties"];
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let record = batch(1)[0].to_otel_log();
    let mut top = keys(mapped);
    assert!(top.remove("@timestamp"), "the alias");
    assert_eq!(top, keys(&record));
    let attributes = &mapped["attributes"]["properties"];
    let mut ids = keys(attributes);
    assert!(ids.remove("experiment_id"), "written only when it came");
    assert_eq!(ids, keys(&record["attributes"]));
    let metadata = &attributes["metadata"]["properties"];
    let mapped_metadata = keys(metadata);
    let missing: Vec<String> =
        keys(&record["attributes"]["metadata"]).difference(&mapped_metadata).cloned().collect();
    assert!(missing.is_empty(), "not in template.json: {missing:?}");
    assert_eq!(keys(&metadata["tokens"]["properties"]), keys(&record["attributes"]["metadata"]["tokens"]));
    for body in ["request", "response"] {
        assert_eq!(attributes[body], json!({"type": "object", "enabled": false}));
    }
}
