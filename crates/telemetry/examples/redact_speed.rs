//! How fast redaction reads what holds nothing to find, and a text that holds secrets, beside a plain `memchr` pass over
//! the same bytes.
//!
//! `cargo run --profile dist -p magicapi-telemetry --example redact_speed`: MB/s on one core, the best of several rounds,
//! measured in turns so that a busy machine slows all of them alike.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a program that shows figures")]

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use magicapi_plugin::{Facts, RequestId};
use magicapi_telemetry::redact::{Content, PiiSetting, RedactionSettings, Redactor};
use serde_json::json;

const ROUNDS: usize = 9;
const BYTES: usize = 4 << 20;
const WITH_SECRETS: &str = "with secrets";

const PROSE: &str = "The assistant reads the question twice, looks up what it needs, and answers in plain words. \
    In 2024 there were about 1400 of them; today nobody counts any more. It costs 0.35 euros per page, says the report, \
    and \u{e4}ltere Leute m\u{f6}gen es. ";

const CODE: &str = "pub fn relay(&mut self, chunk: Bytes, token: Option<Token>) -> Result<usize, Error> {\n    \
    let key = self.keys.get(&hash)?; // see issue 1234\n    for (i, x) in data.iter().enumerate() { sum += x[i] * 31; }\n\
    \t\tself.password = password.to_owned();\n    Ok(self.out.len() + 0x1f2e)\n}\n";

fn repeated(text: &str, bytes: usize) -> String {
    text.repeat(bytes / text.len())
}

/// One string, small requests in a list, one long chat, or events.
fn bodies() -> Vec<(&'static str, Content)> {
    let request =
        |value: serde_json::Value| Content { request: Some(value.to_string().into()), ..Content::default() };
    let message = |at: usize| {
        let text = if at.is_multiple_of(3) { CODE } else { PROSE };
        json!({"role": if at.is_multiple_of(2) { "user" } else { "assistant" }, "content": text})
    };
    let chat: Vec<_> = (0..BYTES / 300).map(message).collect();
    let words: Vec<&str> = PROSE.split_inclusive(' ').collect();
    let event = |at: usize| {
        json!({"id": "chatcmpl-ec855684-8495-420d-8807-9259228ac717", "object": "chat.completion.chunk",
            "created": 1_741_190_600, "model": "gpt-4o-2024-08-06", "system_fingerprint": "fp_44709d6fcb",
            "choices": [{"index": 0, "delta": {"content": words.get(at % words.len())}, "logprobs": null,
                "finish_reason": null}]})
    };
    let events: Vec<_> = (0..BYTES / 260).map(event).collect();
    // One key in about a kilobyte.
    let secrets = format!("{}sk-proj-{} ", PROSE.repeat(4), "Ab3Cd5Ef7G".repeat(5));
    let image = format!("data:image/png;base64,{}", repeated("iVBORw0KGgoAAAANSUhEUgAAAAUA", BYTES));
    vec![
        ("prose", request(json!(repeated(PROSE, BYTES)))),
        ("code", request(json!(repeated(CODE, BYTES)))),
        ("chat body", request(json!({"model": "gpt-4o", "messages": chat}))),
        (WITH_SECRETS, request(json!(repeated(&secrets, BYTES)))),
        ("image", request(json!({"messages": [{"content": [{"image_url": {"url": image}}]}]}))),
        ("stream", Content { streamed_data: Some(json!(events).to_string().into()), ..Content::default() }),
    ]
}

fn size(content: &Content) -> usize {
    let length = |body: &Option<Bytes>| body.as_ref().map_or(0, Bytes::len);
    length(&content.request) + length(&content.response) + length(&content.streamed_data)
}

fn redact(redactor: &Redactor, content: &Content, finds: bool) -> Duration {
    let (mut content, mut facts) = (content.clone(), Facts::new(RequestId::mint(), SystemTime::now()));
    let begin = Instant::now();
    let outcome = redactor.apply(&mut content, &mut facts);
    let time = begin.elapsed();
    assert!(outcome.found.is_empty() != finds && !outcome.failed, "finds something: {finds}; {outcome:?}");
    time
}

fn pass(content: &Content) -> Duration {
    let begin = Instant::now();
    for body in [&content.request, &content.streamed_data].into_iter().flatten() {
        black_box(memchr::memchr_iter(b'"', body).count());
    }
    begin.elapsed()
}

/// Single texts, as of an access line; in nanoseconds each.
fn text(redactor: &Redactor, text: &str) -> u128 {
    const TIMES: u32 = 100_000;
    let begin = Instant::now();
    for _ in 0..TIMES {
        black_box(redactor.text(black_box(text)));
    }
    begin.elapsed().as_nanos() / u128::from(TIMES)
}

fn main() {
    let secrets = Redactor::new(&RedactionSettings::default()).expect("settings");
    let settings = RedactionSettings { pii: PiiSetting::All(true), ..RedactionSettings::default() };
    let all = Redactor::new(&settings).expect("settings");
    println!("{:<12} {:>10} {:>10} {:>10}   MB/s", "", "secrets", "with PII", "memchr");
    for (name, content) in bodies() {
        let finds = name == WITH_SECRETS;
        let mut best = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            let times = [redact(&secrets, &content, finds), redact(&all, &content, finds), pass(&content)];
            for (best, time) in best.iter_mut().zip(times) {
                *best = time.min(*best);
            }
        }
        let [secrets, all, pass] = best.map(|time| size(&content) as f64 / 1e6 / time.as_secs_f64());
        println!("{name:<12} {secrets:>10.0} {all:>10.0} {pass:>10.0}");
    }
    for label in ["POST", "gpt-4o-mini", "/v1/chat/completions"] {
        println!("{label:<20} {} ns, with PII {} ns", text(&secrets, label), text(&all, label));
    }
}
