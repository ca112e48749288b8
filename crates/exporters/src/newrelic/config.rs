//! Settings of the exporter `newrelic`, and what they mean once they have been checked.

use http::{HeaderName, HeaderValue};
use magicapi_plugin::{ConfigError, Http, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

use super::client;
use crate::endpoint::check_url;
use crate::health::LastHealth;
use crate::requests::{Coding, Intake, Limits, sensitive};
use crate::tally::Untold;

/// Settings of the exporter `newrelic`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewRelicSettings {
    /// License key, also called ingest key (not a user key); required.
    #[schemars(extend("env" = "NEW_RELIC_LICENSE_KEY"))]
    pub license_key: Option<Secret>,
    /// Data center of the account: `us`, `eu` or `fedramp`. Unset: what the key's first letters say.
    #[schemars(extend("env" = "NEW_RELIC_REGION"))]
    pub region: Option<String>,
    /// Where logs go instead of the region's Log API: a relay that speaks the same API.
    pub url: Option<String>,
}

/// A data center.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    Us,
    Eu,
    FedRamp,
}

impl Region {
    fn read(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "us" => Some(Self::Us),
            "eu" => Some(Self::Eu),
            "fedramp" | "gov" => Some(Self::FedRamp),
            _ => None,
        }
    }

    /// Keys of the other data centers begin with their names; `None` for a key that says nothing.
    fn of_key(key: &str) -> Option<Self> {
        match key.get(..3)? {
            "eu0" => Some(Self::Eu),
            "gov" => Some(Self::FedRamp),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Eu => "eu",
            Self::FedRamp => "fedramp",
        }
    }

    fn url(self) -> &'static str {
        match self {
            Self::Us => "https://log-api.newrelic.com/log/v1",
            Self::Eu => "https://log-api.eu.newrelic.com/log/v1",
            Self::FedRamp => "https://gov-log-api.newrelic.com/log/v1",
        }
    }

    /// Where it takes OTLP.
    pub(crate) fn otlp_url(self) -> &'static str {
        match self {
            Self::Us => "https://otlp.nr-data.net",
            Self::Eu => "https://otlp.eu01.nr-data.net",
            Self::FedRamp => "https://gov-otlp.nr-data.net",
        }
    }
}

impl NewRelicSettings {
    /// Checks everything that can be checked without a connection.
    pub(super) fn validate(self, http: &Http) -> Result<Intake, ConfigError> {
        let (key, region) = account(self.license_key, self.region)?;
        let url = match self.url.filter(|url| !url.is_empty()) {
            Some(url) => check_url(&url)?,
            None => region.url().to_owned(),
        };
        Ok(Intake {
            http: http.clone(),
            url,
            headers: [(HeaderName::from_static("api-key"), key)].into_iter().collect(),
            coding: Coding::Gzip,
            // 10⁶ bytes per POST as sent. What is unpacked has no limit; ten times as much keeps a request handy.
            limits: Limits { entries: usize::MAX, plain: 10_000_000, packed: 1_000_000 },
            frame: ("[{\"logs\":[", "]}]"),
            judge: client::judge,
            health: LastHealth::default(),
            untold: Untold::default(),
        })
    }
}

/// The key as a header's value, and the data center.
pub(crate) fn account(
    license_key: Option<Secret>,
    word: Option<String>,
) -> Result<(HeaderValue, Region), ConfigError> {
    let wrong = |what: &str| ConfigError::new("license_key", what);
    let key = license_key.filter(|key| !key.expose().trim().is_empty());
    let key = key.ok_or_else(|| wrong("missing; set it, or the variable NEW_RELIC_LICENSE_KEY"))?;
    let key = key.expose().trim();
    if key.starts_with("NRAK-") {
        return Err(wrong("is a user key; expected a license key, which ends in NRAL"));
    }
    let region = region(word.filter(|word| !word.is_empty()), key)?;
    let value = sensitive(key).ok_or_else(|| wrong("expected the 40 characters that New Relic shows"))?;
    Ok((value, region))
}

fn region(word: Option<String>, key: &str) -> Result<Region, ConfigError> {
    let of_key = Region::of_key(key);
    let Some(word) = word else { return Ok(of_key.unwrap_or(Region::Us)) };
    let Some(region) = Region::read(&word) else {
        return Err(ConfigError::new("region", format!("{word:?} is none; expected us, eu or fedramp")));
    };
    match of_key {
        Some(of_key) if of_key != region => {
            let (of_key, region) = (of_key.word(), region.word());
            let what =
                format!("is {region}, but the key is one of {of_key}; leave it out, or change the key");
            Err(ConfigError::new("region", what))
        }
        _ => Ok(region),
    }
}
