//! One record's search: what all its documents share, and what was found in them.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use regex_automata::hybrid::regex::Cache;

use super::Redactor;
use super::document::PATH;
use super::known::Known;
use super::matcher::{Finding, Matcher};
use super::paths::Paths;
use super::patterns::{Class, Name};
use super::text::{Span, unescape};
use super::walk::{Here, Inner, strings};

/// Finds in strings, one at a time; `found` and `text` are about the last one.
pub(super) struct Search<'r> {
    redactor: &'r Redactor,
    cache: Cache,
    /// What the first look found, for the second.
    pub(super) known: Option<Known>,
    decoded: Vec<u8>,
    found: Vec<Finding>,
}

impl<'r> Search<'r> {
    pub(super) fn new(redactor: &'r Redactor, cache: Cache) -> Self {
        Self { redactor, cache, known: None, decoded: Vec::new(), found: Vec::new() }
    }

    /// What later searches can go on with.
    pub(super) fn into_cache(self) -> Cache {
        self.cache
    }

    pub(super) fn paths(&self) -> &'r Paths {
        &self.redactor.paths
    }

    pub(super) fn found(&self) -> &[Finding] {
        &self.found
    }

    /// The text of the string that was looked at last.
    pub(super) fn text<'a>(&'a self, bytes: &'a [u8], inner: &Inner) -> &'a [u8] {
        if inner.escaped { &self.decoded } else { bytes.get(inner.span.clone()).unwrap_or_default() }
    }

    /// Decodes the string, for [`Self::text`].
    pub(super) fn decode(&mut self, bytes: &[u8], inner: &Inner) {
        if inner.escaped {
            self.decoded.clear();
            unescape(bytes.get(inner.span.clone()).unwrap_or_default(), &mut self.decoded);
        }
    }

    /// Looks at a string value.
    pub(super) fn string(&mut self, bytes: &[u8], inner: &Inner, here: &Here) {
        let name = here.secret_name.clone().and_then(|span| bytes.get(span));
        self.look(bytes, inner, name);
    }

    /// Looks at a member's name.
    pub(super) fn key(&mut self, bytes: &[u8], inner: &Inner) {
        self.look(bytes, inner, None);
    }

    fn look(&mut self, bytes: &[u8], inner: &Inner, name: Option<&[u8]>) {
        self.decode(bytes, inner);
        let decoded = std::mem::take(&mut self.decoded);
        let raw = bytes.get(inner.span.clone()).unwrap_or_default();
        self.plain(if inner.escaped { &decoded } else { raw }, name);
        self.decoded = decoded;
    }

    /// Looks at a text, which stands under this name if the name is a secret's.
    pub(super) fn plain(&mut self, text: &[u8], name: Option<&[u8]>) {
        self.found.clear();
        let matcher = &self.redactor.matcher;
        matcher.find(text, self.known.as_ref(), &mut self.cache, &mut self.found);
        if let Some(name) = name {
            Matcher::find_value(name, text, &mut self.found);
        }
    }

    /// Looks at a number.
    pub(super) fn number(&self, token: &[u8]) -> Option<Name> {
        self.redactor.matcher.find_number(token)
    }

    /// The replacements of what was found in the last string.
    pub(super) fn spans(&self, bytes: &[u8], inner: &Inner) -> Vec<Span> {
        self.spans_of(self.text(bytes, inner), &self.found)
    }

    pub(super) fn spans_of(&self, text: &[u8], found: &[Finding]) -> Vec<Span> {
        let span = |finding: &Finding| {
            let with =
                self.replacement(finding.name, text.get(finding.start..finding.end).unwrap_or_default());
            Span { start: finding.start, end: finding.end, with }
        };
        found.iter().map(span).collect()
    }

    pub(super) fn replacement(&self, name: Name, text: &[u8]) -> String {
        self.redactor.replacer.replacement(self.redactor.name(name), text)
    }
}

/// The text of a string, decoded; of any other value its bytes.
pub(super) fn value_text(bytes: &[u8], span: &Range<usize>) -> Vec<u8> {
    let raw = bytes.get(span.clone()).unwrap_or_default();
    match raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")) {
        Some(inner) => {
            let mut text = Vec::with_capacity(inner.len());
            unescape(inner, &mut text);
            text
        }
        None => raw.to_vec(),
    }
}

/// What is kept of the texts that were found in a record, so that it stays small whatever stands in it. The first few
/// hundred are looked for again.
const MOST_TEXTS: usize = 16 << 10;
const MOST_BYTES: usize = 4 << 20;

/// What was found.
#[derive(Default)]
pub(super) struct Values {
    /// Each text once, in the order in which they were found.
    pub(super) texts: Vec<(Vec<u8>, Name)>,
    seen: HashSet<Vec<u8>>,
    /// Bytes of all texts; past [`MOST_BYTES`] no more are kept.
    bytes: usize,
    overflows: bool,
    /// How often each sort was found.
    counts: BTreeMap<(Class, usize, &'static str), u64>,
    /// The strings that stood at configured paths, when that is asked for.
    hidden: Option<Vec<Vec<u8>>>,
}

impl Values {
    /// Keeps what stood at configured paths.
    pub(super) fn hiding() -> Self {
        Self { hidden: Some(Vec::new()), ..Self::default() }
    }

    pub(super) fn hidden(&self) -> &[Vec<u8>] {
        self.hidden.as_deref().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Takes what was found in `text`.
    pub(super) fn note(&mut self, text: &[u8], found: &[Finding]) {
        for finding in found {
            self.add(text.get(finding.start..finding.end).unwrap_or_default(), finding.name);
        }
    }

    pub(super) fn add(&mut self, text: &[u8], name: Name) {
        *self.counts.entry(key(name)).or_default() += 1;
        if !self.seen.contains(text) && self.has_room(text) {
            self.seen.insert(text.to_vec());
            self.texts.push((text.to_vec(), name));
            // Found in JSON inside a string, it stands elsewhere as it is.
            if text.contains(&b'\\') {
                let mut plain = Vec::with_capacity(text.len());
                unescape(text, &mut plain);
                self.texts.push((plain, name));
            }
        }
    }

    fn has_room(&mut self, text: &[u8]) -> bool {
        let has = self.bytes + text.len() <= MOST_BYTES && self.texts.len() < MOST_TEXTS;
        self.bytes += if has { text.len() } else { 0 };
        self.overflows |= !has;
        has
    }

    /// Notes that something stands at a configured path. Its text is not looked for elsewhere.
    pub(super) fn masked(&mut self) {
        *self.counts.entry(key(PATH)).or_default() += 1;
    }

    /// Takes the strings in a value at a configured path.
    pub(super) fn hide(&mut self, value: &[u8]) {
        if let Some(hidden) = &mut self.hidden {
            // What is malformed showed itself when it was crossed.
            let _ = strings(value, 0, |bytes, inner, _| {
                let mut text = Vec::with_capacity(inner.span.len());
                unescape(bytes.get(inner.span.clone()).unwrap_or_default(), &mut text);
                hidden.push(text);
            });
        }
    }

    /// Whether each text of `others` is here, at least as a part.
    pub(super) fn cover(&self, others: &Self) -> bool {
        /// Parts are looked for among so many; past that, content goes rather than time.
        const MOST: usize = 1000;
        !others.overflows
            && others.texts.iter().all(|(text, _)| {
                self.seen.contains(text)
                    || self
                        .texts
                        .iter()
                        .take(MOST)
                        .any(|(mine, _)| memchr::memmem::find(mine, text).is_some())
            })
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (Name, u64)> {
        self.counts.iter().map(|((class, at, name), count)| match class {
            Class::Custom => (Name::Custom(*at), *count),
            _ => (Name::builtin(name, *class), *count),
        })
    }

    /// Takes over everything from `other`.
    pub(super) fn join(&mut self, other: &Self) {
        for (text, name) in &other.texts {
            if !self.seen.contains(text) && self.has_room(text) {
                self.seen.insert(text.clone());
                self.texts.push((text.clone(), *name));
            }
        }
        self.overflows |= other.overflows;
        for (key, count) in &other.counts {
            *self.counts.entry(*key).or_default() += count;
        }
    }

    /// Takes over the sorts that it does not have yet: of a stream, whose answer was counted.
    pub(super) fn join_new_sorts(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            self.counts.entry(*key).or_insert(*count);
        }
    }
}

fn key(name: Name) -> (Class, usize, &'static str) {
    match name {
        Name::Builtin(name, class) => (class, 0, name),
        Name::Custom(at) => (Class::Custom, at, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_TEXTS, PATH, Values};

    #[test]
    fn what_is_kept_of_a_record_is_bounded_and_then_covers_nothing() {
        let (mut many, mut few) = (Values::default(), Values::default());
        for number in 0..MOST_TEXTS + 10 {
            many.add(format!("text {number}").as_bytes(), PATH);
        }
        few.add(b"text 3", PATH);
        assert_eq!(
            (many.texts.len(), many.counts().map(|(_, count)| count).sum()),
            (MOST_TEXTS, MOST_TEXTS as u64 + 10)
        );
        assert!(many.cover(&few) && !few.cover(&many));
        let mut joined = Values::default();
        joined.join(&many);
        assert!(!joined.cover(&joined) && joined.texts.len() == MOST_TEXTS);
        let mut long = Values::default();
        (0..9).for_each(|number| long.add(format!("{number}{}", "x".repeat(1 << 20)).as_bytes(), PATH));
        assert_eq!(long.texts.len(), 3);
    }
}
