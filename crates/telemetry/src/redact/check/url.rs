//! Passwords in URLs.

use std::ops::Range;

use super::Verdict::{self, Found, Reject};
use crate::redact::credential::is_variable;

/// `://user:password@h`: what stands between the colon and the `@`.
pub(super) fn url_password_in(text: &[u8], span: &Range<usize>) -> Option<Range<usize>> {
    const LONGEST: usize = 1024;
    let found = text.get(span.clone())?;
    let start = span.start + found.iter().skip(3).position(|byte| *byte == b':')? + 4;
    let rest = text.get(start..)?;
    let is_password = |byte: &&u8| !byte.is_ascii_whitespace() && !b"/@\"'\\<>".contains(byte);
    let length = rest.iter().take(LONGEST).take_while(is_password).count();
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'[';
    let is_one = matches!(rest.get(length..), Some([b'@', host, ..]) if is_host(*host));
    is_one.then_some(start..start + length)
}

pub(super) fn url_password(text: &[u8], span: &Range<usize>) -> Verdict {
    let Some(place) = url_password_in(text, span) else { return Reject(span.start + 3) };
    let password = text.get(place.clone()).unwrap_or_default();
    let placeholder = is_variable(password)
        || password.starts_with(b"{")
        || password.iter().all(|byte| password.first() == Some(byte))
        || password.starts_with(b"[REDACTED:");
    if placeholder { Reject(place.end) } else { Found(place) }
}
