//! The spend ledger's rows (invariant 7): one per attempt, one roll-up per request, written by one place. What is read
//! back is what was written: names are borrowed on the way in and owned on the way out.

use std::borrow::Cow;
use std::time::SystemTime;

use magicapi_model::{Money, Outcome, RequestId, Usage};

/// One attempt at one provider.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRow {
    /// From 1.
    pub attempt: u32,
    /// The provider asked.
    pub provider: String,
    /// The model sent.
    pub model: Option<String>,
    /// The provider's status; 0 when it never answered.
    pub status_code: u16,
    /// Why it failed, from the closed list; `None` when it did not.
    pub error_type: Option<Cow<'static, str>>,
    /// Attempt begun → ended, in milliseconds.
    pub latency_ms: u64,
    /// Tokens of this attempt.
    pub usage: Usage,
    /// What it cost; unknown is `None`.
    pub cost: Option<Money>,
}

/// The roll-up of one request, with its attempts; they are stored together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerEntry {
    /// Minted by the gateway: the row's key.
    pub id: RequestId,
    /// When the request's head had been read.
    pub timestamp: SystemTime,
    /// The virtual key's name.
    pub key_name: Option<String>,
    /// The key's project, else `x-project-id`.
    pub project_id: Option<String>,
    /// `x-organisation-id`.
    pub org_id: Option<String>,
    /// `x-user-id`.
    pub user_id: Option<String>,
    /// The provider asked last.
    pub provider: Option<String>,
    /// The model sent last.
    pub model: Option<String>,
    /// `chat`, `embeddings`, …
    pub operation: Cow<'static, str>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the caller got.
    pub status_code: u16,
    /// Tokens, in disjoint buckets.
    pub usage: Usage,
    /// Whether the usage is final or a lower bound.
    pub usage_final: bool,
    /// What it cost; unknown is `None`.
    pub cost: Option<Money>,
    /// The price table used, so that the cost can be computed again.
    pub price_version: Option<String>,
    /// The tier that the answer named: an input of the price.
    pub service_tier: Option<String>,
    /// One per attempt, in order; none when no provider was asked.
    pub attempts: Vec<AttemptRow>,
}

/// Where rows go. Nobody waits for it.
pub trait Ledger: Send + Sync {
    /// Whether it can take a row now. With `ledger.on_full: refuse` a new request is a 503 while it cannot.
    fn ready(&self) -> bool;

    /// Takes the rows of one request without waiting; rows that do not fit are counted as missing.
    fn record(&self, entry: LedgerEntry);
}
