//! One automaton for all patterns, and what it finds in a text.

use std::error::Error as _;
use std::ops::Range;

use regex_automata::hybrid::dfa;
use regex_automata::hybrid::regex::{Cache, Regex};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Input, Match};

use super::check::{self, Verdict};
use super::credential::secret_in;
use super::known::{self, Known};
use super::numbers::{self, Wanted};
use super::patterns::{Check, Class, EMAIL, IBAN, IPV6, NATIONAL, Name, Pattern, SECRETS};
use super::settings::{CustomPattern, Pii, RedactionError, RedactionSettings};
use super::text::is_base64;

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

/// Where something was found in a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) name: Name,
}

/// Finds; shared by all threads. What a search needs of its own is its [`Cache`].
pub(super) struct Matcher {
    regex: Regex,
    rules: Vec<(Name, Check)>,
    /// Nothing is found in a shorter text.
    shortest: usize,
    wanted: Wanted,
}

impl Matcher {
    pub(super) fn new(settings: &RedactionSettings) -> Result<Self, RedactionError> {
        let has = |kind| settings.pii.has(kind);
        let wanted = Wanted::of(has);
        let mut rules = Vec::new();
        let mut patterns = Vec::new();
        let own = known::literals(&settings.own);
        for text in &own {
            rules.push((Name::builtin("configured_secret", Class::Secret), Check::Any));
            patterns.push(text.as_str());
        }
        for (at, custom) in settings.patterns.iter().enumerate() {
            check_custom(at, custom, &settings.patterns)?;
            rules.push((Name::Custom(at), Check::Any));
            patterns.push(custom.regex.as_str());
        }
        let mut add = |rows: &[Pattern], class| {
            for row in rows {
                rules.push((Name::builtin(row.name, class), row.check));
                patterns.push(row.regex);
            }
        };
        add(SECRETS, Class::Secret);
        for (kind, rows) in
            [(Pii::NationalId, NATIONAL), (Pii::Iban, &[IBAN]), (Pii::Ip, &[IPV6]), (Pii::Email, &[EMAIL])]
        {
            if has(kind) {
                add(rows, Class::Pii);
            }
        }
        let number = wanted.any().then_some(numbers::SHORTEST);
        let lengths = patterns.iter().filter_map(|pattern| shortest(pattern)).chain(number);
        let shortest = lengths.min().unwrap_or(0);
        let regex = build(&patterns).map_err(|error| {
            RedactionError::new(
                "patterns",
                format!("are too large together ({error}); simplify or remove some"),
            )
        })?;
        Ok(Self { regex, rules, shortest, wanted })
    }

    pub(super) fn cache(&self) -> Cache {
        self.regex.create_cache()
    }

    /// Whether a text is too short for any pattern.
    pub(super) fn holds_nothing(&self, text: &[u8]) -> bool {
        text.len() < self.shortest
    }

    /// Appends what is found in `text` to `out`: in order, without overlaps, at borders of characters.
    pub(super) fn find(&self, text: &[u8], known: Option<&Known>, cache: &mut Cache, out: &mut Vec<Finding>) {
        let known = known.filter(|known| !known.hold_nothing(text));
        if (self.holds_nothing(text) && known.is_none()) || is_base64(text) {
            return;
        }
        let begin = out.len();
        if self.wanted.any() {
            // First: what is found at the same place later is the more special.
            let mut number =
                |span: Range<usize>, name| out.push(Finding { start: span.start, end: span.end, name });
            numbers::find(text, self.wanted, &mut number);
        }
        let _ = self.search(text, cache, out);
        if let Some(known) = known {
            known.find(text, out);
        }
        if out.len() > begin {
            let mut found = out.split_off(begin);
            tidy(text, &mut found);
            out.append(&mut found);
        }
    }

    /// The text of a member whose name says that it holds a secret.
    pub(super) fn find_value(name: &[u8], text: &[u8], out: &mut Vec<Finding>) {
        if let Some(secret) = secret_in(name, text) {
            let name = Name::builtin("credential", Class::Secret);
            // First, so that what has a form of its own keeps its name.
            out.insert(0, Finding { start: secret.start, end: secret.end, name });
            tidy(text, out);
        }
    }

    /// A JSON number that is personal data.
    pub(super) fn find_number(&self, token: &[u8]) -> Option<Name> {
        if token.len() < 11 || !self.wanted.any() { None } else { numbers::judge_integer(token, self.wanted) }
    }

    /// Runs the automaton; answers with how many bytes it and the checks have read.
    pub(super) fn search(&self, text: &[u8], cache: &mut Cache, out: &mut Vec<Finding>) -> usize {
        let most = text.len().saturating_mul(READINGS).saturating_add(SPARE_READING);
        let (mut at, mut read) = (0, 0);
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

/// Sorts, joins what overlaps, and widens to whole characters. Of two findings that begin at the same place the later is
/// the more special: a token that was found as some variable's value before.
pub(super) fn tidy(text: &[u8], found: &mut Vec<Finding>) {
    found.sort_by_key(|finding| finding.start);
    let mut joined: Vec<Finding> = Vec::with_capacity(found.len());
    for mut finding in found.drain(..).filter(|finding| finding.start < finding.end) {
        while finding.start > 0 && is_inside_character(text, finding.start) {
            finding.start -= 1;
        }
        while is_inside_character(text, finding.end) {
            finding.end += 1;
        }
        match joined.last_mut().filter(|last| finding.start < last.end) {
            Some(last) => {
                if finding.start == last.start && finding.end + 2 >= last.end {
                    last.name = finding.name;
                }
                last.end = last.end.max(finding.end);
            }
            None => joined.push(finding),
        }
    }
    *found = joined;
}

fn is_inside_character(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(|byte| (byte & 0xc0) == 0x80)
}

fn syntax() -> syntax::Config {
    // Bytes and ASCII classes: no tables, and no case in which the fast automaton gives up.
    syntax::Config::new().unicode(false).utf8(false)
}

fn build(patterns: &[&str]) -> Result<Regex, String> {
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
fn shortest(pattern: &str) -> Option<usize> {
    syntax::parse_with(pattern, &syntax()).ok()?.properties().minimum_len()
}

fn check_custom(at: usize, custom: &CustomPattern, all: &[CustomPattern]) -> Result<(), RedactionError> {
    const LONGEST_NAME: usize = 64;
    let wrong = |key: &str, reason: String| Err(RedactionError::new(format!("patterns[{at}].{key}"), reason));
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let name = &custom.name;
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(good) {
        return wrong(
            "name",
            format!("`{name}` is no name; give 1 to {LONGEST_NAME} letters, digits, `_` or `-`"),
        );
    }
    if all.iter().take(at).any(|other| other.name == *name) {
        return wrong("name", format!("the name `{name}` is given twice; choose another"));
    }
    if let Err(error) = build(&[&custom.regex]) {
        return wrong(
            "regex",
            format!("no regular expression: {error}; look-around and back-references are not known"),
        );
    }
    if shortest(&custom.regex) == Some(0) {
        return wrong("regex", "can match the empty text; make it match at least one character".into());
    }
    Ok(())
}
