//! The built-in models table and the names under which it lists a model.
//!
//! `gateway` parses it once into a `PriceTable`, lays the operator's file over it and hands it to `server/finish.rs`.

use std::borrow::Cow;

/// Names the table in records, so that a cost can be computed again.
pub const PRICES_VERSION: &str = "litellm-1.109.1";

/// How Fireworks spells a model in full (wire-formats 1.2).
const FIREWORKS_MODELS: &str = "accounts/fireworks/models/";

/// The models table, one JSON object a line, for `PriceTable::parse`. Its `provider` is the catalogue's name.
pub fn prices() -> &'static str {
    include_str!("../data/models.jsonl")
}

/// The names to look a model up by, best first: as the caller spelled it, and for a short Fireworks name the full one,
/// since the table has all models in full and only some in short.
pub(crate) fn price_names<'m>(catalogue_name: &str, model: &'m str) -> impl Iterator<Item = Cow<'m, str>> {
    let short = catalogue_name == "fireworks" && !model.is_empty() && !model.contains('/');
    let full = short.then(|| Cow::Owned(format!("{FIREWORKS_MODELS}{model}")));
    std::iter::once(Cow::Borrowed(model)).chain(full)
}

#[cfg(test)]
mod tests {
    use magicapi_model::price::{PriceTable, Terms};
    use magicapi_model::{Money, Usage};

    use super::{PRICES_VERSION, price_names, prices};
    use crate::catalogue;

    fn table() -> PriceTable {
        PriceTable::parse(prices(), PRICES_VERSION).expect("every line reads")
    }

    #[test]
    fn every_line_is_a_row_of_its_own() {
        let table = table();
        assert_eq!(table.version(), "litellm-1.109.1");
        let providers: std::collections::BTreeSet<_> = prices()
            .lines()
            .map(|line| {
                let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
                row["provider"].as_str().expect("a provider").to_owned()
            })
            .collect();
        let rows: usize = providers.iter().map(|provider| table.rows_of(provider).len()).sum();
        assert_eq!(rows, prices().lines().count());
    }

    #[test]
    fn catalogue_names_are_the_tables_names() {
        let table = table();
        for row in catalogue().expect("the catalogue") {
            let known = !matches!(row.name.as_str(), "openrouter" | "vllm");
            assert_eq!(table.rows_of(&row.name).is_empty(), !known, "{}", row.name);
        }
    }

    #[test]
    fn known_prices() {
        let usage = Usage::of(100_000, 10_000);
        let priced = |provider: &str, model: &str, terms: Terms<'_>| {
            table().price(provider, model, &usage, terms).map(Money::usd)
        };
        let standard = Terms::default();
        // 100,000 × input + 10,000 × output, in dollars per million: 4 and 20, 0.15 and 0.6, …
        assert_eq!(priced("openai", "gpt-5.6", standard), Some(0.6));
        assert_eq!(priced("openai", "gpt-5.6", Terms { batch: true, ..standard }), Some(0.3));
        assert_eq!(priced("groq", "openai/gpt-oss-120b", standard), Some(0.021));
        assert_eq!(priced("mistral", "mistral-large-latest", standard), Some(0.065));
        assert_eq!(priced("deepseek", "deepseek-chat", standard), Some(0.0322));
        assert_eq!(priced("cerebras", "gpt-oss-120b", standard), Some(0.0425));
        assert_eq!(priced("xai", "grok-4.20", standard), Some(0.15));
        assert_eq!(priced("fireworks", "accounts/fireworks/models/kimi-k3", standard), Some(0.45));
        assert_eq!(priced("vllm", "gpt-oss-120b", standard), None, "unknown is not free");
    }

    #[test]
    fn a_short_fireworks_name_is_found_in_full() {
        let table = table();
        let found = |provider: &str, model: &str| {
            price_names(provider, model)
                .find_map(|name| table.row(provider, &name).map(|row| row.model.clone()))
        };
        let full = "accounts/fireworks/models/deepseek-v3";
        assert_eq!(found("fireworks", "deepseek-v3").as_deref(), Some(full));
        assert_eq!(found("fireworks", full).as_deref(), Some(full));
        assert_eq!(found("fireworks", "kimi-k3-fast").as_deref(), Some("kimi-k3-fast"));
        assert_eq!(found("groq", "deepseek-v3"), None);
        assert_eq!(price_names("fireworks", "").count(), 1);
    }
}
