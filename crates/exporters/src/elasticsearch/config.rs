//! Settings of the exporter `elasticsearch`, and what they mean once they have been checked.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use magicapi_plugin::{ConfigError, Http, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::endpoint::{self, Compression, Endpoint};

const URL: &str = "http://localhost:9200";
const INDEX: &str = "noveum-metrics";

/// Settings of the exporter `elasticsearch`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ElasticsearchSettings {
    /// Where the cluster's HTTP API is; a path in front of it is kept.
    #[schemars(extend("env" = "ELASTICSEARCH_URL"))]
    pub url: String,
    /// Index that records go to, or an alias with a write index; made when it is missing. With
    /// `data_stream` the stream's name.
    #[schemars(extend("env" = "ELASTICSEARCH_INDEX"))]
    pub index: String,
    /// User for basic authentication, together with `password`.
    #[schemars(extend("env" = "ELASTICSEARCH_USERNAME"))]
    pub username: Option<String>,
    /// Password of that user.
    #[schemars(extend("env" = "ELASTICSEARCH_PASSWORD"))]
    pub password: Option<Secret>,
    /// API key, instead of user and password: as `id:key`, or in the encoded form that Elasticsearch prints.
    #[schemars(extend("env" = "ELASTICSEARCH_API_KEY"))]
    pub api_key: Option<Secret>,
    /// How bodies are packed.
    pub compression: Compression,
    /// Whether to keep an index template with the right mappings up to date.
    pub template: bool,
    /// Whether `index` is a data stream (Elasticsearch 7.9, OpenSearch); Elasticsearch (8.11) divides it by age and size.
    pub data_stream: bool,
    /// How long the data stream keeps records, as `30d`: Elasticsearch (8.14) deletes older ones. Unset: for ever.
    pub retention: Option<String>,
    /// Name of the index lifecycle policy of the cluster that rules the data stream, instead of `retention`.
    pub lifecycle_policy: Option<String>,
}

impl Default for ElasticsearchSettings {
    fn default() -> Self {
        Self {
            url: URL.into(),
            index: INDEX.into(),
            username: None,
            password: None,
            api_key: None,
            compression: Compression::Gzip,
            template: true,
            data_stream: false,
            retention: None,
            lifecycle_policy: None,
        }
    }
}

/// Checked settings: what requests are made of.
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    /// Where records go; also the template's name.
    pub(super) index: String,
    pub(super) template: bool,
    pub(super) stream: Option<Stream>,
}

/// A data stream's life, as its template says it.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) retention: Option<String>,
    pub(super) policy: Option<String>,
}

impl ElasticsearchSettings {
    /// Checks everything that can be checked without a connection.
    pub(super) fn validate(mut self, http: Http) -> Result<Target, ConfigError> {
        // What `${X:-}` leaves counts as not set.
        for (value, default) in [(&mut self.url, URL), (&mut self.index, INDEX)] {
            if value.trim().is_empty() {
                default.clone_into(value);
            }
        }
        let base = endpoint::check_url(&self.url)?;
        check_index(&self.index)?;
        let authorization = self.authorization()?;
        let stream = self.stream()?;
        let Self { index, compression, template, .. } = self;
        Ok(Target { endpoint: Endpoint { http, base, authorization, compression }, index, template, stream })
    }

    fn stream(&self) -> Result<Option<Stream>, ConfigError> {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (retention, policy) = (set(&self.retention), set(&self.lifecycle_policy));
        if let (Some(_), Some(_)) = (&retention, &policy) {
            return Err(ConfigError::new("retention", "set beside lifecycle_policy; one of both must go"));
        }
        for (key, value) in [("retention", &retention), ("lifecycle_policy", &policy)] {
            let Some(value) = value else { continue };
            if !(self.data_stream && self.template) {
                let what = format!("{value:?} needs `data_stream: true` and `template: true`");
                return Err(ConfigError::new(key, what));
            }
        }
        if let Some(retention) = retention.as_deref().filter(|text| !is_period(text)) {
            let what = format!("expected a number and one of d, h, m, s, as 30d; it is {retention:?}");
            return Err(ConfigError::new("retention", what));
        }
        Ok(self.data_stream.then_some(Stream { retention, policy }))
    }

    /// An empty text counts as not set: that is what a variable without a value is.
    fn authorization(&self) -> Result<Option<HeaderValue>, ConfigError> {
        let username = self.username.as_deref().filter(|text| !text.is_empty());
        let secret = |secret: &Option<Secret>| secret.clone().filter(|text| !text.is_empty());
        let wrong = |key: &str, what: &str| Err(ConfigError::new(key, what));
        let value = match (username, secret(&self.password), secret(&self.api_key)) {
            (None, None, None) => return Ok(None),
            (None, None, Some(key)) => {
                let key = key.expose().trim();
                let encoded = if key.contains(':') { STANDARD.encode(key) } else { key.to_owned() };
                format!("ApiKey {encoded}")
            }
            (_, _, Some(_)) => {
                return wrong("api_key", "set beside username or password; one of both must go");
            }
            (Some(_), None, None) => return wrong("password", "missing, although username is set"),
            (None, Some(_), None) => return wrong("username", "missing, although password is set"),
            (Some(name), Some(_), None) if name.contains(':') => {
                return wrong("username", "holds a colon, which basic authentication cannot send");
            }
            (Some(name), Some(password), None) => {
                format!("Basic {}", STANDARD.encode(format!("{name}:{}", password.expose())))
            }
        };
        let value = endpoint::authorization(&value);
        value.map(Some).ok_or_else(|| ConfigError::new("api_key", "expected id:key or its encoded form"))
    }
}

/// Elasticsearch's time units that make sense here, without zero.
fn is_period(text: &str) -> bool {
    let digits = text.strip_suffix(['d', 'h', 'm', 's']).unwrap_or_default();
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u32>().is_ok_and(|number| number > 0)
}

/// The rules of Elasticsearch for index names.
fn check_index(index: &str) -> Result<(), ConfigError> {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || r#"\/*?"<>|,#:"#.contains(c);
    let wrong = if index == "." || index == ".." {
        "is no name".to_owned()
    } else if index.len() > 255 {
        format!("is {} bytes long; at most 255 are allowed", index.len())
    } else if index.starts_with(['-', '_', '+']) {
        "begins with -, _ or +".to_owned()
    } else if let Some(c) = index.chars().find(|c| forbidden(*c)) {
        format!("holds {c:?}, which no index name may")
    } else if index.to_lowercase() != index {
        format!("must be lower case: {:?}", index.to_lowercase())
    } else {
        return Ok(());
    };
    Err(ConfigError::new("index", format!("{index:?} {wrong}")))
}
