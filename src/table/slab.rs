//! A bounded array of slots, one for each live task, that never moves.
//!
//! Pages are made as they are needed and are small, so that no spawner waits for a
//! table to be copied; a slot stays where it is, so that a snapshot walks the pages
//! without a lock that a spawner needs.
//!
//! A slot belongs to one task at a time. Its *generation* tells them apart:
//!
//! | step | by whom | afterwards |
//! |---|---|---|
//! | [`claim`](Slab::claim) | the spawner | off the free list, seen by nobody |
//! | [`Slot::publish`] | the spawner | in snapshots, found by its key |
//! | [`Slot::retire`] | the first who knows of the end | gone from snapshots; keys are stale |
//! | [`release`](Slab::release) | the same | on the free list |
//!
//! A stale key finds a slot of another generation, and is told so.

use super::fate::Fate;
use super::record::{Record, traits};
use super::turn::Turn;
use super::wakes::Wakes;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex, OnceLock, Ordering};
use std::sync::Arc;

#[cfg(not(straggler_loom))]
const PAGE: usize = 256;
#[cfg(straggler_loom)]
const PAGE: usize = 1;
/// Slots that a free list takes from the fresh ones at once.
const BATCH: usize = 32;
#[cfg(not(straggler_loom))]
const LISTS: usize = 16;
#[cfg(straggler_loom)]
const LISTS: usize = 1;

/// Finds a task's slot for as long as the task lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) turn: Turn,
    pub(crate) wakes: Wakes,
    /// The task's id, zero while the slot is free.
    id: AtomicU64,
    /// The task's span id, zero where it has none.
    span: AtomicU64,
    generation: AtomicU32,
    site: AtomicU32,
    traits: AtomicU32,
    /// The runtime's number, from 1; zero while it is unknown.
    runtime: AtomicU32,
    /// Never held while anything else is locked, and only for a handful of
    /// instructions: to be filled, read or emptied.
    record: Mutex<Option<Record>>,
}

impl Slot {
    fn new() -> Self {
        Self {
            turn: Turn::new(),
            wakes: Wakes::new(),
            id: AtomicU64::new(0),
            span: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            site: AtomicU32::new(0),
            traits: AtomicU32::new(0),
            runtime: AtomicU32::new(0),
            record: Mutex::new(None),
        }
    }

    /// Fills a claimed slot and lets it be found.
    pub(crate) fn publish(&self, id: u64, span: u64, site: u32, traits: u32, record: Record) {
        self.turn.reset(record.spawned_at());
        self.wakes.reset(self.generation.load(Ordering::Relaxed));
        self.site.store(site, Ordering::Relaxed);
        self.traits.store(traits, Ordering::Relaxed);
        self.runtime.store(0, Ordering::Relaxed);
        *self.record.lock() = Some(record);
        // Release pairs with the acquire in `span` and `id`: who sees the task sees it whole.
        self.span.store(span, Ordering::Release);
        self.id.store(id, Ordering::Release);
    }

    /// Empties the slot, once: of all who know of a task's end, one gets the record.
    /// With it come the traits it had then.
    pub(crate) fn retire(&self, generation: u32) -> Option<(Record, u32)> {
        let mut record = self.record.lock();
        if self.generation.load(Ordering::Relaxed) != generation {
            return None;
        }
        let taken = record.take()?;
        let traits = self.traits();
        self.id.store(0, Ordering::Release);
        self.span.store(0, Ordering::Relaxed);
        self.generation
            .store(generation.wrapping_add(1), Ordering::Release);
        Some((taken, traits))
    }

    /// Looks into the record of one generation.
    pub(crate) fn with_record<R>(
        &self,
        generation: u32,
        look: impl FnOnce(&mut Record) -> R,
    ) -> Option<R> {
        let mut record = self.record.lock();
        if self.generation.load(Ordering::Relaxed) != generation {
            return None;
        }
        record.as_mut().map(look)
    }

    /// The key of the task that is in here and `is` the one, if it is: before and after.
    #[inline]
    pub(crate) fn key(&self, index: u32, is: impl Fn(&Self) -> bool) -> Option<(Key, &Self)> {
        let generation = self.generation();
        let key = Key { index, generation };
        (is(self) && self.generation() == generation).then_some((key, self))
    }

    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn span(&self) -> u64 {
        self.span.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn site(&self) -> u32 {
        self.site.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn traits(&self) -> u32 {
        self.traits.load(Ordering::Relaxed)
    }

    pub(crate) fn add_traits(&self, traits: u32) {
        self.traits.fetch_or(traits, Ordering::Relaxed);
    }

    pub(crate) fn take_traits(&self, traits: u32) {
        self.traits.fetch_and(!traits, Ordering::Relaxed);
    }

    pub(crate) fn set_trait(&self, one: u32, is: bool) {
        if (self.traits() & one != 0) != is {
            self.traits.fetch_xor(one, Ordering::Relaxed);
        }
    }

    /// The fate that descendants of this slot's task share.
    pub(crate) fn fate(&self, record: &mut Record) -> Arc<Fate> {
        if record.fate.is_none() {
            self.add_traits(traits::HAS_FATE);
        }
        record.fate(self.id())
    }

    #[inline]
    pub(crate) fn runtime(&self) -> u32 {
        self.runtime.load(Ordering::Relaxed)
    }

    pub(crate) fn set_runtime(&self, runtime: u32) {
        self.runtime.store(runtime, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Slab {
    pages: Box<[OnceLock<Box<[Slot]>>]>,
    capacity: usize,
    /// Slots below this were handed to a free list once.
    fresh: AtomicUsize,
    free: Box<[Mutex<Vec<u32>>]>,
}

impl Slab {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            pages: (0..capacity.div_ceil(PAGE))
                .map(|_| OnceLock::new())
                .collect(),
            capacity,
            fresh: AtomicUsize::new(0),
            free: (0..LISTS).map(|_| Mutex::new(Vec::new())).collect(),
        }
    }

    /// Takes a free slot, or `None` at the limit. Threads with different `hint`s
    /// rarely meet.
    pub(crate) fn claim(&self, hint: usize) -> Option<(Key, &Slot)> {
        let own = hint % LISTS;
        let index = (self.pop(own))
            .or_else(|| self.take_batch(own))
            .or_else(|| (0..LISTS).find_map(|list| self.pop(list)))?;
        let slot = self.slot(index);
        let generation = slot.generation();
        Some((Key { index, generation }, slot))
    }

    fn pop(&self, list: usize) -> Option<u32> {
        self.free[list].lock().pop()
    }

    /// Fills a list: from another that has many, as where one thread spawns and others end; else
    /// with fresh slots. Gives one of them.
    fn take_batch(&self, own: usize) -> Option<u32> {
        let mut batch = (0..LISTS)
            .filter(|&list| list != own)
            .find_map(|list| {
                let mut free = self.free[list].lock();
                let rest = free.len().checked_sub(BATCH)?;
                Some(free.split_off(rest))
            })
            .or_else(|| self.fresh_batch())?;
        let index = batch.pop();
        self.free[own].lock().extend(batch);
        index
    }

    fn fresh_batch(&self) -> Option<Vec<u32>> {
        let more = |fresh: usize| (fresh < self.capacity).then(|| fresh.saturating_add(BATCH));
        let start = (self.fresh)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        let end = start.saturating_add(BATCH).min(self.capacity);
        // Config::check keeps the capacity below u32::MAX.
        Some((start..end).rev().map(|index| index as u32).collect())
    }

    /// Gives a retired slot back.
    pub(crate) fn release(&self, hint: usize, index: u32) {
        self.free[hint % LISTS].lock().push(index);
    }

    #[inline]
    pub(crate) fn slot(&self, index: u32) -> &Slot {
        let page = self.pages[index as usize / PAGE]
            .get_or_init(|| (0..PAGE).map(|_| Slot::new()).collect());
        &page[index as usize % PAGE]
    }

    /// About how many slots are in use.
    pub(crate) fn claimed(&self) -> usize {
        let free: usize = self.free.iter().map(|list| list.lock().len()).sum();
        self.used().saturating_sub(free)
    }

    /// About how many slots were ever in use: those that a walk over them meets.
    pub(crate) fn used(&self) -> usize {
        self.fresh.load(Ordering::Relaxed).min(self.capacity)
    }

    /// Every slot that was ever used.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.pages.iter().enumerate().flat_map(|(number, page)| {
            let slots = page.get().map_or(&[][..], |page| page);
            let first = number * PAGE;
            slots
                .iter()
                .enumerate()
                .map(move |(at, slot)| ((first + at) as u32, slot))
        })
    }
}

/// What a snapshot copies out of a slot.
pub(crate) fn copy<R>(slot: &Slot, look: impl FnOnce(u64, u32, &Record) -> R) -> Option<R> {
    if slot.id() == 0 {
        return None;
    }
    let record = slot.record.lock();
    let record = record.as_ref()?;
    let id = slot.id();
    (id != 0).then(|| look(id, slot.generation(), record))
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_and_slots_come_back() {
        let slab = Slab::new(300);
        let keys: Vec<_> = (0..300)
            .map(|hint| slab.claim(hint).expect("below the limit").0)
            .collect();
        assert!(slab.claim(0).is_none());
        let mut seen: Vec<_> = keys.iter().map(|key| key.index).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 300, "no slot is claimed twice");
        slab.release(0, keys[7].index);
        assert_eq!(slab.claim(99).expect("one is free").0.index, keys[7].index);
        assert!(slab.claim(0).is_none());
    }

    #[test]
    fn a_thread_that_only_spawns_takes_what_others_give_back() {
        let slab = Slab::new(100_000);
        for _ in 0..10_000 {
            let (key, _) = slab.claim(0).expect("nearly all are free");
            slab.release(1, key.index);
        }
        assert!(slab.used() <= 3 * BATCH, "{}", slab.used());
    }

    /// What a live task costs, but for its places in the index.
    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 184, "{}", size_of::<Slot>());
    }

    #[test]
    fn only_one_gets_the_record() {
        let slab = Slab::new(1);
        let (key, slot) = slab.claim(0).expect("the slab is empty");
        slot.publish(5, 0, 0, 0, Record::new(1));
        assert!(slot.retire(key.generation).is_some());
        assert!(slot.retire(key.generation).is_none());
        slab.release(0, key.index);
        let (next, slot) = slab.claim(0).expect("it was released");
        slot.publish(6, 0, 0, 0, Record::new(1));
        assert!(slot.retire(key.generation).is_none(), "a stale key");
        assert_eq!(copy(slot, |id, _, _| id), Some(6));
        assert_ne!(next, key);
    }
}

#[cfg(all(test, straggler_loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two who both learn of the end: one gets the record, whatever happens.
    #[test]
    fn two_ends_at_once() {
        loom::model(|| {
            let slab = Arc::new(Slab::new(1));
            let (key, slot) = slab.claim(0).expect("empty");
            slot.publish(5, 0, 0, 0, Record::new(1));
            let other = {
                let slab = Arc::clone(&slab);
                thread::spawn(move || slab.slot(key.index).retire(key.generation).is_some())
            };
            let mine = slab.slot(key.index).retire(key.generation).is_some();
            let theirs = other.join().expect("no panic");
            assert!(mine ^ theirs);
        });
    }

    /// A snapshot beside an end and a new task in the same slot sees one of the two
    /// or nothing, never a mixture.
    #[test]
    fn a_snapshot_beside_reuse() {
        loom::model(|| {
            let slab = Arc::new(Slab::new(1));
            let (key, slot) = slab.claim(0).expect("empty");
            slot.publish(5, 0, 0, 0, Record::new(50));
            let reuser = {
                let slab = Arc::clone(&slab);
                thread::spawn(move || {
                    slab.slot(key.index).retire(key.generation).expect("first");
                    slab.release(0, key.index);
                    let (_, slot) = slab.claim(0).expect("released");
                    slot.publish(6, 0, 0, 0, Record::new(60));
                })
            };
            let seen = copy(slab.slot(key.index), |id, _, record| {
                (id, record.spawned_at())
            });
            assert!(matches!(seen, None | Some((5, 50)) | Some((6, 60))));
            reuser.join().expect("no panic");
        });
    }
}
