//! The runtimes that tasks were seen on.
//!
//! A runtime's own count of its tasks settles what spans leave open, and asking for it
//! takes a `Handle`, which keeps parts of the runtime. So a handle is held only while
//! tasks of that runtime are tracked, and let go at the second look that finds none.

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::runtime::{Handle, Id};

/// Runtimes known at once, at most. A snapshot lets go of those without a task, and of
/// their handles: never a poll, as with a runtime's last handle closures of the host's go.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Runtimes {
    known: Mutex<Known>,
    /// Changes when a number has gone out of use, so that threads forget theirs.
    epoch: AtomicU64,
    hooks_set: AtomicBool,
    unknown: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    next: u32,
    by_number: HashMap<u32, Runtime>,
    by_id: HashMap<Id, u32>,
    /// Let go, if the next look finds them without a task too.
    unused: HashSet<u32>,
    unhooked: HashSet<Id>,
}

#[derive(Debug)]
struct Runtime {
    handle: Handle,
    hooked: bool,
    /// Every task it has was seen spawned.
    complete: bool,
}

/// What a runtime says of its tasks. Two that are equal say that none was spawned and none ended
/// between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeCount {
    pub(crate) id: Id,
    pub(crate) alive: usize,
    spawned: u64,
    /// Whether all of them can be known.
    pub(crate) complete: bool,
}

impl RuntimeCount {
    fn of(runtime: &Runtime) -> Self {
        let metrics = runtime.handle.metrics();
        Self {
            id: runtime.handle.id(),
            alive: metrics.num_alive_tasks(),
            #[cfg(all(tokio_unstable, target_has_atomic = "64"))]
            spawned: metrics.spawned_tasks_count(),
            // Then only tasks whose ends are certain are seen, and nothing is to be settled.
            #[cfg(not(all(tokio_unstable, target_has_atomic = "64")))]
            spawned: 0,
            complete: runtime.complete,
        }
    }
}

impl Known {
    fn find(&mut self, id: Id) -> Option<u32> {
        let number = *self.by_id.get(&id)?;
        self.unused.remove(&number);
        Some(number)
    }
}

/// A thread's memory of the runtime it met last.
#[derive(Debug, Default)]
pub(crate) struct LastRuntime {
    id: Option<Id>,
    number: u32,
    epoch: u64,
    hooked: bool,
    strange: bool,
}

impl LastRuntime {
    /// Whether this thread has yet to say that our hooks run on the runtime it met last.
    pub(crate) fn is_news_that_hooked(&mut self) -> bool {
        !std::mem::replace(&mut self.hooked, true)
    }
}

impl Runtimes {
    /// The number (from 1) of the runtime this thread is in, or 0. `unpolled` counts
    /// the tracked tasks whose runtime is not known yet, or says that they are too many.
    pub(crate) fn current(
        &self,
        last: &mut LastRuntime,
        unpolled: impl FnOnce() -> Option<usize>,
    ) -> u32 {
        let Ok(handle) = Handle::try_current() else {
            return 0;
        };
        let id = handle.id();
        let epoch = self.epoch.load(Ordering::Acquire);
        if last.id == Some(id) && last.epoch == epoch {
            return last.number;
        }
        let number = self.add(id, handle, unpolled);
        *last = LastRuntime {
            id: Some(id),
            number,
            epoch,
            hooked: false,
            strange: false,
        };
        number
    }

    fn add(&self, id: Id, handle: Handle, unpolled: impl FnOnce() -> Option<usize>) -> u32 {
        if let Some(number) = self.known.lock().find(id) {
            return number;
        }
        // At its first tracked poll a runtime has the tasks that were just seen spawned,
        // and those from before the layer.
        let alive = handle.metrics().num_alive_tasks();
        let complete = unpolled().is_some_and(|seen| alive <= seen);
        let mut known = self.known.lock();
        if let Some(number) = known.find(id) {
            return number;
        }
        if known.by_number.len() >= MOST {
            drop(known);
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return 0;
        }
        known.next = known.next.wrapping_add(1).max(1);
        let number = known.next;
        known.by_id.insert(id, number);
        let runtime = Runtime {
            handle,
            hooked: false,
            complete,
        };
        known.by_number.insert(number, runtime);
        number
    }

    /// How often a runtime could not be told from others, because too many were known.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Notes that some runtime's builder has our hooks.
    #[cfg(tokio_unstable)]
    pub(crate) fn hooks_are_set(&self) {
        self.hooks_set.store(true, Ordering::Relaxed);
    }

    pub(crate) fn are_hooks_set(&self) -> bool {
        self.hooks_set.load(Ordering::Relaxed)
    }

    /// Notes that our hooks run on this runtime.
    pub(crate) fn set_hooked(&self, number: u32) {
        let mut known = self.known.lock();
        if let Some(runtime) = known.by_number.get_mut(&number) {
            runtime.hooked = true;
        }
    }

    /// Notes a runtime whose tasks no hook announces. Gives false where it is hooked.
    pub(crate) fn add_unhooked(&self, handle: &Handle) -> bool {
        /// More than anybody reads in a report.
        const MOST: usize = 64;
        let mut known = self.known.lock();
        let id = handle.id();
        let hooked = (known.by_id.get(&id))
            .and_then(|number| known.by_number.get(number))
            .is_some_and(|runtime| runtime.hooked);
        if !hooked && known.unhooked.len() < MOST {
            known.unhooked.insert(id);
        }
        !hooked
    }

    pub(crate) fn unhooked(&self) -> Vec<Id> {
        self.known.lock().unhooked.iter().copied().collect()
    }

    /// The ids of all known runtimes by number, for a snapshot.
    pub(crate) fn ids(&self) -> HashMap<u32, Id> {
        let known = self.known.lock();
        known.by_id.iter().map(|(&id, &n)| (n, id)).collect()
    }

    /// What each runtime counts itself. `LocalSet`, `block_on` and blocking tasks are not among
    /// them. A runtime that was shut down has none.
    pub(crate) fn counts(&self) -> HashMap<u32, RuntimeCount> {
        let known = self.known.lock();
        let counts = known.by_number.iter();
        counts
            .map(|(&number, runtime)| (number, RuntimeCount::of(runtime)))
            .collect()
    }

    /// Notes that a task was spawned on the runtime that this thread is in by one that nobody
    /// announced.
    pub(crate) fn has_strangers(&self, last: &mut LastRuntime) {
        let Ok(handle) = Handle::try_current() else {
            return;
        };
        if last.id == Some(handle.id()) && std::mem::replace(&mut last.strange, true) {
            return;
        }
        let mut known = self.known.lock();
        if let Some(number) = known.by_id.get(&handle.id()).copied()
            && let Some(runtime) = known.by_number.get_mut(&number)
        {
            runtime.complete = false;
        }
    }

    /// The same runtime, to look at more closely. Not for a poll, where it could be the last.
    pub(crate) fn handle(&self, number: u32) -> Option<(Handle, bool)> {
        let known = self.known.lock();
        let runtime = known.by_number.get(&number)?;
        Some((runtime.handle.clone(), runtime.complete))
    }

    /// Lets go of runtimes that two looks in a row found without a tracked task, nor any of
    /// their own count.
    pub(crate) fn release_unused(&self, in_use: &HashSet<u32>) {
        let mut released = Vec::new();
        {
            let mut known = self.known.lock();
            // One that has tasks may be about to be noted as the runtime of one.
            let has_none = |runtime: &Runtime| runtime.handle.metrics().num_alive_tasks() == 0;
            let unused: HashSet<u32> = (known.by_number.iter())
                .filter(|(number, runtime)| !in_use.contains(number) && has_none(runtime))
                .map(|(&number, _)| number)
                .collect();
            for number in known.unused.intersection(&unused) {
                released.push(*number);
            }
            known.unused = unused;
            let gone: Vec<Runtime> = (released.iter())
                .filter_map(|number| known.by_number.remove(number))
                .collect();
            known.by_id.retain(|_, number| !released.contains(number));
            if !gone.is_empty() {
                self.epoch.fetch_add(1, Ordering::Release);
            }
            drop(known);
            // Without the lock: the last handle frees a runtime.
            drop(gone);
        }
    }
}
