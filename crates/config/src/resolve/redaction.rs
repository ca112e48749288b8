//! What is taken out of records: `telemetry.redact`, defaults filled in.

use crate::raw;
use crate::types::{PersonalData, Redaction, RedactionPattern};

pub(super) fn redaction(file: raw::Redact) -> Redaction {
    let asked = |kind: &PersonalData| match &file.pii {
        None => false,
        Some(raw::Pii::All(all)) => *all,
        Some(raw::Pii::Kinds(kinds)) => kinds.contains(kind),
    };
    let pattern = |pattern: raw::RedactPattern| RedactionPattern { name: pattern.name, regex: pattern.regex };
    Redaction {
        pii: PersonalData::ALL.into_iter().filter(asked).collect(),
        patterns: file.patterns.into_iter().map(pattern).collect(),
        paths: file.paths,
        replace: file.replace.unwrap_or_default(),
        hash_key: file.hash_key.filter(|key| !key.is_empty()),
    }
}
