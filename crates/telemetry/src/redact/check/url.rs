//! Passwords in URLs.

use std::ops::Range;

use super::Verdict::{self, Reject, Within};
use crate::redact::credential::is_variable;

/// `://user:password@h`: what stands between the colon and the last `@` before a slash, a quote or a space.
pub(super) fn url_password_in(text: &[u8], span: &Range<usize>) -> Option<Range<usize>> {
    const LONGEST: usize = 1024;
    let user = behind_slashes(text, span);
    let start = user + text.get(user..span.end)?.iter().position(|byte| *byte == b':')? + 1;
    let rest = text.get(start..)?;
    let goes_on = |byte: &&u8| !byte.is_ascii_whitespace() && !b"/\"'\\<>".contains(byte);
    let most = rest.iter().take(LONGEST).take_while(goes_on).count();
    let is_host =
        |at: usize| rest.get(at + 1).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'[');
    let length = (1..most).rev().find(|at| rest.get(*at) == Some(&b'@') && is_host(*at))?;
    let is_one = !is_port(rest.get(..length)?);
    is_one.then_some(start..start + length)
}

pub(super) fn url_password(text: &[u8], span: &Range<usize>) -> Verdict {
    // What stands before the password may be a token, whether the password is one or not.
    let user = behind_slashes(text, span);
    let Some(place) = url_password_in(text, span) else { return Reject(user) };
    let password = text.get(place.clone()).unwrap_or_default();
    let placeholder = is_variable(password)
        || password.starts_with(b"{")
        || password.iter().all(|byte| password.first() == Some(byte))
        || password.starts_with(b"[REDACTED:");
    let is_place = text.get(user..).is_some_and(|user| user.starts_with(b"git@"));
    if placeholder || is_place { Reject(user) } else { Within(place, user) }
}

/// Where the user begins. In JSON inside a string slashes may be escaped.
fn behind_slashes(text: &[u8], span: &Range<usize>) -> usize {
    let found = text.get(span.clone()).unwrap_or_default();
    span.start + found.iter().skip(1).take_while(|byte| matches!(byte, b'/' | b'\\')).count() + 1
}

/// `8080?…`, `8080#…`: no user stands before the colon but a host.
fn is_port(password: &[u8]) -> bool {
    let digits = password.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (2..=5).contains(&digits) && matches!(password.get(digits), Some(b'?' | b'#'))
}
