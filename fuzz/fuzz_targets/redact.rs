//! Redaction: whatever the bodies are, it never panics; JSON stays JSON; without a finding the bytes are the same.
#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use magicapi_dialects::json;
use magicapi_plugin::{Facts, RequestId};
use magicapi_telemetry::redact::{Content, PiiSetting, RedactionSettings, Redactor};

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| {
    let paths = ["$.request.messages[*].content", "$..secret", "$.response.choices[0].delta"];
    let settings = RedactionSettings {
        pii: PiiSetting::All(true),
        paths: paths.map(str::to_owned).to_vec(),
        ..RedactionSettings::default()
    };
    Redactor::new(&settings).expect("settings")
});

fuzz_target!(|input: (&[u8], &[u8], String)| {
    let (body, pieces, text) = input;
    // Text in pieces, as a stream has it; and whatever bytes there are, as a body.
    let mut events = vec![b'['];
    for piece in text.split_inclusive(|char: char| pieces.contains(&(char as u8))) {
        if events.len() > 1 {
            events.push(b',');
        }
        events.extend_from_slice(
            serde_json::json!({"choices": [{"delta": {"content": piece}}]}).to_string().as_bytes(),
        );
    }
    events.push(b']');
    let valid = json::valid(body);
    let before = Content {
        request: Some(Bytes::copy_from_slice(body)),
        response: Some(serde_json::json!({"choices": [{"delta": {"content": text}}]}).to_string().into()),
        streamed_data: Some(events.into()),
        ..Content::default()
    };
    let (mut after, mut facts) = (before.clone(), Facts::new(RequestId::mint(), SystemTime::UNIX_EPOCH));
    let outcome = REDACTOR.apply(&mut after, &mut facts);
    if outcome.failed {
        assert!(!valid, "valid JSON is always redacted");
        assert_eq!(after, Content::default());
        return;
    }
    if outcome.found.is_empty() {
        assert_eq!(after, before);
    }
    if valid {
        assert!(after.request.is_some_and(|body| json::valid(&body)));
    }
    assert!(after.response.is_some_and(|body| json::valid(&body)));
    assert!(after.streamed_data.is_none_or(|body| json::valid(&body)));
});
