//! A conversation as the JSON that the semantic conventions prescribe: `gen_ai.input.messages`, `gen_ai.output.messages`,
//! `gen_ai.system_instructions`, `gen_ai.tool.definitions` (their JSON schemas stand in the conventions' repository).

use magicapi_plugin::{Conversation, Message, Part, Source, Tool};
use serde_json::{Map, Value, json};

/// What texts are cut to, one after the other, until an attribute fits.
const TEXTS: [usize; 6] = [usize::MAX, 16 << 10, 4 << 10, 1 << 10, 256, 64];

/// One attribute: its name, its JSON, and whether something is missing from it.
pub(super) struct Said {
    pub(super) key: &'static str,
    pub(super) json: Value,
    pub(super) is_cut: bool,
}

/// Everything that was said; what is empty is left out. No attribute is longer than `most` bytes as JSON.
pub(super) fn read(said: &Conversation, most: usize) -> Vec<Said> {
    let lists = [
        fit("gen_ai.system_instructions", &said.instructions, most, part),
        fit("gen_ai.input.messages", &said.input, most, |one, text| message(one, text, false)),
        fit("gen_ai.output.messages", &said.output, most, |one, text| message(one, text, true)),
        fit("gen_ai.tool.definitions", &said.tools, most, tool),
    ];
    let mut all: Vec<Said> = lists.into_iter().flatten().collect();
    for one in &mut all {
        one.is_cut |= said.is_cut;
    }
    all
}

/// The list with its texts as long as they can be; when even the shortest are too long, its end, which is the newest.
fn fit<T>(key: &'static str, list: &[T], most: usize, write: impl Fn(&T, usize) -> Value) -> Option<Said> {
    if list.is_empty() {
        return None;
    }
    for (step, texts) in TEXTS.into_iter().enumerate() {
        let json: Value = list.iter().map(|one| write(one, texts)).collect();
        if json.to_string().len() <= most {
            return Some(Said { key, json, is_cut: step > 0 });
        }
    }
    let shortest = TEXTS.last().copied().unwrap_or_default();
    let mut kept = Vec::new();
    let mut bytes = 2;
    for one in list.iter().rev() {
        let json = write(one, shortest);
        bytes += json.to_string().len() + 1;
        if bytes > most {
            break;
        }
        kept.push(json);
    }
    kept.reverse();
    Some(Said { key, json: kept.into(), is_cut: true })
}

fn message(message: &Message, texts: usize, is_output: bool) -> Value {
    let parts: Value = message.parts.iter().map(|one| part(one, texts)).collect();
    let mut json = Map::new();
    json.insert("role".into(), message.role.clone().into());
    json.insert("parts".into(), parts);
    if let Some(name) = &message.name {
        json.insert("name".into(), name.clone().into());
    }
    if is_output {
        let reason = message.finish_reason.as_deref().unwrap_or("error");
        json.insert("finish_reason".into(), finish_reason(reason).into());
    }
    json.into()
}

/// The word of the conventions, where they have one.
fn finish_reason(reason: &str) -> &str {
    match reason {
        "tool_calls" | "function_call" => "tool_call",
        "completed" => "stop",
        "max_output_tokens" | "max_tokens" => "length",
        other => other,
    }
}

fn part(part: &Part, texts: usize) -> Value {
    match part {
        Part::Text(text) => json!({ "type": "text", "content": cut(text, texts) }),
        Part::Reasoning(text) => json!({ "type": "reasoning", "content": cut(text, texts) }),
        Part::Refusal(text) => json!({ "type": "refusal", "content": cut(text, texts) }),
        Part::ToolCall { id, name, arguments } => {
            json!({ "type": "tool_call", "id": id, "name": name, "arguments": value(arguments, texts) })
        }
        Part::ToolResult { id, result } => {
            json!({ "type": "tool_call_response", "id": id, "response": value(result, texts) })
        }
        Part::Media { modality, mime_type, source, transcript } => {
            let (kind, key, at) = match source {
                // The bytes stay in the body.
                Source::Inline { bytes } => ("blob", "bytes_left_out", json!(bytes)),
                Source::Uri(uri) => ("uri", "uri", json!(cut(uri, texts))),
                Source::File(id) => ("file", "file_id", json!(id)),
                _ => ("other", "source", Value::Null),
            };
            let mut json = json!({ "type": kind, "modality": modality, "mime_type": mime_type, key: at });
            if let (Value::Object(json), Source::Inline { .. }) = (&mut json, source) {
                json.insert("content".into(), "".into());
            }
            if let (Value::Object(json), Some(transcript)) = (&mut json, transcript) {
                json.insert("transcript".into(), cut(transcript, texts).into());
            }
            json
        }
        Part::Other { kind, json } => json!({ "type": kind, "content": value(json, texts) }),
        _ => json!({ "type": "other" }),
    }
}

/// JSON where it is some and stays whole, else text.
fn value(text: &str, texts: usize) -> Value {
    if text.len() <= texts
        && text.starts_with(['{', '['])
        && let Ok(json) = serde_json::from_str(text)
    {
        return json;
    }
    cut(text, texts).into()
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

fn tool(tool: &Tool, texts: usize) -> Value {
    let name = if tool.name.is_empty() { &tool.kind } else { &tool.name };
    let mut json = json!({ "type": tool.kind, "name": name });
    if let Value::Object(json) = &mut json {
        if let Some(description) = &tool.description {
            json.insert("description".into(), cut(description, texts).into());
        }
        if let Some(parameters) = tool.parameters.as_ref().filter(|schema| schema.len() <= texts) {
            json.insert("parameters".into(), value(parameters, texts));
        }
    }
    json
}
