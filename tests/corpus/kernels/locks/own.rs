//! A task that waits for a lock which it holds itself.

use crate::program::{Cast, Kept, Kernel};
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::sync::{Mutex, RwLock};

pub fn all() -> Vec<Kernel> {
    vec![
        Kernel {
            id: "etcd_10492",
            codes: "M",
            flaky: false,
            leaks: |cast| Box::pin(renew_leaks(cast)),
            fixed: |_| Box::pin(renew_fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "syncthing_4829",
            codes: "M",
            flaky: false,
            leaks: |cast| Box::pin(mapping_leaks(cast)),
            fixed: |_| Box::pin(mapping_fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "cockroach_9935",
            codes: "M",
            flaky: false,
            leaks: |cast| Box::pin(log_leaks(cast)),
            fixed: |_| Box::pin(log_fixed()),
            ends_by_drop: false,
        },
    ]
}

type Checkpointer = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Its lock guards the callback that it calls.
#[derive(Default)]
struct Lessor(RwLock<Option<Checkpointer>>);

impl Lessor {
    async fn with_checkpointer() -> Arc<Self> {
        let lessor = Arc::new(Self::default());
        let weak = Arc::downgrade(&lessor);
        let checkpointer: Checkpointer = Arc::new(move || {
            let lessor = weak.upgrade().expect("whoever renews holds the lessor");
            Box::pin(async move { lessor.checkpoint().await })
        });
        *lessor.0.write().await = Some(checkpointer);
        lessor
    }

    async fn checkpoint(&self) {
        drop(self.0.write().await);
    }
}

/// etcd_10492: renewing a lease calls the checkpointer with the lessor locked, and the
/// checkpointer locks the lessor. The task keeps all of it itself.
async fn renew_leaks(cast: Cast) -> Kept {
    let lessor = Lessor::with_checkpointer().await;
    cast.stays(async move {
        let locked = lessor.0.write().await;
        if let Some(checkpoint) = locked.as_ref() {
            checkpoint().await;
        }
    });
    Kept::nothing()
}

/// The lessor is unlocked before the call.
async fn renew_fixed() -> Kept {
    let lessor = Lessor::with_checkpointer().await;
    let renewed = tokio::spawn(async move {
        let checkpointer = lessor.0.write().await.clone();
        if let Some(checkpoint) = checkpointer {
            checkpoint().await;
        }
    });
    renewed.await.expect("the lease is renewed");
    Kept::nothing()
}

/// The external addresses of a port, by the device that maps it.
#[derive(Default)]
struct Mapping(RwLock<HashMap<&'static str, u16>>);

impl Mapping {
    async fn notify(&self, removed: &[u16]) {
        let left = self.0.read().await;
        assert!(
            removed
                .iter()
                .all(|port| left.values().all(|it| it != port))
        );
    }
}

struct Service(RwLock<Vec<Arc<Mapping>>>);

impl Service {
    fn with_mapping() -> (Self, Arc<Mapping>) {
        let mapping = Arc::new(Mapping(RwLock::new(HashMap::from([("test", 22_000)]))));
        let service = Self(RwLock::new(vec![Arc::clone(&mapping)]));
        (service, mapping)
    }
}

/// syncthing_4829: a mapping clears its addresses under its write lock, and tells those who
/// listen, for which it takes the read lock of the same. The task keeps all of it itself.
async fn mapping_leaks(cast: Cast) -> Kept {
    let (service, mapping) = Service::with_mapping();
    cast.stays(async move {
        let mappings = service.0.write().await;
        for existing in mappings.iter().filter(|it| Arc::ptr_eq(it, &mapping)) {
            let mut addresses = existing.0.write().await;
            let removed: Vec<u16> = addresses.drain().map(|(_, port)| port).collect();
            existing.notify(&removed).await;
        }
    });
    Kept::nothing()
}

/// The write lock is over before anybody is told.
async fn mapping_fixed() -> Kept {
    let (service, mapping) = Service::with_mapping();
    let removal = tokio::spawn(async move {
        let mappings = service.0.write().await;
        for existing in mappings.iter().filter(|it| Arc::ptr_eq(it, &mapping)) {
            let removed: Vec<u16> = {
                let mut addresses = existing.0.write().await;
                addresses.drain().map(|(_, port)| port).collect()
            };
            existing.notify(&removed).await;
        }
    });
    removal.await.expect("the mapping is removed");
    Kept::nothing()
}

/// A log with the file that it writes to.
#[derive(Default)]
struct Log(Mutex<Option<&'static str>>);

impl Log {
    fn create_file() -> io::Result<&'static str> {
        Err(io::ErrorKind::StorageFull.into())
    }

    async fn exit(&self) {
        self.0.lock().await.take();
    }
}

/// cockroach_9935: an entry is written under the log's lock; no file can be created, and the
/// way out locks the log to flush it. Chance decides on the file in the original, and here it
/// always fails. The task keeps all of it itself.
async fn log_leaks(cast: Cast) -> Kept {
    let log = Arc::new(Log::default());
    cast.stays(async move {
        let mut file = log.0.lock().await;
        match Log::create_file() {
            Ok(created) => *file = Some(created),
            Err(_) => log.exit().await,
        }
    });
    Kept::nothing()
}

/// The way out begins without the lock.
async fn log_fixed() -> Kept {
    let log = Arc::new(Log::default());
    let written = tokio::spawn(async move {
        let mut file = log.0.lock().await;
        match Log::create_file() {
            Ok(created) => *file = Some(created),
            Err(_) => {
                drop(file);
                log.exit().await;
            }
        }
    });
    written.await.expect("the log is flushed");
    Kept::nothing()
}
