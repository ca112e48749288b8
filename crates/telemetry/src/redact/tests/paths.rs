//! Configured paths: they hold as well for bodies that are no whole JSON.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::redactor;
use crate::scripted::{Script, facts};
use crate::settings::{CaptureSettings, PipelineSettings, TelemetrySettings};
use crate::tap::{BodyKind, Finished, Tap};
use crate::telemetry::Telemetry;

const MASK: &str = "[REDACTED:path]";

/// The attributes of a record that is taken with these paths, whose bodies may have so many bytes.
fn record(paths: &[&str], limit: usize, fill: impl FnOnce(&mut Tap), end: Finished) -> Value {
    let script = Script::new([]);
    let capture = CaptureSettings { max_request: limit, max_response: limit, ..CaptureSettings::default() };
    let redactor =
        redactor(|settings| settings.paths = paths.iter().map(|path| (*path).to_owned()).collect());
    let settings =
        TelemetrySettings { capture, redactor: Some(Arc::new(redactor)), ..TelemetrySettings::default() };
    let exporters = vec![script.setup("x", PipelineSettings::default())];
    let telemetry = Telemetry::start(settings, Arc::default(), exporters).expect("threads");
    let mut tap = telemetry.tap();
    fill(&mut tap);
    tap.finish(end);
    telemetry.shutdown(Duration::from_mins(1));
    let seen = script.seen.lock().expect("records");
    seen.first().expect("a record").to_otel_log()["attributes"].clone()
}

fn end(content_type: &str) -> Finished {
    Finished {
        request_type: Some(content_type.into()),
        response_type: Some(content_type.into()),
        ..Finished::new(facts())
    }
}

#[test]
fn paths_into_a_body_that_is_no_whole_json_mask_all_that_it_says() {
    let whole = json!({"messages": [{"role": "user", "content": "Jane is ill"}]}).to_string();
    let broken = whole.replace(']', "");
    let form = concat!(
        "--b\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\nJane is ill\r\n",
        "--b\r\ncontent-disposition: form-data; name=\"user\"\r\n\r\nJane\r\n--b--\r\n"
    );
    let json = "application/json";
    for (body, limit, content_type) in [
        (whole.as_str(), 48, json),
        (&broken, 1 << 20, json),
        ("Jane is ill", 1 << 20, "text/plain"),
        (form, 1 << 20, "multipart/form-data; boundary=b"),
    ] {
        for path in ["$.request.messages[*].content", "..email"] {
            let fill = |tap: &mut Tap| {
                tap.request(Bytes::copy_from_slice(body.as_bytes()));
                tap.response(Bytes::copy_from_slice(body.as_bytes()));
            };
            let attributes = record(&[path], limit, fill, end(content_type));
            let said = attributes["request"].to_string();
            assert!(said.contains(MASK) && !said.contains("Jane"), "{path}: {said}");
            assert_eq!(attributes["request"]["content_type"], content_type, "the description stays");
            let is_said = attributes["response"].to_string().contains("Jane");
            assert_eq!(is_said, path.starts_with('$'), "{path} of the response");
        }
    }
}

#[test]
fn an_interrupted_answer_and_events_that_cannot_be_read_say_nothing_either() {
    // No event ends: nothing can be joined.
    let cut = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Jane is";
    // The second event is no JSON.
    let broken = concat!(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Jane\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" Jane\"}}\n\n"
    );
    for stream in [cut, broken] {
        let end = Finished { response_kind: BodyKind::EventStream, ..end("text/event-stream") };
        let fill = |tap: &mut Tap| tap.response_chunk(stream.as_bytes());
        let attributes = record(&["$.response.choices[*].delta.content"], 1 << 20, fill, end);
        let said = attributes["response"].to_string();
        assert!(said.contains(MASK) && !said.contains("Jane"), "{said}");
    }
}

#[test]
fn bodies_into_which_no_path_leads_keep_what_they_say() {
    let fill = |tap: &mut Tap| tap.request(Bytes::from_static(b"Jane is ill"));
    let attributes = record(&["$.response.text", "$.user_id"], 1 << 20, fill, end("text/plain"));
    assert_eq!(attributes["request"]["text"], "Jane is ill");
}

#[test]
fn a_path_masks_a_label_and_all_labels_below_it() {
    for (path, model, error) in [
        ("$.model", MASK, "no such thing"),
        ("$.metadata", "gpt-x", MASK),
        ("$.metadata.error_message", "gpt-x", MASK),
        ("$..error_message", "gpt-x", MASK),
    ] {
        let mut end = end("text/plain");
        end.facts.model = Some("gpt-x".into());
        end.facts.error_message = Some("no such thing".into());
        let attributes = record(&[path], 1 << 20, |_| {}, end);
        assert_eq!(
            (&attributes["model"], &attributes["metadata"]["error_message"]),
            (&json!(model), &json!(error))
        );
        let path_label = attributes["metadata"]["path"] == MASK;
        assert_eq!(path_label, path == "$.metadata", "{attributes}");
    }
}
