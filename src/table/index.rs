//! From the number of a task or of its span to its slot, without a lock.
//!
//! An array in which each number has one place. A task's slot stands there while the task
//! lives; should another live number have the same place, it stands in a map. Whether the
//! slot in a place is that of the number asked for, the slot itself says: an entry is
//! checked, never believed.

use crate::sync::{AtomicU32, AtomicUsize, OnceLock, Ordering};
use dashmap::DashMap;
use foldhash::fast::FixedState;

#[cfg(not(straggler_loom))]
const PAGE: usize = 4_096;
#[cfg(straggler_loom)]
const PAGE: usize = 1;

/// Small shards: one that grows is copied in microseconds, and rarely met by two.
#[cfg(not(straggler_loom))]
const SHARDS: usize = 1_024;
#[cfg(straggler_loom)]
const SHARDS: usize = 2;

/// How numbers are laid out over the places. A poor layout costs time, and is right all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    /// The `Registry`'s: the low 38 bits count its slots, from the lowest up, the 13 bits
    /// above say which thread made the span. What is above those changes with each use of a slot.
    Spans,
    /// One after another, over all threads.
    Sequence,
}

#[derive(Debug)]
pub(crate) struct Index {
    numbers: Numbers,
    /// A slot's index plus one, or zero.
    places: Box<[OnceLock<Box<[AtomicU32]>>]>,
    /// One less than the number of places, which is a power of two.
    mask: u64,
    elsewhere: DashMap<u64, u32, FixedState>,
    /// How many numbers stand in the map, counted before they are put there.
    crowded: AtomicUsize,
}

impl Index {
    /// For so many live numbers.
    pub(crate) fn new(numbers: Numbers, capacity: usize) -> Self {
        let places = capacity.next_power_of_two().max(PAGE);
        Self {
            numbers,
            places: (0..places / PAGE).map(|_| OnceLock::new()).collect(),
            mask: places as u64 - 1,
            elsewhere: DashMap::with_hasher_and_shard_amount(FixedState::default(), SHARDS),
            crowded: AtomicUsize::new(0),
        }
    }

    #[inline]
    fn place(&self, number: u64) -> usize {
        let at = match self.numbers {
            Numbers::Spans => {
                let thread = number >> 38 & 0x1FFF;
                number.wrapping_add(thread.wrapping_mul(0x9_E377_9B97))
            }
            // Neighbours come from threads that run at once, so they don't share a cache line;
            // and some thousand in a row do with a page.
            Numbers::Sequence => (number & !0xFFF) | (number & 0xFF) << 4 | (number >> 8 & 0xF),
        };
        (at & self.mask) as usize
    }

    /// Makes the place of a number, so that a look-up is a look into it whatever is there.
    pub(crate) fn prepare(&self, number: u64) -> &AtomicU32 {
        let at = self.place(number);
        let page =
            self.places[at / PAGE].get_or_init(|| (0..PAGE).map(|_| AtomicU32::new(0)).collect());
        &page[at % PAGE]
    }

    /// Notes the slot of a number, which must be told by the slot already. Gives the slot that has
    /// its place, if there is one.
    pub(crate) fn insert(&self, number: u64, slot: u32) -> Option<u32> {
        let place = self.prepare(number);
        // Sequentially consistent here and below, as an end that comes before its task is
        // told by the order of this and another cell: see `Table::ended_early`. (loom takes
        // such accesses for weaker ones, so there is no model of that.)
        let taken = place.compare_exchange(0, slot + 1, Ordering::SeqCst, Ordering::Relaxed);
        let other = taken.err()?;
        self.crowded.fetch_add(1, Ordering::SeqCst);
        self.elsewhere.insert(number, slot);
        Some(other - 1)
    }

    /// Forgets a number that was noted.
    pub(crate) fn remove(&self, number: u64, slot: u32) {
        let Some(cell) = self.cell(number) else {
            return;
        };
        // Only the number that put this slot here takes it away.
        let standing = cell.compare_exchange(slot + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
        if standing.is_err()
            && self
                .elsewhere
                .remove_if(&number, |_, &at| at == slot)
                .is_some()
        {
            self.crowded.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Finds the slot of a number: `check` says of a slot whether it is the one.
    #[inline]
    pub(crate) fn find<R>(&self, number: u64, check: impl Fn(u32) -> Option<R>) -> Option<R> {
        let here = self.cell(number)?.load(Ordering::SeqCst);
        if here != 0
            && let Some(found) = check(here - 1)
        {
            return Some(found);
        }
        if self.crowded.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let slot = self.elsewhere.get(&number).map(|slot| *slot)?;
        check(slot)
    }

    #[inline]
    fn cell(&self, number: u64) -> Option<&AtomicU32> {
        let at = self.place(number);
        Some(&self.places[at / PAGE].get()?[at % PAGE])
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn find(index: &Index, slots: &HashMap<u32, u64>, number: u64) -> Option<u32> {
        index.find(number, |slot| {
            (slots.get(&slot) == Some(&number)).then_some(slot)
        })
    }

    #[test]
    fn numbers_with_one_place_are_told_apart() {
        for numbers in [Numbers::Spans, Numbers::Sequence] {
            let index = Index::new(numbers, 4);
            let same = PAGE as u64;
            let slots: HashMap<u32, u64> = (0..4).map(|n| (n, 7 + u64::from(n) * same)).collect();
            for (&slot, &number) in &slots {
                index.insert(number, slot);
            }
            for (&slot, &number) in &slots {
                assert_eq!(find(&index, &slots, number), Some(slot), "{numbers:?}");
            }
            assert_eq!(find(&index, &slots, 7 + 4 * same), None, "never noted");
            for (&slot, &number) in &slots {
                index.remove(number, slot);
                assert_eq!(find(&index, &HashMap::new(), number), None);
            }
            assert_eq!(index.crowded.into_inner(), 0);
            assert!(index.elsewhere.is_empty());
        }
    }

    #[test]
    fn each_number_of_a_run_has_a_place_of_its_own() {
        let index = Index::new(Numbers::Sequence, 4_096);
        let places: std::collections::HashSet<_> = (10_000..10_000 + 4_096)
            .map(|number| index.place(number))
            .collect();
        assert_eq!(places.len(), 4_096);
    }
}

#[cfg(all(test, straggler_loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two numbers race for one place: each is found by its own, and none stays behind.
    #[test]
    fn two_for_one_place() {
        loom::model(|| {
            let index = Arc::new(Index::new(Numbers::Spans, 1));
            // Its page is made by one of std's locks, of which loom knows nothing.
            index.insert(3, 13);
            index.remove(3, 13);
            let other = {
                let index = Arc::clone(&index);
                thread::spawn(move || {
                    index.insert(2, 12);
                    let found = index.find(2, |slot| (slot == 12).then_some(slot));
                    assert_eq!(found, Some(12));
                    index.remove(2, 12);
                })
            };
            index.insert(1, 11);
            assert_eq!(index.find(1, |slot| (slot == 11).then_some(slot)), Some(11));
            other.join().expect("no panic");
            assert_eq!(index.find(1, |slot| (slot == 11).then_some(slot)), Some(11));
            index.remove(1, 11);
            assert_eq!(index.find(1, Some), None);
            assert_eq!(index.find(2, Some), None);
        });
    }
}
