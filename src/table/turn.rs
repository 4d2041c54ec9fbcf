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
//! hands it on with the ordering needed. (Its hooks tell the end of a poll after that, so
//! theirs write by turns.) Readers are any number of snapshots, which the
//! poller never waits for: a [`Sequence`] tells them what to read again.

use super::sequence::Sequence;
use crate::clock::Nanos;
use crate::sync::spin_loop;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A write takes some nanoseconds, unless its thread was taken off its processor.
const TRIES: usize = if cfg!(straggler_loom) { 2 } else { 128 };

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
        self.sequence.write(|| self.begin(now, woken))
    }

    /// Ends a turn.
    #[inline]
    pub(crate) fn exit(&self, now: Nanos) {
        self.sequence.write(|| self.end(now));
    }

    /// Begins a turn that a hook tells of: tokio tells the end of a poll when it has given the
    /// task on, so another thread may be about to end the turn before. Gives the turn's
    /// number and the turn before; `None` where the other thread is in the way.
    #[cfg(any(tokio_unstable, straggler_loom, test))]
    #[inline]
    pub(crate) fn enter_told(&self, now: Nanos) -> Option<(u64, Option<Poll>)> {
        for _ in 0..TRIES {
            // Acquire pairs with the fence of the write that ended the turn before: if that is
            // seen, and the number is at rest, then that write is over, and there is no other.
            let running = self.phase.load(Ordering::Acquire) == RUNNING;
            let begin = || (self.turns() + 1, self.begin(now, None));
            let begun = match self.sequence.at_rest() {
                Some(_) if !running => Some(self.sequence.write(begin)),
                Some(rest) => self.sequence.write_from(rest, begin),
                None => None,
            };
            if begun.is_some() {
                return begun;
            }
            spin_loop();
        }
        None
    }

    /// Ends the turn of this number, if the task has begun no other; `is_task` says whether it
    /// is still the task's. (Were the slot given to another between that and the end, at a
    /// runtime's shutdown, that one would be shown as polled once.)
    #[inline]
    pub(crate) fn exit_told(&self, now: Nanos, turn: u64, is_task: impl Fn() -> bool) {
        for _ in 0..TRIES {
            let rest = self.sequence.at_rest();
            if self.turns() != turn || self.phase() != RUNNING {
                // The next turn has begun, and has ended this one.
                return;
            }
            let end = || {
                if is_task() {
                    self.end(now);
                }
            };
            // Who writes since the turn was found open may have begun the next.
            if rest.is_some_and(|rest| self.sequence.write_from(rest, end).is_some()) {
                return;
            }
            spin_loop();
        }
    }

    fn begin(&self, now: Nanos, woken: Option<Nanos>) -> Option<Poll> {
        let phase = self.phase.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        let ready_since = match (phase, woken) {
            (FRESH, _) => Some(since),
            (_, Some(woken)) => Some(woken.max(since)),
            (_, None) => None,
        };
        let delay = ready_since.map(|at| now.saturating_sub(at));
        let before = match phase {
            FRESH => None,
            // Nobody told of its end: it is over now at the latest.
            RUNNING => Some(self.last(now.saturating_sub(since))),
            _ => Some(self.last(self.last.load(Ordering::Relaxed))),
        };
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
        before
    }

    fn end(&self, now: Nanos) {
        let entered = self.since.load(Ordering::Relaxed);
        self.last
            .store(now.saturating_sub(entered), Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.phase.store(PARKED, Ordering::Relaxed);
    }

    fn last(&self, duration: u64) -> Poll {
        Poll {
            duration,
            delay: self.last_delay.load(Ordering::Relaxed).checked_sub(1),
        }
    }

    /// The turn that just ended looked like the drop of the future.
    pub(crate) fn ending(&self) {
        self.sequence
            .write(|| self.phase.store(ENDING, Ordering::Relaxed));
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
    fn a_turn_whose_end_is_told_late_is_over_when_the_next_begins() {
        let turn = Turn::new();
        turn.reset(1);
        let (first, before) = turn.enter_told(10).expect("nobody else");
        assert_eq!(before, None);
        let (second, before) = turn.enter_told(30).expect("nobody else");
        assert_eq!(before.map(|poll| poll.duration), Some(20));
        turn.exit_told(31, first, || true);
        assert_eq!(turn.read().phase, RUNNING, "the second goes on");
        turn.exit_told(32, second, || false);
        assert_eq!(turn.read().phase, RUNNING, "another task has its place");
        turn.exit_told(35, second, || true);
        assert_eq!((turn.read().phase, turn.read().last), (PARKED, 5));
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

#[cfg(all(test, straggler_loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A poll that begins on one thread before another has told that the one before was over.
    #[test]
    fn a_poll_beside_the_end_of_the_one_before() {
        loom::model(|| {
            let turn = Arc::new(Turn::new());
            turn.reset(1);
            let (first, _) = turn.enter_told(10).expect("nobody else");
            let before = {
                let turn = Arc::clone(&turn);
                thread::spawn(move || turn.exit_told(20, first, || true))
            };
            let second = turn.enter_told(21);
            before.join().expect("no panic");
            let read = turn.read();
            if let Some((number, poll)) = second {
                let poll = poll.expect("the first was a poll");
                assert!(poll.duration == 10 || poll.duration == 11);
                assert_eq!((read.phase, read.turns, number), (RUNNING, 2, 2));
                assert_eq!(read.since, 21, "the end of the first is not the second's");
            } else {
                assert_eq!((read.phase, read.turns), (PARKED, 1));
            }
        });
    }

    /// The end of a poll that is told late, beside the next poll and its end.
    #[test]
    fn a_late_end_beside_the_next_turn() {
        loom::model(|| {
            let turn = Arc::new(Turn::new());
            turn.reset(1);
            let (first, _) = turn.enter_told(10).expect("nobody else");
            let late = {
                let turn = Arc::clone(&turn);
                thread::spawn(move || turn.exit_told(20, first, || true))
            };
            let second = turn.enter_told(21);
            if let Some((second, _)) = second {
                turn.exit_told(22, second, || true);
            }
            late.join().expect("no panic");
            let read = turn.read();
            assert_eq!(read.phase, PARKED);
            if second.is_some() {
                assert_eq!((read.turns, read.last, read.since), (2, 1, 22));
            }
        });
    }
}
