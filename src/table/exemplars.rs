//! A few lifetimes with the trace that each task was spawned in, per thread and site.

use crate::clock::Nanos;
use parking_lot::Mutex;

/// Kept for each thread and site, at 48 bytes each; the oldest goes first.
const KEPT: usize = 4;

/// One value of a histogram, and where to read more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    pub(crate) value: u64,
    pub(crate) at: Nanos,
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
}

/// The newest of each bucket since they were last taken, for some buckets.
#[derive(Debug, Default)]
pub(super) struct Exemplars {
    kept: Mutex<Vec<(usize, Exemplar)>>,
}

impl Exemplars {
    /// Keeps it in its bucket's place. Only its thread does, and whoever takes them.
    pub(super) fn keep(&self, bucket: usize, exemplar: Exemplar) {
        let mut kept = self.kept.lock();
        if let Some(at) = kept.iter().position(|&(other, _)| other == bucket) {
            kept.remove(at);
        } else if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((bucket, exemplar));
    }

    pub(super) fn take(&self) -> Vec<(usize, Exemplar)> {
        std::mem::take(&mut self.kept.lock())
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    fn exemplar(value: u64) -> Exemplar {
        Exemplar {
            value,
            at: value,
            trace_id: [1; 16],
            span_id: [2; 8],
        }
    }

    #[test]
    fn the_newest_of_a_bucket_and_never_more_than_a_few() {
        let exemplars = Exemplars::default();
        for value in 0..100 {
            exemplars.keep(value as usize % 7, exemplar(value));
        }
        let taken = exemplars.take();
        let values: Vec<_> = taken.iter().map(|(_, exemplar)| exemplar.value).collect();
        assert_eq!(values, [96, 97, 98, 99]);
        assert!(exemplars.take().is_empty(), "taken once");
    }
}
