//! What was said in the OpenAI dialect: `/chat/completions`, `/completions` and `/responses`, whole answers and joined
//! streams alike.
//!
//! Tolerant, as records hold whatever was sent: what is of another kind than expected is passed over. Depth is that of
//! the scanner, and no reading goes deeper than a part of a message; size is `Room`'s.

use super::Operation;
use crate::conversation::{Conversation, Media, Message, Parameters, Part, Room, Source, Tool};
use crate::json::{Kind, Value};

/// Reads a request and its answer, JSON documents both; `None` when there are no messages in them.
pub fn read(operation: Operation, request: Option<&[u8]>, response: Option<&[u8]>) -> Option<Conversation> {
    let mut reader = Reader::default();
    let [request, response] = [request, response].map(|body| Value::new(body.unwrap_or_default()));
    match operation {
        Operation::Chat | Operation::Completions => {
            reader.request(request);
            reader.choices(response);
        }
        Operation::Responses => {
            reader.response_request(request);
            reader.response(response);
        }
        _ => return None,
    }
    let Reader { mut said, room } = reader;
    said.is_cut = room.is_cut;
    let nothing = said.input.is_empty() && said.output.is_empty() && said.instructions.is_empty();
    (!nothing).then_some(said)
}

#[derive(Default)]
struct Reader {
    said: Conversation,
    room: Room,
}

impl Reader {
    /// The request of chat and completions.
    fn request(&mut self, body: Value<'_>) {
        body.each_member(|key, value| match key {
            "messages" => {
                value.each_element(|message| {
                    if self.room.item() {
                        let message = self.message(message, "user");
                        self.said.input.push(message);
                    }
                });
            }
            "prompt" => self.prompts(value),
            "tools" => {
                value.each_element(|tool| self.tool(tool.get("function").unwrap_or(tool), tool));
            }
            "functions" => {
                value.each_element(|function| self.tool(function, function));
            }
            _ => self.parameter(key, value),
        });
    }

    /// `/completions`: one text, or several that are answered one by one. Tokens are no text.
    fn prompts(&mut self, value: Value<'_>) {
        let mut one = |value: Value<'_>| {
            if let Some(text) = value.text()
                && self.room.item()
            {
                let text = self.room.text(text);
                self.said.input.push(Message {
                    role: "user".into(),
                    parts: vec![Part::Text(text)],
                    ..Message::default()
                });
            }
        };
        match value.kind() {
            Kind::Array => {
                value.each_element(one);
            }
            _ => one(value),
        }
    }

    fn parameter(&mut self, key: &str, value: Value<'_>) {
        let to = &mut self.said.parameters;
        match key {
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => to.max_tokens = value.count(),
            "temperature" => to.temperature = value.number(),
            "top_p" => to.top_p = value.number(),
            "top_k" => to.top_k = value.count(),
            "frequency_penalty" => to.frequency_penalty = value.number(),
            "presence_penalty" => to.presence_penalty = value.number(),
            "seed" => to.seed = std::str::from_utf8(value.raw()).ok().and_then(|seed| seed.parse().ok()),
            "n" => to.choices = value.count(),
            "reasoning_effort" => to.reasoning_level = value.some_text(),
            "reasoning" => to.reasoning_level = value.get("effort").and_then(Value::some_text),
            "previous_response_id" => to.previous_response_id = value.some_text(),
            "response_format" => output_type(to, value),
            "text" => {
                if let Some(format) = value.get("format") {
                    output_type(to, format);
                }
            }
            "stop" if value.kind() == Kind::String => to.stop = value.text().into_iter().collect(),
            "stop" => {
                value.each_element(|stop| to.stop.extend(stop.text().filter(|_| self.room.item())));
            }
            _ => {}
        }
    }

    fn tool(&mut self, function: Value<'_>, whole: Value<'_>) {
        if !self.room.item() {
            return;
        }
        let text = |name: &str| function.get(name).and_then(Value::some_text);
        let kind = whole.get("type").and_then(Value::some_text).unwrap_or_else(|| "function".into());
        let parameters = function.get("parameters").filter(|schema| schema.kind() == Kind::Object);
        let tool = Tool {
            kind,
            name: self.room.text(text("name").unwrap_or_default()),
            description: text("description").map(|text| self.room.text(text)),
            parameters: parameters.map(|schema| self.json(schema)),
        };
        self.said.tools.push(tool);
    }

    /// The answer of chat and completions, a stream's joined form too.
    fn choices(&mut self, body: Value<'_>) {
        body.each_member(|key, value| match key {
            "id" => self.said.response_id = value.some_text(),
            "model" => self.said.response_model = value.some_text(),
            "choices" => {
                value.each_element(|choice| {
                    if self.room.item() {
                        let message = self.choice(choice);
                        self.said.output.push(message);
                    }
                });
            }
            _ => {}
        });
    }

    fn choice(&mut self, choice: Value<'_>) -> Message {
        let (mut said, mut text, mut reason) = (None, None, None);
        choice.each_member(|key, value| match key {
            "message" | "delta" if value.kind() == Kind::Object => said = Some(value),
            "text" => text = value.some_text(),
            "finish_reason" => reason = value.some_text(),
            _ => {}
        });
        let mut message = said.map_or_else(Message::default, |said| self.message(said, "assistant"));
        if message.role.is_empty() {
            message.role = "assistant".into();
        }
        message.parts.extend(text.map(|text| Part::Text(self.room.text(text))));
        message.finish_reason = reason;
        message
    }

    /// A message of either direction.
    fn message(&mut self, value: Value<'_>, role: &str) -> Message {
        let mut message = Message { role: role.into(), ..Message::default() };
        let mut answers = None;
        let (mut content, mut calls, mut thoughts) = (Vec::new(), Vec::new(), Vec::new());
        value.each_member(|key, value| match key {
            "role" => message.role = value.some_text().unwrap_or_else(|| role.into()),
            "name" => message.name = value.some_text(),
            "tool_call_id" => answers = value.some_text(),
            "content" => self.content(value, &mut content),
            "reasoning_content" | "reasoning" => thoughts = self.thoughts(value).into_iter().collect(),
            "refusal" => {
                content.extend(value.some_text().map(|text| Part::Refusal(self.room.text(text))));
            }
            "audio" if value.kind() == Kind::Object => content.push(self.sound(value)),
            "tool_calls" => {
                value.each_element(|call| calls.extend(self.tool_call(call)));
            }
            "function_call" => calls.extend(self.call(None, value)),
            _ => {}
        });
        if message.role == "tool" || message.role == "function" {
            // A result is one thing, however many parts it came in.
            let texts: Vec<String> = content.into_iter().filter_map(text_of).collect();
            content = vec![Part::ToolResult(answers.or_else(|| message.name.clone()), texts.join("\n"))];
        }
        thoughts.append(&mut content);
        thoughts.append(&mut calls);
        message.parts = thoughts;
        message
    }

    fn thoughts(&mut self, value: Value<'_>) -> Option<Part> {
        value.some_text().map(|text| Part::Reasoning(self.room.text(text)))
    }

    /// A text, or a list of parts.
    fn content(&mut self, value: Value<'_>, into: &mut Vec<Part>) {
        if let Some(text) = value.some_text() {
            into.push(Part::Text(self.room.text(text)));
            return;
        }
        value.each_element(|part| {
            if self.room.item() {
                into.push(self.part(part));
            }
        });
    }

    fn part(&mut self, part: Value<'_>) -> Part {
        let text = |name: &str| part.get(name).and_then(Value::text);
        let kind = text("type").unwrap_or_default();
        match kind.as_str() {
            "text" | "input_text" | "output_text" => match text("text") {
                Some(text) => Part::Text(self.room.text(text)),
                None => self.other(kind, part),
            },
            "refusal" => Part::Refusal(self.room.text(text("refusal").unwrap_or_default())),
            "summary_text" | "reasoning_text" => {
                Part::Reasoning(self.room.text(text("text").unwrap_or_default()))
            }
            "image_url" | "input_image" => {
                let at = part.get("image_url").map(|url| url.get("url").unwrap_or(url));
                let at = at.and_then(Value::some_text);
                self.medium("image", at, None, text("file_id")).unwrap_or_else(|| self.other(kind, part))
            }
            "input_audio" => {
                let sound = part.get("input_audio").unwrap_or(part);
                self.sound(sound)
            }
            "file" | "input_file" => {
                let file = part.get("file").unwrap_or(part);
                let text = |name: &str| file.get(name).and_then(Value::some_text);
                self.medium("document", text("file_url"), text("file_data"), text("file_id"))
                    .unwrap_or_else(|| self.other(kind, part))
            }
            _ => self.other(kind, part),
        }
    }

    fn medium(
        &mut self,
        modality: &'static str,
        at: Option<String>,
        data: Option<String>,
        id: Option<String>,
    ) -> Option<Part> {
        let inline = data.or_else(|| at.clone().filter(|at| at.starts_with("data:")));
        let mime_type = inline.as_deref().and_then(|data| data.strip_prefix("data:"));
        let mime_type =
            mime_type.and_then(|data| data.split([';', ',']).next()).filter(|kind| !kind.is_empty());
        let mime_type = mime_type.map(|kind| self.room.text(kind.to_owned()));
        let source = match (inline, at, id) {
            (Some(data), _, _) => Source::Inline(data.len()),
            (None, Some(at), _) => Source::Uri(self.room.text(at)),
            (None, None, Some(id)) => Source::File(self.room.text(id)),
            (None, None, None) => return None,
        };
        Some(Part::Media(Media { modality, mime_type, source, transcript: None }))
    }

    /// `{id, data, format, transcript}` in either direction.
    fn sound(&mut self, sound: Value<'_>) -> Part {
        let text = |name: &str| sound.get(name).and_then(Value::some_text);
        let source = match (text("data"), text("id")) {
            (None, Some(id)) => Source::File(self.room.text(id)),
            (data, _) => Source::Inline(data.map_or(0, |data| data.len())),
        };
        let transcript = text("transcript").map(|text| self.room.text(text));
        let mime_type = text("format").map(|format| self.room.text(format!("audio/{format}")));
        Part::Media(Media { modality: "audio", mime_type, source, transcript })
    }

    fn other(&mut self, kind: String, part: Value<'_>) -> Part {
        Part::Other(self.room.text(kind), self.json(part))
    }

    /// A value as it is written.
    fn json(&mut self, value: Value<'_>) -> String {
        self.room.text(String::from_utf8_lossy(value.raw()).into_owned())
    }

    /// `{id, type, function: {name, arguments}}`, or `custom: {name, input}`.
    fn tool_call(&mut self, call: Value<'_>) -> Option<Part> {
        let id = call.get("id").and_then(Value::some_text);
        self.call(id, call.get("function").or_else(|| call.get("custom"))?)
    }

    fn call(&mut self, id: Option<String>, function: Value<'_>) -> Option<Part> {
        let text = |name: &str| function.get(name).and_then(Value::text);
        let (name, arguments) = (text("name")?, text("arguments").or_else(|| text("input")));
        let has_room = self.room.item();
        let part = || Part::ToolCall(id, self.room.text(name), self.room.text(arguments.unwrap_or_default()));
        has_room.then(part)
    }

    /// The request of `/responses`.
    fn response_request(&mut self, body: Value<'_>) {
        body.each_member(|key, value| match key {
            "instructions" => {
                let mut parts = Vec::new();
                self.content(value, &mut parts);
                self.said.instructions = parts;
            }
            "input" if value.kind() == Kind::String => self.prompts(value),
            "input" => {
                value.each_element(|item| {
                    if self.room.item() {
                        let message = self.item(item, "user");
                        self.said.input.push(message);
                    }
                });
            }
            "tools" => {
                value.each_element(|tool| self.tool(tool, tool));
            }
            _ => self.parameter(key, value),
        });
    }

    /// The answer of `/responses`: its items are one message.
    fn response(&mut self, body: Value<'_>) {
        let (mut parts, mut status, mut incomplete) = (Vec::new(), None, None);
        body.each_member(|key, value| match key {
            "id" => self.said.response_id = value.some_text(),
            "model" => self.said.response_model = value.some_text(),
            "status" => status = value.some_text(),
            "incomplete_details" => incomplete = value.get("reason").and_then(Value::some_text),
            "output" => {
                value.each_element(|item| {
                    if self.room.item() {
                        parts.append(&mut self.item(item, "assistant").parts);
                    }
                });
            }
            _ => {}
        });
        if !parts.is_empty() {
            let finish_reason = incomplete.or(status);
            self.said.output.push(Message { role: "assistant".into(), parts, finish_reason, name: None });
        }
    }

    /// One item of `/responses`, in either direction.
    fn item(&mut self, item: Value<'_>, role: &str) -> Message {
        let text = |name: &str| item.get(name).and_then(Value::some_text);
        let message = |role: &str, parts| Message { role: role.into(), parts, ..Message::default() };
        let kind = text("type").unwrap_or_else(|| "message".into());
        match kind.as_str() {
            "message" => self.message(item, role),
            "function_call" | "custom_tool_call" => {
                message("assistant", self.call(text("call_id"), item).into_iter().collect())
            }
            "function_call_output" | "custom_tool_call_output" => {
                let output = item.get("output");
                let result = output.map(|output| output.text().unwrap_or_else(|| self.json(output)));
                let result = self.room.text(result.unwrap_or_default());
                message("tool", vec![Part::ToolResult(text("call_id"), result)])
            }
            "reasoning" => {
                let mut parts = Vec::new();
                for list in ["summary", "content"].into_iter().filter_map(|name| item.get(name)) {
                    self.content(list, &mut parts);
                }
                message("assistant", parts)
            }
            _ => message(role, vec![self.other(kind, item)]),
        }
    }
}

fn text_of(part: Part) -> Option<String> {
    match part {
        Part::Text(text) => Some(text),
        _ => None,
    }
}

/// `response_format` of chat, `text.format` of responses.
fn output_type(to: &mut Parameters, format: Value<'_>) {
    to.output_type = match format.get("type").and_then(Value::some_text).as_deref() {
        Some("text") => Some("text"),
        Some("json_object" | "json_schema") => Some("json"),
        _ => None,
    };
}

#[cfg(test)]
mod tests;
