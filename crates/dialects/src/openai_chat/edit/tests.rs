use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Applied, Edits, ParameterRules};
use crate::openai_chat::request::{RequestError, read};

fn apply(body: &str, rules: &ParameterRules, edit: impl Fn(Edits<'_>) -> Edits<'_>) -> Applied {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let facts = read(&body).expect("facts");
    let edits = edit(Edits::new(rules));
    let applied = edits.apply(&body, &facts).expect("applied");
    assert_eq!(edits.apply(&body, &facts).expect("applied"), applied, "the same again");
    assert_eq!(applied.changed.is_empty(), applied.body.as_ptr() == body.as_ptr());
    applied
}

fn text(applied: &Applied) -> &str {
    std::str::from_utf8(&applied.body).expect("UTF-8")
}

#[test]
fn without_edits_the_body_is_the_very_same() {
    let rules = ParameterRules::default().drop("user").rename("seed", "random_seed").refuse("logprobs", "no");
    let body = r#"{ "model" : "m", "stream":true, "stream_options":{"include_usage":true}, "n":1E5 }"#;
    let applied = apply(body, &rules, |edits| edits.set_model("m").ask_usage());
    assert_eq!(text(&applied), body);
    assert!(applied.changed.is_empty() && applied.dropped.is_empty());
}

#[test]
fn model_and_usage_are_set_and_nothing_else_moves() {
    let rules = ParameterRules::default();
    let edit =
        |body: &str| text(&apply(body, &rules, |edits| edits.set_model("x\"y").ask_usage())).to_owned();
    assert_eq!(
        edit("{\n  \"model\": \"a/b\",\n  \"seed\": 12345678901234567890123,\n  \"stream\": true\n}"),
        "{\n  \"model\": \"x\\\"y\",\n  \"seed\": 12345678901234567890123,\n  \"stream\": true,\"stream_options\":{\"include_usage\":true}\n}"
    );
    assert_eq!(
        edit(r#"{"stream":true,"stream_options":{"a":1 }}"#),
        r#"{"stream":true,"stream_options":{"a":1,"include_usage":true },"model":"x\"y"}"#
    );
    assert_eq!(
        edit(r#"{"stream_options":{ },"stream":true,"model":"x\"y"}"#),
        r#"{"stream_options":{"include_usage":true},"stream":true,"model":"x\"y"}"#
    );
    assert_eq!(
        edit(r#"{"model":"x\"y","stream":true,"stream_options":null}"#),
        r#"{"model":"x\"y","stream":true,"stream_options":{"include_usage":true}}"#
    );
    let off = r#"{"model":"x\"y","stream":true,"stream_options":{"include_usage":false,"b":2}}"#;
    assert_eq!(edit(off), off.replace("false", "true"));
    assert_eq!(edit("{}"), r#"{"model":"x\"y"}"#);
    assert_eq!(edit(" { \n} "), " {\"model\":\"x\\\"y\" \n} ");
    let buffered = r#"{"model":"x\"y","stream":false}"#;
    assert_eq!(edit(buffered), buffered, "usage is asked for in streams alone");
}

#[test]
fn drops_cut_the_right_comma() {
    let rules = ParameterRules::default().drop("a").drop("messages[].name").drop("messages[].x.y");
    let cut = |body: &str| {
        let applied = apply(body, &rules, |edits| edits);
        (text(&applied).to_owned(), applied.dropped)
    };
    assert_eq!(cut(r#"{"a":1,"b":2}"#), (r#"{"b":2}"#.into(), vec!["a".into()]));
    assert_eq!(cut(r#"{ "b":2 , "a":1 }"#).0, r#"{ "b":2 }"#);
    assert_eq!(cut(r#"{"a":1,"a":2}"#).0, "{}");
    assert_eq!(cut(r#"{ "a":1, "a":2, "b":3, "a":4, "c":5, "a":6 }"#).0, r#"{ "b":3, "c":5 }"#);
    assert_eq!(cut(r#"{"\u0061":1}"#).0, "{}");
    let (body, dropped) = cut(
        r#"{"messages":[{"name":"n","role":"user"},{"role":"x","name":"m","x":{"y":1,"z":[2]}},{},3],"a":0}"#,
    );
    assert_eq!(body, r#"{"messages":[{"role":"user"},{"role":"x","x":{"z":[2]}},{},3]}"#);
    assert_eq!(dropped, ["messages[].name", "messages[].x.y", "a"]);
    assert_eq!(cut(r#"{"messages":{"name":1}}"#), (r#"{"messages":{"name":1}}"#.into(), vec![]));
    let applied = apply(r#"{"a":1}"#, &rules, |edits| edits.set_model("m"));
    assert_eq!(
        (text(&applied), applied.changed.clone()),
        (r#"{"model":"m"}"#, vec!["drop:a".to_owned(), "model".into()])
    );
}

#[test]
fn renames_yield_to_the_callers_own_name() {
    let rules =
        ParameterRules::default().rename("max_completion_tokens", "max_tokens").rename("seed", "random_seed");
    let applied = apply(r#"{"max_completion_tokens": 5,"seed":1}"#, &rules, |edits| edits);
    assert_eq!(text(&applied), r#"{"max_tokens": 5,"random_seed":1}"#);
    assert_eq!(applied.changed, ["rename:max_completion_tokens", "rename:seed"]);
    let applied = apply(r#"{"max_completion_tokens":5,"max_tokens":6}"#, &rules, |edits| edits);
    assert_eq!(
        (text(&applied), applied.dropped.clone()),
        (r#"{"max_tokens":6}"#, vec!["max_completion_tokens".to_owned()])
    );
    let two = ParameterRules::default().rename("a", "c").rename("b", "c");
    assert_eq!(text(&apply(r#"{"a":1,"b":2}"#, &two, |edits| edits)), r#"{"c":1}"#);
}

#[test]
fn refusals_name_the_reason() {
    let rules = ParameterRules::default().refuse("logprobs", "it returns none");
    let body = Bytes::from_static(br#"{"logprobs":true}"#);
    let error = Edits::new(&rules).apply(&body, &read(&body).expect("facts")).expect_err("refused");
    assert_eq!(error.to_string(), "`logprobs` is not supported by this provider: it returns none");
    assert_eq!(error.field(), Some("logprobs"));
    assert_eq!(text(&apply(r#"{"logprobs":null,"n":1}"#, &rules, |edits| edits)), r#"{"n":1}"#);
}

#[test]
fn a_dropped_stream_options_is_not_asked_for() {
    let rules = ParameterRules::default().drop("stream_options");
    let applied = apply(r#"{"stream":true,"stream_options":{"include_usage":false}}"#, &rules, |edits| {
        edits.ask_usage()
    });
    assert_eq!(text(&applied), r#"{"stream":true}"#);
    let facts = read(br#"{"stream":true}"#).expect("facts");
    assert!(!Edits::new(&rules).ask_usage().asks_usage(&facts));
    assert!(Edits::new(&ParameterRules::default()).ask_usage().asks_usage(&facts));
}

#[test]
fn facts_of_another_body_are_refused() {
    let facts = read(br#"{"a":1}"#).expect("facts");
    let rules = ParameterRules::default().drop("a");
    let error = Edits::new(&rules).apply(&Bytes::from_static(b"{}"), &facts);
    assert_eq!(error, Err(RequestError::Stale));
}

#[test]
fn rules_are_read_from_configuration() {
    let rules: ParameterRules =
        serde_json::from_value(json!({"rename": [["a", "b"]], "drop": ["c"]})).expect("rules");
    assert_eq!(rules, ParameterRules::default().rename("a", "b").drop("c"));
}

/// The same edits on a parsed value.
fn by_value(body: &Value, rules: &ParameterRules, model: &str) -> Value {
    let mut out = body.clone();
    let object = out.as_object_mut().expect("an object");
    for (from, to) in &rules.rename {
        if !body.as_object().expect("an object").contains_key(to) {
            *object = object
                .iter()
                .map(|(key, value)| (if key == from { to } else { key }.clone(), value.clone()))
                .collect();
        } else if from != to {
            object.shift_remove(from);
        }
    }
    object.shift_remove("user");
    if let Some(messages) = object.get_mut("messages").and_then(Value::as_array_mut) {
        for message in messages.iter_mut().filter_map(Value::as_object_mut) {
            message.shift_remove("name");
        }
    }
    object.insert("model".into(), model.into());
    if object.get("stream") == Some(&Value::Bool(true)) {
        let options = object.entry("stream_options").or_insert(Value::Null);
        if options.is_null() {
            *options = json!({});
        }
        options["include_usage"] = true.into();
    }
    out
}

fn request() -> impl Strategy<Value = Value> {
    let json = crate::json::tests::json_value;
    let message = prop::collection::vec(("(name|role|content)", json()), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()));
    let options = prop_oneof![
        Just(Value::Null),
        prop::collection::vec(("(include_usage|x|y)", any::<bool>().prop_map(Value::from)), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    ];
    let member = prop_oneof![
        ("(user|seed|random_seed|n|tools|temperature)", json()).prop_map(|(key, value)| (key, value)),
        any::<bool>().prop_map(|stream| ("stream".to_owned(), stream.into())),
        "[a-z]{0,4}".prop_map(|model| ("model".to_owned(), model.into())),
        options.prop_map(|options| ("stream_options".to_owned(), options)),
        prop::collection::vec(message, 0..4).prop_map(|messages| ("messages".to_owned(), messages.into())),
    ];
    prop::collection::vec(member, 0..9).prop_map(|members| Value::Object(members.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn edits_equal_the_same_edits_on_a_value(body in request(), pretty in any::<bool>()) {
        let rules = ParameterRules::default().rename("seed", "random_seed").drop("user").drop("messages[].name");
        let text = if pretty { serde_json::to_vec_pretty(&body) } else { serde_json::to_vec(&body) }.expect("json");
        let text = Bytes::from(text);
        let facts = read(&text).expect("facts");
        let applied = Edits::new(&rules).set_model("abc").ask_usage().apply(&text, &facts).expect("applied");
        let got: Value = serde_json::from_slice(&applied.body).expect("json");
        prop_assert_eq!(got, by_value(&body, &rules, "abc"));
        // What is cut or added stands in the list; everything else is a subsequence of the body.
        if applied.changed.iter().all(|name| name.starts_with("drop:")) {
            let mut rest = text.iter();
            prop_assert!(applied.body.iter().all(|byte| rest.any(|other| other == byte)));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(prop::sample::select(br#"{}[]":,a1\u model"#.to_vec()), 0..40)) {
        let rules = ParameterRules::default().rename("a", "b").drop("a[].a").drop("a.a").drop("a").refuse("m", "r");
        let body = Bytes::from(bytes);
        if let Ok(facts) = read(&body) {
            let _ = Edits::new(&rules).set_model("m").ask_usage().apply(&body, &facts);
        }
        let other = read(br#"{"a":[1],"b":2}"#).expect("facts");
        let _ = Edits::new(&rules).apply(&body, &other);
    }
}
