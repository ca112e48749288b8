//! Names with a value beside them, however they are written.

use super::{body, redacted, redactor};

#[test]
fn a_password_is_found_however_its_name_is_written() {
    let redactor = redactor(|_| {});
    for (before, after) in [
        ("SMTP_PASS=", " next"),
        ("export DB_PASS='", "'"),
        ("dbPass: \"", "\","),
        ("{\\\"pass\\\":\\\"", "\\\"}"),
        ("'pass' => '", "',"),
        ("<password>", "</password>"),
        ("<db_password>", "</db_password>"),
        ("mysql -u root --password ", " shop"),
        ("--db-password=\"", "\""),
        ("--pass ", ""),
        ("**Password:** ", "\n"),
        ("**Password**: ", "\n"),
        ("- `password`: `", "`"),
        ("password = \"\"\"", "\"\"\""),
        ("{\\\"a\\\": \\\"password = '''", "'''\\\"}"),
        ("password = \\\"\\\"\\\"", "\\\"\\\"\\\""),
    ] {
        let shown = redacted(&redactor, &format!("{before}hunter2!x{after}")).0;
        assert_eq!(shown, format!("{before}[REDACTED:password]{after}"));
    }
    let shown = redacted(&redactor, "<password>a1!bcd e;f&amp;g</password>").0;
    assert_eq!(shown, "<password>[REDACTED:password]</password>");
}

#[test]
fn a_key_is_found_however_its_name_is_written() {
    let redactor = redactor(|_| {});
    let key = body(32);
    for (before, after) in [
        ("Secret access key: ", "\n"),
        ("API key: ", "."),
        ("Api Key = ", ""),
        ("**API key:** ", ""),
        ("`api_key`: `", "`"),
        ("<apiKey>", "</apiKey>"),
        ("<client-secret>", "</client-secret>"),
        ("tool --api-key ", " -v"),
        ("tool --token '", "' -v"),
        ("tool --client-secret ", ""),
        ("secret_id=", ""),
        ("api_key = \"\"\"", "\"\"\""),
    ] {
        let shown = redacted(&redactor, &format!("{before}{key}{after}")).0;
        assert_eq!(shown, format!("{before}[REDACTED:credential]{after}"));
    }
}
