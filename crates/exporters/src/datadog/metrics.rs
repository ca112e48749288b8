//! What metrics added, as Datadog's series (counts, gauges) and distributions (histograms).

use std::time::SystemTime;

use magicapi_plugin::{Point, TelemetryConfig};
use serde_json::{Value, json};

use super::config::Target;
use super::encode::tag;
use crate::deltas::{Added, Change};

/// What UCUM and Datadog call a unit.
const UNITS: [(&str, &str); 3] = [("s", "second"), ("ms", "millisecond"), ("By", "byte")];

/// One element of `series`, of either kind.
pub(super) fn encode(change: &Change<'_>, target: &Target, own: &[String], taken_at: SystemTime) -> Vec<u8> {
    let metric = change.metric;
    let at = taken_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut series = json!({ "metric": name(&metric.name), "tags": tags_of(change.point, own) });
    let number = match &change.added {
        Added::Values(values) => {
            series["type"] = json!("distribution");
            series["points"] = json!([[at, values]]);
            if let Some(host) = &target.hostname {
                series["host"] = json!(host);
            }
            return series.to_string().into_bytes();
        }
        Added::Count(value, seconds) => {
            (series["type"], series["interval"]) = (json!(1), json!(seconds));
            *value
        }
        Added::Gauge(value) => {
            series["type"] = json!(3);
            *value
        }
    };
    series["points"] = json!([{ "timestamp": at, "value": number }]);
    if let Some((_, unit)) = UNITS.iter().find(|(ucum, _)| *ucum == metric.unit) {
        series["unit"] = json!(unit);
    }
    if let Some(host) = &target.hostname {
        series["resources"] = json!([{ "type": "host", "name": host }]);
    }
    series.to_string().into_bytes()
}

fn tags_of(point: &Point, own: &[String]) -> Value {
    let labels = point.labels.iter().filter(|(_, value)| !value.is_empty());
    labels.map(|(name, value)| tag(name, value)).chain(own.iter().cloned()).collect()
}

/// A name in the letters that Datadog keeps.
fn name(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    name.chars().map(kept).take(200).collect()
}

/// The tags of every metric: which gateway counted. Two that shared all tags would overwrite each other.
pub(super) fn tags(config: &TelemetryConfig, own: &[String]) -> Vec<String> {
    let names = [
        ("service", Some(config.service_name.as_str())),
        ("env", config.deployment_environment.as_deref()),
        ("version", Some(config.service_version.as_str())),
        ("instance", config.service_instance_id.as_deref()),
    ];
    let fixed = names.into_iter().filter_map(|(name, value)| Some(tag(name, value?)));
    fixed.chain(own.iter().cloned()).collect()
}
