//! Settings of a plug-in, read from its own struct: keys, kinds, defaults, documentation, environment variables.
//!
//! `config` fills them from the file or the environment and checks them without I/O; the schema, `check`, the exporter
//! pages and the error texts come from the same [`SettingsSpec`].

use std::ops::BitOr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ConfigError;

/// Keys of an exporter's entry that belong to the pipeline: a setting of that name could never be given.
pub const RESERVED_KEYS: &[&str] = &[
    "type",
    "name",
    "content",
    "only",
    "sample",
    "require_healthy",
    "init_timeout",
    "timeout",
    "concurrency",
    "rate_limit",
    "batch",
    "buffer",
    "retry",
    "breaker",
    "dead_letters",
    "tls",
    "proxy",
    "auth",
];

/// Which signals an exporter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals(u8);

impl Signals {
    /// One record per request, in batches.
    pub const RECORDS: Self = Self(1);
    /// A snapshot of all metrics, every `metrics.interval`.
    pub const METRICS: Self = Self(2);
    /// A page that is fetched; no queue.
    pub const SCRAPE: Self = Self(4);

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Signals {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What an exporter needs of records besides what they always hold; it costs time and memory, so it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u8);

impl Needs {
    /// [`crate::RequestMetrics::conversation`].
    pub const CONVERSATION: Self = Self(1);

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a setting's value looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueKind {
    /// Text.
    String,
    /// A text that is masked wherever settings are shown.
    Secret,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A list; in an environment variable, separated by commas.
    List,
    /// A mapping.
    Map,
    /// One of these words.
    OneOf(Vec<String>),
    /// Anything else; see the schema.
    Other,
}

/// One setting.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SettingsKey {
    /// Its key in the file.
    pub name: String,
    /// What its value looks like.
    pub kind: ValueKind,
    /// Its default; `None` when it has none (or is a secret).
    pub default: Option<Value>,
    /// Its documentation, in one line.
    pub doc: String,
    /// The environment variable that sets it.
    pub env: Option<String>,
}

impl SettingsKey {
    /// A setting that has neither default nor variable.
    pub fn new(name: impl Into<String>, kind: ValueKind) -> Self {
        Self { name: name.into(), kind, default: None, doc: String::new(), env: None }
    }
}

/// Variables that set the pipeline's key `tls` where a variable names the exporter (`ENABLED_EXPORTERS`), each the path
/// of a PEM file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsVariables {
    /// Of `tls.ca_file`.
    pub ca_file: &'static str,
    /// Of `tls.cert`.
    pub cert: &'static str,
    /// Of `tls.key`.
    pub key: &'static str,
    /// Those that stand for a part of what is sent alone, such as one signal, and win there.
    pub parts: &'static [Self],
}

impl TlsVariables {
    /// The variables of `tls.ca_file`, `tls.cert` and `tls.key`.
    pub const fn new(ca_file: &'static str, cert: &'static str, key: &'static str) -> Self {
        Self { ca_file, cert, key, parts: &[] }
    }

    /// The same with those of each part. An exporter has one client: parts that do not agree are refused.
    pub const fn with_parts(self, parts: &'static [Self]) -> Self {
        Self { parts, ..self }
    }

    /// The variables, each with its key.
    pub fn keys(&self) -> [(&'static str, &'static str); 3] {
        [("tls.ca_file", self.ca_file), ("tls.cert", self.cert), ("tls.key", self.key)]
    }
}

/// All settings of one plug-in.
#[derive(Clone, Debug)]
pub struct SettingsSpec {
    schema: Value,
    keys: Vec<SettingsKey>,
    signals: Signals,
    needs: Needs,
    exclusive: bool,
    speaks_http: bool,
    tls: Option<TlsVariables>,
    max_age: Option<Duration>,
}

impl SettingsSpec {
    /// Reads the spec from a settings struct: `#[derive(Default, Deserialize, JsonSchema)]`,
    /// `#[serde(default, deny_unknown_fields)]`, a doc line per field, and
    /// `#[schemars(extend("env" = "ELASTICSEARCH_URL"))]` where a variable sets it. A field that names a file which one
    /// exporter alone may write is marked `#[schemars(extend("x-unique" = true))]`: two entries of this kind with the
    /// same are refused. One that may hold secrets among other words, such as the arguments of a command, is marked
    /// `x-as-written`: it is shown as the file has it, with `${TOKEN}` instead of its value. Signals: `RECORDS`.
    pub fn of<T: JsonSchema + DeserializeOwned + Default>() -> Self {
        let schema = schemars::generate::SchemaSettings::default()
            .with(|settings| settings.inline_subschemas = true)
            .into_generator()
            .into_root_schema_for::<T>()
            .to_value();
        let keys = schema
            .get("properties")
            .and_then(Value::as_object)
            .map(|properties| properties.iter().map(|(name, property)| read_key(name, property)).collect())
            .unwrap_or_default();
        let (signals, needs) = (Signals::RECORDS, Needs::default());
        Self { schema, keys, signals, needs, exclusive: false, speaks_http: true, tls: None, max_age: None }
    }

    /// Sets the signals that the exporter takes.
    pub fn signals(mut self, signals: Signals) -> Self {
        self.signals = signals;
        self
    }

    /// Says that an exporter holds what only one may hold: a file, a child process. At a reload its replacement is not
    /// begun before it has ended; other replacements are begun beside it.
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Says that an exporter makes no use of [`crate::Host::http`]: `tls`, `proxy` and `auth` of its entry are refused.
    pub fn without_http(mut self) -> Self {
        self.speaks_http = false;
        self
    }

    /// Sets the default of the pipeline's `buffer.max_age`, for a back end that takes nothing older than its window: what
    /// waits on disk for longer would be refused in the end. Without it the default is 7 days.
    pub fn max_age(mut self, below_the_window: Duration) -> Self {
        self.max_age = Some(below_the_window);
        self
    }

    /// The plug-in's own default of `buffer.max_age`.
    pub fn default_max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// Names the variables that the back end's users have for a private authority and a client certificate.
    pub fn tls_variables(mut self, variables: TlsVariables) -> Self {
        self.tls = Some(variables);
        self
    }

    /// The variables of the key `tls`, if there are any.
    pub fn tls(&self) -> Option<&TlsVariables> {
        self.tls.as_ref()
    }

    /// Whether it sends over the gateway's HTTP client.
    pub fn speaks_http(&self) -> bool {
        self.speaks_http
    }

    /// Whether two exporters of one name must not live at the same time.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// The signals that the exporter takes.
    pub fn takes(&self, signals: Signals) -> bool {
        self.signals.contains(signals)
    }

    /// Sets what the exporter needs of records.
    pub fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// What the exporter needs of records.
    pub fn needed(&self) -> Needs {
        self.needs
    }

    /// The keys, in the struct's order.
    pub fn keys(&self) -> &[SettingsKey] {
        &self.keys
    }

    /// The JSON Schema of the struct.
    pub fn schema(&self) -> &Value {
        &self.schema
    }
}

fn read_key(name: &str, property: &Value) -> SettingsKey {
    let text = |key: &str| property.get(key).and_then(Value::as_str);
    SettingsKey {
        name: name.into(),
        kind: read_kind(property),
        default: property.get("default").filter(|value| !value.is_null()).cloned(),
        doc: text("description").unwrap_or_default().replace('\n', " "),
        env: text("env").map(Into::into),
    }
}

fn read_kind(property: &Value) -> ValueKind {
    // `Option<T>` is `anyOf: [T, null]` or `type: [T, "null"]`.
    if let Some(inner) = property.get("anyOf").and_then(Value::as_array).and_then(|any| any.first()) {
        return read_kind(inner);
    }
    if property.get("format").and_then(Value::as_str) == Some("secret") {
        return ValueKind::Secret;
    }
    let words = |list: &Vec<Value>| list.iter().filter_map(|word| word.as_str().map(Into::into)).collect();
    if let Some(list) = property.get("enum").and_then(Value::as_array) {
        return ValueKind::OneOf(words(list));
    }
    if let Some(variants) = property.get("oneOf").and_then(Value::as_array) {
        let constants: Vec<Value> = variants.iter().filter_map(|one| one.get("const").cloned()).collect();
        return if constants.len() == variants.len() {
            ValueKind::OneOf(words(&constants))
        } else {
            ValueKind::Other
        };
    }
    let kind = match property.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
        _ => "",
    };
    match kind {
        "string" => ValueKind::String,
        "boolean" => ValueKind::Bool,
        "integer" => ValueKind::Integer,
        "number" => ValueKind::Number,
        "array" => ValueKind::List,
        "object" => ValueKind::Map,
        _ => ValueKind::Other,
    }
}

/// The values for one exporter: defaults are not in it, `T::default()` has them. No `Debug`: it holds secrets.
#[derive(Clone, Default, PartialEq)]
pub struct Settings(Map<String, Value>);

impl Settings {
    /// Made by `config`; by tests from `serde_json::json!`.
    pub fn new(values: Map<String, Value>) -> Self {
        Self(values)
    }

    /// Reads them into the plug-in's own struct. An error names the setting that it is about.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(Value::Object(self.0.clone())).map_err(|error| {
            let path = error.path().to_string();
            let key = if path == "." { String::new() } else { path };
            ConfigError::new(key, error.into_inner().to_string())
        })
    }

    /// The raw values. They may hold secrets.
    pub fn values(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl From<Value> for Settings {
    fn from(value: Value) -> Self {
        match value {
            Value::Object(values) => Self(values),
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use magicapi_model::Secret;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::{Settings, SettingsSpec, Signals, ValueKind};

    /// Compression of bodies.
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Compression {
        #[default]
        Gzip,
        None,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        /// Where it is.
        #[schemars(extend("env" = "EXAMPLE_URL"))]
        url: String,
        /// What opens it.
        #[schemars(extend("env" = "EXAMPLE_KEY"))]
        key: Option<Secret>,
        /// How bodies are packed.
        compression: Compression,
        /// How many.
        shards: Option<u32>,
    }

    impl Default for Example {
        fn default() -> Self {
            Self { url: "http://localhost".into(), key: None, compression: Compression::Gzip, shards: None }
        }
    }

    #[test]
    fn a_struct_describes_itself() {
        let spec = SettingsSpec::of::<Example>().signals(Signals::RECORDS | Signals::METRICS);
        assert!(spec.takes(Signals::METRICS) && !spec.takes(Signals::SCRAPE));
        let [url, key, compression, shards] = spec.keys() else { panic!("four keys: {:?}", spec.keys()) };
        assert_eq!(
            (url.name.as_str(), &url.kind, url.env.as_deref()),
            ("url", &ValueKind::String, Some("EXAMPLE_URL"))
        );
        assert_eq!(
            (url.default.clone(), url.doc.as_str()),
            (Some(json!("http://localhost")), "Where it is.")
        );
        assert_eq!((&key.kind, &key.default), (&ValueKind::Secret, &None), "{key:?}");
        assert_eq!(
            compression.kind,
            ValueKind::OneOf(vec!["gzip".into(), "none".into()]),
            "{}",
            spec.schema()
        );
        assert_eq!(shards.kind, ValueKind::Integer);
    }

    #[test]
    fn settings_read_into_the_struct() {
        let example: Example =
            Settings::from(json!({"url": "http://x", "key": "s"})).read().expect("settings");
        assert_eq!((example.url.as_str(), example.key.map(|key| key.expose().len())), ("http://x", Some(1)));
        assert!(matches!(example.compression, Compression::Gzip) && example.shards.is_none());
        for (value, key) in [
            (json!({"urll": 1}), "urll"),
            (json!({"shards": "many"}), "shards"),
            (json!({"compression": "zip"}), "compression"),
        ] {
            let error = Settings::from(value).read::<Example>().err().expect("an error");
            assert_eq!(error.key, key, "{error}");
        }
    }
}
