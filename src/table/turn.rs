//! The accounting of one task's polls.
//!
//! A *turn* is the time between entering and leaving a task: a poll, or the drop of
//! its future. Which of the two it was is known only afterwards: a turn after which
//! the task is entered again was a poll, the last one was the drop. So the newest
//! turn is kept *pending*, and handed out for the histograms when it is certain.
//!
//! | phase | who enters it | meaning |
//! |---|---|---|
//! | `FRESH` | [`reset`](Turn::reset), by the spawner | never entered |
//! | `RUNNING` | [`enter`](Turn::enter), by the poller | in a turn |
//! | `PARKED` | [`exit`](Turn::exit), by the poller | between turns; `last` is pending |
//! | `ENDING` | [`ending`](Turn::ending), by the poller | the last turn looked like the drop |
//!
//! Fields are written by one thread at a time: tokio lets one thread poll a task, and
//! hands it on with the ordering needed. Readers are any number of snapshots, which the
//! poller never waits for: a [`Sequence`] tells them what to read again.

use super::sequence::Sequence;
use crate::clock::Nanos;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

pub(crate) const FRESH: u32 = 0;
pub(crate) const RUNNING: u32 = 1;
pub(crate) const PARKED: u32 = 2;
pub(crate) const ENDING: u32 = 3;

#[derive(Debug)]
pub(crate) struct Turn {
    sequence: Sequence,
    phase: AtomicU32,
    /// Turns entered, the pending one included.
    turns: AtomicU64,
    /// Of all turns before the pending one.
    busy: AtomicU64,
    scheduled: AtomicU64,
    longest: AtomicU64,
    /// When the phase last changed between running and not.
    since: AtomicU64,
    /// The pending turn's duration and the scheduling delay before it, plus one: zero
    /// where there was none to know.
    last: AtomicU64,
    last_delay: AtomicU64,
}

/// A turn that turned out to be a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poll {
    pub(crate) duration: u64,
    pub(crate) delay: Option<u64>,
}

/// All fields, as they were at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) phase: u32,
    pub(crate) turns: u64,
    pub(crate) busy: u64,
    pub(crate) scheduled: u64,
    pub(crate) longest: u64,
    pub(crate) since: Nanos,
    pub(crate) last: u64,
    last_delay: u64,
}

impl Reading {
    /// The newest finished turn, not yet in any histogram.
    pub(crate) fn pending(&self) -> Option<Poll> {
        (self.phase == PARKED || self.phase == ENDING).then_some(Poll {
            duration: self.last,
            delay: self.last_delay.checked_sub(1),
        })
    }

    /// When the newest turn ended.
    pub(crate) fn ended(&self) -> Option<Nanos> {
        (self.phase == PARKED || self.phase == ENDING).then_some(self.since)
    }

    /// Polls, and the nanoseconds in them, of a task that ended at `at`; `polled` says
    /// that its newest turn was a poll and not the drop.
    #[cfg(feature = "otlp")]
    pub(crate) fn up_to(&self, at: Nanos, polled: bool) -> (u64, u64) {
        if !polled {
            return (self.turns.saturating_sub(1), self.busy);
        }
        let newest = match self.phase {
            RUNNING => at.saturating_sub(self.since),
            _ => self.last,
        };
        (self.turns, self.busy.saturating_add(newest))
    }

    /// The scheduling delay before the turn under way.
    pub(crate) fn running_delay(&self) -> Option<u64> {
        (self.phase == RUNNING)
            .then(|| self.last_delay.checked_sub(1))
            .flatten()
    }
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self {
            sequence: Sequence::new(),
            phase: AtomicU32::new(FRESH),
            turns: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            scheduled: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            since: AtomicU64::new(0),
            last: AtomicU64::new(0),
            last_delay: AtomicU64::new(0),
        }
    }

    /// Makes it that of a task spawned now.
    pub(crate) fn reset(&self, now: Nanos) {
        self.sequence.write(|| {
            for cell in [
                &self.turns,
                &self.busy,
                &self.scheduled,
                &self.longest,
                &self.last,
                &self.last_delay,
            ] {
                cell.store(0, Ordering::Relaxed);
            }
            self.phase.store(FRESH, Ordering::Relaxed);
            self.since.store(now, Ordering::Relaxed);
        });
    }

    /// The writer's own view; only the writer may ask.
    #[inline]
    pub(crate) fn phase(&self) -> u32 {
        self.phase.load(Ordering::Relaxed)
    }

    /// The writer's own view; only the writer may ask.
    #[inline]
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Begins a turn. `woken` is when the wake that led here was seen. Gives the
    /// turn before, which is now known to have been a poll.
    #[inline]
    pub(crate) fn enter(&self, now: Nanos, woken: Option<Nanos>) -> Option<Poll> {
        let phase = self.phase.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        let ready_since = match (phase, woken) {
            (FRESH, _) => Some(since),
            (_, Some(woken)) => Some(woken.max(since)),
            (_, None) => None,
        };
        let delay = ready_since.map(|at| now.saturating_sub(at));
        let before = self.pending(phase);
        self.sequence.write(|| {
            if let Some(poll) = before {
                self.commit(poll.duration);
            }
            bump(&self.turns, 1);
            bump(&self.scheduled, delay.unwrap_or(0));
            self.last.store(0, Ordering::Relaxed);
            self.last_delay
                .store(delay.map_or(0, |d| d.saturating_add(1)), Ordering::Relaxed);
            self.since.store(now, Ordering::Relaxed);
            self.phase.store(RUNNING, Ordering::Relaxed);
        });
        before
    }

    /// Ends a turn.
    #[inline]
    pub(crate) fn exit(&self, now: Nanos) {
        let entered = self.since.load(Ordering::Relaxed);
        self.sequence.write(|| {
            self.last
                .store(now.saturating_sub(entered), Ordering::Relaxed);
            self.since.store(now, Ordering::Relaxed);
            self.phase.store(PARKED, Ordering::Relaxed);
        });
    }

    /// The turn that just ended looked like the drop of the future.
    pub(crate) fn ending(&self) {
        self.sequence
            .write(|| self.phase.store(ENDING, Ordering::Relaxed));
    }

    /// The pending turn, where it was a poll for sure.
    pub(crate) fn pending(&self, phase: u32) -> Option<Poll> {
        (phase == PARKED || phase == ENDING).then(|| Poll {
            duration: self.last.load(Ordering::Relaxed),
            delay: self.last_delay.load(Ordering::Relaxed).checked_sub(1),
        })
    }

    fn commit(&self, duration: u64) {
        bump(&self.busy, duration);
        if duration > self.longest.load(Ordering::Relaxed) {
            self.longest.store(duration, Ordering::Relaxed);
        }
    }

    /// Reads all fields as they were at one moment.
    pub(crate) fn read(&self) -> Reading {
        self.sequence.read(|| Reading {
            phase: self.phase.load(Ordering::Relaxed),
            turns: self.turns.load(Ordering::Relaxed),
            busy: self.busy.load(Ordering::Relaxed),
            scheduled: self.scheduled.load(Ordering::Relaxed),
            longest: self.longest.load(Ordering::Relaxed),
            since: self.since.load(Ordering::Relaxed),
            last: self.last.load(Ordering::Relaxed),
            last_delay: self.last_delay.load(Ordering::Relaxed),
        })
    }
}

#[inline]
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_turn_before_is_a_poll_once_the_next_begins() {
        let turn = Turn::new();
        turn.reset(10);
        assert_eq!(turn.enter(15, None), None);
        turn.exit(18);
        assert_eq!(turn.read().busy, 0, "pending");
        let poll = turn.enter(30, Some(25));
        assert_eq!(
            poll,
            Some(Poll {
                duration: 3,
                delay: Some(5)
            })
        );
        assert_eq!(turn.read().busy, 3);
        assert_eq!(turn.read().scheduled, 10);
    }

    #[test]
    fn a_wake_during_the_poll_counts_from_its_end() {
        let turn = Turn::new();
        turn.reset(1);
        turn.enter(1, None);
        turn.exit(100);
        turn.enter(103, Some(50));
        assert_eq!(turn.read().scheduled, 3);
    }

    #[test]
    fn a_turn_without_a_wake_has_no_delay() {
        let turn = Turn::new();
        turn.reset(1);
        turn.enter(1, None);
        turn.exit(2);
        turn.enter(9, None);
        turn.exit(10);
        let pending = turn.read().pending().expect("a finished turn");
        assert_eq!(pending.delay, None);
    }
}
