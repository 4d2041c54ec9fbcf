//! Two locks that two tasks take in opposite orders.

use super::tell;
use crate::program::{Cast, Kept, Kernel};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Barrier, Mutex, RwLock, oneshot};
use tokio_util::sync::CancellationToken;

pub fn all() -> Vec<Kernel> {
    vec![
        Kernel {
            id: "cockroach_7504",
            codes: "M",
            flaky: false,
            leaks: |cast| Box::pin(leases_leak(cast)),
            fixed: |_| Box::pin(leases_fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "kubernetes_13135",
            codes: "M",
            flaky: false,
            leaks: |cast| Box::pin(cacher_leaks(cast)),
            fixed: |_| Box::pin(cacher_fixed()),
            ends_by_drop: false,
        },
    ]
}

/// How often each lease is in use.
type Lease = Arc<Mutex<u32>>;

/// The leases of a table, and a cache of them by the table's name.
struct Leases {
    active: Mutex<HashMap<u32, Lease>>,
    names: Mutex<HashMap<u32, Lease>>,
    /// Where both have their first lock.
    met: Barrier,
}

impl Leases {
    fn new() -> Arc<Self> {
        let leases: HashMap<u32, Lease> = (0..2).map(|id| (id, Lease::default())).collect();
        Arc::new(Self {
            active: Mutex::new(leases.clone()),
            names: Mutex::new(leases),
            met: Barrier::new(2),
        })
    }

    async fn acquire(&self, id: u32) {
        let names = self.names.lock().await;
        self.met.wait().await;
        if let Some(lease) = names.get(&id) {
            *lease.lock().await += 1;
        }
    }

    async fn acquire_fixed(&self, id: u32) {
        let lease = self.names.lock().await.get(&id).map(Arc::clone);
        self.met.wait().await;
        if let Some(lease) = lease {
            *lease.lock().await += 1;
        }
    }

    async fn release(&self, id: u32) {
        let mut active = self.active.lock().await;
        let lease = active.get(&id).map(Arc::clone);
        let lease = lease.expect("the lease is active");
        let _locked = lease.lock().await;
        active.remove(&id);
        self.met.wait().await;
        self.names.lock().await.remove(&id);
    }
}

/// cockroach_7504: to acquire a lease by name locks the name cache and then the lease, to
/// release it locks the lease and then the name cache. The tasks keep all of it themselves.
async fn leases_leak(cast: Cast) -> Kept {
    let leases = Leases::new();
    let released = Arc::clone(&leases);
    cast.stays(async move { leases.acquire(0).await });
    cast.stays(async move { released.release(0).await });
    Kept::nothing()
}

/// The name cache is unlocked before the lease is locked.
async fn leases_fixed() -> Kept {
    let leases = Leases::new();
    let released = Arc::clone(&leases);
    let acquire = tokio::spawn(async move { leases.acquire_fixed(0).await });
    let release = tokio::spawn(async move { released.release(0).await });
    acquire.await.expect("the lease is acquired");
    release.await.expect("the lease is released");
    Kept::nothing()
}

/// A cache that is filled by listing what there is, and kept up by events.
struct Cacher {
    /// Held while the cache is being filled.
    filling: Arc<Mutex<()>>,
    /// Held while an event goes in.
    events: Arc<Mutex<()>>,
    watch_cache: RwLock<()>,
    stop: CancellationToken,
    /// Where the second filling and the first event have their first lock. The stop comes then.
    met: Barrier,
}

impl Cacher {
    fn new(filling: Arc<Mutex<()>>, events: Arc<Mutex<()>>) -> Arc<Self> {
        Arc::new(Self {
            filling,
            events,
            watch_cache: RwLock::new(()),
            stop: CancellationToken::new(),
            met: Barrier::new(3),
        })
    }

    /// Fills the cache again and again. Once it has been replaced, it is unlocked from within.
    async fn fill(&self, initialized: oneshot::Sender<()>) {
        let mut initialized = Some(initialized);
        for round in 0.. {
            if self.stop.is_cancelled() {
                return;
            }
            let filling = self.filling.lock().await;
            if round == 1 {
                self.met.wait().await;
            }
            let replacing = self.watch_cache.write().await;
            if let Some(initialized) = initialized.take() {
                tell(initialized);
            }
            drop(filling);
            drop(replacing);
            tokio::task::yield_now().await;
        }
    }

    async fn add(&self) {
        let _adding = self.watch_cache.write().await;
        self.met.wait().await;
        drop(self.events.lock().await);
    }

    async fn close(&self) {
        self.met.wait().await;
        self.stop.cancel();
    }
}

/// kubernetes_13135: to fill the cache takes the cacher's lock and then the watch cache's, an
/// event takes them the other way round. The tasks keep all of it themselves.
async fn cacher_leaks(cast: Cast) -> Kept {
    let lock = Arc::<Mutex<()>>::default();
    let cacher = Cacher::new(Arc::clone(&lock), lock);
    let (initialized, is_initialized) = oneshot::channel();
    let (filler, adder) = (Arc::clone(&cacher), Arc::clone(&cacher));
    cast.stays(async move { filler.fill(initialized).await });
    is_initialized.await.expect("the cache is filled once");
    cast.stays(async move { adder.add().await });
    let close = tokio::spawn(async move { cacher.close().await });
    close.await.expect("the stop comes");
    Kept::nothing()
}

/// Whether the cache is usable has a lock of its own.
async fn cacher_fixed() -> Kept {
    let cacher = Cacher::new(Arc::default(), Arc::default());
    let (initialized, is_initialized) = oneshot::channel();
    let (filler, adder) = (Arc::clone(&cacher), Arc::clone(&cacher));
    let fill = tokio::spawn(async move { filler.fill(initialized).await });
    is_initialized.await.expect("the cache is filled once");
    let add = tokio::spawn(async move { adder.add().await });
    let close = tokio::spawn(async move { cacher.close().await });
    for task in [fill, add, close] {
        task.await.expect("each of them ends");
    }
    Kept::nothing()
}
