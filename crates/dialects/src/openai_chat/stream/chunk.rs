//! One event's JSON, read from front to back before anything of it is taken over.

use super::{ChoiceFacts, MOST_CHOICES};
use crate::json::{Cursor, Scan, Value};
use crate::openai_chat::error::Members;

/// What one event's JSON holds, before it is taken over.
#[derive(Default)]
pub(super) struct Chunk<'a> {
    pub(super) has_choices: bool,
    /// Whether a choice made progress.
    pub(super) progress: bool,
    pub(super) usage: Option<Value<'a>>,
    pub(super) groq: Option<Value<'a>>,
    pub(super) response: Option<Value<'a>>,
    pub(super) id: Option<Value<'a>>,
    pub(super) model: Option<Value<'a>>,
    pub(super) service_tier: Option<Value<'a>>,
    pub(super) kind: Option<Value<'a>>,
    pub(super) errors: Members<'a>,
    pub(super) members: usize,
}

/// How an event of a named dialect moves the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Lifecycle or keep-alive.
    Idle,
    /// Content.
    Progress,
    /// The answer is whole, but more may follow (another image, a terminator).
    Close,
    /// The last event.
    End,
    /// The last event, an error.
    Fail,
}

impl<'a> Chunk<'a> {
    /// Takes note of a member.
    pub(super) fn see(&mut self, key: &str, value: Value<'a>) {
        self.members += 1;
        let slot = match key {
            "usage" => &mut self.usage,
            "x_groq" => &mut self.groq,
            "response" => &mut self.response,
            "id" => &mut self.id,
            "model" => &mut self.model,
            "service_tier" => &mut self.service_tier,
            "type" => {
                self.errors.see(key, value);
                &mut self.kind
            }
            _ => return self.errors.see(key, value),
        };
        *slot = Some(value);
    }

    /// Cerebras and old vLLM: `{message, type, param, code}` without anything of an answer.
    pub(super) fn is_flat_error(&self) -> bool {
        !self.has_choices && self.usage.is_none() && self.response.is_none() && self.errors.has_code()
    }
}

/// Crosses `choices` in one go.
pub(super) fn read_choices(
    cursor: &mut Cursor<'_>,
    choices: &mut Vec<ChoiceFacts>,
    progress: &mut bool,
) -> Scan<()> {
    if !cursor.at_array() {
        return cursor.value().map(drop);
    }
    cursor.elements(|cursor| {
        let mut choice = ChoiceFacts { index: choices.len() as u64, finish_reason: None };
        if cursor.at_object() {
            cursor.members(|key, cursor| read_choice_member(key, cursor, &mut choice, progress))?;
        } else {
            cursor.value()?;
        }
        *progress |= choice.finish_reason.is_some();
        if choices.len() < MOST_CHOICES {
            choices.push(choice);
        }
        Ok(())
    })
}

fn read_choice_member(
    key: &str,
    cursor: &mut Cursor<'_>,
    choice: &mut ChoiceFacts,
    progress: &mut bool,
) -> Scan<()> {
    match key {
        "delta" | "message" if cursor.at_object() => {
            return cursor.members(|key, cursor| {
                let value = cursor.value()?;
                *progress |= key != "role" && value.says_something();
                Ok(())
            });
        }
        "index" => choice.index = cursor.value()?.count().unwrap_or(choice.index),
        "finish_reason" => choice.finish_reason = cursor.value()?.some_text(),
        "text" => *progress |= cursor.value()?.says_something(),
        _ => drop(cursor.value()?),
    }
    Ok(())
}

/// What a named event does, by its `type` (wire-formats 6.5 and 8).
pub(super) fn step(kind: &[u8]) -> Step {
    match kind {
        b"response.completed" | b"response.incomplete" => Step::End,
        b"response.failed" | b"error" => Step::Fail,
        b"response.created"
        | b"response.queued"
        | b"response.in_progress"
        | b"keepalive"
        | b"ping"
        | b"heartbeat" => Step::Idle,
        b"image_generation.completed"
        | b"image_edit.completed"
        | b"speech.audio.done"
        | b"transcript.text.done" => Step::Close,
        _ => Step::Progress,
    }
}
