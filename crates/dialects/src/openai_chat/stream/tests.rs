use std::time::Instant;

use bytes::Bytes;
use magicapi_model::{Money, Usage};

use super::{StreamFacts, StreamReader};
use crate::openai_chat::{Join, Joined, Limits};
use crate::sse::{Event, Framer, Verdict};

/// The guide's Groq sample, with a heartbeat and the terminator that a real stream has.
pub(crate) const GROQ: &str = r#"data: {"nonce":"0955","id":"chatcmpl-ec855684-8495-420d-8807-9259228ac717","object":"chat.completion.chunk","created":1741191930,"model":"llama-3.1-8b-instant","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"x_groq":{"id":"req_01jnkrrz2ken1bej7emqf9j2af"}}

: keep-alive

data: {"nonce":"1b2c","id":"chatcmpl-ec855684-8495-420d-8807-9259228ac717","object":"chat.completion.chunk","model":"llama-3.1-8b-instant","choices":[{"index":0,"delta":{"content":"\"Moonlit Dreams\"\n\n"},"logprobs":null,"finish_reason":null}]}

data: {"nonce":"77aa","id":"chatcmpl-ec855684-8495-420d-8807-9259228ac717","object":"chat.completion.chunk","model":"llama-3.1-8b-instant","choices":[{"index":0,"delta":{"content":"The night is dark..."},"logprobs":null,"finish_reason":null}]}

data: {"nonce":"d4fe","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"usage":{"prompt_tokens":38,"completion_tokens":256,"total_tokens":294}}}

data: [DONE]

"#;

const OPENAI: &str = "data: {\"id\":\"c\",\"model\":\"m\",\"service_tier\":\"default\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\r\n\r\ndata: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}\u{1f389}\"}}],\"usage\":null}\r\n\r\ndata: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\r\n\r\ndata: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\r\n\r\ndata: [DONE]\r\n\r\n";

const RESPONSES: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"model\":\"m\",\"status\":\"in_progress\",\"output\":[],\"usage\":null,\"error\":null}}\n\nevent: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\nevent: response.output_text.done\ndata: {\"type\":\"response.output_text.done\",\"text\":\"hi\"}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"model\":\"m\",\"status\":\"completed\",\"output\":[{\"type\":\"message\"}],\"error\":null,\"service_tier\":\"flex\",\"usage\":{\"input_tokens\":9,\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":5,\"output_tokens_details\":{\"reasoning_tokens\":2},\"total_tokens\":14}}}\n\n";

const CUT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"length\"}]}\n\ndata: {\"choices\":null,\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}";

fn run(chunks: &[&[u8]], asked_usage: bool) -> (Vec<u8>, StreamFacts, Joined) {
    let mut framer = Framer::new(1 << 20);
    let mut reader = StreamReader::new(asked_usage);
    let mut join = Join::new(Limits::default());
    let mut out = Vec::new();
    let mut judge = |event: &Event<'_>| {
        join.push(&event.data);
        reader.read(event).verdict
    };
    for chunk in chunks {
        out.extend_from_slice(&framer.relay(Bytes::copy_from_slice(chunk), &mut judge).bytes);
    }
    out.extend_from_slice(&framer.finish(&mut judge).bytes);
    (out, reader.into_facts(), join.finish("fallback"))
}

fn facts(stream: &str) -> StreamFacts {
    run(&[stream.as_bytes()], false).1
}

fn event(data: &str) -> super::EventFacts {
    one(&mut StreamReader::new(false), data)
}

fn one(reader: &mut StreamReader, data: &str) -> super::EventFacts {
    let mut got = None;
    let stream = Bytes::from(format!("data: {data}\n\n"));
    Framer::new(1 << 20).relay(stream, |event| {
        got = Some(reader.read(event));
        Verdict::Forward
    });
    got.expect("an event")
}

#[test]
fn every_split_gives_the_same_bytes_facts_and_record() {
    for (name, stream) in [("groq", GROQ), ("openai", OPENAI), ("responses", RESPONSES), ("cut", CUT)] {
        let stream = stream.as_bytes();
        let whole = run(&[stream], false);
        assert_eq!(whole.0, stream, "{name}: nothing is edited");
        let asked = run(&[stream], true);
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(run(&[left, right], false), whole, "{name} at {at}");
            assert_eq!(run(&[left, right], true), asked, "{name} at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(run(&bytes, false), whole, "{name} byte by byte");
    }
}

#[test]
fn openai_usage_is_read_and_hidden_when_it_is_ours() {
    let (out, facts, _) = run(&[OPENAI.as_bytes()], true);
    let out = String::from_utf8(out).expect("UTF-8");
    assert!(
        !out.contains("prompt_tokens") && out.contains("\"usage\":null") && out.ends_with("[DONE]\r\n\r\n")
    );
    assert_eq!(facts.usage.and_then(|usage| usage.total()), Some(5));
    assert_eq!((facts.id.as_deref(), facts.model.as_deref()), (Some("c"), Some("m")));
    assert_eq!(facts.service_tier.as_deref(), Some("default"));
    assert_eq!((facts.events, facts.saw_done, facts.saw_finish), (4, true, true));
    assert_eq!(facts.finish_reasons[0].finish_reason.as_deref(), Some("stop"));
    assert!(facts.is_complete());
    // Usage beside content stays, and so does an Azure filter event.
    let mut reader = StreamReader::new(true);
    let beside = r#"{"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}}"#;
    assert_eq!(one(&mut reader, beside).verdict, Verdict::Forward);
    assert_eq!(one(&mut reader, r#"{"choices":[],"prompt_filter_results":[]}"#).verdict, Verdict::Forward);
    assert_eq!(one(&mut reader, r#"{"choices":[],"usage":{"prompt_tokens":2}}"#).verdict, Verdict::Drop);
    assert_eq!(reader.facts().usage.and_then(|usage| usage.input), Some(2));
}

#[test]
fn groq_usage_and_comments() {
    let facts = facts(GROQ);
    assert_eq!(facts.usage, Some(Usage::of(38, 256)));
    assert_eq!((facts.events, facts.saw_done, facts.saw_finish), (4, true, true));
}

#[test]
fn responses_end_with_their_terminal_event() {
    let facts = facts(RESPONSES);
    assert_eq!((facts.id.as_deref(), facts.service_tier.as_deref()), (Some("resp_1"), Some("flex")));
    let usage = facts.usage.expect("usage");
    assert_eq!(
        (usage.input, usage.cache_read, usage.output, usage.output_reasoning),
        (Some(5), Some(4), Some(3), Some(2))
    );
    assert!(facts.is_complete() && !facts.saw_done);
    assert_eq!(facts.finish_reasons[0].finish_reason.as_deref(), Some("completed"));
    let created = event(r#"{"type":"response.created","response":{"id":"r"}}"#);
    assert!(!created.semantic && !created.terminal);
    assert!(event(r#"{"type":"response.output_text.delta","delta":"x"}"#).semantic);
    let failed = r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}"#;
    let mut reader = StreamReader::new(false);
    assert!(one(&mut reader, failed).terminal && !reader.facts().is_complete());
    assert_eq!(reader.facts().error.as_ref().map(|error| error.message.as_str()), Some("m"));
    let mut reader = StreamReader::new(false);
    assert!(one(&mut reader, r#"{"type":"error","code":"c","message":"flat","param":null}"#).terminal);
    assert_eq!(reader.facts().error.as_ref().map(|error| error.message.as_str()), Some("flat"));
}

#[test]
fn images_and_audio_are_whole_with_their_last_event() {
    let mut reader = StreamReader::new(false);
    assert!(one(&mut reader, r#"{"type":"image_generation.partial_image","b64_json":"AA"}"#).semantic);
    assert!(!reader.facts().is_complete());
    let done = r#"{"type":"image_generation.completed","b64_json":"AA","usage":{"input_tokens":5,"output_tokens":7,"total_tokens":12}}"#;
    let last = one(&mut reader, done);
    assert!(!last.terminal && last.verdict == Verdict::Forward, "another image may follow");
    assert!(reader.facts().is_complete());
    assert_eq!(reader.facts().usage.and_then(|usage| usage.output_image), Some(7));
    let mut reader = StreamReader::new(false);
    one(&mut reader, r#"{"type":"transcript.text.done","text":"t","usage":{"type":"duration","seconds":2}}"#);
    assert!(reader.facts().is_complete() && reader.facts().usage.is_none());
}

#[test]
fn completions_text_is_progress() {
    assert!(event(r#"{"choices":[{"text":"x","index":0,"finish_reason":null}]}"#).semantic);
    assert!(!event(r#"{"choices":[{"text":"","index":0,"finish_reason":null}]}"#).semantic);
}

#[test]
fn progress_is_what_the_provider_makes() {
    assert!(!event(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#).semantic);
    assert!(!event(r#"{"choices":[{"delta":{"role":"assistant","content":null,"refusal":null}}]}"#).semantic);
    assert!(!event(r#"{"choices":[]}"#).semantic);
    assert!(!event("{}").semantic);
    for delta in [
        r#"{"content":"x"}"#,
        r#"{"reasoning":"x"}"#,
        r#"{"reasoning_content":"x"}"#,
        r#"{"tool_calls":[{"index":0}]}"#,
        r#"{"content":[{"type":"thinking"}]}"#,
        r#"{"refusal":"no"}"#,
    ] {
        assert!(event(&format!("{{\"choices\":[{{\"delta\":{delta}}}]}}")).semantic, "{delta}");
    }
    assert!(event(r#"{"choices":[{"finish_reason":"stop"}]}"#).semantic);
    assert!(event(r#"{"choices":[],"usage":{}}"#).semantic);
    assert!(!event(r#"{"type":"ping"}"#).semantic);
}

#[test]
fn empty_events_are_dropped_and_comments_go_on() {
    let stream =
        ": OPENROUTER PROCESSING\n\nretry: 5\n\nevent: x\ndata:\n\ndata: \n\n\ndata: {\"choices\":[]}\n\n";
    let (out, facts, _) = run(&[stream.as_bytes()], false);
    assert_eq!(String::from_utf8_lossy(&out), ": OPENROUTER PROCESSING\n\ndata: {\"choices\":[]}\n\n");
    assert_eq!(facts.events, 1);
}

#[test]
fn nothing_follows_the_terminator() {
    let stream = "data: [DONE]\n\ndata: {\"choices\":[]}\n\n: late\n\ndata: [DONE]\n\n";
    assert_eq!(run(&[stream.as_bytes()], false).0, b"data: [DONE]\n\n");
    let stream = "data: {\"error\":{\"message\":\"m\",\"code\":502},\"choices\":[{\"finish_reason\":\"error\"}]}\n\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\n";
    let (out, facts, _) = run(&[stream.as_bytes()], false);
    assert_eq!(
        out.windows(5).filter(|part| part == b"data:").count(),
        2,
        "the error and the provider's terminator"
    );
    assert_eq!(facts.error.as_ref().and_then(|error| error.code.as_deref()), Some("502"));
    assert!(facts.saw_done && !facts.is_complete());
}

#[test]
fn errors_of_every_shape_end_the_stream() {
    for (data, message) in [
        (r#"{"error":"text"}"#, "text"),
        (r#"{"error":{"message":"object","code":500}}"#, "object"),
        (r#"[{"error":{"message":"array"}}]"#, "array"),
        (r#"{"message":"flat","type":"t","param":"","code":"c"}"#, "flat"),
        (r#"{"x_groq":{"error":"groq"},"choices":[]}"#, "groq"),
        (r#"{"base_resp":{"status_code":1002,"status_msg":"limit"},"choices":null}"#, "limit"),
    ] {
        let mut reader = StreamReader::new(false);
        let got = one(&mut reader, data);
        assert!(got.terminal && got.semantic, "{data}");
        assert_eq!(reader.facts().error.as_ref().map(|error| error.message.as_str()), Some(message));
    }
    for data in [
        r#"{"error":null,"choices":[]}"#,
        r#"{"base_resp":{"status_code":0},"choices":[]}"#,
        "{\"error\":\"\"}",
    ] {
        assert!(!event(data).terminal, "{data}");
    }
    let bare = "{\"error\":\n{\"message\":\"bare\"}}\n\n";
    let (out, facts, _) = run(&[bare.as_bytes()], false);
    assert_eq!(String::from_utf8_lossy(&out), "data: {\"error\": {\"message\":\"bare\"}}\n\n");
    assert_eq!(facts.error.map(|error| error.message), Some("bare".into()));
}

#[test]
fn usage_is_the_last_value_and_never_a_sum() {
    let stream = r#"data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":8}}}

data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":10,"completion_tokens":2,"cost":0.5}}

data: {"choices":[],"usage":null}

"#;
    let usage = facts(stream).usage.expect("usage");
    assert_eq!((usage.input, usage.cache_read, usage.output), (Some(2), Some(8), Some(2)));
    assert_eq!(usage.reported_cost, Money::from_usd(0.5));
}

#[test]
fn several_choices_finish_one_by_one() {
    let mut reader = StreamReader::new(false);
    one(
        &mut reader,
        r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#,
    );
    one(&mut reader, r#"{"choices":[{"index":1,"finish_reason":"stop"}]}"#);
    assert!(!reader.facts().saw_finish);
    one(&mut reader, r#"{"choices":[{"index":0,"finish_reason":"length"}]}"#);
    assert!(reader.facts().saw_finish && reader.facts().is_complete());
}

#[test]
fn what_the_end_cut_off_is_judged() {
    let (out, facts, _) = run(&[CUT.as_bytes()], false);
    assert_eq!(out, CUT.as_bytes());
    assert_eq!((facts.usage.and_then(|usage| usage.total()), facts.is_complete()), (Some(3), true));
    let (out, facts, _) = run(&[b"data: {\"choices\":[]}\n\ndata: {\"choices\":[{\"del"], false);
    assert_eq!((out, facts.events), (b"data: {\"choices\":[]}\n\n".to_vec(), 1));
    assert!(!facts.is_complete());
    assert_eq!(run(&[b"data: {}\n\ndata: [DONE]"], false).0, b"data: {}\n\ndata: [DONE]");
    assert_eq!(run(&[b"data: {}\n\n: half a comm"], false).0, b"data: {}\n\n");
}

#[test]
fn odd_chunks_are_survived() {
    for data in [
        "text",
        "1",
        "[]",
        "null",
        r#"{"choices":{}}"#,
        r#"{"choices":[1,null,[]]}"#,
        r#"{"choices":[{"delta":null}]}"#,
        r#"{"choices":[{"delta":[]}],"usage":[]}"#,
        r#"{"id":null,"model":7,"usage":"x"}"#,
        r#"{"object":"","choices":[{}]}"#,
    ] {
        let got = event(data);
        assert_eq!((got.verdict, got.terminal), (Verdict::Forward, false), "{data}");
    }
}

/// Printed with `--nocapture`; nothing is asserted about time.
#[test]
fn throughput() {
    let line = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1741191930,\"model\":\"gpt-5.6\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";
    let chunk = Bytes::from(line.repeat(4));
    let rounds = 50_000;
    let (mut framer, mut reader) = (Framer::new(1 << 20), StreamReader::new(true));
    let begin = Instant::now();
    for _ in 0..rounds {
        framer.relay(std::hint::black_box(chunk.clone()), |event| reader.read(event).verdict);
    }
    let per_event = begin.elapsed() / (rounds * 4);
    let begin = Instant::now();
    for _ in 0..rounds {
        framer.relay(std::hint::black_box(chunk.clone()), |_| Verdict::Forward);
    }
    let framing = begin.elapsed() / (rounds * 4);
    let mut join = Join::new(Limits { max_chunks: 1 << 30, max_response: 1 << 30, streamed_data: true });
    let data = &line.as_bytes()[6..line.len() - 2];
    let begin = Instant::now();
    for _ in 0..rounds {
        join.push(std::hint::black_box(data));
    }
    let joining = begin.elapsed() / rounds;
    println!(
        "event of {} bytes: framed {framing:?}, framed and read {per_event:?}, joined {joining:?}",
        line.len()
    );
    assert_eq!(reader.facts().events, u64::from(rounds) * 4);
}
