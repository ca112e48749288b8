//! Usage objects to disjoint buckets (invariant 8; wire-formats 1.2 and 7.5).
//!
//! The dialect's totals are inclusive: cached tokens are part of the prompt, reasoning is part of the completion. Both
//! the buffered and the streamed reader end here, so the ledger has one source.

use magicapi_model::{Money, Usage};

use crate::json::{Kind, Value};

/// The counts as reported, totals inclusive. A stream that reports several times is merged here, count by count, the
/// last one winning: buckets are derived from one consistent set only at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    written: Option<u64>,
    input_audio: Option<u64>,
    input_image: Option<u64>,
    reasoning: Option<u64>,
    output_audio: Option<u64>,
    output_image: Option<u64>,
    cost: Option<Money>,
    /// A figure is no count: negative, too large, a text.
    is_no_count: bool,
}

/// More dollars than one request can cost: a provider that reports it reports nonsense.
const MOST_DOLLARS: f64 = 1e6;

/// The usage in a usage object, for example `{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}`; `None` when
/// it reports nothing that is counted in tokens or money (`{"type":"duration","seconds":9}`).
pub fn read(usage: &[u8]) -> Option<Usage> {
    Counts::read(Value::new(usage)).map(Counts::usage)
}

impl Counts {
    /// Reads a usage object; `None` when it reports nothing.
    pub(super) fn read(usage: Value<'_>) -> Option<Self> {
        let mut counts = Self::default();
        // The top-level forms yield to the detailed ones, wherever they stand.
        let mut beside = Self::default();
        usage.each_member(|key, value| match key {
            "prompt_tokens" | "input_tokens" => counts.input = counts.count(value).or(counts.input),
            "completion_tokens" | "output_tokens" => counts.output = counts.count(value).or(counts.output),
            "total_tokens" => counts.total = counts.count(value),
            "prompt_tokens_details" | "input_tokens_details" => counts.input_details(value),
            "completion_tokens_details" | "output_tokens_details" => counts.output_details(value),
            // DeepSeek and Moonshot; Perplexity.
            "prompt_cache_hit_tokens" | "cached_tokens" => {
                beside.cached = counts.count(value).or(beside.cached);
            }
            "reasoning_tokens" => beside.reasoning = counts.count(value),
            // OpenRouter; DeepInfra.
            "cost" => counts.cost = cost(value),
            "estimated_cost" => beside.cost = cost(value),
            _ => {}
        });
        beside.merge(counts);
        let nothing = Self { is_no_count: beside.is_no_count, ..Self::default() };
        (beside != nothing).then_some(beside)
    }

    fn count(&mut self, value: Value<'_>) -> Option<u64> {
        let count = value.count();
        self.is_no_count |= count.is_none() && value.kind() != Kind::Null;
        count
    }

    fn input_details(&mut self, details: Value<'_>) {
        details.each_member(|key, value| match key {
            "cached_tokens" => self.cached = self.count(value),
            // OpenAI; DashScope.
            "cache_write_tokens" | "cache_creation_input_tokens" => {
                self.written = self.count(value).or(self.written);
            }
            "audio_tokens" => self.input_audio = self.count(value),
            "image_tokens" => self.input_image = self.count(value),
            _ => {}
        });
    }

    fn output_details(&mut self, details: Value<'_>) {
        details.each_member(|key, value| match key {
            "reasoning_tokens" => self.reasoning = self.count(value),
            "audio_tokens" => self.output_audio = self.count(value),
            "image_tokens" => self.output_image = self.count(value),
            _ => {}
        });
    }

    /// Takes over what `later` knows.
    pub(super) fn merge(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.output = later.output.or(self.output);
        self.total = later.total.or(self.total);
        self.cached = later.cached.or(self.cached);
        self.written = later.written.or(self.written);
        self.input_audio = later.input_audio.or(self.input_audio);
        self.input_image = later.input_image.or(self.input_image);
        self.reasoning = later.reasoning.or(self.reasoning);
        self.output_audio = later.output_audio.or(self.output_audio);
        self.output_image = later.output_image.or(self.output_image);
        self.cost = later.cost.or(self.cost);
        self.is_no_count = later.is_no_count;
    }

    /// An embedding or a ranking that reports a total alone (Voyage) has nothing but input.
    pub(super) fn total_is_input(mut self) -> Self {
        if self.output.is_none() {
            self.input = self.input.or(self.total);
        }
        self
    }

    /// The images API puts out nothing but images, also where it does not say so in details.
    pub(super) fn output_is_images(mut self) -> Self {
        self.output_image = self.output_image.or(self.output);
        self
    }

    /// The disjoint buckets. No bucket takes more than what is left of its total, so their sum is the total.
    pub(super) fn usage(self) -> Usage {
        let is_implausible = self.is_no_count || self.contradicts_itself();
        let mut usage = Usage::default();
        (usage.reported_cost, usage.is_implausible) = (self.cost, is_implausible);
        let mut left = self.input;
        usage.cache_read = part(&mut left, self.cached);
        usage.cache_write = part(&mut left, self.written);
        usage.input_audio = part(&mut left, self.input_audio);
        usage.input_image = part(&mut left, self.input_image);
        usage.input = left;

        let mut left = self.output;
        if self.reasoning_is_apart() {
            usage.output_reasoning = self.reasoning;
        } else {
            usage.output_reasoning = part(&mut left, self.reasoning);
        }
        usage.output_audio = part(&mut left, self.output_audio);
        usage.output_image = part(&mut left, self.output_image);
        usage.output = left;
        usage
    }

    /// Whether a part is larger than what it is a part of. What was read from the cache may be audio too, so only the
    /// two kinds of caching exclude each other.
    fn contradicts_itself(&self) -> bool {
        let cached = self.cached.unwrap_or(0).saturating_add(self.written.unwrap_or(0));
        let exceeds =
            |part: Option<u64>, whole: Option<u64>| part.zip(whole).is_some_and(|(part, whole)| part > whole);
        exceeds(Some(cached), self.input)
            || exceeds(self.input_audio.max(self.input_image), self.input)
            || exceeds(self.output_audio.max(self.output_image), self.output)
    }

    /// Whether reasoning stands beside the completion and not in it: it cannot be in it when it is larger (DeepInfra),
    /// and is not when the total has room for it on top (xAI).
    fn reasoning_is_apart(&self) -> bool {
        let (Some(reasoning), Some(output)) = (self.reasoning, self.output) else { return false };
        if reasoning > output {
            return true;
        }
        let (Some(input), Some(total)) = (self.input, self.total) else { return false };
        reasoning > 0 && total >= input.saturating_add(output).saturating_add(reasoning)
    }
}

/// Takes a part out of what is left; all of it when the total is not known.
fn part(left: &mut Option<u64>, tokens: Option<u64>) -> Option<u64> {
    let tokens = tokens?;
    let Some(rest) = left else { return Some(tokens) };
    let taken = tokens.min(*rest);
    *rest -= taken;
    Some(taken)
}

/// Dollars: a number, or Perplexity's object with a `total_cost`.
fn cost(value: Value<'_>) -> Option<Money> {
    let number = if value.kind() == Kind::Object { value.get("total_cost")? } else { value };
    number.number().filter(|dollars| *dollars <= MOST_DOLLARS).and_then(Money::from_usd)
}

#[cfg(test)]
mod tests {
    use magicapi_model::{Money, Usage};

    use super::read;

    fn usage(json: &str) -> Usage {
        read(json.as_bytes()).unwrap_or_default()
    }

    #[test]
    fn openai_totals_are_taken_apart() {
        let json = r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
            "prompt_tokens_details":{"cached_tokens":40,"cache_write_tokens":10,"audio_tokens":5},
            "completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":3,"accepted_prediction_tokens":1}}"#;
        let mut expected = Usage::of(45, 27);
        (expected.cache_read, expected.cache_write) = (Some(40), Some(10));
        (expected.input_audio, expected.output_audio) = (Some(5), Some(3));
        expected.output_reasoning = Some(20);
        assert_eq!(usage(json), expected);
        assert_eq!(usage(json).total(), Some(150));
    }

    #[test]
    fn zero_stays_zero_and_absent_stays_unknown() {
        let zero =
            usage(r#"{"prompt_tokens":0,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":0}}"#);
        assert_eq!((zero.input, zero.output, zero.cache_read), (Some(0), Some(0), Some(0)));
        assert_eq!((zero.output_reasoning, zero.cache_write, zero.reported_cost), (None, None, None));
        assert_eq!(read(b"null"), None);
        assert_eq!(read(br#"{"type":"duration","seconds":9.4}"#), None);
        assert_eq!(read(br#"{"search_units":1}"#), None);
        assert_eq!(read(b"{\"prompt_tokens\":"), None);
    }

    #[test]
    fn responses_and_images_form() {
        let json = r#"{"input_tokens":30,"input_tokens_details":{"cached_tokens":10},"output_tokens":9,
            "output_tokens_details":{"reasoning_tokens":4},"total_tokens":39}"#;
        let got = usage(json);
        assert_eq!((got.input, got.cache_read), (Some(20), Some(10)));
        assert_eq!((got.output, got.output_reasoning), (Some(5), Some(4)));
        let image = r#"{"total_tokens":150,"input_tokens":50,"output_tokens":100,
            "input_tokens_details":{"text_tokens":10,"image_tokens":40},
            "output_tokens_details":{"text_tokens":20,"image_tokens":80}}"#;
        let got = usage(image);
        assert_eq!((got.input, got.input_image), (Some(10), Some(40)));
        assert_eq!((got.output, got.output_image), (Some(20), Some(80)));
    }

    #[test]
    fn dialects_of_caching() {
        let deepseek = r#"{"prompt_tokens":10,"prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":4,"completion_tokens":1}"#;
        assert_eq!((usage(deepseek).input, usage(deepseek).cache_read), (Some(4), Some(6)));
        let moonshot = r#"{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11,"cached_tokens":3}"#;
        assert_eq!((usage(moonshot).input, usage(moonshot).cache_read), (Some(7), Some(3)));
        let dashscope = r#"{"prompt_tokens":10,"completion_tokens":1,
            "prompt_tokens_details":{"cached_tokens":3,"cache_creation_input_tokens":2}}"#;
        assert_eq!((usage(dashscope).input, usage(dashscope).cache_write), (Some(5), Some(2)));
    }

    #[test]
    fn reasoning_beside_the_completion() {
        let xai = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":35,"completion_tokens_details":{"reasoning_tokens":20}}"#;
        assert_eq!(
            (usage(xai).output, usage(xai).output_reasoning, usage(xai).total()),
            (Some(5), Some(20), Some(35))
        );
        let xai_small = r#"{"prompt_tokens":10,"completion_tokens":50,"total_tokens":65,"completion_tokens_details":{"reasoning_tokens":5}}"#;
        assert_eq!((usage(xai_small).output, usage(xai_small).output_reasoning), (Some(50), Some(5)));
        let deepinfra = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"completion_tokens_details":{"reasoning_tokens":9}}"#;
        assert_eq!((usage(deepinfra).output, usage(deepinfra).output_reasoning), (Some(5), Some(9)));
    }

    #[test]
    fn nonsense_never_underflows() {
        let json = r#"{"prompt_tokens":5,"completion_tokens":-3,"prompt_tokens_details":{"cached_tokens":9,"audio_tokens":2},"total_tokens":1e400}"#;
        let got = usage(json);
        assert_eq!(
            (got.input, got.cache_read, got.input_audio, got.output),
            (Some(0), Some(5), Some(0), None)
        );
        assert_eq!(read(br#"{"prompt_tokens":99999999999999999999999}"#), None);
        assert_eq!(usage(r#"{"prompt_tokens":18446744073709551615}"#).input, Some(u64::MAX));
        assert_eq!(usage(r#"{"prompt_tokens":12.0}"#).input, Some(12));
        let details =
            usage(r#"{"prompt_tokens_details":null,"completion_tokens_details":[],"prompt_tokens":1}"#);
        assert_eq!(details.input, Some(1));
    }

    #[test]
    fn figures_that_cannot_be_true_are_marked() {
        let marked = |json: &str| usage(json).is_implausible;
        for json in [
            r#"{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}"#,
            r#"{"prompt_tokens":5,"prompt_cache_hit_tokens":6}"#,
            r#"{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":3}}"#,
            r#"{"prompt_tokens":5,"prompt_tokens_details":{"audio_tokens":6}}"#,
            r#"{"output_tokens":5,"output_tokens_details":{"image_tokens":6}}"#,
            r#"{"prompt_tokens":5,"completion_tokens":-3}"#,
            r#"{"prompt_tokens":5,"completion_tokens":"7"}"#,
            r#"{"prompt_tokens":5,"completion_tokens":18446744073709551616}"#,
            r#"{"prompt_tokens":5,"completion_tokens":1e300}"#,
            r#"{"prompt_tokens":5,"completion_tokens":[1]}"#,
        ] {
            assert!(marked(json), "{json}");
        }
        for json in [
            r#"{"prompt_tokens":5,"completion_tokens":2.0,"prompt_tokens_details":{"cached_tokens":5}}"#,
            r#"{"prompt_tokens":5,"completion_tokens":null,"prompt_tokens_details":null}"#,
            r#"{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":5}}"#,
            r#"{"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":9}}"#,
            r#"{"prompt_tokens_details":{"cached_tokens":8}}"#,
        ] {
            assert!(!marked(json), "{json}");
        }
    }

    #[test]
    fn reported_cost_is_kept() {
        let got = usage(r#"{"prompt_tokens":1,"completion_tokens":1,"cost":0.0125,"cost_details":{"x":1}}"#);
        assert_eq!(got.reported_cost, Money::from_usd(0.0125));
        let perplexity = usage(r#"{"prompt_tokens":1,"cost":{"input_tokens_cost":0.1,"total_cost":0.3}}"#);
        assert_eq!(perplexity.reported_cost, Money::from_usd(0.3));
        for cost in ["-1", "1e300", "1000000.5", "\"1\"", "[]"] {
            let json = format!(r#"{{"cost":{cost},"prompt_tokens":1}}"#);
            assert_eq!(usage(&json).reported_cost, None, "{cost}");
        }
    }
}
