use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{
    Delivery, Health, HttpError, ItemOutcome, SettingsSpec, TelemetryConfig, TelemetryExporter, ValueKind,
};
use serde_json::{Value, json};

use super::client::sign;
use super::{WebhookPlugin, WebhookSettings};
use crate::testing::{Script, batch, create};

/// The secret and the message of the reference implementations' own test.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn exporter(more: &Value, script: &Arc<Script>) -> Box<dyn TelemetryExporter> {
    let mut settings = json!({ "url": "https://hooks.example/in?token=canary" });
    for (key, value) in more.as_object().expect("settings") {
        settings[key] = value.clone();
    }
    create(&WebhookPlugin, settings, script).expect("settings")
}

fn key() -> Vec<u8> {
    STANDARD.decode(SECRET.trim_start_matches("whsec_")).expect("base64")
}

/// What a receiver after the Standard Webhooks' specification does: looks at the time, and signs again.
fn verify(request: &Request<Bytes>) -> String {
    let header = |name: &str| request.headers()[name].to_str().expect("ASCII").to_owned();
    let (id, at) = (header("webhook-id"), header("webhook-timestamp").parse().expect("seconds"));
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(at));
    assert!(age.expect("not of tomorrow") < Duration::from_mins(5));
    assert!(!id.contains('.') && !id.is_empty());
    assert_eq!(sign(&key(), &id, at, request.body()), Some(header("webhook-signature")));
    id
}

/// The example in the specification's reference libraries.
#[test]
fn the_signature_is_the_one_of_the_reference() {
    assert_eq!(
        sign(&key(), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}").as_deref(),
        Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
    );
}

#[tokio::test]
async fn an_array_signed() {
    let script = Arc::new(Script::default());
    script.answer(204, "");
    let exporter = exporter(&json!({ "secret": SECRET, "headers": { "X-Tenant": "t-1" } }), &script);
    assert_eq!(exporter.export(&batch(2)).await, Delivery::Delivered);
    assert_eq!(exporter.health().await, Health::Ok);
    let [request] = script.seen().try_into().expect("one request");
    assert_eq!(request.uri().to_string(), "https://hooks.example/in?token=canary");
    let headers = request.headers();
    assert_eq!(
        (request.method().as_str(), headers["content-type"].as_bytes()),
        ("POST", &b"application/json"[..])
    );
    assert_eq!(headers["content-length"], request.body().len().to_string().as_str());
    assert!(headers["x-tenant"] == "t-1" && headers["x-tenant"].is_sensitive());
    assert!(headers.get("content-encoding").is_none());
    verify(&request);
    let body: Value = serde_json::from_slice(request.body()).expect("json");
    let records: Vec<_> = batch(2).iter().map(|record| record.to_otel_log()).collect();
    assert_eq!(body, Value::from(records));
    // New keys of the record change it: INSTA_UPDATE=always cargo test -p magicapi-exporters
    insta::assert_snapshot!(std::str::from_utf8(request.body()).expect("utf-8"));
}

#[tokio::test]
async fn lines_packed() {
    let script = Arc::new(Script::default());
    script.answer(200, "ok");
    let settings = json!({ "secret": SECRET, "format": "ndjson", "compression": "gzip" });
    assert_eq!(exporter(&settings, &script).export(&batch(3)).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    assert_eq!(request.headers()["content-type"], "application/x-ndjson");
    assert_eq!(request.headers()["content-encoding"], "gzip");
    verify(&request);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&request.body()[..]).read_to_string(&mut text).expect("gzip");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert_eq!(lines, batch(3).iter().map(|record| record.to_otel_log()).collect::<Vec<_>>());
    assert!(text.ends_with('\n'));
}

#[tokio::test]
async fn a_batch_keeps_its_id_as_long_as_it_is_not_cut_anew() {
    let script = Arc::new(Script::default());
    (0..4).for_each(|_| {
        script.answer(503, "");
    });
    let settings = json!({ "secret": SECRET });
    let first = exporter(&settings, &script);
    assert_eq!(first.export(&batch(2)).await, Delivery::Retry { after: None });
    assert_eq!(first.export(&batch(2)).await, Delivery::Retry { after: None });
    // After a restart, and another batch.
    exporter(&settings, &script).export(&batch(2)).await;
    first.export(&batch(3)).await;
    let seen = script.seen();
    let ids: Vec<_> = seen.iter().map(verify).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    assert_eq!(seen[0].body(), seen[2].body(), "and its bytes");
    // Two of the same records in another cut: only their own ids are the same.
    let own = |request: &Request<Bytes>| {
        let records: Vec<Value> = serde_json::from_slice(request.body()).expect("json");
        records.iter().map(|record| record["attributes"]["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(own(&seen[0]), own(&seen[3])[..2]);
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let script = Arc::new(Script::default());
    script.answer(200, "");
    let exporter = exporter(&json!({ "secret": "" }), &script);
    exporter.init(&TelemetryConfig::default()).await.expect("init");
    assert!(matches!(exporter.health().await, Health::Degraded(_)) && script.seen().is_empty());
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Delivered);
    let [request] = script.seen().try_into().expect("one request");
    assert!(request.headers().get("webhook-signature").is_none());
    assert!(request.headers().get("webhook-id").is_some());
}

/// A receiver names no record, and those beside the one that it means are good.
#[tokio::test]
async fn a_rejected_batch_is_to_be_halved() {
    let script = Arc::new(Script::default());
    script.then(Ok(Response::builder().status(400).body("".into()).expect("an answer")));
    assert_eq!(exporter(&json!({}), &script).export(&batch(2)).await, Delivery::TooLarge);
}

#[tokio::test]
async fn whole_answers_are_judged() {
    let retry = Delivery::Retry { after: Some(Duration::from_secs(7)) };
    let rejected =
        |status: u16| Delivery::Items(vec![ItemOutcome::Rejected { reason: format!("HTTP {status}") }]);
    let lists = json!({ "retry_on": [404, 302], "reject_on": [409, 501], "refuse_on": [429, 503] });
    for (settings, status, expected) in [
        (json!({}), 200, Some(Delivery::Delivered)),
        (json!({}), 299, Some(Delivery::Delivered)),
        (json!({}), 400, Some(rejected(400))),
        (json!({}), 422, Some(rejected(422))),
        (json!({}), 408, Some(retry.clone())),
        (json!({}), 425, Some(retry.clone())),
        (json!({}), 429, Some(retry.clone())),
        (json!({}), 500, Some(retry.clone())),
        (json!({}), 599, Some(retry.clone())),
        (json!({}), 413, Some(Delivery::TooLarge)),
        (json!({}), 301, None),
        (json!({}), 401, None),
        (json!({}), 403, None),
        (json!({}), 404, None),
        (json!({}), 410, None),
        (json!({}), 418, None),
        (lists.clone(), 404, Some(retry.clone())),
        (lists.clone(), 302, Some(retry.clone())),
        (lists.clone(), 409, Some(rejected(409))),
        (lists.clone(), 501, Some(rejected(501))),
        (lists.clone(), 502, Some(retry.clone())),
        (lists.clone(), 429, None),
        (lists.clone(), 503, None),
        (lists, 400, None),
    ] {
        let script = Arc::new(Script::default());
        let answer = Response::builder().status(status).header("retry-after", "7").body("canary".into());
        script.then(Ok(answer.expect("an answer")));
        let exporter = exporter(&settings, &script);
        match (expected, exporter.export(&batch(1)).await) {
            (Some(expected), answer) => assert_eq!(answer, expected, "{status}"),
            (None, Delivery::Refused { reason }) => {
                assert!(reason.contains(&status.to_string()) && !reason.contains("canary"), "{reason}");
                assert_eq!(exporter.health().await, Health::Down(reason));
            }
            (None, other) => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn silence_is_judged() {
    let script = Arc::new(Script::default());
    script.then(Err(HttpError::Connect("refused".into()))).then(Err(HttpError::NoAnswer("closed".into())));
    let exporter = exporter(&json!({}), &script);
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Retry { after: None });
    assert!(matches!(exporter.health().await, Health::Down(_)));
    assert_eq!(exporter.export(&batch(1)).await, Delivery::Unknown);
}

#[test]
fn settings_are_checked_without_a_connection() {
    let script = Arc::new(Script::default());
    let url = "https://hooks.example/canary";
    let short = format!("whsec_{}", STANDARD.encode("canary"));
    for (settings, part) in [
        (json!({}), "url: missing; set it, or the variable WEBHOOK_URL"),
        (json!({ "url": "hooks.example/canary" }), "url: not an address"),
        (json!({ "url": "ftp://canary" }), "url: begins with neither"),
        (json!({ "url": "http://u:canary@x/" }), "url: holds a user"),
        (json!({ "url": "http://x/#canary" }), "url: expected scheme"),
        (json!({ "url": "http://x canary" }), "url: not an address"),
        (json!({ "url": url, "secret": "canary" }), "secret: does not begin with whsec_"),
        (json!({ "url": url, "secret": "whsec_canary!" }), "secret: is not base64"),
        (json!({ "url": url, "secret": short }), "secret: is a key of 6 bytes; expected 24 to 64"),
        (json!({ "url": url, "headers": { "a b": "x" } }), "headers.a b: is no name"),
        (json!({ "url": url, "headers": { "x-a": "canary\n" , "x-b": "a\nb" } }), "headers.x-b: its value"),
        (json!({ "url": url, "headers": { "X-A": "canary" , "x-a": "y" } }), "headers.x-a: is there twice"),
        (json!({ "url": url, "headers": { "Content-Type": "x" } }), "headers.Content-Type: is set by"),
        (json!({ "url": url, "headers": { "webhook-id": "x" } }), "headers.webhook-id: is set by"),
        (json!({ "url": url, "retry_on": [200] }), "retry_on: 200 cannot be listed"),
        (json!({ "url": url, "reject_on": [413] }), "reject_on: 413 cannot be listed"),
        (json!({ "url": url, "refuse_on": [429] }), "refuse_on: 429 stands in retry_on too"),
        (json!({ "url": url, "format": "xml" }), "xml"),
        (json!({ "url": url, "method": "PUT" }), "method"),
    ] {
        let error = create(&WebhookPlugin, settings.clone(), &script).err().unwrap_or_default();
        assert!(error.contains(part) && !error.contains("canary"), "{settings}: {error}");
    }
}

#[test]
fn the_spec_marks_what_is_secret() {
    let spec = SettingsSpec::of::<WebhookSettings>();
    let key = |name: &str| spec.keys().iter().find(|key| key.name == name).cloned().expect("a key");
    assert_eq!((key("url").kind, key("url").env.as_deref()), (ValueKind::Secret, Some("WEBHOOK_URL")));
    assert_eq!(
        (key("secret").kind, key("secret").env.as_deref()),
        (ValueKind::Secret, Some("WEBHOOK_SECRET"))
    );
    // Values of mappings are masked wherever settings are shown.
    assert_eq!(key("headers").kind, ValueKind::Map);
}

#[tokio::test]
async fn a_receiver_may_give_its_delay_as_a_date() {
    let script = Arc::new(Script::default());
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(10));
    let answer = Response::builder().status(429).header("retry-after", date).body(Bytes::new());
    script.then(Ok(answer.expect("an answer")));
    let exporter = exporter(&json!({}), &script);
    let Delivery::Retry { after: Some(after) } = exporter.export(&batch(1)).await else { panic!("a delay") };
    assert!((500..=600).contains(&after.as_secs()), "{after:?}");
}
