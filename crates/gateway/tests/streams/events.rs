//! Events on their way: at once, whole, and as they came.

use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use magicapi_testkit::Gateway;
use magicapi_testkit::ask::{chat_request, json_request, streaming, streaming_with_usage};
use magicapi_testkit::wire::Part;
use serde_json::{Value, json};

use crate::scene::{Scene, before, stop};
use magicapi_testkit::puppet::Puppet;

const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

fn event(text: &str) -> Vec<u8> {
    let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "model": "m",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] });
    format!("data: {chunk}\n\n").into_bytes()
}

fn finish() -> Vec<u8> {
    let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "model": "m",
        "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 } });
    format!("data: {chunk}\n\ndata: [DONE]\n\n").into_bytes()
}

async fn puppet(changes: Value) -> (Puppet, Gateway) {
    let puppet = Puppet::start().await;
    let gateway = before(&puppet.base_url(), changes).await;
    (puppet, gateway)
}

async fn ask(gateway: &Gateway, case: &str) -> magicapi_testkit::wire::Wire {
    let mut wire = magicapi_testkit::wire::Wire::connect(gateway.socket()).await;
    wire.send(&chat_request(case, &json!({}), &streaming())).await;
    wire
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let (puppet, gateway) = puppet(json!({})).await;
    let mut wire = ask(&gateway, "paced").await;
    let mut hand = puppet.asked().await;
    hand.stream().await;
    let head = wire.head().await.expect("the head comes before any event");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(head.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(head.header("content-length"), None);
    assert_eq!(head.header("content-encoding"), None);
    for n in 0..50 {
        let event = event(&format!("word {n} ✓"));
        hand.send(&event).await;
        assert_eq!(wire.part().await, Part::Data(event), "event {n}");
    }
    hand.send(&finish()).await;
    assert_eq!(wire.part().await, Part::Data(finish()));
    assert_eq!(wire.part().await, Part::End, "the end does not wait for the provider's");
    hand.end().await;
    let left = stop(gateway).await;
    assert_eq!(left.metadata("paced")["outcome"], "completed");
    assert_eq!(left.metadata("paced")["tokens"]["total"], 7);
}

#[tokio::test]
async fn all_whole_events_go_out_in_one_write_and_no_half_one() {
    let (puppet, gateway) = puppet(json!({})).await;
    let mut wire = ask(&gateway, "batched").await;
    let mut hand = puppet.asked().await;
    hand.stream().await;
    let (five, sixth) =
        ([event("a"), event("b"), event("c"), event("d"), event("e")].concat(), event("sixth"));
    let (begun, rest) = sixth.split_at(20);
    hand.send(&[five.as_slice(), begun].concat()).await;
    wire.head().await.expect("a head");
    assert_eq!(wire.part().await, Part::Data(five));
    for byte in rest {
        hand.send(&[*byte]).await;
    }
    assert_eq!(wire.part().await, Part::Data(sixth));
    hand.send(&finish()).await;
    hand.end().await;
    assert_eq!(wire.part().await, Part::Data(finish()));
    assert_eq!(wire.part().await, Part::End);
}

#[tokio::test]
async fn single_bytes_come_out_as_whole_events() {
    let scene = Scene::start(json!({})).await;
    let script = json!({ "write_bytes": 1, "text": "Grüße, 世界! 🦀 and some more words", "crlf": "lf" });
    let answer = scene.answer("bytes", &script, &streaming_with_usage()).await;
    assert!(answer.whole);
    for part in &answer.parts {
        let text = std::str::from_utf8(part).expect("no character is cut");
        assert!(text.starts_with("data: ") && text.ends_with("\n\n"), "no whole event: {text:?}");
        assert_eq!(text.matches("data: ").count(), 1, "events wait for others: {text:?}");
    }
    let left = stop(scene.gateway).await;
    let delta = &left.record("bytes")["attributes"]["response"]["choices"][0]["delta"];
    assert_eq!(delta["content"], "Grüße, 世界! 🦀 and some more words");
}

#[tokio::test]
async fn every_grammar_passes_byte_for_byte() {
    let scene = Scene::start(json!({})).await;
    let base = json!({ "text": "one two, three ✓" });
    let oddities = [
        ("plain", json!({})),
        ("crlf", json!({ "crlf": "crlf" })),
        ("cr", json!({ "crlf": "cr" })),
        ("no_space", json!({ "no_space": true })),
        ("comments", json!({ "comments": true })),
        ("all", json!({ "crlf": "crlf", "no_space": true, "comments": true, "write_bytes": 3 })),
        ("every_chunk", json!({ "usage_placement": "every_chunk" })),
        ("x_groq", json!({ "usage_placement": "x_groq" })),
    ];
    for (case, oddity) in oddities {
        let mut script = base.clone();
        script.as_object_mut().expect("a script").extend(oddity.as_object().expect("an oddity").clone());
        let answer = scene.answer(case, &script, &streaming_with_usage()).await;
        let number = scene.mock.stats().requests;
        let straight = scene.straight(&script, &streaming_with_usage()).await.text();
        let straight = straight.replace(&format!("mock-{}", number + 1), &format!("mock-{number}"));
        let straight = straight.replace(&format!("req_mock_{}", number + 1), &format!("req_mock_{number}"));
        assert_eq!(answer.text(), straight, "{case}");
        assert!(answer.whole, "{case}");
    }
    let left = stop(scene.gateway).await;
    for case in ["plain", "crlf", "cr", "all", "every_chunk", "x_groq"] {
        let record = &left.record(case)["attributes"];
        assert_eq!(record["metadata"]["outcome"], "completed", "{case}");
        assert_eq!(record["metadata"]["tokens"]["output"], 4, "{case}");
        assert_eq!(record["response"]["choices"][0]["delta"]["content"], "one two, three ✓", "{case}");
    }
}

#[tokio::test]
async fn empty_events_and_what_follows_done_are_left_out() {
    let scene = Scene::start(json!({})).await;
    let script = json!({ "text": "a b", "empty_events": true, "event_after_done": { "late": true } });
    let answer = scene.answer("odd", &script, &streaming_with_usage()).await;
    let text = answer.text();
    assert!(!text.contains("data: \n") && !text.contains("late"), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n") && text.matches("[DONE]").count() == 1, "{text}");
    let straight = scene.straight(&script, &streaming_with_usage()).await.text();
    assert!(straight.contains("data: \n\n") && straight.contains("late"), "the provider sends them");
    let expected = straight.replace("data: \n\n", "").replace("mock-2", "mock-1");
    assert_eq!(text, expected.split("data: {\"late\"").next().expect("a part"));
    let left = stop(scene.gateway).await;
    assert_eq!(left.metadata("odd")["outcome"], "completed");
}

#[tokio::test]
async fn an_event_over_a_mebibyte_passes_as_read() {
    const SIZE: usize = 3 << 20;
    let scene = Scene::start(json!({})).await;
    let answer = scene.answer("huge", &json!({ "huge_event_bytes": SIZE }), &streaming()).await;
    let straight = scene.straight(&json!({ "huge_event_bytes": SIZE }), &streaming()).await;
    let largest = answer.parts.iter().map(Vec::len).max().expect("parts");
    assert!(largest < SIZE, "it was held whole: {largest}");
    let (answer, straight) = (answer.text(), straight.text().replace("mock-2", "mock-1"));
    // The provider was asked for usage, which shows as `"usage":null`.
    assert_eq!(answer.replace(",\"usage\":null", ""), straight);
    let left = stop(scene.gateway).await;
    let record = &left.record("huge")["attributes"];
    assert_eq!(record["metadata"]["outcome"], "completed");
    assert_eq!(record["metadata"]["tokens"]["input"], 2);
    let said = record["response"]["choices"][0]["delta"]["content"].as_str().expect("content");
    assert_eq!(said.len(), SIZE);
}

/// The last event of `/v1/responses` carries the whole answer, and the only usage there is.
#[tokio::test]
async fn what_a_large_last_event_says_is_read_up_to_16_mib() {
    const LARGEST: usize = 16 << 20;
    let (puppet, gateway) = puppet(json!({})).await;
    let body = json!({ "model": "gpt-4o-mini", "stream": true, "input": "hello" }).to_string();
    for (case, size) in [("largest", LARGEST), ("too large", LARGEST + 1)] {
        let mut wire = magicapi_testkit::wire::Wire::connect(gateway.socket()).await;
        wire.send(&json_request("/v1/responses", case, &json!({}), body.as_bytes())).await;
        let mut hand = puppet.asked().await;
        hand.stream().await;
        let event = completed(size);
        let sending = async {
            hand.send(&event).await;
            hand.end().await;
        };
        let (answer, ()) = tokio::join!(wire.answer(), sending);
        let answer = answer.expect("an answer");
        assert!(answer.whole && answer.body() == event, "{case}");
        assert!(answer.parts.iter().all(|part| part.len() < size), "{case}: it was held whole");
    }
    let left = stop(gateway).await;
    for (case, tokens, is_final) in [("largest", json!(7), true), ("too large", json!(null), false)] {
        let metadata = left.metadata(case);
        assert_eq!(metadata["outcome"], "completed", "{case}");
        assert_eq!(metadata["tokens"]["total"], tokens, "{case}");
        assert_eq!(metadata["usage_final"], is_final, "{case}");
        assert_eq!(metadata["cost"].is_null(), !is_final, "{case}");
    }
    assert_eq!(left.metadata("largest")["finish_reasons"], json!(["completed"]));
}

/// A `response.completed` of so many bytes.
fn completed(size: usize) -> Vec<u8> {
    let event = |text: &str| {
        let usage = json!({ "input_tokens": 3, "output_tokens": 4, "total_tokens": 7 });
        let response = json!({ "id": "r", "object": "response", "model": "gpt-4o-mini", "status": "completed",
            "output": [{ "type": "message", "content": [{ "type": "output_text", "text": text }] }],
            "usage": usage });
        let data = json!({ "type": "response.completed", "response": response });
        format!("event: response.completed\ndata: {data}\n\n").into_bytes()
    };
    event(&"x".repeat(size - event("").len()))
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_handed_on_and_recorded_as_text() {
    let (puppet, gateway) = puppet(json!({})).await;
    let mut wire = ask(&gateway, "unreadable").await;
    let mut hand = puppet.asked().await;
    hand.stream().await;
    let bad = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\"}}]}\n\n".to_vec();
    let deep = format!("data: {{\"x\":{}{}}}\n\n", "[".repeat(200), "]".repeat(200)).into_bytes();
    let sent = [event("a"), bad.clone(), deep.clone(), finish()].concat();
    hand.send(&sent).await;
    hand.end().await;
    assert_eq!(wire.answer().await.expect("an answer").body(), sent);
    let left = stop(gateway).await;
    let response = &left.record("unreadable")["attributes"]["response"];
    let events = response["streamed_data"].as_array().expect("events");
    assert_eq!(events.len(), 4, "{events:?}");
    for (sent, kept) in [(bad, &events[1]), (deep, &events[2])] {
        let sent = String::from_utf8_lossy(&sent);
        assert_eq!(Some(sent.trim_start_matches("data: ").trim_end()), kept.as_str());
    }
    assert_eq!(left.metadata("unreadable")["outcome"], "completed");
}

#[tokio::test]
async fn a_forced_coding_is_forwarded_and_read_beside() {
    let scene = Scene::start(json!({})).await;
    let script = json!({ "content_encoding": "gzip", "text": "one two three", "gap_ms": 2 });
    let answer = scene.answer("gzip", &script, &streaming()).await;
    assert_eq!(answer.head.header("content-encoding"), Some("gzip"));
    let mut plain = String::new();
    MultiGzDecoder::new(answer.body().as_slice()).read_to_string(&mut plain).expect("the provider's gzip");
    assert!(plain.ends_with("data: [DONE]\n\n"), "{plain}");
    let sent = &scene.mock.received()[0];
    assert_eq!(sent.header("accept-encoding"), Some("identity"), "streams are asked for plain");
    let left = stop(scene.gateway).await;
    let record = &left.record("gzip")["attributes"];
    assert_eq!(record["metadata"]["outcome"], "completed");
    assert_eq!(record["metadata"]["tokens"]["output"], 3);
    assert_eq!(record["response"]["choices"][0]["delta"]["content"], "one two three");
    assert_eq!(record["metadata"]["response_size"], answer.body().len());
}

#[tokio::test]
async fn several_choices_and_parallel_tool_calls_are_kept_apart() {
    let scene = Scene::start(json!({})).await;
    let answer = scene.answer("n", &json!({ "n": 3, "text": "same for all" }), &streaming()).await;
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    let calls = json!([
        { "id": "call_a", "name": "weather", "arguments": { "city": "Zürich", "days": [1, 2, 3] } },
        { "id": "call_b", "name": "time", "arguments": { "zone": "Europe/Zurich" } },
        { "id": "call_c", "name": "nothing", "arguments": "{}" },
    ]);
    scene.answer("tools", &json!({ "tool_calls": calls, "chunk_bytes": 5 }), &streaming()).await;
    let left = stop(scene.gateway).await;
    let choices = left.record("n")["attributes"]["response"]["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 3);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(
            (choice["index"].as_u64(), &choice["finish_reason"]),
            (Some(index as u64), &json!("stop"))
        );
        assert_eq!(choice["delta"]["content"], "same for all");
    }
    assert_eq!(left.metadata("n")["finish_reasons"], json!(["stop", "stop", "stop"]));
    let delta = &left.record("tools")["attributes"]["response"]["choices"][0]["delta"];
    for (index, call) in calls.as_array().expect("calls").iter().enumerate() {
        let joined = &delta["tool_calls"][index];
        assert_eq!((&joined["id"], &joined["function"]["name"]), (&call["id"], &call["name"]));
        let arguments = joined["function"]["arguments"].as_str().expect("arguments");
        let expected =
            call["arguments"].as_str().map_or_else(|| call["arguments"].to_string(), str::to_owned);
        assert_eq!(arguments, expected);
    }
    assert_eq!(left.metadata("tools")["finish_reasons"], json!(["tool_calls"]));
}

#[tokio::test]
async fn heartbeats_stand_between_events_and_are_no_first_byte() {
    let (puppet, gateway) = puppet(json!({ "server": { "heartbeat": "200ms" } })).await;
    let mut wire = ask(&gateway, "beats").await;
    let mut hand = puppet.asked().await;
    let asked = Instant::now();
    hand.stream().await;
    wire.head().await.expect("a head");
    for _ in 0..3 {
        assert_eq!(wire.part().await, Part::Data(KEEP_ALIVE.to_vec()));
    }
    let before_the_first = asked.elapsed().as_millis();
    hand.send(&event("first")).await;
    assert_eq!(next_but_beats(&mut wire).await, event("first"));
    // An event over the limit is on its way in parts: nothing may stand within it.
    let large = event(&"x".repeat(2 << 20));
    let (begun, rest) = large.split_at(large.len() - 100);
    hand.send(begun).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    hand.send(&[rest, finish().as_slice()].concat()).await;
    hand.end().await;
    let mut all = Vec::new();
    while let Part::Data(data) = wire.part().await {
        all.extend_from_slice(&data);
    }
    let all = String::from_utf8(all).expect("text");
    let at = all.find("data: ").expect("the event");
    assert_eq!(&all.as_bytes()[at..], [large, finish()].concat(), "the event was interrupted");
    let left = stop(gateway).await;
    let ttfb = left.metadata("beats")["ttfb"].as_u64().expect("a time");
    assert!(u128::from(ttfb) >= before_the_first, "a heartbeat counted: {ttfb} < {before_the_first}");
}

async fn next_but_beats(wire: &mut magicapi_testkit::wire::Wire) -> Vec<u8> {
    loop {
        match wire.part().await {
            Part::Data(data) if data == KEEP_ALIVE => {}
            Part::Data(data) => return data,
            other => panic!("{other:?}"),
        }
    }
}
