//! What a scope's runtimes say of themselves.

use crate::query::Snapshot;
use crate::{Kind, Task};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::runtime::Handle;
use tracing_core::dispatcher;
use tracing_core::{Dispatch, subscriber::NoSubscriber};

/// How many live tasks of these runtimes nobody announced, as far as one look can tell: what is
/// spawned or ends meanwhile counts too.
pub(super) fn unseen(runtimes: &[Handle], snapshot: &Snapshot) -> usize {
    let of = |handle: &Handle| {
        let id = handle.id();
        let is_its = |task: &&Task| match task.runtime() {
            Some(runtime) => runtime == id,
            // Before its first poll: of any runtime on which those it belongs to are.
            None => task.scope().is_none_or(|scope| scope.has_met(id)),
        };
        let tasks = snapshot.tasks().filter(|task| task.kind() == Kind::Task);
        let known = tasks.filter(is_its).count() + snapshot.unconfirmed_on(id);
        handle.metrics().num_alive_tasks().saturating_sub(known)
    };
    runtimes.iter().map(of).sum()
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
    spawned.abort();
    shut_down
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
