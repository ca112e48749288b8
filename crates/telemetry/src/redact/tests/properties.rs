//! Properties of redaction: a secret in pieces, in any dialect's events, appears in no record; JSON stays JSON.

use std::sync::Arc;
use std::time::Duration;

use magicapi_plugin::{Facts, RequestMetrics, Secret, TelemetryConfig};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::samples::{Sample, samples};
use super::{bytes, chat_stream, chat_texts, joined, redactor, with_pii};
use crate::redact::{Content, Replace};
use crate::scripted::{Script, facts};
use crate::settings::{PipelineSettings, TelemetrySettings};
use crate::tap::{BodyKind, Finished};
use crate::telemetry::Telemetry;

/// The dialects' events for a text in pieces.
fn events(dialect: usize, pieces: &[String]) -> Vec<Value> {
    let event = |(at, piece): (usize, &String)| match dialect {
        0 => json!({"id": "c", "choices": [{"index": 0, "delta": {"content": piece}}]}),
        1 => {
            json!({"id": "c", "choices": [{"delta": {"tool_calls": [{"function": {"arguments": piece}, "index": 1}]},
            "index": 0}]})
        }
        2 => json!({"id": "c", "choices": [{"index": 0, "text": piece}]}),
        3 => json!({"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "delta": piece}),
        4 => {
            json!({"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": piece}})
        }
        5 => json!({"candidates": [{"content": {"parts": [{"text": piece}]}}]}),
        6 => json!({"seq": at, "something": {"new": [[piece]]}}),
        _ => json!(piece),
    };
    let mut events: Vec<Value> = pieces.iter().enumerate().map(event).collect();
    if dialect == 3 {
        events.push(json!({"type": "response.completed", "response": {"object": "response", "output": [
            {"content": [{"text": pieces.concat()}]}]}}));
    }
    events
}

fn strings(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, out)),
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            if !matches!(key.as_str(), "type" | "item_id" | "id") {
                strings(value, out);
            }
        }),
        _ => {}
    }
}

/// The exhaustive part: two chunks, every sort of secret, every offset; then one character per chunk.
#[test]
fn a_secret_cut_at_every_offset_appears_in_no_record() {
    let redactor = redactor(|_| {});
    for sample in samples() {
        let text = format!("So: {} ok", sample.text());
        let masked = format!("So: {} ok", sample.masked());
        let mut splits: Vec<Vec<&str>> = (0..=text.len()).map(|at| vec![&text[..at], &text[at..]]).collect();
        splits.push((0..text.len()).map(|at| &text[at..=at]).collect());
        for pieces in splits {
            let (response, streamed) = chat_stream(&pieces);
            let mut content =
                Content { response: Some(response), streamed_data: Some(streamed), ..Content::default() };
            redactor.apply(&mut content, &mut facts());
            let (joined, slices) = chat_texts(&content);
            assert_eq!((&joined, &slices.concat()), (&masked, &masked), "{pieces:?}");
        }
    }
}

/// The whole way: bytes of a stream through a tap, joined, redacted, sealed, handed to an exporter. Every sort of secret,
/// its first cut at every offset, over one to five chunks.
#[test]
fn a_secret_that_streams_by_appears_in_no_record_that_an_exporter_gets() {
    let script = Script::new([]);
    let setup = script.setup("x", PipelineSettings::default());
    let telemetry =
        Telemetry::start(TelemetrySettings::default(), Arc::default(), vec![setup]).expect("threads");
    let samples = samples();
    let mut sent = 0;
    for (number, text) in samples.iter().map(Sample::text).enumerate() {
        for first in 0..=text.len() {
            let mut cuts = vec![0, first, text.len()];
            // Up to three more, elsewhere each time.
            cuts.extend((1..=first % 4).map(|more| (first * (7 * more + 3) + 5) % (text.len() + 1)));
            cuts.sort_unstable();
            let mut stream = String::new();
            for pair in cuts.windows(2) {
                let delta = json!({ "content": &text[pair[0]..pair[1]] });
                let event = json!({ "id": "c", "choices": [{ "index": 0, "delta": delta }] });
                stream.extend(["data: ", &event.to_string(), "\n\n"]);
            }
            stream += "data: [DONE]\n\n";
            let mut facts = facts();
            facts.thread_id = Some(number.to_string());
            let mut tap = telemetry.tap();
            tap.request(bytes(&json!({ "messages": [{ "content": text }] })));
            stream.as_bytes().chunks(11).for_each(|piece| tap.response_chunk(piece));
            tap.finish(Finished { response_kind: BodyKind::EventStream, ..Finished::new(facts) });
            sent += 1;
        }
    }
    telemetry.shutdown(Duration::from_mins(1));
    let seen = script.seen.lock().expect("records");
    assert_eq!(seen.len(), sent);
    for record in seen.iter() {
        let number: usize =
            record.facts().thread_id.as_deref().and_then(|id| id.parse().ok()).expect("its number");
        let sample = &samples[number];
        let secret = serde_json::to_string(&sample.secret).expect("json");
        let secret = secret.trim_matches('"').as_bytes();
        for form in [record.otel_log_json().to_vec(), record.to_stored()] {
            assert!(memchr::memmem::find(&form, secret).is_none(), "{}", String::from_utf8_lossy(&form));
        }
        let log = record.to_otel_log();
        let mut joined = String::new();
        strings(&log["attributes"]["response"]["choices"], &mut joined);
        let (mut slices, mut found) = (String::new(), String::new());
        strings(&log["attributes"]["response"]["streamed_data"], &mut slices);
        strings(&log["attributes"]["request"], &mut found);
        let masked = sample.masked();
        assert_eq!((&joined, &slices, &found), (&masked, &masked, &masked));
        assert_eq!(record.facts().redacted.values().sum::<u64>(), 2, "{:?}", record.facts().redacted);
    }
}

/// Every place that a caller or a provider writes to, other than an answer's text: what a request says, has called and
/// is answered by its tools, and a label of the record.
fn everywhere(facts: &mut Facts, label: usize, text: &str) -> Value {
    let labels: [&mut Option<String>; 11] = [
        &mut facts.thread_id,
        &mut facts.org_id,
        &mut facts.user_id,
        &mut facts.project_id,
        &mut facts.experiment_id,
        &mut facts.model,
        &mut facts.project_name,
        &mut facts.requested_model,
        &mut facts.client_request_id,
        &mut facts.provider_request_id,
        &mut facts.error_message,
    ];
    match labels.into_iter().nth(label % 13) {
        Some(place) => *place = Some(text.to_owned()),
        None if label.is_multiple_of(2) => text.clone_into(&mut facts.path),
        None => facts.finish_reasons = vec![text.to_owned()],
    }
    let arguments = json!({ "key": text }).to_string();
    json!({ "model": "m", "system": text, "metadata": { "note": text }, "messages": [
        { "role": "user", "content": [{ "type": "text", "text": text }] },
        { "role": "assistant", "tool_calls": [{ "id": "c", "function": { "name": "f", "arguments": arguments } }] },
        { "role": "tool", "tool_call_id": "c", "content": text },
    ] })
}

/// Without chance: every secret and the words around it, the first cut at every offset, over one to five chunks, in the
/// dialects' texts and tool arguments, in every part of a request and every label. An offset of a long one comes in half of
/// the dialects and the next in the others: all of them would take twice the time.
#[test]
fn every_secret_at_every_offset_in_every_place_appears_in_no_record() {
    let redactor = redactor(|_| {});
    let config = Arc::new(TelemetryConfig::default());
    for (number, sample) in samples().iter().enumerate() {
        let (secret, length) = (&sample.secret, sample.text().len());
        let text = format!("it is {}.", sample.text());
        let begins = text.len() - length - 1;
        // However often it is escaped: of a key in lines, one line.
        let written = secret.lines().max_by_key(|line| line.len()).expect("a line");
        let turns = if length > 64 { 2 } else { 1 };
        for first in 0..=length {
            for dialect in (first % turns..8).step_by(turns) {
                // One to five chunks, the others cut elsewhere each time.
                let chunks = 1 + (first + dialect + number) % 5;
                let mut cuts = vec![0, text.len()];
                let more =
                    (1..chunks).map(|n| if n == 1 { first } else { (first * (5 * n + 2) + 3 * n) % length });
                cuts.extend(more.map(|at| begins + at));
                cuts.sort_unstable();
                let pieces: Vec<String> =
                    cuts.windows(2).map(|pair| text[pair[0]..pair[1]].to_owned()).collect();
                assert_eq!(pieces.len(), chunks);
                let (response, streamed) = joined(&events(dialect, &pieces));
                let mut facts = facts();
                let request = bytes(&everywhere(&mut facts, first * 8 + dialect, &text));
                let mut content = Content {
                    request: Some(request),
                    response: Some(response),
                    streamed_data: Some(streamed),
                    ..Content::default()
                };
                assert!(!redactor.apply(&mut content, &mut facts).failed);
                let (mut answer, mut slices) = (String::new(), String::new());
                for (body, out) in [(&content.response, &mut answer), (&content.streamed_data, &mut slices)] {
                    strings(&serde_json::from_slice(body.as_ref().expect("a body")).expect("json"), out);
                }
                assert!(
                    !answer.contains(secret) && !slices.contains(secret),
                    "{pieces:?}: {answer} {slices}"
                );
                let Content { request, response, streamed_data, .. } = content;
                let record = RequestMetrics::seal(facts, config.clone(), request, response, streamed_data);
                for form in [record.otel_log_json().to_vec(), record.to_stored()] {
                    let found = memchr::memmem::find(&form, written.as_bytes());
                    assert!(found.is_none(), "{pieces:?}: {}", String::from_utf8_lossy(&form));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Every secret, split at every offset over one to five chunks, appears in no record.
    #[test]
    fn a_secret_split_anywhere_appears_in_no_record(
        which in any::<prop::sample::Index>(),
        dialect in 0usize..8,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        before in "[a-zA-Z ,é\u{1F600}\"\\\\\n]{0,12}",
        after in "[a-zA-Z ,é\u{1F600}\"\n]{0,12}",
        hashed in any::<bool>(),
    ) {
        let all = samples();
        let sample = &all[which.index(all.len())];
        let (secret, text) = (&sample.secret, format!("{before} {} {after}", sample.text()));
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        ends.retain(|at| text.is_char_boundary(*at));
        let pieces: Vec<String> = ends.windows(2).map(|pair| text[pair[0]..pair[1]].to_owned()).collect();
        let redactor = redactor(|settings| if hashed {
            settings.replace = Replace::Hash;
            settings.hash_key = Secret::new("0123456789abcdef");
        });
        let (response, streamed) = joined(&events(dialect, &pieces));
        let count = serde_json::from_slice::<Vec<Value>>(&streamed).expect("json").len();
        let request = bytes(&json!({"messages": [{"content": text}]}));
        let mut content = Content { request: Some(request), response: Some(response),
            streamed_data: Some(streamed), ..Content::default() };
        let mut facts: Facts = facts();
        facts.error_message = Some(text.clone());
        let outcome = redactor.apply(&mut content, &mut facts);
        prop_assert!(!outcome.failed);
        let response_json: Value = serde_json::from_slice(content.response.as_ref().expect("a body")).expect("json");
        let streamed_json: Value = serde_json::from_slice(content.streamed_data.as_ref().expect("events")).expect("json");
        prop_assert_eq!(streamed_json.as_array().map(Vec::len), Some(count), "as many events");
        let (mut all_text, mut answer) = (String::new(), String::new());
        strings(&streamed_json, &mut all_text);
        strings(&response_json, &mut answer);
        prop_assert!(!all_text.contains(secret.as_str()) && !answer.contains(secret.as_str()), "{all_text} {answer}");
        prop_assert!(all_text.contains("[REDACTED:"), "{all_text}");
        if dialect == 0 {
            let (joined, slices) = chat_texts(&content);
            prop_assert_eq!(joined, slices.concat());
        }
        let record = RequestMetrics::seal(facts, Arc::new(TelemetryConfig::default()),
            content.request, content.response, content.streamed_data);
        let log = record.otel_log_json();
        let in_json = serde_json::to_string(secret).expect("json");
        let in_json = in_json.trim_matches('"');
        prop_assert!(memchr::memmem::find(&log, in_json.as_bytes()).is_none());
    }

    /// Personal data in pieces is found as well, and the pieces agree with the answer.
    #[test]
    fn personal_data_in_pieces_appears_in_no_record(
        which in prop::sample::select(vec!["jane.doe@example.co.uk", "4111 1111 1111 1111", "+49 30 901820",
            "DE89 3704 0044 0532 0130 00", "93.184.216.34", "2606:4700:4700::1111", "123-45-6789"]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let text = format!("It is {which}, or so.");
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let pieces: Vec<&str> = ends.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let (response, streamed) = chat_stream(&pieces);
        let mut content =
            Content { response: Some(response), streamed_data: Some(streamed), ..Content::default() };
        with_pii().apply(&mut content, &mut facts());
        let (joined, slices) = chat_texts(&content);
        prop_assert!(!joined.contains(which) && joined.starts_with("It is [REDACTED:"), "{}", joined);
        prop_assert_eq!(joined, slices.concat());
    }

    /// Whatever the JSON is, what comes back is JSON, and it is the same when nothing was found.
    #[test]
    fn json_stays_json(text in "[ -~é\u{1F600}\n]{0,80}", key in "[ -~]{0,30}", number in any::<i64>()) {
        let body = bytes(&json!({ &key: [text, {"x": number, &key: key}] }));
        let mut content = Content { request: Some(body), streamed_data: Some(bytes(&json!([text, key]))),
            ..Content::default() };
        let before = content.clone();
        let outcome = with_pii().apply(&mut content, &mut facts());
        prop_assert!(!outcome.failed);
        prop_assert_eq!(outcome.found.is_empty(), content == before);
        prop_assert!(serde_json::from_slice::<Value>(&content.request.expect("a body")).is_ok());
        prop_assert!(serde_json::from_slice::<Value>(&content.streamed_data.expect("events")).is_ok());
    }
}
