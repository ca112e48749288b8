//! Runs of digits: which part of them is a card, a telephone number, an address or a national id.
//!
//! A run (digits with at most two separators between them) is cut into groups, and windows of groups that stand free are
//! tried, the longest first. A number inside a longer token (a UUID, a version, a float) does not stand free. A telephone
//! number has no check digits: it gets what is left by the others.
//!
//! It is a pass of its own: as one more pattern of the automaton a run would hide what begins in it, such as an address
//! whose local part ends in digits, or a key behind a date. Each byte is read once, each group tried in a few windows.

mod border;

use std::net::Ipv4Addr;
use std::ops::Range;

use self::border::{closes, follows_word, opens, precedes_word};
use super::checksum;
use super::patterns::{Class, Name};
use super::settings::Pii;

/// Which kinds are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) phone: bool,
    pub(super) card: bool,
    pub(super) ip: bool,
    pub(super) national_id: bool,
}

/// Groups of one number, at most.
const MOST_GROUPS: usize = 8;

/// Digits of one number: a card's, at most; an IPv4 address has four at least, everything else eight.
const DIGITS: usize = 19;
const LEAST_DIGITS: usize = 8;
/// Of a run that may hold one, in bytes: `1.1.1.1`.
pub(super) const SHORTEST: usize = 7;

struct Window<'a> {
    text: &'a [u8],
    groups: &'a [Range<usize>],
    /// All digits, 0 to 9.
    digits: &'a [u8],
    /// The byte before the first digit belongs to it: `+` or `(`.
    lead: Option<u8>,
    /// It stands free on both sides.
    free: bool,
}

impl Window<'_> {
    fn shape(&self, lengths: &[usize]) -> bool {
        self.groups.len() == lengths.len()
            && self.groups.iter().zip(lengths).all(|(group, length)| group.len() == *length)
    }

    fn separators(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.windows(2).map(|pair| match pair {
            [left, right] => self.text.get(left.end..right.start).unwrap_or_default(),
            _ => &[],
        })
    }

    /// Whether every separator is this one; also without any.
    fn all(&self, separator: &[u8]) -> bool {
        self.separators().all(|one| one == separator)
    }

    fn even(&self) -> bool {
        self.all(b" ") || self.all(b"-")
    }
}

/// Calls `found` for each number in the text with where it stands, in no order.
pub(super) fn find(text: &[u8], wanted: Wanted, found: &mut impl FnMut(Range<usize>, Name)) {
    let mut at = 0;
    while let Some(start) = next_digit(text, at) {
        at = run_end(text, start + 1);
        if at - start >= SHORTEST {
            judge(text, start..at, wanted, found);
        }
    }
}

/// Where the next digit stands. Most text has few, and is crossed in pieces, without a branch per byte.
fn next_digit(text: &[u8], from: usize) -> Option<usize> {
    const PIECE: usize = 16;
    let has_one = |piece: &[u8; PIECE]| piece.iter().fold(false, |any, byte| any | byte.is_ascii_digit());
    let rest = text.get(from..)?;
    let (pieces, _) = rest.as_chunks::<PIECE>();
    let start = PIECE * pieces.iter().position(has_one).unwrap_or(pieces.len());
    let digit = rest.get(start..)?.iter().position(u8::is_ascii_digit)?;
    Some(from + start + digit)
}

/// The numbers in one run.
fn judge(text: &[u8], run: Range<usize>, wanted: Wanted, found: &mut impl FnMut(Range<usize>, Name)) {
    let groups = groups(text, run);
    let checked = Wanted { phone: false, ..wanted };
    let phone = Wanted { phone: wanted.phone, ..Wanted::default() };
    let (mut at, mut left) = (0, 0);
    while at < groups.len() {
        match number_at(text, &groups, at..groups.len(), checked, found) {
            Some(last) => {
                phones(text, &groups, left..at, phone, found);
                at = last + 1;
                left = at;
            }
            None => at += 1,
        }
    }
    phones(text, &groups, left..at, phone, found);
}

/// Those among these groups.
fn phones(
    text: &[u8],
    groups: &[Range<usize>],
    mut left: Range<usize>,
    phone: Wanted,
    found: &mut impl FnMut(Range<usize>, Name),
) {
    while phone.phone && !left.is_empty() {
        let last = number_at(text, groups, left.clone(), phone, found);
        left.start = last.unwrap_or(left.start) + 1;
    }
}

/// A run goes on over at most two separators.
fn run_end(text: &[u8], mut end: usize) -> usize {
    let parts = |byte: u8| b" .()/-".contains(&byte);
    loop {
        end += match text.get(end..) {
            Some([b'0'..=b'9', ..]) => 1,
            Some([one, b'0'..=b'9', ..]) if parts(*one) => 2,
            Some([one, other, b'0'..=b'9', ..]) if parts(*one) && parts(*other) => 3,
            _ => return end,
        };
    }
}

/// The longest number that begins with the first of these groups; its last group.
fn number_at(
    text: &[u8],
    groups: &[Range<usize>],
    these: Range<usize>,
    wanted: Wanted,
    found: &mut impl FnMut(Range<usize>, Name),
) -> Option<usize> {
    let at = these.start;
    if !wanted.any() {
        return None;
    }
    let opens = opens(text, groups, at);
    if !opens && !follows_word(text, groups, at) {
        return None;
    }
    let start = groups.get(at)?.start;
    let lead = start.checked_sub(1).and_then(|before| text.get(before)).copied();
    let lead = lead.filter(|byte| matches!(byte, b'+' | b'('));
    for last in (at..these.end.min(at + MOST_GROUPS)).rev() {
        let window = groups.get(at..=last)?;
        let total: usize = window.iter().map(Range::len).sum();
        let address = wanted.ip && window.len() == 4;
        if total > DIGITS || (total < LEAST_DIGITS && !address) {
            continue;
        }
        let closes = closes(text, groups, last);
        if !closes && !precedes_word(text, groups, last) {
            continue;
        }
        let mut digits = [0; DIGITS];
        let bytes = window.iter().flat_map(|group| text.get(group.clone()).unwrap_or_default());
        digits.iter_mut().zip(bytes).for_each(|(digit, byte)| *digit = byte - b'0');
        let window =
            Window { text, groups: window, digits: digits.get(..total)?, lead, free: opens && closes };
        if let Some(name) = classify(&window, wanted) {
            let start = start - usize::from(lead.is_some() && name == PHONE);
            found(start..groups.get(last)?.end, name);
            return Some(last);
        }
    }
    None
}

/// A JSON number: an integer can be a card or a national id, for which its digits speak. Nothing tells a telephone
/// number from any other integer.
pub(super) fn judge_integer(token: &[u8], wanted: Wanted) -> Option<Name> {
    if token.len() > DIGITS || !token.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut name = None;
    let wanted = Wanted { phone: false, ip: false, ..wanted };
    let whole = 0..token.len();
    number_at(token, std::slice::from_ref(&whole), 0..1, wanted, &mut |_, found| name = Some(found));
    name
}

const PHONE: Name = Name::builtin("phone", Class::Pii);
const CARD: Name = Name::builtin("card", Class::Pii);
const IP: Name = Name::builtin("ip", Class::Pii);
const NATIONAL_ID: Name = Name::builtin("national_id", Class::Pii);

fn groups(text: &[u8], span: Range<usize>) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for at in span {
        if !text.get(at).is_some_and(u8::is_ascii_digit) {
            continue;
        }
        match groups.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => groups.push(at..at + 1),
        }
    }
    groups
}

fn classify(window: &Window<'_>, wanted: Wanted) -> Option<Name> {
    if !window.free {
        let is_bare = window.groups.len() == 1;
        return (is_bare && wanted.card && is_card(window)).then_some(CARD);
    }
    if wanted.ip && is_public_v4(window) {
        return Some(IP);
    }
    if wanted.card && is_card(window) {
        return Some(CARD);
    }
    if wanted.national_id && is_national_id(window) {
        return Some(NATIONAL_ID);
    }
    (wanted.phone && is_phone(window)).then_some(PHONE)
}

/// Addresses that name somebody: no private, loopback, link-local, multicast or reserved ones.
fn is_public_v4(window: &Window<'_>) -> bool {
    if window.groups.len() != 4 || !window.all(b".") {
        return false;
    }
    let (Some(first), Some(last)) = (window.groups.first(), window.groups.last()) else { return false };
    if follows_version(window.text.get(..first.start).unwrap_or_default()) {
        return false;
    }
    let text = window.text.get(first.start..last.end).unwrap_or_default();
    let Some(address) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Ipv4Addr>().ok()) else {
        return false;
    };
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets().first().is_some_and(|first| *first == 0 || *first >= 240))
}

/// Whether the word before says that this is a version.
fn follows_version(before: &[u8]) -> bool {
    const WORD: &[u8] = b"version";
    let word = before.trim_ascii_end();
    let word = word.strip_suffix(b":").or(word.strip_suffix(b"=")).unwrap_or(word).trim_ascii_end();
    word.len()
        .checked_sub(WORD.len())
        .and_then(|at| word.get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case(WORD))
}

/// Prefix and length of a network (ISO/IEC 7812 ranges as the networks publish them), in a usual grouping.
fn is_card(window: &Window<'_>) -> bool {
    let shapes: [&[usize]; 5] = [&[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 4, 3], &[4, 4, 5]];
    let grouped =
        window.groups.len() == 1 || (window.even() && shapes.iter().any(|shape| window.shape(shape)));
    let digits = window.digits;
    let prefix = |length: usize| {
        digits.iter().take(length).fold(0u32, |number, digit| number * 10 + u32::from(*digit))
    };
    let length = digits.len();
    let network = match (prefix(1), prefix(2), prefix(4)) {
        (4, ..) => matches!(length, 13 | 16 | 19),
        (_, 34 | 37, _) => length == 15,
        (_, 36 | 38 | 39, _) | (_, _, 3000..=3059 | 3095) => (14..=19).contains(&length),
        (_, 35, 3528..=3589) | (_, 60 | 62 | 64 | 65 | 81, _) => (16..=19).contains(&length),
        (_, 51..=55, _) | (_, _, 2221..=2720) => length == 16,
        (_, 50 | 56..=58 | 61 | 63 | 66..=69, _) => (13..=19).contains(&length),
        _ => false,
    };
    grouped && network && digits.windows(2).any(|pair| pair.first() != pair.last()) && checksum::luhn(digits)
}

fn is_national_id(window: &Window<'_>) -> bool {
    let digits = window.digits;
    let bare = window.groups.len() == 1;
    match digits.len() {
        9 => window.shape(&[3, 2, 4]) && window.even() && checksum::us_ssn(digits),
        11 if bare => checksum::br_cpf(digits) || checksum::de_tax_id(digits),
        11 if window.shape(&[3, 3, 3, 2]) => checksum::br_cpf(digits),
        11 => window.shape(&[2, 3, 3, 3]) && window.all(b" ") && checksum::de_tax_id(digits),
        // Bare, one number of twelve digits in ten would pass.
        12 => window.shape(&[4, 4, 4]) && window.even() && checksum::in_aadhaar(digits),
        15 => {
            (bare || (window.all(b" ") && (window.shape(&[1, 2, 2, 2, 3, 3, 2]) || window.shape(&[13, 2]))))
                && checksum::fr_insee(digits)
        }
        _ => false,
    }
}

/// International (`+`, or `00` and groups), North American (3-3-4), or national with a leading 0 and groups.
fn is_phone(window: &Window<'_>) -> bool {
    let digits = window.digits;
    let length = digits.len();
    // A slash parts the area from the number, anywhere else one number from the next.
    let is_abroad = window.lead == Some(b'+') || digits.starts_with(&[0, 0]);
    if window.separators().skip(1 + usize::from(is_abroad)).any(|separator| separator.contains(&b'/')) {
        return false;
    }
    if window.lead == Some(b'+') {
        return (8..=15).contains(&length) && digits.first() != Some(&0);
    }
    if window.groups.len() < 2 {
        return false;
    }
    let north_american = match digits {
        [1, rest @ ..] if window.shape(&[1, 3, 3, 4]) => rest,
        all if window.shape(&[3, 3, 4]) => all,
        _ => &[],
    };
    if let [area, _, _, exchange, ..] = north_american {
        return *area > 1 && *exchange > 1;
    }
    if digits.first() != Some(&0) || is_date(window) {
        return false;
    }
    let two_each = window.groups.iter().all(|group| group.len() == 2);
    let dots = window.separators().any(|separator| separator.contains(&b'.'));
    let long_head = window.groups.first().is_some_and(|group| group.len() > 1);
    // `00` and a country, or `0` and an area; neither begins with another 0.
    let international = digits.get(1) == Some(&0);
    let least = if international { 10 } else { 9 };
    (!international || digits.get(2) != Some(&0))
        && long_head
        && (!dots || two_each)
        && (least..=least + 5).contains(&length)
}

/// Day, month and a year of four digits, whatever follows.
fn is_date(window: &Window<'_>) -> bool {
    matches!(window.groups, [day, month, year, ..] if day.len() <= 2 && month.len() <= 2 && year.len() == 4)
}

impl Wanted {
    /// The kinds of these settings that are made of digits.
    pub(super) fn of(has: impl Fn(Pii) -> bool) -> Self {
        Self {
            phone: has(Pii::Phone),
            card: has(Pii::Card),
            ip: has(Pii::Ip),
            national_id: has(Pii::NationalId),
        }
    }

    pub(super) fn any(self) -> bool {
        self.phone || self.card || self.ip || self.national_id
    }
}
