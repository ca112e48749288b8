//! Metrics for back ends that add up what they are sent: what came since the last delivery, not sums since the
//! beginning.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use magicapi_plugin::{
    Delivery, HistogramValue, ItemOutcome, MetricData, MetricKind, MetricsSnapshot, Point, PointValue,
};

/// An exporter that is made so soon after counting began has missed nothing and begins at zero.
const FROM_THE_START: Duration = Duration::from_secs(10);
/// Values of one distribution in one delivery; the rest follows with the next.
const MAX_VALUES: u64 = 100_000;
/// Distinct values by which one bucket is shown.
const STEPS: u64 = 100;

/// What has been delivered, by series.
pub(crate) struct Deltas {
    born: SystemTime,
    /// When the last snapshot was taken.
    last: Option<SystemTime>,
    delivered: HashMap<String, (PointValue, SystemTime)>,
}

/// One series that changed.
pub(crate) struct Change<'s> {
    pub(crate) metric: &'s MetricData,
    pub(crate) point: &'s Point,
    pub(crate) added: Added,
    /// What to hand to [`Deltas::settle`].
    pub(crate) receipt: Receipt,
}

/// What changed about it.
#[derive(Debug, PartialEq)]
pub(crate) enum Added {
    /// A gauge's value.
    Gauge(f64),
    /// So much, within so many seconds (at least 1).
    Count(f64, u64),
    /// These values of a histogram.
    Values(Vec<f64>),
}

/// A series, and what will have been delivered of it.
pub(crate) struct Receipt(String, PointValue);

impl Deltas {
    /// For an exporter that was made at this time.
    pub(crate) fn new(born: SystemTime) -> Self {
        Self { born, last: None, delivered: HashMap::new() }
    }

    /// What changed since the last delivery. A counter or histogram to which nothing was added is left out.
    pub(crate) fn since<'s>(&mut self, snapshot: &'s MetricsSnapshot) -> Vec<Change<'s>> {
        // After a reload, another exporter has delivered what was counted before.
        let age = self.born.duration_since(snapshot.started_at).unwrap_or_default();
        let begin = self.last.is_none() && age > FROM_THE_START;
        let since = self.last.replace(snapshot.taken_at).unwrap_or(snapshot.started_at);
        let mut changes = Vec::new();
        for (metric, point) in snapshot.metrics.iter().flat_map(|m| m.points.iter().map(move |p| (m, p))) {
            let key = format!("{} {:?}", metric.name, point.labels);
            if begin && metric.kind != MetricKind::Gauge {
                self.delivered.insert(key, (point.value.clone(), snapshot.taken_at));
                continue;
            }
            let (before, since) = match self.delivered.get(&key) {
                Some((before, at)) => (Some(before), *at),
                None => (None, since),
            };
            let (added, value) = match (&point.value, before) {
                (PointValue::Number(now), _) if metric.kind == MetricKind::Gauge => {
                    (Added::Gauge(*now), PointValue::Number(*now))
                }
                (PointValue::Number(now), before) => {
                    // A sum that shrank has begun anew.
                    let before = if let Some(PointValue::Number(n)) = before { n.min(*now) } else { 0.0 };
                    let seconds = snapshot.taken_at.duration_since(since).unwrap_or_default().as_secs();
                    (Added::Count(now - before, seconds.max(1)), PointValue::Number(*now))
                }
                (PointValue::Histogram(now), before) => {
                    let before = if let Some(PointValue::Histogram(n)) = before { Some(n) } else { None };
                    let (values, sent) = values(now, before);
                    (Added::Values(values), PointValue::Histogram(sent))
                }
                _ => continue,
            };
            if !added.is_nothing() {
                changes.push(Change { metric, point, added, receipt: Receipt(key, value) });
            }
        }
        changes
    }

    /// Remembers what was taken, or never will be; the rest is part of the next delivery.
    pub(crate) fn settle(&mut self, sent: Vec<Receipt>, delivery: &Delivery, taken_at: SystemTime) {
        for (index, Receipt(key, value)) in sent.into_iter().enumerate() {
            let done = match delivery {
                Delivery::Delivered => true,
                Delivery::Items(items) => items.get(index).is_some_and(ItemOutcome::is_settled),
                _ => false,
            };
            if done {
                self.delivered.insert(key, (value, taken_at));
            }
        }
    }
}

impl Added {
    fn is_nothing(&self) -> bool {
        match self {
            Self::Gauge(_) => false,
            Self::Count(value, _) => *value <= 0.0,
            Self::Values(values) => values.is_empty(),
        }
    }
}

/// The values that were added, read back from the buckets that counted them, and the histogram that they lead to.
/// They are spread evenly over each bucket; those above the last bound are what makes the sum right.
fn values(now: &HistogramValue, before: Option<&HistogramValue>) -> (Vec<f64>, HistogramValue) {
    let mut sent = before.unwrap_or(now).clone();
    if before.is_none() {
        sent.counts.fill(0);
        sent.sum = 0.0;
    }
    let (mut values, mut room, mut low) = (Vec::new(), MAX_VALUES, 0.0);
    let bounds = now.bounds.iter().map(|bound| Some(*bound)).chain([None]);
    for ((bound, now_in), sent_in) in bounds.zip(&now.counts).zip(&mut sent.counts) {
        let added = now_in.saturating_sub(*sent_in).min(room);
        *sent_in += added;
        room -= added;
        let (from, to) = match bound {
            Some(bound) => (f64::min(low, bound), bound),
            None if added == 0 => (low, low),
            None => {
                let rest = now.sum - sent.sum - values.iter().sum::<f64>();
                let mean = f64::max(low, rest / added as f64);
                (mean, mean)
            }
        };
        let steps = added.clamp(1, STEPS);
        let value = |n: u64| from + (to - from) * ((n * steps / added) as f64 + 0.5) / steps as f64;
        values.extend((0..added).map(|n| round(value(n))));
        low = bound.unwrap_or(low);
    }
    let all = sent.counts == now.counts;
    sent.sum = if all { now.sum } else { sent.sum + values.iter().sum::<f64>() };
    (values, sent)
}

/// To six digits: more would only be longer.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(5.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use magicapi_plugin::{Delivery, ItemOutcome, MetricRegistry};

    use super::{Added, Deltas};

    /// What changed of the one metric there is, and what became of its delivery.
    fn step(
        deltas: &mut Deltas,
        registry: &Arc<MetricRegistry>,
        seconds: u64,
        answer: &Delivery,
    ) -> Option<Added> {
        let mut snapshot = registry.snapshot();
        snapshot.taken_at = snapshot.started_at + Duration::from_secs(seconds);
        let mut changes = deltas.since(&snapshot);
        assert!(changes.len() <= 1);
        let change = changes.pop()?;
        deltas.settle(vec![change.receipt], answer, snapshot.taken_at);
        Some(change.added)
    }

    const REFUSED: Delivery = Delivery::Retry { after: None };

    #[test]
    fn a_count_that_was_not_taken_is_part_of_the_next() {
        let registry = Arc::new(MetricRegistry::default());
        let counter = registry.meter("").u64_counter("requests").build();
        let mut deltas = Deltas::new(SystemTime::now());
        assert_eq!(step(&mut deltas, &registry, 15, &Delivery::Delivered), None);
        counter.add(3, &[]);
        assert_eq!(step(&mut deltas, &registry, 30, &Delivery::Delivered), Some(Added::Count(3.0, 15)));
        assert_eq!(step(&mut deltas, &registry, 45, &Delivery::Delivered), None, "nothing was added");
        counter.add(4, &[]);
        assert_eq!(step(&mut deltas, &registry, 60, &REFUSED), Some(Added::Count(4.0, 30)));
        counter.add(1, &[]);
        let retry = Delivery::Items(vec![ItemOutcome::Retry]);
        assert_eq!(step(&mut deltas, &registry, 75, &retry), Some(Added::Count(5.0, 45)));
        let never = Delivery::Items(vec![ItemOutcome::Rejected { reason: "bad".into() }]);
        assert_eq!(step(&mut deltas, &registry, 90, &never), Some(Added::Count(5.0, 60)));
        assert_eq!(step(&mut deltas, &registry, 105, &Delivery::Delivered), None, "never asked again");
    }

    #[test]
    fn an_exporter_that_came_later_leaves_out_what_was_before() {
        let registry = Arc::new(MetricRegistry::default());
        let meter = registry.meter("");
        let counter = meter.u64_counter("requests").build();
        counter.add(100, &[]);
        let mut deltas = Deltas::new(SystemTime::now() + Duration::from_mins(5));
        assert_eq!(step(&mut deltas, &registry, 300, &Delivery::Delivered), None);
        counter.add(2, &[]);
        assert_eq!(step(&mut deltas, &registry, 315, &Delivery::Delivered), Some(Added::Count(2.0, 15)));
    }

    #[test]
    fn gauges_are_what_they_are() {
        let registry = Arc::new(MetricRegistry::default());
        let gauge = registry.meter("").u64_gauge("open").build();
        let mut deltas = Deltas::new(SystemTime::now() + Duration::from_mins(5));
        for value in [5, 5, 0] {
            gauge.record(value, &[]);
            let added = step(&mut deltas, &registry, 15, &Delivery::Delivered);
            assert_eq!(added, Some(Added::Gauge(value as f64)));
        }
    }

    #[test]
    fn a_histogram_is_read_back_as_as_many_values_in_the_same_buckets() {
        let registry = Arc::new(MetricRegistry::default());
        let bounds = vec![1.0, 2.0, 4.0];
        let seconds = registry.meter("").f64_histogram("took").with_boundaries(bounds).build();
        let mut deltas = Deltas::new(SystemTime::now());
        for value in [0.3, 0.9, 1.5, 3.0, 10.0, 30.0] {
            seconds.record(value, &[]);
        }
        let Some(Added::Values(values)) = step(&mut deltas, &registry, 15, &REFUSED) else {
            panic!("values")
        };
        assert_eq!(values.len(), 6);
        let within = |low: f64, high: f64| values.iter().filter(|v| **v > low && **v <= high).count();
        assert_eq!([within(0.0, 1.0), within(1.0, 2.0), within(2.0, 4.0), within(4.0, 1e9)], [2, 1, 1, 2]);
        assert!((values.iter().sum::<f64>() - 45.7).abs() < 0.01, "{values:?}");
        seconds.record(3.5, &[]);
        let Some(Added::Values(values)) = step(&mut deltas, &registry, 30, &Delivery::Delivered) else {
            panic!("values")
        };
        assert_eq!(values.len(), 7, "what was not taken comes again");
        seconds.record(3.5, &[]);
        let added = step(&mut deltas, &registry, 45, &Delivery::Delivered);
        assert_eq!(added, Some(Added::Values(vec![3.0])));
    }

    #[test]
    fn too_many_values_follow_with_the_next_delivery() {
        let registry = Arc::new(MetricRegistry::default());
        let seconds = registry.meter("").f64_histogram("took").with_boundaries(vec![1.0]).build();
        for n in 0..super::MAX_VALUES + 10 {
            seconds.record(if n % 2 == 0 { 0.5 } else { 3.0 }, &[]);
        }
        let mut deltas = Deltas::new(SystemTime::now());
        let mut count = 0;
        while let Some(Added::Values(values)) = step(&mut deltas, &registry, 15, &Delivery::Delivered) {
            assert!(values.len() as u64 <= super::MAX_VALUES);
            count += values.len() as u64;
        }
        assert_eq!(count, super::MAX_VALUES + 10);
    }
}
