//! Tasks that may have been orphans, on their way from their end to whoever tells of it.
//!
//! Nothing else is kept of a task that ended. These are few: what ends in the order in which
//! it began never gets here. The queue is bounded; who finds it full is told.

use super::record::Record;
use super::slab::Key;
use super::tallies::Outcome;
use crate::clock::Nanos;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// A task that ended.
#[derive(Debug)]
pub(crate) struct Departed {
    /// Its slot, which it still has if its end was inferred.
    pub(crate) key: Key,
    pub(crate) id: u64,
    pub(crate) site: u32,
    pub(crate) traits: u32,
    pub(crate) record: Record,
    pub(crate) at: Nanos,
    pub(crate) outcome: Outcome,
    pub(crate) polls: u64,
    /// Nanoseconds in polls.
    pub(crate) busy: u64,
}

#[derive(Debug)]
pub(crate) struct Departures {
    max: usize,
    wanted: AtomicBool,
    queue: Mutex<VecDeque<Departed>>,
}

impl Departures {
    /// Keeps `max` at most; zero turns it off.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            wanted: AtomicBool::new(max > 0),
            queue: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// False where there was no room. Forgotten where nobody asks any more.
    #[cold]
    pub(super) fn add(&self, departed: Departed) -> bool {
        let mut queue = self.queue.lock();
        if !self.are_wanted() {
            return true;
        }
        let fits = queue.len() < self.max;
        if fits {
            queue.push_back(departed);
        }
        fits
    }

    /// Takes the oldest.
    pub(crate) fn take(&self) -> Option<Departed> {
        self.queue.lock().pop_front()
    }

    /// Takes the oldest. After the last of them no more come.
    pub(crate) fn take_to_the_last(&self) -> Option<Departed> {
        let mut queue = self.queue.lock();
        let oldest = queue.pop_front();
        if oldest.is_none() {
            self.wanted.store(false, Ordering::Relaxed);
        }
        oldest
    }
}
