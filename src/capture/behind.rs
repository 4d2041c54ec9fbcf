//! Layers that their subscriber doesn't give out by type, as `tracing_subscriber::reload` does.
//!
//! Such a layer is found by its subscriber's registry: while a subscriber lives, no other has
//! a registry at the same address.

use super::layer::Capture;
use super::parents::ParentRules;
use crate::table::Table;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tracing_core::Dispatch;
use tracing_core::dispatcher::{self, WeakDispatch};
use tracing_subscriber::Registry;

static BEHIND: RwLock<Vec<Behind>> = RwLock::new(Vec::new());
/// Nearly always zero, and then nobody takes the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Behind {
    registry: usize,
    dispatch: WeakDispatch,
    /// Lives as long as the layer, which may be taken out while the table is still asked.
    seat: Weak<()>,
    table: Weak<Table>,
    rules: Weak<ParentRules>,
}

impl Behind {
    fn is_there(&self) -> bool {
        self.seat.strong_count() > 0
    }
}

/// Connects the layer of this table with its subscriber where nobody told it of that: layers
/// in an `Option` or a `Vec` hear nothing of `on_register_dispatch`.
pub(crate) fn connect(table: &Table) {
    dispatcher::get_default(|dispatch| {
        if let Some(capture) = dispatch.downcast_ref::<Capture>()
            && std::ptr::eq(Arc::as_ptr(&capture.table), table)
        {
            capture.connect(dispatch);
        }
    });
}

/// Remembers a layer, if its subscriber doesn't give it out.
pub(crate) fn note(dispatch: &Dispatch, capture: &Capture) {
    let Some(registry) = address(dispatch) else {
        return;
    };
    if dispatch.is::<Capture>() {
        return;
    }
    let mut behind = BEHIND.write();
    behind.retain(Behind::is_there);
    behind.push(Behind {
        registry,
        dispatch: dispatch.downgrade(),
        seat: Arc::downgrade(&capture.seat),
        table: Arc::downgrade(&capture.table),
        rules: Arc::downgrade(&capture.rules),
    });
    COUNT.store(behind.len(), Ordering::Release);
}

/// The layer in this subscriber.
pub(crate) fn find(dispatch: &Dispatch) -> Option<(Arc<Table>, Arc<ParentRules>)> {
    match dispatch.downcast_ref::<Capture>() {
        Some(capture) => Some((Arc::clone(&capture.table), Arc::clone(&capture.rules))),
        None => hidden(dispatch),
    }
}

/// Whether this subscriber has the layer of this table.
pub(crate) fn is_in(dispatch: &Dispatch, table: &Table) -> bool {
    let is_ours = |found: &Arc<Table>| std::ptr::eq(Arc::as_ptr(found), table);
    match dispatch.downcast_ref::<Capture>() {
        Some(capture) => is_ours(&capture.table),
        None => hidden(dispatch).is_some_and(|(found, _)| is_ours(&found)),
    }
}

fn hidden(dispatch: &Dispatch) -> Option<(Arc<Table>, Arc<ParentRules>)> {
    if COUNT.load(Ordering::Acquire) == 0 {
        return None;
    }
    let registry = address(dispatch)?;
    let behind = BEHIND.read();
    // A subscriber that lives at this address is the one that we hold, so dropping what
    // `upgrade` gives frees nothing.
    let found = (behind.iter())
        .filter(|behind| behind.registry == registry && behind.is_there())
        .find(|behind| behind.dispatch.upgrade().is_some())?;
    Some((found.table.upgrade()?, found.rules.upgrade()?))
}

fn address(dispatch: &Dispatch) -> Option<usize> {
    let registry = dispatch.downcast_ref::<Registry>()?;
    Some(std::ptr::from_ref(registry) as usize)
}
