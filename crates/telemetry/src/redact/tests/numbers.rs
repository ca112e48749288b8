//! Runs of digits: what begins in one is found, whether the run is a number or not.

use magicapi_plugin::Secret;

use super::{body, redacted, redactor, with_pii};
use crate::redact::{CustomPattern, PiiSetting};

#[test]
fn an_address_may_begin_with_a_number() {
    let redactor = with_pii();
    for (text, expected) in [
        ("123456789@qq.com", "[REDACTED:email]"),
        ("mail anna20240501@example.com, 2024-05-01", "mail [REDACTED:email], 2024-05-01"),
        ("2024-05-01 1234567@example.com", "2024-05-01 [REDACTED:email]"),
        ("+4930901820@example.com", "[REDACTED:email]"),
        ("030 9018200 4111111111111111@example.com", "[REDACTED:phone] [REDACTED:email]"),
    ] {
        assert_eq!(redacted(&redactor, text).0, expected);
    }
}

/// A run of digits may be a number, and in its middle something else may begin.
#[test]
fn what_begins_with_digits_is_found_behind_a_number() {
    let (one, other) = ("07q7Zt4Lw9Xk2Vb8Nm5Rc1Hd6Js3Gf0Py", "12345678-1234-1234-abcd-1234567890ab");
    let redactor = redactor(|settings| {
        settings.pii = PiiSetting::All(true);
        settings.own = vec![Secret::new(one), Secret::new(other)];
        settings.patterns =
            vec![CustomPattern { name: "ticket".into(), regex: r"\b\d{2}-\d{4}-[A-Z]{3}".into() }];
    });
    let bot = format!("123456789:AA{}", body(33));
    for (text, name) in [
        (one, "configured_secret"),
        (other, "configured_secret"),
        ("07-1234-ABC", "ticket"),
        (&bot, "telegram_token"),
    ] {
        for before in ["", "2024-05-01 ", "1. ", "call 030 9018200, ", "2024-05-01 10:30 (1) "] {
            let shown = before.replace("030 9018200", "[REDACTED:phone]");
            let expected = format!("{shown}[REDACTED:{name}]");
            assert_eq!(redacted(&redactor, &format!("{before}{text}")).0, expected);
        }
    }
}

#[test]
fn a_telephone_number_takes_what_is_no_other_number() {
    let redactor = with_pii();
    for (text, expected) in [
        ("12/05 4111 1111 1111 1111", "12/05 [REDACTED:card]"),
        ("01067 4111 1111 1111 1111", "01067 [REDACTED:card]"),
        ("030 901820 4111 1111 1111 1111 030 901821", "[REDACTED:phone] [REDACTED:card] [REDACTED:phone]"),
        ("030 901820/030 901821", "[REDACTED:phone]/[REDACTED:phone]"),
        ("030/901820, 0171/123 45 67", "[REDACTED:phone], [REDACTED:phone]"),
        ("+49 30/901820", "[REDACTED:phone]"),
        ("030 901820 / 030 901821", "[REDACTED:phone] / [REDACTED:phone]"),
        ("0171 2345678 123-45-6789", "[REDACTED:phone] [REDACTED:national_id]"),
        ("030 9018 93.184.216.34", "030 9018 [REDACTED:ip]"),
    ] {
        assert_eq!(redacted(&redactor, text).0, expected);
    }
}

#[test]
fn numbers_are_found_beside_what_belongs_to_them() {
    let redactor = with_pii();
    for (text, expected) in [
        ("93.184.216.34-93.184.216.40", "[REDACTED:ip]-[REDACTED:ip]"),
        ("(415) 555-2671x104", "[REDACTED:phone]x104"),
        ("+14155552671x104", "[REDACTED:phone]x104"),
        ("415-555-2671X9.", "[REDACTED:phone]X9."),
        ("card-4111111111111111", "card-[REDACTED:card]"),
        ("4111111111111111.json", "[REDACTED:card].json"),
        ("a/card-4111111111111111-paid.json", "a/card-[REDACTED:card]-paid.json"),
    ] {
        assert_eq!(redacted(&redactor, text).0, expected);
    }
    for innocent in [
        "1.2.3.4-5",
        "93.184.216.34-5",
        "8400-1234-4123-8123-426614174000-aa12",
        "a1b2-4111111111111111",
        "4111111111111111.5",
        "4111111111111111_a",
        "4111 1111 1111 1111.json",
        "415-555-2671xyz",
        "41111111-1111-4111-8111-411111111111",
    ] {
        assert_eq!(redacted(&redactor, innocent).0, innocent);
    }
}
