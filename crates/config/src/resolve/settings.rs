//! A plug-in's settings from its environment variables.

use magicapi_plugin::{Settings, SettingsKey, ValueKind};
use serde_json::{Map, Value};

use super::telemetry::pairs;
use crate::catalogue::PluginSpec;
use crate::context::Context;
use crate::diagnostics::Diagnostic;

/// The settings whose variables are set; the plug-in has defaults for the others.
pub(super) fn from_environment(cx: &mut Context<'_>, plugin: &PluginSpec, at: &str) -> Settings {
    let mut settings = Map::new();
    for key in plugin.settings.keys() {
        let Some(variable) = key.env.as_deref() else { continue };
        let path = format!("{at}.{}", key.name);
        let Some(text) = cx.variable(&path, variable) else { continue };
        match value(key, text.trim()) {
            Ok(value) => {
                settings.insert(key.name.clone(), value);
            }
            Err(problem) => cx.problem(&path, problem),
        }
    }
    missing(cx, plugin, &settings, at);
    Settings::new(settings)
}

/// A variable's text as the kind of value that its setting has.
fn value(key: &SettingsKey, text: &str) -> Result<Value, String> {
    match &key.kind {
        ValueKind::String | ValueKind::Secret => Ok(text.into()),
        ValueKind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Ok(true.into()),
            "false" | "0" | "no" => Ok(false.into()),
            _ => Err(format!("expected `true` or `false`, found `{text}`")),
        },
        ValueKind::Integer => {
            let unsigned = text.parse::<u64>().map(Value::from);
            let number = unsigned.or_else(|_| text.parse::<i64>().map(Value::from));
            number.map_err(|_| format!("expected a whole number, found `{text}`"))
        }
        ValueKind::Number => {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number.map(Value::from).ok_or_else(|| format!("expected a number, found `{text}`"))
        }
        ValueKind::List => Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
        // Headers and the like: what they hold is not shown.
        ValueKind::Map => {
            pairs(text).map(|pairs| pairs.into_iter().map(|(k, v)| (k, Value::from(v))).collect())
        }
        // OpenTelemetry wants its words read in either case.
        ValueKind::OneOf(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => Ok(word.as_str().into()),
            None => Err(format!("expected one of {}, found `{text}`", words.join(", "))),
        },
        _ => Ok(serde_json::from_str(text).unwrap_or_else(|_| text.into())),
    }
}

/// The remedy for an exporter that a variable names and that needs a setting which none sets.
pub(crate) fn without_variable(exporter: &str, setting: &str) -> String {
    format!(
        "`{setting}` has no variable: name this exporter in a configuration file (--config, MAGICAPI_CONFIG) instead:\n  \
         telemetry:\n    exporters:\n      - type: {exporter}\n        {setting}: …"
    )
}

/// Settings without which the plug-in cannot be made.
fn missing(cx: &mut Context<'_>, plugin: &PluginSpec, settings: &Map<String, Value>, at: &str) {
    let required = plugin.settings.schema().get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if settings.contains_key(name) {
            continue;
        }
        let key = plugin.settings.keys().iter().find(|key| key.name == name);
        let remedy = match key.and_then(|key| key.env.as_deref()) {
            Some(variable) => format!("set {variable}"),
            None => without_variable(plugin.name, name),
        };
        let path = format!("{at}.{name}");
        // A value that could not be read has been reported already.
        if !cx.problems.iter().any(|problem| problem.key == path) {
            let problem = format!("exporter `{}`: `{name}` is missing", plugin.name);
            let problem = Diagnostic { key: path, ..cx.at(&format!("{at}.type"), problem) };
            cx.report(problem.remedy(remedy));
        }
    }
}

#[cfg(test)]
mod tests {
    use magicapi_plugin::{SettingsKey, ValueKind};

    use super::value;

    #[test]
    fn words_are_read_in_either_case_and_handed_on_as_they_are_known() {
        let words = vec!["gzip".into(), "http/protobuf".into()];
        let key = SettingsKey::new("compression", ValueKind::OneOf(words));
        assert_eq!(value(&key, "GZIP"), Ok("gzip".into()));
        assert_eq!(value(&key, "HTTP/Protobuf"), Ok("http/protobuf".into()));
        assert_eq!(value(&key, "gzi"), Err("expected one of gzip, http/protobuf, found `gzi`".into()));
    }
}
