//! What decides whether a match of the automaton is a finding, and which part of it.

mod assignment;
mod email;
mod pem;
mod url;

use std::net::Ipv6Addr;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use memchr::memmem;

use super::checksum;
use super::credential::{is_credential, is_key, is_password, is_token};
use super::patterns::Check;

use self::assignment::{assignment, value_in};
pub(super) use self::assignment::{is_directory, says_no_secret};
use self::email::email;
use self::pem::pem;
use self::url::{url_password, url_password_in};

/// What became of a match.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is to be replaced.
    Found(Range<usize>),
    /// This is, under this name, unless a more special pattern is found at the same place: go on looking from here.
    Within(Range<usize>, usize),
    /// Nothing; go on looking from here.
    Reject(usize),
}

use Verdict::{Found, Reject, Within};

/// The match with what the automaton leaves to be read here, and up to where that was read: a pattern that goes on without
/// end before it matches would be followed beyond every match behind it.
pub(super) fn widen(check: Check, text: &[u8], span: Range<usize>) -> (Range<usize>, usize) {
    let rest = text.get(span.end..).unwrap_or_default();
    let (start, end, read) = match check {
        Check::Jwt => {
            let end = span.end + jwt_tail(rest);
            (span.start, end, end)
        }
        Check::UrlPassword => {
            let end = url_password_in(text, &span).map_or(span.end, |password| password.end);
            (span.start, end, end)
        }
        Check::Assignment | Check::Password => {
            let value = value_in(text, &span);
            let (end, read) = value.map_or((span.end, span.end), |value| (value.place.end, value.read));
            (span.start, end, read)
        }
        Check::Email => {
            // The pattern begins with the last byte before the `@`.
            (email::local_start(text, span.start + 1), span.end, span.end)
        }
        _ => (span.start, span.end, span.end),
    };
    let end = end.max(span.end);
    (start..end, read.max(end))
}

/// Judges the match at `span` of `text`, widened.
pub(super) fn judge(check: Check, text: &[u8], span: Range<usize>) -> Verdict {
    let found = text.get(span.clone()).unwrap_or_default();
    // A run that is rejected as a whole holds no part that would be accepted.
    let run = |good: bool| if good { Found(span.clone()) } else { Reject(span.end) };
    let or_next = |good: bool| if good { Found(span.clone()) } else { Reject(span.start + 1) };
    match check {
        Check::Any => Found(span),
        Check::Token => run(is_token(found)),
        Check::Key => run(is_key(found)),
        Check::Pem => pem(text, span),
        Check::Jwt => or_next(is_jwt(found)),
        Check::AzureSecret => azure_secret(text, span),
        Check::Assignment => assignment(text, span, is_credential),
        Check::Password => assignment(text, span, is_password),
        Check::Bearer => after_space(found, &span, is_token),
        Check::Basic => after_space(found, &span, is_basic),
        Check::UrlPassword => url_password(text, &span),
        Check::Email => email(text, &span),
        Check::Iban => iban(found, &span),
        Check::Ipv6 => ipv6(found, &span),
        Check::Nino => or_next(checksum::uk_nino(found.get(..2).unwrap_or_default())),
        Check::Dni => or_next(is_dni(found)),
        Check::FiscalCode => or_next(checksum::it_fiscal_code(found)),
        Check::Corsica => or_next(is_corsican(found)),
    }
}

/// The word behind the first one.
fn after_space(found: &[u8], span: &Range<usize>, good: fn(&[u8]) -> bool) -> Verdict {
    let word = found.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(0);
    let gap = found.iter().skip(word).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let value = found.get(word + gap..).unwrap_or_default();
    let start = span.start + word + gap;
    if good(value) { Within(start..span.end, start) } else { Reject(start) }
}

/// `user:password` in base64.
fn is_basic(value: &[u8]) -> bool {
    STANDARD
        .decode(value)
        .is_ok_and(|text| text.contains(&b':') && text.iter().all(|byte| (b' '..0x7f).contains(byte)))
}

/// The rest of the first part, and up to four more.
fn jwt_tail(rest: &[u8]) -> usize {
    const MORE_PARTS: usize = 4;
    let mut dots = 0;
    let mut goes_on = |byte: u8| {
        dots += usize::from(byte == b'.');
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && dots <= MORE_PARTS)
    };
    rest.iter().take_while(|byte| goes_on(**byte)).count()
}

/// Three or more parts, the first being base64url of a JSON object with an algorithm.
fn is_jwt(found: &[u8]) -> bool {
    let mut parts = found.split(|byte| *byte == b'.');
    let head = parts.next().unwrap_or_default();
    parts.count() >= 2
        && URL_SAFE_NO_PAD
            .decode(head)
            .is_ok_and(|head| head.starts_with(b"{") && memmem::find(&head, b"\"alg\"").is_some())
}

/// Three characters stand before the mark.
fn azure_secret(text: &[u8], span: Range<usize>) -> Verdict {
    let start = span.start.saturating_sub(3);
    let head = text.get(start..span.start).unwrap_or_default();
    let good = head.len() == 3
        && head.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~' | b'.'));
    if good { Found(start..span.end) } else { Reject(span.start + 1) }
}

/// The country says how long it is; what follows in capitals is the next word.
fn iban(found: &[u8], span: &Range<usize>) -> Verdict {
    let reject = Reject(span.start + 2);
    let Some(length) = checksum::iban_length(found.get(..2).unwrap_or_default()) else { return reject };
    let mut plain = Vec::with_capacity(length);
    for (at, byte) in found.iter().enumerate().filter(|(_, byte)| **byte != b' ') {
        plain.push(*byte);
        if plain.len() == length {
            let ends = found.get(at + 1).is_none_or(|next| *next == b' ');
            return if ends && checksum::iban(&plain) {
                Found(span.start..span.start + at + 1)
            } else {
                reject
            };
        }
    }
    reject
}

fn ipv6(found: &[u8], span: &Range<usize>) -> Verdict {
    let tail = found.iter().rev().take_while(|byte| matches!(byte, b':' | b'.')).count();
    let shortened = found.ends_with(b"::");
    let trimmed = found.get(..found.len() - tail).unwrap_or_default();
    for candidate in [if shortened { found } else { trimmed }, trimmed] {
        let address = std::str::from_utf8(candidate).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        if address.is_some() {
            return Found(span.start..span.start + candidate.len());
        }
    }
    Reject(span.start + 4)
}

fn is_dni(found: &[u8]) -> bool {
    let mut digits = Vec::with_capacity(8);
    let (Some(last), Some(first)) = (found.last(), found.first()) else { return false };
    if matches!(first, b'X'..=b'Z') {
        digits.push(first - b'X');
    }
    digits.extend(found.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0'));
    checksum::es_letter(&digits) == Some(*last)
}

/// The département 2A counts as 19, 2B as 18.
fn is_corsican(found: &[u8]) -> bool {
    let digits = found.iter().filter(|byte| **byte != b' ').map(|byte| match byte {
        b'A' => 9,
        b'B' => 8,
        digit => digit - b'0',
    });
    let mut digits: Vec<u8> = digits.collect();
    if let Some(first) = digits.get_mut(5) {
        *first = 1;
    }
    checksum::fr_insee(&digits)
}
