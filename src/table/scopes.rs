//! Scopes: all that was spawned from a moment on by one task or thread, and by what it spawned.
//!
//! A scope is opened by who runs a test. Its *opener* is the task that was being polled then,
//! or the thread where there was none: `block_on`'s own task may never have been seen.
//!
//! | step | by whom | afterwards |
//! |---|---|---|
//! | `open` | the opener | what it spawns is of this scope, and of those around it |
//! | [`spawned`](Scope::spawned) | the spawner | the task holds its innermost scope |
//! | [`ended`](Scope::ended) | who tells of the end | counted, nothing is kept of the task |
//! | [`close`](Scope::close) | whoever opened it, on any thread | what is spawned from now on is of the scope around it |

// Nothing else opens one; what hands them on is the same in every build.
#![cfg_attr(not(feature = "testing"), allow(dead_code))]

use super::LastTurn;
use super::tallies::Outcome;
use crate::clock::Nanos;
use crate::histogram::{Histogram, LIFETIME};
use crate::task::Kind;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::runtime::{Handle, Id};

/// Outputs are dropped soon after their tasks, or with a handle that somebody keeps.
const MOST_ENDED: usize = 1_024;
/// More runtimes than one test has; those beyond are not asked for their tasks.
const MOST_RUNTIMES: usize = 256;

#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) opener: Opener,
    pub(crate) opened_at: Nanos,
    /// Those round it that are open.
    outer: Mutex<Innermost>,
    closed: AtomicBool,
    state: Mutex<State>,
}

/// Who opened a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    /// A thread, outside of every task that was seen.
    Thread,
    /// A task that is not in the table.
    Unknown(u64),
    /// One of this spawn site.
    Task { site: u32 },
}

#[derive(Debug, Default)]
struct State {
    sites: HashMap<u32, ScopeTotals>,
    /// Those of which it holds a handle, while it is open.
    runtimes: Vec<Handle>,
    /// All of them.
    met: Vec<Id>,
    unseen_parents: u64,
    /// Whether any task was spawned, beside futures that a thread itself waited for.
    had_tasks: bool,
    /// The tasks that ended last: what the drop of their output spawns is spawned by them.
    ended: VecDeque<u64>,
}

/// What a scope's tasks of one spawn site came to.
#[derive(Clone, Debug)]
pub(crate) struct ScopeTotals {
    pub(crate) spawned: u64,
    pub(crate) completed: u64,
    pub(crate) panicked: u64,
    pub(crate) aborted: u64,
    /// Of those that ended.
    pub(crate) polls: u64,
    pub(crate) lifetime: Histogram,
}

impl ScopeTotals {
    pub(crate) fn new() -> Self {
        Self {
            spawned: 0,
            completed: 0,
            panicked: 0,
            aborted: 0,
            polls: 0,
            lifetime: Histogram::new(&LIFETIME),
        }
    }

    fn outcome(&mut self, outcome: Outcome) -> Option<&mut u64> {
        match outcome {
            Outcome::Completed => Some(&mut self.completed),
            Outcome::Panicked => Some(&mut self.panicked),
            Outcome::Aborted => Some(&mut self.aborted),
            Outcome::Unknown => None,
        }
    }
}

/// How a task of a scope ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    id: u64,
    site: u32,
    lifetime: u64,
    outcome: Outcome,
    polls: u64,
}

impl End {
    /// `turns` are those of the task, with what the newest was.
    pub(super) fn new(
        (id, site): (u64, u32),
        lifetime: u64,
        outcome: Outcome,
        (turns, last): (u64, LastTurn),
    ) -> Self {
        let polls = match last {
            LastTurn::Poll => turns,
            LastTurn::Drop => turns.saturating_sub(1),
        };
        Self {
            id,
            site,
            lifetime,
            outcome,
            polls,
        }
    }
}

impl Scope {
    /// Counts a task as spawned here, before it can be seen.
    pub(super) fn spawned(&self, site: u32, kind: Kind) {
        let here = Handle::try_current().ok();
        let here = here.filter(|_| kind != Kind::BlockOn);
        self.each(|scope| {
            let mut state = scope.state.lock();
            let totals = (state.sites.entry(site)).or_insert_with(ScopeTotals::new);
            totals.spawned += 1;
            state.had_tasks |= kind != Kind::BlockOn;
            if let Some(here) = &here
                && !scope.is_closed()
            {
                state.met(here);
            }
        });
    }

    /// Counts a task as ended.
    pub(super) fn ended(&self, end: End) {
        self.each(|scope| {
            let mut state = scope.state.lock();
            note(&mut state.ended, end.id);
            if let Some(totals) = state.sites.get_mut(&end.site) {
                totals.polls += end.polls;
                totals.lifetime.record(end.lifetime);
                if let Some(count) = totals.outcome(end.outcome) {
                    *count += 1;
                }
            }
        });
    }

    /// Takes an end back that was counted too early.
    pub(super) fn take_back(&self, end: End) {
        self.each(|scope| {
            if let Some(totals) = scope.state.lock().sites.get_mut(&end.site) {
                totals.polls -= end.polls;
                totals.lifetime.take_back(end.lifetime);
                if let Some(count) = totals.outcome(end.outcome) {
                    *count -= 1;
                }
            }
        });
    }

    /// Notes a runtime that one of its tasks was spawned or polled on.
    pub(super) fn meet(&self, runtime: &Handle) {
        self.each(|scope| {
            let mut state = scope.state.lock();
            // Asked under the lock, which `close` takes after it has said so.
            if !scope.is_closed() {
                state.met(runtime);
            }
        });
    }

    /// Itself, and those round it that are open.
    fn each(&self, mut f: impl FnMut(&Self)) {
        f(self);
        let mut next = self.outer.lock().open();
        while let Some(scope) = next {
            f(&scope);
            next = scope.outer.lock().open();
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// Keeps the number of a task that ended, for a while.
fn note(ended: &mut VecDeque<u64>, task: u64) {
    if ended.len() >= MOST_ENDED {
        ended.pop_front();
    }
    ended.push_back(task);
}

impl State {
    fn met(&mut self, runtime: &Handle) {
        let id = runtime.id();
        if self.met.len() < MOST_RUNTIMES && !self.met.contains(&id) {
            self.met.push(id);
            self.runtimes.push(runtime.clone());
        }
    }
}

/// What is read of a scope, and how it is opened and closed.
impl Scope {
    pub(super) fn new(opener: Opener, opened_at: Nanos, outer: Option<Arc<Self>>) -> Arc<Self> {
        let mut state = State::default();
        if let Ok(here) = Handle::try_current() {
            state.met(&here);
        }
        Arc::new(Self {
            opener,
            opened_at,
            outer: Mutex::new(Innermost::of(outer)),
            closed: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// Nothing is spawned in it any more. The handles of runtimes are let go here, where the
    /// host waits for nothing, and not with the last task.
    pub(crate) fn close(&self) {
        // Release pairs with the acquire in `is_closed`.
        self.closed.store(true, Ordering::Release);
        let runtimes = std::mem::take(&mut self.state.lock().runtimes);
        drop(runtimes);
    }

    /// Whether a task that holds `held` is of this scope.
    pub(crate) fn has(&self, held: &Self) -> bool {
        let mut found = false;
        held.each(|scope| found |= std::ptr::eq(scope, self));
        found
    }

    /// What became of its tasks, by the number of the site.
    pub(crate) fn totals(&self) -> HashMap<u32, ScopeTotals> {
        self.state.lock().sites.clone()
    }

    /// Whether anything was spawned that could be left.
    pub(crate) fn has_had_tasks(&self) -> bool {
        self.state.lock().had_tasks
    }

    /// The runtimes in which it was opened and its tasks were spawned.
    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        self.state.lock().runtimes.clone()
    }

    /// Whether its tasks, or those of a scope round it, may be on this runtime.
    pub(crate) fn has_met(&self, runtime: Id) -> bool {
        let mut has_met = false;
        self.each(|scope| has_met |= scope.state.lock().met.contains(&runtime));
        has_met
    }

    /// Tasks spawned on its runtimes by a task that was never seen.
    pub(crate) fn unseen_parents(&self) -> u64 {
        self.state.lock().unseen_parents
    }
}

/// The scopes that a task's children or a thread's tasks are spawned in, innermost last.
#[derive(Debug, Default)]
pub(crate) struct Innermost(Option<Arc<Scope>>);

impl Innermost {
    pub(super) fn of(scope: Option<Arc<Scope>>) -> Self {
        Self(scope)
    }

    /// The one that is open now.
    pub(crate) fn open(&mut self) -> Option<Arc<Scope>> {
        while let Some(closed) = self.0.as_ref().filter(|scope| scope.is_closed()) {
            let next = closed.outer.lock().0.clone();
            self.0 = next;
        }
        self.0.clone()
    }

    /// Opens another in it.
    pub(crate) fn push(&mut self, opener: Opener, now: Nanos) -> Arc<Scope> {
        let outer = self.open();
        if let Some(outer) = &outer {
            // Or watches that take turns, each opened in the one before, would make a long chain.
            drop(outer.outer.lock().open());
        }
        let scope = Scope::new(opener, now, outer);
        self.0 = Some(Arc::clone(&scope));
        scope
    }
}

/// The scopes of a table.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    /// Whether there ever was one: a spawn in a program without any looks no further.
    used: AtomicBool,
    open: Mutex<Vec<Weak<Scope>>>,
    /// Tasks that ended last, of whatever scope.
    ended: Mutex<VecDeque<u64>>,
}

impl Scopes {
    #[inline]
    pub(crate) fn are_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that a task has ended.
    #[cold]
    pub(super) fn ended(&self, task: u64) {
        note(&mut self.ended.lock(), task);
    }

    /// Whether a task that is not in the table was, and has ended.
    pub(crate) fn has_ended(&self, task: u64) -> bool {
        self.ended.lock().contains(&task)
    }

    /// The scope of a task that is not in the table: it opened the scope, or was of it and ended.
    pub(crate) fn of_unknown(&self, task: u64) -> Option<Arc<Scope>> {
        let is_its = |scope: &Arc<Scope>| {
            scope.opener == Opener::Unknown(task) || scope.state.lock().ended.contains(&task)
        };
        let mut open = self.all_open();
        let at = open.iter().rposition(is_its)?;
        Some(open.swap_remove(at))
    }

    /// A task was spawned by one that was never seen: which may have been of any scope of this
    /// runtime.
    pub(crate) fn unseen_parent(&self) {
        let Ok(here) = Handle::try_current() else {
            return;
        };
        for scope in self.all_open() {
            let mut state = scope.state.lock();
            if state.met.contains(&here.id()) {
                state.unseen_parents += 1;
            }
        }
    }

    fn all_open(&self) -> Vec<Arc<Scope>> {
        let open = self.open.lock();
        let scopes = open.iter().filter_map(Weak::upgrade);
        scopes.filter(|scope| !scope.is_closed()).collect()
    }

    pub(crate) fn opened(&self, scope: &Arc<Scope>) {
        self.used.store(true, Ordering::Relaxed);
        let mut open = self.open.lock();
        open.retain(|scope| scope.upgrade().is_some_and(|scope| !scope.is_closed()));
        open.push(Arc::downgrade(scope));
    }
}
