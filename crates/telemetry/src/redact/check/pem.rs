//! Private keys between their first and their last line.

use std::ops::Range;

use memchr::memmem;

use super::Verdict::{self, Found, Reject};

/// From the first line to the last; when the last is missing (the text was cut), as far as lines of base64 go.
pub(super) fn pem(text: &[u8], span: Range<usize>) -> Verdict {
    const LONGEST: usize = 16 << 10;
    let rest = text.get(span.end..).unwrap_or_default();
    let window = rest.get(..LONGEST).unwrap_or(rest);
    let is_body = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'+' | b'/' | b'=' | b'\\')
            || byte.is_ascii_whitespace()
    };
    // Something of a key must stand there: prose may speak of the line alone.
    let body = window.iter().take_while(|byte| is_body(byte)).count();
    let longest_word = window
        .get(..body)
        .unwrap_or_default()
        .split(|byte| byte.is_ascii_whitespace() || *byte == b'\\')
        .map(<[u8]>::len)
        .max()
        .unwrap_or(0);
    // Only as far as the next line of this sort, where the next candidate may begin.
    let line = memmem::find(window, b"-----");
    if let Some(at) = line.filter(|at| window.get(*at..).unwrap_or_default().starts_with(b"-----END")) {
        let tail = window.get(at + 8..).unwrap_or_default();
        let close = memmem::find(tail.get(..64).unwrap_or(tail), b"-----").map_or(0, |close| close + 5);
        return Found(span.start..span.end + at + 8 + close);
    }
    if longest_word >= 16 { Found(span.start..span.end + body) } else { Reject(span.end) }
}
