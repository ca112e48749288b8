//! The cases on settings: described, typed, checked without I/O, refused in words that name them.

use std::fs;

use magicapi_plugin::{RESERVED_KEYS, SettingsKey, SettingsSpec, Signals, ValueKind};
use serde_json::{Map, Value, json};

use crate::backend::{Backend, Behaviour};
use crate::stage::Stage;
use crate::suite::REFUSED;

/// What the name of a secret ends with.
const SECRET_ENDS: &[&str] =
    &["password", "passphrase", "secret", "token", "api_key", "apikey", "license_key", "private_key"];

/// Names, documentation and kinds.
pub(crate) fn described(stage: &Stage) {
    let name = stage.suite.plugin.name();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        stage.finding(format!("{name:?} is no name: expected lower-case letters, digits, _ and -"));
    }
    let signals = [Signals::RECORDS, Signals::METRICS, Signals::SCRAPE];
    if !signals.into_iter().any(|signal| stage.spec.takes(signal)) {
        stage.finding("it takes no signal");
    }
    let mut variables: Vec<&str> = Vec::new();
    for key in stage.spec.keys() {
        let wrong = |what: &str| stage.finding(format!("`{}` {what}", key.name));
        if key.doc.trim().is_empty() {
            wrong("has no documentation");
        }
        if RESERVED_KEYS.contains(&key.name.as_str()) {
            wrong("is a key of the pipeline: nobody could set it");
        }
        if is_secret_by_name(&stage.spec, key) {
            wrong("is a secret by its name; give it the type Secret");
        }
        let Some(variable) = key.env.as_deref() else { continue };
        let written = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if !variable.chars().all(written) || variables.contains(&variable) {
            wrong(&format!("has the variable {variable}: expected one of its own, in capitals"));
        }
        variables.push(variable);
    }
    if stage.spec.schema().get("additionalProperties") != Some(&Value::Bool(false)) {
        stage.finding("the struct of the settings lacks #[serde(deny_unknown_fields)]");
    }
}

/// Making one connects to nothing and writes nothing, and two do not get into each other's way.
pub(crate) fn pure(stage: &Stage) {
    let Some(backend) = stage.backend(Behaviour::Well) else { return };
    let made = [(); 2].map(|()| stage.make(stage.settings(&backend), &backend));
    if let Some(error) = made.iter().find_map(|made| made.as_ref().err()) {
        stage.finding(format!("{REFUSED}: {error}"));
    }
    // What it had begun aside would now run.
    stage.within(crate::stage::SHORT, std::future::pending::<()>());
    if !backend.requests().is_empty() || backend.connections() > 0 {
        stage.finding("create_exporter talks to the back end; that is for init");
    }
    for folder in stage.folders() {
        if fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()) {
            stage.finding("create_exporter writes files; that is for init");
        }
    }
}

/// What is not given has a default or is named; what nobody knows is refused.
pub(crate) fn defaults(stage: &Stage) {
    let Some(backend) = stage.backend(Behaviour::Well) else { return };
    tried(stage, &backend, Map::new(), "no settings");
    let given = stage.settings(&backend);
    let mut all = given.clone();
    for key in stage.spec.keys() {
        let Some(default) = key.default.clone() else { continue };
        let mut one = given.clone();
        one.entry(key.name.clone()).or_insert_with(|| default.clone());
        if stage.make(given.clone(), &backend).is_ok()
            && let Err(error) = stage.make(one, &backend)
        {
            stage.finding(format!("the default of `{}`, given, is refused: {error}", key.name));
        }
        all.entry(key.name.clone()).or_insert(default);
    }
    all.insert("no_such_setting".into(), json!(1));
    match stage.make(all, &backend) {
        Ok(_) => stage.finding("an unknown setting is accepted: #[serde(deny_unknown_fields)]"),
        Err(error) if !error.to_string().contains("no_such_setting") => {
            stage.finding(format!("an unknown setting is refused without its name: {error}"));
        }
        Err(_) => {}
    }
}

/// Wrong kinds are refused by name, odd values do no harm, and no error quotes a secret.
pub(crate) fn wrong_values(stage: &Stage) {
    let Some(backend) = stage.backend(Behaviour::Well) else { return };
    let given = stage.settings(&backend);
    for key in stage.spec.keys() {
        let with = |value: Value| {
            let mut settings = given.clone();
            settings.insert(key.name.clone(), value);
            settings
        };
        for value in wrong_kinds(key) {
            let what = format!("`{}: {value}`", key.name);
            match tried(stage, &backend, with(value), &what) {
                None => stage.finding(format!("{what} is accepted")),
                Some(named) if named != key.name => {
                    stage.finding(format!("{what} is refused, but the error names `{named}`"));
                }
                Some(_) => {}
            }
        }
        for value in odd_values(key) {
            let shown: String = value.to_string().chars().take(40).collect();
            tried(stage, &backend, with(value), &format!("`{}: {shown}`", key.name));
        }
    }
}

/// Makes an exporter with these settings; the setting that the error names when that fails.
fn tried(stage: &Stage, backend: &Backend, settings: Map<String, Value>, what: &str) -> Option<String> {
    let error = stage.make(settings, backend).err()?;
    let named = error.key.split(['.', '[']).next().unwrap_or_default().to_owned();
    if !knows(&stage.spec, &named) {
        stage.finding(format!("with {what} the error names no setting: {error}"));
    }
    if error.message.trim().is_empty() {
        stage.finding(format!("with {what} the error says nothing"));
    }
    if let Some(shown) = stage.words().within(&format!("{error} {error:?}")) {
        stage.finding(format!("with {what} the error shows {shown}"));
    }
    Some(named)
}

/// Whether its name calls it a secret, or several (`tokens`), and its texts have not that type.
fn is_secret_by_name(spec: &SettingsSpec, key: &SettingsKey) -> bool {
    let holds = |inner: &str| {
        let inner = spec.schema().pointer(&format!("/properties/{}/{inner}", key.name));
        inner.is_some_and(|one| one["type"] == "string" && one["format"] != "secret")
    };
    let is_open = match key.kind {
        ValueKind::String => true,
        ValueKind::List => holds("items"),
        ValueKind::Map => holds("additionalProperties"),
        _ => false,
    };
    let one = key.name.strip_suffix('s').unwrap_or(&key.name);
    is_open && SECRET_ENDS.iter().any(|end| one.ends_with(end) || key.name.ends_with(end))
}

fn knows(spec: &SettingsSpec, name: &str) -> bool {
    spec.keys().iter().any(|key| key.name == name)
}

/// Values that are not of the key's kind.
fn wrong_kinds(key: &SettingsKey) -> Vec<Value> {
    match key.kind {
        ValueKind::String | ValueKind::Secret => vec![json!({"a": []}), json!([1])],
        ValueKind::Bool => vec![json!("perhaps"), json!([])],
        ValueKind::Integer => vec![json!("many"), json!(0.5), json!({})],
        ValueKind::Number => vec![json!("many"), json!({})],
        ValueKind::List => vec![json!({"a": 1})],
        ValueKind::Map => vec![json!(["a"])],
        ValueKind::OneOf(_) => vec![json!("no_such_word"), json!([])],
        _ => Vec::new(),
    }
}

/// Values of the key's kind that few expect.
fn odd_values(key: &SettingsKey) -> Vec<Value> {
    let texts = ["", " ", "\u{0}\r\n", "://", "http://", "http://[", "no such place", "ü🦀", "../..", "-1"];
    match key.kind {
        ValueKind::String | ValueKind::Secret => {
            let long = "ä".repeat(10_000);
            texts.into_iter().chain([long.as_str()]).map(Value::from).collect()
        }
        ValueKind::Integer => vec![json!(0), json!(u64::MAX), json!(i64::MIN), json!(-1)],
        ValueKind::Number => vec![json!(0), json!(-1), json!(1e308)],
        ValueKind::List => vec![json!([]), json!([""]), json!(["\u{0}\n"])],
        ValueKind::Map => vec![json!({}), json!({"": ""}), json!({"\u{0}\n": "\u{0}\n"})],
        ValueKind::Bool => vec![json!(true), json!(false)],
        _ => Vec::new(),
    }
}
