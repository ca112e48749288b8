//! `name = value`, as files, code, command lines, markup and JSON inside a string write it.

mod refused;

use std::ops::Range;

pub(in crate::redact) use self::refused::{is_directory, says_no_secret};
use self::refused::{is_in_arn, names_something_else};
use super::Verdict::{self, Reject, Within};
use crate::redact::credential::is_measure;

/// Between a name and what stands behind it.
pub(super) struct Value {
    pub(super) place: Range<usize>,
    /// Up to where it was read.
    pub(super) read: usize,
    /// Where the mark stands that parts them.
    mark: usize,
    is_quoted: bool,
}

/// The value behind the mark.
pub(super) fn assignment(text: &[u8], span: Range<usize>, good: fn(&[u8]) -> bool) -> Verdict {
    let Some(value) = value_in(text, &span) else { return Reject(span.start + 1) };
    let start = value.place.start;
    // Between quotes there may be a sentence: its first word tells.
    let whole = text.get(value.place.clone()).unwrap_or_default();
    let word = whole.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let name = text.get(span.start..value.mark).unwrap_or_default();
    let mark = text.get(value.mark).copied().unwrap_or_default();
    let is_other = || {
        names_something_else(name)
            || is_directory(whole_name(text, span.start, value.mark), word)
            || (word.len() < whole.len() && is_measure(word))
            || says_no_secret(word, mark, value.is_quoted)
            || is_in_arn(text.get(..span.start).unwrap_or_default())
    };
    if good(word) && !is_other() { Within(value.place, start) } else { Reject(start.max(span.start + 1)) }
}

/// The name with what stands before the part of it that was found, without marks behind it.
fn whole_name(text: &[u8], found: usize, mark: usize) -> &[u8] {
    const LONGEST: usize = 64;
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let before = text.get(..found).unwrap_or_default().iter().rev().take(LONGEST).take_while(is_part).count();
    let name = text.get(found - before..mark).unwrap_or_default();
    let behind = name.iter().rev().take_while(|byte| !is_part(byte)).count();
    name.get(..name.len() - behind).unwrap_or_default()
}

/// Where the value stands whose name and mark are in this span: what is between quotes, whatever it is, or a word.
pub(super) fn value_in(text: &[u8], span: &Range<usize>) -> Option<Value> {
    let skip = |from: usize, bytes: &[u8]| {
        let rest = text.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| bytes.contains(byte)).count()
    };
    let found = text.get(span.clone())?;
    let marks: &[u8] = if found.starts_with(b"--") { b" \t=" } else { b"=:>" };
    let mark = span.start + found.iter().position(|byte| marks.contains(byte))?;
    if text.get(mark) == Some(&b'>') {
        return element(text, mark);
    }
    let open = skip(skip(mark, b"=:>*"), b" \t=");
    let quote = skip(open, b"\\");
    let is_quoted = matches!(text.get(quote), Some(b'"' | b'\'' | b'`'));
    let mut start = quote + usize::from(is_quoted);
    if is_quoted {
        start += two_more(text.get(start..)?, text.get(open..start)?);
    }
    start += behind_scheme(text.get(start..)?);
    let rest = text.get(start..)?;
    let (length, read) = if is_quoted {
        quoted(rest, *text.get(quote)?, quote - open)
    } else {
        let length = word(rest);
        (length, length)
    };
    Some(Value { place: start..start + length, read: start + read, mark, is_quoted })
}

/// `<name>value</name>`
fn element(text: &[u8], mark: usize) -> Option<Value> {
    const LONGEST: usize = 256;
    let rest = text.get(mark + 1..)?;
    let near = rest.get(..LONGEST).unwrap_or(rest);
    let length = near.iter().position(|byte| matches!(byte, b'<' | b'\n'))?;
    let end = mark + 1 + length;
    let closes = text.get(end..).is_some_and(|tail| tail.starts_with(b"</") || tail.starts_with(br"<\/"));
    closes.then_some(Value { place: mark + 1..end, read: end, mark, is_quoted: true })
}

/// The length of two more of this quote: three of them open a text in some languages.
fn two_more(rest: &[u8], quote: &[u8]) -> usize {
    let behind = rest.strip_prefix(quote).and_then(|rest| rest.strip_prefix(quote));
    behind.map_or(0, |_| 2 * quote.len())
}

/// Behind `Token `, `Key ` or `Api-Key `, schemes that no standard names.
fn behind_scheme(text: &[u8]) -> usize {
    let Some(space) = text.iter().take(8).position(|byte| *byte == b' ') else { return 0 };
    let (scheme, rest) = text.split_at(space);
    let is_one = [&b"token"[..], b"key", b"apikey", b"api-key", b"api_key"]
        .iter()
        .any(|one| scheme.eq_ignore_ascii_case(one));
    if is_one { space + rest.iter().take_while(|byte| **byte == b' ').count() } else { 0 }
}

/// As far as the quote that closes; where none does on the line and near by, as the first space. And how much of it was
/// read. In JSON inside a string quotes have backslashes before them, one more for each level and twice as many: those of
/// the opening quote tell which one closes.
fn quoted(rest: &[u8], quote: u8, slashes: usize) -> (usize, usize) {
    const LONGEST_WITH_SPACES: usize = 256;
    let (mut before, mut space) = (0, None);
    for (at, byte) in rest.iter().enumerate() {
        if byte.is_ascii_whitespace() {
            space = space.or(Some(at));
        }
        if let Some(space) = space
            && (at >= LONGEST_WITH_SPACES || matches!(byte, b'\n' | b'\r'))
        {
            return (space, at);
        }
        if *byte == quote && before % (2 * (slashes + 1)) == slashes {
            return (at - slashes, at);
        }
        before = if *byte == b'\\' { before + 1 } else { 0 };
    }
    (space.unwrap_or(rest.len()), rest.len())
}

fn word(rest: &[u8]) -> usize {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'\\,;<>(){}[]&|`".contains(byte);
    let length = rest.iter().position(ends).unwrap_or(rest.len());
    let word = rest.get(..length).unwrap_or_default();
    // A full stop or a colon behind it belongs to the sentence.
    length - word.iter().rev().take_while(|byte| matches!(byte, b'.' | b':' | b'?')).count()
}
