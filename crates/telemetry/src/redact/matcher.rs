//! One automaton for all patterns, and what it finds in a text.

mod automaton;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use regex_automata::hybrid::regex::Cache;

use self::automaton::{Automaton, Rule, build, shortest};
use super::credential::secret_in;
use super::known::{self, Known};
use super::numbers::{self, Wanted};
use super::patterns::{Check, Class, EMAIL, IBAN, IPV6, NATIONAL, Name, Pattern, SECRETS};
use super::settings::{CustomPattern, Pii, RedactionError, RedactionSettings};
use super::text::is_base64;

const OWN: Name = Name::builtin("configured_secret", Class::Secret);

/// Where something was found in a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) name: Name,
}

/// Finds; shared by all threads. What a search needs of its own is its [`Cache`].
pub(super) struct Matcher {
    all: Automaton,
    /// All but the custom patterns, when there are any.
    builtin: Option<Builtin>,
    /// Nothing is found in a shorter text.
    shortest: usize,
    wanted: Wanted,
}

struct Builtin {
    automaton: Automaton,
    /// Kept for the next searches; never more than there are threads.
    caches: Mutex<Vec<Cache>>,
}

impl Matcher {
    pub(super) fn new(settings: &RedactionSettings) -> Result<Self, RedactionError> {
        let wanted = Wanted::of(|kind| settings.pii.has(kind));
        let own = known::literals(&settings.own);
        let own: Vec<Rule<'_>> = own.iter().map(|text| (OWN, Check::Any, text.as_str())).collect();
        let mut custom: Vec<Rule<'_>> = Vec::new();
        for (at, pattern) in settings.patterns.iter().enumerate() {
            check_custom(at, pattern, &settings.patterns)?;
            custom.push((Name::Custom(at), Check::Any, &pattern.regex));
        }
        let rows = rows(settings);
        let automaton = |rules: &[Rule<'_>]| {
            let too_large = |error| format!("are too large together ({error}); simplify or remove some");
            Automaton::new(rules).map_err(|error| RedactionError::new("patterns", too_large(error)))
        };
        let builtin = if custom.is_empty() {
            None
        } else {
            let automaton = automaton(&[own.as_slice(), &rows].concat())?;
            Some(Builtin { automaton, caches: Mutex::default() })
        };
        let all = [own, custom, rows].concat();
        let number = wanted.any().then_some(numbers::SHORTEST);
        let lengths = all.iter().filter_map(|(_, _, pattern)| shortest(pattern)).chain(number);
        let shortest = lengths.min().unwrap_or(0);
        Ok(Self { all: automaton(&all)?, builtin, shortest, wanted })
    }

    pub(super) fn cache(&self) -> Cache {
        self.all.cache()
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
        let begin = out.len();
        let read = self.all.search(text, 0, cache, out);
        let is_custom = |finding: &&Finding| matches!(finding.name, Name::Custom(_));
        let custom = out.get(begin..).unwrap_or_default().iter().find(is_custom);
        let (Some(custom), Some(builtin)) = (custom, &self.builtin) else { return read };
        // What a custom pattern matches may be the name without which a secret is none.
        let mut hidden = Vec::new();
        let read = read.saturating_add(builtin.search(text, custom.start, &mut hidden));
        // First: what is found at the same place later gives the name.
        out.splice(begin..begin, hidden);
        read
    }
}

impl Builtin {
    fn search(&self, text: &[u8], from: usize, out: &mut Vec<Finding>) -> usize {
        let caches = || self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = caches().pop();
        let mut cache = kept.unwrap_or_else(|| self.automaton.cache());
        let read = self.automaton.search(text, from, &mut cache, out);
        caches().push(cache);
        read
    }
}

/// The table's rows that these settings ask for.
fn rows(settings: &RedactionSettings) -> Vec<Rule<'static>> {
    const ASKED_FOR: [(Pii, &[Pattern]); 4] =
        [(Pii::NationalId, NATIONAL), (Pii::Iban, &[IBAN]), (Pii::Ip, &[IPV6]), (Pii::Email, &[EMAIL])];
    let of = |rows: &'static [Pattern], class| {
        rows.iter().map(move |row| (Name::builtin(row.name, class), row.check, row.regex))
    };
    let asked = ASKED_FOR.into_iter().filter(|(kind, _)| settings.pii.has(*kind));
    of(SECRETS, Class::Secret).chain(asked.flat_map(|(_, rows)| of(rows, Class::Pii))).collect()
}

/// Sorts, joins what overlaps, and widens to whole characters. Of two findings that begin at the same place the later is
/// the more special, a token that was found as some variable's value before, or the user's own.
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
                let is_own = matches!(finding.name, Name::Custom(_));
                if finding.start == last.start && (is_own || finding.end + 2 >= last.end) {
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
