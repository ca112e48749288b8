//! The directory of an exporter, made of its name: no name leaves the spool or meets another's.

use sha2::{Digest, Sha256};

/// Longer ones are cut, and told apart by a hash.
const LONGEST: usize = 120;

/// Letters, digits, `-`, `_` and a `.` that is not the first stay; every other byte is `%` and two digits.
pub(super) fn directory(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(char::from(byte)),
            b'.' if !escaped.is_empty() => escaped.push('.'),
            _ => push_hex(&mut escaped, '%', byte),
        }
    }
    if escaped.is_empty() {
        escaped.push('%');
    }
    if escaped.len() > LONGEST {
        escaped.truncate(LONGEST);
        escaped.push('~');
        for byte in Sha256::digest(name).iter().take(8) {
            push_hex(&mut escaped, '-', *byte);
        }
    }
    escaped
}

fn push_hex(out: &mut String, mark: char, byte: u8) {
    out.push(mark);
    for digit in [byte >> 4, byte & 15] {
        out.extend(char::from_digit(u32::from(digit), 16));
    }
}

#[cfg(test)]
mod tests {
    use super::directory;

    #[test]
    fn no_name_leaves_the_directory_or_meets_another() {
        let long = "x".repeat(4000);
        let names =
            ["datadog-eu", "a.b", ".", "..", "", "a/b", "a%2fb", "../../etc", "ä", "a\0b", &long, &long[1..]];
        let made: std::collections::BTreeSet<_> = names.iter().map(|name| directory(name)).collect();
        assert_eq!(made.len(), names.len(), "{made:?}");
        assert!(made.contains("datadog-eu") && made.contains("a.b"));
        for name in &made {
            assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty() && name.len() < 200);
        }
    }
}
