//! Streamed answers of `/responses`: named events with increasing sequence numbers, item by item.

use serde_json::{Value, json};

use crate::answer::Reply;
use crate::plan::{Item, Plan};
use crate::responses::Said;
use crate::script::{Script, verbatim};
use crate::sse::{Framing, pieces_of, words};

/// The events of a response.
pub(crate) fn plan(reply: &Reply<'_>, said: &Said) -> Plan {
    let script = reply.script;
    let mut writer = Writer { script, framing: Framing::of(script), plan: Plan::new(), sequence: 0 };
    let opening = said.object(&[], "in_progress");
    writer.event("response.created", json!({"response": opening.clone()}), false);
    writer.event("response.in_progress", json!({"response": opening}), false);
    for (index, item) in said.items.iter().enumerate() {
        writer.item(index, item);
    }
    let last = format!("response.{}", said.status);
    writer.event(&last, json!({"response": said.object(&said.items, said.status)}), false);
    if let Some(late) = &script.event_after_done {
        writer.plan.push(Item::now(writer.framing.event(None, &verbatim(late))));
    }
    writer.plan
}

struct Writer<'a> {
    script: &'a Script,
    framing: Framing,
    plan: Plan,
    sequence: u64,
}

impl Writer<'_> {
    /// Adds an event; `type` and `sequence_number` are put in here.
    fn event(&mut self, name: &str, mut data: Value, paced: bool) {
        if let Value::Object(members) = &mut data {
            members.shift_insert(0, "type".to_owned(), name.into());
            members.shift_insert(1, "sequence_number".to_owned(), self.sequence.into());
        }
        self.sequence += 1;
        let bytes = self.framing.event(Some(name), &data.to_string());
        self.plan.push(Item { data: bytes, repeat: 1, paced });
    }

    fn item(&mut self, index: usize, item: &Value) {
        let mut opening = item.clone();
        for (member, empty) in
            [("content", json!([])), ("summary", json!([])), ("arguments", json!("")), ("input", json!(""))]
        {
            if opening.get(member).is_some() {
                opening[member] = empty;
            }
        }
        if opening.get("status").is_some() {
            opening["status"] = json!("in_progress");
        }
        self.event("response.output_item.added", json!({"output_index": index, "item": opening}), false);
        match item["type"].as_str() {
            Some("message") => self.parts(index, item, "content", "content"),
            Some("reasoning") => self.parts(index, item, "summary", "summary"),
            Some("function_call") => self.arguments(index, item, "function_call_arguments", "arguments"),
            _ => self.arguments(index, item, "custom_tool_call_input", "input"),
        }
        self.event("response.output_item.done", json!({"output_index": index, "item": item}), false);
    }

    /// The parts of a message or of a reasoning item.
    fn parts(&mut self, output: usize, item: &Value, list: &str, place: &str) {
        let parts = item[list].as_array().cloned().unwrap_or_default();
        for (index, part) in parts.iter().enumerate() {
            let (member, family) = match part["type"].as_str() {
                Some("refusal") => ("refusal", "response.refusal"),
                Some("summary_text") => ("text", "response.reasoning_summary_text"),
                _ => ("text", "response.output_text"),
            };
            let frame =
                if list == "summary" { "response.reasoning_summary_part" } else { "response.content_part" };
            let at = format!("{place}_index");
            let base = json!({"item_id": item["id"], "output_index": output, at: index});
            let with = |extra: Value| merged(&base, extra);
            let mut opening = part.clone();
            opening[member] = json!("");
            self.event(&format!("{frame}.added"), with(json!({"part": opening})), false);
            let text = part[member].as_str().unwrap_or_default();
            for piece in self.cut(text) {
                self.event(&format!("{family}.delta"), with(json!({"delta": piece})), true);
            }
            self.event(&format!("{family}.done"), with(json!({member: text})), false);
            self.event(&format!("{frame}.done"), with(json!({"part": part})), false);
        }
    }

    fn arguments(&mut self, output: usize, item: &Value, family: &str, member: &str) {
        let base = json!({"item_id": item["id"], "output_index": output});
        let text = item[member].as_str().unwrap_or_default();
        for piece in pieces_of(text, self.script.chunk_bytes.unwrap_or(12)) {
            let data = merged(&base, json!({"delta": piece}));
            self.event(&format!("response.{family}.delta"), data, true);
        }
        self.event(&format!("response.{family}.done"), merged(&base, json!({member: text})), false);
    }

    fn cut<'t>(&self, text: &'t str) -> Vec<&'t str> {
        match self.script.chunk_bytes.or(self.script.chunks.map(|_| 4)) {
            Some(size) => pieces_of(text, size),
            None => words(text),
        }
    }
}

/// The members of two objects.
fn merged(base: &Value, extra: Value) -> Value {
    let mut out = base.as_object().cloned().unwrap_or_default();
    if let Value::Object(extra) = extra {
        out.extend(extra);
    }
    Value::Object(out)
}
