//! A distribution in buckets whose bounds grow by a constant factor: no bounds have to be chosen before. Prometheus calls
//! it a native histogram, OpenTelemetry an exponential one.

use std::collections::BTreeMap;

/// Eight buckets for each power of two: a value is known to 9 %.
const FINEST: i32 = 3;
/// One bucket for each 2^16.
const COARSEST: i32 = -4;
/// Buckets of one series; past it neighbours are joined, and the resolution halves.
const MAX_BUCKETS: usize = 160;

/// Exponential buckets, those alone that hold something. Bucket `i` of resolution `s` holds what is above `b^(i-1)` and
/// at most `b^i`, where `b` is `2^(2^-s)`; that of a negative value is the bucket of its amount.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    schema: i32,
    zero: u64,
    positive: BTreeMap<i32, u64>,
    negative: BTreeMap<i32, u64>,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { schema: FINEST, zero: 0, positive: BTreeMap::new(), negative: BTreeMap::new() }
    }
}

impl Exponential {
    /// Amounts up to this count as zero (2^-128, as in Prometheus' own libraries).
    pub const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

    /// The resolution `s`, from 3 down to -4.
    pub fn schema(&self) -> i32 {
        self.schema
    }

    /// How many values were zero.
    pub fn zero(&self) -> u64 {
        self.zero
    }

    /// Buckets of positive values with what they hold, ascending.
    pub fn positive(&self) -> impl Iterator<Item = (i32, u64)> {
        self.positive.iter().map(|(index, count)| (*index, *count))
    }

    /// Buckets of negative values with what they hold, by ascending amount.
    pub fn negative(&self) -> impl Iterator<Item = (i32, u64)> {
        self.negative.iter().map(|(index, count)| (*index, *count))
    }

    /// Adds a finite value.
    pub(crate) fn record(&mut self, value: f64) {
        let amount = value.abs();
        if amount <= Self::ZERO_THRESHOLD {
            self.zero += 1;
            return;
        }
        let index = (amount.log2() * f64::from(self.schema).exp2()).ceil() as i32;
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        *side.entry(index).or_default() += 1;
        while self.positive.len() + self.negative.len() > MAX_BUCKETS && self.schema > COARSEST {
            self.schema -= 1;
            for side in [&mut self.positive, &mut self.negative] {
                for (index, count) in std::mem::take(side) {
                    // Two neighbours become one, whose upper bound is that of the upper.
                    *side.entry((index + 1) >> 1).or_default() += count;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Exponential, MAX_BUCKETS};

    /// Whether a bucket's bounds hold the value that was put into it.
    fn holds(buckets: &Exponential, index: i32, value: f64) -> bool {
        let base = f64::from(-buckets.schema()).exp2().exp2();
        let slack = 1e-12;
        base.powi(index - 1) * (1.0 - slack) < value && value <= base.powi(index) * (1.0 + slack)
    }

    #[test]
    fn a_value_is_in_the_bucket_whose_bounds_hold_it() {
        for value in [1e-30, 0.001, 0.5, 0.999, 1.0, 1.001, 2.0, 3.0, 1024.0, 86_400.0, 1e300] {
            let mut buckets = Exponential::default();
            buckets.record(value);
            let [(index, 1)] = buckets.positive().collect::<Vec<_>>()[..] else { panic!("{buckets:?}") };
            assert!(holds(&buckets, index, value), "{value}: {index}");
            buckets.record(-value);
            assert_eq!(buckets.negative().collect::<Vec<_>>(), [(index, 1)]);
        }
        // An upper bound belongs to its bucket.
        let mut buckets = Exponential::default();
        for value in [1.0, 2.0, 4.0] {
            buckets.record(value);
        }
        assert_eq!(buckets.positive().collect::<Vec<_>>(), [(0, 1), (8, 1), (16, 1)]);
    }

    #[test]
    fn zero_is_counted_by_itself() {
        let mut buckets = Exponential::default();
        for value in [0.0, -0.0, 1e-40, -1e-40] {
            buckets.record(value);
        }
        assert_eq!((buckets.zero(), buckets.positive().count(), buckets.negative().count()), (4, 0, 0));
    }

    #[test]
    fn many_buckets_are_joined_and_lose_no_value() {
        let mut buckets = Exponential::default();
        let mut value = 1e-9;
        let mut count = 0;
        while value < 1e12 {
            buckets.record(value);
            count += 1;
            value *= 1.05;
        }
        assert!(buckets.positive().count() <= MAX_BUCKETS && buckets.schema() < 3);
        assert_eq!(buckets.positive().map(|(_, held)| held).sum::<u64>(), count);
        // What was joined is where it would have come at once.
        let mut late = Exponential { schema: buckets.schema(), ..Exponential::default() };
        let mut value = 1e-9;
        while value < 1e12 {
            late.record(value);
            value *= 1.05;
        }
        assert_eq!(late, buckets);
    }

    #[test]
    fn the_ends_of_the_range_stay_within_the_coarsest_buckets() {
        let mut buckets = Exponential::default();
        for exponent in -127..=1023 {
            buckets.record(f64::from(exponent).exp2());
            buckets.record(-f64::from(exponent).exp2());
        }
        buckets.record(f64::MAX);
        assert!(buckets.positive().count() + buckets.negative().count() <= MAX_BUCKETS);
    }
}
