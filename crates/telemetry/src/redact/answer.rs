//! Where the text of an event stands in the answer, for configured paths: they are written for the answer.
//!
//! A chat's events have the shape of the answer that they add up to. Those of `/responses` and its like do not: they name
//! an output and a part of it by index and carry, loose, what is added (`delta`) or whole (`text`, `item`, `part`).
//! Of other named events nobody here knows where in the answer their text belongs.

use super::paths::{Child, Paths, States};
use super::walk::Walk;

/// What is no text of the answer.
const MARKS: [&[u8]; 6] =
    [b"type", b"sequence_number", b"output_index", b"content_index", b"summary_index", b"annotation_index"];

/// Whether it is clear where in the answer this event's text belongs; if not, no path leads to it that should. `response` is
/// where paths stand at the response.
pub(super) fn is_understood(event: &[u8], paths: &Paths, response: &States) -> bool {
    let (mut kind, mut is_chunk, mut is_led_into, mut says_something) = (None, false, false, false);
    let read = Walk::new(event, paths, false).members(|key, value| {
        match key {
            b"type" => kind = Some(value),
            b"choices" => is_chunk = true,
            b"error" => {}
            _ => {
                is_led_into |= !paths.step(response, Child::Name(key)).is_empty();
                says_something |= matches!(value.first(), Some(b'"' | b'{' | b'['));
            }
        }
        true
    });
    if read.is_err() {
        // A string is an event that could not be read, and masked as such.
        return !event.starts_with(b"[");
    }
    let is_known = match kind {
        Some(kind) => kind.starts_with(b"\"response.") || kind == b"\"error\"",
        // It has the shape of what is made of it.
        None => is_led_into,
    };
    is_chunk || is_known || !says_something
}

/// How far paths lead to what an event is about.
#[derive(Default)]
pub(super) struct Answer {
    response: States,
    item: States,
    part: States,
    /// What is said about a piece of the part.
    annotation: States,
    /// The member of the part that deltas add to.
    word: Vec<u8>,
}

impl Answer {
    /// `None` for an event without a `type`, and when no path leads into the response.
    pub(super) fn of_event(event: &[u8], paths: &Paths, response: &States) -> Option<Self> {
        if response.is_empty() {
            return None;
        }
        let (mut kind, mut indexes) = (None, [None; 4]);
        // An event that is no object has no members.
        let _ = Walk::new(event, paths, false).members(|key, value| {
            match key {
                b"type" => kind = Some(value),
                b"output_index" => indexes[0] = index(value),
                b"content_index" => indexes[1] = index(value),
                b"summary_index" => indexes[2] = index(value),
                b"annotation_index" => indexes[3] = index(value),
                _ => {}
            }
            true
        });
        let [output, content, summary, annotation] = indexes;
        let element = |states: &States, name: &[u8], index: usize| {
            paths.below(&paths.below(states, Child::Name(name)), Child::Index(index))
        };
        let item = output.map_or_else(|| response.clone(), |index| element(response, b"output", index));
        let part = match (content, summary) {
            (Some(index), _) => element(&item, b"content", index),
            (None, Some(index)) => element(&item, b"summary", index),
            (None, None) => item.clone(),
        };
        let annotation = element(&part, b"annotations", annotation.unwrap_or_default());
        Some(Self { response: response.clone(), item, part, annotation, word: word(kind?) })
    }

    /// How far paths have come at this member of the event.
    pub(super) fn at(&self, name: &[u8], paths: &Paths) -> States {
        match name {
            b"response" => self.response.clone(),
            b"item" => self.item.clone(),
            b"item_id" => paths.below(&self.item, Child::Name(b"id")),
            b"part" => self.part.clone(),
            b"annotation" => self.annotation.clone(),
            b"delta" => paths.below(&self.part, Child::Name(&self.word)),
            _ if MARKS.contains(&name) => States::new(),
            _ => paths.below(&self.part, Child::Name(name)),
        }
    }
}

fn index(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `text` of `"response.output_text.delta"`, `arguments` of `"response.function_call_arguments.delta"`.
fn word(kind: &[u8]) -> Vec<u8> {
    let kind = kind.strip_suffix(b".delta\"").unwrap_or(kind);
    kind.rsplit(|byte| matches!(byte, b'.' | b'_')).next().unwrap_or_default().to_vec()
}
