//! Addresses of mailboxes.

use std::ops::Range;

use super::Verdict::{self, Found, Reject};

/// Of the part of an address before the `@`.
pub(super) const LONGEST_LOCAL: usize = 64;

pub(super) fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+'-".contains(&byte)
}

pub(super) fn email(text: &[u8], span: &Range<usize>) -> Verdict {
    let found = text.get(span.clone()).unwrap_or_default();
    let whole = found.get(..found.len() - behind_dash(found)).unwrap_or_default();
    let address = span.start..span.start + whole.len();
    if is_email(whole) && !is_in_address(text, &address) { Found(address) } else { Reject(span.end) }
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
    const FILES: [&str; 8] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css"];
    let Some(at) = found.iter().position(|byte| *byte == b'@') else { return false };
    let (local, domain) = (found.get(..at).unwrap_or_default(), found.get(at + 1..).unwrap_or_default());
    let top = domain.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let top_text = std::str::from_utf8(top).unwrap_or_default();
    local.len() <= LONGEST_LOCAL
        && domain.len() <= 253
        && top.len() >= 2
        && (top.iter().all(u8::is_ascii_alphabetic) || top.starts_with(b"xn--"))
        && !FILES.contains(&top_text)
        && local.iter().any(u8::is_ascii_alphanumeric)
}

/// `git@host.example:path` and `https://user@host.example` name a place, not a mailbox.
fn is_in_address(text: &[u8], span: &Range<usize>) -> bool {
    let before = text.get(..span.start).unwrap_or_default();
    let found = text.get(span.clone()).unwrap_or_default();
    before.ends_with(b"://") || (found.starts_with(b"git@") && text.get(span.end) == Some(&b':'))
}
