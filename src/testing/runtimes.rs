//! What a scope's runtimes say of themselves.

use crate::query::Snapshot;
use crate::{Kind, Task};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::runtime::{Handle, Id};
use tokio::task::JoinHandle;
use tracing_core::dispatcher;
use tracing_core::{Dispatch, subscriber::NoSubscriber};

/// Probes that their runtimes have not yet let go of, as nobody runs those.
static PROBES: Mutex<Vec<(Id, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// How many live tasks of these runtimes nobody announced, as far as one look can tell: what is
/// spawned or ends meanwhile counts too. Those of a `LocalSet` are in no count.
pub(super) fn unseen(runtimes: &[Handle], snapshot: &Snapshot) -> usize {
    let alive = runtimes.iter().map(|runtime| {
        let alive = runtime.metrics().num_alive_tasks();
        alive.saturating_sub(probes_on(runtime.id()))
    });
    // Over all of them: before its first poll a task may be on any.
    let tasks = snapshot.tasks().chain(snapshot.unconfirmed());
    let is_counted = |task: &&Task| {
        let here = || runtimes.iter().any(|runtime| may_be_on(task, runtime.id()));
        task.kind() == Kind::Task && here()
    };
    let unseen = alive
        .sum::<usize>()
        .saturating_sub(tasks.filter(is_counted).count());
    let blocking = runtimes
        .iter()
        .map(|runtime| unseen_blocking(runtime, snapshot));
    unseen + blocking.sum::<usize>()
}

/// Blocking tasks are in no count of tasks; but each has a thread or a place in a queue.
#[cfg(all(tokio_unstable, target_has_atomic = "64"))]
fn unseen_blocking(runtime: &Handle, snapshot: &Snapshot) -> usize {
    let metrics = runtime.metrics();
    let threads = metrics.num_blocking_threads();
    let busy = threads.saturating_sub(metrics.num_idle_blocking_threads());
    let (workers, others): (Vec<_>, Vec<_>) = (snapshot.tasks())
        .filter(|task| task.kind() == Kind::Blocking && may_be_on(task, runtime.id()))
        .partition(|task| is_worker(task));
    // Workers are in none of tokio's numbers, but for those that `block_in_place` made: in a task.
    let is_stand_in = |worker: &&&Task| worker.parent().is_some_and(|above| above.task().is_some());
    let stand_ins = workers.iter().filter(is_stand_in).count();
    (busy + metrics.blocking_queue_depth()).saturating_sub(others.len() + stand_ins)
}

#[cfg(not(all(tokio_unstable, target_has_atomic = "64")))]
fn unseen_blocking(_: &Handle, _: &Snapshot) -> usize {
    0
}

#[cfg(all(tokio_unstable, target_has_atomic = "64"))]
fn is_worker(task: &Task) -> bool {
    task.is_daemon() && task.location().file().contains("/src/runtime/scheduler/")
}

/// Whether a task is on a runtime: before its first poll on any that its scope has to do with.
fn may_be_on(task: &Task, runtime: Id) -> bool {
    match task.runtime() {
        Some(known) => known == runtime,
        None => task.scope().is_none_or(|scope| scope.has_met(runtime)),
    }
}

/// Whether a runtime was shut down: then it cancels a task in the middle of its spawn. tokio has
/// no other way to ask.
pub(super) fn is_shut_down(runtime: &Handle) -> bool {
    let is_here = |here: Handle| here.id() == runtime.id();
    if Handle::try_current().is_ok_and(is_here) {
        return false;
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let probe = Probe {
        polled: false,
        dropped: Arc::clone(&dropped),
    };
    // Nobody is to see it.
    let nobody = Dispatch::new(NoSubscriber::default());
    let spawned = dispatcher::with_default(&nobody, || runtime.spawn(probe));
    let shut_down = dropped.load(Ordering::Acquire);
    if !shut_down {
        spawned.abort();
        PROBES.lock().push((runtime.id(), spawned));
    }
    shut_down
}

fn probes_on(id: Id) -> usize {
    let mut probes = PROBES.lock();
    probes.retain(|(_, probe)| !probe.is_finished());
    probes.iter().filter(|(runtime, _)| *runtime == id).count()
}

struct Probe {
    polled: bool,
    dropped: Arc<AtomicBool>,
}

impl Future for Probe {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.polled = true;
        Poll::Ready(())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.polled {
            self.dropped.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    #[test]
    fn a_runtime_is_shut_down_when_it_is_dropped() {
        for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            let runtime = builder.build().expect("a runtime");
            let handle = runtime.handle().clone();
            assert!(!is_shut_down(&handle));
            runtime.block_on(async { assert!(!is_shut_down(&handle)) });
            drop(runtime);
            assert!(is_shut_down(&handle));
        }
    }
}
