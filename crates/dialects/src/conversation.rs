//! What was said, apart from how a dialect writes it: what the readers of all dialects give, plain data for the record.
//!
//! Runs on a telemetry thread. Bounded: past `Room` texts are cut and messages left out, and that is said.

/// Text that one conversation holds, in bytes.
const MOST_TEXT: usize = 8 << 20;
/// Messages, parts and tools that one conversation holds.
const MOST_ITEMS: usize = 20_000;

/// Instructions, messages, answers, tools, and how it was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// Instructions that stand apart from the messages.
    pub instructions: Vec<Part>,
    /// The messages that were sent.
    pub input: Vec<Message>,
    /// One per choice.
    pub output: Vec<Message>,
    /// Tools that the model might call.
    pub tools: Vec<Tool>,
    /// How it was asked.
    pub parameters: Parameters,
    /// The answer's id.
    pub response_id: Option<String>,
    /// The model that says it answered.
    pub response_model: Option<String>,
    /// Whether something was left out for its size.
    pub is_cut: bool,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// As it is written there.
    pub role: String,
    /// The participant's name.
    pub name: Option<String>,
    /// What it says.
    pub parts: Vec<Part>,
    /// Of answers, in the provider's words.
    pub finish_reason: Option<String>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// What the model thought.
    Reasoning(String),
    /// The model's refusal.
    Refusal(String),
    /// A call of a tool: its id, its name, its arguments as the model wrote them.
    ToolCall(Option<String>, String, String),
    /// A tool's answer: the call's id; text or JSON.
    ToolResult(Option<String>, String),
    /// An image, a sound, a document.
    Media(Media),
    /// Anything else: its type, and all of it as JSON.
    Other(String, String),
}

/// An image, a sound, a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// `image`, `audio`, `video` or `document`.
    pub modality: &'static str,
    /// Where it is known.
    pub mime_type: Option<String>,
    /// Where it is.
    pub source: Source,
    /// What is said in it.
    pub transcript: Option<String>,
}

/// Where a medium is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the body; how long its text is there, in bytes.
    Inline(usize),
    /// At this address.
    Uri(String),
    /// At the provider, under this id.
    File(String),
}

/// A tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tool {
    /// `function`, or another kind.
    pub kind: String,
    /// Empty where the kind says it all.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub parameters: Option<String>,
}

/// How the model was asked.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the dialects")]
pub struct Parameters {
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub seed: Option<i64>,
    pub choices: Option<u64>,
    pub stop: Vec<String>,
    pub output_type: Option<&'static str>,
    pub reasoning_level: Option<String>,
    pub previous_response_id: Option<String>,
}

/// What may still be kept.
#[derive(Debug)]
pub(crate) struct Room {
    text: usize,
    items: usize,
    pub(crate) is_cut: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self { text: MOST_TEXT, items: MOST_ITEMS, is_cut: false }
    }
}

impl Room {
    /// The text, or as much of it as there is room for.
    pub(crate) fn text(&mut self, mut text: String) -> String {
        if text.len() > self.text {
            text.truncate(text.floor_char_boundary(self.text));
            text.shrink_to_fit();
            self.is_cut = true;
        }
        self.text -= text.len();
        text
    }

    /// Whether there is room for one thing more.
    pub(crate) fn item(&mut self) -> bool {
        self.is_cut |= self.items == 0;
        let has_room = self.items > 0;
        self.items = self.items.saturating_sub(1);
        has_room
    }
}
