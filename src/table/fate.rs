//! What becomes of a task or a span that others descend from.
//!
//! A child must learn when its parent ended, though nothing is kept of a task that
//! has ended. So the first child makes a fate, parent and children share it, and it
//! goes when the last of them does.

use super::scopes::{Innermost, Scope};
use crate::clock::Nanos;
use crate::task::{ParentSpan, TaskId};
use parking_lot::Mutex;
use std::sync::Arc;
// Not the exchanged ones: these hold no protocol that a model could check.
use std::sync::atomic::{AtomicU64, Ordering};

/// The fate of a task that has children.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) id: TaskId,
    /// Its outermost known ancestor.
    pub(crate) root: u64,
    ended_at: AtomicU64,
    ending_since: AtomicU64,
    /// What its children are spawned in: the task's own scope, or one that it opened.
    pub(super) scope: Mutex<Innermost>,
}

/// The root of a task that is not in the table, and of which nothing will be told.
const UNSEEN: u64 = 0;

impl Fate {
    pub(crate) fn new(id: TaskId, root: u64, scope: Option<Arc<Scope>>) -> Arc<Self> {
        Arc::new(Self {
            id,
            root,
            ended_at: AtomicU64::new(0),
            ending_since: AtomicU64::new(0),
            scope: Mutex::new(Innermost::of(scope)),
        })
    }

    pub(crate) fn unseen(id: TaskId) -> Arc<Self> {
        Self::new(id, UNSEEN, None)
    }

    pub(crate) fn is_seen(&self) -> bool {
        self.root != UNSEEN
    }

    pub(crate) fn end(&self, at: Nanos) {
        // Release pairs with the acquire below: who knows of the end knows all before it.
        self.ended_at.store(at, Ordering::Release);
    }

    pub(crate) fn ended_at(&self) -> Option<Nanos> {
        some(self.ended_at.load(Ordering::Acquire))
    }

    /// It looks as if it had ended; zero takes that back.
    pub(crate) fn set_ending_since(&self, at: Nanos) {
        self.ending_since.store(at, Ordering::Relaxed);
    }

    pub(crate) fn ending_since(&self) -> Option<Nanos> {
        some(self.ending_since.load(Ordering::Relaxed))
    }
}

/// The fate of a user span under which tasks were spawned.
#[derive(Debug)]
pub(crate) struct SpanFate {
    span: ParentSpan,
    /// The task in which the span was created, where that is known.
    pub(crate) home: Option<Arc<Fate>>,
    closed_at: AtomicU64,
    /// When its home task left it last; zero while it is inside.
    left_at: AtomicU64,
    /// The home task's turns at that moment.
    left_in_turn: AtomicU64,
}

impl SpanFate {
    pub(crate) fn new(span: ParentSpan, home: Option<Arc<Fate>>) -> Arc<Self> {
        Arc::new(Self {
            span,
            home,
            closed_at: AtomicU64::new(0),
            left_at: AtomicU64::new(0),
            left_in_turn: AtomicU64::new(0),
        })
    }

    pub(crate) fn span(&self) -> ParentSpan {
        self.span
    }

    pub(crate) fn close(&self, at: Nanos) {
        self.closed_at.store(at, Ordering::Release);
    }

    pub(crate) fn closed_at(&self) -> Option<Nanos> {
        some(self.closed_at.load(Ordering::Acquire))
    }

    /// Only the thread that polls the home task calls this and the next.
    pub(crate) fn enter(&self) {
        self.left_at.store(0, Ordering::Release);
    }

    pub(crate) fn leave(&self, at: Nanos, home_turns: u64) {
        self.left_in_turn.store(home_turns, Ordering::Relaxed);
        self.left_at.store(at, Ordering::Release);
    }

    /// When the home task left it, and in which of its turns.
    pub(crate) fn left(&self) -> Option<(Nanos, u64)> {
        let at = some(self.left_at.load(Ordering::Acquire))?;
        Some((at, self.left_in_turn.load(Ordering::Relaxed)))
    }
}

fn some(nanos: Nanos) -> Option<Nanos> {
    (nanos != 0).then_some(nanos)
}
