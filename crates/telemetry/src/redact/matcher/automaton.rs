//! Patterns as one automaton, and what it finds.

use std::error::Error as _;
use std::ops::Range;

use regex_automata::hybrid::dfa;
use regex_automata::hybrid::regex::{Cache, Regex};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Input, Match};

use super::Finding;
use crate::redact::check::{self, Verdict};
use crate::redact::patterns::{Check, Class, Name};

/// How often a text may be read, and a little more for short ones. Past it the rest counts as found, unread: text that is
/// made to cost time loses content, not time.
const READINGS: usize = 16;
const SPARE_READING: usize = 8 << 10;
/// Of the automaton's compiled form, in bytes.
const MOST_COMPILED: usize = 16 << 20;
/// Of the states that are built while it runs, per thread, in bytes.
const STATES: usize = 8 << 20;

/// What a text becomes from where the budget was spent.
const UNREAD: Name = Name::builtin("unread", Class::Secret);

/// A pattern, what it finds is called, and what decides whether it is a finding.
pub(super) type Rule<'p> = (Name, Check, &'p str);

pub(super) struct Automaton {
    regex: Regex,
    rules: Vec<(Name, Check)>,
}

impl Automaton {
    /// Of those that match at the same place the first wins.
    pub(super) fn new(rules: &[Rule<'_>]) -> Result<Self, String> {
        let patterns: Vec<&str> = rules.iter().map(|(_, _, pattern)| *pattern).collect();
        let rules = rules.iter().map(|(name, check, _)| (*name, *check)).collect();
        Ok(Self { regex: build(&patterns)?, rules })
    }

    pub(super) fn cache(&self) -> Cache {
        self.regex.create_cache()
    }

    /// Appends what is found from here on; answers with how many bytes it and the checks have read.
    pub(super) fn search(
        &self,
        text: &[u8],
        from: usize,
        cache: &mut Cache,
        out: &mut Vec<Finding>,
    ) -> usize {
        let most = text.len().saturating_mul(READINGS).saturating_add(SPARE_READING);
        let (mut at, mut read) = (from, 0);
        // Where the last password of a URL ends: what looks like an address there is its host.
        let mut host = 0;
        while at <= text.len() {
            let Some(found) = self.next(text, at, cache, &mut read) else { break };
            let Some((name, check)) = self.rules.get(found.pattern().as_usize()).copied() else { break };
            let (span, read_to) = check::widen(check, text, found.range());
            if read > most {
                out.push(Finding { start: span.start, end: text.len(), name: UNREAD });
                break;
            }
            if check == Check::UrlPassword {
                host = span.end;
            }
            let mut accept = |span: Range<usize>| {
                out.push(Finding { start: span.start, end: span.end, name });
                span.end
            };
            let next = match check::judge(check, text, span.clone()) {
                _ if check == Check::Email && found.start() < host => found.end(),
                Verdict::Found(part) => accept(part),
                Verdict::Within(part, next) => {
                    accept(part);
                    next
                }
                Verdict::Reject(next) => next,
            };
            read = read.saturating_add(read_to - span.start);
            at = next.max(found.start() + 1);
        }
        read
    }

    /// The next match from here on. All that the automaton reads for it counts: a pattern that began before the match may
    /// have been followed far beyond it.
    fn next(&self, text: &[u8], at: usize, cache: &mut Cache, read: &mut usize) -> Option<Match> {
        let before = bytes_read(cache);
        let found = self.regex.try_search(cache, &Input::new(text).range(at..));
        let after = bytes_read(cache);
        // The count begins anew when states are thrown away; then it was everything, there and back.
        let everything = 2 * (text.len() - at);
        *read += if before.0 == after.0 { after.1 - before.1 } else { everything };
        found.unwrap_or_else(|_| {
            // Nothing that is built here gives up; were it to, the rest would be unread.
            *read = usize::MAX;
            Some(Match::must(0, at..at))
        })
    }
}

/// How often a cache threw its states away, and what was read since.
fn bytes_read(cache: &Cache) -> (usize, usize) {
    let (forward, reverse) = cache.as_parts();
    (forward.clear_count() + reverse.clear_count(), forward.search_total_len() + reverse.search_total_len())
}

fn syntax() -> syntax::Config {
    // Bytes and ASCII classes: no tables, and no case in which the fast automaton gives up.
    syntax::Config::new().unicode(false).utf8(false)
}

pub(super) fn build(patterns: &[&str]) -> Result<Regex, String> {
    for pattern in patterns {
        syntax::parse_with(pattern, &syntax()).map_err(|error| said(&error.to_string()))?;
    }
    let thompson = thompson::Config::new().utf8(false).nfa_size_limit(Some(MOST_COMPILED));
    let dfa = dfa::Config::new().cache_capacity(STATES);
    let regex = Regex::builder().syntax(syntax()).thompson(thompson).dfa(dfa).build_many(patterns);
    regex.map_err(|error| error.source().map_or_else(|| error.to_string(), ToString::to_string))
}

/// What is wrong with a pattern in one line. The parser draws it: the pattern, indented by 4, a `^` below the place, and
/// `error: …`.
fn said(drawn: &str) -> String {
    let wrong = drawn.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or(drawn);
    let is_mark = |line: &&str| line.trim_matches([' ', '^']).is_empty();
    match drawn.lines().filter(is_mark).find_map(|line| line.find('^')?.checked_sub(3)) {
        Some(place) => format!("{wrong}, at character {place}"),
        None => wrong.to_owned(),
    }
}

/// The length of the shortest text that the pattern matches; `None` when it cannot be read.
pub(super) fn shortest(pattern: &str) -> Option<usize> {
    syntax::parse_with(pattern, &syntax()).ok()?.properties().minimum_len()
}
