//! What is known of a task from its spawn on, and rarely changes.

use super::fate::Fate;
use super::lineages::TOP;
use super::scopes::Scope;
use crate::clock::Nanos;
use crate::task::{Kind, SiteKey, Spans, TaskId};
use std::num::NonZeroU64;
use std::sync::Arc;

/// One for each live task, so every byte counts.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Never zero, which saves the word that would say whether there is a record.
    spawned_at: NonZeroU64,
    pub(crate) lineage: u32,
    /// Bytes of the future plus one; zero where unknown.
    pub(crate) size: u32,
    /// Made by the first child.
    pub(crate) fate: Option<Arc<Fate>>,
    pub(crate) parent: ParentTask,
    pub(crate) spans: Option<Arc<Spans>>,
    pub(crate) rare: Option<Box<Rare>>,
}

/// What few tasks have, or none but those of tests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    /// Place and name, where the site is the overflow site and can't tell.
    pub(crate) own: Option<SiteKey>,
    /// The innermost scope that it was spawned in.
    pub(crate) scope: Option<Arc<Scope>>,
}

/// The task that was being polled where this one was spawned.
#[derive(Clone, Debug)]
pub(crate) struct ParentTask(Option<Arc<Fate>>);

/// The same, to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ParentRef<'a> {
    None,
    /// There was one, but it is not in the table.
    Unknown(TaskId),
    Known(&'a Arc<Fate>),
}

impl ParentTask {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn unknown(id: TaskId) -> Self {
        Self(Some(Fate::unseen(id)))
    }

    pub(crate) fn known(fate: Arc<Fate>) -> Self {
        Self(Some(fate))
    }

    pub(crate) fn as_ref(&self) -> ParentRef<'_> {
        match &self.0 {
            None => ParentRef::None,
            Some(fate) if fate.is_seen() => ParentRef::Known(fate),
            Some(fate) => ParentRef::Unknown(fate.id),
        }
    }
}

impl Record {
    /// A task without a spawner, until that is known.
    pub(crate) fn new(spawned_at: Nanos) -> Self {
        Self {
            spawned_at: NonZeroU64::new(spawned_at).unwrap_or(NonZeroU64::MIN),
            lineage: TOP,
            size: 0,
            fate: None,
            parent: ParentTask::NONE,
            spans: None,
            rare: None,
        }
    }

    pub(crate) fn spawned_at(&self) -> Nanos {
        self.spawned_at.get()
    }

    pub(crate) fn scope(&self) -> Option<&Arc<Scope>> {
        self.rare.as_ref()?.scope.as_ref()
    }

    /// Place and name, where the site can't tell.
    #[cfg(feature = "otlp")]
    pub(crate) fn own(&self) -> Option<&SiteKey> {
        self.rare.as_ref()?.own.as_ref()
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The outermost ancestor that is known, of the task of this id: itself, if it has none.
    pub(crate) fn root(&self, id: u64) -> u64 {
        match self.parent.as_ref() {
            ParentRef::Known(fate) => fate.root,
            ParentRef::None | ParentRef::Unknown(_) => id,
        }
    }

    /// Whether it may have outlived what started it by `grace` at `at`: false only where
    /// it surely has not, but for a span that was left and never closed.
    #[cfg(feature = "otlp")]
    pub(super) fn may_have_outlived(&self, at: Nanos, grace: u64) -> bool {
        let past = |end: Option<Nanos>| {
            // What ended before did not start it.
            end.is_some_and(|end| end >= self.spawned_at() && at.saturating_sub(end) >= grace)
        };
        if let ParentRef::Known(fate) = self.parent.as_ref()
            && past(fate.ended_at().or(fate.ending_since()))
        {
            return true;
        }
        let span = (self.spans.as_ref()).and_then(|spans| spans.outermost.as_ref());
        span.is_some_and(|span| {
            let home = span.home.as_ref();
            past(span.closed_at())
                || past(home.and_then(|home| home.ended_at().or(home.ending_since())))
        })
    }

    /// The fate that a child shares; taken by [`Slot::fate`](super::Slot::fate).
    pub(super) fn fate(&mut self, id: u64) -> Arc<Fate> {
        let root = self.root(id);
        if let Some(fate) = &self.fate {
            return Arc::clone(fate);
        }
        let fate = Fate::new(TaskId::from_u64(id), root, self.scope().cloned());
        self.fate = Some(Arc::clone(&fate));
        fate
    }
}

/// A task's traits, packed so that the poll path reads one word.
pub(crate) mod traits {
    use super::Kind;

    const KIND: u32 = 0b11;
    /// Its polls are told by `straggler::spawn`'s own wrapper.
    pub(crate) const BY_WRAPPER: u32 = 1 << 2;
    /// Its polls are told by runtime hooks; it is `HOOKED` too, and has no span.
    #[cfg(tokio_unstable)]
    pub(crate) const BY_HOOKS: u32 = 1 << 3;
    /// Waker events name its span: wakes are known.
    pub(crate) const KNOWS_WAKES: u32 = 1 << 4;
    pub(crate) const DAEMON: u32 = 1 << 5;
    /// A poll was left by a panic.
    pub(crate) const PANICKED: u32 = 1 << 6;
    /// Tasks were spawned under a user span that this task created.
    pub(crate) const HOSTS_SPANS: u32 = 1 << 7;
    /// It must have ended, by its runtime's count, though its span is open.
    pub(crate) const PRESUMED: u32 = 1 << 9;
    /// Its runtime's terminate hook will tell of its end.
    pub(crate) const HOOKED: u32 = 1 << 8;
    /// Others descend from it, and share its fate.
    pub(crate) const HAS_FATE: u32 = 1 << 13;
    /// Threads that don't tell of their wakes may wake it.
    pub(crate) const MAY_MISS_WAKES: u32 = 1 << 14;
    /// And in its newest turn it cloned its own waker, which no drop of a future does.
    pub(crate) const REGISTERED: u32 = 1 << 15;
    /// It was found to be an orphan, and is told of as one.
    #[cfg(feature = "otlp")]
    pub(crate) const MARKED: u32 = 1 << 10;

    /// An orphan of which no span tells, nor will when it ends.
    #[cfg(feature = "otlp")]
    pub(crate) const UNTOLD: u32 = 1 << 11;

    /// It was counted as an orphan: once, also where it was taken for ended and came back.
    #[cfg(feature = "otlp")]
    pub(crate) const COUNTED: u32 = 1 << 12;

    pub(crate) fn of(kind: Kind) -> u32 {
        Kind::ALL
            .iter()
            .position(|&k| k == kind)
            .map_or(0, |at| at as u32)
    }

    pub(crate) fn kind(traits: u32) -> Kind {
        Kind::ALL[(traits & KIND) as usize]
    }
}
