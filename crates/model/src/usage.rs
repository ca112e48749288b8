//! Token usage as disjoint buckets (invariant 8).

use serde::{Deserialize, Serialize};

use crate::Money;

/// What one answer used, in tokens. No bucket is part of another; a bucket that the provider did not report is
/// `None`, which is not 0. Inclusive totals are derived by the methods, at the edge only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// Whether the figures cannot be true: more cached than there was, a count below 0. They are kept and not priced.
    #[serde(skip)]
    pub is_implausible: bool,
}

/// The sum of the known buckets; `None` when none is known.
fn total<const N: usize>(buckets: [Option<u64>; N]) -> Option<u64> {
    buckets.into_iter().flatten().fold(None, |sum, tokens| Some(sum.unwrap_or(0u64).saturating_add(tokens)))
}

impl Usage {
    /// So many text tokens in and out; nothing else is known.
    pub fn of(input: u64, output: u64) -> Self {
        Self { input: Some(input), output: Some(output), ..Self::default() }
    }

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
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn unknown_is_not_zero() {
        assert_eq!(Usage::default().total(), None);
        assert_eq!(Usage { output: Some(0), ..Usage::default() }.total(), Some(0));
    }
}
