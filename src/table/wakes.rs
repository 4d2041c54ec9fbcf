//! Who holds a waker of a task, and whether it was woken.
//!
//! Written by whoever wakes, from any thread, and so by read-modify-write. A waker
//! event names a span, which leads to a slot; between the look-up and the change the
//! slot may have been given to another task. So the *generation* of the slot is part
//! of the word that is changed, and a change for an older generation does nothing:
//! a late wake never wakes a stranger, and the balance of wakers stays true.
//!
//! ```text
//! 63          44 43                   24   23    22                    0
//! [ generation ][ wakes since the poll ][woken][ wakers somebody holds ]
//! ```
//!
//! The lower bits of a generation are enough: a change would have to be late by a million tasks.

use crate::clock::Nanos;
use crate::sync::{AtomicU64, Ordering};

const WOKEN: u64 = 1 << 23;
const WAKERS: u64 = WOKEN - 1;
const WAKE: u64 = 1 << 24;
const GENERATION: u32 = 44;
const WAKES: u64 = (1 << GENERATION) - WAKE;

/// The word of a generation in which nothing has happened.
fn fresh(generation: u32) -> u64 {
    u64::from(generation) << GENERATION
}

#[derive(Debug)]
pub(crate) struct Wakes {
    word: AtomicU64,
    woken_at: AtomicU64,
    /// By others than the task's own poll, up to its newest poll; the word has those since.
    others: AtomicU64,
    /// Within the task's own poll: written by the thread that polls it alone.
    own: AtomicU64,
}

/// Stands for a wake in the task's own poll, which waits from the end of that poll on.
const IN_POLL: Nanos = 1;

/// What a waker event says, in tokio's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakerOp {
    Clone,
    Drop,
    /// By value: uses the waker up.
    Wake,
    WakeByRef,
}

impl WakerOp {
    #[inline]
    pub(crate) fn wakes(self) -> bool {
        matches!(self, Self::Wake | Self::WakeByRef)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakeReading {
    pub(crate) woken: bool,
    pub(crate) wakers: u64,
    pub(crate) wakes: u64,
    pub(crate) self_wakes: u64,
}

impl Wakes {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            woken_at: AtomicU64::new(0),
            others: AtomicU64::new(0),
            own: AtomicU64::new(0),
        }
    }

    /// Makes it that of the slot's next task.
    pub(crate) fn reset(&self, generation: u32) {
        for cell in [&self.woken_at, &self.others, &self.own] {
            cell.store(0, Ordering::Relaxed);
        }
        // Release: who changes the word of this generation finds the counts at zero. A
        // swap, so that a late change of the older generation comes either before it in
        // the word's history, and is overwritten, or sees it, and is refused.
        self.word.swap(fresh(generation), Ordering::AcqRel);
    }

    /// Takes in one waker event; `own` says that the task is being polled where it came from.
    /// Gives false where the slot has moved on to another generation, or the balance would fall
    /// below zero. `now` is asked for a wake of another that finds none pending.
    #[inline]
    pub(crate) fn apply(
        &self,
        generation: u32,
        op: WakerOp,
        own: bool,
        now: impl FnOnce() -> Nanos,
    ) -> bool {
        // A wake beyond what the word can count is a wake all the same.
        let counts = |word: u64| !own && word & WAKES < WAKES;
        let woken = |word: u64| Some((word + WAKE * u64::from(counts(word))) | WOKEN);
        let change = |word: u64| {
            if (word ^ fresh(generation)) >> GENERATION != 0 {
                return None;
            }
            match op {
                WakerOp::Clone => (word & WAKERS < WAKERS).then(|| word + 1),
                WakerOp::Drop => (word & WAKERS > 0).then(|| word - 1),
                // A wake is a wake, whatever the balance says.
                WakerOp::Wake => woken(word - u64::from(word & WAKERS > 0)),
                WakerOp::WakeByRef => woken(word),
            }
        };
        // Acquire pairs with the reset of this generation.
        let changed = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        let Ok(before) = changed else { return false };
        let balanced = op != WakerOp::Wake || before & WAKERS > 0;
        if op.wakes() {
            if before & WOKEN == 0 {
                let at = if own { IN_POLL } else { now() };
                self.woken_at.store(at, Ordering::Relaxed);
            }
            if own {
                add(&self.own, 1);
            }
            return balanced && (own || counts(before));
        }
        balanced
    }

    /// Takes the wake, if there is one, for the poll that begins now. Gives when it
    /// was seen; a waker that has flagged it but not yet noted the time counts as now.
    #[inline]
    pub(crate) fn take(&self, now: Nanos) -> Option<Nanos> {
        if self.word.load(Ordering::Relaxed) & WOKEN == 0 {
            return None;
        }
        let before = self.word.fetch_and(!(WOKEN | WAKES), Ordering::AcqRel);
        add(&self.others, (before & WAKES) / WAKE);
        // Not in one step: the time of a wake that comes between the two is lost, and it
        // counts as seen when its poll begins.
        let at = self.woken_at.load(Ordering::Relaxed);
        if at == 0 {
            return Some(now);
        }
        self.woken_at.store(0, Ordering::Relaxed);
        Some(at)
    }

    pub(crate) fn read(&self) -> WakeReading {
        // Before the word, which is cleared first: what a poll is just taking may be missing for
        // a moment, and is never there twice.
        let others = self.others.load(Ordering::Acquire);
        let word = self.word.load(Ordering::Acquire);
        let own = self.own.load(Ordering::Relaxed);
        WakeReading {
            woken: word & WOKEN != 0,
            wakers: word & WAKERS,
            wakes: own.wrapping_add(others).wrapping_add((word & WAKES) / WAKE),
            self_wakes: own,
        }
    }

    /// When the pending wake was seen; before the end of the poll it came in, at the latest.
    pub(crate) fn woken_at(&self) -> Option<Nanos> {
        match self.woken_at.load(Ordering::Relaxed) {
            0 => None,
            at => Some(at),
        }
    }
}

/// Adds to a count that only the thread which polls the task writes.
#[inline]
fn add(count: &AtomicU64, by: u64) {
    let sum = count.load(Ordering::Relaxed).wrapping_add(by);
    // Release pairs with the reader's acquire.
    count.store(sum, Ordering::Release);
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_wake_by_value_uses_its_waker_up() {
        let wakes = Wakes::new();
        wakes.reset(7);
        assert!(wakes.apply(7, WakerOp::Clone, true, || 1));
        assert!(wakes.apply(7, WakerOp::Clone, true, || 1));
        assert!(wakes.apply(7, WakerOp::Wake, false, || 5));
        assert!(wakes.apply(7, WakerOp::WakeByRef, true, || 6));
        let read = wakes.read();
        assert_eq!((read.wakers, read.wakes, read.self_wakes), (1, 2, 1));
        assert_eq!(wakes.take(9), Some(5), "the first wake counts");
        wakes.apply(7, WakerOp::WakeByRef, true, || 8);
        assert_eq!(wakes.take(9), Some(IN_POLL));
        assert_eq!(wakes.take(9), None);
    }

    #[test]
    fn a_late_wake_does_not_fall_on_the_next_task() {
        let wakes = Wakes::new();
        wakes.reset(1);
        wakes.apply(1, WakerOp::Clone, false, || 1);
        wakes.reset(2);
        assert!(!wakes.apply(1, WakerOp::Wake, false, || 3));
        assert_eq!(wakes.read().wakes, 0);
        assert_eq!(wakes.take(4), None);
    }

    #[test]
    fn wakes_are_counted_before_and_after_the_poll_that_takes_them() {
        let wakes = Wakes::new();
        // Only some of its bits are in the word.
        wakes.reset(u32::MAX);
        for at in 1..4 {
            assert!(wakes.apply(u32::MAX, WakerOp::WakeByRef, false, || at));
        }
        assert_eq!(wakes.read().wakes, 3);
        assert_eq!(wakes.take(9), Some(1));
        assert_eq!((wakes.read().wakes, wakes.read().woken), (3, false));
        assert!(wakes.apply(u32::MAX, WakerOp::WakeByRef, true, || 5));
        assert_eq!((wakes.read().wakes, wakes.read().self_wakes), (4, 1));
    }

    #[test]
    fn the_balance_never_goes_below_zero() {
        let wakes = Wakes::new();
        wakes.reset(1);
        assert!(!wakes.apply(1, WakerOp::Drop, false, || 1));
        assert!(!wakes.apply(1, WakerOp::Wake, false, || 2));
        let read = wakes.read();
        assert_eq!((read.wakers, read.wakes, read.woken), (0, 1, true));
    }
}

#[cfg(all(test, straggler_loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A wake beside the poll is neither lost nor taken twice.
    #[test]
    fn a_wake_is_taken_once() {
        loom::model(|| {
            let wakes = Arc::new(Wakes::new());
            wakes.reset(1);
            // The poller is the thread: beside a loop that tries again, loom sees no
            // interleaving of the load of whoever runs first.
            let poller = {
                let wakes = Arc::clone(&wakes);
                thread::spawn(move || wakes.take(9).is_some())
            };
            assert!(wakes.apply(1, WakerOp::WakeByRef, false, || 5));
            let first = poller.join().expect("the poller doesn't panic");
            let second = wakes.take(9).is_some();
            assert!(first ^ second);
            assert_eq!(wakes.read().wakes, 1);
        });
    }

    /// A wake for a task that has ended never touches the next task in its slot.
    #[test]
    fn reuse_beside_a_late_wake() {
        loom::model(|| {
            let wakes = Arc::new(Wakes::new());
            wakes.reset(1);
            wakes.apply(1, WakerOp::Clone, false, || 1);
            let late = {
                let wakes = Arc::clone(&wakes);
                thread::spawn(move || wakes.apply(1, WakerOp::Wake, false, || 5))
            };
            wakes.reset(2);
            late.join().expect("the late waker doesn't panic");
            let read = wakes.read();
            assert!(!read.woken);
            assert_eq!(read.wakers, 0);
        });
    }

    /// A reader beside the poll that takes a wake counts it once, or not yet.
    #[test]
    fn a_wake_is_never_read_twice() {
        loom::model(|| {
            let wakes = Arc::new(Wakes::new());
            wakes.reset(1);
            wakes.apply(1, WakerOp::WakeByRef, false, || 5);
            let poller = {
                let wakes = Arc::clone(&wakes);
                thread::spawn(move || wakes.take(9).is_some())
            };
            assert!(wakes.read().wakes <= 1);
            assert!(poller.join().expect("the poller doesn't panic"));
            assert_eq!(wakes.read().wakes, 1);
        });
    }
}
