//! Captured bytes to the record's documents (design section 2): the only file here that knows the dialects.
//!
//! JSON stays as it is, token for token, on one line. A stream is joined. Anything else becomes a description of itself:
//! `{"content_type","bytes","sha256"}` with `text` for text types and `parts` for multipart.

use std::borrow::Cow;

use bytes::Bytes;
use magicapi_dialects::encoding::{Coding, DecodeError, Decoder};
use magicapi_dialects::openai_chat::{Join, join};
use magicapi_dialects::sse::{Framer, Verdict};
use magicapi_dialects::{json, multipart};
use magicapi_plugin::{ContentLevel, Truncated};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::redact::Described;
use crate::settings::CaptureSettings;
use crate::tap::{Block, BodyKind, Capture, Captured, Finished};

/// How much is decoded before the limit is looked at.
const DECODE_STEP: usize = 64 << 10;

/// A record's bodies.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    pub(crate) request: Option<Bytes>,
    pub(crate) response: Option<Bytes>,
    pub(crate) streamed_data: Option<Bytes>,
    pub(crate) truncated: Truncated,
    pub(crate) described: Described,
}

/// One body, decoded.
struct Content {
    bytes: Bytes,
    /// Bytes that are not in it.
    left_out: u64,
    /// Whether it ends early, whoever cut it.
    cut: bool,
    /// The coding that could not be undone.
    coded: bool,
}

/// Makes the documents of a record at this level. Empty bodies are no documents.
pub(crate) fn read(capture: &mut Capture, end: &Finished, level: ContentLevel) -> Bodies {
    let mut bodies = Bodies::default();
    if level == ContentLevel::Metadata {
        return bodies;
    }
    let limits = capture.limits;
    let coding = end.request_coding.as_deref();
    let captured = std::mem::take(&mut capture.request);
    bodies.truncated.request = captured.left_out;
    if let Some(request) = Content::read(captured, coding, limits.max_request) {
        bodies.truncated.request = request.left_out;
        let (request, described) = document(&request, end.request_type.as_deref(), coding);
        (bodies.request, bodies.described.request) = (Some(request), described);
    }
    let coding = end.response_coding.as_deref();
    let stream = end.response_kind == BodyKind::EventStream;
    let limit = if stream { limits.max_response.max(limits.max_chunks) } else { limits.max_response };
    let captured = std::mem::take(&mut capture.response);
    bodies.truncated.response = captured.left_out;
    let Some(response) = Content::read(captured, coding, limit) else { return bodies };
    let joined = if stream && !response.coded { join(&response, end, limits, level) } else { None };
    if let Some(joined) = joined {
        (bodies.response, bodies.streamed_data) = (Some(joined.response), joined.events);
        bodies.truncated.response = joined.left_out.response;
        // Past the capture's own limit the stream's bytes are events for the most part.
        bodies.truncated.streamed_data = joined.left_out.streamed_data + response.left_out;
    } else {
        bodies.truncated.response = response.left_out;
        let (response, described) = document(&response, end.response_type.as_deref(), coding);
        (bodies.response, bodies.described.response) = (Some(response), described);
    }
    bodies
}

impl Content {
    /// Gathers and decodes a body; `None` when nothing was captured.
    fn read(captured: Captured, coding: Option<&str>, limit: usize) -> Option<Self> {
        if captured.is_empty() {
            return None;
        }
        let left_out = captured.left_out;
        let content = match coding.map(Coding::parse) {
            None | Some(Some(Coding::Identity)) => Self::plain(gather(captured), left_out, limit),
            Some(Some(coding)) => Self::decode(gather(captured), left_out, coding, limit),
            Some(None) => Self { coded: true, ..Self::plain(gather(captured), left_out, limit) },
        };
        Some(content)
    }

    fn plain(mut bytes: Bytes, left_out: u64, limit: usize) -> Self {
        let over = bytes.len().saturating_sub(limit);
        let left_out = left_out + over as u64;
        bytes.truncate(bytes.len() - over);
        Self { bytes, left_out, cut: left_out > 0, coded: false }
    }

    /// What can be decoded; of what is over the limit the undecoded length is what is known.
    fn decode(bytes: Bytes, left_out: u64, coding: Coding, limit: usize) -> Self {
        let mut decoder = Decoder::new(coding, limit);
        let mut out = Vec::new();
        let mut done = 0;
        for step in bytes.chunks(DECODE_STEP) {
            if decoder.push(step, &mut out).is_err() {
                break;
            }
            done += step.len();
        }
        let end = decoder.finish(&mut out);
        if out.is_empty() && matches!(end, Err(DecodeError::Corrupt | DecodeError::Truncated)) {
            return Self { coded: true, ..Self::plain(bytes, left_out, limit) };
        }
        let left_out = left_out + (bytes.len() - done) as u64;
        Self { bytes: exact(out), left_out, cut: left_out > 0 || end.is_err(), coded: false }
    }

    fn is_json(&self, content_type: Option<&str>) -> bool {
        if self.cut || self.coded {
            return false;
        }
        let looks_so = matches!(self.bytes.trim_ascii_start().first(), Some(b'{' | b'['));
        (looks_so || content_type.is_none_or(is_json_type)) && json::valid(&self.bytes)
    }
}

/// One piece of exactly its size: what is kept must not pin more than it counts.
fn gather(captured: Captured) -> Bytes {
    let length = captured.len();
    let mut blocks = captured.blocks;
    if blocks.len() == 1 {
        return match blocks.pop() {
            Some(Block::Shared(bytes)) => bytes,
            Some(Block::Copied(bytes)) => exact(bytes),
            None => Bytes::new(),
        };
    }
    let mut all = Vec::with_capacity(length);
    for block in blocks {
        all.extend_from_slice(block.bytes());
    }
    all.into()
}

fn exact(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

struct JoinedStream {
    response: Bytes,
    events: Option<Bytes>,
    left_out: join::LeftOut,
}

/// Joins a stream's events; `None` when not one of them is JSON.
fn join(
    content: &Content,
    end: &Finished,
    limits: CaptureSettings,
    level: ContentLevel,
) -> Option<JoinedStream> {
    let mut join = Join::new(join::Limits {
        streamed_data: level == ContentLevel::Full,
        max_chunks: limits.max_chunks,
        max_response: limits.max_response,
    });
    let mut any = false;
    let mut judge = |event: &magicapi_dialects::sse::Event<'_>| {
        // What an end cut off is no event, unless it happens to be whole.
        if event.has_data && (event.terminated || json::valid(event.data.trim_ascii())) {
            any |= matches!(event.data.trim_ascii_start().first(), Some(b'{' | b'['));
            join.push(&event.data);
        }
        Verdict::Drop
    };
    // The whole stream is one chunk, so no event is larger than the framer holds.
    let mut framer = Framer::new(content.bytes.len());
    framer.relay(content.bytes.clone(), &mut judge);
    framer.finish(&mut judge);
    if !any {
        return None;
    }
    let facts = &end.facts;
    let joined = join.finish(facts.model.as_deref().or(facts.requested_model.as_deref()).unwrap_or_default());
    Some(JoinedStream {
        response: exact(joined.response),
        events: joined.streamed_data.map(exact),
        left_out: joined.left_out,
    })
}

/// A body that is no JSON, described.
#[derive(Serialize)]
struct Description<'a> {
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<&'a str>,
    bytes: u64,
    /// Of the whole; unknown when it is cut.
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<Vec<PartDescription<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct PartDescription<'a> {
    name: String,
    filename: Option<String>,
    content_type: Option<String>,
    bytes: u64,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
}

/// The body as one line of JSON, and whether that describes it.
fn document(content: &Content, content_type: Option<&str>, coding: Option<&str>) -> (Bytes, bool) {
    if content.is_json(content_type) {
        let line = match json::one_line(&content.bytes) {
            Cow::Borrowed(_) => content.bytes.clone(),
            Cow::Owned(line) => line.into(),
        };
        return (line, false);
    }
    let bytes = &content.bytes;
    let parts = match content_type {
        Some(media) if !content.coded => multipart::parts(media, bytes),
        _ => None,
    };
    let text =
        (parts.is_none() && !content.coded).then(|| text_of(bytes, content_type, content.cut)).flatten();
    let description = Description {
        content_type,
        content_encoding: coding.filter(|_| content.coded),
        bytes: bytes.len() as u64 + content.left_out,
        sha256: (!content.cut).then(|| sha256(bytes)),
        truncated: content.cut.then_some(true),
        parts: parts.map(|parts| parts.into_iter().map(|part| describe(part, bytes)).collect()),
        text,
    };
    // Plain data always serialises; were it ever not to, the record says `null`, not nothing.
    (serde_json::to_vec(&description).map_or_else(|_| Bytes::from_static(b"null"), exact), true)
}

fn describe(part: multipart::Part, body: &[u8]) -> PartDescription<'_> {
    let value = body.get(part.value).unwrap_or_default();
    // A field without a type of its own is text, unless it is a file.
    let media = part.content_type.as_deref().or(part.filename.is_none().then_some("text/plain"));
    PartDescription {
        text: media.and_then(|media| text_of(value, Some(media), false)),
        name: part.name,
        filename: part.filename,
        content_type: part.content_type,
        bytes: value.len() as u64,
        sha256: sha256(value),
    }
}

/// The text of a body of a text type, or without a type when it is UTF-8. A character that a cut went through is left out.
fn text_of<'a>(bytes: &'a [u8], content_type: Option<&str>, cut: bool) -> Option<Cow<'a, str>> {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if cut && error.error_len().is_none() => {
            bytes.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok())
        }
        Err(_) => None,
    };
    match content_type {
        None => valid.map(Cow::Borrowed),
        Some(media) if is_text_type(media) => {
            Some(valid.map_or_else(|| String::from_utf8_lossy(bytes), Cow::Borrowed))
        }
        Some(_) => None,
    }
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json_type(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence == "application/json" || essence.ends_with("+json")
}

fn is_text_type(content_type: &str) -> bool {
    const TEXT: [&str; 6] = [
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/x-ndjson",
        "application/jsonl",
        "application/yaml",
        "application/javascript",
    ];
    let essence = essence(content_type);
    let text = essence.starts_with("text/") || essence.ends_with("+xml") || TEXT.contains(&essence.as_str());
    text || is_json_type(content_type)
}

fn sha256(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)]));
    Sha256::digest(bytes).iter().flat_map(|byte| digits(*byte)).collect()
}

#[cfg(test)]
mod tests;
