//! Names of the gateway in records, capture, metrics.

use std::time::Duration;

use magicapi_plugin::{Signals, TelemetryConfig};

use super::{exporters, redaction::redaction, serving::bytes};
use crate::context::Context;
use crate::raw;
use crate::types::{Capture, Durable, ExporterEntry, Telemetry};
use crate::units::Span;

const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const MIB: u64 = 1 << 20;

pub(super) fn telemetry(cx: &mut Context<'_>, file: raw::Telemetry) -> Telemetry {
    let capture = capture(cx, &file.capture);
    let config = names(cx, file.service_name);
    let exporters = exporters::exporters(cx, file.exporters, capture.bodies);
    // The original publishes one port only, and whoever names `prometheus` scrapes it there.
    let metrics_on_data_plane = file.metrics_on_data_plane.unwrap_or_else(|| exporters::names_prometheus(cx));
    if file.metrics_on_data_plane.is_none() && metrics_on_data_plane {
        cx.set_by_env("telemetry.metrics_on_data_plane", exporters::LIST);
    }
    let makes_a_page = |entry: &ExporterEntry| {
        cx.catalogue.plugin(&entry.kind).is_some_and(|plugin| plugin.settings.takes(Signals::SCRAPE))
    };
    if metrics_on_data_plane && !exporters.iter().any(makes_a_page) {
        cx.notice(
            "telemetry.metrics_on_data_plane",
            "on, but no exporter makes the page: `/metrics` stays a 404; add `- type: prometheus` to \
             `telemetry.exporters`, or name `prometheus` in ENABLED_EXPORTERS",
        );
    }
    Telemetry {
        config,
        durable: durable(cx, file.durable, file.journal),
        threads: file.threads.unwrap_or(1),
        metrics_on_data_plane,
        metrics_interval: metrics_interval(cx, file.metrics.interval),
        capture,
        redaction: redaction(file.redact),
        exporters,
    }
}

/// OpenTelemetry's variable, in milliseconds, stands before the file as others do.
fn metrics_interval(cx: &mut Context<'_>, file: Option<Span>) -> Duration {
    const KEY: &str = "telemetry.metrics.interval";
    let given = match cx.variable(KEY, INTERVAL) {
        Some(text) => {
            let milliseconds = text.trim().parse().ok();
            if milliseconds.is_none() {
                cx.problem(KEY, format!("expected a whole number of milliseconds, found `{text}`"));
            }
            milliseconds.map(|milliseconds| Span(Duration::from_millis(milliseconds)))
        }
        None => file,
    };
    cx.positive(KEY, given, Duration::from_secs(15))
}

fn durable(cx: &mut Context<'_>, on: Option<bool>, file: Option<raw::Journal>) -> Option<Durable> {
    const DISK: &str = "telemetry.journal.disk";
    if on != Some(true) {
        if file.is_some() {
            cx.problem(
                "telemetry.journal",
                "is the journal of durable records, and `telemetry.durable` is not true",
            );
        }
        return None;
    }
    let file = file.unwrap_or_default();
    let disk = file.disk.map_or(1 << 30, |size| size.0);
    if disk < MIB {
        cx.problem(DISK, "is less than the 1MiB that it needs");
    }
    Some(Durable { fsync: file.fsync.unwrap_or_default(), disk })
}

fn capture(cx: &mut Context<'_>, file: &raw::Capture) -> Capture {
    cx.positive_size("telemetry.capture.memory", file.memory, 1);
    Capture {
        bodies: file.bodies.unwrap_or_default(),
        max_request: bytes(file.max_request, 16 * MIB),
        max_response: bytes(file.max_response, 16 * MIB),
        max_chunks: bytes(file.max_chunks, 16 * MIB),
        memory: bytes(file.memory, 256 * MIB),
    }
}

/// `OTEL_SERVICE_NAME` > `OTEL_RESOURCE_ATTRIBUTES` > file; `DEPLOYMENT_ENVIRONMENT` > `OTEL_RESOURCE_ATTRIBUTES`.
fn names(cx: &mut Context<'_>, service_name: Option<String>) -> TelemetryConfig {
    const SERVICE: &str = "telemetry.service_name";
    let mut config = TelemetryConfig::default();
    if let Some(name) = service_name {
        config.service_name = name;
    }
    for (name, value) in attributes(cx) {
        match name.as_str() {
            "service.name" => {
                config.service_name = value;
                cx.set_by_env(SERVICE, ATTRIBUTES);
            }
            "service.version" => config.service_version = value,
            "service.instance.id" => config.service_instance_id = Some(value),
            "deployment.environment" | "deployment.environment.name" => {
                config.deployment_environment = Some(value);
                cx.set_by_env("DEPLOYMENT_ENVIRONMENT", ATTRIBUTES);
            }
            _ => {
                cx.set_by_env(format!("{ATTRIBUTES}.{name}"), ATTRIBUTES);
                config.resource_attributes.insert(name, value);
            }
        }
    }
    if let Some(name) = cx.variable(SERVICE, "OTEL_SERVICE_NAME") {
        config.service_name = name.into();
    }
    if let Some(name) = cx.variable("DEPLOYMENT_ENVIRONMENT", "DEPLOYMENT_ENVIRONMENT") {
        config.deployment_environment = Some(name.into());
    }
    config
}

fn attributes(cx: &mut Context<'_>) -> Vec<(String, String)> {
    let Some(text) = cx.env.get(ATTRIBUTES) else { return Vec::new() };
    match pairs(text) {
        Ok(pairs) => pairs,
        Err(problem) => {
            cx.variable_problem(ATTRIBUTES, "", problem);
            Vec::new()
        }
    }
}

/// `k=v,k=v`; names and values are percent-encoded, as OpenTelemetry has it.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for (index, item) in text.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate() {
        let problem = || format!("item {} is not `name=value`; expected `name=value,name=value`", index + 1);
        let (name, value) = item.split_once('=').ok_or_else(problem)?;
        let (name, value) = (decode(name.trim()), decode(value.trim()));
        let (Some(name), Some(value)) = (name, value) else {
            return Err(format!("item {} has a `%` that no two hexadecimal digits follow", index + 1));
        };
        if name.is_empty() {
            return Err(problem());
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// `%41` to `A`; `None` when a `%` has no two digits behind it, or what comes out is no text.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            out.push(*first);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn resource_attributes() {
        let read = pairs("a=1, b.c=x%20y%2C%C3%A9 ,,d=e=f").expect("pairs");
        let expected = [("a", "1"), ("b.c", "x y,é"), ("d", "e=f")];
        assert_eq!(read, expected.map(|(name, value)| (name.into(), value.into())));
        for text in ["a", "=1", "a=%", "a=%2", "a=%+1", "a=%ff"] {
            assert!(pairs(text).is_err(), "{text}");
        }
    }
}
