//! Guards that nobody gives back.

use super::{tell, telling};
use crate::program::{Cast, Kept, Kernel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard, mpsc, oneshot};

pub fn all() -> Vec<Kernel> {
    vec![
        Kernel {
            id: "grpc_3017",
            codes: "D",
            flaky: false,
            leaks: |cast| Box::pin(timer_leaks(cast)),
            fixed: |_| Box::pin(timer_fixed()),
            ends_by_drop: false,
        },
        Kernel {
            id: "moby_17176",
            codes: "M/Q",
            flaky: false,
            leaks: |cast| Box::pin(devices_leak(cast)),
            fixed: |_| Box::pin(devices_fixed()),
            ends_by_drop: true,
        },
    ]
}

/// The connection that is about to be deleted, if there is one.
#[derive(Default)]
struct ConnCache(Mutex<Option<Deleting>>);

/// The timer that will delete a connection, as the cache has it.
struct Deleting {
    go_off: oneshot::Sender<()>,
    gone_off: oneshot::Receiver<()>,
    abort: Arc<AtomicBool>,
}

/// The same, as its task has it.
struct Timer {
    going_off: oneshot::Receiver<()>,
    locks: oneshot::Sender<()>,
    abort: Arc<AtomicBool>,
}

impl ConnCache {
    /// Takes the connection back whose timer is running. The timer goes off at this very
    /// moment, too late to be stopped, and waits for the lock.
    async fn new_conn(&self) {
        let mut deleting = self.0.lock().await;
        if let Some(deleting) = deleting.take() {
            tell(deleting.go_off);
            deleting.gone_off.await.expect("the timer goes off");
            deleting.abort.store(true, Ordering::SeqCst);
        }
    }

    async fn remove_conn(&self) -> Timer {
        let mut deleting = self.0.lock().await;
        let (go_off, going_off) = oneshot::channel();
        let (locks, gone_off) = oneshot::channel();
        let abort = Arc::new(AtomicBool::new(false));
        *deleting = Some(Deleting {
            go_off,
            gone_off,
            abort: Arc::clone(&abort),
        });
        Timer {
            going_off,
            locks,
            abort,
        }
    }

    /// What the timer does. Where it was stopped too late, the cache is still locked.
    async fn delete(&self, timer: Timer) -> Option<MutexGuard<'_, Option<Deleting>>> {
        timer.going_off.await.expect("each timer goes off");
        let mut deleting = telling(timer.locks, self.0.lock()).await;
        if timer.abort.load(Ordering::SeqCst) {
            return Some(deleting);
        }
        *deleting = None;
        None
    }
}

const ROUNDS: usize = 10;

/// grpc_3017: a timer that was stopped too late returns without unlocking the cache. Who next
/// removes a connection waits for a task that has ended. The task keeps the cache itself.
async fn timer_leaks(cast: Cast) -> Kept {
    let cache = Arc::new(ConnCache::default());
    cast.stays(async move {
        for _ in 0..ROUNDS {
            let timer = cache.remove_conn().await;
            let of_timer = Arc::clone(&cache);
            tokio::spawn(async move {
                if let Some(locked) = of_timer.delete(timer).await {
                    std::mem::forget(locked);
                }
            });
            cache.new_conn().await;
        }
    });
    Kept::nothing()
}

/// The timer unlocks on its early way out as well.
async fn timer_fixed() -> Kept {
    let cache = Arc::new(ConnCache::default());
    let rounds = tokio::spawn(async move {
        for _ in 0..ROUNDS {
            let timer = cache.remove_conn().await;
            let of_timer = Arc::clone(&cache);
            tokio::spawn(async move { drop(of_timer.delete(timer).await) });
            cache.new_conn().await;
        }
    });
    rounds.await.expect("every round");
    Kept::nothing()
}

/// How many devices are deleted, and, by mistake, the guard of that.
#[derive(Default)]
struct DeviceSet {
    deleted: Arc<Mutex<usize>>,
    locked: Option<OwnedMutexGuard<usize>>,
}

impl DeviceSet {
    async fn clean_up(&mut self) {
        let deleted = Arc::clone(&self.deleted).lock_owned().await;
        if *deleted == 0 {
            self.locked = Some(deleted);
        }
    }

    async fn clean_up_fixed(&mut self) {
        let mut deleted = Arc::clone(&self.deleted).lock_owned().await;
        *deleted = 0;
    }

    /// Another use of the devices, that tells when it waits for them and when it is done.
    fn next_use(&self) -> (impl Future<Output = ()> + Send + use<>, Progress) {
        let devices = Arc::clone(&self.deleted);
        let (waits, waiting) = oneshot::channel();
        let (done, is_done) = mpsc::channel(1);
        let task = async move {
            let _locked = telling(waits, devices.lock()).await;
            // Where nobody waits for it any more, it is done all the same.
            done.send(()).await.ok();
        };
        (task, Progress { waiting, is_done })
    }
}

struct Progress {
    waiting: oneshot::Receiver<()>,
    is_done: mpsc::Receiver<()>,
}

/// moby_17176: where no device is deleted, the clean-up returns without unlocking the set, and
/// the next one who uses it waits. The set is kept, and its guard in it. Who asks gives up after
/// a time limit, which is here over once the task waits.
async fn devices_leak(cast: Cast) -> Kept {
    let mut devices = DeviceSet::default();
    devices.clean_up().await;
    let (task, mut progress) = devices.next_use();
    cast.stays(task);
    tokio::select! {
        biased;
        _ = progress.is_done.recv() => {}
        _ = progress.waiting => {}
    }
    Kept::of(devices)
}

/// The set is unlocked on each way out of the clean-up.
async fn devices_fixed() -> Kept {
    let mut devices = DeviceSet::default();
    devices.clean_up_fixed().await;
    let (task, mut progress) = devices.next_use();
    tokio::spawn(task);
    progress.is_done.recv().await.expect("the use is done");
    Kept::of(devices)
}
