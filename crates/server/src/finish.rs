//! What a finished request comes to: its price, its ledger rows, its access line (invariant 7).

use std::borrow::Cow;

use magicapi_kernel::{AttemptRow, LedgerEntry, Provider};
use magicapi_model::price::{PriceTable, Terms};
use magicapi_plugin::{CostSource, Facts, Secret};
use magicapi_telemetry::Telemetry;

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

/// The rows of a request whose record alone survived a kill; of its attempts, the last.
pub fn recovered_entry(facts: &Facts, telemetry: &Telemetry) -> LedgerEntry {
    let last = facts.provider.as_ref().filter(|_| facts.attempts > 0).map(|provider| AttemptRow {
        attempt: facts.attempts,
        provider: provider.clone(),
        model: facts.model.clone(),
        status_code: facts.provider_status_code,
        error_type: facts.provider_error_type.or(facts.error_type).map(Into::into),
        latency_ms: facts.provider_latency_ms.unwrap_or(facts.latency_ms),
        usage: facts.usage,
        cost: facts.cost,
    });
    ledger_entry(facts, last.into_iter().collect(), telemetry, None)
}

/// The rows of one request. A caller's names are what spend is counted by, so they stay what they are; but a secret
/// among them is kept nowhere.
pub(crate) fn ledger_entry(
    facts: &Facts,
    mut attempts: Vec<AttemptRow>,
    telemetry: &Telemetry,
    caller_key: Option<&Secret>,
) -> LedgerEntry {
    let clean =
        |name: &Option<String>| Some(telemetry.without_secrets(caller_key, name.as_deref()?).into_owned());
    let model = clean(&facts.model);
    for attempt in &mut attempts {
        attempt.model = if attempt.model == facts.model { model.clone() } else { clean(&attempt.model) };
    }
    LedgerEntry {
        id: facts.id,
        timestamp: facts.timestamp,
        key_name: facts.key_name.clone(),
        project_id: clean(&facts.project_id),
        org_id: clean(&facts.org_id),
        user_id: clean(&facts.user_id),
        provider: facts.provider.clone(),
        model,
        operation: facts.operation.into(),
        outcome: facts.outcome,
        status_code: facts.status_code,
        usage: facts.usage,
        usage_final: facts.usage_final,
        cost: facts.cost,
        price_version: facts.price_version.clone(),
        service_tier: clean(&facts.service_tier),
        attempts,
    }
}

/// A text that may be as long as a request's head is cut before it is looked at: requests wait for this. Its last part goes
/// too, which may be the beginning of a secret that the cut went through.
fn cut<'t>(text: &'t str, look: impl FnOnce(&'t str) -> Cow<'t, str>) -> Cow<'t, str> {
    const LONGEST: usize = 1024;
    const UNSURE: usize = 128;
    let head = text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default();
    let seen = look(head);
    if head.len() == text.len() {
        return seen;
    }
    let sure = seen.floor_char_boundary(seen.len().saturating_sub(UNSURE));
    Cow::Owned(format!("{}…", seen.get(..sure).unwrap_or_default()))
}

/// One line per request; never content, and nothing that the record hides.
pub(crate) fn access_line(facts: &Facts, telemetry: &Telemetry, caller_key: Option<&Secret>) {
    if !tracing::enabled!(target: "access", tracing::Level::INFO) {
        return;
    }
    let shown = |text: &'_ Option<String>| match text {
        Some(text) => telemetry.redacted(caller_key, text).into_owned(),
        None => "-".to_owned(),
    };
    tracing::info!(
        target: "access",
        id = %facts.id,
        client_request_id = shown(&facts.client_request_id),
        key = facts.key_name.as_deref().unwrap_or("-"),
        credential = facts.credential.unwrap_or("-"),
        provider = facts.provider.as_deref().unwrap_or("-"),
        model = shown(&facts.model),
        method = &*cut(&facts.method, |text| telemetry.redacted(caller_key, text)),
        path = &*cut(&facts.path, |text| telemetry.redacted(caller_key, text)),
        status = facts.status_code,
        outcome = facts.outcome.as_str(),
        error = facts.error_type.unwrap_or("-"),
        ms = facts.latency_ms,
        input = facts.usage.input_total(),
        output = facts.usage.output_total(),
        "request"
    );
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::cut;

    #[test]
    fn a_long_path_is_cut_before_it_is_looked_at_and_shows_no_part_of_a_secret() {
        for (text, shown) in [
            ("/v1/models".to_owned(), "/v1/models".to_owned()),
            ("é".repeat(40 << 10), format!("{}…", "é".repeat(448))),
            (format!("/{}{}", "a".repeat(1000), "SECRET".repeat(9000)), format!("/{}…", "a".repeat(895))),
        ] {
            let mut looked_at = 0;
            let seen = cut(&text, |head| {
                looked_at = head.len();
                Cow::Borrowed(head)
            });
            assert_eq!(seen, shown);
            assert!(looked_at <= 1024, "{looked_at}");
        }
    }
}
