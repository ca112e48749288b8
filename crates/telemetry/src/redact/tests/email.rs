//! Addresses: with which letters they begin, and where they end.

use super::{redacted, with_pii};

#[test]
fn an_address_ends_before_what_is_no_domain() {
    let redactor = with_pii();
    let mask = "[REDACTED:email]";
    for (before, address, after) in [
        ("avatars/", "jane.doe@example.com", ".png"),
        ("", "jane@example.com", ".1"),
        ("", "user@example.com", ".min.js"),
        ("", "user@example.com", ".js.map"),
        ("", "jane@example.com", "-large.2x.png"),
        ("", "jane@mail.example.co.uk", ".2024.1"),
        ("", "jane@163.com", "-Bob"),
        ("", "jane@xn--mnchen-3ya.de", ".svg"),
    ] {
        assert_eq!(
            redacted(&redactor, &format!("{before}{address}{after}")).0,
            format!("{before}{mask}{after}")
        );
    }
    for innocent in [
        "logo@2x.min.png",
        "jquery@3.7.1.min.js vue@2.x.js",
        "logo@large.png",
        "icon@2x.dark.png",
        "pkg@1.2.3-rc.1",
        r"https:\/\/user@host.example\/",
    ] {
        assert_eq!(redacted(&redactor, innocent).0, innocent);
    }
}

#[test]
fn letters_of_an_address_need_not_be_ascii() {
    let redactor = with_pii();
    let mask = "[REDACTED:email]";
    for (before, address, after) in [
        ("", "andré@example.com", "."),
        ("an: ", "jürgen.müller@example.com", " oder"),
        ("", "andre\u{301}@example.com", ""),
        ("(", "иван@example.ru", ")"),
        ("“", "jane@example.com", "”"),
        ("so—", "jane@example.com", "—or"),
        ("メールは", "jane@example.com", "です"),
        ("連絡先：", "é1@example.com", ""),
    ] {
        assert_eq!(
            redacted(&redactor, &format!("{before}{address}{after}")).0,
            format!("{before}{mask}{after}")
        );
    }
    // What is longer than a mailbox may be was no mailbox before, and is none now.
    let long = format!("{}@example.com", "a".repeat(65));
    assert_eq!(redacted(&redactor, &long).0, long);
    assert_eq!(redacted(&redactor, "“@example.com").0, "“@example.com");
}
