//! What looks like a secret when its name says that it is one, and which names say so.

use std::ops::Range;

use super::check::{is_directory, says_no_secret};

/// Which part of the value of a member with a secret's name is one.
pub(super) fn secret_in(name: &[u8], value: &[u8]) -> Option<Range<usize>> {
    let end = value.trim_ascii_end().len();
    let value = value.get(..end)?;
    let (named, name) = (name, singular(name));
    let space = value.iter().rposition(|byte| *byte == b' ');
    // `Token …`, `Api-Key …`: it stands behind the scheme.
    let start = space.filter(|_| ends_with(name, b"authorization")).map_or(0, |space| space + 1);
    let secret = value.get(start..)?;
    // Of several words the first tells: what explains a secret begins as a sentence does.
    let first = secret.split(|byte| *byte == b' ').next().unwrap_or_default();
    let password = [&b"word"[..], b"wd", b"phrase"].iter().any(|end| ends_with(name, end)) || is_pass(named);
    let good = if password { is_password(first) } else { is_credential(first) };
    let is_other = says_no_secret(first, b':', true)
        || is_directory(named, first)
        || (first.len() < secret.len() && is_measure(first));
    (good && !is_other).then_some(start..end)
}

/// `8-character` and the like, with which a sentence may begin.
pub(super) fn is_measure(word: &[u8]) -> bool {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = word.get(digits..).unwrap_or_default();
    digits > 0 && matches!(rest, [b'-', rest @ ..] if rest.iter().all(u8::is_ascii_alphabetic))
}

/// Ends of names, in the singular and without `-`, `_` and `.`, whose values are secrets.
const SECRET_ENDS: [&[u8]; 20] = [
    b"password",
    b"passwd",
    b"pwd",
    b"passphrase",
    b"secret",
    b"apikey",
    b"accesskey",
    b"secretkey",
    b"privatekey",
    b"accountkey",
    b"subscriptionkey",
    b"authkey",
    b"authorization",
    b"credential",
    b"accesstoken",
    b"refreshtoken",
    b"authtoken",
    b"idtoken",
    b"sessiontoken",
    b"bearertoken",
];

/// Whether a member of this name holds a secret: `api_key`, `dbPasswords`, `X-Auth-Token`, …
pub(super) fn is_secret_name(name: &[u8]) -> bool {
    const LONGEST: usize = 64;
    if is_pass(name) {
        return true;
    }
    let name = singular(name);
    // Most names are told apart by their last letter.
    let last = name.last().map_or(0, u8::to_ascii_lowercase);
    if name.len() < 3 || name.len() > LONGEST || !b"dtynel".contains(&last) {
        return false;
    }
    let plain: Vec<u8> =
        name.iter().filter(|byte| !matches!(byte, b'-' | b'_' | b'.')).map(u8::to_ascii_lowercase).collect();
    plain == b"token" || SECRET_ENDS.iter().any(|end| plain.ends_with(end))
}

/// `pass` alone, and as environments have it: `SMTP_PASS`. Any other end with it may be a pass of a compiler.
fn is_pass(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"pass") || name.ends_with(b"_PASS")
}

fn singular(name: &[u8]) -> &[u8] {
    name.strip_suffix(b"s").or(name.strip_suffix(b"S")).unwrap_or(name)
}

fn ends_with(name: &[u8], end: &[u8]) -> bool {
    name.len() >= end.len()
        && name.get(name.len() - end.len()..).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// How many characters of which kinds a text has.
struct Kinds {
    digits: usize,
    upper: bool,
    lower: bool,
    symbol: bool,
    distinct: u32,
}

impl Kinds {
    fn of(text: &[u8]) -> Self {
        let mut kinds = Self { digits: 0, upper: false, lower: false, symbol: false, distinct: 0 };
        let mut seen = [0u128; 2];
        for byte in text {
            match byte {
                b'0'..=b'9' => kinds.digits += 1,
                b'A'..=b'Z' => kinds.upper = true,
                b'a'..=b'z' => kinds.lower = true,
                b'!' | b'@' | b'#' | b'$' | b'%' | b'^' | b'*' => kinds.symbol = true,
                _ => {}
            }
            if let Some(half) = seen.get_mut(usize::from(byte >> 7)) {
                *half |= 1 << (byte & 127);
            }
        }
        kinds.distinct = seen.iter().map(|half| half.count_ones()).sum();
        kinds
    }
}

/// Text of this sort passes if any part of it does.
pub(super) fn is_token(text: &[u8]) -> bool {
    let kinds = Kinds::of(text);
    kinds.distinct >= 8 && (kinds.upper || kinds.lower) && (kinds.digits > 0 || (kinds.upper && kinds.lower))
}

/// Tells `sk-learn-pipeline-components` from a key.
pub(super) fn is_key(text: &[u8]) -> bool {
    const LONG_PART: usize = 12;
    is_token(text)
        && text.split(|byte| matches!(byte, b'-' | b'_')).any(|part| {
            let kinds = Kinds::of(part);
            part.len() >= LONG_PART && kinds.digits > 1 && (kinds.lower || kinds.upper)
        })
}

/// `${…}`, `$(…)`, `$NAME`, `%NAME%`, `%(…)s`. Passwords may begin so, too: `$ecret2024!`.
pub(super) fn is_variable(value: &[u8]) -> bool {
    let is_name = |name: &[u8]| {
        name.iter().any(u8::is_ascii_uppercase)
            && name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
    };
    match value {
        [b'$' | b'%', b'{' | b'(', ..] => true,
        [b'$', name @ ..] | [b'%', name @ .., b'%'] => is_name(name),
        _ => false,
    }
}

/// What code puts where a secret will be is none.
fn is_reference(value: &[u8]) -> bool {
    is_variable(value)
        || value.starts_with(b"{{")
        || (value.starts_with(b"<") && value.ends_with(b">"))
        || value.starts_with(b"process.env")
        || value.starts_with(b"os.environ")
        || value.starts_with(b"[REDACTED:")
}

pub(super) fn is_password(value: &[u8]) -> bool {
    // `$dbPassword` is a variable in some languages: its sign says nothing.
    let kinds = Kinds::of(value.strip_prefix(b"$").unwrap_or(value));
    value.len() >= 6
        && kinds.distinct >= 5
        && (kinds.upper || kinds.lower)
        && (kinds.digits > 0 || kinds.symbol)
        && !is_reference(value)
}

pub(super) fn is_credential(value: &[u8]) -> bool {
    let kinds = Kinds::of(value);
    value.len() >= 12
        && kinds.distinct >= 8
        && (kinds.upper || kinds.lower)
        && (kinds.digits > 1 || (kinds.digits > 0 && kinds.upper && kinds.lower))
        && !is_reference(value)
}
