//! Texts that are to be found whatever their form: what was found once in a record, the gateway's own secrets, the key
//! that a caller sent along.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use magicapi_plugin::{Facts, Secret};
use memchr::memmem;

use super::Content;
use super::credential::is_token;
use super::labels::labels;
use super::matcher::Finding;
use super::patterns::{Class, Name};

/// Values found once are looked for everywhere in their record, when they are at least so long, and up to so many.
const SHORTEST_KNOWN: usize = 8;
const MOST_KNOWN: usize = 256;
/// Longer ones (whole private keys) are found by their own marks.
const LONGEST_KNOWN: usize = 4096;
const MOST_KNOWN_BYTES: usize = 64 << 10;
/// What the caller's key is called.
const CALLER_KEY: Name = Name::builtin("caller_key", Class::Secret);
/// A secret that is shorter may be a word, such as the key `not-needed` of a local provider.
const SHORTEST_SECRET: usize = 12;

/// Texts that were found in a record, to be found again where their context is missing.
#[derive(Clone)]
pub(super) struct Known {
    automaton: AhoCorasick,
    names: Vec<Name>,
}

impl Known {
    /// `None` when nothing is worth looking for, or it cannot be.
    pub(super) fn new(values: &[(Vec<u8>, Name)]) -> Option<Self> {
        let values = chosen(values);
        if values.is_empty() {
            return None;
        }
        let automaton = AhoCorasick::builder()
            .match_kind(aho_corasick::MatchKind::LeftmostLongest)
            // Built for one record: what is built fastest is best.
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(values.iter().map(|(text, _)| text))
            .ok()?;
        Some(Self { automaton, names: values.iter().map(|(_, name)| *name).collect() })
    }

    /// Appends where they stand in `text`.
    pub(super) fn find(&self, text: &[u8], out: &mut Vec<Finding>) {
        out.extend(self.automaton.find_iter(text).filter_map(|found| {
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
    // One that is made of others would be followed to its end behind each of them, wherever they stand.
    let is_made_of = |text: &[u8], part: &[u8]| {
        2 * part.len() <= text.len() && memmem::find_iter(text, part).take(2).count() == 2
    };
    let stands_alone = |one: &&&(Vec<u8>, Name)| !chosen.iter().any(|(part, _)| is_made_of(&one.0, part));
    chosen.iter().filter(stands_alone).copied().collect()
}

/// The caller's key, when the record repeats it: only then is a look for it worth its time.
pub(super) fn repeated(key: &Secret, content: &Content, facts: &mut Facts) -> Option<Known> {
    let key = Some(key.expose().trim()).filter(|key| is_no_word(key))?.as_bytes();
    let finder = memmem::Finder::new(key);
    let bodies = [&content.request, &content.response, &content.streamed_data];
    let in_a_body = bodies.into_iter().flatten().any(|body| finder.find(body).is_some());
    let is_there =
        in_a_body || labels(facts).iter().any(|(_, label)| finder.find(label.as_bytes()).is_some());
    is_there.then(|| Known::new(&[(key.to_vec(), CALLER_KEY)])).flatten()
}

/// The same for one text.
pub(super) fn repeated_in(key: &Secret, text: &str) -> Option<Known> {
    let key = Some(key.expose().trim()).filter(|key| is_no_word(key) && text.contains(key))?;
    Known::new(&[(key.as_bytes().to_vec(), CALLER_KEY)])
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
