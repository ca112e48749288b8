use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{
    Delivery, Facts, Health, HttpError, ItemOutcome, RequestId, RequestMetrics, SettingsSpec,
    TelemetryConfig, TelemetryExporter, ValueKind,
};
use serde_json::{Value, json};

use super::{NewRelicPlugin, NewRelicSettings, encode};
use crate::testing::{Script, batch, create, fresh, known};

const KEY: &str = "0123456789abcdef0123456789abcdefFFFFNRAL";

fn exporter(script: &Arc<Script>) -> Box<dyn TelemetryExporter> {
    create(&NewRelicPlugin, json!({ "license_key": KEY }), script).expect("settings")
}

/// What the Log API's reference demands of a request; the logs.
fn logs(request: &Request<Bytes>) -> Vec<Value> {
    let headers = request.headers();
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/log/v1"));
    assert_eq!(headers["api-key"], KEY);
    assert!(headers["api-key"].is_sensitive());
    assert_eq!(
        (&headers["content-type"], &headers["content-encoding"]),
        (&"application/json".parse().expect("type"), &"gzip".parse().expect("coding"))
    );
    assert_eq!(headers["content-length"], request.body().len().to_string().as_str());
    assert!(request.body().len() <= 1_000_000, "{}", request.body().len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(&request.body()[..]).read_to_string(&mut text).expect("gzip");
    let body: Value = serde_json::from_str(&text).expect("json");
    let [block] = body.as_array().expect("an array").as_slice() else { panic!("one block") };
    let logs = block["logs"].as_array().expect("logs").clone();
    for log in &logs {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(log["timestamp"].as_u64().expect("ms"));
        assert!(SystemTime::now().duration_since(at).expect("past") < Duration::from_hours(48));
        assert!(log["message"].as_str().is_some_and(|message| !message.is_empty()));
        let attributes = log["attributes"].as_object().expect("attributes");
        assert!(attributes.len() <= 255, "{}", attributes.len());
        for (name, value) in attributes {
            assert!(
                name.chars().count() <= 255 && !value.is_array() && !value.is_object() && !value.is_null()
            );
            assert!(!["accountId", "eventType", "appId", "timestamp"].contains(&name.as_str()), "{name}");
            assert!(value.as_str().is_none_or(|text| text.len() <= 4094 + 128_000), "{name}");
        }
    }
    logs
}

#[test]
fn the_log() {
    let record = known();
    let now = record.facts().timestamp + Duration::from_hours(47);
    let log: Value = serde_json::from_slice(&encode::log(&record, now).expect("a log")).expect("json");
    insta::assert_json_snapshot!(log);
}

#[tokio::test]
async fn records_arrive_whole_with_bodies_as_texts() {
    let script = Arc::new(Script::default());
    script.answer(202, "{\"requestId\":\"15f0b8c8-0001-b000-0000-01959fe1b4e5\"}");
    let exporter = exporter(&script);
    let long = format!("\"{}\"", "x".repeat(120_000));
    let record = fresh("{\"a\":1,\"a\":2}", &long, Some("[1]"));
    assert_eq!(exporter.export(std::slice::from_ref(&record)).await, Delivery::Delivered);
    assert_eq!(exporter.health().await, Health::Ok);
    let [request] = script.seen().try_into().expect("one request");
    assert_eq!(request.uri().host(), Some("log-api.newrelic.com"));
    let [log] = logs(&request).try_into().expect("one log");
    let attributes = &log["attributes"];
    assert_eq!(attributes["id"], record.id().to_string());
    assert_eq!(
        (&attributes["request"], &attributes["response"]),
        (&json!("{\"a\":1,\"a\":2}"), &json!(long))
    );
    assert_eq!(
        (&attributes["streamed_data"], &attributes["service.name"]),
        (&json!("[1]"), &json!("noveum_ai_gateway"))
    );
    assert!(attributes.get("metadata.truncated.response").is_none());
}

/// Past what New Relic keeps, a text is cut here, and says by how much.
#[tokio::test]
async fn long_texts_are_cut_between_characters() {
    let script = Arc::new(Script::default());
    script.answer(202, "");
    // 140,003 bytes; the cut falls within a character.
    let long = format!("\"{}a\"", "ä".repeat(70_000));
    let record = fresh("{}", &long, None);
    assert_eq!(exporter(&script).export(&[record]).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    let [log] = logs(&request).try_into().expect("one log");
    let kept = log["attributes"]["response"].as_str().expect("a text");
    assert_eq!(kept.len(), 127_999);
    assert_eq!(log["attributes"]["metadata.truncated.response"], long.len() - kept.len());
    assert!(log["attributes"].get("metadata.truncated.request").is_none());
}

/// A megabyte as sent: what packs badly goes in several requests.
#[tokio::test]
async fn batches_are_split_by_their_packed_size() {
    let script = Arc::new(Script::default());
    (0..16).for_each(|_| {
        script.answer(202, "");
    });
    let mut state = 1_u64;
    let noise = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 33) as u8 % 75)
    };
    let text: String = (0..1_600_000).map(noise).filter(|c| *c != '\\').collect();
    let records: Vec<_> = (0..15)
        .map(|n| fresh(&json!(text[n * 100_000..(n + 1) * 100_000]).to_string(), "{}", None))
        .collect();
    assert_eq!(exporter(&script).export(&records).await, Delivery::Delivered);
    let seen = script.seen();
    assert!(seen.len() > 1, "random letters pack into {} bytes", seen[0].body().len());
    assert_eq!(seen.iter().map(|request| logs(request).len()).sum::<usize>(), 15);
}

/// What New Relic has acknowledged is not sent again because the rest took too long.
#[tokio::test(start_paused = true)]
async fn an_export_that_is_cut_off_leaves_what_it_knows() {
    let script = Arc::new(Script::default());
    script.answer(202, "").hang();
    // 120 kB each before packing, of which a request holds 10 MB.
    let long = format!("\"{}\"", "x".repeat(120_000));
    let records: Vec<_> = (0..100).map(|_| fresh("{}", &long, None)).collect();
    let exporter = exporter(&script);
    assert!(tokio::time::timeout(Duration::from_secs(30), exporter.export(&records)).await.is_err());
    let sent = logs(&script.seen()[0]).len();
    let [yes, unknown] = [ItemOutcome::Delivered, ItemOutcome::Unknown];
    let known = [vec![yes; sent], vec![unknown; 100 - sent]].concat();
    assert!((1..100).contains(&sent), "{sent}");
    assert_eq!(exporter.cut_off(&records), Delivery::Items(known));
}

#[tokio::test]
async fn attributes_are_bounded_and_say_so() {
    let own = (0..300).map(|n| (format!("own.{n}"), "x".to_owned()));
    let mut names = TelemetryConfig::default();
    names.resource_attributes = own.chain([("n".repeat(256), "x".to_owned())]).collect();
    let facts = Facts::new(RequestId::mint(), SystemTime::now());
    let record = Arc::new(RequestMetrics::seal(facts, Arc::new(names), None, None, None));
    let script = Arc::new(Script::default());
    script.answer(202, "");
    assert_eq!(exporter(&script).export(&[record]).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    let [log] = logs(&request).try_into().expect("one log");
    let attributes = log["attributes"].as_object().expect("attributes");
    assert_eq!(attributes.len(), 255);
    let own = attributes.keys().filter(|name| name.starts_with("own.")).count() as u64;
    assert_eq!(attributes["attributes_left_out"], 301 - own);
    assert!(attributes.contains_key("metadata.outcome"), "the record's own come first");
}

/// An attribute of the operator's takes the place of none of the record's, and what it says is missing is.
#[tokio::test]
async fn the_operators_attributes_replace_none_of_the_records() {
    let own = ["id", "provider", "metadata.outcome", "attributes_left_out", "team"];
    let mut names = TelemetryConfig::default();
    names.resource_attributes = own.map(|name| (name.to_owned(), "canary".to_owned())).into();
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
    facts.provider = Some("openai".into());
    let record = Arc::new(RequestMetrics::seal(facts, Arc::new(names), None, None, None));
    let script = Arc::new(Script::default());
    script.answer(202, "");
    assert_eq!(exporter(&script).export(std::slice::from_ref(&record)).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    let [log] = logs(&request).try_into().expect("one log");
    let attributes = &log["attributes"];
    assert_eq!(attributes["id"], record.id().to_string());
    assert_eq!((&attributes["provider"], &attributes["team"]), (&json!("openai"), &json!("canary")));
    assert_ne!(attributes["metadata.outcome"], "canary");
    assert_eq!(attributes["attributes_left_out"], 4);
}

#[tokio::test]
async fn records_that_new_relic_would_drop_are_rejected() {
    let script = Arc::new(Script::default());
    let Delivery::Items(outcomes) = exporter(&script).export(&batch(2)).await else { panic!("items") };
    for outcome in outcomes {
        let ItemOutcome::Rejected { reason } = outcome else { panic!("rejected: {outcome:?}") };
        assert!(reason.contains("48 hours"), "{reason}");
    }
    assert!(script.seen().is_empty(), "nothing is asked");
}

#[tokio::test]
async fn whole_answers_are_judged() {
    for (status, expected, part) in [
        (202, Some(Delivery::Delivered), ""),
        (400, Some(Delivery::Items(vec![ItemOutcome::Rejected { reason: "HTTP 400".into() }])), ""),
        (401, None, "NEW_RELIC_LICENSE_KEY"),
        (403, None, "NEW_RELIC_REGION"),
        (404, None, "url"),
        (405, None, "HTTP 405"),
        (415, None, "HTTP 415"),
        (408, Some(Delivery::Retry { after: None }), ""),
        (413, Some(Delivery::TooLarge), ""),
        (429, Some(Delivery::Retry { after: None }), ""),
        (500, Some(Delivery::Retry { after: None }), ""),
        (503, Some(Delivery::Retry { after: None }), ""),
    ] {
        let script = Arc::new(Script::default());
        script.answer(status, "{\"requestId\":\"canary\"}");
        let answer = exporter(&script).export(&[fresh("{}", "{}", None)]).await;
        match (expected, answer) {
            (Some(expected), answer) => assert_eq!(answer, expected, "{status}"),
            (None, Delivery::Refused { reason }) => {
                assert!(
                    reason.contains(part) && !reason.contains("canary") && !reason.contains(KEY),
                    "{reason}"
                );
            }
            (None, other) => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn init_says_that_nothing_can_be_asked_and_silence_is_judged() {
    let script = Arc::new(Script::default());
    let exporter = exporter(&script);
    exporter.init(&TelemetryConfig::default()).await.expect("init");
    let Health::Degraded(said) = exporter.health().await else { panic!("degraded") };
    assert!(said.contains("nothing sent yet") && script.seen().is_empty());
    let busy =
        Response::builder().status(429).header("retry-after", "30").body(Bytes::new()).expect("answer");
    script.then(Ok(busy)).then(Err(HttpError::Connect("refused".into())));
    script.then(Err(HttpError::NoAnswer("closed".into()))).answer(202, "");
    for (expected, healthy) in [
        (Delivery::Retry { after: Some(Duration::from_secs(30)) }, false),
        (Delivery::Retry { after: None }, false),
        (Delivery::Unknown, false),
        (Delivery::Delivered, true),
    ] {
        assert_eq!(exporter.export(&[fresh("{}", "{}", None)]).await, expected);
        assert_eq!(exporter.health().await == Health::Ok, healthy);
    }
}

#[tokio::test]
async fn the_region_is_the_settings_or_the_keys() {
    let (eu, gov) = (format!("eu01xx{}", &KEY[6..]), format!("gov01x{}", &KEY[6..]));
    for (key, region, host) in [
        (KEY, None, "log-api.newrelic.com"),
        (KEY, Some("US"), "log-api.newrelic.com"),
        (KEY, Some("eu"), "log-api.eu.newrelic.com"),
        (KEY, Some(""), "log-api.newrelic.com"),
        (&eu, None, "log-api.eu.newrelic.com"),
        (&eu, Some("EU"), "log-api.eu.newrelic.com"),
        (&gov, None, "gov-log-api.newrelic.com"),
        (KEY, Some("FedRAMP"), "gov-log-api.newrelic.com"),
    ] {
        let script = Arc::new(Script::default());
        script.answer(202, "");
        let settings = json!({ "license_key": key, "region": region });
        let exporter = create(&NewRelicPlugin, settings, &script).expect("settings");
        assert_eq!(exporter.export(&[fresh("{}", "{}", None)]).await, Delivery::Delivered);
        assert_eq!(script.seen()[0].uri().host(), Some(host), "{region:?}");
    }
}

#[test]
fn settings_are_checked_without_a_connection() {
    let script = Arc::new(Script::default());
    for (settings, part) in [
        (json!({}), "license_key: missing; set it, or the variable NEW_RELIC_LICENSE_KEY"),
        (json!({ "license_key": " " }), "license_key: missing"),
        (json!({ "license_key": "canary\ncanary" }), "license_key: expected the 40 characters"),
        (json!({ "license_key": "NRAK-canary" }), "license_key: is a user key"),
        (
            json!({ "license_key": "k", "region": "asia" }),
            "region: \"asia\" is none; expected us, eu or fedramp",
        ),
        (json!({ "license_key": "eu01xxcanary", "region": "us" }), "region: is us, but the key is one of eu"),
        (json!({ "license_key": "k", "url": "x:1" }), "url: begins with neither"),
        (json!({ "license_key": "k", "api_key": "x" }), "api_key"),
    ] {
        let error = create(&NewRelicPlugin, settings.clone(), &script).err().unwrap_or_default();
        assert!(error.contains(part) && !error.contains("canary"), "{settings}: {error}");
    }
    let spec = SettingsSpec::of::<NewRelicSettings>();
    let key = |name: &str| spec.keys().iter().find(|key| key.name == name).cloned().expect("a key");
    assert_eq!(key("license_key").kind, ValueKind::Secret);
    assert_eq!(key("license_key").env.as_deref(), Some("NEW_RELIC_LICENSE_KEY"));
    assert_eq!(key("region").env.as_deref(), Some("NEW_RELIC_REGION"));
}

/// What waits for longer would be refused in the end.
#[test]
fn records_wait_no_longer_than_the_back_end_takes_them() {
    let waits =
        magicapi_plugin::TelemetryPlugin::settings(&NewRelicPlugin).default_max_age().expect("a default");
    assert!(waits < encode::WINDOW && waits > encode::WINDOW / 2);
}
