//! The price table and the price of one answer: pure functions over data.
//!
//! A row is one line of the models file: prices in US dollars per million tokens, by service tier and by prompt size.
//! Rule for prompt sizes: the whole prompt is billed at the rate of the highest threshold that it exceeds, as the
//! providers' price pages state for long contexts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Money, Usage};

/// More tokens than one request can have: what a provider reports beyond it is not priced.
const MOST_TOKENS: u64 = 1_000_000_000;

/// More dollars per million tokens than any rate; with [`MOST_TOKENS`] it keeps every product far inside an integer.
const HIGHEST_RATE: f64 = 1e9;

/// Rates of one tier at one prompt size, in US dollars per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Uncached prompt tokens.
    pub input: Option<f64>,
    /// Visible answer tokens.
    pub output: Option<f64>,
    /// Prompt tokens read from the cache; `input` when absent.
    pub cache_read: Option<f64>,
    /// Prompt tokens written to the cache; `input` when absent.
    pub cache_write: Option<f64>,
    /// Prompt tokens written to the cache for one hour.
    pub cache_write_1h: Option<f64>,
    /// Audio tokens in the prompt.
    pub audio_input: Option<f64>,
    /// Audio tokens read from the cache: known, but no provider's usage tells them apart.
    pub audio_cache_read: Option<f64>,
    /// Audio tokens of the answer.
    pub audio_output: Option<f64>,
    /// Image tokens in the prompt; `input` when absent.
    pub image_input: Option<f64>,
    /// Image tokens of the answer.
    pub image_output: Option<f64>,
    /// Reasoning tokens; `output` when absent.
    pub reasoning: Option<f64>,
}

/// One model of one provider: limits, capabilities and prices.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRow {
    /// The provider's catalogue name.
    pub provider: String,
    /// The model as the provider spells it.
    pub model: String,
    /// What it does: `chat`, `embedding`, `rerank`, …
    #[serde(default)]
    pub mode: String,
    /// Most prompt tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_input: Option<u64>,
    /// Most answer tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u64>,
    /// `tools`, `vision`, `reasoning`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<String>,
    /// The day from which the provider no longer serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// Tier (`standard`, `batch`, `flex`, `priority`) → prompt size (`base`, `above_200k`) → rates.
    /// The tier `unit` (per image, second, character) is kept but not used for token prices.
    #[serde(default)]
    pub price: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

/// What decides the rate besides the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms<'a> {
    /// The service tier echoed in the answer, as the provider spells it.
    pub service_tier: Option<&'a str>,
    /// Whether it ran in a batch.
    pub batch: bool,
}

/// Rates per prompt-size threshold (tokens), ascending; the first is `base` at 0.
type SizedRates = Vec<(u64, Rates)>;

/// A row with its rates read.
#[derive(Clone, Debug)]
struct Entry {
    row: Arc<ModelRow>,
    tiers: HashMap<String, SizedRates>,
}

/// The models table: built in, overlaid by the operator's file. Immutable; a reload builds another.
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    rows: HashMap<String, HashMap<String, Entry>>,
    version: String,
}

/// A line of a models file that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct RowError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for RowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for RowError {}

/// `above_272k` → 272,000; `base` → 0.
fn threshold(size: &str) -> Option<u64> {
    if size == "base" {
        return Some(0);
    }
    let thousands: u64 = size.strip_prefix("above_")?.strip_suffix('k')?.parse().ok()?;
    thousands.checked_mul(1000)
}

fn read_rates(written: &serde_json::Value) -> Result<Rates, String> {
    let is_rate = |rate: f64| (0.0..=HIGHEST_RATE).contains(&rate);
    let mut members = written.as_object().into_iter().flatten();
    if let Some((name, rate)) = members.find(|(_, rate)| rate.as_f64().is_some_and(|rate| !is_rate(rate))) {
        return Err(format!("{name}: expected dollars per million tokens, 0 or more, found {rate}"));
    }
    Rates::deserialize(written).map_err(|e| e.to_string())
}

fn read_entry(row: ModelRow) -> Result<Entry, String> {
    let mut tiers = HashMap::new();
    for (tier, sizes) in row.price.iter().filter(|(tier, _)| *tier != "unit") {
        let mut sized = SizedRates::new();
        for (size, rates) in sizes {
            let from = threshold(size)
                .ok_or_else(|| format!("price.{tier}.{size}: expected `base` or `above_<N>k`"))?;
            let rates = read_rates(rates).map_err(|e| format!("price.{tier}.{size}: {e}"))?;
            sized.push((from, rates));
        }
        sized.sort_by_key(|(from, _)| *from);
        tiers.insert(tier.clone(), sized);
    }
    Ok(Entry { row: Arc::new(row), tiers })
}

impl PriceTable {
    /// Reads a models file: one JSON object a line, blank lines ignored. `version` names it in records.
    pub fn parse(lines: &str, version: impl Into<String>) -> Result<Self, RowError> {
        let mut table = Self { rows: HashMap::new(), version: version.into() };
        table.add(lines)?;
        Ok(table)
    }

    /// Lays the operator's rows over this table: a row replaces the built-in one of the same provider and model.
    pub fn overlay(mut self, lines: &str, version: &str) -> Result<Self, RowError> {
        self.add(lines)?;
        self.version = format!("{}+{version}", self.version);
        Ok(self)
    }

    fn add(&mut self, lines: &str) -> Result<(), RowError> {
        for (index, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fail = |reason: String| RowError { line: index + 1, reason };
            let row: ModelRow = serde_json::from_str(line).map_err(|e| fail(e.to_string()))?;
            let (provider, model) = (row.provider.clone(), row.model.clone());
            let entry = read_entry(row).map_err(fail)?;
            self.rows.entry(provider).or_default().insert(model, entry);
        }
        Ok(())
    }

    /// Names the table (and its overlay) in records, so that a cost can be computed again.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The row of a model.
    pub fn row(&self, provider: &str, model: &str) -> Option<&Arc<ModelRow>> {
        self.rows.get(provider)?.get(model).map(|entry| &entry.row)
    }

    /// A provider's rows, by model name.
    pub fn rows_of(&self, provider: &str) -> Vec<Arc<ModelRow>> {
        let mut rows: Vec<_> =
            self.rows.get(provider).into_iter().flatten().map(|(_, entry)| entry.row.clone()).collect();
        rows.sort_by(|a, b| a.model.cmp(&b.model));
        rows
    }

    /// The price of `usage`; `None` when the model, its tier or a rate that is needed is not in the table, and when the
    /// figures cannot be true.
    pub fn price(&self, provider: &str, model: &str, usage: &Usage, terms: Terms<'_>) -> Option<Money> {
        let prompt = usage.input_total()?;
        if usage.is_implausible || usage.total()? > MOST_TOKENS {
            return None;
        }
        let entry = self.rows.get(provider)?.get(model)?;
        let sized = entry.tiers.get(tier_name(terms))?;
        let (_, rates) = sized.iter().rev().find(|(from, _)| *from == 0 || prompt > *from)?;
        cost(rates, usage)
    }
}

/// The table's tier for what the provider echoed. OpenAI reports `fast` work as `priority`; `auto`, `default` and
/// Groq's `on_demand` are the standard price.
fn tier_name(terms: Terms<'_>) -> &str {
    if terms.batch {
        return "batch";
    }
    match terms.service_tier {
        None | Some("" | "auto" | "default" | "standard" | "on_demand") => "standard",
        Some("fast") => "priority",
        Some(other) => other,
    }
}

/// Sums bucket × rate. A bucket with tokens and no rate makes the whole price unknown.
fn cost(rates: &Rates, usage: &Usage) -> Option<Money> {
    let buckets = [
        (usage.input, rates.input),
        (usage.cache_read, rates.cache_read.or(rates.input)),
        (usage.cache_write, rates.cache_write.or(rates.input)),
        (usage.cache_write_1h, rates.cache_write_1h),
        (usage.input_audio, rates.audio_input),
        (usage.input_image, rates.image_input.or(rates.input)),
        (usage.output, rates.output),
        (usage.output_reasoning, rates.reasoning.or(rates.output)),
        (usage.output_audio, rates.audio_output),
        (usage.output_image, rates.image_output),
    ];
    let mut sum = Money::ZERO;
    for (tokens, rate) in buckets {
        let tokens = tokens.unwrap_or(0);
        if tokens > 0 {
            sum = sum + Money::from_pico_usd(pico_per_token(rate?) * i128::from(tokens));
        }
    }
    Some(sum)
}

/// A dollar per million tokens is 10⁶ units of 10⁻¹² dollars per token.
fn pico_per_token(dollars_per_million: f64) -> i128 {
    (dollars_per_million * 1e6).round() as i128
}

#[cfg(test)]
mod tests {
    use super::{PriceTable, Terms};
    use crate::Usage;

    const ROWS: &str = r#"
{"provider":"openai","model":"gpt-5.6","mode":"chat","price":{"standard":{"base":{"cache_write":5.0,"cache_read":0.4,"input":4.0,"output":20.0},"above_272k":{"cache_write":10.0,"cache_read":0.8,"input":8.0,"output":30.0}},"flex":{"base":{"input":2.0,"output":10.0}},"batch":{"base":{"input":2.0,"output":10.0}}}}
{"provider":"openai","model":"e","mode":"embedding","price":{"standard":{"base":{"input":0.02,"output":0.0}}}}
"#;

    fn price(usage: Usage, terms: Terms<'_>) -> Option<f64> {
        let table = PriceTable::parse(ROWS, "test").expect("rows");
        table.price("openai", "gpt-5.6", &usage, terms).map(crate::Money::usd)
    }

    fn usage(input: u64, cached: u64, output: u64, reasoning: u64) -> Usage {
        Usage {
            input: Some(input),
            cache_read: Some(cached),
            output: Some(output),
            output_reasoning: Some(reasoning),
            ..Usage::default()
        }
    }

    #[test]
    fn cached_and_reasoning_tokens_are_billed_once() {
        let dollars = price(
            usage(1_000_000, 1_000_000, 500_000, 500_000),
            Terms { service_tier: Some("default"), batch: false },
        );
        assert_eq!(dollars, Some(8.0 + 0.8 + 30.0), "a prompt of 2M tokens is over 272k");
        assert_eq!(price(usage(100_000, 100_000, 10_000, 10_000), Terms::default()), Some(0.84));
    }

    #[test]
    fn tier_comes_from_the_answer_and_an_unpriced_one_is_unknown() {
        let small = usage(1000, 0, 1000, 0);
        assert_eq!(price(small, Terms { service_tier: Some("flex"), batch: false }), Some(0.012));
        assert_eq!(price(small, Terms { service_tier: None, batch: true }), Some(0.012));
        assert_eq!(price(small, Terms { service_tier: Some("fast"), batch: false }), None);
    }

    #[test]
    fn unknown_stays_unknown() {
        let table = PriceTable::parse(ROWS, "test").expect("rows");
        assert_eq!(price(Usage::default(), Terms::default()), None);
        assert_eq!(table.price("openai", "nope", &usage(1, 0, 1, 0), Terms::default()), None);
        let audio = Usage { input: Some(1), input_audio: Some(1), ..Usage::default() };
        assert_eq!(price(audio, Terms::default()), None);
        let embedding = Usage { input: Some(1_000_000), ..Usage::default() };
        assert_eq!(
            table.price("openai", "e", &embedding, Terms::default()).map(crate::Money::usd),
            Some(0.02)
        );
    }

    #[test]
    fn figures_that_cannot_be_true_have_no_price() {
        let at = |tokens| price(usage(tokens, 0, 0, 0), Terms::default());
        assert_eq!(at(1_000_000_000), Some(8000.0));
        assert_eq!(at(1_000_000_001), None);
        assert_eq!(at(u64::MAX), None);
        assert_eq!(price(usage(u64::MAX, u64::MAX, u64::MAX, 1), Terms::default()), None);
        let contradiction = Usage { is_implausible: true, ..usage(1, 0, 1, 0) };
        assert_eq!(price(contradiction, Terms::default()), None);
    }

    #[test]
    fn a_rate_that_is_none_is_named() {
        let error = |rates: &str| {
            let row = format!(r#"{{"provider":"p","model":"m","price":{{"standard":{{"base":{rates}}}}}}}"#);
            PriceTable::parse(&row, "x").expect_err("a bad rate").to_string()
        };
        let negative =
            "line 1: price.standard.base: input: expected dollars per million tokens, 0 or more, found -1";
        assert_eq!(error(r#"{"input":-1}"#), negative);
        assert!(error(r#"{"output":1e300}"#).contains("output: expected dollars"));
        assert!(error(r#"{"inptu":1}"#).contains("unknown field `inptu`"));
        assert!(error(r#"{"input":"1"}"#).contains("invalid type: string"));
    }

    #[test]
    fn overlay_replaces_a_row_and_names_a_bad_line() {
        let table = PriceTable::parse(ROWS, "a").expect("rows");
        let row = r#"{"provider":"openai","model":"e","price":{"standard":{"base":{"input":1.0}}}}"#;
        let table = table.overlay(row, "b").expect("overlay");
        assert_eq!(table.version(), "a+b");
        let one = Usage { input: Some(1_000_000), ..Usage::default() };
        assert_eq!(table.price("openai", "e", &one, Terms::default()).map(crate::Money::usd), Some(1.0));
        let bad = PriceTable::parse("\n{\"provider\":1}", "x").expect_err("bad row");
        assert_eq!(bad.line, 2);
    }
}
