//! What the answer modules are given ([`Call`]) and what they hand back ([`Answer`]), and the facts
//! every text answer shares ([`Reply`]): text, filler, usage, ids.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use crate::ask::{Ask, Prompt, count};
use crate::plan::{Filler, Item, Plan, fill, size};
use crate::script::{Script, UsagePlacement};

/// Creation time of everything the mock makes, in Unix seconds: fixed, so that answers are too.
pub(crate) const CREATED: u64 = 1_750_000_000;
/// Content type of event streams.
pub(crate) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
/// Content type of JSON answers.
pub(crate) const JSON: &str = "application/json";

/// A request and its script.
pub(crate) struct Call<'a> {
    pub(crate) script: &'a Script,
    /// Number of the request, from 1; part of every id.
    pub(crate) number: u64,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
}

/// An answer before pace, coding and accidents.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Cow<'static, str>,
    pub(crate) payload: Payload,
}

/// A body, in one of its forms.
pub(crate) enum Payload {
    /// All there.
    Whole(Bytes),
    /// Buffered, but too large to be held: its size is known.
    Filled(Plan),
    /// An event stream.
    Events(Plan),
}

impl Answer {
    /// A JSON answer, padded with white space when the script asks for a size.
    pub(crate) fn json(script: &Script, body: &str) -> Self {
        let mut paper = Paper::default();
        paper.text(body);
        Self::buffered(JSON, paper.finish(script.bytes))
    }

    /// A buffered answer of a plan.
    pub(crate) fn buffered(content_type: &'static str, mut plan: Plan) -> Self {
        let payload = match (plan.pop(), plan.is_empty()) {
            (Some(only), true) if only.repeat == 1 => Payload::Whole(only.data),
            (Some(last), _) => {
                plan.push(last);
                Payload::Filled(plan)
            }
            (None, _) => Payload::Whole(Bytes::new()),
        };
        Self { status: 200, content_type: content_type.into(), payload }
    }

    /// An event stream.
    pub(crate) fn events(plan: Plan) -> Self {
        Self { status: 200, content_type: EVENT_STREAM.into(), payload: Payload::Events(plan) }
    }
}

/// A JSON text under construction, with filler in it that is not held in memory.
#[derive(Default)]
pub(crate) struct Paper {
    plan: Plan,
    text: String,
    mark: Option<usize>,
}

impl Paper {
    pub(crate) fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds filler letters.
    pub(crate) fn fill(&mut self, count: u64) {
        if count > 0 {
            self.flush();
            self.plan.extend(fill(count, Filler::Letters));
        }
    }

    /// Padding goes here, as letters; only the first call counts.
    pub(crate) fn mark(&mut self) {
        if self.mark.is_none() {
            self.flush();
            self.mark = Some(self.plan.len());
        }
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.plan.push(Item::now(Bytes::from(std::mem::take(&mut self.text))));
        }
    }

    /// The plan, padded up to `bytes` in all.
    pub(crate) fn finish(mut self, bytes: Option<u64>) -> Plan {
        self.flush();
        let pad = bytes.unwrap_or(0).saturating_sub(size(&self.plan));
        match self.mark {
            Some(at) => drop(self.plan.splice(at..at, fill(pad, Filler::Letters).collect::<Vec<_>>())),
            None => self.plan.extend(fill(pad, Filler::Spaces)),
        }
        self.plan
    }
}

/// Token counts, in words.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
    pub(crate) reasoning: u64,
}

impl Usage {
    /// The usage object of chat and completions.
    pub(crate) fn json(self) -> String {
        format!(
            r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":{}}}}}"#,
            self.prompt,
            self.completion,
            self.prompt + self.completion,
            self.reasoning,
        )
    }
}

/// What a text answer says.
pub(crate) struct Reply<'a> {
    pub(crate) script: &'a Script,
    pub(crate) number: u64,
    pub(crate) model: String,
    /// The text before any filler; `None` = `null` content.
    pub(crate) text: Option<Cow<'a, str>>,
    pub(crate) choices: u32,
    pub(crate) usage: Usage,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(call: &Call<'a>, ask: &Ask<'_>, model: &str, prompt: &Prompt) -> Self {
        let script = call.script;
        let text = text_of(call, prompt);
        let choices = script.n.or(ask.n).unwrap_or(1).clamp(1, 128);
        let reasoning = script.reasoning.as_deref().map_or(0, count);
        let tools: u64 = script.tool_calls.iter().map(|t| 1 + count(&t.argument_text())).sum();
        let said = text.as_deref().map_or(0, count)
            + script.refusal.as_deref().map_or(0, count)
            + script.chunks.unwrap_or(0)
            + tools
            + reasoning;
        let many = u64::from(choices);
        let usage = Usage { prompt: prompt.words, completion: said * many, reasoning: reasoning * many };
        Self { script, number: call.number, model: quote(model), text, choices, usage }
    }

    /// Bytes of filler in each choice.
    pub(crate) fn filler_bytes(&self) -> u64 {
        let huge = self.script.huge_event_bytes.unwrap_or(0) as u64;
        huge + self.script.chunks.unwrap_or(0) * self.script.filler_chunk() as u64
    }

    /// The usage object; `None` when the script wants none.
    pub(crate) fn usage_json(&self) -> Option<String> {
        if self.script.usage_placement == UsagePlacement::None {
            return None;
        }
        match &self.script.usage {
            None => Some(self.usage.json()),
            Some(Value::Null) => None,
            Some(given) => Some(given.to_string()),
        }
    }
}

fn text_of<'a>(call: &Call<'a>, prompt: &Prompt) -> Option<Cow<'a, str>> {
    let script = call.script;
    if call.script.echo_headers {
        return Some(headers_json(call.headers).into());
    }
    if let Some(text) = &script.text {
        return Some(text.as_str().into());
    }
    if script.chunks.is_some() || script.huge_event_bytes.is_some() {
        return Some("".into());
    }
    if script.refusal.is_some() || !script.tool_calls.is_empty() {
        return None;
    }
    Some(format!("Hello from the mock provider. You said: {}", prompt.last_user).into())
}

/// Headers as a JSON object; a repeated header becomes a list.
fn headers_json(headers: &HeaderMap) -> String {
    let mut out = Map::new();
    for name in headers.keys() {
        let mut values: Vec<Value> = headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned().into())
            .collect();
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        out.insert(name.to_string(), value);
    }
    Value::Object(out).to_string()
}

/// A text as a JSON string.
pub(crate) fn quote(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_reaches_the_exact_size() {
        let mut paper = Paper::default();
        paper.text("{\"a\":\"");
        paper.mark();
        paper.text("\"}");
        let plan = paper.finish(Some(100));
        assert_eq!(size(&plan), 100);
        assert_eq!(plan.len(), 3);
        let script = Script { bytes: Some(10), ..Script::default() };
        assert!(matches!(Answer::json(&script, "{}").payload, Payload::Filled(p) if size(&p) == 10));
    }
}
