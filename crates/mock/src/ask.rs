//! The parts of a JSON request that shape an answer. Read with borrowed, raw pieces, because the
//! mock is also the upstream of benchmarks and a prompt may be large.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::failure::Failure;

/// Longest echo of the user's text, in characters.
const ECHO_CHARS: usize = 200;

/// A request body as far as the mock cares.
#[derive(Deserialize)]
pub(crate) struct Ask<'a> {
    #[serde(borrow, default)]
    pub(crate) model: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    pub(crate) n: Option<u32>,
    #[serde(borrow, default)]
    pub(crate) messages: Option<Vec<Message<'a>>>,
    #[serde(borrow, default)]
    pub(crate) prompt: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// A chat message, or an input item of the responses endpoint.
#[derive(Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

/// A string read without a copy where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What a prompt comes to.
#[derive(Default)]
pub(crate) struct Prompt {
    /// Words of all texts.
    pub(crate) words: u64,
    /// The last user text.
    pub(crate) last_user: String,
}

impl<'a> Ask<'a> {
    /// Reads a request body.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|err| {
            Failure::bad_request(format!("We could not parse the JSON body of your request: {err}"), None)
        })
    }

    /// The model, which every JSON endpoint asks for.
    pub(crate) fn need_model(&self) -> Result<&str, Failure> {
        self.model.as_deref().ok_or_else(|| {
            Failure::bad_request("you must provide a model parameter".to_owned(), Some("model"))
        })
    }

    pub(crate) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    pub(crate) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|o| o.include_usage == Some(true))
    }

    /// The prompt of a chat request.
    pub(crate) fn chat_prompt(&self) -> Result<Prompt, Failure> {
        match &self.messages {
            Some(messages) if !messages.is_empty() => Ok(Prompt::of(messages)),
            _ => {
                let message = "Missing required parameter: 'messages'.".to_owned();
                Err(Failure::bad_request(message, Some("messages")))
            }
        }
    }

    /// The prompt of a completions or responses request: a string, a list of strings, or items.
    pub(crate) fn loose_prompt(&self) -> Prompt {
        let Some(raw) = self.prompt.or(self.input) else { return Prompt::default() };
        if let Ok(items) = serde_json::from_str::<Vec<Message<'_>>>(raw.get()) {
            return Prompt::of(&items);
        }
        let texts = texts(raw);
        Prompt {
            words: texts.iter().map(|t| count(t)).sum(),
            last_user: texts.last().map(|t| echo(t)).unwrap_or_default(),
        }
    }
}

impl Prompt {
    fn of(messages: &[Message<'_>]) -> Self {
        let mut words = 0;
        let last_user = messages.iter().rposition(|m| m.role.as_deref() == Some("user"));
        let mut echoed = String::new();
        for (at, message) in messages.iter().enumerate() {
            let texts = message.content.map(texts).unwrap_or_default();
            words += texts.iter().map(|t| count(t)).sum::<u64>();
            if Some(at) == last_user {
                echoed = texts.last().map(|t| echo(t)).unwrap_or_default();
            }
        }
        Self { words, last_user: echoed }
    }
}

/// The texts in a content: a string, a list of parts, or a list of strings.
pub(crate) fn texts(raw: &RawValue) -> Vec<Cow<'_, str>> {
    let json = raw.get();
    if json.starts_with('"') {
        return serde_json::from_str::<Text<'_>>(json).map(|t| vec![t.0]).unwrap_or_default();
    }
    if let Ok(parts) = serde_json::from_str::<Vec<Part<'_>>>(json) {
        return parts.into_iter().filter_map(|p| p.text).collect();
    }
    let strings = serde_json::from_str::<Vec<Text<'_>>>(json).unwrap_or_default();
    strings.into_iter().map(|t| t.0).collect()
}

/// Words of a text: what the mock calls tokens.
pub(crate) fn count(text: &str) -> u64 {
    text.split_ascii_whitespace().count() as u64
}

fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chat_prompt_counts_and_echoes() {
        let body = br#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.5,
            "messages":[{"role":"system","content":"be brief"},
            {"role":"user","content":[{"type":"text","text":"one \"two\""},{"type":"image_url","image_url":{"url":"x"}}]},
            {"role":"assistant","content":null,"tool_calls":[]}]}"#;
        let ask = Ask::parse(body).unwrap();
        let prompt = ask.chat_prompt().unwrap();
        assert_eq!((prompt.words, prompt.last_user.as_str()), (4, "one \"two\""));
        assert!(ask.streams() && ask.wants_usage());
    }

    #[test]
    fn loose_prompts() {
        let prompt = |body: &str| Ask::parse(body.as_bytes()).unwrap().loose_prompt().last_user;
        assert_eq!(prompt(r#"{"prompt":"a b"}"#), "a b");
        assert_eq!(prompt(r#"{"prompt":["a","c d"]}"#), "c d");
        assert_eq!(
            prompt(r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"hey"}]}]}"#),
            "hey"
        );
    }

    #[test]
    fn refusals() {
        assert_eq!(Ask::parse(b"{nope").err().unwrap().status, 400);
        assert!(Ask::parse(b"{}").unwrap().chat_prompt().is_err());
        assert!(Ask::parse(b"{}").unwrap().need_model().is_err());
    }
}
