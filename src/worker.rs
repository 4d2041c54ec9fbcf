//! How a thread of our own is asked for something, waited for and ended, within a bound.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shared by the thread and those who ask.
#[derive(Debug)]
pub(crate) struct Worker {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Rounds asked for, and those that each part of the thread's work has done.
    asked: u64,
    done: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// `None`: without a deadline.
    Stopping(Option<Instant>),
    Stopped,
}

/// What the thread should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nobody asks.
    Rest,
    /// One more round, and then tell that this one is done.
    Round(u64),
    /// A last round, and then end; by this moment if there is one.
    Stop(Option<Instant>),
}

/// Tells, also where the thread ends by a panic, that it has ended.
#[derive(Debug)]
pub(crate) struct Running(Arc<Worker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state.lock().stage = Stage::Stopped;
        self.0.changed.notify_all();
    }
}

impl Worker {
    /// For a thread whose work has so many parts, each with rounds of its own.
    pub(crate) fn new(parts: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                stage: Stage::Running,
                asked: 0,
                done: vec![0; parts],
            }),
            changed: Condvar::new(),
        })
    }

    /// For the thread: to be held for as long as it runs.
    pub(crate) fn running(self: &Arc<Self>) -> Running {
        Running(Arc::clone(self))
    }

    /// For the thread: what is asked of one part.
    pub(crate) fn order(&self, part: usize) -> Order {
        let state = self.state.lock();
        match state.stage {
            Stage::Stopping(deadline) => Order::Stop(deadline),
            Stage::Stopped => Order::Stop(None),
            Stage::Running if state.done[part] < state.asked => Order::Round(state.asked),
            Stage::Running => Order::Rest,
        }
    }

    /// For the thread: waits until something is asked of one part, `max` at most.
    pub(crate) fn rest(&self, part: usize, max: Duration) -> Order {
        let mut state = self.state.lock();
        if state.stage == Stage::Running && state.done[part] >= state.asked {
            self.changed.wait_for(&mut state, max);
        }
        drop(state);
        self.order(part)
    }

    /// For the thread: the part has done this round.
    pub(crate) fn done(&self, part: usize, round: u64) {
        let mut state = self.state.lock();
        state.done[part] = state.done[part].max(round);
        drop(state);
        self.changed.notify_all();
    }

    /// Asks for one more round of every part, and gives its number.
    #[cfg(any(feature = "otlp", test))]
    pub(crate) fn ask_round(&self) -> u64 {
        let mut state = self.state.lock();
        state.asked += 1;
        let round = state.asked;
        drop(state);
        self.changed.notify_all();
        round
    }

    /// Waits for a round of every part. False where it was not done in time, or the thread
    /// ended before.
    #[cfg(any(feature = "otlp", test))]
    pub(crate) fn wait_round(&self, round: u64, deadline: Option<Instant>) -> bool {
        self.wait(deadline, |state| {
            let done = state.done.iter().all(|&done| done >= round);
            (done || state.stage == Stage::Stopped).then_some(done)
        })
        .unwrap_or(false)
    }

    /// Asks the thread to end. The first deadline counts.
    pub(crate) fn ask_stop(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock();
        if state.stage == Stage::Running {
            state.stage = Stage::Stopping(deadline);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the end of the thread. False where it still runs.
    pub(crate) fn wait_stopped(&self, deadline: Option<Instant>) -> bool {
        self.wait(deadline, |state| {
            (state.stage == Stage::Stopped).then_some(())
        })
        .is_some()
    }

    fn wait<R>(
        &self,
        deadline: Option<Instant>,
        answer: impl Fn(&State) -> Option<R>,
    ) -> Option<R> {
        let mut state = self.state.lock();
        loop {
            if let Some(answer) = answer(&state) {
                return Some(answer);
            }
            let timed_out = match deadline {
                Some(deadline) => self.changed.wait_until(&mut state, deadline).timed_out(),
                None => {
                    self.changed.wait(&mut state);
                    false
                }
            };
            if timed_out {
                return answer(&state);
            }
        }
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_round_is_done_when_every_part_has_done_it() {
        let worker = Worker::new(2);
        let round = worker.ask_round();
        assert_eq!(worker.order(0), Order::Round(round));
        worker.done(0, round);
        assert_eq!(worker.order(0), Order::Rest);
        let now = Some(Instant::now());
        assert!(!worker.wait_round(round, now), "the second part has not");
        worker.done(1, round);
        assert!(worker.wait_round(round, now));
    }

    #[test]
    fn who_waits_is_told_when_the_thread_dies() {
        let worker = Worker::new(1);
        let running = worker.running();
        let round = worker.ask_round();
        let died = thread::spawn(move || {
            let _running = running;
            panic!("on purpose");
        });
        assert!(!worker.wait_round(round, None));
        assert!(worker.wait_stopped(None));
        died.join().expect_err("it panicked");
    }

    #[test]
    fn a_stop_is_waited_for_no_longer_than_asked() {
        let worker = Worker::new(1);
        let deadline = Some(Instant::now());
        worker.ask_stop(deadline);
        assert_eq!(worker.order(0), Order::Stop(deadline));
        assert!(!worker.wait_stopped(deadline));
        drop(worker.running());
        assert!(worker.wait_stopped(None));
    }
}
