//! JSON paths that name what is masked whole: a subset of RFC 9535 that is matched along the walk, without a tree.
//!
//! `$` the record's attributes · `.name` `['name']` a member · `[3]` an element · `.*` `[*]` any member or element ·
//! `..name` `..*` at any depth. No slices, filters, negative indexes or unions.

use super::labels::places;
use super::settings::RedactionError;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
    Any,
    /// What follows it stands at any depth.
    Deep,
}

/// All configured paths, and three more for what they cannot lead into: the texts of a description, and all of an event.
#[derive(Debug, Default)]
pub(super) struct Paths {
    all: Vec<Vec<Step>>,
    configured: usize,
}

/// Where in the paths a place of the document is: path and step. Without paths it is always empty, and nothing is
/// allocated.
pub(super) type States = Vec<(usize, usize)>;

/// What an array element or an object member is called.
#[derive(Clone, Copy)]
pub(super) enum Child<'a> {
    Name(&'a [u8]),
    Index(usize),
}

impl Step {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            _ => None,
        }
    }

    fn matches(&self, child: Child<'_>) -> bool {
        match (self, child) {
            (Self::Any, _) => true,
            (Self::Name(name), Child::Name(child)) => name.as_bytes() == child,
            (Self::Index(index), Child::Index(child)) => *index == child,
            _ => false,
        }
    }
}

impl Paths {
    /// Reads the paths of `telemetry.redact.paths`. What is not of the subset is an error that names the path.
    pub(super) fn parse(paths: &[String]) -> Result<Self, RedactionError> {
        let parsed = paths.iter().enumerate().map(|(at, path)| {
            let wrong = |reason| RedactionError::new(format!("paths[{at}]"), format!("`{path}` {reason}"));
            parse(path).and_then(lead_somewhere).map_err(wrong)
        });
        let all = parsed.collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(all))
    }

    fn of(mut all: Vec<Vec<Step>>) -> Self {
        let configured = all.len();
        let name = |name: &str| Step::Name(name.to_owned());
        all.extend([vec![name("text")], vec![name("parts"), Step::Any, name("text")], Vec::new()]);
        Self { all, configured }
    }

    /// Before the first step: `$`.
    pub(super) fn root(&self) -> States {
        (0..self.configured).map(|path| (path, 0)).collect()
    }

    /// At the root of a body that is described: when any path leads into the body, its texts are masked.
    pub(super) fn add_described(&self, states: &mut States) {
        if !states.is_empty() {
            states.extend([(self.configured, 0), (self.configured + 1, 0)]);
        }
    }

    /// At an event that could not be read and stands there as a string: when any path leads into it, it is masked.
    pub(super) fn add_unread(&self, states: &mut States) {
        if !states.is_empty() {
            states.push((self.configured + 2, 0));
        }
    }

    /// One step down.
    pub(super) fn step(&self, states: &States, child: Child<'_>) -> States {
        let mut next = States::new();
        for (path, at) in states {
            let Some(steps) = self.all.get(*path) else { continue };
            match steps.get(*at) {
                Some(Step::Deep) => {
                    next.push((*path, *at));
                    if steps.get(at + 1).is_some_and(|step| step.matches(child)) {
                        next.push((*path, at + 2));
                    }
                }
                Some(step) if step.matches(child) => next.push((*path, at + 1)),
                _ => {}
            }
        }
        next
    }

    /// One step down, where what stands below a path's end is masked as well.
    pub(super) fn below(&self, states: &States, child: Child<'_>) -> States {
        let mut next = self.step(states, child);
        if self.end(states) {
            next.push((self.configured + 2, 0));
        }
        next
    }

    /// Whether a path ends at this member of the record, or above it.
    pub(super) fn mask(&self, place: &[&str]) -> bool {
        let mut states = self.root();
        place.iter().any(|name| {
            states = self.step(&states, Child::Name(name.as_bytes()));
            self.end(&states)
        })
    }

    /// Whether a path ends here.
    pub(super) fn end(&self, states: &States) -> bool {
        states.iter().any(|(path, at)| self.all.get(*path).is_some_and(|steps| steps.len() == *at))
    }
}

/// The members of a record's attributes that are bodies; all others that can be masked are labels.
const BODIES: [&str; 2] = ["request", "response"];

/// The members of a record's attributes at which a path may begin.
fn roots() -> Vec<&'static str> {
    let mut roots = BODIES.to_vec();
    roots.extend(places().into_iter().filter_map(<[_]>::first));
    roots.dedup();
    roots
}

/// Refuses a path that no label of any record stands at.
fn lead_somewhere(steps: Vec<Step>) -> Result<Vec<Step>, String> {
    let names = || steps.iter().filter_map(Step::name);
    if !matches!(steps.first(), Some(Step::Name(name)) if !BODIES.contains(&name.as_str())) {
        return Ok(steps);
    }
    let path = Paths::of(vec![steps.clone()]);
    let places = places();
    if places.iter().any(|place| path.mask(place)) {
        return Ok(steps);
    }
    // One that it leads beyond; else the one that is called most like it.
    let beyond = places.iter().find(|place| names().take(place.len()).eq(place.iter().copied()));
    let last = names().next_back().unwrap_or_default();
    let slips = |place: &&&[&str]| place.last().map_or(usize::MAX, |name| distance(name, last));
    let nearest = beyond.or_else(|| places.iter().min_by_key(slips));
    let nearest = nearest.map_or_else(String::new, |place| place.join("."));
    Err(format!("masks nothing: no record has a text there; the nearest is `$.{nearest}`"))
}

/// How many letters must be put in, taken out or changed.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, byte) in one.bytes().enumerate() {
        let mut before = at;
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
        let mut left = at + 1;
        for (cell, theirs) in row.iter_mut().skip(1).zip(other.bytes()) {
            left = (left + 1).min(*cell + 1).min(before + usize::from(byte != theirs));
            before = std::mem::replace(cell, left);
        }
    }
    row.last().copied().unwrap_or_default()
}

fn parse(path: &str) -> Result<Vec<Step>, String> {
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    if rest.len() == path.len() && !path.starts_with("..") {
        return Err("must begin with `$` or `..`".into());
    }
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Deep);
            if after.starts_with('[') { bracket(after)? } else { name(after)? }
        } else if let Some(after) = rest.strip_prefix('.') {
            name(after)?
        } else {
            bracket(rest)?
        };
        steps.push(step);
        rest = after;
    }
    match steps.first() {
        None => Err("names everything; name a member, such as `$.request.messages`".into()),
        Some(Step::Name(name)) if !roots().contains(&name.as_str()) => Err(format!(
            "begins at `{name}`, which no record has; begin at one of {}, or with `..`",
            roots().join(", ")
        )),
        Some(Step::Index(_) | Step::Any) => Err("must name a member of the record first".into()),
        Some(_) => Ok(steps),
    }
}

fn name(rest: &str) -> Result<(Step, &str), String> {
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    match name {
        "" => Err("lacks a name after a dot".into()),
        "*" => Ok((Step::Any, after)),
        _ if name.contains(['*', ']', '\'', '"']) => {
            Err(format!("has the unreadable name `{name}`; quote it: ['…']"))
        }
        _ => Ok((Step::Name(name.to_owned()), after)),
    }
}

fn bracket(rest: &str) -> Result<(Step, &str), String> {
    let unreadable = || "needs `.name`, `['name']`, `[3]` or `[*]` at each step".to_owned();
    let inside = rest.strip_prefix('[').ok_or_else(unreadable)?;
    for quote in ["'", "\""] {
        if let Some(quoted) = inside.strip_prefix(quote) {
            let (name, after) = quoted.split_once(&format!("{quote}]")).ok_or_else(unreadable)?;
            return Ok((Step::Name(name.to_owned()), after));
        }
    }
    let (index, after) = inside.split_once(']').ok_or_else(unreadable)?;
    if index == "*" {
        return Ok((Step::Any, after));
    }
    Ok((Step::Index(index.parse().map_err(|_| unreadable())?), after))
}

#[cfg(test)]
mod tests {
    use super::{Child, Paths};

    fn hits(path: &str, place: &str) -> bool {
        let paths = Paths::parse(&[path.to_owned()]).expect("a path");
        let mut states = paths.root();
        for step in place.split('.') {
            let child = step.parse().map_or(Child::Name(step.as_bytes()), Child::Index);
            states = paths.step(&states, child);
        }
        paths.end(&states)
    }

    #[test]
    fn paths_find_their_places() {
        for (path, place, expected) in [
            ("$.request.user", "request.user", true),
            ("$.request.user", "request.user.name", false),
            ("$.request.user", "response.user", false),
            ("$.request.messages[*].content", "request.messages.3.content", true),
            ("$.request.messages[1].content", "request.messages.3.content", false),
            ("$['request']['a.b']", "request.a", false),
            ("$.request.*", "request.user", true),
            ("..metadata.email", "request.metadata.email", true),
            ("..metadata.email", "request.a.0.metadata.email", true),
            ("..metadata.email", "request.metadata.a.email", false),
            ("$.response..text", "response.output.0.content.2.text", true),
            ("$..[0]", "request.input.0", true),
            ("$.user_id", "user_id", true),
            ("$.model", "model", true),
            ("$.metadata.*", "metadata.error_message", true),
            ("$.metadata..path", "metadata.path", true),
        ] {
            assert_eq!(hits(path, place), expected, "{path} at {place}");
        }
    }

    #[test]
    fn what_is_no_path_says_so() {
        for (path, said) in [
            ("request.user", "must begin with"),
            ("$", "names everything"),
            ("$.reqest.user", "begins at `reqest`"),
            ("$.request[1:2]", "at each step"),
            ("$.request[-1]", "at each step"),
            ("$.request.", "lacks a name"),
            ("$[*]", "must name a member"),
            ("$.metadata.projct_name", "nearest is `$.metadata.project_name`"),
            ("$.metadata.project_id", "nearest is `$.project_id`"),
            ("$.metadata.finish_reasons[0]", "nearest is `$.metadata.finish_reasons`"),
            ("$.user_id.name", "nearest is `$.user_id`"),
            ("$.model..name", "nearest is `$.model`"),
            ("$.metadata.key_name", "masks nothing"),
        ] {
            let error = Paths::parse(&[path.to_owned()]).expect_err(path).to_string();
            assert!(error.contains(said) && error.contains(path), "{error}");
        }
    }
}
