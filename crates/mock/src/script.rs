//! The script: how one answer has to look and behave. Read from the `x-mock` request header, from a
//! script file or built in Rust; every later stage only reads it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One answer's script. Every field is optional; the default is a plain, polite answer.
///
/// The JSON form rejects unknown fields, so a misspelt one is an error and not a silent default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Answer text. Default: an echo of the last user message.
    pub text: Option<String>,
    /// Reasoning text sent before the answer.
    pub reasoning: Option<String>,
    /// Name of the member that carries `reasoning`.
    pub reasoning_field: ReasoningField,
    /// Refusal text; the content is then `null`.
    pub refusal: Option<String>,
    /// Tool calls of the answer, in index order.
    pub tool_calls: Vec<ToolCall>,
    /// Finish reason, verbatim. Default `stop`, or `tool_calls` when there are any.
    pub finish_reason: Option<String>,
    /// Number of choices; beats the request's `n`.
    pub n: Option<u32>,
    /// Usage object put in verbatim; JSON `null` means none at all.
    #[serde(deserialize_with = "present")]
    pub usage: Option<Value>,
    /// Where the usage stands.
    pub usage_placement: UsagePlacement,
    /// `service_tier` of the answer. Default `default`.
    pub service_tier: Option<String>,
    /// Milliseconds between the response head and the first event of a stream; before the head of a
    /// buffered answer.
    pub ttft_ms: u64,
    /// Milliseconds between two content events of a stream.
    pub gap_ms: u64,
    /// Count of filler content chunks; replaces the text. Buffered answers carry as much text.
    pub chunks: Option<u64>,
    /// Content bytes per chunk: of the filler (default 4), or the pieces `text` is cut into.
    pub chunk_bytes: Option<usize>,
    /// Splits the body into writes of at most this many bytes, each flushed by itself.
    pub write_bytes: Option<usize>,
    /// HTTP status. From 400 on the body is an error object unless one is given.
    pub status: Option<u16>,
    /// Headers set on the answer; a value may be a list of strings.
    pub headers: BTreeMap<String, Value>,
    /// Body sent verbatim: a string, or any other JSON value in its text form.
    #[serde(deserialize_with = "present")]
    pub body: Option<Value>,
    /// Content type of the answer.
    pub content_type: Option<String>,
    /// An error answer: status, body and content type in one.
    pub error: Option<ErrorAnswer>,
    /// After this many events: one error event, then the end of the stream.
    pub error_after: Option<u64>,
    /// The event of `error_after`: a string verbatim, or any JSON value.
    #[serde(deserialize_with = "present")]
    pub error_event: Option<Value>,
    /// After this many events the TCP connection is dropped; 0 = before the response head.
    pub cut_after: Option<u64>,
    /// After this many body bytes (as on the wire, before transfer framing) the connection is dropped.
    pub cut_after_bytes: Option<u64>,
    /// After this many events silence for ever; 0 = right after the response head.
    pub stall_after: Option<u64>,
    /// In every silence of a stream a comment line is sent after this many milliseconds.
    pub heartbeat_ms: Option<u64>,
    /// Leaves out the closing `[DONE]` event.
    pub no_done: bool,
    /// Line ends of the stream.
    pub crlf: LineEnd,
    /// Writes `data:` without the space.
    pub no_space: bool,
    /// A `: keep-alive` comment before every event.
    pub comments: bool,
    /// An event with empty `data:` before every event.
    pub empty_events: bool,
    /// One more event after `[DONE]`: a string verbatim, or any JSON value.
    #[serde(deserialize_with = "present")]
    pub event_after_done: Option<Value>,
    /// Whole stream body, sent verbatim.
    pub raw_sse: Option<String>,
    /// The data of every event, in order: strings verbatim, other JSON values in their text form.
    pub raw_chunks: Option<Vec<Value>>,
    /// Content coding used whether or not the client asked for it.
    pub content_encoding: Option<WireCoding>,
    /// Chooses a content coding by the request's `accept-encoding`.
    pub compress: bool,
    /// The answer's text is a JSON object of the request's headers.
    pub echo_headers: bool,
    /// Milliseconds before the response head.
    pub delay_headers_ms: u64,
    /// One more content event of this many content bytes, before the others.
    pub huge_event_bytes: Option<usize>,
    /// Size of a buffered body in bytes, reached by padding.
    pub bytes: Option<u64>,
    /// Asks for the connection to be closed after the answer (HTTP/1.1).
    pub connection_close: bool,
}

impl Script {
    /// Reads one script from JSON text.
    pub fn from_json(text: &[u8]) -> Result<Self, ScriptError> {
        Ok(serde_json::from_slice(text)?)
    }

    /// Whether a whole body may go out in one piece, without the pacing body.
    pub(crate) fn is_plain_wire(&self) -> bool {
        self.write_bytes.is_none()
            && self.cut_after_bytes.is_none()
            && self.cut_after.is_none()
            && self.stall_after.is_none()
    }

    pub(crate) fn gap(&self) -> Duration {
        Duration::from_millis(self.gap_ms)
    }

    pub(crate) fn ttft(&self) -> Duration {
        Duration::from_millis(self.ttft_ms)
    }

    /// The finish reason to report.
    pub(crate) fn finish(&self) -> &str {
        let natural = if self.tool_calls.is_empty() { "stop" } else { "tool_calls" };
        self.finish_reason.as_deref().unwrap_or(natural)
    }

    pub(crate) fn tier(&self) -> &str {
        self.service_tier.as_deref().unwrap_or("default")
    }

    /// Size of one filler chunk in bytes.
    pub(crate) fn filler_chunk(&self) -> usize {
        self.chunk_bytes.unwrap_or(4).max(1)
    }
}

/// A script, or a rule file, that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// Not JSON, or not a script.
    #[error("bad mock script: {0}")]
    Json(#[from] serde_json::Error),
}

/// A tool call of the answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolCall {
    /// Call id. Default `call_mock_<index>`.
    pub id: Option<String>,
    /// Name of the function or custom tool.
    pub name: String,
    /// Arguments: a string verbatim (it may be broken JSON), any other JSON value in its text form.
    pub arguments: Value,
    /// A custom tool call: `arguments` is then its free-form input.
    pub custom: bool,
}

impl ToolCall {
    /// The call id of the call at `index`.
    pub(crate) fn call_id(&self, index: usize) -> String {
        self.id.clone().unwrap_or_else(|| format!("call_mock_{index}"))
    }

    /// The arguments as text.
    pub(crate) fn argument_text(&self) -> String {
        verbatim(&self.arguments)
    }
}

/// An error answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorAnswer {
    /// HTTP status. Default 500.
    pub status: Option<u16>,
    /// Body: a string verbatim, any other JSON value in its text form. Default: an error object.
    #[serde(deserialize_with = "present")]
    pub body: Option<Value>,
    /// Content type. Default `application/json`.
    pub content_type: Option<String>,
}

/// Name of the member that carries the reasoning text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningField {
    /// `reasoning_content`.
    #[default]
    ReasoningContent,
    /// `reasoning`.
    Reasoning,
}

impl ReasoningField {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ReasoningContent => "reasoning_content",
            Self::Reasoning => "reasoning",
        }
    }
}

/// Where a stream carries its usage. Buffered answers carry it unless `none`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsagePlacement {
    /// An extra chunk without choices at the end, only when `stream_options.include_usage` asks.
    #[default]
    Openai,
    /// In the chunk that carries the finish reason, asked for or not.
    AlwaysFinal,
    /// As `x_groq.usage` of the chunk that carries the finish reason.
    XGroq,
    /// In every chunk, cumulative.
    EveryChunk,
    /// Nowhere.
    None,
}

/// Line ends of an event stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineEnd {
    /// `\n`.
    #[default]
    Lf,
    /// `\r\n`.
    Crlf,
    /// `\r`.
    Cr,
}

/// A content coding of the answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireCoding {
    /// gzip, flushed after every event.
    Gzip,
    /// zstd, flushed after every event.
    Zstd,
    /// brotli, flushed after every event.
    Br,
    /// No coding, but the header says `identity`.
    Identity,
}

/// A script value as text: strings verbatim, everything else as JSON.
pub(crate) fn verbatim(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Keeps a JSON `null` apart from an absent member.
fn present<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(input).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_usage_is_not_absent_usage() {
        assert_eq!(Script::from_json(b"{}").unwrap().usage, None);
        assert_eq!(Script::from_json(br#"{"usage":null}"#).unwrap().usage, Some(Value::Null));
    }

    #[test]
    fn misspelt_fields_are_refused() {
        let err = Script::from_json(br#"{"tfft_ms":1}"#).unwrap_err();
        assert!(err.to_string().contains("tfft_ms"), "{err}");
    }

    #[test]
    fn names_of_the_choices() {
        let script = Script::from_json(
            br#"{"crlf":"cr","usage_placement":"x_groq","reasoning_field":"reasoning","content_encoding":"br"}"#,
        )
        .unwrap();
        assert_eq!(script.crlf, LineEnd::Cr);
        assert_eq!(script.usage_placement, UsagePlacement::XGroq);
        assert_eq!(script.reasoning_field.name(), "reasoning");
        assert_eq!(script.content_encoding, Some(WireCoding::Br));
    }
}
