//! What decides whether a match of the automaton is a finding, and which part of it.

use std::net::Ipv6Addr;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use memchr::memmem;

use super::checksum;
use super::credential::{is_credential, is_key, is_password, is_token, is_variable};
use super::patterns::Check;

/// What became of a match.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is to be replaced.
    Found(Range<usize>),
    /// This is, under this name, unless a more special pattern is found at the same place.
    Context(Range<usize>),
    /// Nothing; go on looking from here.
    Reject(usize),
}

use Verdict::{Context, Found, Reject};

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
            let (end, read) = value.map_or((span.end, span.end), |(value, read)| (value.end, read));
            (span.start, end, read)
        }
        Check::Email => {
            let before = text.get(..span.start).unwrap_or_default().iter().rev();
            let more = before.take(LONGEST_LOCAL).take_while(|byte| is_local(**byte)).count();
            (span.start - more, span.end, span.end)
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

/// The value behind the first `=` or `:`.
fn assignment(text: &[u8], span: Range<usize>, good: fn(&[u8]) -> bool) -> Verdict {
    let Some((value, _)) = value_in(text, &span) else { return Reject(span.start + 1) };
    // Between quotes there may be a sentence: its first word tells.
    let whole = text.get(value.clone()).unwrap_or_default();
    if good(whole.split(u8::is_ascii_whitespace).next().unwrap_or_default()) {
        Context(value)
    } else {
        Reject(value.start.max(span.start + 1))
    }
}

/// Where the value stands whose name and mark are in this span: what is between quotes, whatever it is, or a word. And up to
/// where that was read.
fn value_in(text: &[u8], span: &Range<usize>) -> Option<(Range<usize>, usize)> {
    let skip = |from: usize, bytes: &[u8]| {
        let rest = text.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| bytes.contains(byte)).count()
    };
    let found = text.get(span.clone())?;
    let mark = found.iter().position(|byte| matches!(byte, b'=' | b':'))?;
    let open = skip(skip(span.start + mark, b"=:>"), b" \t");
    let quote = skip(open, b"\\");
    let is_quoted = matches!(text.get(quote), Some(b'"' | b'\''));
    let start = quote + usize::from(is_quoted);
    let start = start + behind_scheme(text.get(start..)?);
    let rest = text.get(start..)?;
    let (length, read) = if is_quoted {
        quoted(rest, *text.get(quote)?, quote - open)
    } else {
        let length = word(rest);
        (length, length)
    };
    Some((start..start + length, start + read))
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

/// The word behind the first one.
fn after_space(found: &[u8], span: &Range<usize>, good: fn(&[u8]) -> bool) -> Verdict {
    let word = found.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(0);
    let gap = found.iter().skip(word).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let value = found.get(word + gap..).unwrap_or_default();
    let start = span.start + word + gap;
    if good(value) { Context(start..span.end) } else { Reject(start) }
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

/// From the first line to the last; when the last is missing (the text was cut), as far as lines of base64 go.
fn pem(text: &[u8], span: Range<usize>) -> Verdict {
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

/// Three characters stand before the mark.
fn azure_secret(text: &[u8], span: Range<usize>) -> Verdict {
    let start = span.start.saturating_sub(3);
    let head = text.get(start..span.start).unwrap_or_default();
    let good = head.len() == 3
        && head.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~' | b'.'));
    if good { Found(start..span.end) } else { Reject(span.start + 1) }
}

/// `://user:password@h`: what stands between the colon and the `@`.
fn url_password_in(text: &[u8], span: &Range<usize>) -> Option<Range<usize>> {
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

fn url_password(text: &[u8], span: &Range<usize>) -> Verdict {
    let Some(place) = url_password_in(text, span) else { return Reject(span.start + 3) };
    let password = text.get(place.clone()).unwrap_or_default();
    let placeholder = is_variable(password)
        || password.starts_with(b"{")
        || password.iter().all(|byte| password.first() == Some(byte))
        || password.starts_with(b"[REDACTED:");
    if placeholder { Reject(place.end) } else { Found(place) }
}

/// Of the part of an address before the `@`.
const LONGEST_LOCAL: usize = 64;

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+'-".contains(&byte)
}

fn email(text: &[u8], span: &Range<usize>) -> Verdict {
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
