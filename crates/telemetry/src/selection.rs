//! Which records an exporter gets: a filter (`only`), then a sample; decided on facts before bodies are read.
//!
//! Sampling is decided by a hash of the record's id, so that every exporter, replica and restart decides alike.

use std::time::Duration;

use magicapi_plugin::{Facts, Money, Outcome, RequestId};
use sha2::{Digest, Sha256};

use crate::settings::PipelineSettings;

/// A filter: every key that is given must hold. An empty list is a key that is not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// `success`, `error`.
    pub status: Vec<String>,
    /// How it ended: `completed`, `timed_out`, ….
    pub outcome: Vec<String>,
    /// The provider asked last.
    pub provider: Vec<String>,
    /// The model sent upstream last, or as the caller named it; `*` stands for any text.
    pub model: Vec<String>,
    /// `chat`, `embeddings`, ….
    pub operation: Vec<String>,
    /// The virtual key's name.
    pub key: Vec<String>,
    /// Cost at least this; an unknown cost is less.
    pub min_cost: Option<Money>,
    /// Latency at least this.
    pub min_latency: Option<Duration>,
    /// The caller's status code at least this.
    pub min_status_code: Option<u16>,
}

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The share of records that is kept, 0 to 1.
    pub rate: f64,
    /// Records that are kept whatever the rate.
    pub keep: Keep,
}

/// Records that are kept whatever the rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Those that did not succeed.
    pub errors: bool,
    /// Those with a latency above this.
    pub slower_than: Option<Duration>,
    /// Those that cost more than this.
    pub cost_over: Option<Money>,
}

impl Default for Sample {
    fn default() -> Self {
        Self { rate: 1.0, keep: Keep::default() }
    }
}

/// What becomes of a record for one exporter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Selected {
    /// It gets it; each such record stands for `1 / sample_rate` of its kind.
    Kept {
        sample_rate: f64,
    },
    Filtered,
    SampledOut,
}

impl PipelineSettings {
    pub(crate) fn select(&self, facts: &Facts) -> Selected {
        if !self.only.holds(facts) {
            return Selected::Filtered;
        }
        let Sample { rate, keep } = &self.sample;
        if *rate >= 1.0 || keep.holds(facts) {
            return Selected::Kept { sample_rate: 1.0 };
        }
        if fraction(facts.id) < *rate { Selected::Kept { sample_rate: *rate } } else { Selected::SampledOut }
    }
}

impl Only {
    fn holds(&self, facts: &Facts) -> bool {
        let one_of = |words: &[String], word: Option<&str>| {
            words.is_empty() || word.is_some_and(|word| words.iter().any(|one| one == word))
        };
        let names = [facts.model.as_deref(), facts.requested_model.as_deref()];
        let model = |pattern: &String| names.into_iter().flatten().any(|name| matches(pattern, name));
        one_of(&self.status, Some(status(facts)))
            && one_of(&self.outcome, Some(facts.outcome.as_str()))
            && one_of(&self.provider, facts.provider.as_deref())
            && (self.model.is_empty() || self.model.iter().any(model))
            && one_of(&self.operation, Some(facts.operation))
            && one_of(&self.key, facts.key_name.as_deref())
            && self.min_cost.is_none_or(|least| facts.cost.is_some_and(|cost| cost >= least))
            && self.min_latency.is_none_or(|least| latency(facts) >= least)
            && self.min_status_code.is_none_or(|least| facts.status_code >= least)
    }
}

impl Keep {
    fn holds(&self, facts: &Facts) -> bool {
        (self.errors && facts.outcome != Outcome::Completed)
            || self.slower_than.is_some_and(|bound| latency(facts) > bound)
            || self.cost_over.is_some_and(|bound| facts.cost.is_some_and(|cost| cost > bound))
    }
}

fn status(facts: &Facts) -> &'static str {
    if facts.outcome == Outcome::Completed { "success" } else { "error" }
}

fn latency(facts: &Facts) -> Duration {
    Duration::from_millis(facts.latency_ms)
}

/// Where an id falls between 0 and 1: evenly, and always in the same place.
fn fraction(id: RequestId) -> f64 {
    let digest = Sha256::digest(id.to_string());
    let bits = digest.iter().take(8).fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Whether a name fits a pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = left.get(at + part.len()..).unwrap_or_default();
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use magicapi_plugin::{Facts, Money, Outcome};

    use super::{Keep, Only, Sample, Selected, fraction, matches};
    use crate::scripted::facts;
    use crate::settings::PipelineSettings;

    type Change = fn(&mut Only, Vec<String>);

    fn selected(only: Only, sample: Sample, facts: &Facts) -> Selected {
        PipelineSettings { only, sample, ..PipelineSettings::default() }.select(facts)
    }

    #[test]
    fn every_given_key_of_a_filter_must_hold() {
        let mut facts = facts();
        facts.requested_model = Some("fast".into());
        facts.key_name = Some("app".into());
        facts.cost = Some(Money::from_pico_usd(5));
        facts.latency_ms = 1500;
        let list = |word: &str| vec![word.to_owned(), "nothing".to_owned()];
        let lists: [(Change, &str, &str); 6] = [
            (|only, words| only.status = words, "success", "error"),
            (|only, words| only.outcome = words, "completed", "timed_out"),
            (|only, words| only.provider = words, "groq", "openai"),
            (|only, words| only.model = words, "llama-*-instant", "llama"),
            (|only, words| only.operation = words, "chat", "embeddings"),
            (|only, words| only.key = words, "app", "apple"),
        ];
        let kept = Selected::Kept { sample_rate: 1.0 };
        for (change, yes, no) in lists {
            for (word, expected) in [(yes, kept), (no, Selected::Filtered)] {
                let mut only = Only::default();
                change(&mut only, list(word));
                assert_eq!(selected(only, Sample::default(), &facts), expected, "{word}");
            }
        }
        let bounds = |cost: i128, millis, code| Only {
            min_cost: Some(Money::from_pico_usd(cost)),
            min_latency: Some(Duration::from_millis(millis)),
            min_status_code: Some(code),
            model: vec!["fa*t".into()],
            ..Only::default()
        };
        assert_eq!(selected(bounds(5, 1500, 200), Sample::default(), &facts), kept);
        for only in [bounds(6, 1500, 200), bounds(5, 1501, 200), bounds(5, 1500, 201)] {
            assert_eq!(selected(only, Sample::default(), &facts), Selected::Filtered);
        }
        facts.cost = None;
        assert_eq!(selected(bounds(0, 0, 0), Sample::default(), &facts), Selected::Filtered, "unknown");
    }

    #[test]
    fn patterns() {
        for (pattern, name) in
            [("*", ""), ("a*", "a"), ("*b", "ab"), ("a*b*c", "a-b-b-c"), ("gpt-4o", "gpt-4o"), ("é*", "éa")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("a*a", "a"), ("*b*b", "ab"), ("a*b", "abc"), ("", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_sample_keeps_its_share_and_what_a_rule_names_and_says_so() {
        let keep = Keep {
            errors: true,
            slower_than: Some(Duration::from_secs(10)),
            cost_over: Some(Money::from_pico_usd(9)),
        };
        let sample = Sample { rate: 0.25, keep };
        let ids: Vec<_> = (0..4000).map(|_| facts()).collect();
        let kept = ids.iter().filter(|facts| {
            let chosen = selected(Only::default(), sample.clone(), facts);
            assert_eq!(chosen, selected(Only::default(), sample.clone(), facts), "always alike");
            chosen == Selected::Kept { sample_rate: 0.25 }
        });
        let kept = kept.count();
        // Ten standard deviations.
        assert!((730..1270).contains(&kept), "{kept}");
        let unlucky = ids.iter().find(|facts| fraction(facts.id) >= 0.25).expect("one of 4000");
        assert_eq!(selected(Only::default(), sample.clone(), unlucky), Selected::SampledOut);
        let changes: [fn(&mut Facts); 3] = [
            |facts| facts.outcome = Outcome::TimedOut,
            |facts| facts.latency_ms = 10_001,
            |facts| facts.cost = Some(Money::from_pico_usd(10)),
        ];
        for change in changes {
            let mut facts = unlucky.clone();
            change(&mut facts);
            let chosen = selected(Only::default(), sample.clone(), &facts);
            assert_eq!(chosen, Selected::Kept { sample_rate: 1.0 }, "it stands for itself alone");
        }
        let none = Sample { rate: 0.0, keep: Keep::default() };
        assert!(
            ids.iter().all(|facts| selected(Only::default(), none.clone(), facts) == Selected::SampledOut)
        );
    }
}
