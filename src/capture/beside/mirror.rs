//! Which span of a neighbour's stands for which of ours.

use super::{own, thread};
use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing_core::span::Id;
use tracing_core::{Dispatch, dispatcher};

/// By the number in our registry. No lock of it is held while a neighbour is called.
#[derive(Default)]
pub(super) struct Mirror {
    spans: DashMap<u64, Arc<Theirs>>,
}

/// A neighbour's span.
pub(super) struct Theirs {
    pub(super) neighbour: Arc<Dispatch>,
    pub(super) id: Id,
    /// Those of the program. The neighbour has one hold for all of them and counts its own
    /// children, as a child that it doesn't see may keep our span open for longer.
    handles: AtomicUsize,
}

/// What a neighbour is told of a parent.
#[derive(Debug)]
pub(super) enum Parent {
    AsIs,
    Span(Id),
    /// It doesn't have that span, as if it had been disabled.
    None,
}

impl Mirror {
    pub(super) fn get(&self, own: &Id) -> Option<Arc<Theirs>> {
        self.spans
            .get(&own.into_u64())
            .map(|theirs| Arc::clone(&theirs))
    }

    pub(super) fn insert(&self, own: &Id, neighbour: Arc<Dispatch>, id: Id) {
        let theirs = Theirs {
            neighbour,
            id,
            handles: AtomicUsize::new(1),
        };
        self.spans.insert(own.into_u64(), Arc::new(theirs));
    }

    /// There is one more handle to this span.
    pub(super) fn hold(&self, own: &Id) {
        if let Some(theirs) = self.get(own) {
            theirs.handles.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// There is one handle less. Gives what stood for the span if it was the last. Called
    /// before our registry can use the number again.
    pub(super) fn release(&self, own: &Id) -> Option<Arc<Theirs>> {
        let theirs = self.get(own)?;
        if theirs.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        self.spans.remove(&own.into_u64());
        Some(theirs)
    }

    pub(super) fn parent(&self, parent: Option<&Id>, neighbour: &Arc<Dispatch>) -> Parent {
        let Some(own) = parent.and_then(own) else {
            return Parent::AsIs;
        };
        match self.get(&own) {
            Some(theirs) if is_same(&theirs.neighbour, neighbour) => {
                Parent::Span(theirs.id.clone())
            }
            _ => Parent::None,
        }
    }
}

/// Whether both are the same subscriber, met on different threads.
fn is_same(one: &Arc<Dispatch>, other: &Arc<Dispatch>) -> bool {
    // Nothing but its text tells of a dispatcher which it is: kind and address.
    Arc::ptr_eq(one, other) || format!("{one:?}") == format!("{other:?}")
}

/// Gives up one hold on a span of a neighbour's.
pub(super) fn close(neighbour: &Dispatch, id: Id) -> bool {
    // A registry gives the hold on the span's parent back through the thread's subscriber.
    match thread::is_here() {
        Some(_) => dispatcher::with_default(neighbour, || neighbour.try_close(id)),
        None => neighbour.try_close(id),
    }
}
