//! Metrics under the names that Prometheus wants for them.

use std::collections::HashSet;

use magicapi_plugin::{MetricData, MetricKind, MetricsSnapshot, PointValue};
use prometheus_client::registry::Unit;

use super::accept::Format;

/// A metric, named and escaped for one format.
#[derive(Debug)]
pub(super) struct Family {
    /// Its name without unit.
    pub(super) name: String,
    /// The unit, which the library appends to the name.
    pub(super) unit: Option<Unit>,
    pub(super) help: String,
    pub(super) kind: MetricKind,
    pub(super) series: Vec<Series>,
}

/// One series: its labels and its value.
pub(super) type Series = (Vec<(String, String)>, PointValue);

/// What UCUM calls a unit and what names call it.
const UNITS: &[(&str, &str)] = &[
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("min", "minutes"),
    ("h", "hours"),
    ("d", "days"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("%", "percent"),
];

/// Every metric that has a value, and the names of those that cannot be shown.
pub(super) fn families(snapshot: &MetricsSnapshot, format: Format) -> (Vec<Family>, Vec<String>) {
    let (mut taken, mut left_out) = (HashSet::new(), Vec::new());
    let mut families = Vec::new();
    for metric in snapshot.metrics.iter().filter(|metric| !metric.points.is_empty()) {
        let (base, unit) = base(metric);
        if labels_are_distinct(metric) && claim(&mut taken, &base, unit, metric.kind) {
            families.push(family(metric, base, unit, format));
        } else {
            left_out.push(metric.name.clone());
        }
    }
    (families, left_out)
}

fn family(metric: &MetricData, base: String, unit: Option<&'static str>, format: Format) -> Family {
    let about = if metric.description.is_empty() { &metric.name } else { &metric.description };
    let help = about.replace('\\', "\\\\").replace('\n', "\\n");
    let series = metric.points.iter().map(|point| {
        let labels = point.labels.iter().map(|(name, value)| (label(name), value.clone())).collect();
        (labels, point.value.clone())
    });
    let series = series.collect();
    match format {
        Format::OpenMetrics => {
            let unit = unit.map(|unit| Unit::Other(unit.into()));
            Family { name: base, unit, help: help.replace('"', "\\\""), kind: metric.kind, series }
        }
        // The old format and protobuf have no units, and their counters carry `_total` in the name itself.
        Format::Text | Format::Protobuf => {
            let help = if format == Format::Protobuf { about.clone() } else { help };
            let unit = unit.map(|unit| format!("_{unit}")).unwrap_or_default();
            let suffix = if metric.kind == MetricKind::Counter { "_total" } else { "" };
            Family { name: format!("{base}{unit}{suffix}"), unit: None, help, kind: metric.kind, series }
        }
    }
}

/// The name without `_total` and without its unit, and the unit.
fn base(metric: &MetricData) -> (String, Option<&'static str>) {
    let name = sanitize(&metric.name, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let name = name.strip_suffix("_total").unwrap_or(&name);
    let unit = match (metric.unit.as_str(), metric.kind) {
        ("1", MetricKind::Gauge) => Some("ratio"),
        (unit, _) => UNITS.iter().find(|(ucum, _)| *ucum == unit).map(|(_, name)| *name),
    };
    let stem = unit.and_then(|unit| name.strip_suffix(unit)?.strip_suffix('_'));
    (stem.filter(|stem| !stem.is_empty()).unwrap_or(name).to_owned(), unit)
}

/// Takes every name that the metric's lines will have, or none.
fn claim(taken: &mut HashSet<String>, base: &str, unit: Option<&str>, kind: MetricKind) -> bool {
    let name = unit.map_or_else(|| base.to_owned(), |unit| format!("{base}_{unit}"));
    let suffixes: &[&str] = match kind {
        MetricKind::Counter => &["", "_total"],
        MetricKind::Histogram => &["", "_bucket", "_count", "_sum"],
        _ => &[""],
    };
    let names: Vec<String> = suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect();
    let free = names.iter().all(|name| !taken.contains(name));
    if free {
        taken.extend(names);
    }
    free
}

/// Whether each label has a name of its own; `le` is the histogram's.
fn labels_are_distinct(metric: &MetricData) -> bool {
    let mut names = HashSet::new();
    if metric.kind == MetricKind::Histogram {
        names.insert("le".to_owned());
    }
    metric.points.iter().take(1).flat_map(|point| &point.labels).all(|(name, _)| names.insert(label(name)))
}

fn label(name: &str) -> String {
    sanitize(name, |c| c.is_ascii_alphanumeric() || c == '_')
}

fn sanitize(name: &str, allowed: fn(char) -> bool) -> String {
    let clean: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if clean.starts_with(|c: char| c.is_ascii_digit()) || clean.is_empty() {
        format!("_{clean}")
    } else {
        clean
    }
}
