//! The page as protobuf: the same families, and histograms in exponential buckets ("native" ones) beside the classic.
//!
//! The messages are those of Prometheus' `io.prometheus.client` package, as far as they are written here.
//! <https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto>

use magicapi_plugin::{Exponential, HistogramValue, MetricKind, PointValue};
use prost::Message;

use super::names::{Family, Series};

pub(super) const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) help: String,
    /// Presence matters: a counter is 0.
    #[prost(int32, optional, tag = "3")]
    pub(super) kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub(super) metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelPair {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `Gauge` and `Counter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Number {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(super) count: u64,
    #[prost(double, tag = "2")]
    pub(super) sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(super) buckets: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    pub(super) schema: i32,
    #[prost(double, tag = "6")]
    pub(super) zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    pub(super) zero_count: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "10")]
    pub(super) negative_deltas: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    pub(super) positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    pub(super) positive_deltas: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bucket {
    #[prost(uint64, tag = "1")]
    pub(super) cumulative_count: u64,
    #[prost(double, tag = "2")]
    pub(super) upper_bound: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BucketSpan {
    /// To the end of the span before; of the first, its index.
    #[prost(sint32, tag = "1")]
    pub(super) offset: i32,
    #[prost(uint32, tag = "2")]
    pub(super) length: u32,
}

/// Renders the families.
pub(super) fn page(families: &[Family]) -> Vec<u8> {
    let mut page = Vec::new();
    for family in families {
        let metrics = family.series.iter().map(|series| metric(family.kind, series)).collect();
        let kind = match family.kind {
            MetricKind::Counter => 0,
            MetricKind::Gauge => 1,
            MetricKind::Histogram => 4,
            _ => 3,
        };
        let (name, help) = (family.name.clone(), family.help.clone());
        page.extend(MetricFamily { name, help, kind: Some(kind), metrics }.encode_length_delimited_to_vec());
    }
    page
}

fn metric(kind: MetricKind, (labels, value): &Series) -> Metric {
    let pair = |(name, value): &(String, String)| LabelPair { name: name.clone(), value: value.clone() };
    let mut metric = Metric { labels: labels.iter().map(pair).collect(), ..Metric::default() };
    match value {
        PointValue::Number(value) if kind == MetricKind::Counter => {
            metric.counter = Some(Number { value: *value });
        }
        PointValue::Number(value) => metric.gauge = Some(Number { value: *value }),
        PointValue::Histogram(value) => metric.histogram = Some(histogram(value)),
        _ => {}
    }
    metric
}

fn histogram(value: &HistogramValue) -> Histogram {
    let mut cumulative_count = 0;
    let bounds = value.bounds.iter().copied().chain([f64::INFINITY]);
    let bucket = |(upper_bound, count): (f64, &u64)| {
        cumulative_count += count;
        Bucket { cumulative_count, upper_bound }
    };
    let buckets = bounds.zip(&value.counts).map(bucket).collect();
    let (mut positive_spans, positive_deltas) = spans(value.exponential.positive());
    let (negative_spans, negative_deltas) = spans(value.exponential.negative());
    if positive_spans.is_empty() && negative_spans.is_empty() {
        // By it a native histogram without buckets is told from a classic one.
        positive_spans.push(BucketSpan { offset: 0, length: 0 });
    }
    Histogram {
        count: value.counts.iter().sum(),
        sum: value.sum,
        buckets,
        schema: value.exponential.schema(),
        zero_threshold: Exponential::ZERO_THRESHOLD,
        zero_count: value.exponential.zero(),
        negative_spans,
        negative_deltas,
        positive_spans,
        positive_deltas,
    }
}

/// Runs of neighbouring buckets, and each bucket's count less that of the one before.
fn spans(buckets: impl Iterator<Item = (i32, u64)>) -> (Vec<BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<BucketSpan>::new(), Vec::new());
    let (mut next, mut before) = (0, 0);
    for (index, count) in buckets {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(BucketSpan { offset: index - next, length: 1 }),
        }
        next = index + 1;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        before = count;
    }
    (spans, deltas)
}
