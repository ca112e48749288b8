//! Streamed answers of `/chat/completions`: one plan of chunks per reply. Events that repeat (the
//! filler) are rendered once.

use bytes::Bytes;

use crate::answer::{CREATED, Reply, Usage, quote};
use crate::plan::{Item, Plan};
use crate::script::{Script, ToolCall, UsagePlacement};
use crate::sse::{Framing, pieces_of, words};

/// Bytes of one piece of tool-call arguments, unless the script sets `chunk_bytes`.
const ARGUMENT_BYTES: usize = 12;

/// The chunks of a reply. `asked` = the request wants a usage chunk.
pub(crate) fn plan(reply: &Reply<'_>, asked: bool) -> Plan {
    let mut writer = Writer::new(reply, asked);
    writer.roles();
    writer.reasoning();
    writer.content();
    writer.refusal();
    writer.tool_calls();
    writer.finish();
    writer.plan
}

/// Writes chunks into a plan.
struct Writer<'a, 'b> {
    reply: &'a Reply<'b>,
    script: &'a Script,
    framing: Framing,
    plan: Plan,
    /// Up to and with the `[` of `choices`.
    head: String,
    usage: Option<String>,
    asked: bool,
    /// Content pieces so far: the running count of cumulative usage.
    said: u64,
}

impl<'a, 'b> Writer<'a, 'b> {
    fn new(reply: &'a Reply<'b>, asked: bool) -> Self {
        let script = reply.script;
        let head = format!(
            r#"{{"id":"chatcmpl-mock-{}","object":"chat.completion.chunk","created":{CREATED},"model":{},"service_tier":{},"system_fingerprint":"fp_mock","choices":["#,
            reply.number,
            reply.model,
            quote(script.tier()),
        );
        let usage = reply.usage_json();
        let asked = asked && script.usage_placement == UsagePlacement::Openai && usage.is_some();
        Self { reply, script, framing: Framing::of(script), plan: Plan::new(), head, usage, asked, said: 0 }
    }

    /// What stands after the choices of an ordinary chunk.
    fn tail(&self) -> String {
        match (&self.usage, self.script.usage_placement) {
            (Some(_), UsagePlacement::EveryChunk) if self.script.usage.is_none() => {
                let completion = self.said.min(self.reply.usage.completion);
                let so_far = Usage { completion, reasoning: 0, ..self.reply.usage };
                format!(r#"],"usage":{}}}"#, so_far.json())
            }
            (Some(usage), UsagePlacement::EveryChunk) => format!(r#"],"usage":{usage}}}"#),
            _ if self.asked => r#"],"usage":null}"#.to_owned(),
            _ => "]}".to_owned(),
        }
    }

    fn chunk(&self, choice: u32, delta: &[&str], tail: &str) -> Bytes {
        let choice = choice.to_string();
        let mut pieces = vec![self.head.as_str(), r#"{"index":"#, &choice, r#","delta":{"#];
        pieces.extend_from_slice(delta);
        pieces.extend_from_slice(&[r#"},"logprobs":null,"finish_reason":null}"#, tail]);
        self.framing.pieces(None, &pieces)
    }

    /// Adds a chunk for every choice; all content pieces but the very first wait for the gap.
    fn say(&mut self, delta: &[&str], repeat: u64) {
        let first = self.said == 0;
        self.said += u64::from(self.reply.choices) * repeat;
        let tail = self.tail();
        for choice in 0..self.reply.choices {
            let data = self.chunk(choice, delta, &tail);
            let mut later = repeat;
            if first && choice == 0 {
                self.plan.push(Item::now(data.clone()));
                later -= 1;
            }
            if later > 0 {
                self.plan.push(Item { data, repeat: later, paced: true });
            }
        }
    }

    fn roles(&mut self) {
        let content = if self.reply.text.is_some() { "\"\"" } else { "null" };
        let tail = self.tail();
        for choice in 0..self.reply.choices {
            let delta = [r#""role":"assistant","content":"#, content, r#","refusal":null"#];
            let data = self.chunk(choice, &delta, &tail);
            self.plan.push(Item::now(data));
        }
    }

    fn member(&mut self, name: &str, text: &str) {
        let pieces = match self.script.chunk_bytes {
            Some(size) if self.script.chunks.is_none() => pieces_of(text, size),
            _ => words(text),
        };
        for piece in pieces {
            self.say(&["\"", name, "\":", &quote(piece)], 1);
        }
    }

    fn reasoning(&mut self) {
        if let Some(reasoning) = &self.script.reasoning {
            self.member(self.script.reasoning_field.name(), reasoning);
        }
    }

    fn content(&mut self) {
        if let Some(size) = self.script.huge_event_bytes {
            self.say(&[r#""content":""#, &"x".repeat(size), "\""], 1);
        }
        if let Some(text) = self.reply.text.as_deref() {
            self.member("content", text);
        }
        if let Some(chunks) = self.script.chunks.filter(|&c| c > 0) {
            self.say(&[r#""content":""#, &"x".repeat(self.script.filler_chunk()), "\""], chunks);
        }
    }

    fn refusal(&mut self) {
        if let Some(refusal) = &self.script.refusal {
            self.member("refusal", refusal);
        }
    }

    /// First the id, type and name of every call, then the argument pieces in turn.
    fn tool_calls(&mut self) {
        let size = self.script.chunk_bytes.unwrap_or(ARGUMENT_BYTES);
        for (index, call) in self.script.tool_calls.iter().enumerate() {
            let (kind, member) = call_shape(call.custom);
            let delta = format!(
                r#""tool_calls":[{{"index":{index},"id":{},"type":"{kind}","{kind}":{{"name":{},"{member}":""}}}}]"#,
                quote(&call.call_id(index)),
                quote(&call.name),
            );
            self.say(&[&delta], 1);
        }
        let texts: Vec<String> = self.script.tool_calls.iter().map(ToolCall::argument_text).collect();
        let pieces: Vec<Vec<&str>> = texts.iter().map(|t| pieces_of(t, size)).collect();
        let rounds = pieces.iter().map(Vec::len).max().unwrap_or(0);
        for round in 0..rounds {
            for (index, call) in self.script.tool_calls.iter().enumerate() {
                let Some(piece) = pieces.get(index).and_then(|p| p.get(round)) else { continue };
                let (kind, member) = call_shape(call.custom);
                let delta =
                    format!(r#""tool_calls":[{{"index":{index},"{kind}":{{"{member}":{}}}}}]"#, quote(piece));
                self.say(&[&delta], 1);
            }
        }
    }

    fn finish(&mut self) {
        let reason = quote(self.script.finish());
        let tail = match (&self.usage, self.script.usage_placement) {
            (Some(usage), UsagePlacement::AlwaysFinal | UsagePlacement::EveryChunk) => {
                format!(r#"],"usage":{usage}}}"#)
            }
            (Some(usage), UsagePlacement::XGroq) => {
                format!(r#"],"x_groq":{{"id":"req_mock_{}","usage":{usage}}}}}"#, self.reply.number)
            }
            _ => self.tail(),
        };
        let last = self.reply.choices.saturating_sub(1);
        for choice in 0..self.reply.choices {
            let choice_text = choice.to_string();
            let end = if choice == last { tail.clone() } else { self.tail() };
            let pieces = [
                self.head.as_str(),
                r#"{"index":"#,
                &choice_text,
                r#","delta":{},"logprobs":null,"finish_reason":"#,
                &reason,
                "}",
                &end,
            ];
            self.plan.push(Item::now(self.framing.pieces(None, &pieces)));
        }
        if let (true, Some(usage)) = (self.asked, &self.usage) {
            let data = self.framing.pieces(None, &[&self.head, r#"],"usage":"#, usage, "}"]);
            self.plan.push(Item::now(data));
        }
        self.framing.close(&mut self.plan, self.script);
    }
}

fn call_shape(custom: bool) -> (&'static str, &'static str) {
    if custom { ("custom", "input") } else { ("function", "arguments") }
}
