//! The metrics that the OpenTelemetry semantic conventions for generative AI name, beside the gateway's own: names,
//! units, attributes and buckets are theirs (Development; as of semantic conventions 1.41, which is what dashboards and
//! published libraries use).

use magicapi_kernel::Meter;
use magicapi_plugin::{Facts, Histogram, Outcome};

use super::inference::Inference;
use super::seconds;

pub(super) const WHO: [&str; 3] = ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"];

/// Durations: from a hundredth of a second, doubling.
pub(super) const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Tokens: from one, times four.
pub(super) const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

pub(super) struct GenAi {
    duration: Histogram<f64>,
    first_chunk: Histogram<f64>,
    tokens: Histogram<f64>,
    inference: Inference,
}

impl GenAi {
    /// Registers them, under names without a prefix.
    pub(super) fn new(meter: &Meter) -> Self {
        let [operation, provider, model] = WHO;
        let histogram =
            |name: &str, unit: &str, bounds: &[f64], labels: &[&'static str], description: &str| {
                let built = meter.f64_histogram(name).with_unit(unit).with_boundaries(bounds.to_vec());
                built.with_labels(labels).with_description(description).build()
            };
        Self {
            duration: histogram(
                "gen_ai.client.operation.duration",
                "s",
                &SECONDS,
                &[operation, provider, model, "error.type"],
                "GenAI operation duration",
            ),
            first_chunk: histogram(
                "gen_ai.client.operation.time_to_first_chunk",
                "s",
                &SECONDS,
                &WHO,
                "Time to receive the first chunk of a streamed answer",
            ),
            tokens: histogram(
                "gen_ai.client.token.usage",
                "{token}",
                &TOKENS,
                &[operation, provider, model, "gen_ai.token.type"],
                "Number of input and output tokens used",
            ),
            inference: Inference::new(meter),
        }
    }

    /// Counts one finished request that reached a provider and was one to a model.
    pub(super) fn observe(&self, facts: &Facts, provider: &str, model: &str) {
        let Some(operation) = facts.gen_ai_operation().filter(|_| facts.attempts > 0) else { return };
        let provider = magicapi_plugin::gen_ai_provider(provider);
        let who = [(WHO[0], operation), (WHO[1], provider), (WHO[2], model)];
        let [by_operation, by_provider, by_model] = who;
        let failed = facts.outcome != Outcome::Completed;
        let error = if failed { facts.error_type.unwrap_or_else(|| facts.outcome.as_str()) } else { "" };
        let with_error = [by_operation, by_provider, by_model, ("error.type", error)];
        self.duration.record(seconds(facts.latency_ms), &with_error);
        if let Some(first) = facts.ttfb_ms.filter(|_| facts.streamed) {
            self.first_chunk.record(seconds(first), &who);
        }
        self.inference.observe(facts, who, error);
        for (kind, tokens) in [("input", facts.usage.input_total()), ("output", facts.usage.output_total())] {
            if let Some(tokens) = tokens {
                let labels = [by_operation, by_provider, by_model, ("gen_ai.token.type", kind)];
                self.tokens.record(tokens as f64, &labels);
            }
        }
    }
}
