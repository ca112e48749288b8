//! What is taken out of records.

use magicapi_model::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is taken out of records before any exporter sees them, beside secrets. Patterns and paths are as they were
/// written: `telemetry` compiles them.
#[derive(Clone, PartialEq)]
pub struct Redaction {
    /// Personal data, each kind once.
    pub pii: Vec<PersonalData>,
    /// Patterns of the user's own.
    pub patterns: Vec<RedactionPattern>,
    /// JSON paths.
    pub paths: Vec<String>,
    /// What stands in the place of what was found.
    pub replace: ReplaceWith,
    /// The key of `replace: hash`.
    pub hash_key: Option<Secret>,
}

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PersonalData {
    /// E-mail addresses.
    Email,
    /// Telephone numbers.
    Phone,
    /// Payment card numbers.
    Card,
    /// International bank account numbers.
    Iban,
    /// Public IP addresses.
    Ip,
    /// National ids of eight countries.
    NationalId,
}

impl PersonalData {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Email, Self::Phone, Self::Card, Self::Iban, Self::Ip, Self::NationalId];
}

/// A pattern of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactionPattern {
    /// What it is called.
    pub name: String,
    /// The regular expression.
    pub regex: String,
}

/// What stands in the place of what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceWith {
    /// Its name.
    #[default]
    Mask,
    /// Its name and a keyed hash of the text.
    Hash,
}
