//! Token usage as disjoint buckets (invariant 8).

use serde::{Deserialize, Serialize};

use crate::Money;

/// What one answer used, in tokens. No bucket is part of another; a bucket that the provider did not report is
/// `None`, which is not 0. Inclusive totals are derived by the methods, at the edge only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt text tokens that no cache served.
    pub input: Option<u64>,
    /// Prompt tokens read from the provider's cache.
    pub cache_read: Option<u64>,
    /// Prompt tokens written to the cache (the default lifetime, five minutes where several exist).
    pub cache_write: Option<u64>,
    /// Prompt tokens written to the cache for one hour.
    pub cache_write_1h: Option<u64>,
    /// Audio tokens in the prompt.
    pub input_audio: Option<u64>,
    /// Image tokens in the prompt.
    pub input_image: Option<u64>,
    /// Visible text tokens of the answer.
    pub output: Option<u64>,
    /// Reasoning tokens of the answer.
    pub output_reasoning: Option<u64>,
    /// Audio tokens of the answer.
    pub output_audio: Option<u64>,
    /// Image tokens of the answer.
    pub output_image: Option<u64>,
    /// What the provider itself says that the request cost.
    #[serde(skip)]
    pub reported_cost: Option<Money>,
}

/// The sum of the known buckets; `None` when none is known.
fn total<const N: usize>(buckets: [Option<u64>; N]) -> Option<u64> {
    buckets.into_iter().flatten().fold(None, |sum, tokens| Some(sum.unwrap_or(0u64).saturating_add(tokens)))
}

impl Usage {
    /// All prompt tokens.
    pub fn input_total(&self) -> Option<u64> {
        total([
            self.input,
            self.cache_read,
            self.cache_write,
            self.cache_write_1h,
            self.input_audio,
            self.input_image,
        ])
    }

    /// All answer tokens.
    pub fn output_total(&self) -> Option<u64> {
        total([self.output, self.output_reasoning, self.output_audio, self.output_image])
    }

    /// Prompt and answer together.
    pub fn total(&self) -> Option<u64> {
        total([self.input_total(), self.output_total()])
    }

    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.total().is_none()
    }

    /// Takes over every bucket that `later` knows: the last value wins, nothing is summed.
    pub fn merge(&mut self, later: &Self) {
        let pairs = [
            (&mut self.input, later.input),
            (&mut self.cache_read, later.cache_read),
            (&mut self.cache_write, later.cache_write),
            (&mut self.cache_write_1h, later.cache_write_1h),
            (&mut self.input_audio, later.input_audio),
            (&mut self.input_image, later.input_image),
            (&mut self.output, later.output),
            (&mut self.output_reasoning, later.output_reasoning),
            (&mut self.output_audio, later.output_audio),
            (&mut self.output_image, later.output_image),
        ];
        for (bucket, value) in pairs {
            *bucket = value.or(*bucket);
        }
        self.reported_cost = later.reported_cost.or(self.reported_cost);
    }
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn unknown_is_not_zero() {
        assert_eq!(Usage::default().total(), None);
        assert_eq!(Usage { output: Some(0), ..Usage::default() }.total(), Some(0));
    }

    #[test]
    fn merge_takes_the_last_value_and_never_sums() {
        let mut usage = Usage { input: Some(25), output: Some(1), ..Usage::default() };
        usage.merge(&Usage { output: Some(15), ..Usage::default() });
        assert_eq!((usage.input, usage.output, usage.total()), (Some(25), Some(15), Some(40)));
    }
}
