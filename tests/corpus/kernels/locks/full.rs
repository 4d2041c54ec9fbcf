//! A send that waits with a lock held which the one who would receive needs.

use super::{tell, telling, unbuffered};
use crate::program::{Cast, Kept, Kernel};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, RwLock, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub fn all() -> Vec<Kernel> {
    vec![
        Kernel {
            id: "kubernetes_10182",
            codes: "Q",
            flaky: false,
            leaks: |cast| Box::pin(statuses_leak(cast)),
            fixed: |_| Box::pin(statuses_fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "kubernetes_1321",
            codes: "Q",
            flaky: false,
            leaks: |cast| Box::pin(mux_leaks(cast)),
            fixed: |_| Box::pin(mux_fixed()),
            ends_by_drop: false,
        },
    ]
}

/// How many pods have a status, and where changes go.
struct Statuses {
    known: RwLock<usize>,
    changes: mpsc::Sender<bool>,
}

impl Statuses {
    fn new() -> (Arc<Self>, mpsc::Receiver<bool>) {
        let (changes, receiver) = unbuffered(true);
        let known = RwLock::new(0);
        (Arc::new(Self { known, changes }), receiver)
    }

    /// Calls `locked` when it has the lock and is about to send.
    async fn set(&self, locked: impl FnOnce()) {
        let mut known = self.known.write().await;
        *known += 1;
        locked();
        // Where nobody receives, there is nobody to tell.
        self.changes.send(true).await.ok();
    }

    async fn delete(&self) {
        let mut known = self.known.write().await;
        *known = known.saturating_sub(1);
    }
}

/// kubernetes_10182: who sets a status sends it with the lock held. The one who receives takes
/// the same lock after each of them, and the second sender has it. Here the second comes between
/// the receiver's first message and his lock. The tasks keep all of it themselves.
async fn statuses_leak(cast: Cast) -> Kept {
    let (statuses, mut changes) = Statuses::new();
    let (first, second) = (Arc::clone(&statuses), Arc::clone(&statuses));
    let (locks, locked) = oneshot::channel();
    let of_start = cast.clone();
    let start = tokio::spawn(async move {
        of_start.stays(async move {
            changes.recv().await;
            locked.await.expect("the second comes");
            statuses.delete().await;
            changes.recv().await;
            statuses.delete().await;
        });
    });
    start.await.expect("the manager is started");
    let first = tokio::spawn(async move { first.set(|| ()).await });
    first.await.expect("the first is received");
    cast.stays(async move { second.set(|| tell(locks)).await });
    Kept::nothing()
}

/// A task of its own takes the lock, and the receiver goes on.
async fn statuses_fixed() -> Kept {
    let (statuses, mut changes) = Statuses::new();
    let (first, second) = (Arc::clone(&statuses), Arc::clone(&statuses));
    let (locks, locked) = oneshot::channel();
    let start = tokio::spawn(async move {
        let delete = move || {
            let statuses = Arc::clone(&statuses);
            tokio::spawn(async move { statuses.delete().await });
        };
        let receiver = tokio::spawn(async move {
            changes.recv().await;
            locked.await.expect("the second comes");
            delete();
            changes.recv().await;
            delete();
        });
        receiver.await.expect("both are received");
    });
    let first = tokio::spawn(async move { first.set(|| ()).await });
    first.await.expect("the first is received");
    let second = tokio::spawn(async move { second.set(|| tell(locks)).await });
    second.await.expect("the second is received");
    start.await.expect("the manager is done");
    Kept::nothing()
}

/// Sends each result to all who watch.
#[derive(Default)]
struct Mux {
    lock: Mutex<()>,
    watched: Mutex<HashMap<usize, Watched>>,
}

/// Somebody who watches, as the mux has him.
struct Watched {
    results: mpsc::Sender<()>,
    stopped: CancellationToken,
}

/// The same, as he has it himself.
struct Watcher {
    id: usize,
    _results: mpsc::Receiver<()>,
    stopped: CancellationToken,
}

const ROUNDS: usize = 10;

impl Mux {
    async fn watch(&self) -> Watcher {
        let mut watched = self.watched.lock().await;
        let (results, receiver) = unbuffered(());
        let stopped = CancellationToken::new();
        let watcher = Watcher {
            id: watched.len(),
            _results: receiver,
            stopped: stopped.clone(),
        };
        watched.insert(watcher.id, Watched { results, stopped });
        watcher
    }

    /// Calls `locked` when it has the locks and is about to send.
    async fn distribute(&self, locked: impl FnOnce()) {
        let _distributing = self.lock.lock().await;
        let watched = self.watched.lock().await;
        locked();
        for it in watched.values() {
            // Where nobody receives, he has gone without a word.
            it.results.send(()).await.ok();
        }
    }

    async fn distribute_fixed(&self, locked: impl FnOnce()) {
        let _distributing = self.lock.lock().await;
        let watched = self.watched.lock().await;
        locked();
        for it in watched.values() {
            tokio::select! {
                sent = it.results.send(()) => sent.expect("he is removed before he goes"),
                () = it.stopped.cancelled() => {}
            }
        }
    }

    async fn stop_watching(&self, id: usize) {
        let _stopping = self.lock.lock().await;
        self.watched.lock().await.remove(&id);
    }
}

/// kubernetes_1321: the mux sends to each watcher with its lock held, and a watcher that receives
/// no more needs the lock to say so. Here it comes to stop while the mux sends. The tasks keep
/// all of it themselves.
async fn mux_leaks(cast: Cast) -> Kept {
    let (stops, stopping) = oneshot::channel();
    let of_watcher = cast.clone();
    cast.stays(async move {
        let mux = Arc::new(Mux::default());
        let distributor = Arc::clone(&mux);
        let (watches, watching) = oneshot::channel();
        let (locks, locked) = oneshot::channel();
        of_watcher.stays(async move {
            watching.await.expect("somebody watches");
            distributor.distribute(|| tell(locks)).await;
            for _ in 1..ROUNDS {
                distributor.distribute(|| ()).await;
            }
        });
        let watcher = mux.watch().await;
        tell(watches);
        locked.await.expect("the mux sends");
        telling(stops, mux.stop_watching(watcher.id)).await;
    });
    stopping.await.expect("the watcher stops");
    Kept::nothing()
}

/// The watcher says by a signal of its own that it stops, which the mux awaits beside each send.
async fn mux_fixed() -> Kept {
    let watch = tokio::spawn(async move {
        let mux = Arc::new(Mux::default());
        let distributor = Arc::clone(&mux);
        let (watches, watching) = oneshot::channel();
        let (locks, locked) = oneshot::channel();
        let distribute = tokio::spawn(async move {
            watching.await.expect("somebody watches");
            distributor.distribute_fixed(|| tell(locks)).await;
            for _ in 1..ROUNDS {
                distributor.distribute_fixed(|| ()).await;
            }
        });
        let watcher = mux.watch().await;
        tell(watches);
        locked.await.expect("the mux sends");
        watcher.stopped.cancel();
        mux.stop_watching(watcher.id).await;
        distribute.await.expect("every round");
    });
    watch.await.expect("the watcher stops");
    Kept::nothing()
}
