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

/// The newest of each bucket since they were last taken, for some buckets. Of a fixed size:
/// a task's end allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Exemplars {
    kept: Mutex<Kept>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    places: [Option<(usize, Exemplar)>; KEPT],
    /// Where the oldest is.
    next: usize,
}

impl Exemplars {
    /// Keeps it in its bucket's place. Only its thread does, and whoever takes them.
    pub(super) fn keep(&self, bucket: usize, exemplar: Exemplar) {
        let mut kept = self.kept.lock();
        let same = |place: &Option<(usize, Exemplar)>| place.is_some_and(|(of, _)| of == bucket);
        let at = match kept.places.iter().position(same) {
            Some(at) => at,
            None => {
                let at = kept.next;
                kept.next = (at + 1) % KEPT;
                at
            }
        };
        kept.places[at] = Some((bucket, exemplar));
    }

    pub(super) fn take(&self) -> impl Iterator<Item = (usize, Exemplar)> + use<> {
        let kept = std::mem::take(&mut *self.kept.lock());
        kept.places.into_iter().flatten()
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
        let mut values: Vec<_> = exemplars.take().map(|(_, it)| it.value).collect();
        values.sort_unstable();
        assert_eq!(values, [96, 97, 98, 99]);
        exemplars.keep(3, exemplar(1));
        exemplars.keep(3, exemplar(2));
        assert_eq!(exemplars.take().count(), 1, "one a bucket");
        assert_eq!(exemplars.take().count(), 0, "taken once");
    }
}
