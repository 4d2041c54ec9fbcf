//! What tasks do while they are measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinHandle;

/// How a program spawns: as any does, or with each future wrapped.
pub(crate) trait Spawn: Clone + Send + Sync + 'static {
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static;
}

#[derive(Clone, Debug)]
pub(crate) struct Plain;

impl Spawn for Plain {
    #[track_caller]
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        tokio::spawn(future)
    }
}

/// Spawns trivial tasks and joins each.
pub(crate) async fn churn<S: Spawn>(spawn: &S, tasks: u64) -> u64 {
    for _ in 0..tasks {
        let ended = spawn.spawn(async {}).await;
        ended.expect("a task that does nothing doesn't panic");
    }
    tasks
}

/// Has a hundred tasks yield by turns, which is fewer than a worker's own queue holds, and says
/// how many polls it were.
pub(crate) async fn yields<S: Spawn>(spawn: &S, polls: u64) -> u64 {
    const YIELDERS: u64 = 100;
    let each = (polls / YIELDERS).max(2);
    let yielders: Vec<_> = (0..YIELDERS)
        .map(|_| {
            spawn.spawn(async move {
                // The poll that completes the task is one too.
                for _ in 1..each {
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for yielder in yielders {
        yielder.await.expect("a task that yields doesn't panic");
    }
    each * YIELDERS
}

/// Leaves tasks behind that were polled once and will never be woken.
pub(crate) async fn park<S: Spawn>(spawn: &S, tasks: u64) -> u64 {
    let polled = Arc::new(AtomicU64::new(0));
    for _ in 0..tasks {
        let polled = Arc::clone(&polled);
        spawn.spawn(async move {
            polled.fetch_add(1, Ordering::Relaxed);
            drop(polled);
            std::future::pending::<()>().await;
        });
    }
    while polled.load(Ordering::Relaxed) < tasks {
        tokio::task::yield_now().await;
    }
    tasks
}
