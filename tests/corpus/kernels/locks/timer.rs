//! A timer that is drained of a tick it no longer has.

use super::tell;
use crate::program::{Cast, Kept, Kernel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub fn all() -> Vec<Kernel> {
    vec![Kernel {
        id: "istio_18454",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(leaks(cast)),
        fixed: |_| Box::pin(fixed()),
        ends_by_drop: false,
    }]
}

/// A timer as Go has it, for as short a time as there is: it goes off once and puts a tick into
/// its channel. What Go's runtime does for it, a task does here, which ends.
struct Timer {
    over: Arc<AtomicBool>,
    tick: mpsc::Sender<()>,
    ticks: mpsc::Receiver<()>,
}

impl Timer {
    fn start() -> Self {
        let (tick, ticks) = mpsc::channel(1);
        let mut timer = Self {
            over: Arc::default(),
            tick,
            ticks,
        };
        timer.reset();
        timer
    }

    fn reset(&mut self) {
        self.over = Arc::default();
        let (over, tick) = (Arc::clone(&self.over), self.tick.clone());
        tokio::spawn(async move {
            if !over.swap(true, Ordering::SeqCst) {
                // A second tick is none, where the first has not been taken.
                tick.try_send(()).ok();
            }
        });
    }

    /// Whether it had not gone off yet.
    fn stop(&self) -> bool {
        !self.over.swap(true, Ordering::SeqCst)
    }
}

/// What the task of the timer needs.
struct EventLoop {
    resets: mpsc::Receiver<()>,
    closed: CancellationToken,
    /// Told at the first tick.
    ticks: Option<oneshot::Sender<()>>,
    drain: Drain,
}

/// What is done about the tick of a timer that can't be stopped any more.
enum Drain {
    Awaits,
    Tries,
}

impl EventLoop {
    async fn run(mut self) {
        let mut timer = Timer::start();
        loop {
            tokio::select! {
                _ = timer.ticks.recv() => {
                    if let Some(ticks) = self.ticks.take() {
                        tell(ticks);
                    }
                }
                _ = self.resets.recv() => {
                    if !timer.stop() {
                        self.drain.drain(&mut timer).await;
                    }
                    timer.reset();
                }
                () = self.closed.cancelled() => {
                    timer.stop();
                    return;
                }
            }
        }
    }
}

impl Drain {
    async fn drain(&self, timer: &mut Timer) {
        match self {
            Self::Awaits => drop(timer.ticks.recv().await),
            Self::Tries => drop(timer.ticks.try_recv()),
        }
    }
}

/// Delays what follows a change until there is no other for a while.
struct Strategy {
    /// What is left to be started at the first change.
    event_loop: Mutex<Option<EventLoop>>,
    resets: mpsc::Sender<()>,
    closed: CancellationToken,
}

impl Strategy {
    fn new(drain: Drain) -> (Self, oneshot::Receiver<()>) {
        let (ticks, ticked) = oneshot::channel();
        let (resets, receiver) = mpsc::channel(1);
        let closed = CancellationToken::new();
        let event_loop = EventLoop {
            resets: receiver,
            closed: closed.clone(),
            ticks: Some(ticks),
            drain,
        };
        let strategy = Self {
            event_loop: Mutex::new(Some(event_loop)),
            resets,
            closed,
        };
        (strategy, ticked)
    }

    async fn on_change(&self, start: impl Fn(EventLoop)) {
        let mut event_loop = self.event_loop.lock().await;
        match event_loop.take() {
            Some(event_loop) => start(event_loop),
            None => {
                drop(event_loop);
                // Where the loop is over, there is nothing to reset.
                self.resets.send(()).await.ok();
            }
        }
    }
}

/// Passes events on to the strategy until it is stopped. It looks at the events first, for a stop
/// that is seen early hides the leak.
struct Processor {
    strategy: Strategy,
    events: mpsc::Receiver<()>,
    stopped: CancellationToken,
}

impl Processor {
    async fn run(mut self, start: impl Fn(EventLoop)) {
        loop {
            tokio::select! {
                biased;
                Some(()) = self.events.recv() => self.strategy.on_change(&start).await,
                () = self.stopped.cancelled() => break,
            }
        }
        self.strategy.closed.cancel();
    }
}

const EVENTS: usize = 16;

/// The one who starts the processor and stops it.
struct Owner {
    events: mpsc::Sender<()>,
    ticked: oneshot::Receiver<()>,
    stopped: CancellationToken,
}

impl Owner {
    fn of_processor(drain: Drain) -> (Self, Processor) {
        let (strategy, ticked) = Strategy::new(drain);
        let (sender, events) = mpsc::channel(EVENTS);
        let stopped = CancellationToken::new();
        let processor = Processor {
            strategy,
            events,
            stopped: stopped.clone(),
        };
        let owner = Self {
            events: sender,
            ticked,
            stopped,
        };
        (owner, processor)
    }

    /// The first event starts the timer. The others come after its tick has been taken.
    async fn send_and_stop(self) {
        self.events.try_send(()).expect("there is room");
        self.ticked.await.expect("the timer goes off");
        for _ in 1..EVENTS {
            self.events.try_send(()).expect("there is room");
        }
        self.stopped.cancel();
    }
}

/// istio_18454: a reset stops the timer, which has gone off, and therefore waits for its tick;
/// but the tick was taken before. The resets after it have nowhere to go, so that the processor
/// waits as well and does not see its stop. The tasks keep all of it themselves.
async fn leaks(cast: Cast) -> Kept {
    let (owner, processor) = Owner::of_processor(Drain::Awaits);
    let of_loop = cast.clone();
    cast.stays(processor.run(move |event_loop| drop(of_loop.stays(event_loop.run()))));
    owner.send_and_stop().await;
    Kept::nothing()
}

/// The tick is taken if there is one, and not awaited.
async fn fixed() -> Kept {
    let (owner, processor) = Owner::of_processor(Drain::Tries);
    let processed = tokio::spawn(processor.run(|event_loop| drop(tokio::spawn(event_loop.run()))));
    owner.send_and_stop().await;
    processed.await.expect("the processor ends");
    Kept::nothing()
}
