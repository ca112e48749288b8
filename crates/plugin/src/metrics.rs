//! Metrics of the gateway and of plug-ins, spelled as in OpenTelemetry, in types of our own.
//!
//! One registration shows wherever metrics go. A metric declares its label names when it is built; a label that was
//! not declared is ignored, and past 2,000 label sets a metric folds new ones into `other`.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use crate::Exponential;

/// Label sets that one metric may have: a caller must not be able to mint series.
const MAX_SERIES: usize = 2000;

/// Bytes of a label's value.
const MAX_VALUE: usize = 256;

/// Upper bounds for durations in seconds when a histogram names none of its own.
const DEFAULT_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// A sum that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A distribution at one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HistogramValue {
    /// Upper bounds, ascending, without +Inf.
    pub bounds: Vec<f64>,
    /// Values per bucket (not cumulative); one more than `bounds`, the last is +Inf.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
    /// The same values in exponential buckets.
    pub exponential: Exponential,
}

/// The value of one series.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PointValue {
    /// Counter or gauge.
    Number(f64),
    /// Histogram.
    Histogram(HistogramValue),
}

/// One series at one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Point {
    /// Label names and values, in the metric's order.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: PointValue,
}

/// One metric at one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MetricData {
    /// Its name, without the suffixes that a format may want (`_total`).
    pub name: String,
    /// What it counts.
    pub description: String,
    /// Its unit in UCUM (`s`, `By`, `{request}`); empty when it has none.
    pub unit: String,
    /// What it is.
    pub kind: MetricKind,
    /// Its series.
    pub points: Vec<Point>,
}

/// All metrics at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// When it was taken.
    pub taken_at: SystemTime,
    /// When counting began.
    pub started_at: SystemTime,
    /// The metrics, by name.
    pub metrics: Vec<MetricData>,
}

/// One series' storage. Gauges and counters use `number` alone.
struct Series {
    labels: Vec<String>,
    number: AtomicU64,
    histogram: Mutex<HistogramValue>,
}

struct Metric {
    name: String,
    description: String,
    unit: String,
    kind: MetricKind,
    label_names: Vec<&'static str>,
    bounds: Vec<f64>,
    series: RwLock<SeriesTable>,
}

/// Every series of a metric, found by borrowed label values: a request looks up ten, so none of it allocates.
#[derive(Default)]
struct SeriesTable {
    hasher: RandomState,
    /// By the hash of the label values; two that share one are told apart by the values.
    by_hash: HashMap<u64, Vec<Arc<Series>>>,
    count: usize,
}

impl SeriesTable {
    fn hash<'a>(&self, values: impl Iterator<Item = &'a str>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        values.for_each(|value| value.hash(&mut hasher));
        hasher.finish()
    }

    fn get<'a>(&self, values: &(impl Iterator<Item = &'a str> + Clone)) -> Option<&Arc<Series>> {
        let alike = self.by_hash.get(&self.hash(values.clone()))?;
        alike.iter().find(|series| values.clone().eq(series.labels.iter().map(String::as_str)))
    }

    fn insert(&mut self, series: Arc<Series>) {
        let hash = self.hash(series.labels.iter().map(String::as_str));
        self.by_hash.entry(hash).or_default().push(series);
        self.count += 1;
    }
}

/// The beginning of a label's value: 2,000 series of a caller's megabytes would be no bound.
fn bounded(value: &str) -> &str {
    value.get(..value.floor_char_boundary(MAX_VALUE)).unwrap_or_default()
}

impl Metric {
    /// Acts on the series of a label set; on the shared `other` series once there are too many.
    fn with_series<R>(&self, labels: &[(&str, &str)], act: impl FnOnce(&Series) -> R) -> R {
        let value_of =
            |name| labels.iter().find(|(key, _)| key == name).map_or("", |(_, value)| bounded(value));
        let values = self.label_names.iter().map(value_of);
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&values) {
            return act(series);
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let has_room = all.count < MAX_SERIES || self.label_names.is_empty();
        let labels: Vec<String> =
            values.map(|value| if has_room { value } else { "other" }.to_owned()).collect();
        // Another thread may have been faster, and the shared series is made once.
        let known = all.get(&labels.iter().map(String::as_str)).cloned();
        let series = known.unwrap_or_else(|| {
            let fresh = Arc::new(self.fresh(labels));
            all.insert(fresh.clone());
            fresh
        });
        drop(all);
        act(&series)
    }

    fn fresh(&self, labels: Vec<String>) -> Series {
        let (bounds, counts) = (self.bounds.clone(), vec![0; self.bounds.len() + 1]);
        let histogram = HistogramValue { bounds, counts, sum: 0.0, exponential: Exponential::default() };
        Series { labels, number: AtomicU64::new(0), histogram: Mutex::new(histogram) }
    }

    fn data(&self) -> MetricData {
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut points: Vec<Point> =
            all.by_hash.values().flatten().map(|series| self.point(series)).collect();
        points.sort_by(|a, b| a.labels.cmp(&b.labels));
        MetricData {
            name: self.name.clone(),
            description: self.description.clone(),
            unit: self.unit.clone(),
            kind: self.kind,
            points,
        }
    }

    fn point(&self, series: &Series) -> Point {
        let value = match self.kind {
            MetricKind::Histogram => {
                PointValue::Histogram(series.histogram.lock().unwrap_or_else(PoisonError::into_inner).clone())
            }
            _ => PointValue::Number(series.number.load(Ordering::Relaxed) as f64),
        };
        Point { labels: self.label_names.iter().copied().zip(series.labels.iter().cloned()).collect(), value }
    }
}

/// Every metric of the process.
pub struct MetricRegistry {
    started_at: SystemTime,
    metrics: Mutex<Vec<Arc<Metric>>>,
    observers: Mutex<Vec<Observer>>,
}

/// Brings metrics up to date whose values are kept elsewhere.
type Observer = Box<dyn Fn() + Send + Sync>;

impl Default for MetricRegistry {
    fn default() -> Self {
        Self { started_at: SystemTime::now(), metrics: Mutex::default(), observers: Mutex::default() }
    }
}

impl MetricRegistry {
    /// A meter whose metrics' names begin with `prefix` (empty for none).
    pub fn meter(self: &Arc<Self>, prefix: &str) -> Meter {
        Meter { registry: self.clone(), prefix: prefix.into() }
    }

    /// Calls `observer` before each snapshot. It must not take a snapshot itself.
    pub fn observe(&self, observer: impl Fn() + Send + Sync + 'static) {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(observer));
    }

    /// All metrics now, by name.
    pub fn snapshot(&self) -> MetricsSnapshot {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|observer| observer());
        let mut metrics: Vec<MetricData> = self
            .metrics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|metric| metric.data())
            .collect();
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        MetricsSnapshot { taken_at: SystemTime::now(), started_at: self.started_at, metrics }
    }

    /// A metric that was registered before under the same name is the same metric: a reload counts on.
    fn register(&self, metric: Metric) -> Arc<Metric> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) =
            metrics.iter().find(|known| known.name == metric.name && known.kind == metric.kind)
        {
            return known.clone();
        }
        let metric = Arc::new(metric);
        metrics.push(metric.clone());
        metric
    }
}

/// Makes metrics.
#[derive(Clone)]
pub struct Meter {
    registry: Arc<MetricRegistry>,
    prefix: String,
}

impl Meter {
    /// A sum that only grows.
    pub fn u64_counter(&self, name: &str) -> InstrumentBuilder<Counter<u64>> {
        self.instrument(name, MetricKind::Counter, |metric| Counter {
            metric,
            value: std::marker::PhantomData,
        })
    }

    /// A value that goes up and down.
    pub fn u64_gauge(&self, name: &str) -> InstrumentBuilder<Gauge<u64>> {
        self.instrument(name, MetricKind::Gauge, |metric| Gauge { metric, value: std::marker::PhantomData })
    }

    /// A distribution.
    pub fn f64_histogram(&self, name: &str) -> InstrumentBuilder<Histogram<f64>> {
        self.instrument(name, MetricKind::Histogram, |metric| Histogram {
            metric,
            value: std::marker::PhantomData,
        })
    }

    fn instrument<I>(
        &self,
        name: &str,
        kind: MetricKind,
        make: fn(Arc<Metric>) -> I,
    ) -> InstrumentBuilder<I> {
        let name = if self.prefix.is_empty() { name.to_owned() } else { format!("{}_{name}", self.prefix) };
        let metric = Metric {
            name,
            description: String::new(),
            unit: String::new(),
            kind,
            label_names: Vec::new(),
            bounds: DEFAULT_BOUNDS.to_vec(),
            series: RwLock::default(),
        };
        InstrumentBuilder { registry: self.registry.clone(), metric, make }
    }
}

/// Describes a metric before it exists.
pub struct InstrumentBuilder<I> {
    registry: Arc<MetricRegistry>,
    metric: Metric,
    make: fn(Arc<Metric>) -> I,
}

impl<I> InstrumentBuilder<I> {
    /// What it counts.
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.metric.description = description.into();
        self
    }

    /// Its unit in UCUM.
    pub fn with_unit(mut self, unit: impl Into<String>) -> Self {
        self.metric.unit = unit.into();
        self
    }

    /// Its label names: the closed set.
    pub fn with_labels(mut self, names: &[&'static str]) -> Self {
        self.metric.label_names = names.to_vec();
        self
    }

    /// A histogram's upper bounds, without +Inf. They are put in order; what is not finite, or there twice, is left out,
    /// since one page with a broken histogram is refused as a whole.
    pub fn with_boundaries(mut self, bounds: Vec<f64>) -> Self {
        self.metric.bounds = bounds.into_iter().filter(|bound| bound.is_finite()).collect();
        self.metric.bounds.sort_by(f64::total_cmp);
        self.metric.bounds.dedup();
        self
    }

    /// Registers it.
    pub fn build(self) -> I {
        (self.make)(self.registry.register(self.metric))
    }
}

/// A sum that only grows.
#[derive(Clone)]
pub struct Counter<T> {
    metric: Arc<Metric>,
    value: std::marker::PhantomData<T>,
}

impl Counter<u64> {
    /// Adds to the series with these labels.
    pub fn add(&self, value: u64, labels: &[(&str, &str)]) {
        self.metric.with_series(labels, |series| series.number.fetch_add(value, Ordering::Relaxed));
    }
}

/// A value that goes up and down.
#[derive(Clone)]
pub struct Gauge<T> {
    metric: Arc<Metric>,
    value: std::marker::PhantomData<T>,
}

impl Gauge<u64> {
    /// Sets the series with these labels.
    pub fn record(&self, value: u64, labels: &[(&str, &str)]) {
        self.metric.with_series(labels, |series| series.number.store(value, Ordering::Relaxed));
    }
}

/// A distribution.
#[derive(Clone)]
pub struct Histogram<T> {
    metric: Arc<Metric>,
    value: std::marker::PhantomData<T>,
}

impl Histogram<f64> {
    /// Adds a value to the series with these labels; what is not finite is ignored.
    pub fn record(&self, value: f64, labels: &[(&str, &str)]) {
        if !value.is_finite() {
            return;
        }
        self.metric.with_series(labels, |series| {
            let mut histogram = series.histogram.lock().unwrap_or_else(PoisonError::into_inner);
            let bucket = histogram.bounds.partition_point(|bound| *bound < value);
            if let Some(count) = histogram.counts.get_mut(bucket) {
                *count += 1;
            }
            histogram.sum += value;
            histogram.exponential.record(value);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{MAX_SERIES, MetricRegistry, PointValue};

    #[test]
    fn counters_histograms_and_a_second_registration() {
        let registry = Arc::new(MetricRegistry::default());
        let meter = registry.meter("demo");
        let build = || meter.u64_counter("sent").with_unit("{record}").with_labels(&["to"]).build();
        build().add(2, &[("to", "a"), ("undeclared", "x")]);
        build().add(1, &[("to", "a")]);
        let seconds = meter.f64_histogram("took").with_boundaries(vec![1.0, 2.0]).build();
        for value in [0.5, 1.0, 1.5, 9.0, f64::NAN] {
            seconds.record(value, &[]);
        }
        let snapshot = registry.snapshot();
        let [sent, took] = snapshot.metrics.as_slice() else { panic!("two metrics: {snapshot:?}") };
        assert_eq!((sent.name.as_str(), sent.points[0].labels[0].1.as_str()), ("demo_sent", "a"));
        assert_eq!(sent.points[0].value, PointValue::Number(3.0));
        let PointValue::Histogram(value) = &took.points[0].value else { panic!("a histogram") };
        assert_eq!((value.counts.as_slice(), value.sum), ([2, 1, 1].as_slice(), 12.0));
    }

    #[test]
    fn a_series_is_its_label_values_in_the_declared_order() {
        let registry = Arc::new(MetricRegistry::default());
        let counter = registry.meter("").u64_counter("sent").with_labels(&["from", "to"]).build();
        counter.add(1, &[("from", "a"), ("to", "b")]);
        counter.add(1, &[("to", "b"), ("from", "a")]);
        counter.add(1, &[("from", "ab")]);
        counter.add(1, &[("to", "ab")]);
        let snapshot = registry.snapshot();
        let series: Vec<_> = snapshot.metrics[0]
            .points
            .iter()
            .map(|point| (point.labels[0].1.as_str(), point.labels[1].1.as_str(), point.value.clone()))
            .collect();
        let number = PointValue::Number;
        assert_eq!(series, [("", "ab", number(1.0)), ("a", "b", number(2.0)), ("ab", "", number(1.0))]);
    }

    #[test]
    fn a_labels_value_is_bounded() {
        let registry = Arc::new(MetricRegistry::default());
        let counter = registry.meter("").u64_counter("asked").with_labels(&["by"]).build();
        for end in ["x", "y"] {
            counter.add(1, &[("by", &format!("{}é{end}", "a".repeat(255)))]);
        }
        let points = registry.snapshot().metrics[0].points.clone();
        assert_eq!((points.len(), points[0].labels[0].1.len()), (1, 255), "cut before what it would tear");
        assert_eq!(points[0].value, PointValue::Number(2.0));
    }

    #[test]
    fn boundaries_are_put_in_order() {
        let registry = Arc::new(MetricRegistry::default());
        let bounds = vec![5.0, 1.0, f64::INFINITY, 5.0, f64::NAN, -2.0];
        let histogram = registry.meter("x").f64_histogram("took").with_boundaries(bounds).build();
        for value in [-3.0, 0.0, 1.0, 4.0, 9.0] {
            histogram.record(value, &[]);
        }
        let PointValue::Histogram(value) = registry.snapshot().metrics[0].points[0].value.clone() else {
            panic!("a histogram")
        };
        assert_eq!((value.bounds, value.counts), (vec![-2.0, 1.0, 5.0], vec![1, 2, 1, 1]));
    }

    #[test]
    fn series_are_bounded() {
        let registry = Arc::new(MetricRegistry::default());
        let counter = registry.meter("").u64_counter("models").with_labels(&["model"]).build();
        for n in 0..MAX_SERIES + 500 {
            counter.add(1, &[("model", &n.to_string())]);
        }
        let snapshot = registry.snapshot();
        let points = &snapshot.metrics[0].points;
        assert_eq!(points.len(), MAX_SERIES + 1);
        let other = points.iter().find(|point| point.labels[0].1 == "other").expect("an overflow series");
        assert_eq!(other.value, PointValue::Number(500.0));
    }
}
