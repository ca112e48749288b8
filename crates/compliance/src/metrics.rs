//! The cases on metrics: snapshots that are sent, and the page that is fetched.

use std::sync::Arc;

use magicapi_plugin::{Delivery, MetricRegistry};

use crate::backend::Behaviour;
use crate::stage::{HANGS, SHORT, Stage, delivers};

/// A counter, a gauge and a histogram; each call counts on.
fn counted(registry: &Arc<MetricRegistry>) {
    let meter = registry.meter("compliance");
    let sent = meter.u64_counter("test").with_description("A test.").with_unit("{record}");
    sent.with_labels(&["to"]).build().add(3, &[("to", "a \"b\"\\\n")]);
    meter.u64_gauge("depth").build().record(7, &[]);
    meter.f64_histogram("took").with_unit("s").build().record(0.2, &[]);
}

/// Sent to a back end that is well, and to ones that are not.
pub(crate) fn snapshots(stage: &Stage) {
    for behaviour in
        [Behaviour::Well, Behaviour::Dead, Behaviour::Silent, Behaviour::Status(401), Behaviour::Status(503)]
    {
        let Some((backend, exporter, _)) = stage.started(behaviour) else { return };
        let registry = Arc::new(MetricRegistry::default());
        for _ in 0..2 {
            counted(&registry);
            backend.forget();
            let patience = if behaviour == Behaviour::Silent { SHORT } else { stage.suite.patience };
            let delivery = stage.within(patience, exporter.export_metrics(&registry.snapshot()));
            let asked = !backend.requests().is_empty() || backend.connections() > 0;
            match delivery {
                Some(Delivery::Refused { reason }) => stage.text("a reason", &reason),
                Some(delivery) if asked && behaviour != Behaviour::Well && delivers(&delivery) => {
                    stage.finding(format!("metrics are said to be delivered: back end {behaviour}"));
                }
                None if behaviour != Behaviour::Silent => {
                    stage.finding(format!("export_metrics {HANGS}: back end {behaviour}"));
                }
                _ => {}
            }
        }
        stage.end(&*exporter);
    }
}

/// What Prometheus asks for once it takes native histograms.
const PROTOBUF: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

fn holds(page: &[u8], name: &[u8]) -> bool {
    page.windows(name.len()).any(|part| part == name)
}

/// Fetched by whoever asks for it, in whatever words.
pub(crate) fn page(stage: &Stage) {
    let Some((_backend, exporter, _)) = stage.started(Behaviour::Well) else { return };
    let registry = Arc::new(MetricRegistry::default());
    for filled in [false, true] {
        if filled {
            counted(&registry);
        }
        for accept in
            ["", "*/*", "application/openmetrics-text; version=1.0.0", PROTOBUF, "\u{0};q=x,,;", "text/html"]
        {
            match exporter.scrape(&registry.snapshot(), accept) {
                None => stage.finding(format!("no page for the Accept {accept:?}")),
                Some(page) if filled && !holds(&page.body, b"compliance_test") => {
                    stage.finding(format!("the page for the Accept {accept:?} lacks a metric"));
                }
                Some(_) => {}
            }
        }
    }
    stage.end(&*exporter);
}
