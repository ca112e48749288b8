//! Addresses of mailboxes.

use std::ops::Range;

use super::Verdict::{self, Found, Reject};

/// Of the part of an address before the `@`.
const LONGEST_LOCAL: usize = 64;

/// Where the address begins whose `@` stands here.
pub(super) fn local_start(text: &[u8], at: usize) -> usize {
    let mut start = at;
    while at - start <= LONGEST_LOCAL
        && let Some(length) = letter_before(text.get(..start).unwrap_or_default())
    {
        start -= length;
    }
    start
}

/// How many bytes the last character has, if it can stand in an address: ASCII, a Latin, Greek or Cyrillic letter, or the
/// accent of one. Where words are written without spaces, other letters are those of the sentence.
fn letter_before(text: &[u8]) -> Option<usize> {
    const LETTERS: std::ops::RangeInclusive<char> = '\u{c0}'..='\u{52f}';
    match text {
        [.., byte] if byte.is_ascii() => {
            (byte.is_ascii_alphanumeric() || b"._%+'-".contains(byte)).then_some(1)
        }
        [.., one, other] => {
            let pair = [*one, *other];
            let letter = std::str::from_utf8(&pair).ok()?.chars().next()?;
            (LETTERS.contains(&letter) && !"×÷".contains(letter)).then_some(2)
        }
        _ => None,
    }
}

pub(super) fn email(text: &[u8], span: &Range<usize>) -> Verdict {
    const MOST_LABELS_CUT: usize = 4;
    let mut address = text.get(span.clone()).unwrap_or_default();
    for cut in 0..=MOST_LABELS_CUT {
        address = address.get(..address.len() - behind_dash(address)).unwrap_or_default();
        let place = span.start..span.start + address.len();
        if is_email(address) && !is_in_address(text, &place) {
            // With a label cut off, it may as well be a version: `jquery@3.7.1.min.js`.
            let is_version = cut > 0 && begins_with_digit(address);
            return if is_version { Reject(span.end) } else { Found(place) };
        }
        // The last label may belong to a file or a sentence.
        let Some(dot) = address.iter().rposition(|byte| *byte == b'.') else { break };
        address = address.get(..dot).unwrap_or_default();
    }
    Reject(span.end)
}

fn begins_with_digit(address: &[u8]) -> bool {
    matches!(address.split(|byte| *byte == b'@').nth(1), Some([b'0'..=b'9', ..]))
}

/// How much of the last label belongs to the sentence: `com--she said`, `com-Bob`. No top-level domain has a dash, but for
/// those that begin with `xn--`.
fn behind_dash(found: &[u8]) -> usize {
    let top = found.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let dash = top.iter().position(|byte| *byte == b'-').filter(|_| !top.starts_with(b"xn--"));
    dash.map_or(0, |dash| top.len() - dash)
}

fn is_email(found: &[u8]) -> bool {
    /// What follows an `@` in names of files, not of people.
    const FILES: [&str; 10] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "min", "map"];
    let Some(at) = found.iter().position(|byte| *byte == b'@') else { return false };
    let (local, domain) = (found.get(..at).unwrap_or_default(), found.get(at + 1..).unwrap_or_default());
    let Some(dot) = domain.iter().rposition(|byte| *byte == b'.') else { return false };
    let top = domain.get(dot + 1..).unwrap_or_default();
    let top_text = std::str::from_utf8(top).unwrap_or_default();
    local.len() <= LONGEST_LOCAL
        && domain.len() <= 253
        && top.len() >= 2
        && (top.iter().all(u8::is_ascii_alphabetic) || top.starts_with(b"xn--"))
        && !FILES.contains(&top_text)
        && local.iter().any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
}

/// `git@host.example:path` and `https://user@host.example` name a place, not a mailbox.
fn is_in_address(text: &[u8], span: &Range<usize>) -> bool {
    let before = text.get(..span.start).unwrap_or_default();
    let found = text.get(span.clone()).unwrap_or_default();
    before.ends_with(b"://")
        || before.ends_with(br":\/\/")
        || (found.starts_with(b"git@") && text.get(span.end) == Some(&b':'))
}
