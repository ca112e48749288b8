//! Redaction: between assembly and sealing, once per record, so that no exporter, queue or file ever sees what was found.
//!
//! ```text
//! bodies, facts ─ look ─┬─ nothing found: the same bytes, the same allocation
//!                       └─ found: look again for each value everywhere ─ write anew ─ seal
//! ```
//!
//! Traffic is never touched. A JSON document is walked string by string, never built; a stream's events are looked at as
//! the text that they add up to. Whatever goes wrong here costs the record its content and leaves its numbers.
//! `docs/redaction.md` is the user's page.

mod answer;
mod check;
mod checksum;
mod credential;
mod document;
mod hash;
mod known;
mod labels;
mod matcher;
mod numbers;
mod paths;
mod patterns;
mod place;
mod search;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod text;
mod transcript;
mod walk;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use magicapi_plugin::{ContentDropped, Facts, Secret};
use regex_automata::hybrid::regex::Cache;

use self::hash::Replacer;
use self::known::Known;
use self::labels::{Label, forget, labels};
use self::matcher::Matcher;
use self::paths::{Child, Paths};
use self::patterns::Name;
use self::search::{Search, Values};
use self::text::replace_plain;
use self::walk::{Here, Malformed};

pub(crate) use self::labels::UNREAD;
pub use self::patterns::Class;
pub use self::settings::{CustomPattern, Pii, PiiSetting, RedactionError, RedactionSettings, Replace};

/// A record's bodies: JSON documents; `streamed_data` is an array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The caller's request.
    pub request: Option<Bytes>,
    /// The answer, a stream's joined.
    pub response: Option<Bytes>,
    /// The stream's events.
    pub streamed_data: Option<Bytes>,
    /// Which bodies could not be kept as what they are.
    pub described: Described,
}

/// Bodies that are no whole JSON: their documents describe them, `{"content_type", "bytes", "text"?, "parts"?, …}`.
/// Configured paths lead nowhere in them, so what they say is masked whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// The request.
    pub request: bool,
    /// The response.
    pub response: bool,
}

/// How often something was found in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What sort it is.
    pub class: Class,
    /// As in the replacement: `openai_key`, `email`, the name of a custom pattern, `path`.
    pub name: String,
    /// In the request, the response and the labels; of a stream's events only what its joined response lacks.
    pub count: u64,
}

/// What redaction did to a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By class and name, each once.
    pub found: Vec<Found>,
    /// Redaction went wrong: the record lost its content.
    pub failed: bool,
}

/// What a record loses when redaction goes wrong, or there is none.
fn drop_content(content: &mut Content, facts: &mut Facts) {
    *content = Content::default();
    facts.content_dropped = Some(ContentDropped::Redaction);
    facts.error_message = None;
}

/// Without a redactor nothing is let through: no content, no text from outside.
pub(crate) fn refuse(content: &mut Content, facts: &mut Facts) -> Outcome {
    drop_content(content, facts);
    forget(facts);
    Outcome { failed: true, ..Outcome::default() }
}

/// Finds and replaces. Compiled once; shared by all threads.
pub struct Redactor {
    matcher: Matcher,
    paths: Paths,
    replacer: Replacer,
    custom: Vec<String>,
    /// What searches need of their own, kept for the next ones; never more than there are threads.
    caches: Mutex<Vec<Cache>>,
}

/// Shows nothing: its key and the gateway's own secrets are in it.
impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// Compiles the settings.
    pub fn new(settings: &RedactionSettings) -> Result<Self, RedactionError> {
        Ok(Self {
            matcher: Matcher::new(settings)?,
            paths: Paths::parse(&settings.paths)?,
            replacer: Replacer::new(settings)?,
            custom: settings.patterns.iter().map(|pattern| pattern.name.clone()).collect(),
            caches: Mutex::default(),
        })
    }

    /// Redacts a record before it is sealed. When that fails, by an error or a panic, the bodies and the error message
    /// are gone and `content_dropped` says `redaction`; everything that is no content stays.
    pub fn apply(&self, content: &mut Content, facts: &mut Facts) -> Outcome {
        self.apply_knowing(None, content, facts)
    }

    /// The same where one secret of the record is known beforehand: the key that its caller sent along.
    pub fn apply_knowing(
        &self,
        secret: Option<&Secret>,
        content: &mut Content,
        facts: &mut Facts,
    ) -> Outcome {
        let known = secret.and_then(Known::key);
        let outcome = self.guarded(content, facts, |this, content, labels| {
            this.searching(|search| {
                search.known.clone_from(&known);
                this.record(search, content, labels)
            })
        });
        facts.redacted.clear();
        for found in &outcome.found {
            // A pattern of the user's may be called as one of ours.
            *facts.redacted.entry(found.name.clone()).or_default() += found.count;
        }
        outcome
    }

    fn guarded(
        &self,
        content: &mut Content,
        facts: &mut Facts,
        run: impl Fn(&Self, &mut Content, Vec<Label<'_>>) -> Result<Outcome, Malformed>,
    ) -> Outcome {
        if let Ok(Ok(outcome)) = catch_unwind(AssertUnwindSafe(|| run(self, content, labels(facts)))) {
            return outcome;
        }
        drop_content(content, facts);
        // The labels may be what broke it, so they get a try of their own.
        let alone = catch_unwind(AssertUnwindSafe(|| run(self, content, labels(facts))));
        let mut outcome = if let Ok(Ok(outcome)) = alone {
            outcome
        } else {
            forget(facts);
            Outcome::default()
        };
        outcome.failed = true;
        outcome
    }

    /// Lends a search with what it needs of its own. A search that panics takes that along.
    fn searching<T>(&self, run: impl FnOnce(&mut Search<'_>) -> T) -> T {
        let cache = self.caches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut search = Search::new(self, cache.unwrap_or_else(|| self.matcher.cache()));
        let done = run(&mut search);
        self.caches.lock().unwrap_or_else(PoisonError::into_inner).push(search.into_cache());
        done
    }

    fn record(
        &self,
        search: &mut Search<'_>,
        content: &mut Content,
        labels: Vec<Label<'_>>,
    ) -> Result<Outcome, Malformed> {
        let request_root = self.root("request", content.described.request);
        let response_root = self.root("response", content.described.response);
        let mut all = Values::default();
        for (path, label) in &labels {
            self.look_at_label(search, path, label, &mut all);
        }
        if let Some(request) = &content.request {
            document::probe(request, &request_root, search, &mut all)?;
        }
        if let Some(response) = &content.response {
            document::probe(response, &response_root, search, &mut all)?;
        }
        let events = content.streamed_data.as_ref();
        let places = events
            .map(|events| stream::gather(events, &response_root.states, search, &mut all))
            .transpose()?;
        if events.is_some() && self.masks_events(&response_root) {
            all.masked();
        }
        if all.is_empty() {
            return Ok(Outcome::default());
        }
        search.known = Known::new(&all.texts, search.known.take());
        let mut written = Values::default();
        for (path, label) in labels {
            self.write_label(search, path, label, &mut written);
        }
        if let Some(request) = &content.request {
            let new = document::rewrite(request, &request_root, false, search, &mut written)?;
            content.request = Some(new);
        }
        self.answer(search, content, places, &response_root, &mut written)?;
        Ok(self.outcome(&written))
    }

    /// The response and its events, which must agree.
    fn answer(
        &self,
        search: &mut Search<'_>,
        content: &mut Content,
        places: Option<stream::Places>,
        root: &Here,
        written: &mut Values,
    ) -> Result<(), Malformed> {
        let mut in_events = Values::default();
        let mut places = places;
        if let Some(places) = &mut places {
            places.look_again(search, &mut in_events);
        }
        let mut in_response = Values::hiding();
        if let Some(response) = content.response.take() {
            let mut new =
                document::rewrite(&response, root, !in_events.is_empty(), search, &mut in_response)?;
            if in_events.is_empty() && !in_response.is_empty() {
                // Now that something is found, its probabilities must go as well.
                new = document::rewrite(&response, root, true, search, &mut Values::default())?;
            }
            content.response = Some(new);
        }
        if let (Some(events), Some(mut places)) = (content.streamed_data.take(), places) {
            content.streamed_data = if self.paths.end(&root.states) {
                None
            } else if self.masks_events(root) {
                in_events.masked();
                Some(format!("[\"{}\"]", search.replacement(document::PATH, &events)).into())
            } else if places.is_strange
                || places.is_scattered
                || !in_events.cover(&in_response)
                || !places.hide(in_response.hidden())
            {
                Some(stream::take_out(&events, &self.paths)?)
            } else {
                let drop = !in_events.is_empty() || !in_response.is_empty();
                Some(stream::slice(&events, &root.states, &mut places, drop, search)?)
            };
        }
        written.join(&in_response);
        written.join_new_sorts(&in_events);
        Ok(())
    }

    /// Whether a path ends at the events themselves.
    fn masks_events(&self, response: &Here) -> bool {
        self.paths.end(&self.paths.step(&response.states, Child::Name(b"streamed_data")))
    }

    /// Where a body's walk begins.
    fn root(&self, body: &str, described: bool) -> Here {
        let mut states = self.paths.step(&self.paths.root(), Child::Name(body.as_bytes()));
        if described {
            self.paths.add_described(&mut states);
        }
        Here { states, ..Here::default() }
    }

    fn is_masked(&self, path: &[&str]) -> bool {
        self.paths.mask(path)
    }

    fn look_at_label(&self, search: &mut Search<'_>, path: &[&str], label: &str, values: &mut Values) {
        if self.is_masked(path) {
            values.masked();
            return;
        }
        search.plain(label.as_bytes(), None);
        values.note(label.as_bytes(), search.found());
    }

    fn write_label(&self, search: &mut Search<'_>, path: &[&str], label: &mut String, values: &mut Values) {
        if self.is_masked(path) {
            values.masked();
            *label = search.replacement(document::PATH, label.as_bytes());
            return;
        }
        self.look_at_label(search, path, label, values);
        replace_plain(label, &search.spans_of(label.as_bytes(), search.found()));
    }

    fn name(&self, name: Name) -> &str {
        match name {
            Name::Builtin(name, _) => name,
            Name::Custom(at) => self.custom.get(at).map_or("custom", String::as_str),
        }
    }

    fn outcome(&self, values: &Values) -> Outcome {
        let found = values.counts().map(|(name, count)| Found {
            class: name.class(),
            name: self.name(name).to_owned(),
            count,
        });
        Outcome { found: found.collect(), failed: false }
    }
}
