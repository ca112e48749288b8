//! What is no secret though the name of one stands beside it. What was found is masked in the whole record: a word that is
//! taken for a password takes every place along where it stands.

/// Ends of names that say something about a secret: `private_key_path`, `secretName`.
const OTHER_ENDS: [&[u8]; 18] = [
    b"arn", b"at", b"count", b"expiry", b"field", b"file", b"hint", b"id", b"label", b"length", b"name",
    b"path", b"policy", b"ttl", b"type", b"uri", b"url", b"version",
];

/// Of a value that says how a password is hashed.
const ALGORITHMS: [&[u8]; 10] = [
    b"sha224",
    b"sha256",
    b"sha384",
    b"sha512",
    b"argon2",
    b"argon2d",
    b"argon2i",
    b"argon2id",
    b"pbkdf2",
    b"pbkdf2_sha256",
];

/// Whether this name goes on as the name of something else.
pub(super) fn names_something_else(name: &[u8]) -> bool {
    let is_mark = |byte: &u8| !byte.is_ascii_alphanumeric();
    let marks = name.iter().rev().take_while(|byte| is_mark(byte)).count();
    let name = name.get(..name.len() - marks).unwrap_or_default();
    let word = |end: &[u8]| {
        let (head, tail) = name.split_at_checked(name.len().checked_sub(end.len())?)?;
        let (before, first) = (head.last()?, tail.first()?);
        let begins = is_mark(before) || (before.is_ascii_lowercase() && first.is_ascii_uppercase());
        // Vault calls a secret `secret_id`.
        let is_secret = end == b"id" && head.len() <= b"secret_".len();
        (begins && tail.eq_ignore_ascii_case(end) && !is_secret).then_some(())
    };
    OTHER_ENDS.iter().any(|end| word(end).is_some())
}

/// `arn:aws:secretsmanager:eu-west-1:123456789012:` and what stands behind it names a place.
pub(super) fn is_in_arn(before: &[u8]) -> bool {
    const LONGEST: usize = 128;
    let near = before.get(before.len().saturating_sub(LONGEST)..).unwrap_or_default();
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`<>(),;=".contains(byte);
    near.rsplit(ends).next().is_some_and(|word| word.starts_with(b"arn:"))
}

/// Where a shell stands, `PWD=/Users/jane/dev2`: half of all paths below it would be masked with it.
pub(in crate::redact) fn is_directory(name: &[u8], value: &[u8]) -> bool {
    // `DB_PWD` is a password, which may begin with a slash.
    let is_path =
        (value.starts_with(b"/") || value.starts_with(b"~/")) && value.iter().skip(2).any(|b| *b == b'/');
    matches!(name, b"PWD" | b"OLDPWD") && is_path
}

/// Whether this is something else, by its form.
pub(in crate::redact) fn says_no_secret(value: &[u8], mark: u8, is_quoted: bool) -> bool {
    value.starts_with(b"arn:")
        || is_date(value)
        || is_file(value)
        || is_rules(value)
        || is_algorithm(value)
        || (!is_quoted && is_dotted(value))
        || (!is_quoted && mark == b':' && is_type(value))
}

/// `sha256`, `SHA-256`
fn is_algorithm(value: &[u8]) -> bool {
    let plain: Vec<u8> =
        value.iter().take(16).filter(|byte| **byte != b'-').map(u8::to_ascii_lowercase).collect();
    ALGORITHMS.contains(&plain.as_slice())
}

/// `2024-01-15T10:30:45.123Z`
fn is_date(value: &[u8]) -> bool {
    matches!(value, [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'-', ..])
        && value.iter().all(|byte| byte.is_ascii_digit() || b"-:.+TZ".contains(byte))
}

/// `/etc/ssl/key1.pem`, `./key1.pem`, `/run/secrets/db_password1`; base64 may begin with a slash, too, but has capitals.
fn is_file(value: &[u8]) -> bool {
    const LONGEST_END: usize = 5;
    let is_path = [&b"/"[..], b"./", b"../", b"~/"].iter().any(|root| value.starts_with(root));
    let last = value.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let end = last.iter().rposition(|byte| *byte == b'.').and_then(|dot| last.get(dot + 1..));
    let has_end = end.is_some_and(|end| {
        (1..=LONGEST_END).contains(&end.len()) && end.iter().all(u8::is_ascii_alphanumeric)
    });
    let is_deep = value.iter().skip(1).any(|byte| *byte == b'/');
    let is_plain =
        value.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(byte));
    is_path && (has_end || (is_deep && is_plain))
}

/// `required|min:8`: rules that a form's field must keep.
fn is_rules(value: &[u8]) -> bool {
    let is_rule = |rule: &[u8]| {
        let name = rule.split(|byte| *byte == b':').next().unwrap_or_default();
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
    };
    value.contains(&b'|') && value.split(|byte| *byte == b'|').all(is_rule)
}

/// `form1.value`, `settings.OAUTH2_SECRET`: what code calls by its name. Keys with a dot in them have more digits.
fn is_dotted(value: &[u8]) -> bool {
    const MOST_DIGITS: usize = 2;
    let is_name = |part: &[u8]| {
        part.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
            && part.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    value.contains(&b'.')
        && value.iter().filter(|byte| byte.is_ascii_digit()).count() <= MOST_DIGITS
        && value.split(|byte| *byte == b'.').all(is_name)
}

/// `String!`
fn is_type(value: &[u8]) -> bool {
    matches!(value, [name @ .., b'!'] if name.iter().all(u8::is_ascii_alphabetic))
}
