//! A writer in the queue of a read-write lock, and the readers behind it.

use super::{tell, telling};
use crate::program::{Cast, Kept, Kernel};
use std::sync::Arc;
use tokio::sync::{Mutex, Notify, RwLock, oneshot};

pub fn all() -> Vec<Kernel> {
    vec![
        Kernel {
            id: "cockroach_3710",
            codes: "M",
            flaky: false,
            leaks: |cast| Box::pin(store_leaks(cast)),
            fixed: |_| Box::pin(store_fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "kubernetes_58107",
            codes: "M+Q",
            flaky: false,
            leaks: |cast| Box::pin(quota_leaks(cast)),
            fixed: |_| Box::pin(quota_fixed()),
            ends_by_drop: false,
        },
    ]
}

/// The replicas of a store, by number, and the queue of those whose logs are cut.
struct Store {
    replicas: RwLock<Vec<u32>>,
    queue: Mutex<Vec<u32>>,
}

impl Store {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            replicas: RwLock::new(vec![1, 2]),
            queue: Mutex::default(),
        })
    }

    /// Queues the replica if it is one of this store's: it reads that for itself.
    async fn maybe_add(&self, replica: u32) {
        let mut queue = self.queue.lock().await;
        if self.replicas.read().await.contains(&replica) {
            queue.push(replica);
        }
    }

    /// Writes after `reading` has been told, and tells when it is in the lock's queue.
    async fn process(&self, reading: oneshot::Receiver<()>, writes: oneshot::Sender<()>) {
        reading.await.expect("the scan reads");
        telling(writes, self.replicas.write()).await.push(3);
    }
}

/// cockroach_3710: a scan holds the read lock of the store and calls what takes it once more. A
/// writer has come in between, and fairness puts the second read behind it. The tasks keep all
/// of it themselves.
async fn store_leaks(cast: Cast) -> Kept {
    let store = Store::new();
    let processed = Arc::clone(&store);
    let (reads, reading) = oneshot::channel();
    let (writes, writing) = oneshot::channel();
    cast.stays(async move {
        let replicas = store.replicas.read().await;
        tell(reads);
        writing.await.expect("the writer comes");
        for &replica in &*replicas {
            store.maybe_add(replica).await;
        }
    });
    let start = tokio::spawn(async move {
        cast.stays(async move { processed.process(reading, writes).await });
    });
    start.await.expect("the writer is started");
    Kept::nothing()
}

/// The scan copies the replicas, and reads no more when it adds them.
async fn store_fixed() -> Kept {
    let store = Store::new();
    let processed = Arc::clone(&store);
    let (reads, reading) = oneshot::channel();
    let (writes, writing) = oneshot::channel();
    let scan = tokio::spawn(async move {
        let replicas = store.replicas.read().await.clone();
        tell(reads);
        writing.await.expect("the writer comes");
        for replica in replicas {
            store.maybe_add(replica).await;
        }
    });
    let start = tokio::spawn(async move {
        let process = tokio::spawn(async move { processed.process(reading, writes).await });
        process.await.expect("the writer writes");
    });
    start.await.expect("the writer is started");
    scan.await.expect("the scan ends");
    Kept::nothing()
}

/// Two queues with a worker each, and a lock that says whether the workers may work.
#[derive(Default)]
struct Quota {
    workers: RwLock<()>,
    queue: Notify,
    missing: Notify,
}

const ROUNDS: usize = 10;

impl Quota {
    /// Signals to whoever waits at the moment: a signal to nobody is lost, as it is in Go.
    fn signal(&self) {
        self.queue.notify_waiters();
        self.missing.notify_waiters();
    }

    /// Halts the workers time and again, and tells when it waits for it the first time.
    async fn sync(&self, waits: oneshot::Sender<()>) {
        drop(telling(waits, self.workers.write()).await);
        for _ in 1..ROUNDS {
            drop(self.workers.write().await);
        }
    }
}

/// kubernetes_58107: a worker waits for an element of an empty queue with the read lock held, a
/// writer waits for the worker, and the worker of the other queue waits behind the writer. Here
/// the signals come before anybody waits. The tasks keep all of it themselves.
async fn quota_leaks(cast: Cast) -> Kept {
    let quota = Arc::new(Quota::default());
    let (signals, signalled) = oneshot::channel();
    let (idles, idle) = oneshot::channel();
    let (waits, waiting) = oneshot::channel();
    let (first, second, synced) = (Arc::clone(&quota), Arc::clone(&quota), Arc::clone(&quota));
    let of_run = cast.clone();
    let run = tokio::spawn(async move {
        signalled.await.expect("the signals come");
        of_run.stays(async move {
            let _working = first.workers.read().await;
            telling(idles, first.queue.notified()).await;
        });
        of_run.stays(async move {
            waiting.await.expect("the writer comes");
            let _working = second.workers.read().await;
            second.missing.notified().await;
        });
    });
    cast.stays(async move {
        idle.await.expect("the queue is empty");
        synced.sync(waits).await;
    });
    for _ in 0..ROUNDS {
        quota.signal();
    }
    tell(signals);
    run.await.expect("the workers are started");
    Kept::nothing()
}

/// The workers take the lock when they have an element. The signals go on until then.
async fn quota_fixed() -> Kept {
    let quota = Arc::new(Quota::default());
    let (idles, idle) = oneshot::channel();
    let (waits, waiting) = oneshot::channel();
    let (first, second, synced) = (Arc::clone(&quota), Arc::clone(&quota), Arc::clone(&quota));
    let run = tokio::spawn(async move {
        let first = tokio::spawn(async move {
            telling(idles, first.queue.notified()).await;
            drop(first.workers.read().await);
        });
        let second = tokio::spawn(async move {
            waiting.await.expect("the writer comes");
            second.missing.notified().await;
            drop(second.workers.read().await);
        });
        (first, second)
    });
    let sync = tokio::spawn(async move {
        idle.await.expect("the queue is empty");
        synced.sync(waits).await;
    });
    let (first, second) = run.await.expect("the workers are started");
    while !(first.is_finished() && second.is_finished()) {
        quota.signal();
        tokio::task::yield_now().await;
    }
    first.await.expect("the queue's worker ends");
    second.await.expect("the other worker ends");
    sync.await.expect("the writer is done");
    Kept::nothing()
}
