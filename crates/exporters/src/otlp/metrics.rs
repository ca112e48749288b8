//! The gateway's metrics as OTLP's: sums since its start, or what came since the last delivery.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use magicapi_plugin::{
    Delivery, HistogramValue, ItemOutcome, MetricData, MetricKind, MetricsSnapshot, Point, PointValue,
};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, metric,
};
use prost::Message;

use super::attributes::text;
use super::client::Item;
use super::config::Temporality;
use super::records::nanos;

/// Series of one item: a metric with more of them is several, so that requests can be divided.
const SERIES: usize = 500;
/// An exporter that is made so soon after counting began has missed nothing and begins at zero.
const FROM_THE_START: Duration = Duration::from_secs(10);

/// A series: its metric and its labels.
type Key = (String, Vec<(&'static str, String)>);

/// Reads snapshots. With `delta` it knows what has been delivered.
pub(super) struct Reader {
    temporality: Temporality,
    born: SystemTime,
    last: Option<SystemTime>,
    delivered: HashMap<Key, (PointValue, SystemTime)>,
}

/// What one delivery says, item by item.
pub(super) struct Read {
    items: Vec<(Metric, Vec<Receipt>)>,
    taken_at: SystemTime,
}

/// A series, and what will have been delivered of it.
type Receipt = (Key, PointValue);

impl Read {
    /// Each item, encoded.
    pub(super) fn encoded(&self) -> Vec<Item> {
        self.items.iter().map(|(metric, _)| vec![metric.encode_to_vec().into()]).collect()
    }
}

impl Reader {
    pub(super) fn new(temporality: Temporality, born: SystemTime) -> Self {
        Self { temporality, born, last: None, delivered: HashMap::new() }
    }

    /// What is to be sent of a snapshot.
    pub(super) fn read(&mut self, snapshot: &MetricsSnapshot) -> Read {
        // After a reload, another exporter has delivered what was counted before.
        let age = self.born.duration_since(snapshot.started_at).unwrap_or_default();
        let skips = self.is_delta() && self.last.is_none() && age > FROM_THE_START;
        let since = self.last.replace(snapshot.taken_at).unwrap_or(snapshot.started_at);
        let mut items = Vec::new();
        for data in &snapshot.metrics {
            for points in data.points.chunks(SERIES) {
                if skips && data.kind != MetricKind::Gauge {
                    for point in points {
                        self.delivered.insert(key(data, point), (point.value.clone(), snapshot.taken_at));
                    }
                    continue;
                }
                items.extend(self.item(data, points, snapshot, since));
            }
        }
        Read { items, taken_at: snapshot.taken_at }
    }

    /// Remembers what was taken, or never will be; the rest is part of the next delivery.
    pub(super) fn settle(&mut self, read: Read, delivery: &Delivery) {
        if !self.is_delta() {
            return;
        }
        for (index, (_, receipts)) in read.items.into_iter().enumerate() {
            let done = match delivery {
                Delivery::Delivered => true,
                Delivery::Items(items) => items.get(index).is_some_and(ItemOutcome::is_settled),
                _ => false,
            };
            if done {
                let taken_at = read.taken_at;
                self.delivered.extend(receipts.into_iter().map(|(key, value)| (key, (value, taken_at))));
            }
        }
    }

    fn is_delta(&self) -> bool {
        self.temporality != Temporality::Cumulative
    }

    fn item(
        &self,
        data: &MetricData,
        points: &[Point],
        snapshot: &MetricsSnapshot,
        since: SystemTime,
    ) -> Option<(Metric, Vec<Receipt>)> {
        let (mut numbers, mut histograms, mut receipts) = (Vec::new(), Vec::new(), Vec::new());
        for point in points {
            let key = key(data, point);
            let before = self.delivered.get(&key).filter(|_| self.is_delta());
            let start = match (self.is_delta(), before) {
                (false, _) => snapshot.started_at,
                (true, Some((_, at))) => *at,
                (true, None) => since,
            };
            let (start, end) = (nanos(start), nanos(snapshot.taken_at));
            match &point.value {
                PointValue::Number(now) if data.kind == MetricKind::Gauge => {
                    numbers.push(number(point, *now, 0, end));
                }
                PointValue::Number(now) => {
                    let added = now - before.map_or(0.0, |(before, _)| counted(before, *now));
                    if self.is_delta() && added <= 0.0 {
                        continue;
                    }
                    numbers.push(number(point, added, start, end));
                }
                PointValue::Histogram(now) => {
                    let added = without(now, before.map(|(before, _)| before));
                    if self.is_delta() && added.counts.iter().all(|count| *count == 0) {
                        continue;
                    }
                    histograms.push(histogram(point, added, start, end));
                }
                _ => continue,
            }
            receipts.push((key, point.value.clone()));
        }
        let temporality = match self.temporality {
            Temporality::Cumulative => AggregationTemporality::Cumulative,
            _ => AggregationTemporality::Delta,
        };
        let aggregation_temporality = temporality.into();
        let has_points = !numbers.is_empty() || !histograms.is_empty();
        let content = match data.kind {
            MetricKind::Gauge => metric::Data::Gauge(Gauge { data_points: numbers }),
            MetricKind::Counter => {
                metric::Data::Sum(Sum { data_points: numbers, aggregation_temporality, is_monotonic: true })
            }
            MetricKind::Histogram => {
                metric::Data::Histogram(Histogram { data_points: histograms, aggregation_temporality })
            }
            _ => return None,
        };
        let metric = Metric {
            name: data.name.clone(),
            description: data.description.clone(),
            unit: data.unit.clone(),
            data: Some(content),
            ..Metric::default()
        };
        has_points.then_some((metric, receipts))
    }
}

fn key(data: &MetricData, point: &Point) -> Key {
    (data.name.clone(), point.labels.clone())
}

/// What was delivered of a sum; one that shrank has begun anew.
fn counted(before: &PointValue, now: f64) -> f64 {
    match before {
        PointValue::Number(before) if *before <= now => *before,
        _ => 0.0,
    }
}

/// A distribution less what was delivered of it.
fn without(now: &HistogramValue, before: Option<&PointValue>) -> HistogramValue {
    let Some(PointValue::Histogram(before)) = before else { return now.clone() };
    let counts = now.counts.iter().zip(&before.counts).map(|(now, before)| now.saturating_sub(*before));
    let mut rest = now.clone();
    (rest.counts, rest.sum) = (counts.collect(), now.sum - before.sum);
    rest
}

/// A label without a value is one that the series does not have.
fn labels(point: &Point) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    let given = point.labels.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| text(name, value.clone())).collect()
}

fn number(point: &Point, value: f64, start: u64, end: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: labels(point),
        start_time_unix_nano: start,
        time_unix_nano: end,
        // Everything that the gateway counts is whole.
        value: Some(Value::AsInt(value as i64)),
        ..NumberDataPoint::default()
    }
}

fn histogram(point: &Point, value: HistogramValue, start: u64, end: u64) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: labels(point),
        start_time_unix_nano: start,
        time_unix_nano: end,
        count: value.counts.iter().sum(),
        sum: Some(value.sum),
        bucket_counts: value.counts,
        explicit_bounds: value.bounds,
        ..HistogramDataPoint::default()
    }
}
