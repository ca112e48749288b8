//! What is found once is found everywhere: which values, and how many.

use bytes::Bytes;
use magicapi_plugin::Secret;
use serde_json::{Value, json};

use super::{bytes, redactor, with_pii};
use crate::redact::Content;
use crate::redact::known::Known;
use crate::redact::matcher::Finding;
use crate::redact::patterns::{Class, Name};
use crate::scripted::facts;

const EMAIL: Name = Name::builtin("email", Class::Pii);
const PASSWORD: Name = Name::builtin("password", Class::Secret);

fn found(known: &Known, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    known.find(text.as_bytes(), &mut found);
    found
}

#[test]
fn secrets_are_known_before_personal_data() {
    let emails: Vec<String> = (0..300).map(|number| format!("jane{number}@example.com")).collect();
    let request = json!({ "messages": [{ "content": format!("{} password=hunter2!x", emails.join(" ")) }] });
    let answer = json!({ "choices": [{ "message": { "content": "hunter2!x is weak" } }] });
    let mut content =
        Content { request: Some(bytes(&request)), response: Some(bytes(&answer)), ..Content::default() };
    with_pii().apply(&mut content, &mut facts());
    let answer: Value = serde_json::from_slice(&content.response.expect("a body")).expect("json");
    assert_eq!(answer["choices"][0]["message"]["content"], "[REDACTED:password] is weak");
}

#[test]
fn two_hundred_and_fifty_six_values_are_known_in_the_order_in_which_they_were_found() {
    let values: Vec<_> = (0..300).map(|number| (format!("value-{number:03}").into_bytes(), EMAIL)).collect();
    let known = Known::new(&values, None).expect("values");
    assert_eq!(found(&known, "value-255 value-256").len(), 1);
}

#[test]
fn a_value_that_is_made_of_others_is_found_in_its_parts() {
    let part = "ab1cdefg";
    let values = [(part.repeat(500).into_bytes(), PASSWORD), (part.into(), PASSWORD)];
    let known = Known::new(&values, None).expect("values");
    let found = found(&known, &part.repeat(500));
    assert_eq!(found.len(), 500);
    assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start));
}

#[test]
fn a_value_that_holds_another_twice_is_found_whole() {
    let (part, whole) = ("ab1cdefg", "ab1cdefg-Q7zT4-ab1cdefg-Lw9Xk2Vb8Nm5+0aR");
    let values = [(part.into(), PASSWORD), (whole.into(), PASSWORD)];
    let known = Known::new(&values, None).expect("values");
    let found = found(&known, whole);
    assert_eq!((found.len(), found[0].end - found[0].start), (1, whole.len()));
}

const KEY: &str = "Zk+b/07q7Zt4Lw9Xk2Vb8Nm5";

fn knowing(mut content: Content) -> Content {
    assert!(!redactor(|_| {}).apply_knowing(Some(&Secret::new(KEY)), &mut content, &mut facts()).failed);
    content
}

fn text(body: Option<Bytes>) -> String {
    String::from_utf8(body.expect("a body").to_vec()).expect("utf-8")
}

#[test]
fn the_callers_key_is_found_however_json_writes_it() {
    for written in
        [KEY.to_owned(), KEY.replace('/', "\\/"), KEY.replace('+', "\\u002b"), KEY.replace('Z', "\\u005A")]
    {
        let request = format!("{{\"content\":\"it is {written}.\"}}");
        let content = knowing(Content { request: Some(request.into()), ..Content::default() });
        assert_eq!(text(content.request), "{\"content\":\"it is [REDACTED:caller_key].\"}", "{written}");
    }
}

/// These events add up to no answer in which it would stand whole.
#[test]
fn the_callers_key_is_found_in_pieces() {
    let event =
        |piece: &str| json!({ "type": "content_block_delta", "index": 0, "delta": { "text": piece } });
    for at in 1..KEY.len() {
        let events = json!([event(&KEY[..at]), event(&KEY[at..])]);
        let content = knowing(Content { streamed_data: Some(bytes(&events)), ..Content::default() });
        let expected = json!([event("[REDACTED:caller_key]"), event("")]);
        assert_eq!(content.streamed_data, Some(bytes(&expected)));
    }
}

#[test]
fn no_other_secret_takes_the_place_of_the_callers_key() {
    let passwords: Vec<String> = (0..300).map(|number| format!("password=hunter{number}!x")).collect();
    let request = json!({ "content": format!("{} {KEY}", passwords.join(" ")) });
    let content = knowing(Content { request: Some(bytes(&request)), ..Content::default() });
    assert!(text(content.request).ends_with(" [REDACTED:caller_key]\"}"));
}
