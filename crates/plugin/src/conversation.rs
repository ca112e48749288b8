//! What was said in a request, as plain data: for exporters that show messages and must not read wire formats.
//!
//! Asked for with [`crate::SettingsSpec::needs`], read with [`crate::RequestMetrics::conversation`]. The pipeline fills
//! it from the record's own bodies, after secrets were taken out of them, so it never says more than they do. The parts
//! are those of the OpenTelemetry semantic conventions for generative AI (`gen_ai.input.messages` and its like).

/// What was said: instructions, the messages so far, what the model answered, and how it was asked.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Conversation {
    /// Instructions that stand apart from the messages.
    pub instructions: Vec<Part>,
    /// The messages that were sent, oldest first.
    pub input: Vec<Message>,
    /// What was answered: one message per choice.
    pub output: Vec<Message>,
    /// The tools that the model might call.
    pub tools: Vec<Tool>,
    /// How it was asked.
    pub parameters: Parameters,
    /// The provider's id of the answer.
    pub response_id: Option<String>,
    /// The model that says it answered.
    pub response_model: Option<String>,
    /// Whether something was left out for its size.
    pub is_cut: bool,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what else the caller wrote.
    pub role: String,
    /// The participant's name.
    pub name: Option<String>,
    /// What it says.
    pub parts: Vec<Part>,
    /// Why it ends, in the provider's words; of answers.
    pub finish_reason: Option<String>,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Part {
    /// Text.
    Text(String),
    /// What the model thought on the way.
    Reasoning(String),
    /// The model's refusal to answer.
    Refusal(String),
    /// The model calls a tool.
    ToolCall {
        /// What its result will refer to.
        id: Option<String>,
        /// The tool.
        name: String,
        /// As the model wrote them: JSON, most of the time.
        arguments: String,
    },
    /// What a tool answered.
    ToolResult {
        /// The call.
        id: Option<String>,
        /// Text, or JSON.
        result: String,
    },
    /// An image, a sound, a document.
    Media {
        /// `image`, `audio`, `video` or `document`.
        modality: &'static str,
        /// Its media type, where it is known.
        mime_type: Option<String>,
        /// Where it is.
        source: Source,
        /// What is said in it.
        transcript: Option<String>,
    },
    /// Anything else.
    Other {
        /// Its type in the wire format.
        kind: String,
        /// All of it, as JSON.
        json: String,
    },
}

/// Where a medium is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// In the body, which has it; here is only how long its text is there, in bytes.
    Inline {
        /// Of the encoded text.
        bytes: usize,
    },
    /// At this address.
    Uri(String),
    /// At the provider, under this id.
    File(String),
}

/// A tool that the model may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tool {
    /// `function`, or a kind of the provider's own.
    pub kind: String,
    /// Its name; empty where the kind says it all.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub parameters: Option<String>,
}

/// How the model was asked. Unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Parameters {
    /// Tokens of the answer, at most.
    pub max_tokens: Option<u64>,
    /// Sampling.
    pub temperature: Option<f64>,
    /// Sampling.
    pub top_p: Option<f64>,
    /// Sampling.
    pub top_k: Option<u64>,
    /// Sampling.
    pub frequency_penalty: Option<f64>,
    /// Sampling.
    pub presence_penalty: Option<f64>,
    /// Sampling.
    pub seed: Option<i64>,
    /// Answers that were asked for.
    pub choices: Option<u64>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// What the answer shall be: `text`, `json`, `image`, `speech`.
    pub output_type: Option<&'static str>,
    /// How hard the model shall think.
    pub reasoning_level: Option<String>,
    /// The answer that this one continues.
    pub previous_response_id: Option<String>,
}

impl Message {
    /// A message of this role.
    pub fn new(role: impl Into<String>, parts: Vec<Part>) -> Self {
        Self { role: role.into(), parts, ..Self::default() }
    }
}

impl Conversation {
    /// What it occupies, in bytes.
    pub fn memory(&self) -> usize {
        let messages = self.input.iter().chain(&self.output);
        let messages = messages.map(|message| {
            let texts = message.role.len() + message.name.as_ref().map_or(0, String::len);
            size_of::<Message>() + texts + parts(&message.parts)
        });
        let tools = self.tools.iter().map(|tool| {
            let texts = [&tool.description, &tool.parameters].into_iter().flatten().map(String::len);
            size_of::<Tool>() + tool.kind.len() + tool.name.len() + texts.sum::<usize>()
        });
        size_of::<Self>() + parts(&self.instructions) + messages.sum::<usize>() + tools.sum::<usize>()
    }
}

fn parts(parts: &[Part]) -> usize {
    parts.iter().map(|part| size_of::<Part>() + part.text_len()).sum()
}

impl Part {
    fn text_len(&self) -> usize {
        let long = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        match self {
            Self::Text(text) | Self::Reasoning(text) | Self::Refusal(text) => text.len(),
            Self::ToolCall { id, name, arguments } => long(id) + name.len() + arguments.len(),
            Self::ToolResult { id, result } => long(id) + result.len(),
            Self::Media { mime_type, source, transcript, .. } => {
                let source = match source {
                    Source::Inline { .. } => 0,
                    Source::Uri(text) | Source::File(text) => text.len(),
                };
                long(mime_type) + source + long(transcript)
            }
            Self::Other { kind, json } => kind.len() + json.len(),
        }
    }
}
