//! The metrics of inference by their newest names in the semantic conventions for generative AI (`gen-ai-token-metrics.md`
//! and `client-inference.md` of their own repository, October 2026; Development), beside those of version 1.41, which most
//! libraries and dashboards still have.

use magicapi_kernel::Meter;
use magicapi_plugin::{Counter, Facts, Histogram};

use super::gen_ai::{SECONDS, TOKENS, WHO};
use super::seconds;

/// What of a request's tokens each counter takes, and how it is described.
const USAGE: [(&str, &str); 5] = [
    ("input_tokens", "Input tokens used, cached ones among them"),
    ("output_tokens", "Output tokens used, reasoning among them"),
    ("cache_read.input_tokens", "Input tokens read from the provider's cache"),
    ("cache_write.input_tokens", "Input tokens written to the provider's cache"),
    ("reasoning.output_tokens", "Output tokens used for reasoning"),
];

/// No word on the modality.
const UNKNOWN: &str = "unknown";

pub(super) struct Inference {
    duration: Histogram<f64>,
    first_chunk: Histogram<f64>,
    usage: [Counter<u64>; 5],
    /// Of one call, `input_tokens` and `output_tokens`: for percentiles, not for sums.
    operation: [Histogram<f64>; 2],
}

impl Inference {
    /// Registers them, under names without a prefix.
    pub(super) fn new(meter: &Meter) -> Self {
        let [operation, provider, model] = WHO;
        let with_error = [operation, provider, model, "error.type"];
        let histogram =
            |name: &str, (unit, bounds): (&str, [f64; 14]), labels: &[&'static str], description: &str| {
                let built = meter.f64_histogram(&format!("gen_ai.client.inference.{name}")).with_unit(unit);
                let built = built.with_boundaries(bounds.to_vec()).with_labels(labels);
                built.with_description(description).build()
            };
        let (seconds, tokens) = (("s", SECONDS), ("{token}", TOKENS));
        Self {
            duration: histogram("duration", seconds, &with_error, "GenAI inference duration"),
            first_chunk: histogram(
                "time_to_first_chunk",
                seconds,
                &WHO,
                "Time to receive the first chunk of a streamed answer",
            ),
            operation: [
                ("input_tokens", "Input tokens of one call"),
                ("output_tokens", "Output tokens of one call"),
            ]
            .map(|(name, text)| histogram(&format!("operation.{name}"), tokens, &with_error, text)),
            usage: USAGE.map(|(name, description)| {
                let built = meter.u64_counter(&format!("gen_ai.client.inference.usage.{name}"));
                let built = built.with_unit("{token}").with_description(description);
                built.with_labels(&[operation, provider, model, "gen_ai.token.modality"]).build()
            }),
        }
    }

    /// Counts one finished request to a model, if it was one that makes something.
    pub(super) fn observe(&self, facts: &Facts, who: [(&str, &str); 3], error: &str) {
        let [operation, provider, model] = who;
        if operation.1 == "embeddings" {
            return;
        }
        let with_error = [operation, provider, model, ("error.type", error)];
        self.duration.record(seconds(facts.latency_ms), &with_error);
        if let Some(first) = facts.ttfb_ms.filter(|_| facts.streamed) {
            self.first_chunk.record(seconds(first), &who);
        }
        let usage = &facts.usage;
        // A call without usage is in no distribution: 0 would be a size that nobody knows.
        for (histogram, total) in self.operation.iter().zip([usage.input_total(), usage.output_total()]) {
            if let Some(tokens) = total {
                histogram.record(tokens as f64, &with_error);
            }
        }
        let written = [usage.cache_write, usage.cache_write_1h].into_iter().flatten();
        let part = |tokens: Option<u64>| tokens.map(|tokens| (UNKNOWN, tokens)).into_iter().collect();
        let counted: [Vec<(&str, u64)>; 5] = [
            by_modality(usage.input_total(), usage.input_audio, usage.input_image),
            by_modality(usage.output_total(), usage.output_audio, usage.output_image),
            part(usage.cache_read),
            part(written.reduce(u64::saturating_add)),
            part(usage.output_reasoning),
        ];
        for (counter, parts) in self.usage.iter().zip(counted) {
            for (modality, tokens) in parts {
                counter.add(tokens, &[operation, provider, model, ("gen_ai.token.modality", modality)]);
            }
        }
    }
}

/// Tokens by what they stand for. Where a provider names sounds or images, the rest is text; where it names none, nobody
/// knows. A call without usage counts as 0.
fn by_modality(total: Option<u64>, audio: Option<u64>, image: Option<u64>) -> Vec<(&'static str, u64)> {
    let Some(total) = total else { return vec![(UNKNOWN, 0)] };
    let named: Vec<_> = [("audio", audio), ("image", image)]
        .into_iter()
        .filter_map(|(word, tokens)| Some((word, tokens?)))
        .collect();
    let rest = named.iter().fold(total, |rest, (_, tokens)| rest.saturating_sub(*tokens));
    let word = if named.is_empty() { UNKNOWN } else { "text" };
    std::iter::once((word, rest)).chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::by_modality;

    #[test]
    fn tokens_are_counted_once_whatever_they_stand_for() {
        assert_eq!(by_modality(None, None, None), [("unknown", 0)], "a call that failed counts too");
        assert_eq!(by_modality(Some(7), None, None), [("unknown", 7)]);
        assert_eq!(by_modality(Some(7), Some(2), None), [("text", 5), ("audio", 2)]);
        assert_eq!(by_modality(Some(7), Some(0), Some(7)), [("text", 0), ("audio", 0), ("image", 7)]);
        assert_eq!(by_modality(Some(1), Some(2), None)[0], ("text", 0), "an implausible split");
    }
}
