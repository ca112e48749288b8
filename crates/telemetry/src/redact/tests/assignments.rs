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

/// What `innocent.txt` has beside a secret's name looks alike.
#[test]
fn what_looks_like_no_secret_may_be_one() {
    let redactor = redactor(|_| {});
    for (before, value, after) in [
        ("password=", "Summer2024.rain", ""),
        ("password: \"", "form1.value", "\""),
        ("password=", "letmein!", ""),
        ("password: ", "2024-01-15Summer!", ""),
        ("password='", "required|a1", "'"),
        ("password=", "/a1b2c3", ""),
        ("passwordHash: ", "$2y$10$abcdefghijk", ""),
        ("password_hash=", "5f4dcc3b5aa765d61d8327deb882cf99", ""),
        ("PASSWORD_ID_CARD=", "hunter2!x", ""),
    ] {
        let shown = redacted(&redactor, &format!("{before}{value}{after}")).0;
        assert_eq!(shown, format!("{before}[REDACTED:password]{after}"));
    }
    for value in ["a1b2c3d4e5f6a7b8c9d0.Xy12zW34", "/aB3dE5fG7hJ9kL2mN4pQ6rS8tU1vW0xYzC/aB3d"] {
        assert_eq!(redacted(&redactor, &format!("secret_key={value}")).0, "secret_key=[REDACTED:credential]");
    }
}
