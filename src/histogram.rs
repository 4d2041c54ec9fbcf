//! Bucket arithmetic: fixed upper bounds, one count each and one beyond the last.

use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// Upper bounds of a task's lifetime, in nanoseconds: 100 µs to 6 h.
pub(crate) const LIFETIME: Bounds = Bounds::new(&[
    100 * US,
    MS,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    30 * S,
    60 * S,
    300 * S,
    900 * S,
    3_600 * S,
    21_600 * S,
]);

/// Upper bounds of a poll's duration, in nanoseconds: 1 µs to 5 s.
pub(crate) const POLL: Bounds = Bounds::new(&[
    US,
    5 * US,
    10 * US,
    50 * US,
    100 * US,
    500 * US,
    MS,
    5 * MS,
    10 * MS,
    50 * MS,
    100 * MS,
    500 * MS,
    S,
    5 * S,
]);

/// Upper bounds of the delay from wake to poll, in nanoseconds: 1 µs to 1 s.
pub(crate) const SCHEDULE: Bounds = Bounds::new(&[
    US,
    5 * US,
    10 * US,
    50 * US,
    100 * US,
    500 * US,
    MS,
    5 * MS,
    10 * MS,
    50 * MS,
    100 * MS,
    500 * MS,
    S,
]);

/// The upper bounds of a histogram's buckets, and a short way to a value's own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    upper: &'static [u64],
    /// How many of them lie below the values of so many binary digits.
    below: [u8; 65],
}

impl Bounds {
    /// The bounds must ascend, each at least twice the one before: then no two have the
    /// same number of binary digits, unless there is a power of two between them.
    const fn new(upper: &'static [u64]) -> Self {
        let mut below = [0; 65];
        let mut digits = 1;
        while digits <= 64 {
            let least = 1_u64 << (digits - 1);
            let mut at = 0;
            while at < upper.len() && upper[at] < least {
                at += 1;
            }
            below[digits] = at as u8;
            digits += 1;
        }
        let mut at = 1;
        while at < upper.len() {
            assert!(upper[at] >= 2 * upper[at - 1], "two bounds are too close");
            at += 1;
        }
        Self { upper, below }
    }

    pub(crate) const fn len(&self) -> usize {
        self.upper.len()
    }

    /// The bucket of a value: the first whose upper bound is not below it, as in
    /// OpenTelemetry's explicit-bucket histogram and Prometheus' `le`.
    #[inline]
    pub(crate) fn bucket(&self, value: u64) -> usize {
        let digits = u64::BITS - value.leading_zeros();
        let at = usize::from(self.below[digits as usize]);
        // One bound at most lies among the values of so many digits.
        at + usize::from(self.upper.get(at).is_some_and(|&bound| bound < value))
    }
}

/// Counters of one histogram that a single thread writes and any thread reads.
/// `N` is one more than the number of bounds.
#[derive(Debug)]
pub(crate) struct Cells<const N: usize> {
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Cells<N> {
    pub(crate) fn new() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a value. The caller is this histogram's only writer, so a load and
    /// a store suffice where a read-modify-write would cost.
    #[inline]
    pub(crate) fn record(&self, bounds: &'static Bounds, value: u64) {
        debug_assert_eq!(bounds.len() + 1, N);
        add(&self.counts[bounds.bucket(value)], 1);
        add(&self.sum, value);
    }

    /// Takes a value back.
    pub(crate) fn take_back(&self, bounds: &'static Bounds, value: u64) {
        add(&self.counts[bounds.bucket(value)], 1_u64.wrapping_neg());
        add(&self.sum, value.wrapping_neg());
    }

    pub(crate) fn add_to(&self, total: &mut Histogram) {
        for (into, from) in total.counts.iter_mut().zip(&self.counts) {
            // Acquire pairs with `add`: what is counted has been done. Wrapping, as what
            // one thread counted another may have taken back.
            *into = into.wrapping_add(from.load(Ordering::Acquire));
        }
        total.sum = (total.sum).wrapping_add(self.sum.load(Ordering::Relaxed));
    }

    pub(crate) fn absorb(&self, other: &Self) {
        for (into, from) in self.counts.iter().zip(&other.counts) {
            add(into, from.load(Ordering::Relaxed));
        }
        add(&self.sum, other.sum.load(Ordering::Relaxed));
    }
}

/// Adds to a counter that only this thread writes. Release, so that who reads the
/// count also sees what was done before it was counted.
#[inline]
pub(crate) fn add(cell: &AtomicU64, by: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Release,
    );
}

/// A histogram of durations with fixed buckets, as OpenTelemetry and Prometheus
/// know it. Nothing is sampled: the buckets' sum is the number of all values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static Bounds,
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static Bounds) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0,
        }
    }

    #[cfg(feature = "otlp")]
    pub(crate) fn bounds(&self) -> &'static [u64] {
        self.bounds.upper
    }

    pub(crate) fn record(&mut self, value: u64) {
        self.counts[self.bounds.bucket(value)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// Takes a value back.
    pub(crate) fn take_back(&mut self, value: u64) {
        self.counts[self.bounds.bucket(value)] -= 1;
        self.sum = self.sum.wrapping_sub(value);
    }

    /// Adds the values of another with the same bounds.
    #[cfg(feature = "testing")]
    pub(crate) fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds, other.bounds);
        for (into, from) in self.counts.iter_mut().zip(&other.counts) {
            *into += from;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values. Wraps after 584 years of them.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// Each bucket's inclusive upper bound and the number of values in it alone
    /// (not cumulated). The last bucket has no bound.
    pub fn buckets(
        &self,
    ) -> impl DoubleEndedIterator<Item = (Option<Duration>, u64)> + ExactSizeIterator + '_ {
        self.counts.iter().enumerate().map(|(i, &count)| {
            (
                self.bounds.upper.get(i).copied().map(Duration::from_nanos),
                count,
            )
        })
    }

    /// The upper bound of the bucket in which the quantile `q` (0 to 1) lies:
    /// the value is at most this. `None` without values, and where it lies in the
    /// last bucket, which has no bound.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bound, n) in self.buckets() {
            seen += n;
            if count > 0 && seen >= rank {
                return bound;
            }
        }
        None
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let mut histogram = Histogram::new(&POLL);
        histogram.record(US);
        histogram.record(US + 1);
        let counts: Vec<_> = histogram.buckets().map(|(_, n)| n).take(3).collect();
        assert_eq!(counts, [1, 1, 0]);
    }

    #[test]
    fn the_last_bucket_has_no_bound_and_no_quantile() {
        let mut histogram = Histogram::new(&LIFETIME);
        assert_eq!(histogram.quantile(0.5), None);
        histogram.record(u64::MAX);
        assert_eq!(histogram.buckets().last(), Some((None, 1)));
        assert_eq!(histogram.quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn the_short_way_is_the_right_one(shift in 0_u32..64, offset in -2_i64..3) {
            for bounds in [&LIFETIME, &POLL, &SCHEDULE] {
                let around = bounds.upper.iter().copied().chain([1 << shift]);
                for value in around.map(|value| value.saturating_add_signed(offset)) {
                    let long = bounds.upper.partition_point(|&bound| bound < value);
                    prop_assert_eq!(bounds.bucket(value), long, "{}", value);
                }
            }
        }

        #[test]
        fn nothing_is_lost(values in prop::collection::vec(any::<u32>(), 0..200)) {
            let cells = Cells::<15>::new();
            for &value in &values {
                cells.record(&POLL, u64::from(value));
            }
            let mut total = Histogram::new(&POLL);
            cells.add_to(&mut total);
            prop_assert_eq!(total.count(), values.len() as u64);
            let sum: u64 = values.iter().map(|&v| u64::from(v)).sum();
            prop_assert_eq!(total.sum(), Duration::from_nanos(sum));
        }

        #[test]
        fn a_quantile_is_an_upper_bound(values in prop::collection::vec(0..5 * S, 1..100)) {
            let mut histogram = Histogram::new(&POLL);
            values.iter().for_each(|&v| histogram.record(v));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let median = sorted[(sorted.len() - 1) / 2];
            prop_assert!(histogram.quantile(0.5).unwrap() >= Duration::from_nanos(median));
        }
    }
}
