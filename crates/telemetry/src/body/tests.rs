use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use magicapi_plugin::{ContentLevel, RequestMetrics, TelemetryConfig};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Bodies, read};
use crate::core::Core;
use crate::memory::Reservation;
use crate::scripted::facts;
use crate::settings::CaptureSettings;
use crate::tap::{BodyKind, Capture, Captured, Finished, Tap};

/// The guide's stream (docs/from-the-guide.md), as Groq sends it.
const GROQ: &str = concat!(
    "data: {\"nonce\":\"0955\",\"id\":\"chatcmpl-ec855684-8495-420d-8807-9259228ac717\",",
    "\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},",
    "\"finish_reason\":null}]}\n\n",
    ": keep-alive\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\\"Moonlit Dreams\\\"\\n\\n\"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"The night is dark...\"},\"finish_reason\":null}]}\n\n",
    "data: {\"nonce\":\"d4fe\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],",
    "\"x_groq\":{\"usage\":{\"prompt_tokens\":38,\"completion_tokens\":256,\"total_tokens\":294}}}\n\n",
    "data: [DONE]\n\n",
);

fn capture(limits: CaptureSettings, fill: impl FnOnce(&mut Tap)) -> Box<Capture> {
    let core = Core::new(TelemetryConfig::default(), limits, Arc::default(), None);
    let mut tap = Tap::new(&core, limits);
    fill(&mut tap);
    tap.into_capture()
}

fn stream(limits: CaptureSettings, bytes: &[u8], size: usize, level: ContentLevel) -> Bodies {
    let mut capture = capture(limits, |tap| bytes.chunks(size).for_each(|chunk| tap.response_chunk(chunk)));
    let end = Finished { response_kind: BodyKind::EventStream, ..Finished::new(facts()) };
    read(&mut capture, &end, level)
}

/// A body that came whole, with this type and coding.
fn whole(bytes: &[u8], content_type: Option<&str>, coding: Option<&str>) -> Value {
    let mut capture = capture(CaptureSettings::default(), |tap| tap.request(Bytes::copy_from_slice(bytes)));
    let end = Finished {
        request_type: content_type.map(Into::into),
        request_coding: coding.map(Into::into),
        ..Finished::new(facts())
    };
    let bodies = read(&mut capture, &end, ContentLevel::Full);
    serde_json::from_slice(&bodies.request.expect("a body")).expect("json")
}

#[test]
fn the_guides_stream_becomes_the_guides_record() {
    let bodies = stream(CaptureSettings::default(), GROQ.as_bytes(), 11, ContentLevel::Full);
    let config = Arc::new(TelemetryConfig::default());
    let record = RequestMetrics::seal(facts(), config, None, bodies.response, bodies.streamed_data);
    let events: Vec<Value> = GROQ
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .filter(Value::is_object)
        .collect();
    assert_eq!(events.len(), 4);
    assert_eq!(
        record.to_otel_log()["attributes"]["response"],
        json!({
            "id": "chatcmpl-ec855684-8495-420d-8807-9259228ac717",
            "model": "llama-3.1-8b-instant",
            "choices": [{
                "index": 0,
                "delta": {"role": "assistant", "content": "\"Moonlit Dreams\"\n\nThe night is dark..."},
                "finish_reason": "stop",
                "logprobs": null
            }],
            "usage": {"prompt_tokens": 38, "completion_tokens": 256, "total_tokens": 294},
            "object": "chat.completion.chunk",
            "x_groq": {"usage": {"prompt_tokens": 38, "completion_tokens": 256, "total_tokens": 294}},
            "streamed_data": events,
        })
    );
    assert!(!record.otel_log_json().contains(&b'\n'));
}

#[test]
fn without_chunks_the_joined_answer_stays() {
    let bodies = stream(CaptureSettings::default(), GROQ.as_bytes(), 4096, ContentLevel::NoChunks);
    assert!(bodies.streamed_data.is_none());
    let response: Value = serde_json::from_slice(&bodies.response.expect("a body")).expect("json");
    assert_eq!(response["choices"][0]["finish_reason"], "stop");
    assert!(response.get("streamed_data").is_none());
}

#[test]
fn an_answer_that_names_streamed_data_itself_is_split_at_ours() {
    let event = "data: {\"id\":\"a\",\"nested\":{\"n\":1,\"streamed_data\":[1]},\"choices\":[]}\n\n";
    let bodies = stream(CaptureSettings::default(), event.as_bytes(), 4096, ContentLevel::Full);
    let response: Value = serde_json::from_slice(&bodies.response.expect("a body")).expect("json");
    assert_eq!(response["nested"]["streamed_data"], json!([1]));
    let events: Value = serde_json::from_slice(&bodies.streamed_data.expect("events")).expect("json");
    assert_eq!(events.as_array().map(Vec::len), Some(1));
}

#[test]
fn limits_of_a_stream_are_noted_where_they_cut() {
    let limits = CaptureSettings { max_chunks: 300, ..CaptureSettings::default() };
    let bodies = stream(limits, GROQ.as_bytes(), 64, ContentLevel::Full);
    assert!(bodies.truncated.streamed_data > 0 && bodies.truncated.response == 0, "{bodies:?}");
    let response: Value = serde_json::from_slice(&bodies.response.expect("a body")).expect("json");
    assert_eq!(response["choices"][0]["finish_reason"], "stop", "the joined answer is whole");
}

#[test]
fn an_event_that_cannot_be_read_is_kept_as_text_and_half_a_one_is_not() {
    let sent = b"data: {\"id\":\"a\",\"choices\":[]}\n\ndata: {\"bad\":\"\xff\"}\n\ndata: {\"half\":";
    let bodies = stream(CaptureSettings::default(), sent, 7, ContentLevel::Full);
    let events: Value = serde_json::from_slice(&bodies.streamed_data.expect("events")).expect("json");
    assert_eq!(events, json!([{ "id": "a", "choices": [] }, "{\"bad\":\"\u{fffd}\"}"]));
}

#[test]
fn a_stream_of_no_json_is_its_text() {
    let bodies = stream(CaptureSettings::default(), b"data: hello\n\n", 4096, ContentLevel::Full);
    let response: Value = serde_json::from_slice(&bodies.response.expect("a body")).expect("json");
    assert_eq!(response["text"], "data: hello\n\n");
}

#[test]
fn json_is_kept_token_for_token_and_shared() {
    let body = Bytes::from_static(b"{\"n\":1E5, \"n\":1e400}");
    let mut capture = capture(CaptureSettings::default(), |tap| tap.request(body.clone()));
    let bodies = read(&mut capture, &Finished::new(facts()), ContentLevel::Full);
    let kept = bodies.request.expect("a body");
    assert_eq!(kept, body);
    assert_eq!(kept.as_ptr(), body.as_ptr(), "by reference");
}

#[test]
fn what_is_no_json_describes_itself() {
    let broken = whole(b"{\"a\":", Some("application/json; charset=utf-8"), None);
    assert_eq!((&broken["bytes"], &broken["text"]), (&json!(5), &json!("{\"a\":")));
    assert_eq!(
        whole(b"abc", Some("audio/mpeg"), None),
        json!({"content_type": "audio/mpeg", "bytes": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"})
    );
    assert_eq!(whole(b"a\xffb", Some("text/plain"), None)["text"], "a\u{fffd}b");
    assert_eq!(whole(b"true", Some("text/plain"), None)["text"], "true");
    assert_eq!(whole(b"\xff", None, None).get("text"), None);
}

#[test]
fn multipart_lists_its_parts() {
    let body = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\nabc\r\n--b--\r\n";
    let parts = whole(body, Some("multipart/form-data; boundary=b"), None);
    assert_eq!(parts["bytes"], body.len());
    assert_eq!(parts["parts"][0]["text"], "whisper-1");
    assert_eq!(
        parts["parts"][1],
        json!({"name": "file", "filename": "a.mp3", "content_type": "audio/mpeg", "bytes": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"})
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn codings_are_undone_within_the_limit() {
    assert_eq!(whole(&gzip(b"{\"a\":1}"), Some("application/json"), Some("gzip")), json!({"a": 1}));
    let unknown = whole(b"{\"a\":1}", Some("application/json"), Some("gzip, br"));
    assert_eq!((&unknown["content_encoding"], unknown.get("text")), (&json!("gzip, br"), None));
    let broken = whole(b"not gzip at all", Some("text/plain"), Some("gzip"));
    assert_eq!((&broken["content_encoding"], &broken["bytes"]), (&json!("gzip"), &json!(15)));

    let bomb = gzip(&vec![b'a'; 1 << 20]);
    let limits = CaptureSettings { max_request: 4096, ..CaptureSettings::default() };
    let mut capture = capture(limits, |tap| tap.request(bomb.into()));
    let end = Finished {
        request_type: Some("text/plain".into()),
        request_coding: Some("gzip".into()),
        ..Finished::new(facts())
    };
    let bodies = read(&mut capture, &end, ContentLevel::Full);
    assert!(bodies.request.expect("a body").len() < 5000);
    assert!(bodies.truncated.request > 0);
}

#[test]
fn nothing_captured_is_no_document() {
    let mut capture = capture(CaptureSettings::default(), |tap| tap.request(Bytes::new()));
    let bodies = read(&mut capture, &Finished::new(facts()), ContentLevel::Full);
    assert!(bodies.request.is_none() && bodies.response.is_none() && bodies.truncated.is_empty());
    assert!(Captured::default().is_empty() && Reservation::empty(capture.core.budget()).bytes() == 0);
}

proptest! {
    #[test]
    fn any_body_is_one_line_of_json(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        kind in prop::option::of(prop::sample::select(vec!["text/plain", "application/json", "image/png",
            "multipart/form-data; boundary=x"])),
        coding in prop::option::of(prop::sample::select(vec!["gzip", "br", "zstd", "deflate", "identity", "x"])),
    ) {
        let document = whole(&bytes, kind, coding);
        prop_assert!(!document.is_null());
    }

    #[test]
    fn a_stream_is_the_same_at_any_split(size in 1usize..400) {
        let one = stream(CaptureSettings::default(), GROQ.as_bytes(), GROQ.len(), ContentLevel::Full);
        let many = stream(CaptureSettings::default(), GROQ.as_bytes(), size, ContentLevel::Full);
        prop_assert_eq!((one.response, one.streamed_data), (many.response, many.streamed_data));
    }
}
