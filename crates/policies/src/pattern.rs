//! The patterns that say which models a virtual key may use.
//!
//! Applied to what routing resolved, never to what the caller wrote (pitfall 75: `bedrock/*` admitted `bedrockz/…`).
//!
//! - `*` alone: everything.
//! - `provider/rest`: the first segment is the provider, exact or `*`; the rest is the model, which may have slashes.
//! - In the rest a segment is exact or `*` (any one segment), and a `*` at the very end takes whatever follows:
//!   `openai/*`, `openai/gpt-5*`, `groq/openai/*`.
//! - Nothing else is a pattern. Letters are compared as they are.

/// One pattern, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelPattern<'p> {
    provider: &'p str,
    /// The model's pattern without a `*` at its end.
    model: &'p str,
    /// Whether that `*` was there.
    open: bool,
}

impl<'p> ModelPattern<'p> {
    /// Reads a pattern; the error says what was expected.
    pub(crate) fn parse(text: &'p str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self { provider: "*", model: "", open: true });
        }
        let fail = |why: &str| Err(format!("model pattern {text:?}: {why}"));
        let Some((provider, rest)) = text.split_once('/') else {
            return fail("expected provider/model, provider/* or *");
        };
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return fail("a space is not part of a name");
        }
        if provider.is_empty() || rest.is_empty() {
            return fail("provider and model must not be empty; * stands for any");
        }
        if provider != "*" && provider.contains('*') {
            return fail("* stands for a whole provider, never for a part of its name");
        }
        let (model, open) = rest.strip_suffix('*').map_or((rest, false), |model| (model, true));
        let twice = open && model.ends_with('*');
        if twice || model.split('/').any(|segment| segment != "*" && segment.contains('*')) {
            return fail("within the model * is a whole segment or the end");
        }
        Ok(Self { provider, model, open })
    }

    /// Whether it admits this model of this provider.
    pub(crate) fn admits(&self, provider: &str, model: &str) -> bool {
        if self.provider != "*" && self.provider != provider {
            return false;
        }
        let (mut pattern, mut model) = (self.model, model);
        loop {
            match (pattern.split_once('/'), model.split_once('/')) {
                // The pattern's last segment: it alone may be open, and then slashes of the model belong to the rest.
                (None, _) if self.open => return model.starts_with(pattern),
                (None, None) => return is_segment(pattern, model),
                (Some((want, more)), Some((have, left))) if is_segment(want, have) => {
                    (pattern, model) = (more, left);
                }
                _ => return false,
            }
        }
    }
}

/// `*` stands for any segment that is not empty.
fn is_segment(want: &str, have: &str) -> bool {
    if want == "*" { !have.is_empty() } else { want == have }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

    use super::ModelPattern;

    fn admits(pattern: &str, name: &str) -> bool {
        let (provider, model) = name.split_once('/').expect("provider/model");
        ModelPattern::parse(pattern).expect(pattern).admits(provider, model)
    }

    #[test]
    fn what_each_form_admits() {
        for (pattern, yes, no) in [
            ("*", &["openai/gpt-5", "groq/openai/x", "openai/"][..], &[][..]),
            (
                "openai/*",
                &["openai/gpt-5", "openai/ft:a/b", "openai/"],
                &["openaiz/gpt-5", "OpenAI/gpt-5", "open/ai"],
            ),
            (
                "openai/gpt-5*",
                &["openai/gpt-5", "openai/gpt-5.6-mini"],
                &["openai/gpt-4", "azure/gpt-5", "openai/"],
            ),
            (
                "openai/gpt-5",
                &["openai/gpt-5"],
                &["openai/gpt-5.6", "openai/gpt-5/x", "openai/GPT-5", "openai/x/gpt-5"],
            ),
            (
                "groq/openai/*",
                &["groq/openai/gpt-oss-120b"],
                &["groq/openaiz/x", "groq/openai", "openai/gpt-5"],
            ),
            ("*/gpt-oss-120b", &["cerebras/gpt-oss-120b"], &["groq/openai/gpt-oss-120b"]),
            ("*/*", &["a/b", "a/b/c"], &[]),
            (
                "fireworks/accounts/*/models/k*",
                &["fireworks/accounts/me/models/kimi"],
                &["fireworks/accounts/a/b/models/k"],
            ),
            ("a/*/c", &["a/b/c"], &["a//c", "a/b", "a/b/c/d", "a/b/b/c"]),
        ] {
            for name in yes {
                assert!(admits(pattern, name), "{pattern} admits {name}");
            }
            for name in no {
                assert!(!admits(pattern, name), "{pattern} does not admit {name}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for bad in [
            "",
            "openai",
            "gpt-*",
            "/gpt",
            "openai/",
            "open*/x",
            "openai/g*t",
            "openai/*-mini",
            "openai/**",
            "a/ b",
        ] {
            let error = ModelPattern::parse(bad).expect_err(bad);
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        "[a-z0-9.:-]{1,8}"
    }

    fn model() -> impl Strategy<Value = String> {
        "[a-z0-9.:-]{1,8}(/[a-z0-9.:-]{1,8}){0,2}"
    }

    proptest! {
        #[test]
        fn an_exact_pattern_admits_itself_alone(provider in name(), wanted in model(), other in model()) {
            let text = format!("{provider}/{wanted}");
            let pattern = ModelPattern::parse(&text).expect("a pattern");
            prop_assert!(pattern.admits(&provider, &wanted));
            prop_assert_eq!(pattern.admits(&provider, &other), wanted == other);
        }

        #[test]
        fn a_provider_never_admits_another(mine in name(), other in name(), model in model()) {
            for text in [format!("{mine}/*"), format!("{mine}/{model}"), format!("{mine}/{model}*")] {
                let pattern = ModelPattern::parse(&text).expect("a pattern");
                prop_assert!(pattern.admits(&mine, &model));
                prop_assert_eq!(pattern.admits(&other, &model), mine == other);
                let longer = format!("{mine}z");
                prop_assert!(!pattern.admits(&longer, &model));
            }
        }

        #[test]
        fn an_open_end_is_a_prefix(provider in name(), start in model(), model in model()) {
            let text = format!("{provider}/{start}*");
            let pattern = ModelPattern::parse(&text).expect("a pattern");
            prop_assert_eq!(pattern.admits(&provider, &model), model.starts_with(&start));
        }

        #[test]
        fn no_text_panics_and_whatever_reads_admits_no_other_provider(text in "[ao*/ .]{0,12}", model in "[ao*/]{0,8}") {
            if let Ok(pattern) = ModelPattern::parse(&text) {
                let any = text == "*" || text.starts_with("*/");
                prop_assert!(any || !pattern.admits("another", &model));
            }
        }
    }
}
