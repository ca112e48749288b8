//! A caller's body: reading never panics, and an edited body is JSON that says the same but for the edit.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use magicapi_dialects::json;
use magicapi_dialects::openai_chat::{Edits, ParameterRules, request};

fuzz_target!(|data: &[u8]| {
    let Ok(facts) = request::read(data) else { return };
    let rules = ParameterRules::default()
        .rename("seed", "random_seed")
        .drop("user")
        .drop("messages[].name")
        .refuse("forbidden", "a reason");
    let body = Bytes::copy_from_slice(data);
    let Ok(applied) = Edits::new(&rules).set_model("m").ask_usage().apply(&body, &facts) else { return };
    assert!(json::valid(&applied.body));
    assert_eq!(applied.changed.is_empty(), applied.body == body);
    let again = request::read(&applied.body).expect("an edited body is readable");
    assert_eq!(again.model.as_deref(), Some("m"));
    assert!(!again.has("user"));
});
