//! Starts that wait for what only comes after them.

use crate::program::{Cast, Kept, Kernel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// cockroach_24808: the start of a compactor sends it a first suggestion, but the channel is full
/// already and its worker comes after. The starting task itself keeps the receiver.
pub fn cockroach_24808() -> Kernel {
    Kernel {
        id: "cockroach_24808",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(cockroach_24808_leaks(cast)),
        fixed: |_| Box::pin(cockroach_24808_fixed()),
        ends_by_drop: false,
    }
}

#[derive(Default)]
struct Stopper {
    workers: JoinSet<()>,
    stopped: CancellationToken,
}

impl Stopper {
    async fn stop(mut self) {
        self.stopped.cancel();
        while self.workers.join_next().await.is_some() {}
    }
}

struct Compactor {
    suggest: mpsc::Sender<()>,
    suggestions: mpsc::Receiver<()>,
}

impl Compactor {
    /// With a suggestion that came before the start.
    fn suggested() -> Self {
        let (suggest, suggestions) = mpsc::channel(1);
        suggest.try_send(()).expect("a new channel has its place");
        Self {
            suggest,
            suggestions,
        }
    }

    async fn start(self, stopper: &mut Stopper) {
        self.suggest.send(()).await.expect("the receiver is here");
        self.work(stopper);
    }

    fn start_without_waiting(self, stopper: &mut Stopper) {
        // A full channel wakes the worker as well.
        self.suggest.try_send(()).ok();
        self.work(stopper);
    }

    fn work(mut self, stopper: &mut Stopper) {
        let stopped = stopper.stopped.clone();
        stopper.workers.spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    Some(()) = self.suggestions.recv() => {}
                }
            }
        });
    }
}

async fn cockroach_24808_leaks(cast: Cast) -> Kept {
    cast.stays(async {
        let mut stopper = Stopper::default();
        Compactor::suggested().start(&mut stopper).await;
        stopper.stop().await;
    });
    Kept::nothing()
}

async fn cockroach_24808_fixed() -> Kept {
    let mut stopper = Stopper::default();
    Compactor::suggested().start_without_waiting(&mut stopper);
    stopper.stop().await;
    Kept::nothing()
}

/// cockroach_35073: an outbox fails at its start and leaves its row channel open, so that those
/// who push rows wait for a reader that never comes. The outbox is kept, and with it the receiver.
pub fn cockroach_35073() -> Kernel {
    Kernel {
        id: "cockroach_35073",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(cockroach_35073_leaks(cast)),
        fixed: |_| Box::pin(cockroach_35073_fixed()),
        ends_by_drop: true,
    }
}

const BUFFERED_ROWS: usize = 16;

#[derive(Clone)]
struct Rows {
    channel: mpsc::Sender<u32>,
    closed: Arc<AtomicBool>,
}

impl Rows {
    async fn push(self) {
        if !self.closed.load(Ordering::SeqCst) {
            // A row for an outbox that is gone is not wanted any more.
            self.channel.send(0).await.ok();
        }
    }

    /// As many as fit before anybody reads.
    async fn filled() -> (Self, Outbox) {
        let (channel, rows) = mpsc::channel(BUFFERED_ROWS);
        let closed = Arc::new(AtomicBool::new(false));
        let pushed = Self {
            channel,
            closed: closed.clone(),
        };
        for _ in 0..BUFFERED_ROWS {
            pushed.clone().push().await;
        }
        (pushed, Outbox { rows, closed })
    }
}

struct Outbox {
    rows: mpsc::Receiver<u32>,
    closed: Arc<AtomicBool>,
}

impl Outbox {
    async fn run(mut self) -> Self {
        if self.connect() {
            while self.rows.recv().await.is_some() {}
        }
        self
    }

    async fn run_and_close(self) -> Self {
        let mut ended = self.run().await;
        ended.close();
        ended
    }

    /// The connection that can't be had.
    fn connect(&self) -> bool {
        false
    }

    /// Says that no row is wanted, and lets the one go who waits for a place.
    fn close(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        self.rows.try_recv().ok();
    }
}

async fn cockroach_35073_leaks(cast: Cast) -> Kept {
    let (rows, outbox) = Rows::filled().await;
    cast.stays(rows.clone().push());
    let outbox = tokio::spawn(outbox.run()).await.expect("an outbox ends");
    cast.stays(rows.push());
    Kept::of(outbox)
}

async fn cockroach_35073_fixed() -> Kept {
    let (rows, outbox) = Rows::filled().await;
    let push = tokio::spawn(rows.clone().push());
    let outbox = tokio::spawn(outbox.run_and_close())
        .await
        .expect("an outbox ends");
    push.await.expect("a push ends");
    rows.push().await;
    Kept::of(outbox)
}

/// cockroach_25456: a queue whose check failed asks whether the store is draining, and waits until
/// it does. The stopper is kept, by which the store would drain.
pub fn cockroach_25456() -> Kernel {
    Kernel {
        id: "cockroach_25456",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(cockroach_25456_leaks(cast)),
        fixed: |_| Box::pin(cockroach_25456_fixed()),
        ends_by_drop: true,
    }
}

const REPLICAS: usize = 2;

async fn cockroach_25456_leaks(cast: Cast) -> Kept {
    let stopper = CancellationToken::new();
    let draining = stopper.clone();
    cast.stays(async move {
        for _ in 0..REPLICAS {
            draining.cancelled().await;
        }
    });
    Kept::of(stopper.drop_guard())
}

async fn cockroach_25456_fixed() -> Kept {
    let stopper = CancellationToken::new();
    let draining = stopper.clone();
    let queue = tokio::spawn(async move {
        let mut logged = 0;
        for _ in 0..REPLICAS {
            if !draining.is_cancelled() {
                logged += 1;
            }
        }
        logged
    });
    assert_eq!(queue.await.expect("a queue ends"), REPLICAS);
    Kept::of(stopper.drop_guard())
}

/// moby_25384: the wait for all plugins is inside the loop that starts them, so the first turn
/// waits for a plugin of the second. The waiting task itself keeps what it waits for.
pub fn moby_25384() -> Kernel {
    Kernel {
        id: "moby_25384",
        codes: "Q",
        flaky: false,
        leaks: |cast| Box::pin(moby_25384_leaks(cast)),
        fixed: |_| Box::pin(moby_25384_fixed()),
        ends_by_drop: false,
    }
}

const PLUGINS: usize = 2;

/// A group in which every plugin counts from the start, and the token of each.
fn group() -> (TaskTracker, Vec<impl Send + 'static>) {
    let group = TaskTracker::new();
    group.close();
    let plugins = (0..PLUGINS).map(|_| group.token()).collect();
    (group, plugins)
}

async fn moby_25384_leaks(cast: Cast) -> Kept {
    let (group, plugins) = group();
    cast.stays(async move {
        for plugin in plugins {
            tokio::spawn(async move { drop(plugin) });
            group.wait().await;
        }
    });
    Kept::nothing()
}

async fn moby_25384_fixed() -> Kept {
    let (group, plugins) = group();
    let init = tokio::spawn(async move {
        for plugin in plugins {
            tokio::spawn(async move { drop(plugin) });
        }
        group.wait().await;
    });
    init.await.expect("a group is done");
    Kept::nothing()
}
