//! Texts that are to be found whatever their form: what was found once in a record, the gateway's own secrets, the key
//! that a caller sent along.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use magicapi_plugin::Secret;
use memchr::memmem;

use super::credential::is_token;
use super::matcher::Finding;
use super::patterns::{Class, Name};

/// Values found once are looked for everywhere in their record, when they are at least so long, and up to so many.
const SHORTEST_KNOWN: usize = 8;
const MOST_KNOWN: usize = 256;
/// Longer ones (whole private keys) are found by their own marks.
const LONGEST_KNOWN: usize = 4096;
const MOST_KNOWN_BYTES: usize = 64 << 10;
const CALLER_KEY: Name = Name::builtin("caller_key", Class::Secret);
/// A secret that is shorter may be a word, such as the key `not-needed` of a local provider.
const SHORTEST_SECRET: usize = 12;

/// Texts to be found again where their context is missing: the caller's key, and what was found in a record.
#[derive(Clone)]
pub(super) struct Known {
    /// Beside the others, so that none of them takes its place.
    key: Option<memmem::Finder<'static>>,
    automaton: Option<AhoCorasick>,
    names: Vec<Name>,
}

impl Known {
    /// The key that a caller sent along. It is looked for in the decoded text: JSON may write it in several ways.
    pub(super) fn key(key: &Secret) -> Option<Self> {
        let key = Some(key.expose().trim()).filter(|key| is_no_word(key))?;
        let finder = memmem::Finder::new(key.as_bytes()).into_owned();
        Some(Self { key: Some(finder), automaton: None, names: Vec::new() })
    }

    /// What was found, and the key that is looked for already. `None` when nothing is worth looking for.
    pub(super) fn new(values: &[(Vec<u8>, Name)], before: Option<Self>) -> Option<Self> {
        let key = before.and_then(|before| before.key);
        let values = chosen(values);
        let build = || {
            let mut builder = AhoCorasick::builder();
            builder.match_kind(aho_corasick::MatchKind::LeftmostLongest);
            // Built for one record: what is built fastest is best.
            builder.kind(Some(AhoCorasickKind::NoncontiguousNFA));
            builder.build(values.iter().map(|(text, _)| text)).ok()
        };
        let automaton = if values.is_empty() { None } else { build() };
        let names = values.iter().map(|(_, name)| *name).collect();
        (key.is_some() || automaton.is_some()).then_some(Self { key, automaton, names })
    }

    /// Whether a text is too short for any of them.
    pub(super) fn hold_nothing(&self, text: &[u8]) -> bool {
        let key = self.key.as_ref().map_or(usize::MAX, |key| key.needle().len());
        let shortest = self.automaton.as_ref().map_or(usize::MAX, AhoCorasick::min_pattern_len);
        text.len() < key.min(shortest)
    }

    /// Appends where they stand in `text`.
    pub(super) fn find(&self, text: &[u8], out: &mut Vec<Finding>) {
        if let Some(key) = &self.key {
            let length = key.needle().len();
            let place = |start| Finding { start, end: start + length, name: CALLER_KEY };
            out.extend(key.find_iter(text).map(place));
        }
        let found = self.automaton.iter().flat_map(|automaton| automaton.find_iter(text));
        out.extend(found.filter_map(|found| {
            let name = self.names.get(found.pattern().as_usize())?;
            Some(Finding { start: found.start(), end: found.end(), name: *name })
        }));
    }
}

/// What is looked for, secrets first: many addresses must not take a password's place.
fn chosen(values: &[(Vec<u8>, Name)]) -> Vec<&(Vec<u8>, Name)> {
    let mut left = MOST_KNOWN_BYTES;
    let mut fits = |length: usize| {
        let fits = (SHORTEST_KNOWN..=LONGEST_KNOWN.min(left)).contains(&length);
        left -= if fits { length } else { 0 };
        fits
    };
    let mut ordered: Vec<_> = values.iter().collect();
    ordered.sort_by_key(|(_, name)| name.class() != Class::Secret);
    let fitting = ordered.into_iter().filter(|(text, _)| fits(text.len()));
    let chosen: Vec<_> = fitting.take(MOST_KNOWN).collect();
    let stands_alone = |one: &&&(Vec<u8>, Name)| !chosen.iter().any(|(part, _)| repeats(&one.0, part));
    chosen.iter().filter(stands_alone).copied().collect()
}

/// Whether a text begins with the same thing again and again, `part` in it: behind each of those it would be followed to its
/// end, wherever they stand. What holds another value twice and is no repetition is looked for, unless it is long: many
/// long ones may share their parts in turn.
fn repeats(text: &[u8], part: &[u8]) -> bool {
    const TIMES: usize = 4;
    const LONG: usize = 512;
    let mut places = memmem::find_iter(text, part);
    let (Some(first), Some(second)) = (places.next(), places.next()) else { return false };
    if text.len() > LONG {
        return true;
    }
    let period = second - first;
    let head = text.get(..(TIMES - 1) * period);
    first < period && head.is_some() && head == text.get(period..TIMES * period)
}

fn is_no_word(secret: &str) -> bool {
    secret.len() >= SHORTEST_SECRET && is_token(secret.as_bytes())
}

/// Patterns of the gateway's own secrets. What may be a word is left out.
pub(super) fn literals(secrets: &[Secret]) -> Vec<String> {
    let texts = secrets.iter().map(|secret| secret.expose().trim());
    let chosen: BTreeSet<&str> = texts.filter(|text| is_no_word(text)).collect();
    // Longest first, so that of two that begin alike the whole is found.
    let mut chosen: Vec<&str> = chosen.into_iter().collect();
    chosen.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let literal = |text: &str| text.bytes().fold(String::new(), |all, byte| format!("{all}\\x{byte:02x}"));
    chosen.into_iter().take(MOST_KNOWN).map(literal).collect()
}
