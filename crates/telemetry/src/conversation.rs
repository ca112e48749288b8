//! What was said in a record, for the exporters that need it: read from the record's own bodies, while it is assembled
//! (after redaction) and again when it comes back from the disk, where only the bodies are kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use magicapi_dialects::conversation as wire;
use magicapi_dialects::openai_chat::{self, Operation};
use magicapi_plugin::{Conversation, Facts, Message, Parameters, Part, RequestMetrics, Source, Tool};

/// Reads a request and an answer, JSON documents both, of a dialect.
type Reader = fn(&Facts, Option<&[u8]>, Option<&[u8]>) -> Option<wire::Conversation>;

/// One reader per dialect; the first that finds something is the caller's.
const READERS: [Reader; 1] = [openai];

fn openai(facts: &Facts, request: Option<&[u8]>, response: Option<&[u8]>) -> Option<wire::Conversation> {
    let spoken = [Operation::Chat, Operation::Completions, Operation::Responses];
    let operation = spoken.into_iter().find(|operation| operation.as_str() == facts.operation)?;
    openai_chat::conversation::read(operation, request, response)
}

/// The record with what was said in it. One whose bodies make the reading panic does without.
pub(crate) fn complete(record: RequestMetrics) -> RequestMetrics {
    let said = catch_unwind(AssertUnwindSafe(|| read(&record))).unwrap_or_default();
    record.with_conversation(said)
}

fn read(record: &RequestMetrics) -> Option<Arc<Conversation>> {
    let [request, response] = [record.request(), record.response()].map(|body| body.map(|body| &body[..]));
    let said = READERS.iter().find_map(|read| read(record.facts(), request, response))?;
    Some(Arc::new(conversation(said)))
}

fn conversation(from: wire::Conversation) -> Conversation {
    let mut said = Conversation::default();
    said.instructions = from.instructions.into_iter().map(part).collect();
    said.input = from.input.into_iter().map(message).collect();
    said.output = from.output.into_iter().map(message).collect();
    said.tools = from.tools.into_iter().map(tool).collect();
    said.parameters = parameters(from.parameters);
    said.response_id = from.response_id;
    said.response_model = from.response_model;
    said.is_cut = from.is_cut;
    said
}

fn message(from: wire::Message) -> Message {
    let mut message = Message::new(from.role, from.parts.into_iter().map(part).collect());
    message.name = from.name;
    message.finish_reason = from.finish_reason;
    message
}

fn part(from: wire::Part) -> Part {
    match from {
        wire::Part::Text(text) => Part::Text(text),
        wire::Part::Reasoning(text) => Part::Reasoning(text),
        wire::Part::Refusal(text) => Part::Refusal(text),
        wire::Part::ToolCall(id, name, arguments) => Part::ToolCall { id, name, arguments },
        wire::Part::ToolResult(id, result) => Part::ToolResult { id, result },
        wire::Part::Media(wire::Media { modality, mime_type, source, transcript }) => {
            let source = match source {
                wire::Source::Inline(bytes) => Source::Inline { bytes },
                wire::Source::Uri(uri) => Source::Uri(uri),
                wire::Source::File(id) => Source::File(id),
            };
            Part::Media { modality, mime_type, source, transcript }
        }
        wire::Part::Other(kind, json) => Part::Other { kind, json },
    }
}

fn tool(from: wire::Tool) -> Tool {
    let mut tool = Tool::default();
    (tool.kind, tool.name) = (from.kind, from.name);
    (tool.description, tool.parameters) = (from.description, from.parameters);
    tool
}

fn parameters(from: wire::Parameters) -> Parameters {
    let mut to = Parameters::default();
    (to.max_tokens, to.temperature) = (from.max_tokens, from.temperature);
    (to.top_p, to.top_k) = (from.top_p, from.top_k);
    (to.frequency_penalty, to.presence_penalty) = (from.frequency_penalty, from.presence_penalty);
    (to.seed, to.choices, to.stop) = (from.seed, from.choices, from.stop);
    (to.output_type, to.reasoning_level) = (from.output_type, from.reasoning_level);
    to.previous_response_id = from.previous_response_id;
    to
}

#[cfg(test)]
mod tests {
    use magicapi_plugin::{ContentDropped, ContentLevel, Part, RequestMetrics};

    use super::complete;
    use crate::scripted::facts;

    fn record(operation: &'static str) -> RequestMetrics {
        let mut facts = facts();
        facts.operation = operation;
        let request = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
        let response = r#"{"choices":[{"message":{"role":"assistant","content":"hi"}}]}"#;
        let body = |text: &'static str| Some(text.into());
        RequestMetrics::seal(facts, std::sync::Arc::default(), body(request), body(response), None)
    }

    #[test]
    fn it_is_read_counted_and_follows_the_content_level() {
        let bare = record("chat").memory();
        let record_said = complete(record("chat"));
        let said = record_said.conversation().expect("a conversation");
        assert_eq!(said.input[0].parts, [Part::Text("hello".into())]);
        assert_eq!(said.output[0].parts, [Part::Text("hi".into())]);
        assert!(record_said.memory() >= bare + said.memory() && said.memory() > 7);
        assert!(record_said.with_content(ContentLevel::NoChunks).conversation().is_some());
        assert!(record_said.with_content(ContentLevel::Metadata).conversation().is_none());
        assert!(record_said.without_content(ContentDropped::Memory).conversation().is_none());
        assert!(complete(record("embeddings")).conversation().is_none());
        let restored = RequestMetrics::from_stored(&record_said.to_stored().into()).expect("a record");
        assert!(restored.conversation().is_none(), "it is not stored");
        assert_eq!(complete(restored).conversation(), Some(said), "but made again");
    }
}
