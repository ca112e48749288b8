//! A ledger entry as it stands in the journal: one JSON document. A field that a later release adds is absent here and
//! takes its default; one that it drops is ignored.

use std::borrow::Cow;

use magicapi_kernel::{AttemptRow, LedgerEntry};
use magicapi_model::{Money, Outcome, RequestId, Usage};
use serde::{Deserialize, Serialize};

use crate::value::{time, unix_ms};

#[derive(Serialize, Deserialize)]
struct Stored {
    id: RequestId,
    /// Unix milliseconds.
    timestamp: i64,
    key_name: Option<String>,
    project_id: Option<String>,
    org_id: Option<String>,
    user_id: Option<String>,
    provider: Option<String>,
    model: Option<String>,
    operation: String,
    outcome: Outcome,
    status_code: u16,
    used: Used,
    usage_final: bool,
    price_version: Option<String>,
    service_tier: Option<String>,
    #[serde(default)]
    attempts: Vec<StoredAttempt>,
}

#[derive(Serialize, Deserialize)]
struct StoredAttempt {
    attempt: u32,
    provider: String,
    model: Option<String>,
    status_code: u16,
    error_type: Option<String>,
    latency_ms: u64,
    used: Used,
}

/// Money is text: 10⁻¹² dollars do not fit a JSON number.
#[derive(Serialize, Deserialize)]
struct Used {
    usage: Usage,
    reported_cost: Option<String>,
    cost: Option<String>,
}

impl Used {
    fn new(usage: Usage, cost: Option<Money>) -> Self {
        let text = |money: Option<Money>| money.map(|money| money.pico_usd().to_string());
        Self { usage, reported_cost: text(usage.reported_cost), cost: text(cost) }
    }

    fn read(self) -> (Usage, Option<Money>) {
        let money = |text: Option<String>| text.and_then(|text| text.parse().ok()).map(Money::from_pico_usd);
        let mut usage = self.usage;
        usage.reported_cost = money(self.reported_cost);
        (usage, money(self.cost))
    }
}

/// The document.
pub(crate) fn write(entry: &LedgerEntry) -> Vec<u8> {
    let attempt = |row: &AttemptRow| StoredAttempt {
        attempt: row.attempt,
        provider: row.provider.clone(),
        model: row.model.clone(),
        status_code: row.status_code,
        error_type: row.error_type.as_deref().map(str::to_owned),
        latency_ms: row.latency_ms,
        used: Used::new(row.usage, row.cost),
    };
    let stored = Stored {
        id: entry.id,
        timestamp: unix_ms(entry.timestamp),
        key_name: entry.key_name.clone(),
        project_id: entry.project_id.clone(),
        org_id: entry.org_id.clone(),
        user_id: entry.user_id.clone(),
        provider: entry.provider.clone(),
        model: entry.model.clone(),
        operation: entry.operation.to_string(),
        outcome: entry.outcome,
        status_code: entry.status_code,
        used: Used::new(entry.usage, entry.cost),
        usage_final: entry.usage_final,
        price_version: entry.price_version.clone(),
        service_tier: entry.service_tier.clone(),
        attempts: entry.attempts.iter().map(attempt).collect(),
    };
    // Plain structs into memory: it cannot fail. Were it ever to, the row would not be read back, and that is said.
    serde_json::to_vec(&stored).unwrap_or_default()
}

/// Reads it back.
pub(crate) fn read(stored: &[u8]) -> serde_json::Result<LedgerEntry> {
    let stored: Stored = serde_json::from_slice(stored)?;
    let (usage, cost) = stored.used.read();
    let attempt = |row: StoredAttempt| {
        let (usage, cost) = row.used.read();
        AttemptRow {
            attempt: row.attempt,
            provider: row.provider,
            model: row.model,
            status_code: row.status_code,
            error_type: row.error_type.map(Cow::Owned),
            latency_ms: row.latency_ms,
            usage,
            cost,
        }
    };
    Ok(LedgerEntry {
        id: stored.id,
        timestamp: time(stored.timestamp),
        key_name: stored.key_name,
        project_id: stored.project_id,
        org_id: stored.org_id,
        user_id: stored.user_id,
        provider: stored.provider,
        model: stored.model,
        operation: stored.operation.into(),
        outcome: stored.outcome,
        status_code: stored.status_code,
        usage,
        usage_final: stored.usage_final,
        cost,
        price_version: stored.price_version,
        service_tier: stored.service_tier,
        attempts: stored.attempts.into_iter().map(attempt).collect(),
    })
}
