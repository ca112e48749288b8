//! The record: what one request was, sealed once, shared by all exporters (design, section 2).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use magicapi_model::RequestId;
use serde::{Deserialize, Serialize};

use crate::encode::{self, Frame};
use crate::facts::Facts;
use crate::stored::{self, StoredError};
use crate::{Conversation, TelemetryConfig};

/// How much of the bodies an exporter gets.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContentLevel {
    /// No bodies.
    Metadata,
    /// Bodies, without the single stream events.
    NoChunks,
    /// Everything.
    #[default]
    Full,
}

/// Why a record has no bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContentDropped {
    /// The configuration keeps them out of this record.
    Config,
    /// There was no memory for them.
    Memory,
    /// The back end refused the size.
    TooLarge,
    /// Reading them failed.
    Panic,
    /// Taking secrets out of them failed.
    Redaction,
}

impl ContentDropped {
    /// Every reason.
    pub const ALL: &'static [Self] =
        &[Self::Config, Self::Memory, Self::TooLarge, Self::Panic, Self::Redaction];

    /// The reason's word, in records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Memory => "memory",
            Self::TooLarge => "too_large",
            Self::Panic => "panic",
            Self::Redaction => "redaction",
        }
    }
}

/// One finished request. Immutable; encoded at most once, for all exporters.
#[derive(Debug)]
pub struct RequestMetrics {
    facts: Facts,
    resource: Arc<TelemetryConfig>,
    request: Option<Bytes>,
    response: Option<Bytes>,
    streamed_data: Option<Bytes>,
    conversation: Option<Arc<Conversation>>,
    frame: OnceLock<Frame>,
    joined: OnceLock<Bytes>,
}

impl RequestMetrics {
    /// Seals a record. Bodies are JSON documents on one line; `streamed_data` is a JSON array that belongs at the end
    /// of `response`, which then is an object.
    pub fn seal(
        facts: Facts,
        resource: Arc<TelemetryConfig>,
        request: Option<Bytes>,
        response: Option<Bytes>,
        streamed_data: Option<Bytes>,
    ) -> Self {
        let (frame, joined) = (OnceLock::new(), OnceLock::new());
        Self { facts, resource, request, response, streamed_data, conversation: None, frame, joined }
    }

    /// Everything but the bodies.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The record's id.
    pub fn id(&self) -> RequestId {
        self.facts.id
    }

    /// Names of the gateway.
    pub fn resource(&self) -> &TelemetryConfig {
        &self.resource
    }

    /// The caller's request body, as JSON.
    pub fn request(&self) -> Option<&Bytes> {
        self.request.as_ref()
    }

    /// The response body as JSON, a stream's joined, without `streamed_data`.
    pub fn response(&self) -> Option<&Bytes> {
        self.response.as_ref()
    }

    /// The stream's events, as a JSON array.
    pub fn streamed_data(&self) -> Option<&Bytes> {
        self.streamed_data.as_ref()
    }

    /// The same record with what was said in it; the pipeline's own call, for exporters that need it.
    pub fn with_conversation(mut self, conversation: Option<Arc<Conversation>>) -> Self {
        self.conversation = conversation;
        self
    }

    /// What was said, as plain data; `None` when the exporter did not ask for it ([`crate::SettingsSpec::needs`]), when
    /// the record has no bodies, or when they hold no messages.
    pub fn conversation(&self) -> Option<&Conversation> {
        self.conversation.as_deref()
    }

    /// A handle to the same.
    pub fn shared_conversation(&self) -> Option<Arc<Conversation>> {
        self.conversation.clone()
    }

    /// The record as an OpenTelemetry-compatible log document. A body that [`serde_json::Value`] cannot hold (a number
    /// such as `1e400`) stands in it as its text, marked.
    pub fn to_otel_log(&self) -> serde_json::Value {
        encode::value(self)
    }

    /// The same document, encoded: one line, bodies as they were. For whom the line may come in pieces,
    /// [`Self::otel_log_pieces`] is cheaper.
    pub fn otel_log_json(&self) -> Bytes {
        self.joined.get_or_init(|| self.otel_log_pieces().collect::<Vec<_>>().concat().into()).clone()
    }

    /// The line of [`Self::otel_log_json`] as pieces that follow one another: bodies are not copied.
    pub fn otel_log_pieces(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.frame.get_or_init(|| Frame::new(self)).pieces(self)
    }

    /// The line's length.
    pub fn otel_log_len(&self) -> usize {
        self.otel_log_pieces().map(<[u8]>::len).sum()
    }

    /// The whole record as bytes that [`Self::from_stored`] reads, in this release and every later one.
    pub fn to_stored(&self) -> Vec<u8> {
        stored::write(self)
    }

    /// Reads what [`Self::to_stored`] wrote; the bodies share its allocation.
    pub fn from_stored(bytes: &Bytes) -> Result<Self, StoredError> {
        stored::read(bytes)
    }

    /// The same record with less content; bodies that are left out are marked [`ContentDropped::Config`].
    pub fn with_content(&self, level: ContentLevel) -> Self {
        let mut facts = self.facts.clone();
        let had_bodies = self.request.is_some() || self.response.is_some();
        if level == ContentLevel::Metadata && had_bodies {
            facts.content_dropped = Some(ContentDropped::Config);
        }
        let keep = |body: &Option<Bytes>, from: ContentLevel| body.clone().filter(|_| level >= from);
        Self::seal(
            facts,
            self.resource.clone(),
            keep(&self.request, ContentLevel::NoChunks),
            keep(&self.response, ContentLevel::NoChunks),
            keep(&self.streamed_data, ContentLevel::Full),
        )
        .with_conversation(self.conversation.clone().filter(|_| level > ContentLevel::Metadata))
    }

    /// The same record without bodies, for this reason.
    pub fn without_content(&self, reason: ContentDropped) -> Self {
        let mut facts = self.facts.clone();
        facts.content_dropped = Some(reason);
        Self::seal(facts, self.resource.clone(), None, None, None)
    }

    /// What the record occupies, in bytes: bodies by their allocations, the rest estimated.
    pub fn memory(&self) -> usize {
        const FACTS: usize = 2048;
        let body = |body: &Option<Bytes>| body.as_ref().map_or(0, Bytes::len);
        let bodies = body(&self.request) + body(&self.response) + body(&self.streamed_data);
        // An exporter may hold the bodies once more, in a document or in a batch.
        FACTS + 2 * bodies + self.conversation().map_or(0, Conversation::memory)
    }
}
