//! What is known of a request besides its bodies (design, section 2).

use std::collections::BTreeMap;
use std::time::SystemTime;

use magicapi_model::{Money, Outcome, RequestId, Usage};
use serde::{Deserialize, Serialize};

use crate::record::ContentDropped;
use crate::stored;

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
