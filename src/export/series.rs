//! What is exported, whatever the way out: metrics with their points, and the memory that
//! keeps counters from going down and series from vanishing.

use super::catalog::Instrument;
use crate::histogram::Histogram;
use crate::table::Exemplar;
use opentelemetry::KeyValue;
use std::collections::HashMap;
use std::time::SystemTime;

/// All metrics at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Collection {
    pub(crate) at: SystemTime,
    pub(crate) metrics: Vec<Metric>,
}

#[derive(Clone, Debug)]
pub(crate) struct Metric {
    pub(crate) instrument: &'static Instrument,
    pub(crate) points: Vec<Point>,
}

#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) attributes: Vec<KeyValue>,
    /// Since when it is counted.
    pub(crate) start: SystemTime,
    pub(crate) value: Value,
    pub(crate) exemplars: Vec<TracedValue>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Count(u64),
    Seconds(f64),
    Histogram(Buckets),
}

/// A histogram's values; the bounds are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Buckets {
    pub(crate) bounds: &'static [u64],
    pub(crate) counts: Vec<u64>,
    /// Nanoseconds.
    pub(crate) sum: u64,
}

impl Buckets {
    pub(crate) fn of(histogram: &Histogram) -> Self {
        Self {
            bounds: histogram.bounds(),
            counts: histogram.buckets().map(|(_, count)| count).collect(),
            sum: crate::clock::nanos(histogram.sum()),
        }
    }
}

/// An exemplar: one value and the span it belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TracedValue {
    pub(crate) value: TracedAmount,
    pub(crate) at: SystemTime,
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TracedAmount {
    One,
    Seconds(f64),
}

impl TracedValue {
    pub(crate) fn lifetime(exemplar: &Exemplar, at: SystemTime) -> Self {
        Self {
            value: TracedAmount::Seconds(seconds(exemplar.value)),
            at,
            trace_id: exemplar.trace_id,
            span_id: exemplar.span_id,
        }
    }
}

pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// One series: an instrument, a site (or nothing), and the other attributes by number.
type SeriesKey = (&'static str, u32, u32);

/// What was exported last.
///
/// An end that was inferred can be taken back, and a look isn't one moment for all tasks.
/// A receiver takes a counter that goes down for one that began anew, so what was said
/// once is never taken back; and a series that was there once stays, at zero if need be.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    values: HashMap<SeriesKey, u64>,
    buckets: HashMap<(&'static str, u32), Buckets>,
    codes: Vec<&'static str>,
}

impl Memory {
    /// A counter's value, not less than before.
    pub(crate) fn counter(&mut self, of: &Instrument, site: u32, sub: u32, value: u64) -> u64 {
        let last = self.values.entry((of.name, site, sub)).or_default();
        *last = value.max(*last);
        *last
    }

    /// A value that may go down; `None` while it has never been anything but zero.
    pub(crate) fn present(
        &mut self,
        of: &Instrument,
        site: u32,
        sub: u32,
        value: u64,
    ) -> Option<u64> {
        let key = (of.name, site, sub);
        if value > 0 {
            self.values.insert(key, value);
        }
        self.values.contains_key(&key).then_some(value)
    }

    /// Every code that was ever given, those of now included.
    pub(crate) fn codes(&mut self, now: impl Iterator<Item = &'static str>) -> &[&'static str] {
        for code in now {
            if !self.codes.contains(&code) {
                self.codes.push(code);
            }
        }
        &self.codes
    }

    /// A histogram of which no bucket is less than before.
    pub(crate) fn histogram(&mut self, of: &Instrument, site: u32, now: Buckets) -> Buckets {
        let last = (self.buckets.entry((of.name, site))).or_insert_with(|| now.clone());
        for (last, now) in last.counts.iter_mut().zip(&now.counts) {
            *last = (*last).max(*now);
        }
        last.sum = last.sum.max(now.sum);
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog;
    use super::*;

    #[test]
    fn a_counter_never_goes_down() {
        let mut memory = Memory::default();
        assert_eq!(memory.counter(&catalog::ENDED, 1, 0, 5), 5);
        assert_eq!(memory.counter(&catalog::ENDED, 1, 0, 4), 5);
        assert_eq!(memory.counter(&catalog::ENDED, 1, 0, 6), 6);
        assert_eq!(memory.counter(&catalog::ENDED, 2, 0, 1), 1, "another site");
    }

    #[test]
    fn a_series_that_was_there_stays() {
        let mut memory = Memory::default();
        assert_eq!(memory.present(&catalog::ORPHANS, 1, 0, 0), None);
        assert_eq!(memory.present(&catalog::ORPHANS, 1, 0, 3), Some(3));
        assert_eq!(memory.present(&catalog::ORPHANS, 1, 0, 0), Some(0));
    }

    #[test]
    fn no_bucket_goes_down() {
        let buckets = |counts: [u64; 2], sum| Buckets {
            bounds: &[10],
            counts: counts.to_vec(),
            sum,
        };
        let mut memory = Memory::default();
        memory.histogram(&catalog::LIFETIME, 1, buckets([2, 1], 50));
        // A lifetime was taken back, and another was longer.
        let shown = memory.histogram(&catalog::LIFETIME, 1, buckets([1, 2], 70));
        assert_eq!(shown, buckets([2, 2], 70));
    }
}
