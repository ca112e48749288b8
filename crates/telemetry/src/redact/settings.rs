//! What is redacted and how (`telemetry.redact`), and what can be wrong with it.

use std::fmt;

use magicapi_plugin::Secret;
use serde::Deserialize;

/// `telemetry.redact`. The default finds secrets and masks them; that cannot be switched off.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedactionSettings {
    /// Personal data to find besides secrets: `true`, `false` (the default) or a list of kinds.
    pub pii: PiiSetting,
    /// Patterns of your own.
    pub patterns: Vec<CustomPattern>,
    /// JSON paths whose values are replaced whole, such as `$.request.messages[*].content`.
    pub paths: Vec<String>,
    /// What stands in the place of what was found.
    pub replace: Replace,
    /// The key of `replace: hash`; at least 16 bytes. Equal secrets get equal hashes as long as it stays the same.
    pub hash_key: Secret,
    /// Secrets of the gateway's own, to be found whatever their form. Those that may be words are left out: a local
    /// provider's key is often `not-needed`.
    #[serde(skip)]
    pub own: Vec<Secret>,
}

/// Never shows the key.
impl fmt::Debug for RedactionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactionSettings")
            .field("pii", &self.pii)
            .field("patterns", &self.patterns)
            .field("paths", &self.paths)
            .field("replace", &self.replace)
            .finish_non_exhaustive()
    }
}

/// All kinds of personal data, none, or some.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PiiSetting {
    /// All or none.
    All(bool),
    /// These.
    Kinds(Vec<Pii>),
}

impl Default for PiiSetting {
    fn default() -> Self {
        Self::All(false)
    }
}

impl PiiSetting {
    /// Whether this kind is looked for.
    pub fn has(&self, kind: Pii) -> bool {
        match self {
            Self::All(all) => *all,
            Self::Kinds(kinds) => kinds.contains(&kind),
        }
    }
}

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pii {
    /// E-mail addresses.
    Email,
    /// Telephone numbers, international or in a usual national form.
    Phone,
    /// Payment card numbers with the prefix of a network and a right Luhn digit.
    Card,
    /// IBANs of a country's length with right check digits.
    Iban,
    /// Public IPv4 and IPv6 addresses.
    Ip,
    /// National ids: US, GB, DE, FR, ES, IT, BR, IN.
    NationalId,
}

/// A pattern of the user's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomPattern {
    /// Stands in the replacement: `[REDACTED:<name>]`. Letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// In the syntax of the crate `regex`, on bytes: `\w`, `\d`, `\s`, `\b` and `(?i)` mean ASCII.
    pub regex: String,
}

/// What stands in the place of what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replace {
    /// `[REDACTED:<name>]`
    #[default]
    Mask,
    /// `[REDACTED:<name>:<12 hex digits>]` of HMAC-SHA-256 over the text, with `hash_key`.
    Hash,
}

/// Settings that cannot be used: which key below `telemetry.redact`, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("telemetry.redact.{key}: {reason}")]
pub struct RedactionError {
    /// The key, such as `hash_key` or `patterns[1].regex`.
    pub key: String,
    /// What is wrong with it, and the remedy. Never the value of a secret.
    pub reason: String,
}

impl RedactionError {
    pub(super) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }
}
