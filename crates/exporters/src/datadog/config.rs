//! Settings of the exporter `datadog`, and what they mean once they have been checked.

use http::{HeaderMap, HeaderName};
use magicapi_plugin::{ConfigError, Http, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

use super::client;
use crate::endpoint::check_url;
use crate::health::LastHealth;
use crate::requests::{Coding, Intake, Limits, sensitive};
use crate::tally::Untold;

/// Tags of the user's own that one record or metric may carry.
const MAX_TAGS: usize = 50;
/// The longest tag that Datadog keeps, in characters.
pub(super) const MAX_TAG: usize = 200;

/// Settings of the exporter `datadog`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DatadogSettings {
    /// API key (not an application key); required.
    #[schemars(extend("env" = "DD_API_KEY"))]
    pub api_key: Option<Secret>,
    /// Site of the account: the part of its address behind `app.`, as in `datadoghq.eu` or `us5.datadoghq.com`.
    #[schemars(extend("env" = "DD_SITE"))]
    pub site: String,
    /// Where logs go instead of `https://http-intake.logs.<site>`: a relay that speaks the same API.
    pub logs_url: Option<String>,
    /// Where metrics go, and the key is checked, instead of `https://api.<site>`.
    pub api_url: Option<String>,
    /// Tags for every log and metric, each as `name:value`.
    pub tags: Vec<String>,
    /// Host that logs and metrics are said to come from.
    pub hostname: Option<String>,
    /// Whether metrics are sent too.
    pub metrics: bool,
}

impl Default for DatadogSettings {
    fn default() -> Self {
        Self {
            api_key: None,
            site: "datadoghq.com".into(),
            logs_url: None,
            api_url: None,
            tags: Vec::new(),
            hostname: None,
            metrics: true,
        }
    }
}

/// Checked settings: what requests are made of.
pub(super) struct Target {
    pub(super) http: Http,
    /// The key, as a header.
    pub(super) headers: HeaderMap,
    /// Where the key is checked.
    pub(super) api: String,
    pub(super) logs: Intake,
    pub(super) series: Intake,
    pub(super) distributions: Intake,
    pub(super) tags: Vec<String>,
    pub(super) hostname: Option<String>,
    pub(super) metrics: bool,
}

impl DatadogSettings {
    /// Checks everything that can be checked without a connection.
    pub(super) fn validate(self, http: &Http) -> Result<Target, ConfigError> {
        let wrong = |key: &str, what: &str| ConfigError::new(key, what);
        let key = self.api_key.filter(|key| !key.expose().trim().is_empty());
        let key = key.ok_or_else(|| wrong("api_key", "missing; set it, or the variable DD_API_KEY"))?;
        let key = sensitive(key.expose());
        let key = key.ok_or_else(|| wrong("api_key", "expected the 32 characters that Datadog shows"))?;
        let headers: HeaderMap = [(HeaderName::from_static("dd-api-key"), key)].into_iter().collect();
        let site = check_site(&self.site)?;
        let logs = base("logs_url", self.logs_url, || format!("https://http-intake.logs.{site}"))?;
        let api = base("api_url", self.api_url, || format!("https://api.{site}"))?;
        check_tags(&self.tags)?;
        let intake = |url: String, coding, limits, frame| Intake {
            http: http.clone(),
            url,
            headers: headers.clone(),
            coding,
            limits,
            frame,
            judge: client::judge,
            health: LastHealth::default(),
            untold: Untold::default(),
        };
        // https://docs.datadoghq.com/api/latest/logs/#send-logs; the packed size has no limit of its own.
        let of_logs = Limits { entries: 1000, plain: 5_000_000, packed: 5_000_000 };
        // https://docs.datadoghq.com/api/latest/metrics/#submit-metrics
        let of_metrics = Limits { entries: usize::MAX, plain: 5_000_000, packed: 512_000 };
        let series = ("{\"series\":[", "]}");
        Ok(Target {
            logs: intake(format!("{logs}/api/v2/logs"), Coding::Gzip, of_logs, ("[", "]")),
            series: intake(format!("{api}/api/v2/series"), Coding::Gzip, of_metrics, series),
            distributions: intake(
                format!("{api}/api/v1/distribution_points"),
                // The one coding that it takes.
                Coding::Deflate,
                of_metrics,
                series,
            ),
            http: http.clone(),
            headers,
            api,
            tags: self.tags,
            hostname: self.hostname.filter(|name| !name.is_empty()),
            metrics: self.metrics,
        })
    }
}

fn base(key: &str, url: Option<String>, default: impl Fn() -> String) -> Result<String, ConfigError> {
    match url.filter(|url| !url.is_empty()) {
        Some(url) => check_url(&url).map_err(|error| ConfigError::new(key, error.message)),
        None => Ok(default()),
    }
}

fn check_site(site: &str) -> Result<&str, ConfigError> {
    let site = if site.is_empty() { "datadoghq.com" } else { site };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let wrong = if site.contains("://") || !site.chars().all(plain) || !site.contains('.') {
        "is no site; expected a domain alone, as in datadoghq.eu"
    } else if site.starts_with("app.") || site.starts_with("api.") {
        "names a host of a site; expected what stands behind its first dot"
    } else {
        return Ok(site);
    };
    Err(ConfigError::new("site", format!("{site:?} {wrong}")))
}

fn check_tags(tags: &[String]) -> Result<(), ConfigError> {
    let wrong = |what: String| Err(ConfigError::new("tags", what));
    if tags.len() > MAX_TAGS {
        return wrong(format!("{} tags; at most {MAX_TAGS} are sent", tags.len()));
    }
    for tag in tags {
        let begins = tag.chars().next().is_some_and(char::is_alphabetic);
        if !begins || tag.contains(',') || tag.chars().count() > MAX_TAG {
            return wrong(format!(
                "{tag:?} is no tag; expected name:value, a letter first, no comma, at most {MAX_TAG} characters"
            ));
        }
    }
    Ok(())
}
