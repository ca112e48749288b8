//! What the user wrote below `telemetry.redact`.

use magicapi_model::Secret;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::{PersonalData, ReplaceWith};

/// What is taken out of records before any exporter sees them. Secrets always are.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redact {
    /// Personal data to take out besides secrets: `true`, `false` (the default) or a list of kinds.
    pub(crate) pii: Option<Pii>,
    /// Patterns of your own, before all others.
    pub(crate) patterns: Vec<Pattern>,
    /// JSON paths whose values are replaced whole, such as `$.request.messages[*].content` (default: none).
    pub(crate) paths: Vec<String>,
    /// What stands in the place of what was found (default `mask`).
    pub(crate) replace: Option<ReplaceWith>,
    /// The key of `replace: hash`, 16 bytes or more. Equal texts get equal digits as long as it stays the same.
    pub(crate) hash_key: Option<Secret>,
}

/// All kinds of personal data, none, or some.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Pii {
    /// All or none.
    All(bool),
    /// These.
    Kinds(Vec<PersonalData>),
}

/// A pattern of the user's own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pattern {
    /// Stands in the replacement, `[REDACTED:<name>]`: up to 64 letters, digits, `_` or `-`.
    pub(crate) name: String,
    /// In the syntax of the Rust crate `regex`; `\w`, `\d`, `\s`, `\b` and `(?i)` mean ASCII.
    pub(crate) regex: String,
}
