//! The streamed response of the record (design section 2), joined from a stream's events.
//!
//! Runs on a telemetry thread, fed with every JSON event as the provider sent it:
//! `{id, model, choices: [{index, delta: {…joined…}, finish_reason, logprobs}], usage, …, streamed_data: [every event]}`.
//! A dialect without choices has its own final object (the `response` of `/responses`, the `*.completed` event of
//! images) with `streamed_data` added.

mod node;
#[cfg(test)]
mod tests;

use node::{Budget, Fields, Node};

use crate::json::{self, Kind, Value, write_string};

/// More choices than this are left out.
const MOST_CHOICES: usize = 1024;

/// Padding that differs in every chunk and means nothing.
const PADDING: [&str; 2] = ["obfuscation", "nonce"];

/// What a joined response may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whether the events themselves are kept. Without them the member `streamed_data` is absent.
    pub streamed_data: bool,
    /// Most bytes of events.
    pub max_chunks: usize,
    /// Most bytes of the joined response without its events.
    pub max_response: usize,
}

impl Default for Limits {
    /// The defaults of `telemetry.capture`: everything, up to 16 MiB each.
    fn default() -> Self {
        Self { streamed_data: true, max_chunks: 16 << 20, max_response: 16 << 20 }
    }
}

/// Bytes that a limit left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Of the joined response.
    pub response: u64,
    /// Of the events.
    pub streamed_data: u64,
}

/// A joined response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// The response without its events: one JSON object, on one line.
    pub response: Vec<u8>,
    /// The events, a JSON array on one line, which stands in the record as the response's last member
    /// `streamed_data`; `None` when they were not asked for.
    pub streamed_data: Option<Vec<u8>>,
    /// What is missing from it.
    pub left_out: LeftOut,
}

#[derive(Debug, Default)]
struct Choice {
    index: u64,
    delta: Fields,
    /// `/completions`; kept as the member `text`.
    text: Fields,
    finish_reason: Fields,
    logprobs: Fields,
    extra: Fields,
}

/// A response under construction.
#[derive(Debug)]
pub struct Join {
    limits: Limits,
    id: Fields,
    usage: Option<Vec<u8>>,
    groq_usage: Option<Vec<u8>>,
    extra: Fields,
    choices: Vec<Choice>,
    /// Whether any event had `choices`.
    has_choices: bool,
    /// The last `response`, or the closing event, of a dialect without choices.
    object: Option<Vec<u8>>,
    response: Budget,
    chunks: Vec<u8>,
    chunk_budget: Budget,
}

impl Join {
    /// A response without events yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            id: Fields::default(),
            usage: None,
            groq_usage: None,
            extra: Fields::default(),
            choices: Vec::new(),
            has_choices: false,
            object: None,
            response: Budget::new(limits.max_response),
            chunks: Vec::new(),
            chunk_budget: Budget::new(limits.max_chunks),
        }
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        let response = self.limits.max_response.saturating_sub(self.response.left());
        self.chunks.capacity() + response
    }

    /// Takes the data of the next event, `[DONE]` excepted. What is no JSON that can be read is kept as a string, and
    /// adds nothing to the response.
    pub fn push(&mut self, event_data: &[u8]) {
        let data = event_data.trim_ascii();
        if data.is_empty() || data == b"[DONE]" {
            return;
        }
        if !json::valid(data) {
            let mut text = Vec::with_capacity(data.len() + 2);
            write_string(&mut text, &String::from_utf8_lossy(data));
            return self.keep_event(&text);
        }
        let line = json::one_line(data);
        self.keep_event(&line);
        let event = Value::new(&line);
        let (mut kind, mut has_choices) = (None, false);
        let (mut message, mut code) = (false, false);
        event.each_member(|key, value| match key {
            "type" => kind = value.inner(),
            "choices" => has_choices = true,
            "message" => message = true,
            "code" => code = true,
            _ => {}
        });
        self.has_choices |= has_choices;
        if message && code && !has_choices {
            // Cerebras and old vLLM: the event is the error itself.
            return self.extra.keep_first("error", event, &mut self.response);
        }
        // Members of a named event describe the event, not the answer.
        let named = kind.is_some() && !has_choices;
        event.each_member(|key, value| {
            if !named || matches!(key, "response" | "usage" | "error") {
                self.member(key, value);
            }
        });
        let closes = |kind: &[u8]| kind.ends_with(b".completed") || kind.ends_with(b".done");
        if named && kind.is_some_and(closes) && event.get("response").is_none() && !self.has_response() {
            self.keep_object(event);
        }
    }

    fn keep_event(&mut self, line: &[u8]) {
        if self.limits.streamed_data && self.chunk_budget.take(line.len() + 1) {
            if !self.chunks.is_empty() {
                self.chunks.push(b',');
            }
            self.chunks.extend_from_slice(line);
        }
    }

    /// Whether what is kept as the object is a `response`, which the closing events of its parts do not replace.
    fn has_response(&self) -> bool {
        self.object.as_deref().is_some_and(|object| Value::new(object).get("object").is_some())
    }

    fn keep_object(&mut self, object: Value<'_>) {
        let held = self.object.as_ref().map_or(0, Vec::len);
        let more = object.raw().len().saturating_sub(held);
        if more == 0 || self.response.take(more) {
            self.object = Some(object.raw().to_vec());
        }
    }

    fn member(&mut self, key: &str, value: Value<'_>) {
        match key {
            "choices" => {
                let mut position = 0;
                value.each_element(|choice| {
                    self.choice(choice, position);
                    position += 1;
                });
            }
            "id" | "model" => self.id.keep_first(key, value, &mut self.response),
            "usage" if value.kind() != Kind::Null => keep_usage(&mut self.usage, value),
            "usage" => {}
            "x_groq" => {
                if let Some(usage) = value.get("usage").filter(|usage| usage.kind() != Kind::Null) {
                    keep_usage(&mut self.groq_usage, usage);
                }
                self.extra.keep_first(key, value, &mut self.response);
            }
            "response" if value.kind() == Kind::Object => self.keep_object(value),
            "service_tier" => self.extra.keep_last(key, value, &mut self.response),
            _ if PADDING.contains(&key) => {}
            _ => self.extra.keep_first(key, value, &mut self.response),
        }
    }

    fn choice(&mut self, choice: Value<'_>, position: u64) {
        let index = choice.get("index").and_then(Value::count).unwrap_or(position);
        let at = self.choices.iter().position(|known| known.index == index).unwrap_or(self.choices.len());
        if at == self.choices.len() {
            if at >= MOST_CHOICES {
                self.response.take(choice.raw().len());
                return;
            }
            self.choices.push(Choice { index, ..Choice::default() });
        }
        let Some(known) = self.choices.get_mut(at) else { return };
        let budget = &mut self.response;
        choice.each_member(|key, value| match key {
            "index" => {}
            "delta" => known.delta.join(value, budget),
            "text" => known.text.join_member(key, value, budget),
            "finish_reason" => known.finish_reason.keep_last(key, value, budget),
            "logprobs" => known.logprobs.join(value, budget),
            _ => known.extra.keep_last(key, value, budget),
        });
    }

    /// The joined response; `model_fallback` is the model that was sent upstream, for a stream that names none.
    pub fn finish(self, model_fallback: &str) -> Joined {
        let mut out = Vec::with_capacity(1024);
        match self.object.as_deref().filter(|_| !self.has_choices) {
            Some(object) => write_final_object(&mut out, object, model_fallback),
            None => self.write_choices(&mut out, model_fallback),
        }
        out.push(b'}');
        let left_out =
            LeftOut { response: self.response.left_out, streamed_data: self.chunk_budget.left_out };
        let streamed_data = self.limits.streamed_data.then(|| {
            let mut events = self.chunks;
            events.insert(0, b'[');
            events.push(b']');
            events
        });
        Joined { response: out, streamed_data, left_out }
    }

    /// The whole object, the last brace left open.
    fn write_choices(&self, out: &mut Vec<u8>, model_fallback: &str) {
        out.extend_from_slice(b"{\"id\":");
        write_or_null(out, self.id.get("id"));
        out.extend_from_slice(b",\"model\":");
        match self.id.get("model").filter(|model| !model.is_empty()) {
            Some(model) => model.write(out),
            None => write_string(out, model_fallback),
        }
        out.extend_from_slice(b",\"choices\":[");
        let mut choices: Vec<&Choice> = self.choices.iter().collect();
        choices.sort_by_key(|choice| choice.index);
        for (position, choice) in choices.into_iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            choice.write(out);
        }
        out.extend_from_slice(b"],\"usage\":");
        out.extend_from_slice(
            self.usage.as_ref().or(self.groq_usage.as_ref()).map_or(b"null", Vec::as_slice),
        );
        if !self.extra.is_empty() {
            out.push(b',');
            self.extra.write_members(out);
        }
    }
}

/// Usage is small and is kept whatever the limit: counts stay exact.
fn keep_usage(slot: &mut Option<Vec<u8>>, usage: Value<'_>) {
    const LONGEST: usize = 64 * 1024;
    if usage.raw().len() <= LONGEST {
        *slot = Some(usage.raw().to_vec());
    }
}

fn write_or_null(out: &mut Vec<u8>, node: Option<&Node>) {
    match node.filter(|node| !node.is_empty()) {
        Some(node) => node.write(out),
        None => out.extend_from_slice(b"null"),
    }
}

/// The object of a dialect without choices, its last brace left open.
fn write_final_object(out: &mut Vec<u8>, object: &[u8], model_fallback: &str) {
    let open = object.strip_suffix(b"}").unwrap_or(object).trim_ascii_end();
    out.extend_from_slice(open);
    if Value::new(object).get("model").is_none() {
        if open.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(b"\"model\":");
        write_string(out, model_fallback);
    }
}

impl Choice {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"index\":");
        out.extend_from_slice(self.index.to_string().as_bytes());
        if self.text.is_empty() || !self.delta.is_empty() {
            out.extend_from_slice(b",\"delta\":");
            self.delta.write_object(out);
        }
        if !self.text.is_empty() {
            out.push(b',');
            self.text.write_members(out);
        }
        out.extend_from_slice(b",\"finish_reason\":");
        write_or_null(out, self.finish_reason.get("finish_reason"));
        out.extend_from_slice(b",\"logprobs\":");
        if self.logprobs.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            self.logprobs.write_object(out);
        }
        if !self.extra.is_empty() {
            out.push(b',');
            self.extra.write_members(out);
        }
        out.push(b'}');
    }
}
