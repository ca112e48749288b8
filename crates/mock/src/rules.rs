//! The script file: one script for all, or rules that choose a script by path, model, header and
//! count. Consulted by `service` when the request brings no script of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use crate::script::{Script, ScriptError};

/// A script file with rules.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScriptFile {
    /// Rules; the first that matches wins.
    pub rules: Vec<Rule>,
    /// Script of requests that no rule matches.
    pub default: Script,
}

impl ScriptFile {
    /// Reads a file: either one script, or an object with `rules` and/or `default`.
    pub fn from_json(text: &[u8]) -> Result<Self, ScriptError> {
        // Looked at as a value first: serde's own "either of two shapes" loses the error messages.
        let value: Value = serde_json::from_slice(text)?;
        if value.get("rules").is_some() || value.get("default").is_some() {
            return Ok(serde_json::from_value(value)?);
        }
        Ok(serde_json::from_value::<Script>(value)?.into())
    }
}

impl From<Script> for ScriptFile {
    /// One script for all.
    fn from(default: Script) -> Self {
        Self { rules: Vec::new(), default }
    }
}

/// One rule: a condition and a script.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// The condition; an empty one matches every request.
    #[serde(rename = "match")]
    pub when: RuleMatch,
    /// The script.
    pub script: Script,
}

/// Condition of a rule; every given member has to hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleMatch {
    /// End of the path, without the query.
    pub path: Option<String>,
    /// Model name; a `*` at its end stands for anything.
    pub model: Option<String>,
    /// Header names with their values; the value `*` means "present".
    pub header: BTreeMap<String, String>,
    /// Only the n-th request (from 1) of those for which the rest holds.
    pub nth: Option<u64>,
}

/// The rules at work, with their counters.
pub(crate) struct Playbook {
    rules: Vec<(RuleMatch, Arc<Script>, AtomicU64)>,
    fallback: Arc<Script>,
}

impl Playbook {
    pub(crate) fn new(file: ScriptFile) -> Self {
        let rules = file.rules.into_iter().map(|r| (r.when, Arc::new(r.script), AtomicU64::new(0))).collect();
        Self { rules, fallback: Arc::new(file.default) }
    }

    /// The script for a request. `model` is asked for only when a rule needs it.
    pub(crate) fn pick(
        &self,
        path: &str,
        headers: &HeaderMap,
        model: impl FnOnce() -> Option<String>,
    ) -> Arc<Script> {
        let model = if self.rules.iter().any(|r| r.0.model.is_some()) { model() } else { None };
        for (when, script, seen) in &self.rules {
            if !when.holds(path, headers, model.as_deref()) {
                continue;
            }
            let count = seen.fetch_add(1, Ordering::Relaxed) + 1;
            if when.nth.is_none_or(|n| n == count) {
                return Arc::clone(script);
            }
        }
        Arc::clone(&self.fallback)
    }
}

impl RuleMatch {
    fn holds(&self, path: &str, headers: &HeaderMap, model: Option<&str>) -> bool {
        let path_holds = self.path.as_deref().is_none_or(|end| path.ends_with(end));
        let model_holds = self.model.as_deref().is_none_or(|wanted| {
            let got = model.unwrap_or_default();
            wanted.strip_suffix('*').map_or(got == wanted, |start| got.starts_with(start))
        });
        path_holds
            && model_holds
            && self.header.iter().all(|(name, value)| {
                headers.get(name).is_some_and(|got| value == "*" || got.as_bytes() == value.as_bytes())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(book: &Playbook, path: &str, model: &str) -> Option<String> {
        book.pick(path, &HeaderMap::new(), || Some(model.to_owned())).text.clone()
    }

    #[test]
    fn first_matching_rule_wins_and_nth_counts_matches() {
        let file = ScriptFile::from_json(
            br#"{"rules":[{"match":{"model":"a*","nth":2},"script":{"text":"second"}},
                 {"match":{"path":"/embeddings"},"script":{"text":"emb"}}],
                "default":{"text":"rest"}}"#,
        )
        .unwrap();
        let book = Playbook::new(file);
        assert_eq!(text(&book, "/v1/chat/completions", "abc").as_deref(), Some("rest"));
        assert_eq!(text(&book, "/v1/chat/completions", "b").as_deref(), Some("rest"));
        assert_eq!(text(&book, "/v1/chat/completions", "abc").as_deref(), Some("second"));
        assert_eq!(text(&book, "/v1/embeddings", "b").as_deref(), Some("emb"));
    }

    #[test]
    fn a_bare_script_is_a_file_too() {
        let file = ScriptFile::from_json(br#"{"text":"x"}"#).unwrap();
        assert_eq!(file.default.text.as_deref(), Some("x"));
        assert!(ScriptFile::from_json(br#"{"rules":[],"other":1}"#).is_err());
    }

    #[test]
    fn header_condition() {
        let when = RuleMatch { header: [("x-a".into(), "*".into())].into(), ..RuleMatch::default() };
        let mut headers = HeaderMap::new();
        assert!(!when.holds("/", &headers, None));
        headers.insert("x-a", http::HeaderValue::from_static("1"));
        assert!(when.holds("/", &headers, None));
    }
}
