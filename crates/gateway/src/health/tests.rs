//! `docs/metrics.md` names every metric that is registered, with kind and unit, and no other.

use std::collections::BTreeSet;
use std::sync::Arc;

use magicapi_config::{Environment, Flags, Sources};
use magicapi_plugin::{MetricKind, MetricRegistry};
use magicapi_server::Shared;
use magicapi_store::NoLedger;
use magicapi_telemetry::{Telemetry, TelemetrySettings};

/// `name kind unit` of everything that a gateway registers.
fn registered() -> BTreeSet<String> {
    let catalogue = crate::catalogue::catalogue().expect("a catalogue");
    let sources = Sources { file: None, flags: Flags::default(), env: Environment::default() };
    let loaded = magicapi_config::load(&sources, &catalogue).expect("a configuration");
    let registry = Arc::new(MetricRegistry::default());
    let telemetry =
        Telemetry::start(TelemetrySettings::default(), registry.clone(), Vec::new()).expect("threads");
    let snapshot = crate::parts::snapshot(&loaded).expect("a snapshot");
    let shared = Shared::new(snapshot, Arc::new(NoLedger::default()), telemetry);
    super::observe(&registry, &shared);
    crate::journals::observe(&registry, &shared, None);
    let metrics = registry.snapshot().metrics.into_iter();
    metrics
        .map(|metric| {
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
                other => panic!("{other:?}"),
            };
            format!("{} {kind} {}", metric.name, metric.unit).trim_end().to_owned()
        })
        .collect()
}

#[test]
fn the_documented_metrics_are_those_that_are_registered() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let text = std::fs::read_to_string(page).expect("docs/metrics.md");
    let documented: BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with("| `gateway_") || line.starts_with("| `gen_ai."))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
            let mut cell = || cells.next().unwrap_or_default();
            let (name, kind, unit) = (cell(), cell(), cell());
            format!("{name} {kind} {unit}").trim_end().to_owned()
        })
        .collect();
    let registered = registered();
    assert!(registered.len() > 30, "{registered:?}");
    let lacks: Vec<_> = registered.difference(&documented).collect();
    let too_much: Vec<_> = documented.difference(&registered).collect();
    assert!(
        lacks.is_empty() && too_much.is_empty(),
        "docs/metrics.md lacks {lacks:#?}, and has {too_much:#?}"
    );
}
