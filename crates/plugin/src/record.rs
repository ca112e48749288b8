//! The record: what one request was, sealed once, shared by all exporters (design, section 2).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use magicapi_model::{Money, Outcome, RequestId, Usage};
use serde::{Deserialize, Serialize};

use crate::encode::{self, Frame};
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

/// Where a cost comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CostSource {
    /// Computed from the price table.
    Table,
    /// Reported by the provider, the table having no price.
    Provider,
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

/// A word of a closed list (`docs/record.md`).
pub type Word = &'static str;

/// Everything about a request but its bodies. Unknown is `None`. Filled while the request runs; in an exporter's hands
/// it no longer changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Facts {
    /// Minted by the gateway.
    pub id: RequestId,
    /// When the request's head had been read.
    pub timestamp: SystemTime,
    /// `x-thread-id`.
    pub thread_id: Option<String>,
    /// `x-organisation-id`, `x-organization-id`.
    pub org_id: Option<String>,
    /// `x-user-id`.
    pub user_id: Option<String>,
    /// The key's project, else `x-project-id`.
    pub project_id: Option<String>,
    /// `x-project-name`.
    pub project_name: Option<String>,
    /// `x-experiment-id`; written only when it came.
    pub experiment_id: Option<String>,
    /// The provider asked last.
    pub provider: Option<String>,
    /// Host of the provider's address, and its port.
    #[serde(default)]
    pub server: Option<(String, u16)>,
    /// The model sent upstream last.
    pub model: Option<String>,
    /// The model as the caller named it.
    pub requested_model: Option<String>,
    /// Request head read → last byte handed to the client, in milliseconds.
    pub latency_ms: u64,
    /// Request head read → first body byte handed to the client, in milliseconds.
    pub ttfb_ms: Option<u64>,
    /// Request sent → the provider's response head, last attempt, in milliseconds.
    pub provider_latency_ms: Option<u64>,
    /// Tokens, in disjoint buckets.
    pub usage: Usage,
    /// Whether `usage` is what the provider will bill, or a lower bound (the answer was cut before its usage).
    pub usage_final: bool,
    /// What it cost.
    #[serde(default, with = "stored::pico_usd")]
    pub cost: Option<Money>,
    /// Where `cost` comes from.
    pub cost_source: Option<CostSource>,
    /// The price table that was used.
    pub price_version: Option<String>,
    /// The service tier that the answer names.
    pub service_tier: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// As received, without the query.
    pub path: String,
    /// The HTTP method.
    pub method: String,
    /// Body bytes received from the caller.
    pub request_size: u64,
    /// Body bytes handed to the caller.
    pub response_size: u64,
    /// What the caller got; 499 when it left before the head.
    pub status_code: u16,
    /// The provider's last answer; 0 when it never answered.
    pub provider_status_code: u16,
    /// From a closed list (`docs/record.md`).
    #[serde(default, deserialize_with = "stored::maybe_word")]
    pub error_type: Option<Word>,
    /// What the caller was told, or would have been.
    pub error_message: Option<String>,
    /// Failed attempts.
    pub provider_error_count: u32,
    /// From a closed list (`docs/record.md`).
    #[serde(default, deserialize_with = "stored::maybe_word")]
    pub provider_error_type: Option<Word>,
    /// The provider's own id for the answer.
    pub provider_request_id: Option<String>,
    /// The caller's `x-request-id`, cut to a bounded length; never a key.
    pub client_request_id: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// The route's name.
    pub route: Option<String>,
    /// What kind of call it was: `chat`, `embeddings`, `proxy`, …
    #[serde(deserialize_with = "stored::word")]
    pub operation: Word,
    /// Whether the answer was a stream of events.
    pub streamed: bool,
    /// One per choice.
    pub finish_reasons: Vec<String>,
    /// The virtual key's name.
    pub key_name: Option<String>,
    /// Whose provider key was used: `caller`, `gateway` or `none`.
    #[serde(default, deserialize_with = "stored::maybe_word")]
    pub credential: Option<Word>,
    /// From `traceparent`.
    pub trace_id: Option<String>,
    /// The caller's span, from `traceparent`.
    pub parent_span_id: Option<String>,
    /// `tracestate` beside a valid `traceparent`; in no document of the record's.
    pub trace_state: Option<String>,
    /// Request parameters that were left out for this provider.
    pub params_dropped: Vec<String>,
    /// Edits that were made to the request body.
    pub edits: Vec<String>,
    /// Bytes that capture limits left out: of the request, the response, the stream events.
    pub truncated: Truncated,
    /// Why bodies are missing.
    pub content_dropped: Option<ContentDropped>,
    /// What redaction took out, and how often: `{"openai_key": 1, "email": 2}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redacted: BTreeMap<String, u64>,
    /// The share of records that sampling keeps; 1 without sampling.
    pub sample_rate: f64,
}

/// Bytes that capture limits left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Truncated {
    /// Of the request body.
    #[serde(skip_serializing_if = "is_nothing")]
    pub request: u64,
    /// Of the response.
    #[serde(skip_serializing_if = "is_nothing")]
    pub response: u64,
    /// Of the stream's events.
    #[serde(skip_serializing_if = "is_nothing")]
    pub streamed_data: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_nothing(bytes: &u64) -> bool {
    *bytes == 0
}

impl Truncated {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Facts {
    /// Facts of a request that has just begun: everything else is unknown.
    pub fn new(id: RequestId, timestamp: SystemTime) -> Self {
        Self {
            id,
            timestamp,
            thread_id: None,
            org_id: None,
            user_id: None,
            project_id: None,
            project_name: None,
            experiment_id: None,
            provider: None,
            server: None,
            model: None,
            requested_model: None,
            latency_ms: 0,
            ttfb_ms: None,
            provider_latency_ms: None,
            usage: Usage::default(),
            usage_final: false,
            cost: None,
            cost_source: None,
            price_version: None,
            service_tier: None,
            outcome: Outcome::GatewayError,
            path: String::new(),
            method: String::new(),
            request_size: 0,
            response_size: 0,
            status_code: 0,
            provider_status_code: 0,
            error_type: None,
            error_message: None,
            provider_error_count: 0,
            provider_error_type: None,
            provider_request_id: None,
            client_request_id: None,
            attempts: 0,
            route: None,
            operation: "other",
            streamed: false,
            finish_reasons: Vec::new(),
            key_name: None,
            credential: None,
            trace_id: None,
            parent_span_id: None,
            trace_state: None,
            params_dropped: Vec::new(),
            edits: Vec::new(),
            truncated: Truncated::default(),
            content_dropped: None,
            redacted: BTreeMap::new(),
            sample_rate: 1.0,
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
