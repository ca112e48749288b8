//! Where a number may begin and end.

use std::ops::Range;

fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Whether a number can begin with this group: not in the middle of a longer token.
pub(super) fn opens(text: &[u8], groups: &[Range<usize>], at: usize) -> bool {
    let Some(group) = groups.get(at) else { return false };
    if at > 0 {
        return parts(text, groups, at);
    }
    let back = |by: usize| group.start.checked_sub(by).and_then(|at| text.get(at));
    match back(1) {
        Some(b'-' | b'.') => !is_word(back(2)),
        Some(b'+') => !back(2).is_some_and(u8::is_ascii_digit),
        before => !is_word(before),
    }
}

/// Whether a number can end with this group.
pub(super) fn closes(text: &[u8], groups: &[Range<usize>], at: usize) -> bool {
    let Some(group) = groups.get(at) else { return false };
    if at + 1 < groups.len() {
        return parts(text, groups, at + 1);
    }
    let next = text.get(group.end + 1);
    match text.get(group.end) {
        Some(b'-' | b'.') => !is_word(next),
        // An extension.
        Some(b'x' | b'X') => next.is_some_and(u8::is_ascii_digit),
        after => !is_word(after),
    }
}

/// Whether what stands before this group may part two numbers.
fn parts(text: &[u8], groups: &[Range<usize>], at: usize) -> bool {
    let separator = |at: usize| match groups.get(at.wrapping_sub(1)..=at) {
        Some([left, right]) => text.get(left.end..right.start).unwrap_or_default(),
        _ => &[],
    };
    let is_address = |from: usize| (from + 1..from + 4).all(|at| separator(at) == b".");
    let is_range = || separator(at) == b"-" && at >= 4 && is_address(at - 4) && is_address(at);
    separator(at).iter().any(|byte| matches!(byte, b' ' | b'/' | b'(')) || is_range()
}

/// `card-4111…`: not free, but no part of a token.
pub(super) fn follows_word(text: &[u8], groups: &[Range<usize>], at: usize) -> bool {
    let before = groups.first().and_then(|group| text.get(..group.start));
    at == 0 && matches!(before, Some([.., letter, b'-']) if letter.is_ascii_alphabetic())
}

/// `4111….json`.
pub(super) fn precedes_word(text: &[u8], groups: &[Range<usize>], at: usize) -> bool {
    let after = groups.last().and_then(|group| text.get(group.end..));
    at + 1 == groups.len() && matches!(after, Some([b'-' | b'.', letter, ..]) if letter.is_ascii_alphabetic())
}
