//! Every error as who meets it reads it, pinned in `golden/errors`: status, the headers that matter, the body; of a start
//! that fails, its exit status and its text. Someone who has not seen the code must be able to mend each case from the
//! text alone: review the files with that question. `UPDATE_GOLDEN=1` writes them anew.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod providers;
mod requests;
#[path = "../scene/mod.rs"]
mod scene;
mod starts;

use std::path::PathBuf;

use magicapi_testkit::Response;

/// Headers that tell a caller or its SDK what to do.
const SHOWN: [&str; 8] = [
    "content-type",
    "allow",
    "retry-after",
    "www-authenticate",
    "connection",
    "x-gateway-error-origin",
    "x-gateway-provider",
    "x-gateway-attempts",
];

/// Compares with the file; addresses with ports of this run are put aside.
fn assert_golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/errors/{name}.txt"));
    let text = format!("{}\n", without_ports(text).trim_end());
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, not a setting of the product")]
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    if update {
        std::fs::write(&path, &text).expect("a golden file");
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(pinned == text, "{} differs; it is now:\n{text}", path.display());
}

/// The answer's record is one of the gateway's own making, so its body is JSON in the caller's dialect.
fn assert_answer(name: &str, answer: &Response) {
    let error = &answer.json()["error"];
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty() && error["type"].is_string() && error["code"].is_string(), "{name}: {error}");
    assert!(!answer.header("x-request-id").is_empty(), "{name}: no id to ask about");
    let shown = SHOWN.iter().filter(|header| !answer.header(header).is_empty());
    let headers: Vec<_> = shown.map(|header| format!("{header}: {}\n", answer.header(header))).collect();
    assert_golden(name, &format!("{}\n{}\n{}", answer.status, headers.concat(), answer.text()));
}

fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        // Ports that the text itself recommends stay.
        let digits = &part[..part.len() - rest.len()];
        out.push_str(if matches!(digits, "3000" | "3001") { "127.0.0.1:" } else { "<address>" });
        out.push_str(if matches!(digits, "3000" | "3001") { part } else { rest });
    }
    out
}
