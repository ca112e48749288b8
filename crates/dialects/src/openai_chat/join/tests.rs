use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Join, Joined, LeftOut, Limits};
use crate::openai_chat::stream::tests::GROQ;

fn joined(events: &[&str]) -> Value {
    let mut join = Join::new(Limits { streamed_data: false, ..Limits::default() });
    for event in events {
        join.push(event.as_bytes());
    }
    let joined = join.finish("fallback");
    assert_eq!(joined.left_out, LeftOut::default());
    assert_eq!(joined.streamed_data, None);
    serde_json::from_slice(&joined.response).expect("JSON")
}

/// Response and events as one document, as the record has them.
fn document(joined: &Joined) -> String {
    let response = std::str::from_utf8(&joined.response).expect("UTF-8");
    let events = std::str::from_utf8(joined.streamed_data.as_deref().expect("events")).expect("UTF-8");
    format!("{},\"streamed_data\":{events}}}", &response[..response.len() - 1])
}

fn delta(deltas: &[&str]) -> Value {
    let events: Vec<String> =
        deltas.iter().map(|delta| format!("{{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}")).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    joined(&events)["choices"][0]["delta"].clone()
}

fn groq_events() -> Vec<&'static str> {
    GROQ.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

#[test]
fn the_guides_sample_is_joined_as_the_guide_shows() {
    let mut join = Join::new(Limits::default());
    for event in groq_events() {
        join.push(event.as_bytes());
    }
    let joined = join.finish("sent");
    let text = document(&joined);
    let got: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(got["id"], "chatcmpl-ec855684-8495-420d-8807-9259228ac717");
    assert_eq!(got["model"], "llama-3.1-8b-instant");
    let expected = json!({"index": 0, "delta": {"role": "assistant", "content": "\"Moonlit Dreams\"\n\nThe night is dark..."},
        "finish_reason": "stop", "logprobs": null});
    assert_eq!(got["choices"], json!([expected]));
    assert_eq!(got["usage"], json!({"prompt_tokens": 38, "completion_tokens": 256, "total_tokens": 294}));
    assert_eq!((&got["object"], &got["nonce"]), (&json!("chat.completion.chunk"), &Value::Null));
    let events: Vec<Value> = groq_events()
        .iter()
        .filter(|event| **event != "[DONE]")
        .map(|event| serde_json::from_str(event).expect("JSON"))
        .collect();
    assert_eq!(got["streamed_data"], Value::from(events));
    assert!(
        text.contains(groq_events()[0]) && !text.contains('\n'),
        "events stand there byte for byte, on one line"
    );
}

#[test]
fn strings_are_concatenated_and_the_role_is_not() {
    let got = delta(&[
        r#"{"role":"assistant","content":null,"reasoning_content":"a"}"#,
        r#"{"role":"assistant","content":"x\u00","reasoning_content":"b","refusal":null}"#.replace("\\u00", "").as_str(),
        r#"{"content":"\ud83c","odd":"1","n":1}"#,
        r#"{"content":"\udf89","odd":"2","n":2}"#,
    ]);
    assert_eq!(
        got,
        json!({"role": "assistant", "content": "x🎉", "reasoning_content": "ab", "refusal": null, "odd": "12", "n": 2})
    );
}

#[test]
fn tool_calls_are_joined_by_index() {
    let got = delta(&[
        r#"{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"{\"x"}},{"index":0,"function":{"arguments":"{}"}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"\":1}"}}]}"#,
        r#"{"tool_calls":[{"index":2,"id":"","function":{"name":"h","arguments":null}}]}"#,
    ]);
    let call = |index: u64, id: &str, name: &str, arguments: &str| json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let calls = got["tool_calls"].as_array().expect("calls");
    assert_eq!(calls[..2], [call(0, "a", "f", "{}"), call(1, "b", "g", "{\"x\":1}")]);
    assert_eq!(calls[2], json!({"index": 2, "id": "", "function": {"name": "h", "arguments": null}}));
}

#[test]
fn calls_that_share_an_index_are_told_apart_by_id() {
    let got = delta(&[
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"b","function":{"name":"g","arguments":"2"}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"3"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"4"}}]}"#,
    ]);
    let expected = json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "14"}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": "23"}}]);
    assert_eq!(got["tool_calls"], expected);
    let without = delta(&[
        r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"1"}},{"id":"b"}]}"#,
        r#"{"tool_calls":[{"function":{"arguments":"2"}}]}"#,
    ]);
    assert_eq!(without["tool_calls"][1], json!({"id": "b", "function": {"arguments": "2"}}));
}

#[test]
fn objects_and_arrays_are_joined() {
    let got = delta(&[
        r#"{"function_call":{"name":"f","arguments":"{"},"reasoning_details":[{"t":1}],"audio":{"id":"au","data":"AA"}}"#,
        r#"{"function_call":{"arguments":"}"},"reasoning_details":[],"audio":{"id":"au","data":"BB","transcript":"hi"}}"#,
        r#"{"reasoning_details":[{"t":2}],"audio":{"expires_at":9},"content":"text"}"#,
        r#"{"content":[{"type":"thinking"}]}"#,
        r#"{"content":"more"}"#,
    ]);
    assert_eq!(got["function_call"], json!({"name": "f", "arguments": "{}"}));
    assert_eq!(got["reasoning_details"], json!([{"t": 1}, {"t": 2}]));
    assert_eq!(got["audio"], json!({"id": "au", "data": "AABB", "transcript": "hi", "expires_at": 9}));
    assert_eq!(
        got["content"],
        json!([{"type": "text", "text": "text"}, {"type": "thinking"}, {"type": "text", "text": "more"}])
    );
}

#[test]
fn choices_logprobs_and_completions() {
    let got = joined(&[
        r#"{"id":"i","choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a"}],"refusal":null},"stop_reason":null}]}"#,
        r#"{"id":"j","choices":[{"index":0,"delta":{},"logprobs":{"content":[{"token":"c"}]},"finish_reason":"stop","stop_reason":13}],"service_tier":"a","usage":{"a":1}}"#,
        r#"{"choices":[],"service_tier":"b","created":1E5,"usage":null}"#,
    ]);
    let expected = json!([
        {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop",
         "logprobs": {"content": [{"token": "a"}, {"token": "c"}], "refusal": null}, "stop_reason": 13},
        {"index": 1, "delta": {"content": "b"}, "finish_reason": null, "logprobs": null}
    ]);
    assert_eq!(got["choices"], expected);
    assert_eq!(
        (&got["id"], &got["model"], &got["usage"]),
        (&json!("i"), &json!("fallback"), &json!({"a": 1}))
    );
    assert_eq!((&got["service_tier"], &got["created"]), (&json!("b"), &json!(1e5)));
    let got = joined(&[
        r#"{"choices":[{"index":0,"text":"a","logprobs":{"tokens":["x"],"text_offset":[0]}}]}"#,
        r#"{"choices":[{"index":0,"text":"b","logprobs":{"tokens":["y"],"text_offset":[1]},"finish_reason":"length"}]}"#,
    ]);
    let expected = json!([{"index": 0, "text": "ab", "finish_reason": "length", "logprobs": {"tokens": ["x", "y"], "text_offset": [0, 1]}}]);
    assert_eq!(got["choices"], expected);
}

#[test]
fn an_event_that_cannot_be_read_stands_there_as_text() {
    let mut join = Join::new(Limits::default());
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    join.push(br#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#);
    join.push(b"{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\"}}]}");
    join.push(deep.as_bytes());
    for nothing in ["", " ", "[DONE]"] {
        join.push(nothing.as_bytes());
    }
    let joined = join.finish("m");
    let events: Value = serde_json::from_slice(&joined.streamed_data.expect("events")).expect("json");
    let lossy = "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\u{fffd}\"}}]}";
    assert_eq!(events.as_array().map(Vec::len), Some(3), "{events}");
    assert_eq!((&events[1], &events[2]), (&json!(lossy), &json!(deep)));
    let response: Value = serde_json::from_slice(&joined.response).expect("json");
    assert_eq!(response["choices"][0]["delta"]["content"], "a");
}

#[test]
fn tool_calls_of_several_choices_do_not_mix() {
    let call = |choice: u64, delta: &str| {
        format!(r#"{{"choices":[{{"index":{choice},"delta":{{"tool_calls":[{delta}]}}}}]}}"#)
    };
    let events = [
        call(1, r#"{"index":0,"id":"b0","type":"function","function":{"name":"g","arguments":""}}"#),
        call(0, r#"{"index":0,"id":"a0","type":"function","function":{"name":"f","arguments":""}}"#),
        call(0, r#"{"index":1,"id":"a1","type":"custom","custom":{"name":"c","input":"x"}}"#),
        call(1, r#"{"index":0,"function":{"arguments":"{\"b"}}"#),
        call(0, r#"{"index":0,"function":{"arguments":"{\"a"}},{"index":1,"custom":{"input":"y"}}"#),
        call(1, r#"{"index":0,"function":{"arguments":"\":1}"}}"#),
        call(0, r#"{"index":0,"function":{"arguments":"\":0}"}}"#),
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"},{"index":1,"delta":{},"finish_reason":"length"}]}"#.into(),
    ];
    let got = joined(&events.each_ref().map(String::as_str));
    let expected = json!([
        {"index": 0, "delta": {"tool_calls": [
            {"index": 0, "id": "a0", "type": "function", "function": {"name": "f", "arguments": "{\"a\":0}"}},
            {"index": 1, "id": "a1", "type": "custom", "custom": {"name": "c", "input": "xy"}}]},
         "finish_reason": "tool_calls", "logprobs": null},
        {"index": 1, "delta": {"tool_calls": [
            {"index": 0, "id": "b0", "type": "function", "function": {"name": "g", "arguments": "{\"b\":1}"}}]},
         "finish_reason": "length", "logprobs": null}
    ]);
    assert_eq!(got["choices"], expected);
}

#[test]
fn a_refusal_is_joined_beside_content_with_its_logprobs() {
    let got = joined(&[
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{"refusal":"I can"},"logprobs":{"content":null,"refusal":[{"token":"I can","bytes":[73],"logprob":-0.1,"top_logprobs":[]}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"refusal":"not."},"logprobs":{"content":null,"refusal":[{"token":"not.","bytes":null,"logprob":-9999.0,"top_logprobs":[]}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#,
    ]);
    let choice = &got["choices"][0];
    assert_eq!(choice["delta"], json!({"role": "assistant", "content": "", "refusal": "I cannot."}));
    let refusal = json!([{"token": "I can", "bytes": [73], "logprob": -0.1, "top_logprobs": []},
        {"token": "not.", "bytes": null, "logprob": -9999.0, "top_logprobs": []}]);
    assert_eq!(choice["logprobs"], json!({"content": null, "refusal": refusal}));
    assert_eq!(choice["finish_reason"], "stop");
}

#[test]
fn audio_ends_with_its_expiry_alone() {
    let got = delta(&[
        r#"{"role":"assistant","content":null,"audio":{"id":"au","transcript":"Hel"}}"#,
        r#"{"audio":{"id":"au","transcript":"lo"}}"#,
        r#"{"audio":{"data":"UklG"}}"#,
        r#"{"audio":{"data":"Rg=="}}"#,
        r#"{"audio":{"expires_at":1729234747}}"#,
    ]);
    let audio = json!({"id": "au", "transcript": "Hello", "data": "UklGRg==", "expires_at": 1_729_234_747});
    assert_eq!(got, json!({"role": "assistant", "content": null, "audio": audio}));
}

#[test]
fn several_legacy_completions_keep_their_own_text() {
    let got = joined(&[
        r#"{"id":"cmpl-1","object":"text_completion","choices":[{"index":1,"text":"two","logprobs":null,"finish_reason":null}]}"#,
        r#"{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":"o","logprobs":{"tokens":["o"],"token_logprobs":[null],"top_logprobs":[{"o":-1}],"text_offset":[0]},"finish_reason":null}]}"#,
        r#"{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":"ne","logprobs":{"tokens":["ne"],"token_logprobs":[-0.5],"top_logprobs":[null],"text_offset":[1]},"finish_reason":"stop"}]}"#,
        r#"{"id":"cmpl-1","object":"text_completion","choices":[{"index":1,"text":"","logprobs":null,"finish_reason":"length"}]}"#,
        r#"{"id":"cmpl-1","object":"text_completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4}}"#,
    ]);
    let logprobs = json!({"tokens": ["o", "ne"], "token_logprobs": [null, -0.5], "top_logprobs": [{"o": -1}, null], "text_offset": [0, 1]});
    let expected = json!([
        {"index": 0, "text": "one", "finish_reason": "stop", "logprobs": logprobs},
        {"index": 1, "text": "two", "finish_reason": "length", "logprobs": null}
    ]);
    assert_eq!(got["choices"], expected);
    assert_eq!((&got["object"], &got["usage"]["total_tokens"]), (&json!("text_completion"), &json!(4)));
    let both = joined(&[r#"{"choices":[{"index":0,"text":"a","delta":{"content":"b"}}]}"#]);
    assert_eq!(
        (&both["choices"][0]["text"], &both["choices"][0]["delta"]["content"]),
        (&json!("a"), &json!("b"))
    );
}

#[test]
fn a_dialect_without_choices_has_its_own_object() {
    let mut join = Join::new(Limits::default());
    join.push(
        br#"{"type":"response.created","response":{"id":"r","object":"response","status":"in_progress"}}"#,
    );
    join.push(br#"{"type":"response.output_text.done","text":"t"}"#);
    join.push(b"{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"object\":\"response\",\n\"model\":\"m\",\"status\":\"completed\",\"n\":1e400}}");
    join.push(b"[DONE]");
    let text = document(&join.finish("sent"));
    assert!(text.starts_with(r#"{"id":"r","object":"response", "model":"m","status":"completed","n":1e400,"streamed_data":[{"type":"response.created""#), "{text}");
    assert!(crate::json::valid(text.as_bytes()));
    let image = joined(&[
        r#"{"type":"image_generation.partial_image","b64_json":"A"}"#,
        r#"{"type":"image_generation.completed","b64_json":"B","usage":{"x":1}}"#,
    ]);
    assert_eq!(
        image,
        json!({"type": "image_generation.completed", "b64_json": "B", "usage": {"x": 1}, "model": "fallback"})
    );
}

#[test]
fn nothing_and_errors_make_a_response_too() {
    assert_eq!(joined(&[]), json!({"id": null, "model": "fallback", "choices": [], "usage": null}));
    let got = joined(&["[DONE]", "text", r#"{"error":{"message":"m"}}"#]);
    assert_eq!((&got["error"], &got["choices"]), (&json!({"message": "m"}), &json!([])));
    let flat = r#"{"message":"busy","type":"too_many","param":"quota","code":"c"}"#;
    let got = joined(&[r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#, flat]);
    let error = json!({"message": "busy", "type": "too_many", "param": "quota", "code": "c"});
    assert_eq!((&got["error"], &got["choices"][0]["delta"]["content"]), (&error, &json!("a")));
    assert_eq!(got.get("message"), None, "the answer itself has no message");
}

#[test]
fn limits_leave_out_and_say_how_much() {
    let limits = Limits { streamed_data: true, max_chunks: 120, max_response: 150 };
    let mut join = Join::new(limits);
    let event = |text: &str| {
        format!("{{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}")
    };
    join.push(event("first").as_bytes());
    join.push(event(&"x".repeat(200)).as_bytes());
    join.push(event("last").as_bytes());
    join.push(br#"{"usage":{"prompt_tokens":1}}"#);
    let joined = join.finish("m");
    let got: Value = serde_json::from_str(&document(&joined)).expect("JSON");
    assert_eq!(got["choices"][0]["delta"]["content"], "first", "no text with holes");
    assert_eq!(got["usage"]["prompt_tokens"], 1);
    assert_eq!(got["streamed_data"].as_array().map(Vec::len), Some(1));
    assert_eq!(joined.left_out.response, 204);
    assert!(joined.left_out.streamed_data > 300, "{:?}", joined.left_out);
}

proptest! {
    #[test]
    fn any_events_make_one_line_of_json(values in prop::collection::vec(crate::json::tests::json_value(), 0..4), raw in prop::collection::vec(any::<u8>(), 0..40), max in 0usize..200) {
        let limits = Limits { streamed_data: true, max_chunks: max, max_response: max };
        let mut join = Join::new(limits);
        join.push(&raw);
        for value in &values {
            join.push(value.to_string().as_bytes());
            let pretty = serde_json::to_vec_pretty(&json!({"choices": [{"delta": value, "logprobs": value, "x": value}, value], "id": value, "usage": value, "y": value}));
            join.push(&pretty.expect("JSON"));
            join.push(json!({"choices": [{"delta": {"tool_calls": [value, {"function": value, "id": value}], "content": value}, "text": value}]}).to_string().as_bytes());
            join.push(json!({"type": "response.done", "response": value, "error": value}).to_string().as_bytes());
        }
        let joined = join.finish("m");
        let document = document(&joined);
        prop_assert!(crate::json::valid(document.as_bytes()), "{document}");
        prop_assert!(!document.contains('\n'));
    }
}
