//! Waits for what is just ending.
//!
//! Without tokio's timers, which a runtime may not have and which a paused clock would jump to: a
//! runtime with nothing to do moves a paused clock on, so this always leaves it something to do.

use parking_lot::Mutex;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
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

    /// Waits for a future as long as there is time; whether it was done by then. As in any other
    /// wait for it, a paused clock moves on if nothing else is to be done.
    pub(super) async fn within(&self, future: impl Future<Output = ()>) -> bool {
        let alarm = Arc::new(Alarm::default());
        let rest = self.most.saturating_sub(self.waited());
        // It ends when this is dropped.
        let (_set, dropped) = mpsc::channel::<()>();
        let rings = Arc::clone(&alarm);
        let thread = std::thread::Builder::new().name("straggler-alarm".into());
        let thread = thread.spawn(move || {
            if dropped.recv_timeout(rest) == Err(mpsc::RecvTimeoutError::Timeout) {
                rings.ring();
            }
        });
        if let Err(error) = thread {
            panic!("straggler: no thread for the deadline: {error}");
        }
        let mut future = pin!(future);
        poll_fn(|cx| {
            if future.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            match alarm.has_rung(cx.waker()) {
                true => Poll::Ready(false),
                false => Poll::Pending,
            }
        })
        .await
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

/// Wakes who waits when the time is over.
#[derive(Default)]
struct Alarm(Mutex<(bool, Option<Waker>)>);

impl Alarm {
    fn ring(&self) {
        let waker = {
            let mut alarm = self.0.lock();
            alarm.0 = true;
            alarm.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it has rung; otherwise it will wake this.
    fn has_rung(&self, waker: &Waker) -> bool {
        let mut alarm = self.0.lock();
        alarm.1 = Some(waker.clone());
        alarm.0
    }
}

/// Gives each other task that is ready a turn.
async fn yield_once() {
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
