//! The printed list of edits to a request (invariant 1): model name, `stream_options`, the provider's renames and drops.
//!
//! Spans are cut or replaced; every other byte stays. A body without edits is the very same `Bytes`.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;

use super::request::{Place, RequestError, RequestFacts};
use crate::json::{self, Kind, write_string};

#[cfg(test)]
mod tests;

/// What a provider's catalogue row says about parameters. Built once per provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParameterRules {
    /// Top-level members to rename: (from, to).
    pub rename: Vec<(String, String)>,
    /// Members to drop: `user`, or below another `messages[].name`, `reasoning.effort`.
    pub drop: Vec<String>,
    /// Top-level members that end the request with an error: (name, reason). One that is `null` is dropped instead.
    pub refuse: Vec<(String, String)>,
}

impl ParameterRules {
    /// Adds a rename.
    pub fn rename(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.rename.push((from.into(), to.into()));
        self
    }

    /// Adds a drop.
    pub fn drop(mut self, path: impl Into<String>) -> Self {
        self.drop.push(path.into());
        self
    }

    /// Adds a refusal.
    pub fn refuse(mut self, name: impl Into<String>, reason: impl Into<String>) -> Self {
        self.refuse.push((name.into(), reason.into()));
        self
    }
}

/// The edits to one request: the provider's rules and what this request needs besides.
#[derive(Clone, Copy, Debug)]
pub struct Edits<'a> {
    rules: &'a ParameterRules,
    model: Option<&'a str>,
    usage: bool,
}

/// A body as it goes to the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The body; the very same `Bytes` when nothing changed.
    pub body: Bytes,
    /// What was edited: `model`, `stream_options`, `rename:seed`, `drop:user`. Empty exactly when the body is the same.
    pub changed: Vec<String>,
    /// What the provider will not see (`x-gateway-params-dropped`): names or paths, each once.
    pub dropped: Vec<String>,
}

impl<'a> Edits<'a> {
    /// The provider's rules alone.
    pub fn new(rules: &'a ParameterRules) -> Self {
        Self { rules, model: None, usage: false }
    }

    /// The model name that the provider knows. A body that has it already is not edited; one without gets it.
    pub fn set_model(mut self, model: &'a str) -> Self {
        self.model = Some(model);
        self
    }

    /// Asks for usage in the stream: `stream_options.include_usage: true`, beside what else stands there. Does nothing
    /// to a request that does not stream or asks itself, or when the rules drop `stream_options` or anything in it.
    pub fn ask_usage(mut self) -> Self {
        self.usage = true;
        self
    }

    /// Whether applying will ask for usage where the caller did not: then the stream's usage event is ours to hide.
    pub fn asks_usage(&self, facts: &RequestFacts) -> bool {
        self.usage
            && facts.stream
            && !facts.include_usage
            && !self.rules.drop.iter().any(|path| path.starts_with("stream_options"))
    }

    /// Edits `body`, from which `facts` were read.
    pub fn apply(&self, body: &Bytes, facts: &RequestFacts) -> Result<Applied, RequestError> {
        if facts.length != body.len() {
            return Err(RequestError::Stale);
        }
        let mut work = Work { body, cuts: Vec::new(), changed: Vec::new(), dropped: Vec::new() };
        let mut gone = vec![false; facts.members.len()];
        self.refuse(&mut work, facts, &mut gone)?;
        self.rename(&mut work, facts, &mut gone);
        self.drop(&mut work, facts, &mut gone)?;
        let mut added = Vec::new();
        self.model(&mut work, facts, &gone, &mut added);
        self.usage(&mut work, facts, &gone, &mut added)?;
        work.add(facts, &gone, &added);
        let places: Vec<&Place> = facts.members.iter().map(|(_, place)| place).collect();
        work.remove(&places, &gone);
        work.finish()
    }

    fn refuse(
        &self,
        work: &mut Work<'_>,
        facts: &RequestFacts,
        gone: &mut [bool],
    ) -> Result<(), RequestError> {
        for (name, reason) in &self.rules.refuse {
            for ((_, place), gone) in named(facts, gone, name) {
                if Kind::of(work.body, &place.value) != Kind::Null {
                    return Err(RequestError::Refused { field: name.clone(), reason: reason.clone() });
                }
                work.note_drop(name);
                *gone = true;
            }
        }
        Ok(())
    }

    fn rename(&self, work: &mut Work<'_>, facts: &RequestFacts, gone: &mut [bool]) {
        for (index, (from, to)) in self.rules.rename.iter().enumerate() {
            let earlier = self.rules.rename.iter().take(index);
            let taken =
                facts.has(to) || earlier.filter(|(_, other)| other == to).any(|(other, _)| facts.has(other));
            for ((_, place), gone) in named(facts, gone, from) {
                if taken {
                    // The caller speaks the provider's own name already: that one counts.
                    work.note_drop(from);
                    *gone = true;
                } else {
                    work.replace(place.key.clone(), quoted(to).into());
                    work.note(format!("rename:{from}"));
                }
            }
        }
    }

    fn drop(&self, work: &mut Work<'_>, facts: &RequestFacts, gone: &mut [bool]) -> Result<(), RequestError> {
        let renamed = |name: &str| self.rules.rename.iter().any(|(from, _)| from == name);
        for ((name, place), gone) in facts.members.iter().zip(gone.iter_mut()).filter(|(_, gone)| !**gone) {
            let below = paths_below(name, self.rules.drop.iter().map(|path| (&**path, &**path)));
            match below {
                Below::Drop(_) if renamed(name) => {}
                Below::Drop(path) => {
                    work.note_drop(path);
                    *gone = true;
                }
                Below::Enter(paths) => work.drop_below(&place.value, &paths)?,
                Below::Keep => {}
            }
        }
        Ok(())
    }

    fn model(&self, work: &mut Work<'_>, facts: &RequestFacts, gone: &[bool], added: &mut Vec<Vec<u8>>) {
        let Some(model) = self.model.filter(|model| facts.model.as_deref() != Some(model)) else { return };
        match kept(facts, gone, "model") {
            Some(place) => work.replace(place.value.clone(), quoted(model).into()),
            None => added.push([b"\"model\":".as_slice(), &quoted(model)].concat()),
        }
        work.note("model".into());
    }

    fn usage(
        &self,
        work: &mut Work<'_>,
        facts: &RequestFacts,
        gone: &[bool],
        added: &mut Vec<Vec<u8>>,
    ) -> Result<(), RequestError> {
        if !self.asks_usage(facts) {
            return Ok(());
        }
        work.note("stream_options".into());
        let Some(place) = kept(facts, gone, "stream_options") else {
            added.push(br#""stream_options":{"include_usage":true}"#.to_vec());
            return Ok(());
        };
        if Kind::of(work.body, &place.value) != Kind::Object {
            work.replace(place.value.clone(), br#"{"include_usage":true}"#.into());
            return Ok(());
        }
        let options = json::members_of(work.body, &place.value)?;
        match (options.iter().find(|option| option.key == "include_usage"), options.last()) {
            (Some(option), _) => work.replace(option.value.clone(), b"true".into()),
            (None, Some(last)) => {
                work.replace(last.value.end..last.value.end, br#","include_usage":true"#.into());
            }
            (None, None) => work.replace(place.value.clone(), br#"{"include_usage":true}"#.into()),
        }
        Ok(())
    }
}

/// The members of that name which are not gone, each with its mark.
fn named<'f>(
    facts: &'f RequestFacts,
    gone: &'f mut [bool],
    name: &'f str,
) -> impl Iterator<Item = (&'f (Box<str>, Place), &'f mut bool)> {
    facts.members.iter().zip(gone).filter(move |((found, _), gone)| &**found == name && !**gone)
}

/// The first member of that name which stays.
fn kept<'f>(facts: &'f RequestFacts, gone: &[bool], name: &str) -> Option<&'f Place> {
    facts
        .members
        .iter()
        .zip(gone)
        .find(|((found, _), gone)| &**found == name && !**gone)
        .map(|((_, place), _)| place)
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

/// A drop path: what is left to go, and the whole of it for the report.
type Path<'p> = (&'p str, &'p str);

/// What drop paths say about one member.
enum Below<'p> {
    Keep,
    Drop(&'p str),
    Enter(Vec<Path<'p>>),
}

/// Which of `paths` end at, or lead through, the member `name`. `a[]` leads through the elements of `a`.
fn paths_below<'p>(name: &str, paths: impl Iterator<Item = Path<'p>>) -> Below<'p> {
    let mut enter = Vec::new();
    for (path, whole) in paths {
        let Some(rest) = path.strip_prefix(name) else { continue };
        match rest.as_bytes().first() {
            None => return Below::Drop(whole),
            Some(b'.' | b'[') => enter.push((rest, whole)),
            Some(_) => {}
        }
    }
    if enter.is_empty() { Below::Keep } else { Below::Enter(enter) }
}

/// The edits under way.
struct Work<'a> {
    body: &'a Bytes,
    cuts: Vec<(Range<usize>, Cow<'static, [u8]>)>,
    changed: Vec<String>,
    dropped: Vec<String>,
}

impl Work<'_> {
    fn note(&mut self, name: String) {
        if !self.changed.contains(&name) {
            self.changed.push(name);
        }
    }

    fn note_drop(&mut self, path: &str) {
        self.note(format!("drop:{path}"));
        if !self.dropped.iter().any(|found| found == path) {
            self.dropped.push(path.to_owned());
        }
    }

    fn replace(&mut self, span: Range<usize>, with: Cow<'static, [u8]>) {
        self.cuts.push((span, with));
    }

    /// Drops what `paths` (each beginning with `.` or `[]`) name inside the value at `span`.
    fn drop_below(&mut self, span: &Range<usize>, paths: &[Path<'_>]) -> Result<(), RequestError> {
        let through = |prefix: &str| -> Vec<Path<'_>> {
            paths.iter().filter_map(|(path, whole)| Some((path.strip_prefix(prefix)?, *whole))).collect()
        };
        match Kind::of(self.body, span) {
            Kind::Array => {
                let inner = through("[]");
                if !inner.is_empty() {
                    for element in json::elements_of(self.body, span)? {
                        self.drop_below(&element, &inner)?;
                    }
                }
                Ok(())
            }
            Kind::Object => self.drop_members(span, &through(".")),
            _ => Ok(()),
        }
    }

    fn drop_members(&mut self, span: &Range<usize>, paths: &[Path<'_>]) -> Result<(), RequestError> {
        if paths.is_empty() {
            return Ok(());
        }
        let members = json::members_of(self.body, span)?;
        let places: Vec<Place> = members.iter().map(Place::from).collect();
        let mut gone = vec![false; places.len()];
        for ((member, place), gone) in members.iter().zip(&places).zip(&mut gone) {
            match paths_below(&member.key, paths.iter().copied()) {
                Below::Keep => {}
                Below::Drop(path) => {
                    self.note_drop(path);
                    *gone = true;
                }
                Below::Enter(paths) => self.drop_below(&place.value, &paths)?,
            }
        }
        self.remove(&places.iter().collect::<Vec<_>>(), &gone);
        Ok(())
    }

    /// Cuts the members that are gone, each with the comma that stood before it, or behind it when it led.
    fn remove(&mut self, places: &[&Place], gone: &[bool]) {
        let mut before: Option<&Place> = None;
        let mut kept_any = false;
        for (index, (place, gone)) in places.iter().zip(gone).enumerate() {
            if *gone {
                let span = match (before, places.get(index + 1)) {
                    (Some(previous), _) if kept_any => previous.value.end..place.value.end,
                    (_, Some(next)) => place.key.start..next.key.start,
                    (_, None) => place.key.start..place.value.end,
                };
                self.replace(span, Cow::Borrowed(b""));
            }
            kept_any |= !gone;
            before = Some(place);
        }
    }

    /// Adds members behind the last one.
    fn add(&mut self, facts: &RequestFacts, gone: &[bool], added: &[Vec<u8>]) {
        if added.is_empty() {
            return;
        }
        let mut text = added.join(&b","[..]);
        if gone.iter().any(|gone| !gone) {
            text.insert(0, b',');
        }
        let at = facts.members.last().map_or(facts.inside, |(_, place)| place.value.end);
        self.replace(at..at, text.into());
    }

    /// Writes the body with its cuts and replacements, which do not overlap once those inside a cut are left out.
    fn finish(mut self) -> Result<Applied, RequestError> {
        if self.cuts.is_empty() {
            return Ok(Applied { body: self.body.clone(), changed: self.changed, dropped: self.dropped });
        }
        // An insertion at the end of a cut comes behind it: order by start, then by end.
        self.cuts.sort_by_key(|(span, _)| (span.start, span.end));
        let extra: usize = self.cuts.iter().map(|(_, with)| with.len()).sum();
        let mut out = Vec::with_capacity(self.body.len() + extra);
        let mut at = 0;
        for (span, with) in &self.cuts {
            if span.start < at {
                continue;
            }
            out.extend_from_slice(self.body.get(at..span.start).ok_or(RequestError::Stale)?);
            out.extend_from_slice(with);
            at = span.end;
        }
        out.extend_from_slice(self.body.get(at..).ok_or(RequestError::Stale)?);
        Ok(Applied { body: out.into(), changed: self.changed, dropped: self.dropped })
    }
}
