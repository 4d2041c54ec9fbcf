//! `straggler::spawn`: a source of its own, on every tokio and without any cfg.
//!
//! The future is wrapped, so its polls are polls, its drop is its end, and both are
//! certain. Where the layer's spans or a hook see the same spawn, they enter the task
//! into the table, marked as told by the wrapper, and add what only they know.

use super::behind;
use super::local::{self, Seen};
use super::origin::Origin;
use super::parents::ParentRules;
use super::visit::Bounded;
use crate::table::{Key, LastTurn, Outcome, Place, Table, traits};
use crate::task::{Kind, Spans, raw_current, raw_id};
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;
use tracing_core::dispatcher;

thread_local! {
    static DAEMON: Cell<u32> = const { Cell::new(0) };
    static NEXT: RefCell<Option<Wrapped>> = const { RefCell::new(None) };
}

/// Declares tasks daemons: those spawned on this thread while `f` runs are roots of
/// their own, have no parent, and are never orphans. Their children are judged as any.
///
/// For the singleton that a request happens to start: a pool's reaper, a cache's
/// refresher. What `f` spawns later, or on other threads, is not covered.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let reaper = straggler::daemon(|| tokio::spawn(async { /* for as long as the process */ }));
/// # reaper.await.unwrap();
/// # }
/// ```
pub fn daemon<R>(f: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            DAEMON.with(|depth| depth.set(depth.get().saturating_sub(1)));
        }
    }
    DAEMON.with(|depth| depth.set(depth.get() + 1));
    let _leave = Leave;
    f()
}

/// Whether this thread is within [`daemon`].
pub(crate) fn in_daemon() -> bool {
    DAEMON.try_with(|depth| depth.get() > 0).unwrap_or(false)
}

/// Says that the spawn under way on this thread is of a wrapped future. Whoever sees it
/// first, a span or a hook, takes it and enters the task.
pub(crate) struct Wrapped {
    shared: Arc<Shared>,
}

/// What a span or a hook knows of the spawn of a wrapped future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    pub(crate) id: u64,
    pub(crate) span: u64,
    pub(crate) kind: Kind,
    pub(crate) traits: u32,
}

impl Wrapped {
    pub(crate) fn take(table: &Arc<Table>) -> Option<Self> {
        let taken = NEXT.try_with(|next| {
            let mut next = next.try_borrow_mut().ok()?;
            next.take_if(|wrapped| Arc::ptr_eq(&wrapped.shared.table, table))
        });
        taken.ok().flatten()
    }

    fn announce(self) {
        NEXT.with(|next| *next.borrow_mut() = Some(self));
    }

    /// Enters the task, unless it is over already.
    pub(crate) fn enter(self, sighting: Sighting) -> Option<Key> {
        self.shared.entered(sighting)
    }
}

/// Spawns a future like [`tokio::spawn`], seen by straggler with or without
/// `tokio_unstable`, with exact polls, end and outcome.
///
/// It reports to the straggler layer of the subscriber that is current on this thread;
/// without one it is [`tokio::spawn`]. Costs one allocation more.
///
/// # Panics
///
/// As [`tokio::spawn`]: outside of a tokio runtime.
#[track_caller]
pub fn spawn<F>(f: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    task_of(None).spawn(f)
}

/// Spawns a future like [`tokio::task::spawn_local`]; otherwise as [`spawn`].
///
/// # Panics
///
/// As [`tokio::task::spawn_local`]: outside of a `LocalSet` or `LocalRuntime`.
#[track_caller]
pub fn spawn_local<F>(f: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    task_of(None).spawn_local(f)
}

/// Names the task to be spawned: `straggler::task("refresh").spawn(future)`.
///
/// A name is part of the spawn site, so name tasks by what they do, not by a number:
/// `max_spawn_sites` bounds how many there can be. tokio-console shows it too, where
/// `tokio_unstable` is set.
pub fn task(name: impl Into<Arc<str>>) -> TaskBuilder {
    task_of(Some(name.into()))
}

fn task_of(name: Option<Arc<str>>) -> TaskBuilder {
    TaskBuilder { name }
}

/// A named task about to be spawned; made by [`task`].
#[derive(Clone, Debug)]
#[must_use = "nothing is spawned until `spawn` is called"]
pub struct TaskBuilder {
    name: Option<Arc<str>>,
}

impl TaskBuilder {
    /// Spawns it as [`straggler::spawn`](spawn) does.
    ///
    /// # Panics
    ///
    /// As [`tokio::spawn`]: outside of a tokio runtime.
    #[track_caller]
    pub fn spawn<F>(self, f: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        #[cfg(all(tokio_unstable, feature = "spans"))]
        let name = self.name.clone();
        let (future, spawning) = self.wrap(f, Kind::Task);
        // By its path: tokio asks for its caller, which a call through a parameter hides.
        #[cfg(all(tokio_unstable, feature = "spans"))]
        if let Some(name) = name {
            let handle = tokio::task::Builder::new().name(&name).spawn(future);
            return spawning.spawned(spawned_by_builder(handle));
        }
        spawning.spawned(tokio::spawn(future))
    }

    /// Spawns it as [`straggler::spawn_local`](spawn_local) does.
    ///
    /// # Panics
    ///
    /// As [`tokio::task::spawn_local`]: outside of a `LocalSet` or `LocalRuntime`.
    #[track_caller]
    pub fn spawn_local<F>(self, f: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        #[cfg(all(tokio_unstable, feature = "spans"))]
        let name = self.name.clone();
        let (future, spawning) = self.wrap(f, Kind::Local);
        #[cfg(all(tokio_unstable, feature = "spans"))]
        if let Some(name) = name {
            let handle = tokio::task::Builder::new().name(&name).spawn_local(future);
            return spawning.spawned(spawned_by_builder(handle));
        }
        spawning.spawned(tokio::task::spawn_local(future))
    }

    #[track_caller]
    fn wrap<F: Future>(self, inner: F, kind: Kind) -> (Tracked<F>, Spawning) {
        let capture = dispatcher::get_default(behind::find);
        // Asked out here, as a closure has a caller of its own.
        let location = Location::caller();
        let shared = capture.map(|capture| {
            let plan = Plan {
                name: self.name,
                kind,
                size: size_of::<F>(),
                ..Plan::new(&capture.table, &capture.rules, location)
            };
            let shared = Arc::new(Shared {
                table: Arc::clone(&capture.table),
                stage: Mutex::new(Stage::Planned(Box::new(plan))),
            });
            let announced = Arc::clone(&shared);
            Wrapped { shared: announced }.announce();
            shared
        });
        let life = Life {
            shared: shared.clone(),
            ..Life::default()
        };
        (Tracked { inner, life }, Spawning { shared })
    }
}

/// tokio's named spawns return a `Result` though they can't fail: its error is for blocking
/// tasks, which may need a thread.
#[cfg(all(tokio_unstable, feature = "spans"))]
#[track_caller]
fn spawned_by_builder<T>(handle: std::io::Result<JoinHandle<T>>) -> JoinHandle<T> {
    handle.unwrap_or_else(|error| panic!("straggler: tokio could not spawn a task: {error}"))
}

/// A spawn under way on this thread. tokio panics where it can't spawn; then this
/// takes the announcement back, which is not the next task's.
struct Spawning {
    shared: Option<Arc<Shared>>,
}

impl Spawning {
    fn spawned<T>(self, handle: JoinHandle<T>) -> JoinHandle<T> {
        if let Some(shared) = &self.shared {
            shared.seen_by_nobody_else(raw_id(handle.id()));
        }
        handle
    }
}

impl Drop for Spawning {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            // Taken already by whoever saw the spawn; still here if nobody did.
            Wrapped::take(&shared.table);
        }
    }
}

/// What the spawner knows, kept until somebody knows the task's id.
#[derive(Debug)]
struct Plan {
    name: Option<Arc<str>>,
    kind: Kind,
    size: usize,
    location: &'static Location<'static>,
    spans: Option<Spans>,
    origin: Option<Origin>,
    /// What `try_id` gave there.
    planned_in: u64,
}

impl Plan {
    fn new(table: &Arc<Table>, rules: &ParentRules, location: &'static Location<'static>) -> Self {
        let around =
            dispatcher::get_default(|dispatch| (rules.around_current)(dispatch, table, rules));
        let origin = local::with(table, |local| local.origin(table));
        Self {
            name: None,
            kind: Kind::Task,
            size: 0,
            location,
            spans: rules.spans(around),
            origin,
            planned_in: raw_current(),
        }
    }
}

/// Between all who may learn of the task first: a span, a hook, the spawner, the first
/// poller, the dropper. One of them enters it into the table.
struct Shared {
    table: Arc<Table>,
    stage: Mutex<Stage>,
}

enum Stage {
    Planned(Box<Plan>),
    /// At the limit, or the spawn failed.
    Refused,
    Entered(Key),
}

impl Shared {
    /// The task's key, entering it into the table if nobody did.
    fn entered(&self, sighting: Sighting) -> Option<Key> {
        let mut stage = self.stage.lock();
        if let Stage::Planned(plan) = &mut *stage {
            let key = self.enter(sighting, plan);
            *stage = key.map_or(Stage::Refused, Stage::Entered);
        }
        match *stage {
            Stage::Entered(key) => Some(key),
            Stage::Refused | Stage::Planned(_) => None,
        }
    }

    /// The same, where neither a span nor a hook told of the spawn.
    fn seen_by_nobody_else(&self, id: u64) -> Option<Key> {
        let kind = match &*self.stage.lock() {
            Stage::Planned(plan) => plan.kind,
            Stage::Refused => return None,
            Stage::Entered(key) => return Some(*key),
        };
        self.entered(Sighting {
            id,
            span: 0,
            kind,
            traits: 0,
        })
    }

    /// The key of a task whose future is dropped in `current` and was never polled. It
    /// may be dropped before the spawn returns, where the runtime is shut down.
    fn dropped_unpolled(&self, current: u64) -> Option<Key> {
        let mut stage = self.stage.lock();
        if let Stage::Planned(plan) = &*stage
            && (current == 0 || current == plan.planned_in)
        {
            // The drop of a task runs as that task. The spawn itself has failed.
            *stage = Stage::Refused;
            return None;
        }
        drop(stage);
        self.seen_by_nobody_else(current)
    }

    fn enter(&self, sighting: Sighting, plan: &mut Plan) -> Option<Key> {
        let table = &self.table;
        let mut name = Bounded::default();
        name.clear(table.config.max_name_len);
        name.push(plan.name.as_deref().unwrap_or_default());
        if name.is_cut() {
            table.loss.name_cut();
        }
        let seen = Seen {
            id: sighting.id,
            span: sighting.span,
            place: Place {
                file: plan.location.file(),
                line: plan.location.line(),
                column: plan.location.column(),
                kind: sighting.kind,
                name: name.as_str(),
            },
            size: Some(plan.size as u64),
            spans: plan.spans.take(),
            traits: sighting.traits | traits::BY_WRAPPER,
        };
        let origin = plan.origin.take().unwrap_or_else(Origin::unknown);
        local::with(table, |local| local.spawn_from(table, seen, origin)).flatten()
    }
}

pin_project_lite::pin_project! {
    /// A future that tells of its polls and its end.
    ///
    /// The fields are dropped in this order: the task has ended when its future is gone.
    struct Tracked<F> {
        #[pin]
        inner: F,
        life: Life,
    }
}

#[derive(Default)]
struct Life {
    shared: Option<Arc<Shared>>,
    key: Option<Key>,
    met: bool,
    completed: bool,
    panicked: bool,
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let turn = this.life.begin();
        let output = this.inner.poll(cx);
        drop(turn);
        this.life.completed = output.is_ready();
        output
    }
}

impl Life {
    fn begin(&mut self) -> InTurn<'_> {
        let current = raw_current();
        if !self.met
            && current != 0
            && let Some(shared) = &self.shared
        {
            self.met = true;
            self.key = shared.seen_by_nobody_else(current);
        }
        if let (Some(shared), Some(key)) = (&self.shared, self.key) {
            let table = &shared.table;
            let slot = table.slot(key);
            local::with(table, |local| {
                local.begin(table, key, slot, current, slot.span());
            });
        }
        InTurn {
            life: self,
            panicking: std::thread::panicking(),
        }
    }
}

/// Ends the turn, also where the poll panics.
struct InTurn<'a> {
    life: &'a mut Life,
    panicking: bool,
}

impl Drop for InTurn<'_> {
    fn drop(&mut self) {
        self.life.panicked = std::thread::panicking() && !self.panicking;
        if let (Some(shared), Some(key)) = (&self.life.shared, self.life.key) {
            let table = &shared.table;
            local::with(table, |local| local.finish_key(table, key));
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        let table = &shared.table;
        if !self.met {
            self.key = shared.dropped_unpolled(raw_current());
        }
        let Some(key) = self.key else { return };
        let outcome = match self {
            Self {
                completed: true, ..
            } => Outcome::Completed,
            Self { panicked: true, .. } => Outcome::Panicked,
            _ => Outcome::Aborted,
        };
        local::end(table, key, LastTurn::Poll, outcome);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
