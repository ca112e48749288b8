//! What a finished request comes to: its price, its ledger rows, its access line (invariant 7).

use magicapi_kernel::{AttemptRow, LedgerEntry, Provider};
use magicapi_model::price::{PriceTable, Terms};
use magicapi_plugin::{CostSource, Facts};

/// Prices what was used. The table counts; what the provider reports is used when the table has no price.
pub(crate) fn price(facts: &mut Facts, prices: &PriceTable, provider: &dyn Provider) {
    if facts.usage.is_unknown() && facts.usage.reported_cost.is_none() {
        return;
    }
    let terms = Terms { service_tier: facts.service_tier.as_deref(), batch: false };
    let model = facts.model.as_deref().unwrap_or_default();
    let from_table = provider
        .price_names(model)
        .iter()
        .find_map(|name| prices.price(provider.catalogue_name(), name, &facts.usage, terms));
    facts.cost = from_table.or(facts.usage.reported_cost);
    facts.cost_source = match (from_table, facts.cost) {
        (Some(_), _) => Some(CostSource::Table),
        (None, Some(_)) => Some(CostSource::Provider),
        (None, None) => None,
    };
    facts.price_version = from_table.map(|_| prices.version().to_owned());
}

/// The rows of one request.
pub(crate) fn ledger_entry(facts: &Facts, attempts: Vec<AttemptRow>) -> LedgerEntry {
    LedgerEntry {
        id: facts.id,
        timestamp: facts.timestamp,
        key_name: facts.key_name.clone(),
        project_id: facts.project_id.clone(),
        org_id: facts.org_id.clone(),
        user_id: facts.user_id.clone(),
        provider: facts.provider.clone(),
        model: facts.model.clone(),
        operation: facts.operation.into(),
        outcome: facts.outcome,
        status_code: facts.status_code,
        usage: facts.usage,
        usage_final: facts.usage_final,
        cost: facts.cost,
        price_version: facts.price_version.clone(),
        service_tier: facts.service_tier.clone(),
        attempts,
    }
}

/// One line per request; never content.
pub(crate) fn access_line(facts: &Facts) {
    if !tracing::enabled!(target: "access", tracing::Level::INFO) {
        return;
    }
    tracing::info!(
        target: "access",
        id = %facts.id,
        client_request_id = facts.client_request_id.as_deref().unwrap_or("-"),
        key = facts.key_name.as_deref().unwrap_or("-"),
        credential = facts.credential.unwrap_or("-"),
        provider = facts.provider.as_deref().unwrap_or("-"),
        model = facts.model.as_deref().unwrap_or("-"),
        method = facts.method,
        path = facts.path,
        status = facts.status_code,
        outcome = facts.outcome.as_str(),
        error = facts.error_type.unwrap_or("-"),
        ms = facts.latency_ms,
        input = facts.usage.input_total(),
        output = facts.usage.output_total(),
        "request"
    );
}
