//! Plain data about one task, as it was when the snapshot was taken.

mod id;
mod lineage;
mod location;

pub use id::TaskId;
pub(crate) use id::{current as raw_current, raw as raw_id};
pub(crate) use lineage::Spans;
pub use lineage::{Cause, Certainty, Orphaned, Parent, ParentSpan, ParentStatus};
pub use location::Location;

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
#[derive(Clone, Debug)]
pub struct Task {
    pub(crate) id: TaskId,
    pub(crate) site: Arc<SiteKey>,
    pub(crate) site_index: u32,
    pub(crate) kind: Kind,
    pub(crate) location: Option<Arc<Location>>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) daemon: bool,
    pub(crate) parent: Option<Parent>,
    pub(crate) root: TaskId,
    pub(crate) lineage: u32,
    pub(crate) runtime: Option<tokio::runtime::Id>,
    pub(crate) age: Duration,
    pub(crate) spawned_at: SystemTime,
    pub(crate) state: Option<State>,
    pub(crate) polls: u64,
    pub(crate) busy: Duration,
    pub(crate) scheduled: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) longest_poll: Duration,
    pub(crate) last_polled: Option<SystemTime>,
    pub(crate) wakes: Option<u64>,
    pub(crate) self_wakes: Option<u64>,
    pub(crate) wakers: Option<u64>,
    pub(crate) size: Option<usize>,
    pub(crate) orphaned: Option<Orphaned>,
}

impl Task {
    /// tokio's task id. Compares with a [`tokio::task::Id`].
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The name given to `task::Builder::name` or [`straggler::task`](crate::task),
    /// cut at [`Builder::max_name_len`](crate::Builder::max_name_len) bytes.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Task, local, blocking or block_on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it was spawned.
    pub fn location(&self) -> &Location {
        match &self.location {
            Some(location) => location,
            None => &self.site.location,
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
        self.runtime
    }

    /// Whether it was declared a daemon: by [`daemon`](crate::daemon), or because its
    /// location is on the list of [`Builder::daemon_spawned_at`](crate::Builder::daemon_spawned_at).
    /// A daemon is never an orphan.
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }

    /// How long it has lived.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// When it was spawned.
    pub fn spawned_at(&self) -> SystemTime {
        self.spawned_at
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
        self.busy
    }

    /// Time between a wake (or the spawn) and the poll it led to.
    pub fn scheduled(&self) -> Option<Duration> {
        self.scheduled
    }

    /// Time spent waiting to be woken.
    pub fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// The longest poll so far, the present one included.
    pub fn longest_poll(&self) -> Duration {
        self.longest_poll
    }

    /// When its last poll ended, or the time of the snapshot while it is in one.
    pub fn last_polled(&self) -> Option<SystemTime> {
        self.last_polled
    }

    /// How often one of its wakers was used.
    pub fn wakes(&self) -> Option<u64> {
        self.wakes
    }

    /// How often it woke itself from within its own poll.
    pub fn self_wakes(&self) -> Option<u64> {
        self.self_wakes
    }

    /// Wakers of this task that somebody holds now.
    pub fn wakers(&self) -> Option<u64> {
        self.wakers
    }

    /// Bytes of its future as spawned.
    pub fn size(&self) -> Option<usize> {
        self.size
    }

    /// Since when, why and how surely it is an orphan: alive past the grace after
    /// what started it ended. That is a fact about its lineage, not yet a verdict
    /// that it does harm.
    pub fn orphaned(&self) -> Option<&Orphaned> {
        self.orphaned.as_ref()
    }
}
