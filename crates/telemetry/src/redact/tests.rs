//! Redaction from end to end: what is found, what stands in its place, what stays.

mod arguments;
mod assignments;
mod credentials;
mod email;
mod known;
mod numbers;
mod paths;
mod pem;
mod properties;
mod samples;
mod scattered;
mod streams;
mod urls;
mod work;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use magicapi_dialects::openai_chat::{Join, join};
use magicapi_plugin::{RequestMetrics, Secret, TelemetryConfig};
use serde_json::{Value, json};

use self::samples::{Sample, body, hex, jwt, other_forms, samples};
use super::patterns::{Name, Pattern, SECRETS};
use super::{
    Class, Content, CustomPattern, Found, Outcome, Pii, PiiSetting, RedactionSettings, Redactor, Replace,
};
use crate::scripted::facts;

fn redactor(change: impl FnOnce(&mut RedactionSettings)) -> Redactor {
    let mut settings = RedactionSettings::default();
    change(&mut settings);
    Redactor::new(&settings).unwrap_or_else(|error| panic!("{error}"))
}

fn with_pii() -> Redactor {
    redactor(|settings| settings.pii = PiiSetting::All(true))
}

fn bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("json").into()
}

/// What becomes of a text in a request.
fn redacted(redactor: &Redactor, text: &str) -> (String, Outcome) {
    let request = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
    let mut content = Content { request: Some(bytes(&request)), ..Content::default() };
    let outcome = redactor.apply(&mut content, &mut facts());
    assert!(!outcome.failed);
    let request: Value = serde_json::from_slice(&content.request.expect("a body")).expect("json");
    (request["messages"][0]["content"].as_str().expect("text").to_owned(), outcome)
}

/// Whatever stands around it, the secret goes and all else comes out as it went in.
fn assert_found(redactor: &Redactor, sample: &Sample) {
    for (before, after) in
        [("", ""), ("The key is ", ", keep it."), ("(\"", "\")"), ("é\n", "\n"), ("'", "'")]
    {
        let (text, outcome) = redacted(redactor, &format!("{before}{}{after}", sample.text()));
        assert_eq!(text, format!("{before}{}{after}", sample.masked()), "{}", sample.secret);
        assert_eq!(outcome.found, [Found { class: Class::Secret, name: sample.name.into(), count: 1 }]);
    }
}

#[test]
fn every_sort_of_secret_is_found_and_named() {
    let redactor = redactor(|_| {});
    for sample in samples().iter().chain(&other_forms()) {
        assert_found(&redactor, sample);
    }
}

/// The automaton itself says which row matches: each is a pattern of the user's, called by its place in the table.
#[test]
fn every_row_of_the_table_is_hit_by_a_sample() {
    let redactor = redactor(|settings| {
        let row = |(at, row): (usize, &Pattern)| CustomPattern {
            name: format!("row_{at}"),
            regex: row.regex.into(),
        };
        settings.patterns = SECRETS.iter().enumerate().map(row).collect();
    });
    let hits = samples().into_iter().flat_map(|sample| {
        let (mut cache, mut found) = (redactor.matcher.cache(), Vec::new());
        redactor.matcher.search(sample.text().as_bytes(), &mut cache, &mut found);
        found.into_iter().map(move |found| (sample.name, found.name))
    });
    let hits: HashSet<_> = hits.collect();
    let missed =
        SECRETS.iter().enumerate().filter(|(at, row)| !hits.contains(&(row.name, Name::Custom(*at))));
    let missed: Vec<_> = missed.map(|(_, row)| (row.name, row.regex)).collect();
    assert!(missed.is_empty(), "no sample hits {missed:?}");
}

#[test]
fn secrets_in_context_are_found() {
    let redactor = redactor(|_| {});
    let key = body(40);
    for (text, expected) in [
        ("DB_PASSWORD=hunter2!x next", "DB_PASSWORD=[REDACTED:password] next"),
        ("password: \"hunter2!x\"", "password: \"[REDACTED:password]\""),
        ("{\"password\":\"hunter2!x\"}", "{\"password\":\"[REDACTED:password]\"}"),
        ("{\\\"pwd\\\": \\\"hunter2!x\\\"}", "{\\\"pwd\\\": \\\"[REDACTED:password]\\\"}"),
        ("postgres://app:s3cr3t@db.example/x", "postgres://app:[REDACTED:url_password]@db.example/x"),
        ("redis://:s3cr3t@db:6379", "redis://:[REDACTED:url_password]@db:6379"),
        ("Authorization: Basic dXNlcjpodW50ZXIyeA==", "Authorization: Basic [REDACTED:basic_credential]"),
        ("?api_key=aB3dE5fG7hJ9kL2m&x=1", "?api_key=[REDACTED:credential]&x=1"),
    ] {
        assert_eq!(redacted(&redactor, text).0, expected);
    }
    for (before, name) in [
        ("aws_secret_access_key = ", "credential"),
        ("AccountKey=", "credential"),
        ("api-key: ", "credential"),
        ("client_secret=", "credential"),
        ("Authorization: Bearer ", "bearer_token"),
        ("authorization: bearer ", "bearer_token"),
    ] {
        assert_eq!(redacted(&redactor, &format!("{before}{key}")).0, format!("{before}[REDACTED:{name}]"));
    }
    // The more special name wins.
    let (text, _) = redacted(&redactor, &format!("Authorization: Bearer {}", jwt()));
    assert_eq!(text, "Authorization: Bearer [REDACTED:jwt]");
}

#[test]
fn innocent_text_is_left_alone() {
    let redactor = with_pii();
    let innocent = include_str!("tests/innocent.txt");
    for line in innocent.lines() {
        let (text, outcome) = redacted(&redactor, line);
        assert_eq!((text.as_str(), outcome.found.as_slice()), (line, &[][..]));
    }
    let mut content = Content { request: Some(bytes(&json!({"text": innocent}))), ..Content::default() };
    let before = content.clone();
    redactor.apply(&mut content, &mut facts());
    assert_eq!(content, before);
    assert!(innocent.lines().count() > 50);
}

#[test]
fn personal_data_is_found_when_asked() {
    let (all, none) = (with_pii(), redactor(|_| {}));
    for (text, expected) in [
        ("mail jane.doe+x@example.co.uk.", "mail [REDACTED:email]."),
        ("<a@b.io>", "<[REDACTED:email]>"),
        ("call +49 30 901820 now", "call [REDACTED:phone] now"),
        ("(555) 234-5678", "[REDACTED:phone]"),
        ("555-234-5678,", "[REDACTED:phone],"),
        ("+14155552671", "[REDACTED:phone]"),
        ("030 9018200", "[REDACTED:phone]"),
        ("01 23 45 67 89", "[REDACTED:phone]"),
        ("card 4111 1111 1111 1111 12/27 123", "card [REDACTED:card] 12/27 123"),
        ("4111111111111111", "[REDACTED:card]"),
        ("3782-822463-10005", "[REDACTED:card]"),
        ("DE89 3704 0044 0532 0130 00 AND MORE", "[REDACTED:iban] AND MORE"),
        ("GB82WEST12345698765432.", "[REDACTED:iban]."),
        ("8.8.8.8", "[REDACTED:ip]"),
        ("01.23.45.67.89", "[REDACTED:phone]"),
        ("from 93.184.216.34:443", "from [REDACTED:ip]:443"),
        ("2606:4700:4700::1111 answers", "[REDACTED:ip] answers"),
        ("[2001:4860:4860:0:0:0:0:8888]", "[[REDACTED:ip]]"),
        ("ssn 123-45-6789", "ssn [REDACTED:national_id]"),
        ("AB 12 34 56 C", "[REDACTED:national_id]"),
        ("47036892816", "[REDACTED:national_id]"),
        ("2 55 08 14 168 025 38", "[REDACTED:national_id]"),
        ("12345678Z", "[REDACTED:national_id]"),
        ("X1234567L", "[REDACTED:national_id]"),
        ("MRTMTT91D08F205J", "[REDACTED:national_id]"),
        ("529.982.247-25", "[REDACTED:national_id]"),
        ("2341 2341 2346", "[REDACTED:national_id]"),
    ] {
        assert_eq!(redacted(&all, text).0, expected);
        assert_eq!(redacted(&none, text).0, text, "not asked for");
    }
    let emails = redactor(|settings| settings.pii = PiiSetting::Kinds(vec![Pii::Email]));
    assert_eq!(redacted(&emails, "a@b.io 4111111111111111").0, "[REDACTED:email] 4111111111111111");
}

#[test]
fn without_a_finding_the_bytes_are_the_same_allocation() {
    let body = bytes(&json!({"a": "text \u{1F600}\n", "n": 1e300, "x": [null, true]}));
    let events = Bytes::from_static(b"[{\"a\": \"x\" } , 1]");
    let mut content = Content {
        request: Some(body.clone()),
        response: Some(body.clone()),
        streamed_data: Some(events.clone()),
        ..Content::default()
    };
    assert_eq!(with_pii().apply(&mut content, &mut facts()), Outcome::default());
    for kept in [content.request, content.response] {
        assert_eq!(kept.expect("a body").as_ptr(), body.as_ptr());
    }
    assert_eq!(content.streamed_data.expect("events").as_ptr(), events.as_ptr());
}

#[test]
fn what_is_not_found_keeps_its_bytes_and_escapes_are_decoded() {
    let key = format!("sk-proj-{}", body(40));
    let escaped = key.replace('-', "\\u002d");
    let request = format!("{{ \"a\":\"\\u0041\\/ {escaped} \\n\",\"{key}\" :1E5,\"n\":4111111111111111}}");
    let mut content = Content { request: Some(request.into()), ..Content::default() };
    with_pii().apply(&mut content, &mut facts());
    assert_eq!(
        String::from_utf8_lossy(&content.request.expect("a body")),
        "{ \"a\":\"\\u0041\\/ [REDACTED:openai_key] \\n\",\"[REDACTED:openai_key]\" :1E5,\"n\":\"[REDACTED:card]\"}"
    );
}

#[test]
fn members_with_a_secrets_name_are_masked() {
    let request = json!({"tools": [{"headers": {"X-Api-Key": body(24), "db_password": "hunter2!x"}}],
        "next_page_token": body(24), "max_tokens": "1000", "token": "hello", "password": "string"});
    let mut content = Content { request: Some(bytes(&request)), ..Content::default() };
    redactor(|_| {}).apply(&mut content, &mut facts());
    let mut expected = request;
    expected["tools"][0]["headers"] =
        json!({"X-Api-Key": "[REDACTED:credential]", "db_password": "[REDACTED:credential]"});
    // The first was found under its name, and stands here as well.
    expected["next_page_token"] = json!("[REDACTED:credential]");
    assert_eq!(content.request, Some(bytes(&expected)));
}

#[test]
fn a_value_found_once_is_masked_in_the_whole_record() {
    let mut content = Content {
        request: Some(bytes(&json!({"messages": [{"content": "password=hunter2!x"}]}))),
        response: Some(bytes(&json!({"choices": [{"message": {"content": "hunter2!x is weak"}}]}))),
        ..Content::default()
    };
    let mut facts = facts();
    facts.error_message = Some("bad hunter2!x".into());
    facts.user_id = Some(format!("u-sk-proj-{}", body(30)));
    redactor(|_| {}).apply(&mut content, &mut facts);
    assert_eq!(
        content.response,
        Some(bytes(&json!({"choices": [{"message": {"content": "[REDACTED:password] is weak"}}]})))
    );
    assert_eq!(facts.error_message.as_deref(), Some("bad [REDACTED:password]"));
    assert_eq!(facts.user_id.as_deref(), Some("u-[REDACTED:openai_key]"));
}

#[test]
fn data_costs_nothing_and_text_beside_it_is_read() {
    let data = format!("data:image/png;base64,{}", body(4096));
    let key = format!("sk-proj-{}", body(40));
    let request = json!({"messages": [{"content": [{"image_url": {"url": data}}, {"text": key}]}]});
    let mut content = Content { request: Some(bytes(&request)), ..Content::default() };
    redactor(|_| {}).apply(&mut content, &mut facts());
    let mut expected = request;
    expected["messages"][0]["content"][1]["text"] = json!("[REDACTED:openai_key]");
    assert_eq!(content.request, Some(bytes(&expected)));
}

#[test]
fn hashes_are_equal_for_equal_secrets_and_depend_on_the_key() {
    let hashing = |key: &str| {
        redactor(|settings| {
            settings.replace = Replace::Hash;
            settings.hash_key = Secret::new(key);
        })
    };
    let (one, other) = (hashing("0123456789abcdef"), hashing("0123456789abcdeg"));
    let [a, b] = [body(40), hex(40)].map(|tail| format!("gsk_{tail}"));
    let (text, _) = redacted(&one, &format!("{a} {b} {a}"));
    let hashes: Vec<&str> = text.split(' ').collect();
    assert_eq!(hashes[0], hashes[2]);
    assert_ne!(hashes[0], hashes[1]);
    let digits = hashes[0].strip_prefix("[REDACTED:groq_key:").and_then(|rest| rest.strip_suffix(']'));
    assert!(
        digits
            .is_some_and(|digits| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    );
    assert_ne!(redacted(&other, &a).0, hashes[0]);
}

#[test]
fn custom_patterns_come_first() {
    let redactor = redactor(|settings| {
        settings.patterns = vec![
            CustomPattern { name: "ticket".into(), regex: r"\bTCK-\d{4}\b".into() },
            CustomPattern { name: "house".into(), regex: "(?i)müller|ghp_.*".into() },
        ];
    });
    assert_eq!(redacted(&redactor, "see TCK-1234 of Müller").0, "see [REDACTED:ticket] of [REDACTED:house]");
    let (_, outcome) = redacted(&redactor, &format!("ghp_{}", body(36)));
    assert_eq!((outcome.found[0].class, outcome.found[0].name.as_str()), (Class::Custom, "house"));
}

#[test]
fn a_custom_pattern_hides_no_secret_behind_the_name_that_it_matches() {
    let redactor = redactor(|settings| {
        settings.pii = PiiSetting::All(true);
        settings.patterns = vec![
            CustomPattern { name: "hdr".into(), regex: "(?i)x-api-key|pass".into() },
            CustomPattern { name: "begin".into(), regex: "api_|ghp_.{4}|-----BEGIN|jane".into() },
        ];
    });
    let (key, github) = (body(24), format!("ghp_{}", body(36)));
    for (text, expected) in [
        (format!("x-api-key: {key} jane"), "[REDACTED:hdr]: [REDACTED:credential] [REDACTED:begin]"),
        (format!("api_key={key}"), "[REDACTED:begin]key=[REDACTED:credential]"),
        ("a PASSWORD=hunter2!x".to_owned(), "a [REDACTED:hdr]WORD=[REDACTED:password]"),
        (format!("see {github}"), "see [REDACTED:begin]"),
        ("jane@example.com".to_owned(), "[REDACTED:begin]"),
        ("pass; then mail a@b.io".to_owned(), "[REDACTED:hdr]; then mail [REDACTED:email]"),
    ] {
        assert_eq!(redacted(&redactor, &text).0, expected);
    }
}

#[test]
fn settings_that_cannot_be_used_say_which_and_why() {
    let pattern = |name: &str, regex: &str| CustomPattern { name: name.into(), regex: regex.into() };
    let with = |patterns: Vec<CustomPattern>| RedactionSettings { patterns, ..RedactionSettings::default() };
    let hash = |key: &str| RedactionSettings {
        replace: Replace::Hash,
        hash_key: Secret::new(key),
        ..RedactionSettings::default()
    };
    let masked = RedactionSettings { replace: Replace::Mask, ..hash("0123456789abcdef") };
    for (settings, field, said) in [
        (with(vec![pattern("a b", "x")]), "patterns[0].name", "`a b` is no name"),
        (with(vec![pattern("a", "x"), pattern("a", "y")]), "patterns[1].name", "`a` is given twice"),
        (
            with(vec![pattern("a", "ab(c")]),
            "patterns[0].regex",
            "unclosed group, at character 3; look-around",
        ),
        (with(vec![pattern("a", "(?=x)")]), "patterns[0].regex", "look-around"),
        (with(vec![pattern("a", "x*")]), "patterns[0].regex", "can match the empty text"),
        (with(vec![pattern("a", "(x{1000}){1000}")]), "patterns[0].regex", "no regular expression"),
        (hash(""), "replace", "needs a key"),
        (hash("short"), "hash_key", "has 5 bytes"),
        (masked, "hash_key", "of no use"),
    ] {
        let error = Redactor::new(&settings).expect_err(said);
        assert!(error.key == field && error.to_string().contains(said), "{error}");
        assert!(!error.reason.contains('\n'), "{error}");
    }
    let read = |text: &str| serde_json::from_str::<RedactionSettings>(text);
    let settings =
        read(r#"{"pii":["email","national_id"],"replace":"hash","hash_key":"x","paths":["$.request.user"]}"#);
    assert!(settings.is_ok_and(|settings| settings.pii.has(Pii::NationalId) && !settings.pii.has(Pii::Ip)));
    assert!(read(r#"{"pii":true}"#).is_ok_and(|settings| settings.pii.has(Pii::Ip)));
    assert!(read(r#"{"pi":true}"#).is_err());
    assert!(!format!("{:?}", hash("0123456789abcdef")).contains("0123456789abcdef"));
}

#[test]
fn paths_mask_the_request_the_answer_its_events_and_the_labels() {
    let redactor = redactor(|settings| {
        settings.paths = [
            "$.request.messages[*].content",
            "..metadata.email",
            "$.user_id",
            "$.response.choices[*].delta.content",
        ]
        .map(str::to_owned)
        .to_vec();
    });
    let (response, events) = chat_stream(&["Hel", "lo"]);
    let mut content = Content {
        request: Some(bytes(&json!({"messages": [{"content": "hi"}, {"content": [{"text": "hi"}]}],
            "metadata": {"email": 7, "other": "x"}}))),
        response: Some(response),
        streamed_data: Some(events),
        ..Content::default()
    };
    let mut facts = facts();
    facts.user_id = Some("jane".into());
    let outcome = redactor.apply(&mut content, &mut facts);
    let mask = "[REDACTED:path]";
    assert_eq!(
        content.request,
        Some(bytes(&json!({"messages": [{"content": mask}, {"content": mask}],
            "metadata": {"email": mask, "other": "x"}})))
    );
    assert_eq!(facts.user_id.as_deref(), Some(mask));
    let (text, pieces) = chat_texts(&content);
    assert_eq!((text.as_str(), pieces), (mask, vec![mask.to_owned(), String::new()]));
    assert_eq!(outcome.found[0].class, Class::Path);
}

fn joined(events: &[Value]) -> (Bytes, Bytes) {
    let mut join = Join::new(join::Limits::default());
    for event in events {
        join.push(&bytes(event));
    }
    let joined = join.finish("m");
    (joined.response.into(), joined.streamed_data.expect("events").into())
}

fn chat_stream(pieces: &[&str]) -> (Bytes, Bytes) {
    let event = |piece: &&str| {
        json!({"id": "chatcmpl-123456789", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": "gpt-x", "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]})
    };
    joined(&pieces.iter().map(event).collect::<Vec<_>>())
}

/// The joined text, and the pieces of the events.
fn chat_texts(content: &Content) -> (String, Vec<String>) {
    let read = |body: &Option<Bytes>| -> Value {
        serde_json::from_slice(body.as_ref().expect("a body")).expect("json")
    };
    let text = read(&content.response)["choices"][0]["delta"]["content"].as_str().expect("text").to_owned();
    let piece = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    (text, read(&content.streamed_data).as_array().expect("events").iter().filter_map(piece).collect())
}

#[test]
fn each_delta_becomes_its_slice_of_the_masked_text() {
    let key = format!("sk-proj-{}", body(40));
    let (head, tail) = key.split_at(17);
    let (response, streamed) = chat_stream(&["It is ", "your s", &head[1..], tail, " \u{1F600}", "."]);
    let mut content =
        Content { response: Some(response), streamed_data: Some(streamed), ..Content::default() };
    let outcome = redactor(|_| {}).apply(&mut content, &mut facts());
    let (text, pieces) = chat_texts(&content);
    assert_eq!(text, "It is your [REDACTED:openai_key] \u{1F600}.");
    assert_eq!(pieces, ["It is ", "your [REDACTED:openai_key]", "", "", " \u{1F600}", "."]);
    assert_eq!(outcome.found[0].count, 1, "the stream's are the response's");
}

#[test]
fn probabilities_that_spell_a_secret_go_whole() {
    let key = format!("sk-proj-{}", body(40));
    let logprobs = |text: &str| {
        let token = |char: char| json!({"token": char.to_string(), "bytes": [char as u32], "logprob": -0.1});
        json!({"content": text.chars().map(token).collect::<Vec<_>>()})
    };
    let response = json!({"choices": [{"message": {"content": key}, "logprobs": logprobs(&key)}]});
    let mut content = Content { response: Some(bytes(&response)), ..Content::default() };
    redactor(|_| {}).apply(&mut content, &mut facts());
    let got: Value = serde_json::from_slice(&content.response.expect("a body")).expect("json");
    assert_eq!(got["choices"][0]["logprobs"], json!({"redacted": bytes(&logprobs(&key)).len()}));
    // Nothing found: they stay.
    let response = json!({"choices": [{"message": {"content": "hi"}, "logprobs": logprobs("hi")}]});
    let mut content = Content { response: Some(bytes(&response)), ..Content::default() };
    redactor(|_| {}).apply(&mut content, &mut facts());
    assert_eq!(content.response, Some(bytes(&response)));
}

#[test]
fn a_secret_that_stands_in_no_one_place_takes_its_events_along() {
    let key = format!("sk-proj-{}", body(40));
    let (one, two) = key.split_at(20);
    let events = json!([{"a": one}, {"b": two}, 7]);
    let mut content = Content {
        response: Some(bytes(&json!({"text": key}))),
        streamed_data: Some(bytes(&events)),
        ..Content::default()
    };
    redactor(|_| {}).apply(&mut content, &mut facts());
    assert_eq!(content.response, Some(bytes(&json!({"text": "[REDACTED:openai_key]"}))));
    let length = |event: &Value| json!({"redacted": bytes(event).len()});
    let expected: Vec<Value> = events.as_array().expect("events").iter().map(length).collect();
    assert_eq!(content.streamed_data, Some(bytes(&expected.into())));
}

#[test]
fn whole_values_side_by_side_are_each_read_alone() {
    let key = format!("sk-proj-{}", body(40));
    let sk = format!("sk-{}", hex(32));
    let events = json!([{"url": "https://x.example/a"}, {"url": sk}, {"url": key}, {"url": "b"}]);
    let mut content = Content { streamed_data: Some(bytes(&events)), ..Content::default() };
    redactor(|_| {}).apply(&mut content, &mut facts());
    let text = String::from_utf8(content.streamed_data.expect("events").to_vec()).expect("utf-8");
    assert!(!text.contains(&sk) && !text.contains(&key) && text.contains("https://x.example/a"), "{text}");
}

#[test]
fn a_redactor_that_fails_drops_content_and_keeps_metadata() {
    let redactor = redactor(|_| {});
    let failing: [fn(&Redactor, &mut Content, Vec<super::Label<'_>>) -> _; 2] =
        [|_, _, _| panic!("scripted"), |_, _, _| Err(super::Malformed)];
    for run in failing {
        let mut content = Content { request: Some(Bytes::from_static(b"{}")), ..Content::default() };
        let mut facts = facts();
        facts.error_message = Some("text".into());
        let outcome = redactor.guarded(&mut content, &mut facts, run);
        assert!(outcome.failed && content == Content::default() && facts.error_message.is_none());
        let record = RequestMetrics::seal(facts, Arc::new(TelemetryConfig::default()), None, None, None);
        let log = record.to_otel_log();
        assert_eq!(log["attributes"]["metadata"]["content_dropped"], "redaction");
        assert_eq!(log["attributes"]["metadata"]["status_code"], 200);
    }
}

#[test]
fn what_is_no_json_fails_and_leaves_the_labels_redacted() {
    let redactor = redactor(|_| {});
    for broken in ["{\"a\":", "{\"a\" 1}", "\"a", "", "{} x", "[1,]"] {
        let mut content = Content { request: Some(broken.into()), ..Content::default() };
        let mut facts = facts();
        facts.user_id = Some(format!("ghp_{}", body(36)));
        assert!(redactor.apply(&mut content, &mut facts).failed, "{broken}");
        assert_eq!(content, Content::default());
        assert_eq!(facts.user_id.as_deref(), Some("[REDACTED:github_token]"));
    }
}

#[test]
fn keys_without_a_form_are_found_where_they_are_known() {
    let (ours, theirs) = (hex(32), body(30));
    let redactor =
        redactor(|settings| settings.own = vec![Secret::new(ours.as_str()), Secret::new("not-needed")]);
    let text = format!("not-needed, {ours}, {theirs}");
    let mask = "not-needed, [REDACTED:configured_secret]";
    assert_eq!(redacted(&redactor, &text).0, format!("{mask}, {theirs}"));
    assert_eq!(redactor.text(&text), format!("{mask}, {theirs}"));
    for at in [1, 12, text.len() - 12, text.len() - 1] {
        let (response, streamed) = chat_stream(&[&text[..at], &text[at..]]);
        let mut content =
            Content { response: Some(response), streamed_data: Some(streamed), ..Content::default() };
        let mut facts = facts();
        facts.error_message = Some(format!("wrong key {theirs}"));
        redactor.apply_knowing(Some(&Secret::new(theirs.as_str())), &mut content, &mut facts);
        let (joined, slices) = chat_texts(&content);
        assert_eq!(joined, format!("{mask}, [REDACTED:caller_key]"));
        assert_eq!(slices.concat(), joined);
        assert_eq!(facts.error_message.as_deref(), Some("wrong key [REDACTED:caller_key]"));
    }
    let mut content = Content { request: Some(bytes(&json!(["gateway"]))), ..Content::default() };
    let outcome = redactor.apply_knowing(Some(&Secret::new("gateway")), &mut content, &mut facts());
    assert_eq!(outcome, Outcome::default(), "a word");
}

#[test]
fn a_text_for_the_log_hides_more_than_one_that_spend_is_counted_by() {
    let redactor = with_pii();
    let text = format!("jane@example.com {}", body_key());
    assert_eq!(redactor.text(&text), "[REDACTED:email] [REDACTED:openai_key]");
    assert_eq!(redactor.without_secrets(None, &text), "jane@example.com [REDACTED:openai_key]");
    let own = Secret::new("07q7Zt4Lw9Xk2Vb8Nm5Rc1Hd6Js3Gf0Py");
    let text = format!("jane@example.com {}", own.expose());
    assert_eq!(redactor.text_knowing(Some(&own), &text), "[REDACTED:email] [REDACTED:caller_key]");
    assert_eq!(redactor.without_secrets(Some(&own), &text), "jane@example.com [REDACTED:caller_key]");
    assert_eq!(redactor.without_secrets(Some(&own), "jane"), "jane");
    assert!(matches!(redactor.text("gpt-4o-mini"), std::borrow::Cow::Borrowed("gpt-4o-mini")));
}

fn body_key() -> String {
    format!("sk-proj-{}", body(40))
}
