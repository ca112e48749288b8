//! Settings of the exporter `webhook`, and what they mean once they have been checked.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use magicapi_plugin::{ConfigError, Http, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::{Compression, check_whole_url};
use crate::requests::sensitive;

/// How records stand in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One array.
    #[default]
    Json,
    /// One line each.
    Ndjson,
}

/// Settings of the exporter `webhook`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where batches are posted; required. A secret, since many receivers have theirs in the path.
    #[schemars(extend("env" = "WEBHOOK_URL"))]
    pub url: Option<Secret>,
    /// Signs every batch as Standard Webhooks has it: `whsec_` and 24 to 64 bytes in base64. Unset: no signature.
    #[schemars(extend("env" = "WEBHOOK_SECRET"))]
    pub secret: Option<Secret>,
    /// Further headers; their values are secrets.
    pub headers: BTreeMap<String, Secret>,
    /// How records stand in a body: one array, or one line each.
    pub format: Format,
    /// How bodies are packed; the signature is one of the packed body.
    pub compression: Compression,
    /// Statuses after which the same batch is sent again; besides them every 5xx that no other list names.
    pub retry_on: Vec<u16>,
    /// Statuses by which the receiver says that it will never take these records; the batch is halved until the record that it means is found.
    pub reject_on: Vec<u16>,
    /// Statuses that mean a wrong set-up: records wait. Also every other status from 300 to 499, except 413, which halves the batch.
    pub refuse_on: Vec<u16>,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            headers: BTreeMap::new(),
            format: Format::Json,
            compression: Compression::None,
            retry_on: vec![408, 425, 429],
            reject_on: vec![400, 422],
            refuse_on: vec![401, 403, 404, 410],
        }
    }
}

/// Checked settings: what requests are made of.
pub(super) struct Target {
    pub(super) http: Http,
    pub(super) url: Secret,
    /// The signing key's bytes.
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: HeaderMap,
    pub(super) format: Format,
    pub(super) compression: Compression,
    pub(super) retry_on: Vec<u16>,
    pub(super) reject_on: Vec<u16>,
    pub(super) refuse_on: Vec<u16>,
}

impl WebhookSettings {
    /// Checks everything that can be checked without a connection.
    pub(super) fn validate(self, http: &Http) -> Result<Target, ConfigError> {
        let url = self.url.filter(|url| !url.is_empty());
        let url =
            url.ok_or_else(|| ConfigError::new("url", "missing; set it, or the variable WEBHOOK_URL"))?;
        check_url(url.expose())?;
        let secret = self.secret.filter(|secret| !secret.is_empty());
        check_statuses([
            ("retry_on", &self.retry_on),
            ("reject_on", &self.reject_on),
            ("refuse_on", &self.refuse_on),
        ])?;
        Ok(Target {
            http: http.clone(),
            url,
            key: secret.map(|secret| key(&secret)).transpose()?,
            headers: headers(&self.headers)?,
            format: self.format,
            compression: self.compression,
            retry_on: self.retry_on,
            reject_on: self.reject_on,
            refuse_on: self.refuse_on,
        })
    }
}

/// The texts quote nothing of the address, which is a secret.
fn check_url(url: &str) -> Result<(), ConfigError> {
    check_whole_url(url)?;
    if url.contains('#') {
        let what = "expected scheme, host, port, path and perhaps a query, nothing else";
        return Err(ConfigError::new("url", what));
    }
    Ok(())
}

fn key(secret: &Secret) -> Result<Vec<u8>, ConfigError> {
    let wrong = |what: &str| ConfigError::new("secret", what);
    let encoded = secret.expose().trim().strip_prefix("whsec_");
    let encoded = encoded.ok_or_else(|| wrong("does not begin with whsec_"))?;
    let key = STANDARD.decode(encoded).map_err(|_| wrong("is not base64 behind whsec_"))?;
    if (24..=64).contains(&key.len()) {
        Ok(key)
    } else {
        Err(wrong(&format!("is a key of {} bytes; expected 24 to 64", key.len())))
    }
}

fn headers(given: &BTreeMap<String, Secret>) -> Result<HeaderMap, ConfigError> {
    let ours =
        ["content-length", "content-encoding", "content-type", "transfer-encoding", "host", "connection"];
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let wrong = |what: &str| ConfigError::new(format!("headers.{name}"), what);
        let header = HeaderName::try_from(name).map_err(|_| wrong("is no name of a header"))?;
        if ours.contains(&header.as_str()) || header.as_str().starts_with("webhook-") {
            return Err(wrong("is set by the gateway"));
        }
        let value = sensitive(value.expose()).ok_or_else(|| wrong("its value holds what no header can"))?;
        if headers.insert(header, value).is_some() {
            return Err(wrong("is there twice; names do not differ by case"));
        }
    }
    Ok(headers)
}

fn check_statuses(lists: [(&str, &[u16]); 3]) -> Result<(), ConfigError> {
    let mut seen = BTreeMap::new();
    for (key, list) in lists {
        for status in list {
            if !(300..=599).contains(status) || *status == 413 {
                let what =
                    format!("{status} cannot be listed; expected statuses from 300 to 599, except 413");
                return Err(ConfigError::new(key, what));
            }
            if let Some(other) = seen.insert(*status, key) {
                return Err(ConfigError::new(key, format!("{status} stands in {other} too; one must go")));
            }
        }
    }
    Ok(())
}
