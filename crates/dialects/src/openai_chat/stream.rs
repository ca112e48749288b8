//! Reads a stream of the OpenAI dialect event by event: which events go on, and what they say.
//!
//! The server feeds it every event that `sse::Framer` finds; usage and outcome of the request come from here. It is
//! tolerant (wire-formats 1.2): nothing is required of a chunk. Named-event streams (`/responses`, images, audio) are
//! read too.

use bytes::Bytes;
use magicapi_model::Usage;

use super::error::{self, Members, ProviderError};
use super::usage::Counts;
use crate::json::{Kind, Value};
use crate::sse::{Event, Verdict};

mod chunk;
#[cfg(test)]
pub(crate) mod tests;

use chunk::{Chunk, Step, read_choices, step};

/// More choices than this are not kept apart: memory per stream is bounded.
const MOST_CHOICES: usize = 1024;

/// What one event means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFacts {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Whether the provider made progress: content, tool call, reasoning, finish, usage, error. Comments, empty events,
    /// keep-alives and a chunk that only names the role are none; timers count this alone.
    pub semantic: bool,
    /// Whether the stream is over with it: `[DONE]`, an error, a terminal event of a named dialect.
    pub terminal: bool,
}

/// A choice of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChoiceFacts {
    /// Its index.
    pub index: u64,
    /// Why it ended, once it has.
    pub finish_reason: Option<String>,
}

/// What the stream said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// What it used: the last value of each count, never a sum.
    pub usage: Option<Usage>,
    /// Whether an event that could not be read came after `usage`, and may have carried another.
    pub usage_is_stale: bool,
    /// The first id.
    pub id: Option<String>,
    /// The first model.
    pub model: Option<String>,
    /// The last tier.
    pub service_tier: Option<String>,
    /// The choices in order of appearance.
    pub finish_reasons: Vec<ChoiceFacts>,
    /// Whether `[DONE]` came.
    pub saw_done: bool,
    /// Whether every choice seen so far has finished (at least one), or the closing event of a named dialect came.
    pub saw_finish: bool,
    /// The error that the stream carried.
    pub error: Option<ProviderError>,
    /// Events with JSON in them.
    pub events: u64,
}

impl StreamFacts {
    /// Whether an end of the stream now is a proper one: a terminator or a finish came, and no error.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && (self.saw_done || self.saw_finish)
    }
}

/// Reads the events of one answer.
#[derive(Debug, Default)]
pub struct StreamReader {
    hide_usage: bool,
    over: bool,
    counts: Option<Counts>,
    images: bool,
    /// The choices of the event under way; kept for its memory.
    choices: Vec<ChoiceFacts>,
    facts: StreamFacts,
}

impl StreamReader {
    /// A reader. `asked_usage`: the gateway asked for usage and the caller did not, so the event that carries nothing
    /// else is ours and is dropped.
    pub fn new(asked_usage: bool) -> Self {
        Self { hide_usage: asked_usage, ..Self::default() }
    }

    /// What is known so far.
    pub fn facts(&self) -> &StreamFacts {
        &self.facts
    }

    /// Takes what is known.
    pub fn into_facts(self) -> StreamFacts {
        self.facts
    }

    /// Reads the next event.
    pub fn read(&mut self, event: &Event<'_>) -> EventFacts {
        let data = event.data.trim_ascii();
        if event.unread {
            return self.unread(event);
        }
        if data.is_empty() {
            return self.without_data(event);
        }
        if data == b"[DONE]" {
            let verdict = if self.facts.saw_done { Verdict::Drop } else { Verdict::Forward };
            self.facts.saw_done = true;
            self.over = true;
            return EventFacts { verdict, semantic: true, terminal: true };
        }
        if self.over {
            return EventFacts { verdict: Verdict::Drop, semantic: false, terminal: true };
        }
        let mut chunk = Chunk::default();
        self.choices.clear();
        let choices = &mut self.choices;
        let whole = Value::new(data).read(|cursor| {
            cursor.members(|key, cursor| {
                if key != "choices" {
                    return cursor.value().map(|value| chunk.see(key, value));
                }
                chunk.has_choices = true;
                read_choices(cursor, choices, &mut chunk.progress)
            })
        });
        if whole {
            self.facts.events += 1;
            return self.chunk(event, &chunk);
        }
        if data.starts_with(b"[")
            && let Some(error) = error::read(data)
        {
            self.facts.error = Some(error);
            self.over = true;
            return EventFacts { verdict: Verdict::Forward, semantic: true, terminal: true };
        }
        // No object: text goes on as it came, what the end of the stream cut off does not.
        let verdict = if event.terminated { Verdict::Forward } else { Verdict::Drop };
        EventFacts { verdict, semantic: event.terminated, terminal: false }
    }

    /// A comment goes on. Anything else without data makes clients fail and is dropped, except that a bare JSON error
    /// (no `data:` before it) gets the form in which clients see it.
    fn without_data(&mut self, event: &Event<'_>) -> EventFacts {
        if event.is_comment_only && event.terminated && !self.over {
            return EventFacts { verdict: Verdict::Forward, semantic: false, terminal: false };
        }
        let bare = event.raw.trim_ascii();
        if !self.over
            && bare.starts_with(b"{")
            && let Some(error) = error::read(bare)
        {
            let line = crate::json::one_line(bare);
            let frame = [b"data: ".as_slice(), &line, b"\n\n"].concat();
            self.facts.error = Some(error);
            self.over = true;
            return EventFacts {
                verdict: Verdict::Replace(Bytes::from(frame)),
                semantic: true,
                terminal: true,
            };
        }
        EventFacts { verdict: Verdict::Drop, semantic: false, terminal: self.over }
    }

    /// Of an event that was too large to be read nothing but the name is known.
    fn unread(&mut self, event: &Event<'_>) -> EventFacts {
        self.facts.usage_is_stale = true;
        let step = event.name.map_or(Step::Progress, step);
        self.facts.saw_finish |= matches!(step, Step::Close | Step::End) && event.terminated;
        self.over |= matches!(step, Step::End | Step::Fail) && event.terminated;
        EventFacts { verdict: Verdict::Forward, semantic: true, terminal: self.over }
    }

    fn chunk(&mut self, event: &Event<'_>, chunk: &Chunk<'_>) -> EventFacts {
        let kind = chunk.kind.and_then(Value::inner).or(event.name);
        let named = if chunk.has_choices { None } else { kind.map(step) };
        self.images |= kind.is_some_and(|kind| kind.starts_with(b"image_"));
        let counted = self.take_usage(chunk);
        self.take_names(chunk);
        let failed = self.take_error(chunk, named == Some(Step::Fail));
        let choices = self.take_choices();
        if matches!(named, Some(Step::Close | Step::End)) {
            self.facts.saw_finish = true;
            self.take_status(chunk);
        }
        self.over = failed || matches!(named, Some(Step::End | Step::Fail));
        let ours = self.hide_usage
            && counted
            && choices == 0
            && named.is_none_or(|step| step == Step::Progress)
            && chunk.response.is_none()
            && !failed;
        let other = match named {
            Some(step) => step != Step::Idle,
            None => !chunk.has_choices && chunk.members > 0,
        };
        EventFacts {
            verdict: if ours { Verdict::Drop } else { Verdict::Forward },
            semantic: chunk.progress || counted || failed || other,
            terminal: self.over,
        }
    }

    /// Takes over what was used; tells whether the event carries a usage object.
    fn take_usage(&mut self, chunk: &Chunk<'_>) -> bool {
        let is_object = |value: &Value<'_>| value.kind() == Kind::Object;
        let response = || chunk.response.and_then(|response| response.get("usage"));
        let groq = || chunk.groq.and_then(|groq| groq.get("usage"));
        let usage = chunk.usage.filter(is_object).or_else(|| groq().or_else(response).filter(is_object));
        let Some(usage) = usage else { return false };
        self.facts.usage_is_stale = false;
        if let Some(counts) = Counts::read(usage) {
            let merged = self.counts.get_or_insert_default();
            merged.merge(counts);
            let merged = if self.images { merged.output_is_images() } else { *merged };
            self.facts.usage = Some(merged.usage());
        }
        true
    }

    fn take_names(&mut self, chunk: &Chunk<'_>) {
        let inside = |name: &str| chunk.response.and_then(|response| response.get(name));
        if self.facts.id.is_none() {
            self.facts.id = chunk.id.and_then(Value::some_text).or_else(|| inside("id")?.some_text());
        }
        if self.facts.model.is_none() {
            self.facts.model =
                chunk.model.and_then(Value::some_text).or_else(|| inside("model")?.some_text());
        }
        if let Some(tier) =
            chunk.service_tier.or_else(|| inside("service_tier")).filter(|tier| tier.raw().len() > 2)
        {
            // Every chunk repeats it: decoded only when it is another one.
            let known = self.facts.service_tier.as_deref().map(str::as_bytes);
            if tier.inner().is_some() && tier.inner() != known {
                self.facts.service_tier = tier.some_text();
            }
        }
    }

    /// Takes over an error; tells whether the event carries one.
    fn take_error(&mut self, chunk: &Chunk<'_>, must: bool) -> bool {
        let nested = |value: Option<Value<'_>>| {
            let mut errors = Members::default();
            let found = value.and_then(|value| value.get("error")).filter(|error| error.says_something())?;
            errors.see("error", found);
            errors.named_error()
        };
        let mut found =
            chunk.errors.named_error().or_else(|| nested(chunk.groq)).or_else(|| nested(chunk.response));
        if must && found.is_none() {
            let unnamed = || ProviderError { message: String::new(), kind: None, code: None };
            found = Some(chunk.errors.flat_error().unwrap_or_else(unnamed));
        } else if chunk.is_flat_error() {
            found = found.or_else(|| chunk.errors.flat_error());
        }
        let failed = found.is_some();
        self.facts.error = found.or(self.facts.error.take());
        failed
    }

    /// Takes over the choices of this event; tells how many there are.
    fn take_choices(&mut self) -> usize {
        let mut choices = std::mem::take(&mut self.choices);
        let count = choices.len();
        for choice in choices.drain(..) {
            self.take_choice(choice.index, choice.finish_reason);
        }
        self.choices = choices;
        if count > 0 {
            self.facts.saw_finish =
                self.facts.finish_reasons.iter().all(|choice| choice.finish_reason.is_some());
        }
        count
    }

    /// A response has no choices: why it is incomplete, else its status, stands for the finish reason.
    fn take_status(&mut self, chunk: &Chunk<'_>) {
        let Some(response) = chunk.response else { return };
        let why = response.get("incomplete_details").and_then(|details| details.get("reason")?.some_text());
        let reason = why.or_else(|| response.get("status")?.some_text());
        self.take_choice(0, reason);
    }

    fn take_choice(&mut self, index: u64, reason: Option<String>) {
        let choices = &mut self.facts.finish_reasons;
        let at = choices.iter().position(|choice| choice.index == index).unwrap_or(choices.len());
        match choices.get_mut(at) {
            Some(choice) => choice.finish_reason = reason.or(choice.finish_reason.take()),
            None if at < MOST_CHOICES => choices.push(ChoiceFacts { index, finish_reason: reason }),
            None => {}
        }
    }
}
