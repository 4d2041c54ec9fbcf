//! Waits for what is just ending.
//!
//! Without tokio's timers, which a runtime may not have and which a paused clock would jump to: a
//! runtime with nothing to do moves a paused clock on, so this always leaves it something to do.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Growing steps up to a deadline.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    most: Duration,
    step: u32,
}

impl Pace {
    pub(super) fn new(most: Duration) -> Self {
        Self {
            began: Instant::now(),
            most,
            step: 0,
        }
    }

    pub(super) fn waited(&self) -> Duration {
        self.began.elapsed()
    }

    /// Pauses this thread for a moment. False when the time is over, and then it has not paused.
    pub(super) fn rest(&self, pause: Duration) -> bool {
        let Some(rest) = self.most.checked_sub(self.waited()) else {
            return false;
        };
        std::thread::sleep(pause.min(rest));
        true
    }

    /// Lets other tasks and threads go on. False when the time is over, and then it has not waited.
    pub(super) async fn wait(&mut self) -> bool {
        let Some(rest) = self.most.checked_sub(self.waited()) else {
            return false;
        };
        // Enough turns for a chain of tasks that wake each other, and for tokio to look at its
        // sockets and timers, as it does each 61 turns.
        for _ in 0..(8_u32 << self.step.min(4)) {
            yield_once().await;
        }
        if self.step > 0 {
            // Other threads need time, not turns. This thread's runtime stands still meanwhile.
            const LONGEST: Duration = Duration::from_millis(10);
            let pause = Duration::from_micros(10 << self.step.min(10)).min(LONGEST);
            std::thread::sleep(pause.min(rest));
            yield_once().await;
        }
        self.step += 1;
        true
    }
}

/// Gives each other task that is ready a turn.
pub(super) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
