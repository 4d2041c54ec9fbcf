//! Layers that their subscriber doesn't give out by type, as `tracing_subscriber::reload` does.
//!
//! Such a layer is found by its subscriber's registry: while a subscriber lives, no other has
//! a registry at the same address.

use super::beside::Beside;
use super::layer::Capture;
#[cfg(feature = "otlp")]
use crate::export::Exporter;
use crate::monitor::Monitor;
use crate::table::Table;
use crate::tasks::{Shared, Tasks};
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
    shared: Weak<Shared>,
    monitor: Option<Weak<Monitor>>,
    #[cfg(feature = "otlp")]
    exporter: Option<Weak<Exporter>>,
}

impl Behind {
    fn is_there(&self) -> bool {
        self.seat.strong_count() > 0
    }

    fn tasks(&self) -> Option<Tasks> {
        Some(Tasks {
            shared: self.shared.upgrade()?,
            monitor: self.monitor.as_ref().and_then(Weak::upgrade),
            #[cfg(feature = "otlp")]
            exporter: self.exporter.as_ref().and_then(Weak::upgrade),
        })
    }
}

/// Connects the layer of this table with its subscriber where nobody told it of that: layers
/// in an `Option` or a `Vec` hear nothing of `on_register_dispatch`.
pub(crate) fn connect(table: &Table) {
    dispatcher::get_default(|dispatch| {
        if let Some(capture) = given_out(dispatch)
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
        shared: Arc::downgrade(&capture.shared),
        monitor: capture.monitor.as_ref().map(Arc::downgrade),
        #[cfg(feature = "otlp")]
        exporter: capture.exporter.as_ref().map(Arc::downgrade),
    });
    COUNT.store(behind.len(), Ordering::Release);
}

/// What the layer in this subscriber shares with its handles.
pub(crate) fn find(dispatch: &Dispatch) -> Option<Arc<Shared>> {
    match given_out(dispatch) {
        Some(capture) => Some(Arc::clone(&capture.shared)),
        None => hidden(dispatch, |behind| behind.shared.upgrade()),
    }
}

/// A handle for the layer in this subscriber.
pub(crate) fn tasks(dispatch: &Dispatch) -> Option<Tasks> {
    match given_out(dispatch) {
        Some(capture) => Some(capture.tasks()),
        None => hidden(dispatch, Behind::tasks),
    }
}

/// Whether this subscriber has the layer of this table.
pub(crate) fn is_in(dispatch: &Dispatch, table: &Table) -> bool {
    let is_ours = |found: &Arc<Table>| std::ptr::eq(Arc::as_ptr(found), table);
    match given_out(dispatch) {
        Some(capture) => is_ours(&capture.table),
        None => hidden(dispatch, |behind| behind.shared.upgrade())
            .is_some_and(|found| is_ours(&found.table)),
    }
}

/// The layer, where the subscriber gives it out.
fn given_out(dispatch: &Dispatch) -> Option<&Capture> {
    let capture = dispatch.downcast_ref::<Capture>();
    capture.or_else(|| dispatch.downcast_ref::<Beside>()?.capture())
}

fn hidden<R>(dispatch: &Dispatch, f: impl FnOnce(&Behind) -> Option<R>) -> Option<R> {
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
    f(found)
}

fn address(dispatch: &Dispatch) -> Option<usize> {
    let registry = dispatch.downcast_ref::<Registry>()?;
    Some(std::ptr::from_ref(registry) as usize)
}
