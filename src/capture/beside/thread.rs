//! The threads that [`Beside`] is set on, and who was there before.
//!
//! A thread joins where somebody asks for it, and for as long as it polls a task whose span is
//! one of ours: what that task spawns goes through the thread's subscriber. The ways in are
//! a stack, as each has the subscriber that was there before.

use super::Beside;
use super::neighbour::{Neighbour, is_unset};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tracing_core::Dispatch;
use tracing_core::dispatcher::{self, DefaultGuard};
use tracing_core::subscriber::NoSubscriber;

thread_local! {
    static STAYS: RefCell<Vec<Stay>> = const { RefCell::new(Vec::new()) };
}

/// How many [`Joined`] there are in the process.
static JOINED: AtomicUsize = AtomicUsize::new(0);
/// What [`subscribers`] gives.
static SUBSCRIBERS: AtomicUsize = AtomicUsize::new(0);

/// One way in which a thread has joined.
struct Stay {
    why: Why,
    next: Next,
    /// Puts back who was there before. Dropped on its thread, before those below.
    _guard: DefaultGuard,
}

enum Why {
    /// For as long as this says, which may be said on another thread.
    Asked(Arc<AtomicBool>),
    Tasks {
        /// How many task spans are entered here.
        depth: u32,
        /// Whether to stay between two tasks, while anybody asks: a worker's driver wakes
        /// tasks then. Only where nobody can drop a guard of an older subscriber meanwhile, and
        /// on no thread of the program's own.
        rests: bool,
    },
}

/// Who else is told what happens on a thread.
#[derive(Clone)]
enum Next {
    Known(Arc<Neighbour>),
    /// A subscriber that sees nothing.
    Nobody,
    /// None was ever set here, so that a global one counts as soon as there is one. There was
    /// none when [`subscribers`] gave this.
    NotYet(usize),
}

impl Stay {
    fn is_over(&self) -> bool {
        match &self.why {
            Why::Asked(over) => over.load(Ordering::Acquire),
            Why::Tasks { depth: 0, rests } => !rests || JOINED.load(Ordering::Acquire) == 0,
            Why::Tasks { .. } => false,
        }
    }
}

/// Ends a stay when it is dropped, wherever that is.
#[derive(Debug)]
#[must_use = "the thread leaves when this is dropped"]
pub(crate) struct Joined {
    over: Option<Arc<AtomicBool>>,
}

impl Joined {
    pub(super) fn nothing() -> Self {
        Self { over: None }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(over) = &self.over {
            over.store(true, Ordering::Release);
            JOINED.fetch_sub(1, Ordering::AcqRel);
        }
        // On another thread it is for that one to notice.
        settle();
    }
}

/// Whether [`Beside`] is this thread's subscriber. `None` within the callbacks in which
/// tracing lets nobody set another, and where the thread ends.
pub(super) fn is_here() -> Option<bool> {
    dispatcher::get_current(|dispatch| dispatch.is::<Beside>())
}

/// Joins until the result is dropped.
pub(super) fn join(beside: &Dispatch) -> Joined {
    settle();
    let over = Arc::new(AtomicBool::new(false));
    JOINED.fetch_add(1, Ordering::AcqRel);
    // In the middle of a task of ours each of its polls joins anyway, on whatever thread.
    if !is_in_task() {
        push(Why::Asked(Arc::clone(&over)), beside);
    }
    Joined { over: Some(over) }
}

/// A task's span is entered.
pub(super) fn enter_task(beside: impl FnOnce() -> Option<Dispatch>) {
    match is_here() {
        Some(true) => with_tasks(|depth| *depth += 1),
        Some(false) => {
            if let Some(beside) = beside() {
                let why = Why::Tasks {
                    depth: 1,
                    rests: false,
                };
                push(why, &beside);
            }
        }
        None => {}
    }
}

/// It is left.
pub(super) fn exit_task() {
    if is_here().is_some() {
        with_tasks(|depth| *depth = depth.saturating_sub(1));
    }
}

/// Leaves in every way that is over. One that is not the last comes to its turn later, and so
/// does one over which the program has set another subscriber.
pub(super) fn settle() {
    while with_stays(|stays| stays.last().is_some_and(Stay::is_over)) == Some(true)
        && is_here() == Some(true)
    {
        // Without the borrow: what it frees may be the program's.
        drop(with_stays(Vec::pop));
    }
}

/// Who else is told what happens on this thread.
pub(super) fn neighbour() -> Option<Arc<Neighbour>> {
    let Some(next) = with_stays(|stays| stays.last().map(|stay| stay.next.clone()))? else {
        return beyond();
    };
    match next {
        Next::Known(neighbour) => Some(neighbour),
        Next::Nobody => None,
        Next::NotYet(then) => {
            let now = subscribers();
            if now == then {
                return None;
            }
            let found = global().map(|global| Arc::new(Neighbour::new(global)));
            let next = found.clone().map_or(Next::NotYet(now), Next::Known);
            with_stays(|stays| {
                if let Some(stay) = stays.last_mut() {
                    stay.next = next;
                }
            });
            found
        }
    }
}

/// Who is told on a thread that never joined, where somebody handed it our subscriber or a span of
/// a neighbour's: the process's.
fn beyond() -> Option<Arc<Neighbour>> {
    static GLOBAL: Mutex<Option<(usize, Option<Arc<Neighbour>>)>> = Mutex::new(None);
    let now = subscribers();
    let mut known = GLOBAL.lock();
    if let Some((_, neighbour)) = known.as_ref().filter(|&&(then, _)| then == now) {
        return neighbour.clone();
    }
    let found = global().map(|global| Arc::new(Neighbour::new(global)));
    *known = Some((now, found.clone()));
    found
}

/// Grows with each new subscriber of the process, and when one changes its filters.
pub(super) fn subscribers() -> usize {
    SUBSCRIBERS.load(Ordering::Acquire)
}

/// There may be a new subscriber.
pub(super) fn subscribers_changed() {
    SUBSCRIBERS.fetch_add(1, Ordering::AcqRel);
}

/// The process's subscriber, of which tracing tells only threads that have no other.
fn global() -> Option<Dispatch> {
    let thread = std::thread::Builder::new().name("straggler-looks".into());
    let found = thread
        .spawn(|| dispatcher::get_default(Dispatch::clone))
        .ok()?;
    let found = found.join().ok()?;
    (!found.is::<NoSubscriber>()).then_some(found)
}

fn push(why: Why, beside: &Dispatch) {
    let subscribers = subscribers();
    let Some(before) = dispatcher::get_current(Dispatch::clone) else {
        return;
    };
    let below = with_stays(|stays| stays.last().map(|stay| stay.next.clone())).flatten();
    let is_unset = is_unset(&before);
    let why = match why {
        Why::Tasks { depth, .. } => Why::Tasks {
            depth,
            rests: is_unset && below.is_none() && is_worker(),
        },
        asked => asked,
    };
    let next = if before.is::<Beside>() {
        below.unwrap_or(Next::Nobody)
    } else if !before.is::<NoSubscriber>() {
        Next::Known(Arc::new(Neighbour::new(before)))
    } else if is_unset {
        Next::NotYet(subscribers)
    } else {
        Next::Nobody
    };
    let stay = Stay {
        why,
        next,
        _guard: dispatcher::set_default(beside),
    };
    // Where the thread's storage is gone, this puts back who was there.
    with_stays(|stays| stays.push(stay));
}

/// Whether this is a worker of a runtime.
fn is_worker() -> bool {
    #[cfg(tokio_unstable)]
    if let Ok(runtime) = tokio::runtime::Handle::try_current()
        && runtime.runtime_flavor() != tokio::runtime::RuntimeFlavor::CurrentThread
    {
        let (metrics, here) = (runtime.metrics(), std::thread::current().id());
        return (0..metrics.num_workers())
            .any(|worker| metrics.worker_thread_id(worker) == Some(here));
    }
    false
}

fn is_in_task() -> bool {
    let in_task = |stay: &Stay| matches!(stay.why, Why::Tasks { depth: 1.., .. });
    is_here() == Some(true) && with_stays(|stays| stays.last().is_some_and(in_task)) == Some(true)
}

fn with_tasks(f: impl FnOnce(&mut u32)) {
    with_stays(|stays| {
        let mut depths = stays
            .iter_mut()
            .rev()
            .filter_map(|stay| match &mut stay.why {
                Why::Tasks { depth, .. } => Some(depth),
                Why::Asked(_) => None,
            });
        depths.next().map(f);
    });
}

fn with_stays<R>(f: impl FnOnce(&mut Vec<Stay>) -> R) -> Option<R> {
    let done = STAYS.try_with(|stays| stays.try_borrow_mut().ok().map(|mut stays| f(&mut stays)));
    done.ok().flatten()
}
