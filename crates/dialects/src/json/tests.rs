use std::borrow::Cow;
use std::time::Instant;

use proptest::prelude::*;

use super::{
    Kind, MAX_DEPTH, Value, elements_of, members, members_of, one_line, read_bool, read_string, valid,
};

fn reason(body: &[u8]) -> (usize, usize, usize, &'static str) {
    let error = members(body).expect_err("an error");
    (error.offset, error.line, error.column, error.reason)
}

#[test]
fn members_are_listed_with_their_spans() {
    let body = br#" { "a" : 1 ,"b\u0041":[ {"x":null} , "s\"" ], "a":{ } } "#;
    let found = members(body).expect("members");
    let listed: Vec<(&str, &[u8], &[u8])> = found
        .iter()
        .map(|member| (&*member.key, &body[member.key_span.clone()], &body[member.value.clone()]))
        .collect();
    let expected: [(&str, &[u8], &[u8]); 3] = [
        ("a", br#""a""#, b"1"),
        ("bA", br#""b\u0041""#, br#"[ {"x":null} , "s\"" ]"#),
        ("a", br#""a""#, b"{ }"),
    ];
    assert_eq!(listed, expected);
    let elements = elements_of(body, &found[1].value).expect("elements");
    assert_eq!(members_of(body, &elements[0]).expect("members")[0].key, "x");
    assert_eq!(read_string(body, &elements[1]).as_deref(), Some("s\""));
    assert!(elements_of(body, &found[0].value).is_err() && members_of(body, &found[1].value).is_err());
}

#[test]
fn errors_say_where_and_what() {
    assert_eq!(reason(b""), (0, 1, 1, "expected an object"));
    assert_eq!(reason(b"[]"), (0, 1, 1, "expected an object"));
    assert_eq!(reason(b"{\"a\":1 \"b\""), (7, 1, 8, "expected `,` or `}`"));
    assert_eq!(reason("{\"é\":1,\n \"ü\" 2}".as_bytes()), (15, 2, 6, "expected `:`"));
    assert_eq!(reason(b"{\"a\":1}x"), (7, 1, 8, "expected the end of the body"));
    assert_eq!(reason(b"{\"a\":1,}"), (7, 1, 8, "expected a member name in double quotes"));
    assert_eq!(reason(b"{\"a\":[1,]}"), (8, 1, 9, "expected a value"));
    assert_eq!(reason(b"{\"a\":[1}"), (7, 1, 8, "expected `,` or `]`"));
    assert_eq!(reason(b"{\"a\":"), (5, 1, 6, "expected a value, found the end"));
    assert_eq!(reason(b"{\"a\":\"x"), (5, 1, 6, "this string has no end"));
    assert_eq!(reason(b"{\"a\":tru}"), (5, 1, 6, "expected `true`"));
    assert_eq!(reason(b"{\"a\":01}"), (6, 1, 7, "expected `,` or `}`"));
    assert_eq!(reason(b"{\"a\":1.}"), (7, 1, 8, "expected a digit"));
    assert_eq!(reason(b"{\"a\":\"\\x\"}"), (6, 1, 7, "no such escape"));
    assert_eq!(reason(b"{\"a\":\"\\u12\"}"), (6, 1, 7, "expected four hexadecimal digits after `\\u`"));
    assert_eq!(reason(b"{\"a\":\"\n\"}"), (6, 1, 7, "control characters in a string must be escaped"));
    assert_eq!(reason(b"{\"a\":\"\xff\"}"), (6, 1, 7, "this byte is no UTF-8"));
    assert_eq!(reason(b"\xef\xbb\xbf{}"), (0, 1, 1, "expected an object"));
}

#[test]
fn depth_is_bounded_as_in_serde_json() {
    for depth in [MAX_DEPTH, MAX_DEPTH + 1, 100_000] {
        let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(valid(body.as_bytes()), depth <= MAX_DEPTH);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), depth <= MAX_DEPTH);
        let object = format!("{{\"a\":{}{}}}", "{\"b\":".repeat(depth), "}".repeat(depth));
        assert!(members(object.as_bytes()).is_err());
    }
    let deepest = format!("{{\"a\":{}1{}}}", "[".repeat(MAX_DEPTH - 1), "]".repeat(MAX_DEPTH - 1));
    assert!(members(deepest.as_bytes()).is_ok());
}

#[test]
fn strings_are_decoded() {
    for (json, text) in [
        (r#""plain""#, "plain"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u00e9\ud83c\udf89é""#, "é🎉é"),
        (r#""\ud83cx""#, "\u{fffd}x"),
        (r#""\udf89\ud83c""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83c\ud83c\udf89""#, "\u{fffd}🎉"),
        (r#""""#, ""),
    ] {
        assert_eq!(read_string(json.as_bytes(), &(0..json.len())).as_deref(), Some(text), "{json}");
    }
    assert_eq!(read_string(b"1", &(0..1)), None);
    assert_eq!(read_string(b"\"", &(0..1)), None);
    assert_eq!(read_string(b"\"a\"", &(0..9)), None);
    assert_eq!(read_bool(b"true", &(0..4)), Some(true));
    assert_eq!(read_bool(b"null", &(0..4)), None);
}

#[test]
fn lines_are_joined() {
    assert_eq!(one_line(b"{\"a\":1}"), Cow::Borrowed(&b"{\"a\":1}"[..]));
    assert_eq!(&*one_line(b"{\r\n\"a\":1\n}"), b"{  \"a\":1 }");
}

#[test]
fn answers_are_read_tolerantly() {
    let value = Value::new(b" {\"n\":-3,\"f\":12.6,\"big\":1e400,\"a\":[1,2,[3]],\"s\":\"x\"} ");
    assert_eq!(value.get("n").and_then(Value::count), None);
    assert_eq!(value.get("f").and_then(Value::count), Some(13));
    assert_eq!(value.get("big").and_then(Value::count), None);
    assert_eq!(value.get("s").and_then(Value::count), None);
    assert_eq!(value.get("a").map(Value::kind), Some(Kind::Array));
    assert!(!Value::new(b"{\"a\":1} x").each_member(|_, _| {}));
    for nothing in ["null", "false", "0", "0.0", "\"\"", "[ ]", "{}", ""] {
        assert!(!Value::new(nothing.as_bytes()).says_something(), "{nothing}");
    }
    for something in ["true", "1", "\"a\"", "[0]", "{\"a\":null}"] {
        assert!(Value::new(something.as_bytes()).says_something(), "{something}");
    }
}

/// Text that is JSON, or nearly.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\\u00",
        "\"\\ud83d\"",
        "\"",
        "\\",
        "null",
        "true",
        "false",
        "0",
        "-",
        "12",
        ".5",
        "e+3",
        " ",
        "\n",
        "é",
        "\u{1}",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..3)
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Any JSON value.
pub(crate) fn json_value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~é\\n\"\\\\]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c\"\\n]{0,2}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_serde_json(bytes in nearly_json()) {
        let serde = serde_json::from_slice::<&serde_json::value::RawValue>(&bytes).is_ok();
        prop_assert_eq!(valid(&bytes), serde, "{}", String::from_utf8_lossy(&bytes));
        let object = valid(&bytes) && bytes.trim_ascii().starts_with(b"{");
        prop_assert_eq!(members(&bytes).is_ok(), object);
    }

    #[test]
    fn every_value_is_valid_and_its_spans_hold_it(value in json_value(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.expect("json");
        prop_assert!(valid(&text));
        let line = one_line(&text);
        prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(&line).expect("json"), &value);
        if let serde_json::Value::Object(map) = &value {
            let found = members(&text).expect("members");
            prop_assert_eq!(found.len(), map.len());
            for (member, (key, inner)) in found.iter().zip(map) {
                prop_assert_eq!(&*member.key, key.as_str());
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(&text[member.value.clone()]).expect("json"), inner);
            }
        }
        if let serde_json::Value::String(string) = &value {
            let read = read_string(&text, &(0..text.len()));
            prop_assert_eq!(read.as_deref(), Some(string.as_str()));
            let mut written = Vec::new();
            super::write_string(&mut written, string);
            let back: String = serde_json::from_slice(&written).expect("json");
            prop_assert_eq!(&back, string);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64), from in 0usize..80, to in 0usize..80) {
        let span = from..to;
        let _ = (members(&bytes), valid(&bytes), members_of(&bytes, &span), elements_of(&bytes, &span));
        let _ = (read_string(&bytes, &span), read_bool(&bytes, &span), Kind::of(&bytes, &span));
        let value = Value::new(&bytes);
        value.each_member(|_, value| drop((value.text(), value.count(), value.says_something())));
        value.each_element(|value| drop(value.text()));
    }
}

/// A chat body of about `size` bytes: long texts with an escape in every line.
pub(crate) fn chat_body(size: usize) -> Vec<u8> {
    let line = "The quick brown fox jumps over the lazy dog, and then it says \\\"hello\\\" to the world.\\n";
    let message = format!("{{\"role\":\"user\",\"content\":\"{}\"}}", line.repeat(40));
    let messages = vec![message.as_str(); size / message.len() + 1].join(",");
    format!("{{\"model\":\"gpt-5.6\",\"messages\":[{messages}],\"stream\":true}}").into_bytes()
}

/// Printed with `--nocapture`; nothing is asserted about time.
#[test]
fn throughput() {
    let numbers = format!("{{\"data\":[{{\"embedding\":[{}]}}]}}", vec!["-0.0123456789"; 100_000].join(","));
    let cases = [
        ("chat 100 KB", chat_body(100_000)),
        ("chat 1 KB", chat_body(1)),
        ("numbers 1.4 MB", numbers.into_bytes()),
    ];
    for (name, body) in cases {
        let rounds = 20_000_000 / body.len() + 1;
        let begin = Instant::now();
        for _ in 0..rounds {
            assert!(members(std::hint::black_box(&body)).is_ok());
        }
        let strict = begin.elapsed();
        let begin = Instant::now();
        for _ in 0..rounds {
            assert!(Value::new(std::hint::black_box(&body)).each_member(|_, _| {}));
        }
        let bytes = (rounds * body.len()) as f64 / 1e9;
        let rate = |time: std::time::Duration| bytes / time.as_secs_f64();
        println!("{name}: members {:.2} GB/s, loose {:.2} GB/s", rate(strict), rate(begin.elapsed()));
    }
}
