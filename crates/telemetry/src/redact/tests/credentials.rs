//! Which names say that a value is a secret, and which values are one.

use serde_json::json;

use super::{body, bytes, jwt, redacted, redactor, with_pii};
use crate::redact::Content;
use crate::scripted::facts;

/// What becomes of the value of a member in a request.
fn member(name: &str, value: &serde_json::Value) -> serde_json::Value {
    let mut content = Content { request: Some(bytes(&json!({ name: value }))), ..Content::default() };
    assert!(!redactor(|_| {}).apply(&mut content, &mut facts()).failed);
    let request: serde_json::Value = serde_json::from_slice(&content.request.expect("a body")).expect("json");
    request[name].clone()
}

#[test]
fn the_word_behind_any_scheme_of_an_authorization_is_a_secret() {
    let key = body(24);
    for name in ["Authorization", "authorization", "Proxy-Authorization", "x_authorization"] {
        for scheme in ["Token ", "Key ", "Api-Key ", "ApiKey  ", "GenieKey ", "SSWS ", ""] {
            let masked = format!("{scheme}[REDACTED:credential]");
            assert_eq!(member(name, &json!(format!("{scheme}{key}"))), masked);
        }
    }
    assert_eq!(member("Authorization", &json!(format!("Bearer {}", jwt()))), "Bearer [REDACTED:jwt]");
    for innocent in ["Token required", "see the documentation of version 2024-01", "Bearer ${API_TOKEN_1234}"]
    {
        assert_eq!(member("Authorization", &json!(innocent)), innocent);
    }
    let redactor = redactor(|_| {});
    for (text, expected) in [
        ("curl -H 'Authorization: Token KEY' x", "curl -H 'Authorization: Token [REDACTED:credential]' x"),
        ("{\"authorization\": \"Api-Key KEY\"}", "{\"authorization\": \"Api-Key [REDACTED:credential]\"}"),
        ("Authorization: Key KEY.", "Authorization: Key [REDACTED:credential]."),
        ("Authorization: Token authentication-only", "Authorization: Token authentication-only"),
    ] {
        assert_eq!(redacted(&redactor, &text.replace("KEY", &key)).0, expected);
    }
}

#[test]
fn names_in_the_plural_hold_secrets_too() {
    let key = body(24);
    for name in ["api_keys", "accessTokens", "tokens", "secrets", "credentials", "refresh_tokens"] {
        let masked = json!(["[REDACTED:credential]", "[REDACTED:credential]"]);
        assert_eq!(member(name, &json!([key, key])), masked, "{name}");
    }
    for name in ["dbPasswords", "DB_PASSWORDS"] {
        assert_eq!(member(name, &json!(["hunter2!x"])), json!(["[REDACTED:credential]"]), "{name}");
    }
    for (name, innocent) in [
        ("tokens", json!(["Hello", " world", "1234567890123456"])),
        ("tokens", json!(1_234_567_890_123_u64)),
        ("max_tokens", json!(key)),
        ("address", json!(key)),
    ] {
        assert_eq!(member(name, &innocent), innocent, "{name}");
    }
}

/// The first word tells: a sentence about passwords begins as sentences do.
#[test]
fn a_password_of_several_words_goes_whole() {
    for password in ["hunter2! blue horse", "p4ssw0rd and more  "] {
        assert_eq!(
            member("password", &json!(password)).as_str().map(str::trim),
            Some("[REDACTED:credential]")
        );
    }
    for innocent in [
        "SHA-256 hash of the user's password",
        "8-character minimum, one sign",
        "The password must hold 1 digit!",
        "at least 8 characters",
        "required",
    ] {
        assert_eq!(member("password", &json!(innocent)), innocent);
    }
}

#[test]
fn members_and_texts_agree_on_what_is_a_secret() {
    for (name, secret) in [("pass", "hunter2!x"), ("SMTP_PASS", "hunter2!x"), ("db_pwd", "/aB3xK9qLm2/x")] {
        assert_eq!(member(name, &json!(secret)), "[REDACTED:credential]", "{name}");
    }
    let redactor = redactor(|_| {});
    for name in ["DB_PWD", "MYSQL_PWD", "pwd"] {
        let said = redacted(&redactor, &format!("{name}=/aB3xK9q/Lm2")).0;
        assert_eq!(said, format!("{name}=[REDACTED:password]"));
    }
    for (name, innocent) in [
        ("render_pass", "phase1!x"),
        ("PWD", "/Users/jane2/MyApp"),
        ("secret", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-Ab12Cd"),
        ("password", "required|min:8|confirmed"),
    ] {
        assert_eq!(member(name, &json!(innocent)), innocent, "{name}");
    }
}

#[test]
fn what_has_a_form_of_its_own_keeps_its_name() {
    let key = format!("gsk_{}", body(52));
    assert_eq!(member("api_key", &json!(key)), "[REDACTED:groq_key]");
}

#[test]
fn a_password_may_begin_like_a_variable() {
    let redactor = redactor(|_| {});
    for password in ["$ecret2024!", "%9lives!", "$SECRET2024!", "$2y$10$abcdefghijk", "$1a%B2"] {
        assert_eq!(member("password", &json!(password)), "[REDACTED:credential]", "{password}");
        let said = redacted(&redactor, &format!("password={password} next")).0;
        assert_eq!(said, "password=[REDACTED:password] next", "{password}");
    }
    let url = "postgres://app:$ecret2024!@db.example/x";
    assert_eq!(redacted(&redactor, url).0, "postgres://app:[REDACTED:url_password]@db.example/x");
    for variable in ["${DB_PASS1}", "$(cat-pass1)", "$DB_PASS_1", "%DB_PASS1%", "%(db_pass1)s", "$dbPassword"]
    {
        assert_eq!(member("password", &json!(variable)), variable);
        let text = format!("password=\"{variable}\"");
        assert_eq!(redacted(&redactor, &text).0, text);
    }
    assert_eq!(redacted(&redactor, "postgres://app:$DB_PASS@db/x").0, "postgres://app:$DB_PASS@db/x");
}

#[test]
fn an_address_ends_before_a_dash() {
    let redactor = with_pii();
    for (text, expected) in [
        ("jane@example.com--she said", "[REDACTED:email]--she said"),
        ("jane@example.com-Bob", "[REDACTED:email]-Bob"),
        ("jane@example.co.uk-", "[REDACTED:email]-"),
        ("jane@my-example.xn--p1ai", "[REDACTED:email]"),
        ("logo@2x.png-large a@b.c-d", "logo@2x.png-large a@b.c-d"),
    ] {
        assert_eq!(redacted(&redactor, text).0, expected);
    }
}
