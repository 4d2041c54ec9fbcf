//! Plain data about one task, as it was when the snapshot was taken.

mod id;
mod lineage;
mod location;

pub use id::TaskId;
pub(crate) use id::{current as raw_current, raw as raw_id};
pub(crate) use lineage::Spans;
pub use lineage::{Cause, Certainty, Orphaned, Parent, ParentSpan, ParentStatus};
pub use location::Location;

use crate::clock::{Nanos, Wall};
use crate::table::Rare;
#[cfg(feature = "testing")]
use crate::table::Scope;
use crate::text::Named;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What kind of task it is, in tokio's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// `tokio::spawn`, `Handle::spawn`, `JoinSet::spawn` …
    Task,
    /// `spawn_local` on a `LocalSet`.
    Local,
    /// `spawn_blocking`; the worker threads of a multi-thread runtime are such tasks too.
    Blocking,
    /// The future given to `Runtime::block_on`, and so the body of `#[tokio::main]`.
    BlockOn,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Task, Self::Local, Self::Blocking, Self::BlockOn];

    /// tokio's word for it: `task`, `local`, `blocking` or `block_on`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Local => "local",
            Self::Blocking => "blocking",
            Self::BlockOn => "block_on",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a task was doing.
///
/// For comparisons, `Some(state) == state` holds: `task.state() == State::Idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// In a poll.
    Running,
    /// Spawned or woken, waiting for its poll.
    Scheduled,
    /// Waiting to be woken.
    Idle,
}

impl State {
    /// The value of `tokio.task.state`: `running`, `scheduled` or `idle`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Scheduled => "scheduled",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl PartialEq<State> for Option<State> {
    fn eq(&self, other: &State) -> bool {
        self.as_ref() == Some(other)
    }
}

/// Where tasks of one sort are spawned: the place, the kind and the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SiteKey {
    pub(crate) location: Location,
    pub(crate) kind: Kind,
    pub(crate) name: Option<Arc<str>>,
    /// The one site that stands for all beyond the limit.
    pub(crate) overflow: bool,
}

/// A task that was alive when the snapshot was taken.
///
/// Times agree with each other: `busy + scheduled + idle` is the age (up to the
/// nanosecond), and a task in a poll has that poll's time in `busy`. What the
/// source of this task can't know is `None`, never zero.
#[derive(Clone)]
pub struct Task {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: TaskId,
    pub(crate) root: TaskId,
    pub(crate) kind: Kind,
    pub(crate) daemon: bool,
    pub(crate) knows_wakes: bool,
    pub(crate) state: Option<State>,
    pub(crate) site_index: u32,
    /// Zero where it is unknown.
    pub(crate) runtime: u32,
    pub(crate) lineage: u32,
    /// Bytes of the future plus one; zero where unknown.
    pub(crate) size: u32,
    pub(crate) spawned_at: Nanos,
    /// In nanoseconds, as are the next four.
    pub(crate) age: u64,
    pub(crate) busy: u64,
    pub(crate) scheduled: u64,
    pub(crate) longest_poll: u64,
    /// Zero before the first poll.
    pub(crate) last_polled: Nanos,
    pub(crate) polls: u64,
    pub(crate) wakes: u64,
    pub(crate) self_wakes: u64,
    pub(crate) wakers: u32,
    pub(crate) orphaned: Option<Orphaned>,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) parent: Option<Parent>,
}

/// What the tasks of one snapshot have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) wall: Wall,
    /// By their numbers, as are the runtimes.
    pub(crate) sites: Vec<Arc<SiteKey>>,
    pub(crate) runtimes: HashMap<u32, tokio::runtime::Id>,
}

impl Task {
    /// tokio's task id. Compares with a [`tokio::task::Id`].
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The name given to `task::Builder::name` or [`straggler::task`](crate::task),
    /// cut at [`Builder::max_name_len`](crate::Builder::max_name_len) bytes.
    pub fn name(&self) -> Option<&str> {
        self.place().name.as_deref()
    }

    /// Task, local, blocking or block_on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it was spawned.
    pub fn location(&self) -> &Location {
        &self.place().location
    }

    pub(crate) fn named(&self) -> Named<'_> {
        Named(self.location(), self.name(), self.kind)
    }

    /// The innermost scope that it was spawned in.
    #[cfg(feature = "testing")]
    pub(crate) fn scope(&self) -> Option<&Scope> {
        self.rare.as_ref()?.scope.as_deref()
    }

    fn place(&self) -> &SiteKey {
        match self.rare.as_ref().and_then(|rare| rare.own.as_ref()) {
            Some(own) => own,
            None => &self.shared.sites[self.site_index as usize],
        }
    }

    /// What spawned it. `None` for a root: spawned outside of every task and user span.
    pub fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    /// The first of its line: the task that no task spawned, from which this one
    /// descends, or itself. It may have ended.
    pub fn root(&self) -> TaskId {
        self.root
    }

    /// The runtime that polls it; `None` before its first poll where that can't be
    /// known earlier, and for `straggler::spawn` without the layer.
    pub fn runtime(&self) -> Option<tokio::runtime::Id> {
        self.shared.runtimes.get(&self.runtime).copied()
    }

    /// Whether it was declared a daemon: by [`daemon`](crate::daemon), or because its
    /// location is on the list of [`Builder::daemon_spawned_at`](crate::Builder::daemon_spawned_at).
    /// A daemon is never an orphan.
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }

    /// How long it has lived.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.age)
    }

    /// When it was spawned.
    pub fn spawned_at(&self) -> SystemTime {
        self.shared.wall.time(self.spawned_at)
    }

    /// Running, scheduled or idle. Without wake events (hooks, `straggler::spawn`
    /// alone, `block_on`) scheduled and idle can't be told apart: `None`, once it has
    /// been polled and is not in a poll.
    pub fn state(&self) -> Option<State> {
        self.state
    }

    /// Polls started.
    pub fn polls(&self) -> u64 {
        self.polls
    }

    /// Time in polls, the present one included.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy)
    }

    /// Time between a wake (or the spawn) and the poll it led to.
    pub fn scheduled(&self) -> Option<Duration> {
        let known = self.knows_schedule();
        known.then(|| Duration::from_nanos(self.scheduled))
    }

    /// Time spent waiting to be woken.
    pub fn idle(&self) -> Option<Duration> {
        let active = self.busy.saturating_add(self.scheduled);
        let idle = self.age.saturating_sub(active);
        self.knows_schedule().then(|| Duration::from_nanos(idle))
    }

    /// A blocking closure runs once: before that it waits for its thread.
    fn knows_schedule(&self) -> bool {
        self.knows_wakes || self.last_polled == 0
    }

    /// The longest poll so far, the present one included.
    pub fn longest_poll(&self) -> Duration {
        Duration::from_nanos(self.longest_poll)
    }

    /// When its last poll ended, or the time of the snapshot while it is in one.
    pub fn last_polled(&self) -> Option<SystemTime> {
        (self.last_polled != 0).then(|| self.shared.wall.time(self.last_polled))
    }

    /// How often one of its wakers was used.
    pub fn wakes(&self) -> Option<u64> {
        self.knows_wakes.then_some(self.wakes)
    }

    /// How often it woke itself from within its own poll.
    pub fn self_wakes(&self) -> Option<u64> {
        self.knows_wakes.then_some(self.self_wakes)
    }

    /// Wakers of this task that somebody holds now.
    pub fn wakers(&self) -> Option<u64> {
        self.knows_wakes.then(|| u64::from(self.wakers))
    }

    /// Bytes of its future as spawned.
    pub fn size(&self) -> Option<usize> {
        (self.size as usize).checked_sub(1)
    }

    /// Since when, why and how surely it is an orphan: alive past the grace after
    /// what started it ended. That is a fact about its lineage, not yet a verdict
    /// that it does harm.
    pub fn orphaned(&self) -> Option<&Orphaned> {
        self.orphaned.as_ref()
    }
}

impl fmt::Debug for Task {
    /// What it says of itself, without what it shares with others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("name", &self.name())
            .field("kind", &self.kind)
            .field("location", self.location())
            .field("daemon", &self.daemon)
            .field("parent", &self.parent)
            .field("root", &self.root)
            .field("runtime", &self.runtime())
            .field("age", &self.age())
            .field("spawned_at", &self.spawned_at())
            .field("state", &self.state)
            .field("polls", &self.polls)
            .field("busy", &self.busy())
            .field("scheduled", &self.scheduled())
            .field("idle", &self.idle())
            .field("longest_poll", &self.longest_poll())
            .field("last_polled", &self.last_polled())
            .field("wakes", &self.wakes())
            .field("self_wakes", &self.self_wakes())
            .field("wakers", &self.wakers())
            .field("size", &self.size())
            .field("orphaned", &self.orphaned)
            .finish()
    }
}
