//! JSON inside a string, as tools get their arguments: a secret among its members goes whole, however it is cut and escaped.

use serde_json::{Value, json};

use super::{bytes, joined, redacted, redactor};
use crate::redact::{Content, Redactor};
use crate::scripted::facts;

const PASSWORDS: [&str; 9] = [
    "P(w)9!kLm2",
    "Tr0ub4dor&3x",
    "ab/cd9!x",
    "q\"u0te!sin",
    "back\\slash9!",
    "9!ends\\",
    "{a},[b];<c>9",
    "hunter2! blue horse",
    "hunter2! \"blue\" horse",
];

fn arguments(password: &str) -> String {
    json!({ "user": "app", "password": password, "retries": 3 }).to_string()
}

/// The arguments of a call in a request.
fn in_request(redactor: &Redactor, arguments: &str) -> String {
    let request = json!({ "messages": [{ "tool_calls": [{ "function": { "arguments": arguments } }] }] });
    let mut content = Content { request: Some(bytes(&request)), ..Content::default() };
    assert!(!redactor.apply(&mut content, &mut facts()).failed);
    let request: Value = serde_json::from_slice(&content.request.expect("a body")).expect("json");
    request["messages"][0]["tool_calls"][0]["function"]["arguments"].as_str().expect("text").to_owned()
}

#[test]
fn a_password_in_arguments_goes_whole() {
    let redactor = redactor(|_| {});
    for password in PASSWORDS {
        let masked = arguments("[REDACTED:password]");
        assert_eq!(in_request(&redactor, &arguments(password)), masked, "{password}");
        // As PHP and others escape it.
        let escaped = arguments(password).replace('/', "\\/");
        assert_eq!(in_request(&redactor, &escaped), masked, "{password}");
        // Inside of arguments once more, and twice.
        let once = |text: String| json!({ "body": text }).to_string();
        assert_eq!(in_request(&redactor, &once(arguments(password))), once(masked.clone()));
        assert_eq!(in_request(&redactor, &once(once(arguments(password)))), once(once(masked)));
    }
    for (text, expected) in [
        ("connect(password='P(w)9!kLm2', 1)", "connect(password='[REDACTED:password]', 1)"),
        ("PASSWORD=\"a&b|c;9!\"\n", "PASSWORD=\"[REDACTED:password]\"\n"),
        ("api_key => \"(aB3dE5fG7hJ9)\"", "api_key => \"[REDACTED:credential]\""),
        ("password='hunter2! blue horse' x", "password='[REDACTED:password]' x"),
        (
            "password: \"Your new password needs 8 characters!\"",
            "password: \"Your new password needs 8 characters!\"",
        ),
        // No quote closes it there.
        ("password='hunter2! blue horse\nit's", "password='[REDACTED:password] blue horse\nit's"),
        // Not closed: it was cut.
        ("{\"password\":\"P(w)9!kL", "{\"password\":\"[REDACTED:password]"),
        ("password=\"\", user='app1!x'", "password=\"\", user='app1!x'"),
        ("\"password:\",\"app1!x\"", "\"password:\",\"app1!x\""),
        ("password: \"{{db.password1}}\"", "password: \"{{db.password1}}\""),
        ("password: \"<password-1>\"", "password: \"<password-1>\""),
    ] {
        assert_eq!(redacted(&redactor, text).0, expected);
    }
}

#[test]
fn a_password_in_streamed_arguments_goes_whole_wherever_it_is_cut() {
    let redactor = redactor(|_| {});
    let masked = arguments("[REDACTED:password]");
    for password in PASSWORDS {
        let whole = arguments(password);
        for (first, second) in (0..=whole.len()).map(|at| (at, (at + 5).min(whole.len()))) {
            let delta = |piece: &str| {
                let calls = json!([{ "index": 0, "function": { "arguments": piece } }]);
                json!({ "id": "c", "choices": [{ "index": 0, "delta": { "tool_calls": calls } }] })
            };
            let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
            let (response, streamed) = joined(&pieces.map(delta));
            let mut content =
                Content { response: Some(response), streamed_data: Some(streamed), ..Content::default() };
            assert!(!redactor.apply(&mut content, &mut facts()).failed);
            let read = |body: &Option<bytes::Bytes>| -> Value {
                serde_json::from_slice(body.as_ref().expect("a body")).expect("json")
            };
            let said = |choice: &Value| {
                choice["delta"]["tool_calls"][0]["function"]["arguments"].as_str().map(str::to_owned)
            };
            let answer = said(&read(&content.response)["choices"][0]).expect("arguments");
            let events = read(&content.streamed_data);
            let slices: String = events
                .as_array()
                .expect("events")
                .iter()
                .filter_map(|event| said(&event["choices"][0]))
                .collect();
            assert_eq!((&answer, &slices), (&masked, &masked), "{pieces:?}");
        }
    }
}

#[test]
fn a_password_that_is_escaped_in_arguments_is_known_as_it_is() {
    let request = json!({ "arguments": arguments("q\"u0te!sin"), "said": "use q\"u0te!sin here" });
    let mut content = Content { request: Some(bytes(&request)), ..Content::default() };
    redactor(|_| {}).apply(&mut content, &mut facts());
    let request: Value = serde_json::from_slice(&content.request.expect("a body")).expect("json");
    assert_eq!(request["said"], "use [REDACTED:password] here");
}
