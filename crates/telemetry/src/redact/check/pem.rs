//! Private keys between their first and their last line.

use std::ops::Range;

use memchr::memmem;

use super::Verdict::{self, Found, Reject};
use crate::redact::credential::is_token;

const DASHES: &[u8] = b"-----";

/// From the first line to the last; when the last is missing (the text was cut) or far, as far as lines of a key go.
pub(super) fn pem(text: &[u8], span: Range<usize>) -> Verdict {
    const NEAR: usize = 16 << 10;
    let rest = text.get(span.end..).unwrap_or_default();
    // Nothing behind the next line of this sort is read, where the next candidate may begin.
    let dashes = memmem::find(rest, DASHES);
    let last = dashes.filter(|at| *at < NEAR).and_then(|at| last_line(rest, at));
    let length = last.or_else(|| key_lines(rest.get(..dashes.unwrap_or(rest.len()))?));
    length.map_or(Reject(span.end), |length| Found(span.start..span.end + length))
}

/// Where the last line ends, if these dashes are of one. One more may stand before them, in a diff.
fn last_line(rest: &[u8], dashes: usize) -> Option<usize> {
    const LONGEST: usize = 64;
    let name = dashes + rest.get(dashes..)?.iter().take_while(|byte| **byte == b'-').count();
    let tail = rest.get(name..)?.strip_prefix(b"END")?;
    let close =
        memmem::find(tail.get(..LONGEST).unwrap_or(tail), DASHES).map_or(0, |close| close + DASHES.len());
    Some(name + b"END".len() + close)
}

const LONG: usize = 16;

/// How far the lines of a key go. `None` when there is none: prose may speak of the first line alone.
fn key_lines(rest: &[u8]) -> Option<usize> {
    let (mut at, mut end, mut is_key) = (0, 0, false);
    while at < rest.len() {
        let (line, next) = line_at(rest, at);
        let start = line.start + mark(rest.get(line.clone())?);
        let written = trimmed(rest.get(start..line.end)?);
        let body = written.split(|byte| !is_body(*byte)).next()?;
        let words = body.split_inclusive(u8::is_ascii_whitespace);
        let length: usize = words.take_while(|word| goes_on(word.trim_ascii())).map(<[u8]>::len).sum();
        let body = trimmed(body.get(..length)?);
        is_key |= body.split(u8::is_ascii_whitespace).any(|word| word.len() >= LONG && is_token(word));
        end = if body.is_empty() { end } else { start + body.len() };
        if length < written.len() && (is_key || !is_header(written)) {
            break;
        }
        at = next;
    }
    is_key.then_some(end)
}

/// A short word without a digit or a sign is one of a sentence behind the key.
fn goes_on(word: &[u8]) -> bool {
    let is_mark = |byte: &u8| byte.is_ascii_digit() || b"+/=".contains(byte);
    word.is_empty() || word.len() >= LONG || word.iter().any(is_mark)
}

/// The line that begins here, and where the next one does. In JSON inside a string `\n` parts them, with one more backslash
/// for each level; `\/` is a slash.
fn line_at(rest: &[u8], at: usize) -> (Range<usize>, usize) {
    let tail = rest.get(at..).unwrap_or_default();
    let is_escape = |place: usize| matches!(tail.get(place + 1), Some(b'n' | b'r' | b't'));
    for (place, byte) in tail.iter().enumerate() {
        match byte {
            b'\n' => return (at..at + place, at + place + 1),
            b'\\' if is_escape(place) => return (at..at + place, at + place + 2),
            _ => {}
        }
    }
    (at..rest.len(), rest.len())
}

/// Without blanks and backslashes behind it.
fn trimmed(text: &[u8]) -> &[u8] {
    let behind = text.iter().rev().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'\\').count();
    text.get(..text.len() - behind).unwrap_or_default()
}

/// What a diff or a quotation puts before a line.
fn mark(line: &[u8]) -> usize {
    let blanks = |from: usize| {
        let rest = line.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
    };
    let start = blanks(0);
    blanks(start + usize::from(matches!(line.get(start), Some(b'-' | b'+' | b'>'))))
}

fn is_body(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\\') || byte.is_ascii_whitespace()
}

/// `Proc-Type: 4,ENCRYPTED`, `Version: GnuPG v1`.
fn is_header(line: &[u8]) -> bool {
    const LONGEST: usize = 256;
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    name > 0 && line.len() <= LONGEST && line.get(name) == Some(&b':')
}
