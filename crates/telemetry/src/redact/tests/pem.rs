//! Private keys: whole, cut, in a diff, with headers, long.

use super::{body, redacted, redactor};

const MASK: &str = "[REDACTED:private_key]";

fn key(kind: &str, head: &str, lines: usize) -> String {
    let lines = format!("{}\n", body(64)).repeat(lines);
    format!("-----BEGIN {kind} PRIVATE KEY-----\n{head}{lines}{}==", body(20))
}

fn shown(text: &str) -> String {
    redacted(&redactor(|_| {}), text).0
}

#[test]
fn a_key_in_a_diff_or_a_quotation_is_found_whole() {
    let end = "-----END RSA PRIVATE KEY-----";
    for (key, end) in [
        (key("RSA", "", 3), end),
        (key("RSA", "Proc-Type: 4,ENCRYPTED\n\n", 3), end),
        (key("RSA", "", 3), ""),
    ] {
        for mark in ["-", "+", "> ", ">", " ", "\t"] {
            let text = format!("{key}\n{end}").trim_end().replace('\n', &format!("\n{mark}"));
            let escaped = text.replace('\n', "\\n");
            for (text, after) in [
                (text.as_str(), "\nand more, here"),
                (&escaped, "\\\"}"),
                (&text.replace('\n', "\r\n"), "\r\n}"),
            ] {
                assert_eq!(shown(&format!("{mark}{text}{after}")), format!("{mark}{MASK}{after}"));
            }
        }
    }
}

#[test]
fn a_key_that_is_cut_goes_as_far_as_its_lines() {
    let pgp = "Version: GnuPG v1\nComment: of no-one, really\n\n";
    for head in ["", pgp, "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0123456789ABCDEF\n\n"] {
        for lines in [1, 300] {
            let text = key("RSA", head, lines);
            assert_eq!(shown(&text), MASK);
            assert_eq!(shown(&text.replace('\n', "\\n")), MASK);
            let escaped = text.replace('\n', "\\\\r\\\\n").replace("aB3d", "aB\\/d") + "\\\"}";
            assert_eq!(shown(&escaped), format!("{MASK}\\\"}}"));
            let next = key("EC", "", 1);
            assert_eq!(shown(&format!("{text}\n{next}")), format!("{MASK}\n{MASK}"));
            assert_eq!(shown(&format!("{text}\n\n\"What is it?\"")), format!("{MASK}\n\n\"What is it?\""));
        }
    }
}

#[test]
fn the_first_line_alone_is_no_key() {
    for text in [
        "-----BEGIN PRIVATE KEY-----\nVersion: 1\n\nand nothing more",
        "a line `-----BEGIN PRIVATE KEY-----`, then internationalization of it all",
        "-----BEGIN PRIVATE KEY-----\ninternationalization\n-----BEGIN PUBLIC KEY-----",
        "------BEGIN PRIVATE KEY-----\n-...",
    ] {
        assert_eq!(shown(text), text);
    }
}
