//! Configured paths in streams: what they mask in the answer stands in no event.

use serde_json::{Value, json};

use super::{joined, redactor};
use crate::redact::Content;
use crate::scripted::facts;

const MASK: &str = "[REDACTED:path]";

/// The answer and its events under these paths.
fn masked(paths: &[&str], events: &[Value]) -> (Value, Vec<Value>) {
    let (response, streamed) = joined(events);
    let mut content =
        Content { response: Some(response), streamed_data: Some(streamed), ..Content::default() };
    let redactor =
        redactor(|settings| settings.paths = paths.iter().map(|path| (*path).to_owned()).collect());
    assert!(!redactor.apply(&mut content, &mut facts()).failed);
    let read = |body: Option<bytes::Bytes>| serde_json::from_slice(&body.expect("a body")).expect("json");
    (read(content.response), serde_json::from_value(read(content.streamed_data)).expect("events"))
}

/// What `/responses` streams for one message and one call of a tool.
fn responses() -> Vec<Value> {
    let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
    let message = |text: &str| json!({ "id": "msg_1", "type": "message", "status": "completed", "content": [part(text)] });
    let call = |arguments: &str| json!({ "id": "fc_1", "type": "function_call", "name": "getWard", "arguments": arguments });
    let response = |output: &[Value]| json!({ "id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": output });
    let arguments = "{\"who\":\"Jane\"}";
    let event = |kind: &str, mut more: Value| {
        more["type"] = json!(format!("response.{kind}"));
        more
    };
    let text = |more: Value| {
        let mut text = json!({ "item_id": "msg_1", "output_index": 0, "content_index": 0 });
        text.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        text
    };
    vec![
        event("created", json!({ "response": response(&[]) })),
        event("output_item.added", json!({ "output_index": 0, "item": message("") })),
        event("content_part.added", text(json!({ "part": part("") }))),
        event("output_text.delta", text(json!({ "delta": "Jane is " }))),
        event("output_text.delta", text(json!({ "delta": "ill, Jane" }))),
        event("output_text.done", text(json!({ "text": "Jane is ill, Jane" }))),
        event("content_part.done", text(json!({ "part": part("Jane is ill, Jane") }))),
        event("output_item.done", json!({ "output_index": 0, "item": message("Jane is ill, Jane") })),
        event(
            "function_call_arguments.delta",
            json!({ "output_index": 1, "item_id": "fc_1", "delta": arguments }),
        ),
        event(
            "function_call_arguments.done",
            json!({ "output_index": 1, "item_id": "fc_1", "arguments": arguments }),
        ),
        event("output_item.done", json!({ "output_index": 1, "item": call(arguments) })),
        event("completed", json!({ "response": response(&[message("Jane is ill, Jane"), call(arguments)]) })),
    ]
}

#[test]
fn a_path_into_an_answer_of_another_shape_leads_to_its_texts_in_the_events() {
    let events = responses();
    for paths in [
        &["$.response.output"][..],
        &["$.response.output[*]"],
        &["$.response.output[*].content", "$.response.output[1]"],
        &["$.response.output[0].content[0].text", "$.response.output[1].arguments"],
        &["..text", "..arguments"],
        &["$.response.output[*].*"],
    ] {
        // To the end, and interrupted after each event.
        for length in 1..=events.len() {
            let (answer, got) = masked(paths, &events[..length]);
            let said = format!("{answer} {}", Value::from(got.clone()));
            assert!(!said.contains("Jane"), "{paths:?}, {length}: {said}");
            for (event, before) in got.iter().zip(&events) {
                assert_eq!(event["type"], before["type"], "{paths:?}: {event}");
            }
            assert_eq!(got.len(), length);
        }
    }
    let (_, got) = masked(&["$.response.output[0].content[0].text"], &events);
    assert_eq!(
        (&got[3]["delta"], &got[4]["delta"], &got[5]["text"]),
        (&json!(MASK), &json!(""), &json!(MASK))
    );
    assert_eq!((&got[3]["item_id"], &got[8]), (&json!("msg_1"), &events[8]), "what no path leads to stays");
    let (answer, got) = masked(&["$.response.output[1].id"], &events);
    assert_eq!((&answer["output"][1]["id"], &got[8]["item_id"]), (&json!(MASK), &json!(MASK)));
    assert_eq!(got[3], events[3]);
}

#[test]
fn an_index_is_an_elements_own_in_events() {
    let event = |index: usize, text: &str| {
        let calls = json!([{ "index": index, "function": { "arguments": text } }]);
        let delta = json!({ "content": text, "tool_calls": calls });
        json!({ "id": "c", "choices": [{ "index": index, "delta": delta }] })
    };
    let events =
        [event(1, "Jane "), event(0, "Somebody "), event(1, "is ill"), event(0, "is well"), event(0, ".")];
    let paths = |choice: usize| {
        let delta = format!("$.response.choices[{choice}].delta");
        [format!("{delta}.content"), format!("{delta}.tool_calls[{choice}].function.arguments")]
    };
    for (choice, gone, stays) in [(1, "ill", "Somebody is well."), (0, "well", "Jane is ill")] {
        let paths = paths(choice);
        let (answer, got) = masked(&[&paths[0], &paths[1]], &events);
        let said = format!("{answer} {}", Value::from(got.clone()));
        assert!(!said.contains(gone), "{said}");
        assert_eq!(answer["choices"][1 - choice]["delta"]["content"], stays);
        let of_other = got.iter().filter(|event| event["choices"][0]["index"] == 1 - choice);
        let slices: String =
            of_other.filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(slices, stays);
    }
}

/// One choice alone, whose place in the joined answer is not its index: both are taken for it there.
#[test]
fn an_index_that_is_no_position_masks_as_well() {
    let event = |text: &str| json!({ "choices": [{ "index": 1, "delta": { "content": text } }] });
    for path in ["$.response.choices[1].delta.content", "$.response.choices[0].delta.content"] {
        let (answer, got) = masked(&[path], &[event("Jane "), event("is ill")]);
        assert_eq!(answer["choices"][0]["delta"]["content"], MASK);
        let said = Value::from(got).to_string();
        assert!(!said.contains("Jane") && !said.contains("ill"), "{said}");
    }
}

/// What stands there when content was taken out.
fn taken(events: &[Value]) -> Vec<Value> {
    events.iter().map(|event| json!({ "redacted": event.to_string().len() })).collect()
}

#[test]
fn events_that_show_what_a_path_masks_are_taken_out() {
    let more = |text: &str| json!({ "type": "response.thing.more", "output_index": 0, "piece": text });
    let end =
        json!({ "type": "response.completed", "response": { "object": "response", "text": "Jane is ill" } });
    let events = [more("Jane is ill"), more("or well"), end];
    let (answer, got) = masked(&["$.response.text"], &events);
    assert_eq!((&answer["text"], got), (&json!(MASK), taken(&events)));
    // Names and words of the dialect are no such thing.
    let (_, got) = masked(&["$.response.output"], &responses());
    assert_eq!(got[11]["response"]["status"], "completed");
}

/// As `/v1/messages` streams: nothing says where in the answer these texts belong.
#[test]
fn events_of_which_nobody_knows_where_they_belong_are_taken_out() {
    let delta = |text: &str| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } });
    let named = [
        json!({ "type": "message_start", "message": { "id": "msg_1", "role": "assistant", "content": [] } }),
        json!({ "type": "ping" }),
        delta("Jane "),
        delta("is ill"),
        json!({ "type": "message_stop" }),
    ];
    let unnamed = [json!({ "contentBlockIndex": 0, "delta": { "text": "Jane is ill" } })];
    let list = [json!(["Jane is ill"])];
    for path in ["$.response.content[*].text", "$.response.usage", "$.response.output[*].content"] {
        for events in [&named[..], &unnamed, &list] {
            assert_eq!(masked(&[path], events).1, taken(events), "{path}");
        }
        let chat = json!({ "id": "c", "choices": [{ "index": 0, "delta": { "content": "well" } }] });
        let error = json!({ "error": { "message": "too many" } });
        let innocent = [json!({ "type": "keepalive", "sequence_number": 3 }), chat, error];
        assert_eq!(masked(&[path], &innocent).1, innocent, "{path}");
    }
    assert_eq!(masked(&["$.request.messages"], &named).1, named, "no path leads into the answer");
    // Chunks without a name have the shape of their answer.
    let chunk = |text: &str| json!({ "candidates": [{ "content": { "parts": [{ "text": text }] } }] });
    let (_, got) =
        masked(&["$.response.candidates[*].content.parts[*].text"], &[chunk("Jane "), chunk("is ill")]);
    assert_eq!(got, [chunk(MASK), chunk("")]);
}

#[test]
fn events_alone_can_be_masked() {
    let (response, streamed) =
        joined(&[json!({ "id": "c", "choices": [{ "index": 0, "delta": { "content": "Jane" } }] })]);
    for path in ["$.response.streamed_data", "$..streamed_data"] {
        let redactor = redactor(|settings| settings.paths = vec![path.to_owned()]);
        let mut content = Content {
            response: Some(response.clone()),
            streamed_data: Some(streamed.clone()),
            ..Content::default()
        };
        let outcome = redactor.apply(&mut content, &mut facts());
        assert_eq!(content.streamed_data.as_deref(), Some(&b"[\"[REDACTED:path]\"]"[..]), "{path}");
        assert_eq!(content.response.as_ref(), Some(&response), "{path}");
        assert!(outcome.found.iter().any(|found| found.name == "path" && found.count == 1), "{outcome:?}");
    }
}

#[test]
fn a_path_leads_to_an_annotation_that_is_added() {
    let cited =
        |title: &str| json!({ "type": "url_citation", "title": title, "url": "https://example.com/jane" });
    let added = |at: usize| {
        json!({ "type": "response.output_text.annotation.added", "item_id": "msg_1", "output_index": 0,
            "content_index": 0, "annotation_index": at, "annotation": cited("Jane is ill") })
    };
    let events = [added(0), added(1)];
    for (path, first, second) in [
        ("$.response.output[*].content[*].annotations[*].title", MASK, MASK),
        ("$.response.output[0].content[0].annotations[0].title", MASK, "Jane is ill"),
    ] {
        let (_, got) = masked(&[path], &events);
        assert_eq!(
            (&got[0]["annotation"]["title"], &got[1]["annotation"]["title"]),
            (&json!(first), &json!(second))
        );
    }
    let (_, got) = masked(&["$.response.output[*].content[*].annotations"], &events);
    assert!(!Value::from(got.clone()).to_string().contains("jane"), "{got:?}");
}

#[test]
fn a_whole_object_that_is_masked_is_known_by_what_it_says() {
    let event = |text: &str| json!({ "id": "c", "choices": [{ "index": 0, "delta": { "content": text } }] });
    let (answer, got) = masked(&["$.response.choices[*].delta"], &[event("Jane "), event("is ill")]);
    assert_eq!(answer["choices"][0]["delta"], MASK);
    let masked = json!({ "id": "c", "choices": [{ "index": 0, "delta": MASK }] });
    assert_eq!(got, [masked.clone(), masked]);
}
