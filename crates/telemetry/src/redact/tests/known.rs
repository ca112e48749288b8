//! What is found once is found everywhere: which values, and how many.

use serde_json::{Value, json};

use super::{bytes, with_pii};
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
    let known = Known::new(&values).expect("values");
    assert_eq!(found(&known, "value-255 value-256").len(), 1);
}

#[test]
fn a_value_that_is_made_of_others_is_found_in_its_parts() {
    let part = "ab1cdefg";
    let values = [(part.repeat(500).into_bytes(), PASSWORD), (part.into(), PASSWORD)];
    let known = Known::new(&values).expect("values");
    let found = found(&known, &part.repeat(500));
    assert_eq!(found.len(), 500);
    assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start));
}
