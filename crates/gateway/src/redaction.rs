//! From the configuration's words for redaction to what does it.

use std::sync::Arc;

use magicapi_config::{Catalogue, Config, Loaded, PersonalData, ReplaceWith};
use magicapi_model::Secret;
use magicapi_telemetry::redact::{CustomPattern, Pii, PiiSetting, RedactionSettings, Redactor, Replace};

use crate::parts::Problem;

/// Compiles what takes secrets and personal data out of records. `token`: the admin plane's, which the configuration need
/// not name.
pub(crate) fn redactor(
    loaded: &Loaded,
    catalogue: &Catalogue,
    token: Option<&Secret>,
) -> Result<Arc<Redactor>, Problem> {
    let mut settings = settings(&loaded.config);
    // A provider or a back end may repeat what the gateway sent it.
    settings.own = loaded.config.secrets(catalogue);
    settings.own.extend(token.cloned());
    let redactor = Redactor::new(&settings);
    redactor
        .map(Arc::new)
        .map_err(|error| loaded.problem(&format!("telemetry.redact.{}", error.key), error.reason).to_string())
}

fn settings(config: &Config) -> RedactionSettings {
    let redaction = &config.telemetry.redaction;
    let kind = |kind: &PersonalData| match kind {
        PersonalData::Email => Pii::Email,
        PersonalData::Phone => Pii::Phone,
        PersonalData::Card => Pii::Card,
        PersonalData::Iban => Pii::Iban,
        PersonalData::Ip => Pii::Ip,
        PersonalData::NationalId => Pii::NationalId,
    };
    let patterns = redaction.patterns.iter();
    RedactionSettings {
        pii: PiiSetting::Kinds(redaction.pii.iter().map(kind).collect()),
        patterns: patterns
            .map(|one| CustomPattern { name: one.name.clone(), regex: one.regex.clone() })
            .collect(),
        paths: redaction.paths.clone(),
        replace: match redaction.replace {
            ReplaceWith::Mask => Replace::Mask,
            ReplaceWith::Hash => Replace::Hash,
        },
        hash_key: redaction.hash_key.clone().unwrap_or_default(),
        own: Vec::new(),
    }
}
