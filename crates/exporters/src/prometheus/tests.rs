use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use magicapi_plugin::{MetricRegistry, MetricsSnapshot, Signals, TelemetryPlugin};
use prost::Message;
use serde_json::json;

use super::PrometheusPlugin;
use super::accept::{Format, negotiate};
use super::protobuf::{MetricFamily, Number};
use crate::testing::{Script, create};

/// Each kind of metric, each awkward name and value.
fn snapshot() -> MetricsSnapshot {
    let registry = Arc::new(MetricRegistry::default());
    let meter = registry.meter("gateway");
    let requests = meter
        .u64_counter("requests")
        .with_description("Requests that ended.")
        .with_unit("{request}")
        .with_labels(&["provider", "gen_ai.outcome"])
        .build();
    requests.add(3, &[("provider", "openai"), ("gen_ai.outcome", "completed")]);
    requests.add(1, &[("provider", "quote\" back\\slash\nline é"), ("gen_ai.outcome", "")]);
    meter
        .u64_counter("body.size_total")
        .with_unit("By")
        .with_description("Bytes of\nbodies, \"all\" \\ of them.")
        .build()
        .add(7, &[]);
    meter
        .u64_gauge("queue_bytes")
        .with_description("Bytes in queues.")
        .with_unit("By")
        .build()
        .record(5, &[]);
    meter.u64_gauge("9lives").with_description("A ratio.").with_unit("1").build().record(1, &[]);
    let took = meter
        .f64_histogram("request_duration")
        .with_description("Time until the last byte.")
        .with_unit("s")
        .with_labels(&["provider"])
        .with_boundaries(vec![0.1, 1.0])
        .build();
    for value in [0.05, 0.1, 0.5, 7.0] {
        took.record(value, &[("provider", "openai")]);
    }
    let _ = meter.u64_counter("never_counted").build();
    registry.snapshot()
}

fn page(snapshot: &MetricsSnapshot, accept: &str) -> (String, String) {
    let exporter = create(&PrometheusPlugin, json!({}), &Arc::new(Script::default())).expect("an exporter");
    let page = exporter.scrape(snapshot, accept).expect("a page");
    (page.content_type.to_owned(), page.text().to_owned())
}

#[test]
fn the_old_text_format() {
    let (content_type, body) = page(&snapshot(), "");
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    let expected = r#"# HELP gateway_9lives_ratio A ratio.
# TYPE gateway_9lives_ratio gauge
gateway_9lives_ratio 1.0
# HELP gateway_body_size_bytes_total Bytes of\nbodies, "all" \\ of them.
# TYPE gateway_body_size_bytes_total counter
gateway_body_size_bytes_total 7.0
# HELP gateway_queue_bytes Bytes in queues.
# TYPE gateway_queue_bytes gauge
gateway_queue_bytes 5.0
# HELP gateway_request_duration_seconds Time until the last byte.
# TYPE gateway_request_duration_seconds histogram
gateway_request_duration_seconds_sum{provider="openai"} 7.65
gateway_request_duration_seconds_count{provider="openai"} 4
gateway_request_duration_seconds_bucket{le="0.1",provider="openai"} 2
gateway_request_duration_seconds_bucket{le="1.0",provider="openai"} 3
gateway_request_duration_seconds_bucket{le="+Inf",provider="openai"} 4
# HELP gateway_requests_total Requests that ended.
# TYPE gateway_requests_total counter
gateway_requests_total{provider="openai",gen_ai_outcome="completed"} 3.0
gateway_requests_total{provider="quote\" back\\slash\nline é",gen_ai_outcome=""} 1.0
"#;
    assert_eq!(body, expected);
}

#[test]
fn open_metrics() {
    let (content_type, body) = page(&snapshot(), "application/openmetrics-text; version=1.0.0");
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    for line in [
        "# TYPE gateway_requests counter\ngateway_requests_total{provider=\"openai\",gen_ai_outcome=\"completed\"} 3.0\n",
        "# HELP gateway_body_size_bytes Bytes of\\nbodies, \\\"all\\\" \\\\ of them.\n",
        "# TYPE gateway_body_size_bytes counter\n# UNIT gateway_body_size_bytes bytes\ngateway_body_size_bytes_total 7.0\n",
        "# UNIT gateway_queue_bytes bytes\ngateway_queue_bytes 5.0\n",
        "# UNIT gateway_request_duration_seconds seconds\n",
    ] {
        assert!(body.contains(line), "{line}\nis not in\n{body}");
    }
    assert!(body.ends_with("\n# EOF\n") && body.matches("# EOF").count() == 1);
    assert!(!body.contains("never_counted"));
}

#[test]
fn what_a_scraper_asks_for() {
    let of_prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let of_prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let of_prometheus_with_native =
        format!("{native},application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1");
    for (accept, format) in [
        (&*of_prometheus_with_native, Format::Protobuf),
        (native, Format::Protobuf),
        (
            "application/openmetrics-text, application/vnd.google.protobuf; Proto=\"io.prometheus.client.MetricFamily\"; encoding=delimited; q=0.4",
            Format::OpenMetrics,
        ),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
            Format::Text,
        ),
        ("application/vnd.google.protobuf", Format::Text),
        (of_prometheus_2, Format::OpenMetrics),
        (of_prometheus_3, Format::OpenMetrics),
        ("application/openmetrics-text", Format::OpenMetrics),
        ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
        ("", Format::Text),
        ("*/*", Format::Text),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
        ("text/plain, application/openmetrics-text;q=0.5", Format::Text),
        ("application/openmetrics-text;q=0", Format::Text),
        ("application/openmetrics-text;version=2.0.0", Format::Text),
        ("application/openmetrics-text;q=x;version=1.0.0", Format::Text),
        (";;=,q=", Format::Text),
    ] {
        assert_eq!(negotiate(accept), format, "{accept}");
    }
}

const NATIVE: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

#[test]
fn protobuf_has_histograms_in_both_kinds_of_buckets() {
    let exporter = create(&PrometheusPlugin, json!({}), &Arc::new(Script::default())).expect("an exporter");
    let page = exporter.scrape(&snapshot(), NATIVE).expect("a page");
    assert!(page.content_type.starts_with("application/vnd.google.protobuf; proto=io.prometheus"));
    let (mut families, mut rest) = (Vec::new(), &page.body[..]);
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).expect("a family"));
    }
    let named = |name: &str| families.iter().find(|family| family.name == name).expect("a family");
    assert_eq!(families.len(), 5, "what was never counted is not there");
    let requests = named("gateway_requests_total");
    assert_eq!((requests.kind, requests.metrics.len()), (Some(0), 2));
    assert_eq!(requests.metrics[1].labels[0].value, "quote\" back\\slash\nline é");
    assert_eq!(requests.metrics[0].counter, Some(Number { value: 3.0 }));
    assert_eq!(named("gateway_body_size_bytes_total").help, "Bytes of\nbodies, \"all\" \\ of them.");
    assert_eq!(named("gateway_queue_bytes").metrics[0].gauge, Some(Number { value: 5.0 }));
    // 0.05, 0.1, 0.5 and 7.
    let took = named("gateway_request_duration_seconds").metrics[0].histogram.clone().expect("a histogram");
    assert_eq!((took.count, took.sum, took.schema, took.zero_count), (4, 7.65, 3, 0));
    let classic: Vec<_> = took.buckets.iter().map(|one| (one.upper_bound, one.cumulative_count)).collect();
    assert_eq!(classic, [(0.1, 2), (1.0, 3), (f64::INFINITY, 4)]);
    let spans: Vec<_> = took.positive_spans.iter().map(|span| (span.offset, span.length)).collect();
    // log2 of them, times 8, rounded up: -34, -26, -8, 23.
    assert_eq!(spans, [(-34, 1), (7, 1), (17, 1), (30, 1)]);
    assert_eq!(took.positive_deltas, [1, 0, 0, 0]);
}

#[test]
fn a_native_histogram_without_buckets_is_one_still() {
    let registry = Arc::new(MetricRegistry::default());
    let took = registry.meter("").f64_histogram("took").build();
    for value in [0.0, 0.0] {
        took.record(value, &[]);
    }
    let of = |registry: &Arc<MetricRegistry>| {
        let exporter =
            create(&PrometheusPlugin, json!({}), &Arc::new(Script::default())).expect("an exporter");
        let page = exporter.scrape(&registry.snapshot(), NATIVE).expect("a page");
        let family = MetricFamily::decode_length_delimited(&page.body[..]).expect("a family");
        family.metrics[0].histogram.clone().expect("a histogram")
    };
    let empty = of(&registry);
    assert_eq!((empty.zero_count, empty.positive_spans.len(), empty.positive_deltas.len()), (2, 1, 0));
    for value in [-1.0, 2.0, 2.0, 2.1] {
        took.record(value, &[]);
    }
    let both = of(&registry);
    assert_eq!((both.negative_spans[0].offset, &both.negative_deltas[..]), (0, &[1][..]));
    assert_eq!((both.positive_spans[0].offset, both.positive_spans[0].length), (8, 2));
    assert_eq!(both.positive_deltas, [2, -1]);
}

#[test]
fn names_that_clash_cost_one_metric_and_not_the_page() {
    let registry = Arc::new(MetricRegistry::default());
    let meter = registry.meter("");
    meter.u64_counter("a.b").build().add(1, &[]);
    meter.u64_counter("a_b").build().add(2, &[]);
    meter.u64_gauge("a_b_total").build().record(3, &[]);
    meter.f64_histogram("d").build().record(0.1, &[]);
    meter.u64_gauge("d_count").build().record(4, &[]);
    meter.u64_gauge("twice").with_labels(&["x.y", "x_y"]).build().record(5, &[]);
    meter.f64_histogram("le").with_labels(&["le"]).build().record(0.1, &[]);
    let (_, body) = page(&registry.snapshot(), "");
    let types: Vec<&str> = body.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(types, ["# TYPE a_b_total counter", "# TYPE d histogram"], "{body}");
    assert!(body.contains("a_b_total 1.0"), "the first keeps the name");
}

#[test]
fn promtool_accepts_the_page() {
    let (_, body) = page(&snapshot(), "");
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut check) = check else {
        println!("skipped: promtool is missing (Debian package `prometheus`)");
        return;
    };
    check.stdin.take().expect("a pipe").write_all(body.as_bytes()).expect("written");
    let output = check.wait_with_output().expect("promtool");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{body}");
}

#[test]
fn it_is_scraped_and_takes_nothing_else() {
    let spec = PrometheusPlugin.settings();
    assert!(spec.takes(Signals::SCRAPE) && !spec.takes(Signals::RECORDS) && !spec.takes(Signals::METRICS));
}
