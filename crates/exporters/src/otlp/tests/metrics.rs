//! Metrics, from the start or since the last delivery.

use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;

use super::*;

/// Name, temporality, counts, and nanoseconds from the registry's start to the point's.
type Sent = (String, i32, Vec<u64>, u64);

fn one(metric: &Metric, start: u64) -> Sent {
    let name = metric.name.clone();
    match metric.data.clone().expect("data") {
        Data::Sum(sum) => {
            let point = sum.data_points[0].clone();
            assert!(sum.is_monotonic && point.attributes.len() == 1, "an empty label is none");
            let Some(Number::AsInt(value)) = point.value else { panic!("a count") };
            let counts = vec![value.try_into().unwrap()];
            (name, sum.aggregation_temporality, counts, point.start_time_unix_nano - start)
        }
        Data::Histogram(histogram) => {
            let point = histogram.data_points[0].clone();
            assert_eq!(point.count, point.bucket_counts.iter().sum::<u64>());
            assert_eq!(point.explicit_bounds, [1.0, 2.0]);
            let since = point.start_time_unix_nano - start;
            (name, histogram.aggregation_temporality, point.bucket_counts, since)
        }
        Data::Gauge(_) => (name, 0, vec![], 0),
        other => panic!("{other:?}"),
    }
}

async fn metrics(temporality: &str, answers: &[u16]) -> Vec<Vec<Sent>> {
    let script = Arc::new(Script::default());
    let exporter = exporter(&script, json!({ "signals": ["metrics"], "temporality": temporality }));
    let registry = Arc::new(MetricRegistry::default());
    let requests = registry.meter("").u64_counter("requests").with_labels(&["model", "error.type"]).build();
    let seconds =
        registry.meter("").f64_histogram("took").with_boundaries(vec![1.0, 2.0]).with_unit("s").build();
    registry.meter("").u64_gauge("open").build().record(5, &[]);
    let mut all = Vec::new();
    for (step, status) in answers.iter().enumerate() {
        script.answer(*status, "");
        if step != 2 {
            requests.add(3, &[("model", "m")]);
            seconds.record(1.5, &[]);
        }
        let mut snapshot = registry.snapshot();
        snapshot.taken_at = snapshot.started_at + Duration::from_secs(15 * (step as u64 + 1));
        let start = crate::otlp::records::nanos(snapshot.started_at);
        exporter.export_metrics(&snapshot).await;
        let [request] = script.seen().try_into().expect("one request");
        assert_eq!(request.uri().path(), "/v1/metrics");
        let request = ExportMetricsServiceRequest::decode(&request.body()[..]).expect("a request");
        let sent = request.resource_metrics[0].scope_metrics[0].metrics.iter();
        all.push(sent.map(|metric| one(metric, start)).collect());
    }
    all
}

#[tokio::test]
async fn metrics_count_from_the_start_or_since_the_last_delivery() {
    const SECOND: u64 = 1_000_000_000;
    let open = || ("open".to_owned(), 0, vec![], 0);
    let sent = metrics("cumulative", &[200, 503, 200, 200]).await;
    let expected: Vec<_> = [1, 2, 2, 3]
        .map(|n| vec![open(), ("requests".into(), 2, vec![3 * n], 0), ("took".into(), 2, vec![0, n, 0], 0)])
        .into();
    assert_eq!(sent, expected);
    let sent = metrics("delta", &[200, 503, 200, 200, 200]).await;
    let at = |n: u64, added: u64| {
        vec![
            open(),
            ("requests".into(), 1, vec![3 * added], n * 15 * SECOND),
            ("took".into(), 1, vec![0, added, 0], n * 15 * SECOND),
        ]
    };
    // The second is not taken, and the third brings it.
    assert_eq!(sent, [at(0, 1), at(1, 1), at(1, 1), at(3, 1), at(4, 1)]);
}
