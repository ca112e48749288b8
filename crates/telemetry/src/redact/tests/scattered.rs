//! Streams whose events each have a place of their own: a secret stands in them in pieces, and in no place whole.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{bytes, redactor};
use crate::redact::{Content, Outcome};
use crate::scripted::facts;

const KEY: &str = "sk-proj-aB3dE5fG7hJ9kL2mN4pQ6rS8";

/// The events after redaction, beside this request.
fn events_of(request: Option<Value>, events: &[Value]) -> (Vec<Value>, Outcome) {
    let streamed_data = Some(bytes(&Value::from(events.to_vec())));
    let request = request.map(|request| bytes(&request));
    let mut content = Content { request, streamed_data, ..Content::default() };
    let outcome = redactor(|_| {}).apply(&mut content, &mut facts());
    assert!(!outcome.failed);
    let events: Bytes = content.streamed_data.expect("events");
    (serde_json::from_slice(&events).expect("json"), outcome)
}

/// The text in pieces of five bytes, an event for each, and an event that holds all of it.
fn stream(text: &str, event: impl Fn(usize, &str) -> Value, last: impl Fn(&str) -> Value) -> Vec<Value> {
    let pieces = text.as_bytes().chunks(5).map(|piece| std::str::from_utf8(piece).expect("ascii"));
    let mut events: Vec<Value> = pieces.enumerate().map(|(number, piece)| event(number, piece)).collect();
    events.push(last(text));
    events
}

/// As GitHub Copilot streams `/responses`.
#[test]
fn an_item_id_that_changes_tells_nothing_beside_the_index_of_its_output() {
    let text = format!("It is {KEY}, keep it.");
    let event = |number: usize, piece: &str| {
        json!({ "type": "response.output_text.delta", "item_id": format!("item-{number}"), "output_index": 0,
                "content_index": 0, "delta": piece })
    };
    let done = |text: &str| json!({ "type": "response.output_text.done", "item_id": "z", "output_index": 0, "text": text });
    let events = stream(&text, event, done);
    let (got, _) = events_of(None, &events);
    let said: String = got.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(said, "It is [REDACTED:openai_key], keep it.");
    assert_eq!(got.last().expect("an event")["text"], "It is [REDACTED:openai_key], keep it.");
    assert_eq!(got.len(), events.len());
}

#[test]
fn what_stands_across_places_of_one_piece_takes_the_events_out() {
    let text = format!("It is {KEY}, keep it.");
    let counted = |number: usize, piece: &str| json!({ "index": number, "token": { "text": piece }, "generated_text": null });
    let whole = |text: &str| json!({ "index": 99, "token": { "text": "." }, "generated_text": text });
    let named = |number: usize, piece: &str| json!({ "type": "delta", "item_id": number.to_string(), "delta": piece });
    let done = |text: &str| json!({ "type": "done", "item_id": "z", "text": text });
    for events in [stream(&text, counted, whole), stream(&text, named, done)] {
        let (got, outcome) = events_of(None, &events);
        assert!(got.iter().all(|event| event.get("redacted").is_some()), "{got:?}");
        assert_eq!(got.len(), events.len());
        assert!(outcome.found.iter().any(|found| found.name == "openai_key"));
    }
}

/// Its name is in one piece, the secret whole in another; and two pieces are enough.
#[test]
fn what_says_that_it_is_a_secret_may_stand_in_another_piece() {
    let event = |number: usize, piece: &str| json!({ "type": "delta", "item_id": number.to_string(), "delta": piece });
    for pieces in [
        &["the password", "=", "hunter2!", " ok"][..],
        &["It is sk-proj-aB3dE5fG7", "hJ9kL2mN4pQ6rS8."],
        &["my password: ", "hunter2!"],
    ] {
        let events: Vec<Value> =
            pieces.iter().enumerate().map(|(number, piece)| event(number, piece)).collect();
        let (got, _) = events_of(None, &events);
        assert!(got.iter().all(|event| event.get("redacted").is_some()), "{got:?}");
    }
}

/// A place is looked at once, however much stands in it.
#[test]
fn what_each_place_has_by_itself_is_masked_there() {
    let text = |number: usize| format!("{}the end", format!("password=hunter{number}!x ").repeat(20_000));
    let event =
        |number: usize| json!({ "type": "done", "item_id": number.to_string(), "text": text(number) });
    let (got, outcome) = events_of(None, &[event(1), event(2)]);
    for (event, number) in got.iter().zip([1, 2]) {
        let masked = text(number).replace(&format!("hunter{number}!x"), "[REDACTED:password]");
        assert!(event["text"] == masked.as_str());
    }
    assert_eq!(outcome.found.iter().map(|found| found.count).sum::<u64>(), 40_000);
}

/// Blocks have names and ids side by side, and texts that begin and end as they like.
#[test]
fn parallel_texts_and_names_stay() {
    let call = |index: usize, name: &str| {
        json!({ "type": "content_block_start", "index": index, "content_block": { "type": "tool_use",
                "id": format!("functions.{name}:{index}"), "name": name, "input": {} } })
    };
    let part = |index: usize, text: &str| json!({ "type": "content_block_delta", "index": index, "delta": { "partial_json": text } });
    let mut events = Vec::new();
    for (index, name) in ["reset_password", "get_access_token", "reset_password"].into_iter().enumerate() {
        events.push(call(index, name));
        events.extend(["{\"user\":", "\"jane\"", "}"].map(|text| part(index, text)));
    }
    let (got, outcome) = events_of(None, &events);
    assert_eq!((got, outcome), (events, Outcome::default()));
}

/// Its form says nothing; the request does, by the name beside it.
#[test]
fn what_is_known_from_elsewhere_is_found_across_places_as_well() {
    let counted = |number: usize, piece: &str| json!({ "index": number, "token": { "text": piece } });
    let last = |_: &str| json!({ "index": 99, "token": { "text": "." } });
    let events = stream("now it is hunter2!x7, yes", counted, last);
    let (unchanged, outcome) = events_of(None, &events);
    assert_eq!((unchanged, outcome), (events.clone(), Outcome::default()));
    let request = json!({ "messages": [{ "role": "user", "content": "password=hunter2!x7" }] });
    let (got, _) = events_of(Some(request), &events);
    assert!(got.iter().all(|event| event.get("redacted").is_some()), "{got:?}");
}

/// More than any stream has: content goes, and the record says so.
#[test]
fn so_many_places_that_they_fill_the_memory_cost_the_content() {
    let texts: Vec<String> = (0..300_000).map(|number| number.to_string()).collect();
    let streamed_data = Some(bytes(&json!([{ "delta": texts }])));
    let mut content = Content { streamed_data, ..Content::default() };
    let outcome = redactor(|_| {}).apply(&mut content, &mut facts());
    assert!(outcome.failed && content == Content::default());
}
